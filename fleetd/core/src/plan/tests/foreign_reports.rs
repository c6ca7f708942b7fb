//! Reports that no agent of the machine can have written: of a machine that is not there, of units
//! that are another's, of generations to come.

use expect_test::expect;

use super::super::plan;
use super::super::script::{print, snapshot};
use super::check;

#[test]
fn a_report_of_a_machine_that_is_not_registered_ends_no_fenced_copy() {
    check(
        "machine a
         unit db.service | Fence=yes
         on b: db.service
         keeper b held
         report b gen=99:",
        expect![[r#"
            … db.service: fenced: machine b is silent, but its keeper holds its lease and the copy there runs on"#]],
    );
}

/// A copy of the machine's disk has its id while its own fleetd hangs; its keeper does not.
#[test]
fn a_report_of_another_boot_than_the_keepers_ends_no_fenced_copy() {
    let cluster = |keeper: &str| {
        format!(
            "machine a
             machine b
             unit db.service | Fence=yes
             on b:
             off b: db.service/gen=2
             keeper b {keeper}
             report b gen=2:"
        )
    };
    check(
        &cluster("elsewhere"),
        expect![[r#"
            … db.service: fenced: machine b is silent, but its keeper holds its lease and the copy there runs on"#]],
    );
    check(&cluster("held"), expect!["+ db.service on a: machine a fits no longer"]);
}

#[test]
fn a_report_of_a_machine_that_was_never_there_gives_it_nothing() {
    let cluster = "machine a
         unit web@.service x2
         on a: web@1.service web@2.service
         runs a: web@1.service web@2.service";
    let without = print(&plan(&snapshot(cluster)));
    let foreign =
        format!("{cluster}\nreport ghost gen=7: web@1.service web@2.service web@3.service");
    assert_eq!(print(&plan(&snapshot(&foreign))), without);
    assert!(without.is_empty(), "{without}");
}

#[test]
fn a_report_that_names_units_of_others_moves_none_of_them() {
    check(
        "machine a
         machine b
         unit web@.service x2 | MaxUnavailable=1
         unit db.service | Fence=yes
         on a: web@1.service db.service
         on b: web@2.service
         keeper a held
         runs a: web@1.service db.service
         report b gen=1: web@1.service web@2.service db.service ghost.service",
        expect![""],
    );
}

#[test]
fn a_report_of_a_generation_to_come_says_no_more_than_one_of_the_present() {
    let cluster = |generation: &str| {
        let text = format!(
            "machine a
             machine b
             unit web@.service x2 rev=2 | MaxUnavailable=1
             on a: web@1.service/rev=1
             on b: web@2.service/rev=1
             runs a gen={generation}: web@1.service
             runs b gen={generation}: web@2.service"
        );
        print(&plan(&snapshot(&text)))
    };
    assert_eq!(cluster("18446744073709551615"), cluster("1"));
    assert_ne!(cluster("0"), cluster("1"), "of an earlier one it says nothing");
}
