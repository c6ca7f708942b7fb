//! Updates, restarts and drains, with and without a budget.

use std::sync::Arc;

use expect_test::expect;
use proptest::prelude::*;

use super::super::script::{applied, print, runs, snapshot};
use super::super::{Change, plan};
use super::check;
use crate::model::{Report, Snapshot};

#[test]
fn a_quarter_of_a_template_or_global_unit_that_names_no_budget_changes_at_once() {
    check(
        "machine a
         machine b
         unit log.service rev=2 | Global=true
         unit one.service rev=2
         unit web@.service x9 rev=2
         on a: log.service/rev=1 one.service/rev=1 web@1.service/rev=1 web@2.service/rev=1 \
         web@3.service/rev=1 web@4.service/rev=1
         on b: log.service/rev=1 web@5.service/rev=1 web@6.service/rev=1 web@7.service/rev=1 \
         web@8.service/rev=1 web@9.service/rev=1
         runs a: log.service one.service web@1.service web@2.service web@3.service web@4.service
         runs b: log.service web@5.service web@6.service web@7.service web@8.service web@9.service",
        expect![[r#"
            ~ one.service on a
            ~ log.service on a
            ~ web@1.service on a
            ~ web@2.service on a
            … log.service: 1 to go: 1 of 2 is unavailable, and MaxUnavailable lets at most 1 be so
            … web@.service: 7 to go: 2 of 9 are unavailable, and MaxUnavailable lets at most 2 be so"#]],
    );
}

#[test]
fn one_replica_and_what_may_be_down_altogether_wait_for_nothing() {
    check(
        "machine a
         unit one@.service x1 rev=2
         unit web@.service x2 rev=2 | MaxUnavailable=100%
         on a: one@1.service/rev=1 web@1.service/rev=1 web@2.service/rev=1",
        expect![[r#"
            ~ one@1.service on a
            ~ web@1.service on a
            ~ web@2.service on a"#]],
    );
}

#[test]
fn what_moves_away_and_is_pushed_back_starts_as_its_unit_is_now() {
    check(
        "unit new.service | Replaces=db.service
         unit db.service restart=2 | MaxUnavailable=1
         unit one.service
         machine a
         machine b
         machine c
         on b: new.service
         on c: db.service one.service
         gave-up c: db.service
         drain b",
        expect![[r#"
            - db.service off c: Failed
            - new.service off b: Drained
            + new.service on a: machine b is drained
            + db.service on c: failed again and again on machine c"#]],
    );
}

#[test]
fn with_a_budget_of_all_a_new_text_goes_everywhere_at_once() {
    check(
        "machine a
         machine b
         unit web@.service x2 rev=2 | MaxUnavailable=100%
         on a: web@1.service/rev=1
         on b: web@2.service/rev=1
         runs a: web@1.service
         runs b: web@2.service",
        expect![[r#"
            ~ web@1.service on a
            ~ web@2.service on b"#]],
    );
}

#[test]
fn with_a_budget_a_new_text_waits_until_the_last_one_runs() {
    check(
        "machine a
         machine b
         unit web@.service x3 rev=2 | MaxUnavailable=1
         on a: web@1.service/rev=1 web@3.service/rev=1
         on b: web@2.service/rev=1
         runs a: web@1.service web@3.service
         runs b: web@2.service",
        expect![[r#"
            ~ web@1.service on a
            … web@.service: 2 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 be so"#]],
    );
    check(
        "machine a
         machine b
         unit web@.service x3 rev=2 | MaxUnavailable=1
         on a: web@1.service web@3.service/rev=1
         on b: web@2.service/rev=1
         runs a: web@1.service/activating web@3.service
         runs b: web@2.service",
        expect![
            "… web@.service: 2 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 \
                be so"
        ],
    );
}

#[test]
fn a_configuration_rolls_out_under_the_budget_and_is_reloaded_at_once() {
    let cluster = |section: &str| {
        format!(
            "machine a
             machine b
             unit web@.service x3 config=2 | MaxUnavailable=1 | Config=shop{section}
             on a: web@1.service web@3.service
             on b: web@2.service
             runs a: web@1.service web@3.service
             runs b: web@2.service"
        )
    };
    check(
        &cluster(""),
        expect![[r#"
            ~ web@1.service on a
            … web@.service: 2 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 be so"#]],
    );
    check(
        &cluster(" | ConfigChanged=reload"),
        expect![[r#"
            ~ web@1.service on a
            ~ web@3.service on a
            ~ web@2.service on b"#]],
    );
    check(&cluster(" | ConfigChanged=ignore"), expect![""]);
    check(&cluster(" | Config=other"), expect![""]);
}

#[test]
fn a_text_that_fails_stops_the_rollout_and_the_text_before_it_takes_its_place_at_once() {
    check(
        "machine a
         machine b
         unit web@.service x3 rev=3 | MaxUnavailable=1
         on a: web@1.service/rev=2 web@3.service
         on b: web@2.service
         runs a: web@1.service/failed web@3.service
         runs b: web@2.service",
        expect!["~ web@1.service on a"],
    );
}

#[test]
fn a_machine_that_says_nothing_of_its_assignment_holds_up_the_rollout() {
    check(
        "machine a
         machine b
         unit web@.service x2 rev=2 | MaxUnavailable=50%
         on a: web@1.service/rev=1
         on b: web@2.service/rev=1
         runs b: web@2.service",
        expect![
            "… web@.service: 2 to go: 1 of 2 is unavailable, and MaxUnavailable lets at most 1 \
                be so"
        ],
    );
}

#[test]
fn a_report_of_an_earlier_assignment_does_not_tell_that_what_came_back_runs() {
    check(
        "machine a
         machine b
         unit web@.service x2 restart=1 | MaxUnavailable=1
         on a: web@1.service
         on b: web@2.service
         runs a gen=0: web@1.service
         runs b: web@2.service",
        expect![
            "… web@.service: 2 to go: 1 of 2 is unavailable, and MaxUnavailable lets at most 1 \
                be so"
        ],
    );
}

#[test]
fn restarts_and_global_units_have_the_same_budget() {
    check(
        "machine a
         machine b
         machine c
         unit log.service restart=1 | Global=true | MaxUnavailable=2
         on a: log.service
         on b: log.service
         on c: log.service
         runs a: log.service
         runs b: log.service
         runs c: log.service",
        expect![[r#"
            ~ log.service on a
            ~ log.service on b
            … log.service: 1 to go: 2 of 3 are unavailable, and MaxUnavailable lets at most 2 be so"#]],
    );
}

#[test]
fn a_stop_waits_for_no_budget() {
    check(
        "machine a
         unit web@.service x2 loaded rev=2 | MaxUnavailable=1
         on a: web@1.service/rev=1/launched web@2.service/rev=1/launched
         runs a: web@1.service web@2.service",
        expect![[r#"
            ~ web@1.service on a
            ~ web@2.service on a"#]],
    );
}

#[test]
fn a_drained_machine_keeps_what_fits_nowhere_else_and_what_is_global() {
    check(
        "machine a r=1
         machine b
         drain a
         unit any.service
         unit pin.service | MachineMetadata=r=1
         unit side.service | MachineOf=any.service
         unit log.service | Global=true
         on a: any.service pin.service side.service log.service
         on b: log.service",
        expect![[r#"
            - any.service off a: Drained
            + any.service on b: machine a is drained
            - side.service off a: Unfit(NotBeside { unit: "any.service" })
            + side.service on b: MachineOf: any.service is here"#]],
    );
}

#[test]
fn a_cordoned_machine_keeps_what_it_has_and_takes_nothing_new() {
    check(
        "machine a
         machine b
         machine c r=1
         cordon a
         cordon c
         unit web@.service x4
         unit only.service | MachineMetadata=r=1
         unit side.service | MachineOf=web@1.service
         on a: web@1.service",
        expect![[r#"
            + web@2.service on b: fewest units of the machines that fit
            + web@3.service on b: fewest units of the machines that fit
            + web@4.service on b: fewest units of the machines that fit
            + side.service on a: MachineOf: web@1.service is here
            ! only.service: 2 × lacks the metadata r=1; 1 × is cordoned or drained"#]],
    );
}

#[test]
fn an_update_and_a_drain_share_one_budget() {
    check(
        "machine a
         machine b
         drain a
         unit web@.service x4 rev=2 | MaxUnavailable=2
         on a: web@1.service/rev=1
         on b: web@2.service/rev=1 web@3.service/rev=1 web@4.service/rev=1
         runs a: web@1.service
         runs b: web@2.service web@3.service web@4.service",
        expect![[r#"
            - web@1.service off a: Drained
            + web@1.service on b: machine a is drained
            ~ web@2.service on b
            … web@.service: 2 to go: 2 of 4 are unavailable, and MaxUnavailable lets at most 2 be so"#]],
    );
}

#[test]
fn what_has_failed_already_leaves_a_drained_machine_past_a_spent_budget() {
    check(
        "machine a
         machine b
         drain a
         unit web@.service x3 | MaxUnavailable=1
         on a: web@1.service web@2.service
         on b: web@3.service
         runs a: web@1.service/failed web@2.service
         runs b: web@3.service",
        expect![[r#"
            - web@1.service off a: Drained
            + web@1.service on b: machine a is drained
            … web@.service: 1 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 be so"#]],
    );
}

#[test]
fn a_new_text_that_fits_elsewhere_only_moves_within_the_budget_and_one_that_fits_nowhere_stops_nothing()
 {
    check(
        "machine a
         machine b s=1
         unit web@.service x2 rev=2 | MachineMetadata=s=1 | MaxUnavailable=1
         on a: web@1.service/rev=1 web@2.service/rev=1
         runs a: web@1.service web@2.service",
        expect![[r#"
            - web@1.service off a: Unfit(Lacks { key: "s", values: {"1"} })
            + web@1.service on b: machine a fits no longer
            … web@.service: 1 to go: 1 of 2 is unavailable, and MaxUnavailable lets at most 1 be so"#]],
    );
    check(
        "machine a
         unit web@.service x1 rev=2 | MachineMetadata=s=1 | MaxUnavailable=1
         on a: web@1.service/rev=1
         runs a: web@1.service",
        expect!["! web@1.service: 1 × lacks the metadata s=1"],
    );
}

#[test]
fn what_runs_beside_a_global_unit_leaves_a_drained_machine_for_another() {
    check(
        "machine a
         machine b
         drain a
         unit log.service | Global=true
         unit side.service | MachineOf=log.service
         unit x.service
         on a: log.service side.service
         on b: log.service x.service",
        expect![[r#"
            - side.service off a: Drained
            + side.service on b: MachineOf: log.service is here"#]],
    );
}

#[test]
fn a_drain_stops_nothing_that_runs_beside_either() {
    check(
        "machine a r=1
         machine b
         drain a
         unit db.service
         unit side.service | MachineOf=db.service | MachineMetadata=r=1
         on a: db.service side.service",
        expect![[r#""#]],
    );
}

#[test]
fn what_runs_beside_has_its_own_budget_asked_when_it_has_to_go_along() {
    check(
        "machine a
         machine b
         drain a
         unit web@.service x3 | MaxUnavailable=100%
         unit side@.service x3 | MachineOf=web@%i.service | MaxUnavailable=1
         on a: web@1.service web@2.service web@3.service side@1.service side@2.service \
         side@3.service
         runs a: web@1.service web@2.service web@3.service side@1.service side@2.service \
         side@3.service",
        expect![[r#"
            - web@1.service off a: Drained
            + web@1.service on b: machine a is drained
            - side@1.service off a: Unfit(NotBeside { unit: "web@1.service" })
            + side@1.service on b: MachineOf: web@1.service is here
            … side@.service: 2 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 be so
            … web@.service: 2 to go: MaxUnavailable of what runs beside lets no more be taken down"#]],
    );
}

#[test]
fn what_is_being_stopped_or_was_restarted_lately_is_neither_up_nor_free_to_change() {
    check(
        "machine a
         unit web@.service x3 rev=2 | MaxUnavailable=1
         on a: web@1.service/rev=1 web@2.service/rev=1 web@3.service/rev=1
         runs a: web@1.service/deactivating web@2.service web@3.service",
        expect![
            "… web@.service: 3 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 \
                be so"
        ],
    );
    check(
        "machine a
         unit web@.service x3 rev=2 | MaxUnavailable=1
         on a: web@1.service/rev=1 web@2.service/rev=1 web@3.service/rev=1
         runs a: web@1.service/restarted web@2.service web@3.service",
        expect![
            "… web@.service: 3 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 \
                be so"
        ],
    );
}

#[test]
fn what_came_up_a_moment_ago_is_not_known_to_stay_up() {
    check(
        "machine a
         machine b
         unit web@.service x3 rev=2 | MaxUnavailable=1
         on a: web@1.service web@3.service/rev=1
         on b: web@2.service/rev=1
         runs a: web@1.service/settling web@3.service
         runs b: web@2.service",
        expect![
            "… web@.service: 2 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 \
                be so"
        ],
    );
}

#[test]
fn what_has_yet_to_answer_its_check_is_not_up() {
    check(
        "machine a
         machine b
         unit web@.service x3 rev=2 | MaxUnavailable=1
         on a: web@1.service web@3.service/rev=1
         on b: web@2.service/rev=1
         runs a: web@1.service/starting web@3.service/healthy
         runs b: web@2.service/healthy",
        expect![
            "… web@.service: 2 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 \
                be so"
        ],
    );
}

#[test]
fn what_is_unhealthy_is_changed_first_and_takes_nothing_away() {
    check(
        "machine a
         machine b
         unit web@.service x4 rev=2 | MaxUnavailable=1
         on a: web@1.service/rev=1 web@3.service/rev=1
         on b: web@2.service/rev=1 web@4.service/rev=1
         runs a: web@1.service/healthy web@3.service/unhealthy
         runs b: web@2.service/unhealthy web@4.service/healthy",
        expect![[r#"
            ~ web@2.service on b
            ~ web@3.service on a
            … web@.service: 2 to go: 2 of 4 are unavailable, and MaxUnavailable lets at most 1 be so"#]],
    );
}

#[test]
fn the_moves_of_a_text_that_failed_do_not_count_against_the_next() {
    let before = snapshot(
        "machine a
         unit web.service rev=2
         on a: web.service/rev=1/moves=3",
    );
    let after = applied(&before, &plan(&before));
    assert_eq!(after.assignments["a"].instances["web.service"].moves, 0);
}

/// Every machine does as it is assigned, but for one instance that goes on failing until it is
/// changed.
fn carried_out(snapshot: &Snapshot) -> Snapshot {
    let mut next = snapshot.clone();
    for (id, assignment) in &snapshot.assignments {
        let instances =
            assignment.instances.keys().map(|name| runs(assignment, name.as_str())).collect();
        let report = Report { generation: assignment.generation, instances, ..Report::default() };
        next.reports.insert(id.clone(), Arc::new(report));
    }
    next
}

/// How many instances run as they were assigned.
fn up(snapshot: &Snapshot) -> usize {
    let on = |id: &crate::name::MachineId| {
        let (assignment, report) = (&snapshot.assignments[id], snapshot.reports.get(id));
        let is_up = |name: &&crate::name::UnitName| {
            report.filter(|report| report.generation == assignment.generation).is_some_and(
                |report| {
                    report.instances.get(*name).is_some_and(|s| {
                        s.active == "active" && s.hash == assignment.instances[*name].hash
                    })
                },
            )
        };
        assignment.instances.keys().filter(is_up).count()
    };
    snapshot.assignments.keys().map(on).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rollout_and_a_drain_take_down_no_more_than_the_budget_and_come_to_an_end(
        on in prop::collection::vec((0..4usize, any::<bool>(), prop::sample::select(vec!["active", "active", "active", "failed"])), 1..9),
        (drained, most) in (0..4usize, 1..4usize),
    ) {
        let ids = ["a", "b", "c", "d"];
        let mut lines = vec![format!("unit web@.service x{} rev=2 | \
            MaxUnavailable={most}", on.len())];
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
        for _ in 0..=2 * on.len() {
            let planned = plan(&now);
            let after = applied(&now, &planned);
            // Whatever was up before and is touched is taken down: it stays up for the judge only
            // where nothing changed.
            let touched: Vec<_> = planned.changes.iter().map(Change::instance).collect();
            let lost = touched.iter().filter(|name| {
                now.reports.values().any(|report| report.instances.get(**name).is_some_and(|status| status.active == "active"))
            });
            let mut lost: Vec<_> = lost.collect();
            lost.sort();
            lost.dedup();
            let down = on.len() - up(&now);
            prop_assert!(lost.len() <= most.saturating_sub(down), "{} down, {} taken down, \
                in\n{}\n{}", down, lost.len(), lines.join("\n"), print(&planned));
            prop_assert!(plan(&after).documents.is_empty(), "{}\n{}\n{}", lines.join("\n"), print(&planned), print(&plan(&after)));
            now = carried_out(&after);
        }
        let left = now.assignments[ids[drained]].instances.len();
        let old = now.assignments.values().flat_map(|a| a.instances.values()).filter(|placement| placement.revision == 1).count();
        prop_assert_eq!((left, old), (0, 0), "{}", lines.join("\n"));
    }
}

#[test]
fn by_default_what_fits_nowhere_holds_up_no_text_that_fits() {
    check(
        "machine a
         machine b
         machine c
         unit web@.service x4 rev=2
         unit db.service | Conflicts=web@4.service
         unit dc.service | Conflicts=web@4.service
         unit dd.service | Conflicts=web@4.service
         on a: web@1.service/rev=1 db.service
         on b: web@2.service/rev=1 dc.service
         on c: web@3.service/rev=1 dd.service
         runs a: web@1.service db.service
         runs b: web@2.service dc.service
         runs c: web@3.service dd.service",
        expect![[r#"
            ~ web@1.service on a
            … web@.service: 2 to go: 2 of 4 are unavailable, and MaxUnavailable lets at most 1 be so
            ! web@4.service: 1 × conflicts with db.service, which is there; 1 × conflicts with dc.service, which is there; 1 × conflicts with dd.service, which is there"#]],
    );
}
