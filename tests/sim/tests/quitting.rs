//! A unit that ends with a status at which its file gives up, on a machine whose fleetd crashes.

use fleet_core::model::DesiredState;
use fleet_sim::planted::Planted;
use fleet_sim::run::{Options, Outcome, run_script};
use fleet_sim::script::{Action, FAULTS_FROM_MS, QUITTER, Script, Timed, Wish};
use fleet_sim::verdict::Check;

/// Its text is the unit's `text`th.
fn quits(text: usize, planted: Option<Planted>) -> Outcome {
    let desired = Some(DesiredState::Launched);
    let submit = Wish::Submit { unit: QUITTER, text, desired };
    let mut actions =
        vec![Timed { at_ms: 5_000, action: Action::User { user: 0, over: 0, wish: submit } }];
    let crash = |machine| Timed {
        at_ms: FAULTS_FROM_MS,
        action: Action::CrashAtCall { machine, calls: 9 },
    };
    actions.extend((0..3).map(crash));
    let script = Script { machines: 3, calm: false, actions };
    run_script(7, script, &Options { planted, ..Options::default() })
}

#[test]
fn what_gives_up_by_its_file_fails_once_and_is_left_alone() {
    for text in [0, 1] {
        let outcome = quits(text, None);
        assert_eq!(outcome.verdict, None, "{}", outcome.history.join("\n"));
        let count = |line: &str| outcome.history.iter().filter(|said| said.ends_with(line)).count();
        assert_eq!(
            (count("start quit.service"), count("quit.service failed")),
            (1, 1),
            "{}",
            outcome.history.join("\n")
        );
    }
}

#[test]
fn what_is_started_though_it_gave_up_is_found() {
    let outcome = quits(0, Some(Planted::MistakesEnds));
    let check = outcome.verdict.as_ref().map(|verdict| verdict.check);
    assert_eq!(check, Some(Check::LeftAlone), "{}", outcome.history.join("\n"));
}
