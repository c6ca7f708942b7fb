//! `UpdateOrder=start-first`: spare instances stand in for what is taken down.

use std::collections::BTreeSet;
use std::sync::Arc;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::super::script::{applied, print, runs, snapshot};
use super::super::{Change, Plan, plan};
use super::check;
use crate::model::{Availability, Report, Snapshot};
use crate::name::UnitName;

/// Three instances on three machines get another text.
pub(super) const THREE: &str = "machine a
    machine b
    machine c
    unit web@.service x3 rev=2 | UpdateOrder=start-first
    on a: web@1.service/rev=1
    on b: web@2.service/rev=1
    on c: web@3.service/rev=1
    runs a: web@1.service
    runs b: web@2.service
    runs c: web@3.service";

/// Every machine does as it is assigned.
pub(super) fn carried_out(snapshot: &Snapshot) -> Snapshot {
    let mut next = snapshot.clone();
    for (id, assignment) in snapshot.assignments.iter() {
        if !snapshot.machines.contains_key(id) {
            next.reports.remove(id);
            continue;
        }
        let instances = assignment.instances.keys().map(|name| runs(assignment, name.as_str()));
        let (generation, instances) = (assignment.generation, instances.collect());
        let report = Report { generation, instances, ..Report::default() };
        next.reports.insert(id.clone(), Arc::new(report));
    }
    next
}

/// What is known to be up: as it was assigned, by a report of that.
fn up(snapshot: &Snapshot) -> BTreeSet<UnitName> {
    let mut up = BTreeSet::new();
    for (id, assignment) in &snapshot.assignments {
        let report = snapshot.reports.get(id);
        let report = report.filter(|report| report.generation == assignment.generation);
        for (name, placement) in &assignment.instances {
            let status = report.and_then(|report| report.instances.get(name));
            if status.is_some_and(|is| is.active == "active" && is.hash == placement.hash) {
                up.insert(name.clone());
            }
        }
    }
    up
}

/// What of that the plan takes down.
fn taken_down(plan: &Plan, up: &BTreeSet<UnitName>) -> BTreeSet<UnitName> {
    let taken = plan.changes.iter().map(Change::instance).filter(|name| up.contains(*name));
    taken.cloned().collect()
}

/// The next plan, after which nothing is to be planned until something is reported, and which takes
/// nothing down unless more than `wanted` are up.
pub(super) fn step(now: &Snapshot, wanted: usize) -> (Plan, Snapshot) {
    let planned = plan(now);
    let after = applied(now, &planned);
    let again = plan(&after);
    assert!(again.documents.is_empty(), "{}\nthen\n{}", print(&planned), print(&again));
    let up = up(now);
    let taken = taken_down(&planned, &up);
    assert!(
        taken.is_empty() || up.len() - taken.len() >= wanted,
        "{up:?} are up, and the plan takes {taken:?} down:\n{}",
        print(&planned)
    );
    (planned, after)
}

/// The plans until nothing is left to do, each carried out before the next.
pub(super) fn walk(mut now: Snapshot, wanted: usize, expected: Expect) -> Snapshot {
    let mut steps = Vec::new();
    loop {
        let (planned, after) = step(&now, wanted);
        if planned.documents.is_empty() {
            break;
        }
        steps.push(print(&planned));
        assert!(steps.len() < 50, "it never ends: {steps:#?}");
        now = carried_out(&after);
    }
    expected.assert_eq(&steps.join("\n--\n"));
    now
}

