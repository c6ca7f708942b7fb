//! That the checks can fail: each planted bug is found by the check that it breaks, and within a
//! bounded number of seeds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fleet_sim::planted::Planted;
use fleet_sim::run::{Options, run};

/// The most seeds that any of the bugs may take. Found by running: the rarest takes some 60.
const SEEDS: u64 = 400;

#[test]
fn every_planted_bug_is_found_by_the_check_that_it_breaks() {
    let missed: Vec<&str> =
        Planted::ALL.into_iter().filter(|bug| !found(*bug)).map(Planted::name).collect();
    assert!(
        missed.is_empty(),
        "not found within {SEEDS} seeds by the check that they break: {missed:?}"
    );
}

/// The seed to begin with: one that found it before, if most do not.
fn begin(bug: Planted) -> u64 {
    match bug {
        Planted::BelievesTheStarting => 42,
        Planted::UnfencedCommit => 24,
        Planted::PingsBlindly => 20,
        Planted::GoesOnWhenPaused => 12,
        Planted::ForgetsWhatWasGood => 11,
        _ => 1,
    }
}

fn found(bug: Planted) -> bool {
    let options = Options { planted: Some(bug), ..Options::default() };
    let begin = begin(bug);
    let (next, found) = (AtomicU64::new(begin), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !found.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= begin + SEEDS {
                        return;
                    }
                    if run(seed, &options)
                        .verdict
                        .is_some_and(|verdict| verdict.check == bug.breaks())
                    {
                        found.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    found.into_inner()
}
