//! What moves and when: lost, settling and returned machines, failing units.

use expect_test::expect;

use super::super::missing::SLOW_PAUSE_MS;
use super::super::passes::keep::FORGET_MOVES_MS;
use super::super::plan;
use super::super::script::{applied, print, snapshot};
use super::check;
use crate::name::MachineId;

#[test]
fn units_of_a_lost_machine_run_elsewhere_and_its_document_is_emptied() {
    check(
        "machine a
         machine b
         unit db.service
         unit old.service inactive
         unit web@.service x3
         on a: web@1.service
         on b: web@2.service
         on c: db.service old.service web@3.service",
        expect![[r#"
            - db.service off c: Lost
            - old.service off c: Lost
            - web@3.service off c: Lost
            + db.service on a: machine c was lost
            + web@3.service on b: machine c was lost"#]],
    );
}

#[test]
fn a_machine_that_may_come_back_keeps_its_units() {
    check(
        "machine a\nsettling b\nunit db.service\nunit web@.service x2\non b: db.service \
            web@1.service",
        expect!["+ web@2.service on a: fewest units of the machines that fit"],
    );
}

#[test]
fn a_copy_that_runs_wins_over_one_that_may_come_back() {
    check("machine b\nsettling a\nunit db.service\non a: db.service\non b: db.service", expect![]);
}

#[test]
fn a_machine_that_came_back_stops_what_has_moved() {
    check(
        "machine a\nmachine b\nunit db.service\non a: db.service\non b: db.service",
        expect!["- db.service off b: Twice"],
    );
}

#[test]
fn a_failing_unit_moves_to_the_machine_with_fewest_siblings() {
    check(
        "machine a
         machine b
         machine c
         unit other.service
         unit web@.service x2
         on a: web@1.service
         on b: web@2.service
         on c: other.service
         gave-up a: web@1.service",
        expect![[r#"
            - web@1.service off a: Failed
            + web@1.service on c: failed again and again on machine a"#]],
    );
}

#[test]
fn a_failing_unit_is_moved_again_only_after_a_growing_pause() {
    for (moves, since) in [(0, 999_000), (1, 985_000), (3, 999_999), (20, 999_000)] {
        let before = snapshot(&format!(
            "machine a\nmachine b\nunit x.service\non a: \
                x.service/moves={moves}/since={since}\ngave-up a: x.service"
        ));
        let wait = (10_000u64 << moves).min(3_600_000);
        assert_eq!(print(&plan(&before)), format!("wake at {}", since + wait), "{moves}");
    }
}

#[test]
fn a_failing_unit_that_ran_well_for_long_is_moved_as_if_for_the_first_time() {
    let at = |now: u64| {
        let text = format!(
            "now {now}\nmachine a\nmachine b\nunit x.service\non a: x.service/moves=9\ngave-up a: \
                x.service"
        );
        let plan = plan(&snapshot(&text));
        plan.documents
            .values()
            .flat_map(|d| d.instances.values())
            .map(|p| p.moves)
            .collect::<Vec<_>>()
    };
    assert_eq!((at(FORGET_MOVES_MS - 1), at(FORGET_MOVES_MS)), (vec![10], vec![1]));
}

#[test]
fn a_failing_unit_stays_where_nothing_else_fits() {
    check("machine a\nunit x.service\non a: x.service\ngave-up a: x.service", expect![]);
    check(
        "machine a d=1\nmachine b\nunit x.service | MachineMetadata=d=1\non a: x.service\ngave-up \
            a: x.service",
        expect![],
    );
}

#[test]
fn a_failing_unit_takes_its_followers_along() {
    check(
        "machine a
         machine b
         unit db.service
         unit s.service | MachineOf=db.service
         unit t.service | MachineOf=s.service
         on a: db.service s.service t.service
         gave-up a: db.service",
        expect![[r#"
            - db.service off a: Failed
            + db.service on b: failed again and again on machine a
            - s.service off a: Unfit(NotBeside { unit: "db.service" })
            + s.service on b: MachineOf: db.service is here
            - t.service off a: Unfit(NotBeside { unit: "s.service" })
            + t.service on b: MachineOf: s.service is here"#]],
    );
}

#[test]
fn a_move_that_makes_room_lets_another_move() {
    check(
        "machine a
         machine b
         unit x.service | Conflicts=y.service
         unit y.service
         on a: x.service
         on b: y.service
         machine c
         unit z.service | Conflicts=x.service
         on c: z.service
         gave-up a: x.service
         gave-up b: y.service",
        expect![[r#"
            - y.service off b: Failed
            + y.service on c: failed again and again on machine b
            - x.service off a: Failed
            + x.service on b: failed again and again on machine a"#]],
    );
}

#[test]
fn when_most_machines_vanish_at_once_their_units_move_one_machine_at_a_time() {
    let first = snapshot(
        "machine a
         machine b
         unit web@.service x4
         on a: web@1.service
         on c: web@2.service
         on d: web@3.service
         on e: web@4.service",
    );
    let one = plan(&first);
    expect![[r#"
        - web@2.service off c: Lost
        + web@2.service on b: machine c was lost
        wake at 1030000"#]]
    .assert_eq(&print(&one));
    let slowed = one.slowed.clone().unwrap();
    let waits = slowed.waits.iter().map(MachineId::as_str).collect::<Vec<_>>();
    assert_eq!(
        (slowed.missing, slowed.there, waits, slowed.next_ms),
        (3, 2, vec!["d", "e"], 1_030_000)
    );
    // A machine that left was not lost: two are missing and two are there.
    let mut left = first.clone();
    left.left.insert(MachineId::new("c"));
    assert_eq!(plan(&left).slowed, None);
    // Of three machines two are most.
    left.machines.remove("b");
    assert_eq!(plan(&left).slowed.map(|slowed| (slowed.missing, slowed.there)), Some((2, 1)));
}

#[test]
fn while_most_are_missing_the_next_machine_is_given_up_after_a_pause() {
    let first = snapshot(
        "machine a
         machine b
         unit web@.service x4
         on a: web@1.service
         on c: web@2.service
         on d: web@3.service
         on e: web@4.service",
    );
    let mut again = applied(&first, &plan(&first));
    again.now_ms += SLOW_PAUSE_MS - 1;
    let waits = plan(&again);
    assert!(waits.documents.is_empty() && waits.wake_at_ms == Some(1_030_000), "{}", print(&waits));
    // One of them is back: no more are missing than there are, and what is left goes at once.
    let mut back = again.clone();
    back.machines.insert(MachineId::new("d"), first.machines["a"].clone());
    assert_eq!((plan(&back).slowed, plan(&back).documents.len()), (None, 2));
    again.now_ms += 1;
    expect![[r#"
        - web@3.service off d: Lost
        + web@3.service on a: machine d was lost
        wake at 1060000"#]]
    .assert_eq(&print(&plan(&again)));
}
