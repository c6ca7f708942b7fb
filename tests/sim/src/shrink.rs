//! Makes a failing script short: leaves out actions for as long as it still fails.

use std::collections::BTreeSet;

use crate::run::{Options, Outcome, run};
use crate::script::Script;

/// The most runs that are spent on it: a run takes a fraction of a second.
const RUNS: usize = 150;

/// The fewest actions found with which the same check fails, and what came of them. `first` is the
/// failing outcome with all actions of `options`.
pub fn shrink(seed: u64, options: &Options, first: Outcome) -> (BTreeSet<usize>, Outcome) {
    let mut kept =
        options.keep.clone().unwrap_or_else(|| (0..Script::of(seed).actions.len()).collect());
    let check = first.verdict.as_ref().map(|verdict| verdict.check);
    let mut outcome = first;
    let mut runs = 0;
    let mut size = kept.len().div_ceil(2);
    while size > 0 && runs < RUNS {
        let mut shorter = false;
        for chunk in kept.clone().into_iter().collect::<Vec<_>>().chunks(size) {
            let fewer: BTreeSet<usize> =
                kept.iter().filter(|number| !chunk.contains(number)).copied().collect();
            let tried = run(seed, &Options { keep: Some(fewer.clone()), ..options.clone() });
            runs += 1;
            if tried.verdict.as_ref().map(|verdict| verdict.check) == check {
                (kept, outcome, shorter) = (fewer, tried, true);
            }
            if runs >= RUNS {
                break;
            }
        }
        if !shorter || size > kept.len() {
            size = if size == 1 && !shorter { 0 } else { size.min(kept.len() + 1) / 2 };
        }
    }
    (kept, outcome)
}
