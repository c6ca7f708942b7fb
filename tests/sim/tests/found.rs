//! What the simulator found, each as the smallest script that shows it. The table is in
//! docs/testing.md.

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

/// Seed 1112: killed between a stop and the note of it, fleetd took the stopped unit for one that
/// had ended by itself, and left it so.
#[test]
fn a_crash_at_any_call_while_a_unit_stops_keeps_no_later_launch_from_starting_it() {
    let unit = "db.service";
    for calls in 1..=25 {
        let desire = |desired| user(Wish::Desire { unit, desired });
        let armed = (0..3).map(|machine| (4_990, Action::CrashAtCall { machine, calls }));
        let before =
            [(2_000, user(Wish::Submit { unit, text: 0, desired: Some(DesiredState::Launched) }))];
        let after =
            [(5_000, desire(DesiredState::Loaded)), (5_300, desire(DesiredState::Launched))];
        assert_well(
            &run_script(
                1,
                script(before.into_iter().chain(armed).chain(after)),
                &Options::default(),
            ),
            calls,
        );
    }
}

/// Seed 3166: killed between a start and the note of it, and wanted only loaded when it came back,
/// fleetd took the unit for a socket's.
#[test]
fn a_crash_at_any_call_while_a_unit_starts_keeps_nothing_from_being_stopped_again() {
    let unit = "db.service";
    for calls in 1..=25 {
        let desire = |desired| user(Wish::Desire { unit, desired });
        let armed = (0..3).map(|machine| (3_990, Action::CrashAtCall { machine, calls }));
        let submitted =
            [(4_000, user(Wish::Submit { unit, text: 0, desired: Some(DesiredState::Launched) }))];
        let after = [(4_300, desire(DesiredState::Loaded))];
        assert_well(
            &run_script(1, script(armed.chain(submitted).chain(after)), &Options::default()),
            calls,
        );
    }
}

/// Seed 1320: killed between the removal of a template's last sharer and that of the file, fleetd
/// left the file for ever.
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

/// Seed 980: killed between the writing of a unit's file and the note of it, fleetd left the file
/// for ever when the unit went elsewhere.
#[test]
fn a_crash_at_any_call_while_a_unit_is_written_leaves_no_file() {
    for unit in ["db.service", "web@.service"] {
        for calls in 1..=25 {
            let armed = (0..3).map(|machine| (4_990, Action::CrashAtCall { machine, calls }));
            let launched = [
                (
                    5_000,
                    user(Wish::Submit {
                        unit,
                        text: 1,
                        desired: (unit == "db.service").then_some(DesiredState::Launched),
                    }),
                ),
                (5_001, user(Wish::Scale { unit, replicas: 3 })),
                (5_300, user(Wish::Destroy { unit })),
            ];
            assert_well(&run_script(1, script(armed.chain(launched)), &Options::default()), calls);
        }
    }
}

/// Seed 221: a fenced unit that its agent started while the keeper was being stopped took the place
/// of that stop; another one, which the stop had ended in good order, was taken for one that had
/// ended by itself, and stayed down.
#[test]
fn what_was_stopped_for_the_keepers_sake_comes_back_also_where_the_stop_of_the_keeper_was_overtaken()
 {
    let shards = [
        Wish::Submit { unit: "shard@.service", text: 0, desired: None },
        Wish::Scale { unit: "shard@.service", replicas: 6 },
    ];
    let singles = ["ledger.service", "twin.service"].map(|unit| Wish::Submit {
        unit,
        text: 1,
        desired: Some(DesiredState::Launched),
    });
    let submitted = shards.into_iter().chain(singles).map(|wish| (2_000, user(wish)));
    let stops = (0..3).map(|machine| {
        (20_000 + 25_000 * machine as u64, Action::KeeperStop { machine, again: false })
    });
    let script = script(submitted.chain(stops));
    for seed in 1..=20 {
        assert_well(&run_script(seed, script.clone(), &Options::default()), 0);
    }
}

/// Seed 3141: killed between the clearing of a unit's failure and its start, fleetd took it for one
/// that had ended by itself.
#[test]
fn a_crash_at_any_call_while_a_failed_unit_is_started_again_keeps_nothing_down() {
    let unit = "side.service";
    for calls in 1..=25 {
        let before =
            [(2_000, user(Wish::Submit { unit, text: 0, desired: Some(DesiredState::Launched) }))];
        let fails = (0..3).map(|machine| (5_000, Action::UnitFails { unit, machine, ms: 4_000 }));
        let armed = (0..3).map(|machine| (4_990, Action::CrashAtCall { machine, calls }));
        assert_well(
            &run_script(
                1,
                script(before.into_iter().chain(armed).chain(fails)),
                &Options::default(),
            ),
            calls,
        );
    }
}

/// Seed 1584, 2443: a report that was late overtook the next one, and stayed: nobody knew that it
/// was old.
#[test]
fn a_report_that_arrives_late_does_not_take_the_place_of_the_next_one() {
    let unit = "web@.service";
    let submitted = [
        (2_000, user(Wish::Submit { unit, text: 0, desired: None })),
        (2_001, user(Wish::Scale { unit, replicas: 3 })),
    ];
    let slow = (0..3).map(|machine| (5_000, Action::Delay { machine, ms: 20_000 }));
    let scales = (0..14).map(|step| {
        (6_000 + 1_300 * step, user(Wish::Scale { unit, replicas: 4 + step as u32 % 3 }))
    });
    let script = script(submitted.into_iter().chain(slow).chain(scales));
    for seed in 1..=60 {
        assert_well(&run_script(seed, script.clone(), &Options::default()), 0);
    }
}

/// A unit that was submitted again while it was being destroyed lost the text of its new record,
/// and so no machine could run it.
#[test]
fn a_unit_that_is_submitted_again_while_it_is_destroyed_keeps_its_text() {
    let unit = "db.service";
    let submit = || Wish::Submit { unit, text: 0, desired: Some(DesiredState::Launched) };
    let actions = [
        (2_000, user(submit())),
        (5_000, user(Wish::Destroy { unit })),
        (5_006, Action::Cut { machine: 0, requests: false, answers: true, ms: 1_000 }),
        (5_080, Action::User { user: 1, over: 1, wish: submit() }),
    ];
    for seed in 1..=30 {
        assert_well(&run_script(seed, script(actions.clone()), &Options::default()), 0);
    }
}

fn assert_well(outcome: &Outcome, calls: u32) {
    assert_eq!(
        outcome.verdict,
        None,
        "with the crash at call {calls}:\n{}",
        outcome.history.join("\n")
    );
}
