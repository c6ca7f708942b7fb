//! What the simulator found, each as the smallest script that shows it. The table is in docs/testing.md.

use fleet_core::model::DesiredState;
use fleet_sim::run::{Options, Outcome, run_script};
use fleet_sim::script::{Action, Script, Timed, Wish};

fn script(actions: impl IntoIterator<Item = (u64, Action)>) -> Script {
    let actions = actions.into_iter().map(|(at_ms, action)| Timed { at_ms, action }).collect();
    Script { machines: 3, calm: false, actions }
}

fn user(wish: Wish) -> Action {
    Action::User { user: 0, over: 0, wish }
}

/// Seed 316: killed between a start and the note of it, fleetd restarted what it had just started.
#[test]
fn a_crash_at_any_call_while_units_start_restarts_none_of_them() {
    for calls in 1..=60 {
        let unit = "web@.service";
        let script = script([
            (4_000, user(Wish::Submit { unit, text: 0, desired: None })),
            (4_990, Action::CrashAtCall { machine: 1, calls }),
            (5_000, user(Wish::Scale { unit, replicas: 6 })),
        ]);
        let outcome = run_script(1, script, &Options::default());
        assert_well(&outcome, calls);
    }
}

/// Seed 1112: killed between a stop and the note of it, fleetd took the stopped unit for one that had ended by itself, and left it so.
#[test]
fn a_crash_at_any_call_while_a_unit_stops_keeps_no_later_launch_from_starting_it() {
    let unit = "db.service";
    for calls in 1..=25 {
        let desire = |desired| user(Wish::Desire { unit, desired });
        let armed = (0..3).map(|machine| (4_990, Action::CrashAtCall { machine, calls }));
        let before = [(2_000, user(Wish::Submit { unit, text: 0, desired: Some(DesiredState::Launched) }))];
        let after = [(5_000, desire(DesiredState::Loaded)), (5_300, desire(DesiredState::Launched))];
        assert_well(&run_script(1, script(before.into_iter().chain(armed).chain(after)), &Options::default()), calls);
    }
}

/// Seed 1320: killed between the removal of a template's last sharer and that of the file, fleetd left the file for ever.
#[test]
fn a_crash_at_any_call_while_the_last_replica_goes_leaves_no_file() {
    let unit = "web@.service";
    for calls in 1..=25 {
        let script = script([
            (2_000, user(Wish::Submit { unit, text: 0, desired: None })),
            (2_001, user(Wish::Scale { unit, replicas: 3 })),
            (4_990, Action::CrashAtCall { machine: 1, calls }),
            (5_000, user(Wish::Scale { unit, replicas: 0 })),
        ]);
        assert_well(&run_script(1, script, &Options::default()), calls);
    }
}

fn assert_well(outcome: &Outcome, calls: u32) {
    assert_eq!(outcome.verdict, None, "with the crash at call {calls}:\n{}", outcome.history.join("\n"));
}
