//! Moves that users asked for, and what is stopped at a drain's deadline.

use std::sync::Arc;

use expect_test::expect;

use super::super::plan;
use super::super::script::{applied, print, snapshot};
use super::check;
use crate::model::Report;
use crate::name::MachineId;

const SPREAD: &str = "machine a
    machine b
    machine c region=eu
    unit web@.service x2
    unit eu.service | MachineMetadata=region=eu
    unit all.service | Global=true
    on a: web@1.service all.service
    on b: web@2.service all.service
    on c: eu.service all.service
    runs a: web@1.service all.service
    runs b: web@2.service all.service
    runs c: eu.service all.service
";

#[test]
fn an_instance_moves_where_it_was_asked_to_and_is_held_there_by_nothing() {
    let seen = snapshot(&format!("{SPREAD}move web@1.service b"));
    let moves = plan(&seen);
    expect![[r#"
        - web@1.service off a: Moved
        + web@1.service on b: moved off machine a on purpose"#]]
    .assert_eq(&print(&moves));
    let mut after = applied(&seen, &moves);
    let granted = plan(&after);
    assert!(granted.documents.is_empty());
    expect!["= web@1.service to b: there"].assert_eq(&print(&granted));
    after.moves.clear();
    assert_eq!(print(&plan(&after)), "", "it stays where it is");
}

#[test]
fn a_move_that_cannot_be_is_refused_with_the_reason_and_nothing_changes() {
    let said = |wish: &str| {
        let refused = plan(&snapshot(&format!("{SPREAD}move {wish}")));
        assert!(refused.changes.is_empty() && refused.documents.is_empty(), "{wish}");
        print(&refused)
    };
    let said = [
        said("eu.service a"),
        said("all.service a"),
        said("web@9.service a"),
        said("web@1.service z"),
        said("web@1.service b\ncordon b"),
    ];
    expect![[r#"
        = eu.service to a: the machine lacks the metadata region=eu
        = all.service to a: it is a global unit, which runs on every machine that fits
        = web@9.service to a: it is not loaded or launched
        = web@1.service to z: that machine is not there
        = web@1.service to b: the machine is cordoned or drained"#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn a_move_waits_for_its_units_budget_and_stays_wished_for() {
    check(
        "machine a
         machine b
         unit web@.service x2 | MaxUnavailable=1
         on a: web@1.service
         on b: web@2.service
         runs a: web@1.service
         runs b: web@2.service/failed
         move web@1.service b",
        expect![
            "… web@.service: 1 to go: 1 of 2 is unavailable, and MaxUnavailable lets at most 1 be so"
        ],
    );
}

#[test]
fn a_wish_for_another_machine_than_a_drain_would_choose_is_granted() {
    check(
        "machine a
         machine b
         machine c
         unit web@.service x2
         on a: web@1.service
         on b: web@2.service
         runs a: web@1.service
         runs b: web@2.service
         drain a
         move web@1.service b",
        expect![[r#"
            - web@1.service off a: Moved
            + web@1.service on b: moved off machine a on purpose"#]],
    );
}

#[test]
fn a_fenced_instance_moves_once_its_copy_has_ended_and_to_that_machine() {
    let text = "machine a
         machine b
         machine c
         keeper a held
         keeper b held
         keeper c held
         unit db.service | Fence=yes
         on a: db.service
         runs a: db.service
         move db.service c";
    let seen = snapshot(text);
    let first = plan(&seen);
    expect![[r#"
        - db.service off a: Moved
        … db.service: fenced: waits until machine a reports its copy stopped"#]]
    .assert_eq(&print(&first));
    let mut after = applied(&seen, &first);
    let waiting = plan(&after);
    assert!(waiting.answered.is_empty(), "it is still wished for: {}", print(&waiting));
    let generation = after.assignments["a"].generation;
    let report = Report { generation, ..Report::default() };
    after.reports.insert(MachineId::new("a"), Arc::new(report));
    let second = plan(&after);
    expect!["+ db.service on c: moved off machine a on purpose"].assert_eq(&print(&second));
    let last = plan(&applied(&after, &second));
    expect!["= db.service to c: there"].assert_eq(&print(&last));
}

#[test]
fn what_runs_beside_goes_along_or_is_the_reason_against_the_move() {
    let with = |machine: &str| {
        format!(
            "machine a r=1
             machine {machine}
             unit main.service
             unit side.service | MachineOf=main.service | MachineMetadata=r=1
             on a: main.service side.service
             move main.service b"
        )
    };
    check(
        &with("b r=1"),
        expect![[r#"
        - main.service off a: Moved
        + main.service on b: moved off machine a on purpose
        - side.service off a: Unfit(NotBeside { unit: "main.service" })
        + side.service on b: MachineOf: main.service is here"#]],
    );
    check(&with("b"), expect!["= main.service to b: what runs beside it cannot run there"]);
}

#[test]
fn at_the_deadline_what_is_left_on_a_drained_machine_leaves_past_budgets_and_without_a_place() {
    let text = |deadline: u64| {
        format!(
            "now 5000
             machine a r=1
             machine b
             unit web@.service x2 | MaxUnavailable=1
             unit only.service | MachineMetadata=r=1
             unit side.service | MachineOf=only.service
             unit all.service | Global=true
             on a: web@1.service only.service side.service all.service
             on b: web@2.service all.service
             runs a: web@1.service only.service side.service all.service
             runs b: web@2.service/failed all.service
             drain a
             evict a {deadline}"
        )
    };
    check(
        &text(6000),
        expect![[r#"
        … web@.service: 1 to go: 1 of 2 is unavailable, and MaxUnavailable lets at most 1 be so
        wake at 6000"#]],
    );
    let seen = snapshot(&text(5000));
    let due = plan(&seen);
    expect![[r#"
        - web@1.service off a: Drained
        - only.service off a: Drained
        + web@1.service on b: machine a is drained
        - side.service off a: Unfit(NotBeside { unit: "only.service" })
        ! only.service: 1 × lacks the metadata r=1; 1 × is cordoned or drained
        ! side.service: 2 × MachineOf=only.service, which is not there"#]]
    .assert_eq(&print(&due));
    let again = plan(&applied(&seen, &due));
    assert!(again.changes.is_empty(), "{}", print(&again));
}

#[test]
fn at_the_deadline_what_was_to_leave_for_another_reason_leaves_too() {
    let text = "now 5000
         machine a r=1
         machine b
         machine c
         unit web@.service x2 | MaxUnavailable=1
         unit fit@.service x2 rev=2 | MachineMetadata=r=2
         on a: web@1.service fit@1.service/rev=1 fit@2.service/rev=1
         on b: web@2.service
         runs a: web@1.service fit@1.service/rev=1 fit@2.service/rev=1
         runs b: web@2.service/failed
         move web@1.service c
         drain a
         evict a 5000";
    check(
        text,
        expect![[r#"
        - fit@1.service off a: Drained
        - fit@2.service off a: Drained
        - web@1.service off a: Drained
        + web@1.service on c: machine a is drained
        ! fit@1.service fit@2.service: 3 × lacks the metadata r=2"#]],
    );
}

#[test]
fn what_has_a_budget_has_the_first_choice_where_machines_are_drained() {
    check(
        "machine a
         machine b
         machine c
         unit aaa.service | Conflicts=web@1.service
         unit web@.service x1 | MaxUnavailable=1
         on a: aaa.service
         on c: web@1.service
         runs a: aaa.service
         runs c: web@1.service
         drain a
         drain c",
        expect![[r#"
            - web@1.service off c: Drained
            + web@1.service on b: machine c is drained"#]],
    );
}

#[test]
fn a_fenced_instance_is_evicted_once_and_placed_nowhere_before_its_copy_has_ended() {
    let text = "now 5000
         machine a r=1
         machine b
         keeper a held
         keeper b held
         unit db.service | Fence=yes | MachineMetadata=r=1
         on a: db.service
         runs a: db.service
         drain a
         evict a 5000";
    let seen = snapshot(text);
    let due = plan(&seen);
    expect![[r#"
        - db.service off a: Drained
        … db.service: fenced: waits until machine a reports its copy stopped"#]]
    .assert_eq(&print(&due));
    let mut after = applied(&seen, &due);
    let waiting = plan(&after);
    expect!["… db.service: fenced: waits until machine a reports its copy stopped"]
        .assert_eq(&print(&waiting));
    let generation = after.assignments["a"].generation;
    let report = Report { generation, ..Report::default() };
    after.reports.insert(MachineId::new("a"), Arc::new(report));
    expect!["! db.service: 1 × lacks the metadata r=1; 1 × is cordoned or drained"]
        .assert_eq(&print(&plan(&after)));
}
