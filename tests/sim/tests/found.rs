//! What the simulator found, each as the smallest script that shows it. The table is in docs/testing.md.

use fleet_sim::run::{Options, run_script};
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
        assert_eq!(outcome.verdict, None, "with the crash at call {calls}:\n{}", outcome.history.join("\n"));
    }
}