#[test]
fn a_text_goes_to_a_spare_first_and_the_spare_goes_last() {
    walk(
        snapshot(THREE),
        3,
        expect![[r#"
        + web@4.service on a: a spare instance, until those that are changed are healthy
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
fn on_one_machine_the_spare_runs_beside_the_others() {
    walk(
        snapshot(
            "machine a
             unit web@.service x3 rev=2 | UpdateOrder=start-first
             on a: web@1.service/rev=1 web@2.service/rev=1 web@3.service/rev=1
             runs a: web@1.service web@2.service web@3.service",
        ),
        3,
        expect![[r#"
            + web@4.service on a: a spare instance, until those that are changed are healthy
            … web@.service: 3 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
            --
            ~ web@1.service on a
            … web@.service: 2 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
            --
            ~ web@2.service on a
            … web@.service: 1 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
            --
            ~ web@3.service on a
            --
            - web@4.service off a: Unwanted"#]],
    );
}

#[test]
fn where_no_machine_can_run_a_spare_nothing_is_taken_down_and_it_is_said() {
    check(
        &THREE.replace("start-first", "start-first | MaxPerMachine=1"),
        expect![
            "… web@.service: 3 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up; no machine can run a spare one: has as many instances of it as MaxPerMachine=1 allows"
        ],
    );
}

#[test]
fn there_are_as_many_spares_as_the_budget_has() {
    walk(
        snapshot(
            "machine a
             machine b
             unit web@.service x4 restart=1 | UpdateOrder=start-first | MaxUnavailable=2
             on a: web@1.service web@2.service
             on b: web@3.service web@4.service
             runs a: web@1.service web@2.service
             runs b: web@3.service web@4.service",
        ),
        4,
        expect![[r#"
            + web@5.service on a: a spare instance, until those that are changed are healthy
            + web@6.service on b: a spare instance, until those that are changed are healthy
            … web@.service: 4 to go: 4 are up, spare ones counted, and UpdateOrder=start-first keeps 4 up
            --
            ~ web@1.service on a
            ~ web@2.service on a
            … web@.service: 2 to go: 4 are up, spare ones counted, and UpdateOrder=start-first keeps 4 up
            --
            ~ web@3.service on b
            ~ web@4.service on b
            --
            - web@5.service off a: Unwanted
            - web@6.service off b: Unwanted"#]],
    );
}

#[test]
fn one_replica_is_replaced_without_a_gap_and_a_budget_of_all_makes_no_gap_either() {
    let one = "machine a
        unit web@.service x1 rev=2 | UpdateOrder=start-first | MaxUnavailable=100%
        on a: web@1.service/rev=1
        runs a: web@1.service";
    walk(
        snapshot(one),
        1,
        expect![[r#"
            + web@2.service on a: a spare instance, until those that are changed are healthy
            … web@.service: 1 to go: 1 is up, spare ones counted, and UpdateOrder=start-first keeps 1 up
            --
            ~ web@1.service on a
            --
            - web@2.service off a: Unwanted"#]],
    );
}

#[test]
fn a_drain_moves_one_only_while_a_spare_is_up() {
    walk(
        snapshot(
            "machine a
             machine b
             machine c
             drain a
             unit web@.service x3 | UpdateOrder=start-first
             on a: web@1.service
             on b: web@2.service
             on c: web@3.service
             runs a: web@1.service
             runs b: web@2.service
             runs c: web@3.service",
        ),
        3,
        expect![[r#"
            + web@4.service on b: a spare instance, until those that are changed are healthy
            … web@.service: 1 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
            --
            - web@1.service off a: Drained
            + web@1.service on c: machine a is drained
            --
            - web@4.service off b: Unwanted"#]],
    );
}

#[test]
fn a_move_that_a_user_asked_for_has_a_stand_in_too() {
    walk(
        snapshot(
            "machine a
             machine b
             unit web@.service x1 | UpdateOrder=start-first
             on a: web@1.service
             runs a: web@1.service
             move web@1.service b",
        ),
        1,
        expect![[r#"
            + web@2.service on b: a spare instance, until those that are changed are healthy
            … web@.service: 1 to go: 1 is up, spare ones counted, and UpdateOrder=start-first keeps 1 up
            --
            - web@1.service off a: Moved
            + web@1.service on b: moved off machine a on purpose
            --
            - web@2.service off b: Unwanted
            = web@1.service to b: there"#]],
    );
}

#[test]
fn what_can_go_nowhere_gets_no_spare_and_neither_does_what_the_spare_would_block() {
    let pinned = "machine a r=1
        machine b
        drain a
        unit web@.service x1 | UpdateOrder=start-first | MachineMetadata=r=1
        on a: web@1.service
        runs a: web@1.service";
    check(pinned, expect![[r#""#]]);
    // Its only other place is the spare's, too.
    let narrow = "machine a
        machine b
        drain a
        unit web@.service x1 | UpdateOrder=start-first | MaxPerMachine=1
        on a: web@1.service
        runs a: web@1.service";
    check(
        narrow,
        expect![
            "… web@.service: 1 to go: 1 is up, spare ones counted, and \
                UpdateOrder=start-first keeps 1 up; no machine can run a spare one: has as many \
                instances of it as MaxPerMachine=1 allows; is cordoned or drained"
        ],
    );
}

#[test]
fn what_is_down_is_changed_at_once_and_needs_no_spare() {
    check(
        "machine a
         unit web@.service x2 rev=2 | UpdateOrder=start-first
         on a: web@1.service/rev=1 web@2.service/rev=1
         runs a: web@1.service/failed web@2.service/failed",
        expect![[r#"
            ~ web@1.service on a
            ~ web@2.service on a"#]],
    );
}

#[test]
fn a_spare_leaves_a_number_that_has_a_record_of_its_own_alone() {
    check(
        "machine a
         unit web@.service x1 rev=2 | UpdateOrder=start-first
         unit web@2.service
         on a: web@1.service/rev=1 web@2.service
         runs a: web@1.service web@2.service",
        expect![[r#"
            + web@3.service on a: a spare instance, until those that are changed are healthy
            … web@.service: 1 to go: 1 is up, spare ones counted, and UpdateOrder=start-first keeps 1 up"#]],
    );
}

#[test]
fn what_is_scaled_away_is_no_spare_and_what_is_stopped_has_none() {
    check(
        "machine a
         unit web@.service x1 rev=2 | UpdateOrder=start-first
         on a: web@1.service/rev=1 web@2.service/rev=1
         runs a: web@1.service web@2.service",
        expect![[r#"
            - web@2.service off a: Unwanted
            + web@3.service on a: a spare instance, until those that are changed are healthy
            … web@.service: 1 to go: 1 is up, spare ones counted, and UpdateOrder=start-first keeps 1 up"#]],
    );
    let mut now = carried_out(&step(&snapshot(THREE), 3).1);
    now.units = snapshot("unit web@.service x3 rev=2 inactive | UpdateOrder=start-first").units;
    assert!(print(&plan(&now)).contains("- web@4.service off"), "{}", print(&plan(&now)));
}

#[test]
fn by_default_what_fits_nowhere_is_not_counted_and_gets_the_room_that_a_spare_leaves() {
    walk(
        snapshot(
            "machine a
             machine b
             unit web@.service x4 rev=2 | UpdateOrder=start-first | MaxPerMachine=2
             unit db.service
             unit small.service | Conflicts=web@4.service
             on a: web@1.service/rev=1 web@2.service/rev=1
             on b: web@3.service/rev=1 small.service db.service
             runs a: web@1.service web@2.service
             runs b: web@3.service small.service db.service",
        ),
        3,
        expect![[r#"
            + web@5.service on b: a spare instance, until those that are changed are healthy
            … web@.service: 3 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
            ! web@4.service: 1 × conflicts with small.service, which is there; 1 × has as many instances of it as MaxPerMachine=2 allows
            --
            ~ web@1.service on a
            … web@.service: 2 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
            ! web@4.service: 2 × has as many instances of it as MaxPerMachine=2 allows
            --
            ~ web@2.service on a
            … web@.service: 1 to go: 3 are up, spare ones counted, and UpdateOrder=start-first keeps 3 up
            ! web@4.service: 2 × has as many instances of it as MaxPerMachine=2 allows
            --
            ~ web@3.service on b
            ! web@4.service: 2 × has as many instances of it as MaxPerMachine=2 allows
            --
            - web@5.service off b: Unwanted
            ! web@4.service: 1 × conflicts with small.service, which is there; 1 × has as many instances of it as MaxPerMachine=2 allows"#]],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_update_and_a_drain_take_down_none_without_a_stand_in_and_come_to_an_end(
        on in prop::collection::vec((0..4usize, any::<bool>(), prop::sample::select(vec!["active", "active", "active", "failed"])), 1..9),
        (drained, most, restart) in (0..4usize, 1..4usize, 0..2u32),
        lost in prop::option::of((0..8usize, 0..4usize)),
    ) {
        let ids = ["a", "b", "c", "d"];
        let mut lines = vec![format!("unit web@.service x{} rev=2 restart={restart} | \
            UpdateOrder=start-first | MaxUnavailable={most}", on.len())];
        lines.push(format!("drain {}", ids[drained]));
        for (index, id) in ids.iter().enumerate() {
            lines.push(format!("machine {id}"));
            let here = || on.iter().zip(1..).filter(|((machine, ..), _)| *machine == index);
            let placed: Vec<String> = here().map(|((_, old, _), n)| format!("web@{n}.service{}", if *old { "/rev=1" } else { "" })).collect();
            let state: Vec<String> = here().map(|((.., state), n)| format!("web@{n}.service/{state}")).collect();
            lines.push(format!("on {id}: {}", placed.join(" ")));
            lines.push(format!("runs {id}: {}", state.join(" ")));
        }
        let mut now = snapshot(&lines.join("\n"));
        for round in 0..=4 * on.len() + 8 {
            if let Some((_, machine)) = lost.filter(|(when, _)| *when == round) {
                now.machines.remove(ids[machine]);
                now.reports.remove(ids[machine]);
                now.availability.remove(ids[drained]);
            }
            now = carried_out(&step(&now, on.len()).1);
        }
        let all = || now.assignments.values().flat_map(|a| &a.instances);
        let left = all().filter(|(_, placement)| placement.revision == 1 || placement.is_spare());
        prop_assert_eq!((left.count(), all().count()), (0, on.len()), "{}", lines.join("\n"));
        let drains = now.availability.get(ids[drained]) == Some(&Availability::Draining);
        prop_assert!(!drains || now.assignments[ids[drained]].instances.is_empty(), "{}", lines.join("\n"));
    }
}
