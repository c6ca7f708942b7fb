//! `UpdateOrder=start-first`: what happens to spare instances in the middle of a change.

use std::sync::Arc;

use expect_test::expect;

use super::super::script::{applied, print, runs, snapshot};
use super::super::{Change, plan};
use super::check;
use super::spare::{THREE, carried_out, step, walk};
use crate::model::{Availability, Unit};
use crate::name::MachineId;

#[test]
fn a_machine_that_is_lost_in_the_middle_takes_the_promise_down_no_further() {
    let mut now = snapshot(THREE);
    for _ in 0..2 {
        now = carried_out(&step(&now, 3).1);
    }
    now.machines.remove("c");
    now.reports.remove("c");
    walk(
        now,
        3,
        expect![[r#"
        - web@3.service off c: Lost
        + web@3.service on b: machine c was lost
        … web@.service: 1 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
        --
        ~ web@2.service on b
        --
        - web@4.service off a: Unwanted"#]],
    );
}

#[test]
fn a_machine_that_is_lost_with_the_spare_costs_another_spare() {
    let mut now = snapshot(THREE);
    let (planned, after) = step(&now, 3);
    now = carried_out(&after);
    let Some(Change::Place { machine, .. }) = planned.changes.first() else {
        panic!("{}", print(&planned))
    };
    now.machines.remove(machine);
    now.reports.remove(machine);
    let left = walk(
        now,
        3,
        expect![[r#"
            - web@1.service off a: Lost
            - web@4.service off a: Lost
            + web@1.service on b: machine a was lost
            + web@5.service on c: a spare instance, until those that are changed are healthy
            … web@.service: 2 to go: 2 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
            --
            ~ web@2.service on b
            … web@.service: 1 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
            --
            ~ web@3.service on c
            --
            - web@5.service off c: Unwanted"#]],
    );
    assert!(left.assignments.values().all(|a| a.instances.values().all(|p| !p.is_spare())));
}

#[test]
fn a_unit_that_is_scaled_in_the_middle_keeps_what_runs() {
    let mut now = carried_out(&step(&snapshot(THREE), 3).1);
    let scaled = snapshot("unit web@.service x5 rev=2 | UpdateOrder=start-first");
    now.units = scaled.units;
    walk(
        now.clone(),
        3,
        expect![[r#"
        ~ web@4.service on a
        + web@5.service on b: fewest units of the machines that fit
        + web@6.service on c: a spare instance, until those that are changed are healthy
        … web@.service: 3 to go: 4 are up, spare ones counted, and UpdateOrder=start-first keeps 5 up
        --
        ~ web@1.service on a
        … web@.service: 2 to go: 5 are up, spare ones counted, and UpdateOrder=start-first keeps 5 up
        --
        ~ web@2.service on b
        … web@.service: 1 to go: 5 are up, spare ones counted, and UpdateOrder=start-first keeps 5 up
        --
        ~ web@3.service on c
        --
        - web@6.service off c: Unwanted"#]],
    );
    // Down again: what was scaled away goes, whatever waits.
    let scaled = snapshot("unit web@.service x2 rev=2 | UpdateOrder=start-first");
    now.units = scaled.units;
    walk(
        now,
        2,
        expect![[r#"
        - web@3.service off c: Unwanted
        ~ web@1.service on a
        … web@.service: 1 to go: 2 are up, spare ones counted, and UpdateOrder=start-first keeps 2 up
        --
        ~ web@2.service on b
        --
        - web@4.service off a: Unwanted"#]],
    );
}

#[test]
fn a_third_text_reaches_the_spare_before_the_others() {
    let mut now = snapshot(THREE);
    for _ in 0..2 {
        now = carried_out(&step(&now, 3).1);
    }
    now.units = snapshot("unit web@.service x3 rev=3 | UpdateOrder=start-first").units;
    walk(
        now,
        3,
        expect![[r#"
        ~ web@4.service on a
        … web@.service: 3 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
        --
        ~ web@1.service on a
        … web@.service: 2 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
        --
        ~ web@2.service on b
        … web@.service: 1 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
        --
        ~ web@3.service on c
        --
        - web@4.service off a: Unwanted"#]],
    );
}

#[test]
fn a_spare_stays_while_one_of_the_others_does_not_come_up() {
    let mut now = snapshot(THREE);
    for _ in 0..4 {
        now = carried_out(&step(&now, 3).1);
    }
    let assignment = now.assignments["a"].clone();
    let mut report = (*now.reports["a"]).clone();
    report.instances.extend([runs(&assignment, "web@1.service/activating")]);
    now.reports.insert(MachineId::new("a"), Arc::new(report.clone()));
    expect![""].assert_eq(&print(&step(&now, 3).0));
    report.instances.extend([runs(&assignment, "web@1.service")]);
    now.reports.insert(MachineId::new("a"), Arc::new(report));
    expect!["- web@4.service off a: Unwanted"].assert_eq(&print(&step(&now, 3).0));
}

#[test]
fn a_spare_does_not_move_off_a_drained_machine_but_another_takes_its_place() {
    let mut now = carried_out(&step(&snapshot(THREE), 3).1);
    now.availability.insert(MachineId::new("a"), Availability::Draining);
    let left = walk(
        now,
        3,
        expect![[r#"
        - web@1.service off a: Drained
        + web@1.service on b: machine a is drained
        … web@.service: 2 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
        --
        - web@4.service off a: Drained
        + web@5.service on c: a spare instance, until those that are changed are healthy
        … web@.service: 2 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
        --
        ~ web@2.service on b
        … web@.service: 1 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
        --
        ~ web@3.service on c
        --
        - web@5.service off c: Unwanted"#]],
    );
    assert!(left.assignments["a"].instances.is_empty());
}

#[test]
fn a_spare_that_others_need_leaves_a_drained_machine_once_another_one_is_up() {
    let fails = "machine a
        machine b
        machine c
        drain c
        unit web@.service x2 | UpdateOrder=start-first
        on b: web@2.service
        runs b: web@2.service/failed";
    check(
        &format!(
            "{fails}
            on a: web@1.service
            on c: web@3.service/spare
            runs a: web@1.service
            runs c: web@3.service"
        ),
        expect!["+ web@4.service on a: a spare instance, until those that are changed are healthy"],
    );
    let replaced = format!(
        "{fails}
        on a: web@1.service web@4.service/spare
        on c: web@3.service/spare
        runs c: web@3.service"
    );
    check(&format!("{replaced}\nruns a: web@1.service web@4.service/activating"), expect![""]);
    check(
        &format!("{replaced}\nruns a: web@1.service web@4.service"),
        expect!["- web@3.service off c: Drained"],
    );
    // The other one comes up after all.
    let up = replaced.replace("web@2.service/failed", "web@2.service");
    check(
        &format!("{up}\nruns a: web@1.service web@4.service"),
        expect![[r#"
            - web@3.service off c: Unwanted
            - web@4.service off a: Unwanted"#]],
    );
}

#[test]
fn a_spare_that_a_user_scales_up_counts_while_the_rollout_is_paused() {
    let mut now = snapshot(
        "machine a
        unit web@.service x2 restart=1 | UpdateOrder=start-first
        on a: web@1.service web@2.service/spare
        runs a: web@1.service web@2.service",
    );
    let unit = Unit { paused: true, ..(*now.units["web@.service"]).clone() };
    now.units.insert(unit.name.clone(), Arc::new(unit.with_gist()));
    let planned = plan(&now);
    expect!["~ web@2.service on a"].assert_eq(&print(&planned));
    let after = applied(&now, &planned);
    assert!(plan(&after).documents.is_empty());
    let placement = &after.assignments["a"].instances["web@2.service"];
    assert!(!placement.is_spare() && placement.restart == 0, "{placement:?}");
}
