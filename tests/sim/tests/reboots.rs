//! Two machines whose updaters want them rebooted at the same moment.

use fleet_sim::planted::Planted;
use fleet_sim::run::{Options, Outcome, run_script};
use fleet_sim::script::{Action, FAULTS_FROM_MS, Script, Timed};
use fleet_sim::verdict::Check;

fn two_at_once(planted: Option<Planted>) -> Outcome {
    let wants = |machine| Timed {
        at_ms: FAULTS_FROM_MS,
        action: Action::LockedReboot { machine, down_ms: 15_000 },
    };
    let script = Script { machines: 3, calm: false, actions: vec![wants(1), wants(2)] };
    run_script(7, script, &Options { planted, ..Options::default() })
}

#[test]
fn of_two_updaters_at_once_one_reboots_its_machine_and_then_the_other() {
    let outcome = two_at_once(None);
    assert_eq!(outcome.verdict, None, "{}", outcome.history.join("\n"));
    let yes = |what: &str| {
        let said = outcome.history.iter().filter(|line| line.contains(what));
        said.filter(|line| line.ends_with(": 200")).count()
    };
    assert_eq!((yes("pre-reboot"), yes("steady-state")), (2, 2), "{}", outcome.history.join("\n"));
}

#[test]
fn leave_that_is_forgotten_is_found() {
    let outcome = two_at_once(Some(Planted::ForgetsLeave));
    let check = outcome.verdict.as_ref().map(|verdict| verdict.check);
    assert_eq!(check, Some(Check::Reboots), "{}", outcome.history.join("\n"));
}
