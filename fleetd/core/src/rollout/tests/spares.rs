//! Rollouts of units with spare instances (`UpdateOrder=start-first`).

use super::super::State;
use super::{Cluster, MACHINES};

/// Three instances that are healthy with their first text, of a unit with spare ones.
fn three_with_spares() -> Cluster {
    let text = "unit web@.service x3 | UpdateOrder=start-first";
    let mut cluster = Cluster::new(&format!("{MACHINES}{text}"));
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.rollout().state, State::Done);
    cluster
}

#[test]
fn with_spares_a_text_is_good_when_all_are_healthy_with_it_and_the_spare_goes() {
    let mut cluster = three_with_spares();
    cluster.submit("unit web@.service x3 rev=2 | UpdateOrder=start-first");
    cluster.look();
    assert_eq!(cluster.revisions(), vec![1, 1, 1, 2], "the spare is the first to have it");
    assert_eq!(cluster.until_quiet(0, "active"), 1);
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Done, vec![2; 3]));
}

#[test]
fn a_text_that_fails_on_its_spare_reaches_nobody_else() {
    for active in ["gave-up", "activating"] {
        let mut cluster = three_with_spares();
        cluster.submit("unit web@.service x3 rev=2 | UpdateOrder=start-first");
        let mut seen = Vec::new();
        for _ in 0..130 {
            let said = cluster.look();
            assert!(!said.contains('~'), "{active}: {said}");
            seen.extend(said.lines().filter(|line| !line.starts_with('…')).map(str::to_string));
            cluster.report(2, active);
        }
        assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Undone, vec![1; 3]));
        let failure = cluster.rollout().failure.as_ref().map(|failure| failure.instance.as_str());
        assert_eq!((failure, seen.len()), (Some("web@4.service"), 2), "{seen:#?}");
    }
}

#[test]
fn a_text_that_fails_after_its_spare_was_healthy_goes_back_behind_a_spare_of_the_good_one() {
    let mut cluster = three_with_spares();
    cluster.submit("unit web@.service x3 rev=2 | UpdateOrder=start-first");
    for _ in 0..2 {
        cluster.look();
        cluster.report(0, "active");
    }
    assert_eq!(cluster.revisions(), vec![1, 1, 2, 2]);
    cluster.report(2, "gave-up");
    cluster.until_quiet(2, "gave-up");
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Undone, vec![1; 3]));
}

#[test]
fn a_canary_has_a_spare_of_the_good_text_beside_it_until_it_is_healthy() {
    let mut cluster = three_with_spares();
    let canary = "unit web@.service x3 rev=2 | UpdateOrder=start-first | Canary=1";
    cluster.submit(canary);
    cluster.look();
    assert_eq!(cluster.revisions(), vec![1, 1, 1, 1]);
    cluster.report(0, "active");
    cluster.look();
    assert_eq!(cluster.revisions(), vec![1, 1, 1, 2]);
    cluster.until_quiet(0, "active");
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Paused, vec![1, 1, 2]));
}
