//! A seed stands for one history: the same in each run, whatever else runs beside it.

use fleet_sim::run::{Options, run};

#[test]
fn the_same_seed_gives_the_same_history() {
    let hash = |seed| run(seed, &Options::default()).hash;
    let seeds = [1, 2, 3, 4, 5, 6, 7, 8];
    let alone = seeds.map(hash);
    let beside = std::thread::scope(|scope| {
        seeds.map(|seed| scope.spawn(move || hash(seed))).map(|run| run.join().unwrap())
    });
    assert_eq!(alone, beside);
    assert_eq!(
        alone.iter().collect::<std::collections::BTreeSet<_>>().len(),
        seeds.len(),
        "each seed is another history"
    );
}

#[test]
fn a_shorter_script_is_deterministic_too() {
    let options = Options { keep: Some([0, 1, 2, 3].into()), ..Options::default() };
    assert_eq!(run(9, &options).history, run(9, &options).history);
}
