//! Who is meant, and what speaks against a reboot.

use super::*;
use crate::model::{Leader, RebootLock};
use crate::outlook::{Lost, Outlook};
use crate::plan::script::snapshot;

fn id(name: &str) -> MachineId {
    MachineId::new(name)
}

/// The cluster, with a leader that has planned it and remembers these machines as lost.
fn cluster(text: &str, lost: &[&str]) -> Cluster {
    let snapshot = snapshot(text);
    let lost = lost.iter().map(|machine| Lost {
        machine: id(machine),
        address: String::new(),
        at_ms: snapshot.now_ms,
        units: Default::default(),
        instances: 0,
    });
    let outlook = Outlook { term: 7, planned: 100, lost: lost.collect(), ..Outlook::default() };
    let leader = Some(Leader { v: 1, machine: id("a"), since_ms: 0 });
    Cluster { snapshot, leader, term: 7, outlook: Some(outlook), ..Cluster::default() }
}

fn granted(machines: &[&str]) -> Reboots {
    let lock = |name: &&str| {
        let group = DEFAULT_GROUP.to_string();
        (id(name), RebootLock { group, granted_ms: Some(1), ..RebootLock::default() })
    };
    Reboots { locks: machines.iter().map(lock).collect(), ..Reboots::default() }
}

fn said(cluster: &Cluster, reboots: &Reboots, machine: &str) -> String {
    let against = against_cluster(cluster, reboots, &id(machine), cluster.snapshot.now_ms);
    against.map(|against| against.to_string()).unwrap_or_default()
}

#[test]
fn a_client_is_known_by_the_machine_s_id_and_by_what_zincati_makes_of_it() {
    // systemd-id128 machine-id --app-specific=de35106b6ec24688b63afddaa156679b
    let machine = id("0123456789abcdef0123456789abcdef");
    let known = [id("a"), machine.clone(), id("ffffffffffffffffffffffffffffffff")];
    for called in [
        "0123456789abcdef0123456789abcdef",
        "01234567-89ab-cdef-0123-456789abcdef",
        "583627a932274834a8ebd99f4ed41c0d",
        "583627A9-3227-4834-A8EB-D99F4ED41C0D",
    ] {
        assert_eq!(machine_called(&known, called), Some(&machine), "{called}");
    }
    for called in ["", "0123456789abcdef", "583627a932274834a8ebd99f4ed41c0e", "é"] {
        assert_eq!(machine_called(&known, called), None, "{called}");
    }
}

#[test]
fn a_group_s_slots_are_its_own_and_who_has_one_keeps_it() {
    let slot = |reboots: &Reboots, machine: &str, group: &str| {
        let against = against_slot(reboots, &id(machine), group, 0);
        against.map(|against| against.to_string()).unwrap_or_default()
    };
    let mut reboots = granted(&["b"]);
    assert_eq!(slot(&reboots, "a", "default"), "the 1 slot of the group default is taken, by b");
    assert_eq!(slot(&reboots, "b", "default"), "");
    // Nobody gave it slots: it may be a mistyped name.
    assert_eq!(slot(&reboots, "a", "workers"), "the 1 slot of the group default is taken, by b");
    reboots.slots.insert("workers".to_string(), 1);
    assert_eq!(slot(&reboots, "a", "workers"), "");
    reboots.slots.insert("default".to_string(), 2);
    assert_eq!(slot(&reboots, "a", "default"), "");
    reboots.slots.insert("workers".to_string(), 0);
    let none = "the group workers has no slots, so none of its machines reboots";
    assert_eq!(slot(&reboots, "a", "workers"), none);
    reboots.window = Some("02:00..03:00".to_string());
    let closed = "machines reboot in the window \"02:00..03:00\" (UTC) alone";
    assert_eq!(slot(&reboots, "a", "default"), closed);
    assert_eq!(against_slot(&reboots, &id("a"), "default", 9_000_000), None);
    reboots.window = Some("whenever".to_string());
    assert!(slot(&reboots, "a", "default").contains("invalid window"));
}

#[test]
fn nobody_reboots_while_another_machine_is_missing_that_was_not_let_go() {
    let text = "machine a\nmachine b\nunit web@.service x4\non c: web@1.service web@3.service\n\
        on a: web@2.service web@4.service\nruns a: web@2.service web@4.service";
    let mut seen = cluster(text, &[]);
    assert_eq!(said(&seen, &Reboots::default(), "a"), "machine c is missing");
    assert_eq!(
        said(&cluster("machine a", &["d"]), &Reboots::default(), "a"),
        "machine d is missing"
    );
    assert_eq!(said(&cluster("machine a", &["d"]), &granted(&["d"]), "a"), "");
    assert_eq!(said(&cluster("machine a\nmachine d", &["d"]), &granted(&[]), "a"), "");
    seen.snapshot.left.insert(id("c"));
    let down = "2 of 4 instances of web@.service would be down, and at most 1 may be";
    assert_eq!(said(&seen, &Reboots::default(), "a"), down);
    seen.leader = None;
    assert!(said(&seen, &Reboots::default(), "a").contains("nobody leads"));
}

#[test]
fn a_global_unit_s_budget_counts_the_machine_that_wants_to_reboot_and_those_that_do() {
    let on = |machine: &str| format!("on {machine}: log.service\nruns {machine}: log.service\n");
    let text = |machines: &[&str]| {
        let there: String = machines.iter().map(|name| format!("machine {name}\n")).collect();
        let runs: String = machines.iter().map(|name| on(name)).collect();
        format!("{there}unit log.service | Global=true\n{runs}")
    };
    let four = cluster(&text(&["a", "b", "c", "d"]), &[]);
    assert_eq!(said(&four, &granted(&[]), "a"), "");
    let down = "2 of 4 instances of log.service would be down, and at most 1 may be";
    assert_eq!(said(&four, &granted(&["b"]), "a"), down);
    // It has gone down meanwhile, and what it should run still stands there.
    let mut gone = four.clone();
    gone.snapshot.machines.remove("b");
    gone.snapshot.reports.remove("b");
    gone.snapshot.left.insert(id("b"));
    assert_eq!(said(&gone, &granted(&["b"]), "a"), down);
    let eight = cluster(&text(&["a", "b", "c", "d", "e", "f", "g", "h"]), &[]);
    assert_eq!(said(&eight, &granted(&["b"]), "a"), "", "a quarter of eight is two");
    let one = cluster(&text(&["a"]), &[]);
    assert_eq!(said(&one, &granted(&[]), "a"), "", "where all may be down there is no limit");
}

#[test]
fn what_is_down_beyond_its_budget_anywhere_is_waited_for() {
    let seen = cluster(
        "machine a\nmachine b\nunit web@.service x4\nunit web@4.service\nunit db.service\n\
         on b: web@1.service web@2.service web@3.service db.service\n\
         runs b: web@1.service web@2.service/failed web@3.service db.service/failed",
        &[],
    );
    assert_eq!(said(&seen, &granted(&[]), "a"), "", "one of three may be down");
    let seen = cluster(
        "machine a\nmachine b\nunit web@.service x4\n\
         on b: web@1.service web@2.service web@3.service\n\
         runs b: web@1.service web@2.service/failed web@3.service",
        &[],
    );
    let down = "2 of 4 instances of web@.service would be down, and at most 1 may be";
    assert_eq!(said(&seen, &granted(&[]), "a"), down);
}
