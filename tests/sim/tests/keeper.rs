//! What the simulated keepers do, where a whole run would not tell.

use fleet_core::model::DesiredState;
use fleet_sim::run::{Options, Outcome, run_script};
use fleet_sim::script::{Action, Script, Timed, Wish};

/// Three machines with two fenced units, and then this.
fn after_a_start(actions: impl IntoIterator<Item = (u64, Action)>) -> Outcome {
    let user = |wish| Action::User { user: 0, over: 0, wish };
    let ledger =
        Wish::Submit { unit: "ledger.service", text: 0, desired: Some(DesiredState::Launched) };
    let submit = Wish::Submit { unit: "shard@.service", text: 0, desired: None };
    let scale = Wish::Scale { unit: "shard@.service", replicas: 3 };
    let first = [(2_000, user(ledger)), (2_010, user(submit)), (2_020, user(scale))];
    let actions =
        first.into_iter().chain(actions).map(|(at_ms, action)| Timed { at_ms, action }).collect();
    let outcome = run_script(1, Script { machines: 3, calm: false, actions }, &Options::default());
    assert_eq!(outcome.verdict, None, "{}", outcome.history.join("\n"));
    outcome
}

fn lines<'a>(outcome: &'a Outcome, part: &str) -> Vec<&'a String> {
    outcome.history.iter().filter(|line| line.contains(part)).collect()
}

/// Nothing that is fenced stopped, and each keeper had as many lives as given.
fn goes_on(outcome: &Outcome, keepers: usize) {
    assert_eq!(lines(outcome, " active token").len(), 4, "{}", outcome.history.join("\n"));
    assert_eq!(lines(outcome, "deactivating token"), Vec::<&String>::new());
    assert_eq!(lines(outcome, "fleet-keeper.service active").len(), keepers);
    assert_eq!(lines(outcome, "fleet-guard.service active").len(), 3);
}

#[test]
fn a_restart_of_the_keepers_stops_nothing() {
    goes_on(
        &after_a_start((0..3).map(|machine| (10_000, Action::KeeperStop { machine, again: true }))),
        6,
    );
}

#[test]
fn a_keeper_that_crashes_or_hangs_is_replaced_before_its_lease_runs_out() {
    goes_on(&after_a_start((0..3).map(|machine| (10_000, Action::KeeperCrash { machine }))), 6);
    goes_on(
        &after_a_start((0..3).map(|machine| (10_000, Action::KeeperPause { machine, ms: 60_000 }))),
        6,
    );
}

#[test]
fn a_keeper_that_is_stopped_ends_all_that_is_fenced_and_says_so() {
    let outcome =
        after_a_start((0..3).map(|machine| (10_000, Action::KeeperStop { machine, again: false })));
    assert_eq!(lines(&outcome, "deactivating token").len(), 4, "{}", outcome.history.join("\n"));
    assert!(
        lines(&outcome, " active token").len() >= 8,
        "they run again:\n{}",
        outcome.history.join("\n")
    );
}

#[test]
fn a_guard_that_hangs_is_ended_by_the_watchdog_and_all_that_is_bound_to_it_with_it() {
    let outcome =
        after_a_start((0..3).map(|machine| (10_000, Action::GuardPause { machine, ms: 60_000 })));
    assert_eq!(lines(&outcome, "fleet-guard.service deactivating").len(), 3);
    assert!(lines(&outcome, "deactivating token").len() >= 4);
    assert!(
        lines(&outcome, " active token").len() >= 8,
        "they run again:\n{}",
        outcome.history.join("\n")
    );
}

#[test]
fn a_short_loss_of_the_store_stops_nothing_that_is_fenced_and_a_long_one_does() {
    let stops =
        |ms| lines(&after_a_start([(10_000, Action::NoQuorum { ms })]), "deactivating token").len();
    assert_eq!((stops(3_000), stops(20_000)), (0, 4));
}
