//! Fenced units: what is taken off is placed elsewhere only when it has surely ended.

use expect_test::expect;

use super::super::script::{applied, print, snapshot};
use super::super::{Plan, plan};
use super::check;
use crate::model::Snapshot;

/// Each line of `changes` replaces what a cluster says of that machine's report or keeper.
fn then(before: &Snapshot, planned: &Plan, changes: &str) -> Snapshot {
    let mut next = applied(before, planned);
    next.revision += 10;
    let heard = snapshot(changes);
    next.reports.extend(heard.reports);
    next.keepers.extend(heard.keepers);
    next
}

#[test]
fn a_fenced_unit_of_a_lost_machine_waits_until_its_copy_has_surely_ended() {
    check(
        "machine a
         unit db.service | Fence=yes
         unit web.service
         on b: db.service web.service
         keeper b silent=3000",
        expect![[r#"
            - web.service off b: Lost
            + web.service on a: machine b was lost
            … db.service: fenced: waits until its copy on the lost machine b has surely ended
            wake at 1103000"#]],
    );
    check(
        "machine a
         unit db.service | Fence=yes
         on b: db.service
         keeper b silent=106000",
        expect![[r#"
            - db.service off b: Lost
            + db.service on a: machine b was lost
            if the keeper of b is away in its life 7"#]],
    );
}

#[test]
fn a_fenced_unit_stays_while_its_silent_machines_keeper_holds_the_lease() {
    check(
        "machine a\nunit db.service | Fence=yes\non b: db.service\nkeeper b held",
        expect![
            "… db.service: fenced: machine b is silent, but its keeper holds its lease and the \
                copy there runs on"
        ],
    );
}

#[test]
fn a_keeper_that_ended_in_good_order_or_never_was_is_waited_for_by_nobody() {
    let cluster = "machine a\nunit db.service | Fence=yes\non b: db.service";
    check(
        &format!("{cluster}\nkeeper b released"),
        expect![[r#"
            - db.service off b: Lost
            + db.service on a: machine b was lost
            if the keeper of b is away in its life 7"#]],
    );
    check(
        cluster,
        expect![[r#"
            - db.service off b: Lost
            + db.service on a: machine b was lost
            if the keeper of b is away in its life 0"#]],
    );
}

#[test]
fn a_fenced_unit_leaves_a_living_machine_in_two_plans() {
    let first = snapshot(
        "machine a
         machine b disk=ssd
         unit db.service | Fence=yes | MachineMetadata=disk=ssd
         on a: db.service
         keeper a held",
    );
    let off = plan(&first);
    expect![[r#"
        - db.service off a: Unfit(Lacks { key: "disk", values: {"ssd"} })
        … db.service: fenced: waits until machine a reports its copy stopped"#]]
    .assert_eq(&print(&off));

    // The agent has read it and not stopped it yet; a report of an older generation says nothing.
    for waiting in ["report a gen=2: db.service", "report a gen=1: web.service"] {
        let waits = plan(&then(&first, &off, waiting));
        assert_eq!(
            print(&waits),
            "… db.service: fenced: waits until machine a reports its copy stopped"
        );
        assert!(waits.documents.is_empty());
    }
    let gone = then(&first, &off, "report a gen=2: ");
    let on = plan(&gone);
    expect!["+ db.service on b: machine a fits no longer"].assert_eq(&print(&on));
    let after = applied(&gone, &on);
    assert!(after.assignments["a"].off.is_empty());
    let token = |snapshot: &Snapshot, machine: &str| {
        snapshot.assignments[machine].instances["db.service"].fence.clone().unwrap().token
    };
    assert!(token(&after, "b") > token(&first, "a"));
}

#[test]
fn a_failing_fenced_unit_moves_in_two_plans_and_counts_its_move() {
    let first = snapshot(
        "machine a\nmachine b\nunit db.service | Fence=yes\non a: db.service\ngave-up a: \
            db.service",
    );
    let off = plan(&first);
    expect![[r#"
        - db.service off a: Failed
        … db.service: fenced: waits until machine a reports its copy stopped"#]]
    .assert_eq(&print(&off));
    let gone = then(&first, &off, "report a gen=2: ");
    let after = applied(&gone, &plan(&gone));
    assert_eq!(after.assignments["a"].instances["db.service"].moves, 1);
}

#[test]
fn a_unit_that_was_destroyed_and_submitted_again_waits_for_its_old_copy() {
    check(
        "machine a\nmachine b\nunit db.service | Fence=yes\non a:\noff a: \
            db.service/gen=2\nkeeper a held",
        expect!["… db.service: fenced: waits until machine a reports its copy stopped"],
    );
    // Also when the machine was lost since.
    check(
        "machine b\nunit db.service | Fence=yes\non a:\noff a: db.service/gen=2\nkeeper a \
            silent=1000",
        expect![[r#"
            … db.service: fenced: waits until its copy on the lost machine a has surely ended
            wake at 1105000"#]],
    );
    check(
        "machine b\nsettling a\nunit db.service | Fence=yes\non a:\noff a: \
            db.service/gen=2\nkeeper a silent=999999",
        expect![],
    );
}

#[test]
fn a_follower_waits_with_the_fenced_unit_that_it_stands_beside() {
    check(
        "machine a
         unit app.service | Fence=yes | MachineOf=db.service
         unit db.service | Fence=yes
         on b: app.service db.service
         keeper b silent=999999",
        expect![[r#"
            - app.service off b: Lost
            - db.service off b: Lost
            + db.service on a: machine b was lost
            + app.service on a: MachineOf: db.service is here
            if the keeper of b is away in its life 7"#]],
    );
    let first = snapshot(
        "machine a
         machine b disk=ssd
         unit app.service | Fence=yes | MachineOf=db.service
         unit db.service | Fence=yes | MachineMetadata=disk=ssd
         on a: app.service db.service
         keeper a held",
    );
    let off = plan(&first);
    expect![[r#"
        - db.service off a: Unfit(Lacks { key: "disk", values: {"ssd"} })
        - app.service off a: Unfit(NotBeside { unit: "db.service" })
        … db.service: fenced: waits until machine a reports its copy stopped
        … app.service: fenced: waits until machine a reports its copy stopped"#]]
    .assert_eq(&print(&off));
    let half = then(&first, &off, "report a gen=2: app.service");
    let on = plan(&half);
    expect![[r#"
        + db.service on b: machine a fits no longer
        … app.service: fenced: waits until machine a reports its copy stopped"#]]
    .assert_eq(&print(&on));
    let whole = then(&half, &on, "report a gen=9: ");
    expect!["+ app.service on b: MachineOf: db.service is here"].assert_eq(&print(&plan(&whole)));
}

#[test]
fn what_starts_after_a_fenced_unit_stops_before_it_and_is_waited_for_too() {
    let mut lost = snapshot(
        "machine a
         unit app.service | Fence=yes
         unit db.service | Fence=yes
         on b: app.service db.service
         keeper b silent=106000",
    );
    let assignment = lost.assignments.get_mut("b").map(std::sync::Arc::make_mut).unwrap();
    assignment.instances.get_mut("app.service").unwrap().fence.as_mut().unwrap().after =
        vec!["db.service".into()];
    expect![[r#"
        - app.service off b: Lost
        + app.service on a: machine b was lost
        … db.service: fenced: waits until its copy on the lost machine b has surely ended
        if the keeper of b is away in its life 7
        wake at 1090900"#]]
    .assert_eq(&print(&plan(&lost)));
}

#[test]
fn what_was_taken_off_a_machine_waits_while_so_many_are_missing_that_each_is_given_up_in_its_turn()
{
    check(
        "machine a
         unit db.service | Fence=yes
         unit web@.service x3
         on b: web@1.service
         on c: web@2.service
         on d: web@3.service
         off d: db.service/gen=2
         keeper d silent=1000",
        expect![[r#"
            - web@1.service off b: Lost
            + web@1.service on a: machine b was lost
            wake at 1030000"#]],
    );
}
