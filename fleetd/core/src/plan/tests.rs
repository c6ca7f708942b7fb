//! Text in, text out: a cluster as `script` reads it, the plan below. Each plan, once applied, must
//! leave nothing to plan.

use expect_test::{Expect, expect};

use super::plan;
use super::script::{applied, print, snapshot};

mod asked;
mod beside;
mod budget;
mod fencing;
mod fencing_lives;
mod floors;
mod foreign_reports;
mod moves;
mod needs;
mod spare;
mod spare_midway;

pub(super) fn check(text: &str, expected: Expect) {
    let before = snapshot(text);
    let planned = plan(&before);
    expected.assert_eq(&print(&planned));
    let after = plan(&applied(&before, &planned));
    assert!(after.documents.is_empty(), "planning the planned state gave:\n{}", print(&after));
}

#[test]
fn replicas_spread_over_all_machines_before_any_gets_a_second_one() {
    check(
        "machine a
         machine b
         machine c
         unit web@.service x5",
        expect![[r#"
            + web@1.service on a: fewest units of the machines that fit
            + web@2.service on b: fewest units of the machines that fit
            + web@3.service on c: fewest units of the machines that fit
            + web@4.service on a: fewest units of the machines that fit
            + web@5.service on b: fewest units of the machines that fit"#]],
    );
}

#[test]
fn an_empty_machine_gets_the_next_units_until_it_has_as_many() {
    check(
        "machine a
         machine b
         unit old@.service x2
         unit one.service
         unit three.service
         unit two.service
         on a: old@1.service old@2.service",
        expect![[r#"
            + one.service on b: fewest units of the machines that fit
            + three.service on b: fewest units of the machines that fit
            + two.service on a: fewest units of the machines that fit"#]],
    );
}

#[test]
fn a_global_unit_that_runs_on_no_machine_fits_nowhere() {
    check(
        "machine a
         machine b disk=ssd
         unit here.service | Global=true | MachineMetadata=disk=ssd
         unit eu.service | Global=true | MachineMetadata=region=eu
         unit off.service inactive | Global=true | MachineMetadata=region=eu
         unit shy.service | Global=true | Conflicts=db@*.service
         unit db@.service x2
         on a: db@1.service
         on b: db@2.service",
        expect![[r#"
            + here.service on b: global unit
            ! eu.service: 2 × lacks the metadata region=eu
            ! shy.service: 2 × conflicts with db@.service, which is there"#]],
    );
    check("unit log.service | Global=true", expect!["! log.service: 0 × no machine is registered"]);
    check("unit log.service | Global=true\nsettling a\non a: log.service", expect![[r#""#]]);
}

#[test]
fn siblings_spread_even_to_a_machine_with_more_units() {
    check(
        "machine a
         machine b
         unit old@.service x2
         unit web@.service x2
         on b: old@1.service old@2.service",
        expect![[r#"
            + web@1.service on a: fewest units of the machines that fit
            + web@2.service on b: fewest units of the machines that fit"#]],
    );
}

/// Machine b refuses web@7 alone, which sends the search back to a, with fewer of web: so b waits,
/// though it may take web@8.
#[test]
fn a_machine_that_refused_one_name_waits_while_another_holds_fewer_siblings() {
    check(
        "machine a
         machine b
         machine c
         unit ga.service | Conflicts=web@5.service
         unit gb.service | Conflicts=web@7.service
         unit web@.service x11
         unit x@.service x3
         on a: ga.service
         on b: gb.service web@2.service web@3.service web@4.service x@1.service x@2.service \
         x@3.service
         on c: web@9.service web@10.service web@11.service",
        expect![[r#"
            + web@1.service on a: fewest units of the machines that fit
            + web@5.service on c: fewest units of the machines that fit
            + web@6.service on a: fewest units of the machines that fit
            + web@7.service on a: fewest units of the machines that fit
            + web@8.service on a: fewest units of the machines that fit"#]],
    );
}

#[test]
fn a_machine_that_refused_one_name_comes_before_those_that_hold_more_siblings() {
    check(
        "machine a
         machine b
         machine c
         unit db.service | Conflicts=web@1.service
         unit load.service
         unit web@.service x4
         on a: db.service load.service
         on b: web@3.service
         on c: web@4.service",
        expect![[r#"
            + web@1.service on b: fewest units of the machines that fit
            + web@2.service on a: fewest units of the machines that fit"#]],
    );
}

#[test]
fn equal_machines_are_taken_by_id() {
    check(
        "machine b\nmachine a\nunit one.service",
        expect!["+ one.service on a: fewest units of the machines that fit"],
    );
}

#[test]
fn what_fits_never_moves_even_to_an_empty_machine() {
    check(
        "machine a\nmachine b\nunit web@.service x2\non a: web@1.service web@2.service",
        expect![],
    );
}

#[test]
fn scaling_up_fills_the_lowest_free_numbers() {
    check(
        "machine a\nunit web@.service x4\non a: web@2.service web@4.service",
        expect![[r#"
        + web@1.service on a: fewest units of the machines that fit
        + web@3.service on a: fewest units of the machines that fit"#]],
    );
}

#[test]
fn scaling_down_retires_the_highest_numbers() {
    check(
        "machine a\nmachine b\nunit web@.service x1\non a: web@1.service web@3.service\non b: \
            web@2.service web@10.service",
        expect![[r#"
            - web@3.service off a: Unwanted
            - web@10.service off b: Unwanted
            - web@2.service off b: Unwanted"#]],
    );
}

#[test]
fn scaling_to_zero_and_destroying_leave_nothing() {
    check(
        "machine a\nunit web@.service x0\non a: web@1.service gone.service",
        expect![[r#"
        - gone.service off a: Unwanted
        - web@1.service off a: Unwanted"#]],
    );
    check(
        "machine a\nunit web@.service x1 inactive\nunit b.service inactive\non a: web@1.service \
            b.service",
        expect![[r#"
        - b.service off a: Unwanted
        - web@1.service off a: Unwanted"#]],
    );
}

#[test]
fn a_template_without_a_count_runs_nowhere() {
    check("machine a\nunit web@.service", expect![]);
}

#[test]
fn several_keys_are_all_needed_and_several_values_are_alternatives() {
    check(
        "machine a region=eu
         machine b region=us disk=ssd
         machine c region=asia disk=ssd
         machine d disk=ssd
         unit db.service | MachineMetadata=region=eu | MachineMetadata=region=us | \
         MachineMetadata=disk=ssd",
        expect!["+ db.service on b: fewest units of the machines that fit"],
    );
}

#[test]
fn what_no_machine_can_take_says_why_with_counts() {
    check(
        "machine a region=eu
         machine b region=us
         machine c
         unit db@.service x3 | MachineMetadata=region=eu | MachineMetadata=disk=ssd
         unit pin.service | MachineID=zzz",
        expect![[r#"
            ! db@1.service db@2.service db@3.service: 3 × lacks the metadata disk=ssd
            ! pin.service: 3 × MachineID=zzz names another machine"#]],
    );
}

#[test]
fn without_machines_nothing_is_placed_and_it_says_so() {
    check(
        "unit db.service\nunit agent.service | Global=true",
        expect![[r#"
        ! agent.service: 0 × no machine is registered
        ! db.service: 0 × no machine is registered"#]],
    );
}

#[test]
fn a_pin_takes_the_whole_id_or_its_first_eight_characters() {
    check(
        "machine 0123456789abcdef
         machine 01234567ffffffff
         machine 8888888888888888
         unit full.service | MachineID=0123456789abcdef
         unit part.service | MachineID=012345
         unit short.service | MachineID=88888888",
        expect![[r#"
            + full.service on 0123456789abcdef: MachineID names this machine
            + short.service on 8888888888888888: MachineID names this machine
            ! part.service: 3 × MachineID=012345 names another machine"#]],
    );
}

#[test]
fn labels_taken_away_move_the_unit() {
    check(
        "machine a\nmachine b disk=ssd\nunit db.service | MachineMetadata=disk=ssd\non a: \
            db.service",
        expect![[r#"
            - db.service off a: Unfit(Lacks { key: "disk", values: {"ssd"} })
            + db.service on b: machine a fits no longer"#]],
    );
}

#[test]
fn an_instance_submitted_by_name_wins_over_the_replica_in_place() {
    check(
        "machine a\nmachine b\nunit web@.service x2\nunit web@2.service rev=7\non a: \
            web@1.service\non b: web@2.service/unit=web@.service/rev=1",
        expect!["~ web@2.service on b"],
    );
}

#[test]
fn an_instance_submitted_by_name_and_destroyed_becomes_a_replica_in_place() {
    check(
        "machine a\nmachine b\nunit web@.service x2\non a: web@1.service\non b: \
            web@2.service/unit=web@2.service",
        expect!["~ web@2.service on b"],
    );
}

#[test]
fn an_instance_submitted_by_name_takes_its_number_even_while_inactive() {
    check(
        "machine a\nunit web@.service x2\nunit web@1.service inactive\nunit web@1.socket",
        expect![[r#"
        + web@2.service on a: fewest units of the machines that fit
        + web@1.socket on a: fewest units of the machines that fit"#]],
    );
}

#[test]
fn names_that_begin_alike_are_told_apart() {
    check(
        "machine a
         unit we@.service x1
         unit web2@.service x1
         unit web@.service x2
         unit web@.socket x1
         unit web@07.service
         unit web.service
         on a: web@2.socket",
        expect![[r#"
            - web@2.socket off a: Unwanted
            + we@1.service on a: fewest units of the machines that fit
            + web.service on a: fewest units of the machines that fit
            + web2@1.service on a: fewest units of the machines that fit
            + web@1.service on a: fewest units of the machines that fit
            + web@2.service on a: fewest units of the machines that fit
            + web@1.socket on a: fewest units of the machines that fit
            + web@07.service on a: fewest units of the machines that fit"#]],
    );
}

#[test]
fn a_new_text_a_state_and_a_restart_update_in_place() {
    check(
        "machine a
         unit x.service rev=2
         unit y.service loaded
         unit z.service restart=3
         on a: x.service/rev=1 y.service/launched z.service",
        expect![[r#"
            ~ x.service on a
            ~ y.service on a
            ~ z.service on a"#]],
    );
}

#[test]
fn a_full_machine_takes_no_more_and_its_document_stays_below_the_limit() {
    let name = "a-name-that-is-long-enough-to-fill-a-document-soon".repeat(3);
    // Replicas stand in a row of a few bytes each, so their number is the limit; units of their own
    // fill the document.
    let singles: String = (0..7_000).map(|n| format!("unit {name}-{n}.service\n")).collect();
    for (units, most) in [(format!("unit {name}@.service x10050"), 10_000), (singles, 6_900)] {
        let before = snapshot(&format!("machine a\n{units}"));
        let planned = plan(&before);
        let document = planned.documents.values().next().unwrap();
        let size = serde_json::to_vec(document).unwrap().len();
        assert!(size < crate::model::MAX_DOCUMENT_BYTES, "{size}");
        let placed = document.instances.len();
        assert!((5_000..=most).contains(&placed), "{placed}");
        assert!(
            planned
                .unplaced
                .iter()
                .all(|unplaced| format!("{:?}", unplaced.misfits) == "[(Full, 1)]")
        );
        let after = applied(&before, &planned);
        assert!(plan(&after).documents.is_empty(), "what is there stays");
    }
}
