//! `fleetctl drain`, `cordon`, `uncordon`.

use expect_test::expect;
use fleet_core::model::{FORMAT, Machine, Snapshot, Unit, UnitRecord};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::replay::Saved;
use fleet_core::wire::Remaining;

use crate::session::Session;

fn left(name: &str, why: &str, stuck: bool) -> Remaining {
    Remaining { name: name.to_string(), why: why.to_string(), stays: None, stuck }
}

#[test]
fn a_drain_is_done_when_fleetd_says_so_and_a_look_that_fails_says_nothing() {
    let session = Session::of_three();
    let waits = left("web@1.service", "it is about to move", false);
    session.fake.cluster().remaining = [None, Some(vec![waits]), None, Some(Vec::new())].into();
    let said = session.transcript(
        "drain a1a1
        list-machines
        list-machines --fields=machine,availability --no-legend
        uncordon a1
        list-machines --no-legend",
    );
    expect![[r#"
        $ fleetctl drain a1a1
        out| Machine a1a1a1a1.../10.0.0.1 draining
        out| Machine a1a1a1a1.../10.0.0.1 drained
        rc=0

        $ fleetctl list-machines
        out| MACHINE		IP		METADATA
        out| a1a1a1a1...	10.0.0.1	region=us
        out| b2b2b2b2...	10.0.0.2	region=us
        out| c3c3c3c3...	10.0.0.3	-
        err| Drained, so nothing new is placed there: a1a1a1a1... (by root@h1, 0s ago)
        rc=0

        $ fleetctl list-machines --fields=machine,availability --no-legend
        out| a1a1a1a1...	draining
        out| b2b2b2b2...	active
        out| c3c3c3c3...	active
        err| Drained, so nothing new is placed there: a1a1a1a1... (by root@h1, 0s ago)
        rc=0

        $ fleetctl uncordon a1
        out| Machine a1a1a1a1.../10.0.0.1 active
        rc=0

        $ fleetctl list-machines --no-legend
        out| a1a1a1a1...	10.0.0.1	region=us
        out| b2b2b2b2...	10.0.0.2	region=us
        out| c3c3c3c3...	10.0.0.3	-
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn what_stays_for_good_is_named_at_once_and_when_time_is_up() {
    let session = Session::of_three();
    let pinned = left("pin.service", "no other machine can take it", true);
    let waits = left(
        "web@1.service",
        "1 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 be so",
        false,
    );
    session.fake.cluster().remaining = [Some(vec![pinned, waits])].into();
    let said = session.transcript("drain --timeout=0.2 b2b2b2b2");
    expect![[r#"
        $ fleetctl drain --timeout=0.2 b2b2b2b2
        out| Machine b2b2b2b2.../10.0.0.2 draining
        err| pin.service stays on b2b2b2b2.../10.0.0.2: no other machine can take it
        err| Timed out draining machine b2b2b2b2.../10.0.0.2: 2 instances are still there
        err|   pin.service: no other machine can take it
        err|   web@1.service: 1 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 be so
        err| Hint: the drain continues; `fleetctl uncordon` cancels it. `fleetctl stop` or `unload` removes units that no other machine can run
        rc=3
    "#]].assert_eq(&said);
    session.fake.cluster().remaining = [None].into();
    let said = session.transcript("drain --timeout=0.2 c3");
    expect![[r#"
        $ fleetctl drain --timeout=0.2 c3
        out| Machine c3c3c3c3.../10.0.0.3 draining
        err| Timed out draining machine c3c3c3c3.../10.0.0.3: fleetd did not say what is still there
        err| Hint: the drain continues; `fleetctl uncordon` cancels it. `fleetctl stop` or `unload` removes units that no other machine can run
        rc=3
    "#]].assert_eq(&said);
}

#[test]
fn machines_are_named_by_the_beginning_of_their_ids_all_of_them_before_any_is_changed() {
    let session = Session::of_three();
    session.fake.cluster().remaining = [Some(Vec::new())].into();
    let said = session.transcript(
        "cordon
        cordon a1 nosuch
        cordon 0123456789abcdef0123456789abcdef
        list-machines --fields=machine,availability --no-legend
        cordon a1 b2
        drain --no-block c3 --json
        list-machines --fields=machine,availability --no-legend",
    );
    expect![[r#"
        $ fleetctl cordon
        err| Error: the following required arguments were not provided:
        err|   <MACHINE>...
        err| 
        err| Usage: fleetctl cordon <MACHINE>...
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl cordon a1 nosuch
        err| No machine starts with "nosuch"
        err| Hint: `fleetctl list-machines` lists the machines that are up; name one that is down by its whole ID
        rc=1

        $ fleetctl cordon 0123456789abcdef0123456789abcdef
        err| Error changing machine 01234567...: machine 0123456789abcdef0123456789abcdef does not exist
        rc=1

        $ fleetctl list-machines --fields=machine,availability --no-legend
        out| a1a1a1a1...	active
        out| b2b2b2b2...	active
        out| c3c3c3c3...	active
        rc=0

        $ fleetctl cordon a1 b2
        out| Machine a1a1a1a1.../10.0.0.1 cordoned
        out| Machine b2b2b2b2.../10.0.0.2 cordoned
        rc=0

        $ fleetctl drain --no-block c3 --json
        out| [
        out|   {
        out|     "id": "c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3",
        out|     "primaryIP": "10.0.0.3",
        out|     "availability": "draining"
        out|   }
        out| ]
        rc=0

        $ fleetctl list-machines --fields=machine,availability --no-legend
        out| a1a1a1a1...	cordoned
        out| b2b2b2b2...	cordoned
        out| c3c3c3c3...	draining
        err| Cordoned, so nothing new is placed there: a1a1a1a1... (by root@h1, 0s ago), b2b2b2b2... (by root@h1, 0s ago)
        err| Drained, so nothing new is placed there: c3c3c3c3... (by root@h1, 0s ago)
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn who_drains_a_machine_and_why_is_listed_and_a_deadline_ends_the_wait() {
    let session = Session::of_three();
    let pinned = left("pin.service", "no other machine can take it", true);
    session.fake.cluster().remaining = [Some(vec![pinned])].into();
    let said = session.transcript(
        "drain --deadline=1s --reason new-disk a1
        list-machines --no-legend
        cordon --reason looking b2
        drain --deadline 1x a1
        drain --force a1
        list-machines --color=always --fields=machine,state --no-legend",
    );
    expect![[r#"
        $ fleetctl drain --deadline=1s --reason new-disk a1
        out| Machine a1a1a1a1.../10.0.0.1 draining
        err| pin.service stays on a1a1a1a1.../10.0.0.1: no other machine can take it
        err| Timed out draining machine a1a1a1a1.../10.0.0.1: 1 instances are still there
        err|   pin.service: no other machine can take it
        err| Hint: the drain continues; `fleetctl uncordon` cancels it. `fleetctl stop` or `unload` removes units that no other machine can run
        rc=3

        $ fleetctl list-machines --no-legend
        out| a1a1a1a1...	10.0.0.1	region=us
        out| b2b2b2b2...	10.0.0.2	region=us
        out| c3c3c3c3...	10.0.0.3	-
        err| Drained, so nothing new is placed there: a1a1a1a1... (by root@h1, 0s ago: new-disk; deadline passed)
        rc=0

        $ fleetctl cordon --reason looking b2
        out| Machine b2b2b2b2.../10.0.0.2 cordoned
        rc=0

        $ fleetctl drain --deadline 1x a1
        err| Error: invalid value '1x' for '--deadline <TIME>': give a time such as 90s, 10m or 2h, a year at most
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl drain --force a1
        err| Error: the following required arguments were not provided:
        err|   --deadline <TIME>
        err| 
        err| Usage: fleetctl drain --deadline <TIME> --force <MACHINE>...
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl list-machines --color=always --fields=machine,state --no-legend
        out| a1a1a1a1...	draining
        out| b2b2b2b2...	cordoned
        out| c3c3c3c3...	up
        err| Cordoned, so nothing new is placed there: b2b2b2b2... (by root@h1, 0s ago: looking)
        err| Drained, so nothing new is placed there: a1a1a1a1... (by root@h1, 0s ago: new-disk; deadline passed)
        rc=0
    "#]].assert_eq(&said);
    let output = session.command("list-machines --json").output().unwrap();
    let entries: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(entries[0]["note"]["reason"], "new-disk");
    assert_eq!(entries[1]["note"]["by"], "root@h1");
    assert!(entries[2].get("note").is_none());
    session.run("uncordon a1");
    assert!(session.run("list-machines").contains("Cordoned"));
    assert!(!session.run("list-machines").contains("Drained"));
}

#[test]
fn a_dry_run_says_what_would_move_by_the_leaders_snapshot_and_changes_nothing() {
    let session = Session::of_three();
    let mut snapshot = Snapshot { now_ms: 1, ..Snapshot::default() };
    for id in ["a1", "b2"] {
        let id = MachineId::new(id.repeat(16));
        snapshot.machines.insert(id.clone(), Machine::new(id, "10.0.0.1").into());
    }
    let unit = |name: &str, options: &str| {
        let text = format!("[Service]\nExecStart=/bin/x\n[X-Fleet]\n{options}\n");
        let desired = fleet_core::model::DesiredState::Launched;
        let record = UnitRecord { desired, ..UnitRecord::new(UnitName::trusted(name), text) };
        std::sync::Arc::new(Unit::from_record(&record))
    };
    let pin = format!("MachineID={}", "a1".repeat(16));
    for unit in [unit("pin.service", &pin), unit("web.service", "")] {
        snapshot.units.insert(unit.name.clone(), unit);
    }
    let first = fleet_core::plan::plan(&snapshot);
    for (id, document) in first.documents {
        snapshot.assignments.insert(id, document.into());
    }
    snapshot.machines.insert(MachineId::new("b2".repeat(16)), {
        Machine::new(MachineId::new("b2".repeat(16)), "10.0.0.2").into()
    });
    session.fake.cluster().saved = Some(Saved {
        v: FORMAT,
        version: "2.0.0".to_string(),
        leader: MachineId::new("a1".repeat(16)),
        term: 7,
        plan: "x".to_string(),
        snapshot,
    });
    let said = session.transcript(
        "drain --dry-run a1 b2
        drain --dry-run b2
        list-machines --fields=machine,availability --no-legend",
    );
    expect![[r#"
        $ fleetctl drain --dry-run a1 b2
        out| pin.service: stays on a1a1a1a1; no other machine can take it: MachineID=a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1 names another machine
        out| web.service: stays on b2b2b2b2; no other machine can take it
        err| Nothing was changed. 0 would move at once, 0 as their budgets allow; 2 would stay
        rc=0

        $ fleetctl drain --dry-run b2
        out| web.service: b2b2b2b2 to a1a1a1a1
        err| Nothing was changed. 1 would move at once, 0 as their budgets allow; 0 would stay
        rc=0

        $ fleetctl list-machines --fields=machine,availability --no-legend
        out| a1a1a1a1...	active
        out| b2b2b2b2...	active
        out| c3c3c3c3...	active
        rc=0
    "#]].assert_eq(&said);
}

#[test]
fn a_move_says_what_it_waits_for_and_ends_when_the_instance_runs_there() {
    let session = Session::of_three();
    session.file("web.service", crate::session::WEB);
    session.run("submit web.service");
    session.fake.cluster().move_waits = ["1 to go".to_string()].into();
    let said = session.transcript(
        "move web b2
        move --no-block web b2
        move --json web b2
        move nosuch b2
        move web z9",
    );
    expect![[r#"
        $ fleetctl move web b2
        out| Unit web.service moved to b2b2b2b2.../10.0.0.2
        err| web.service waits: 1 to go
        rc=0

        $ fleetctl move --no-block web b2
        out| Triggered move of web.service to b2b2b2b2.../10.0.0.2
        rc=0

        $ fleetctl move --json web b2
        out| {
        out|   "name": "web.service",
        out|   "machineID": "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2",
        out|   "active": true
        out| }
        rc=0

        $ fleetctl move nosuch b2
        err| Unit nosuch.service not found
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl move web z9
        err| No machine starts with "z9"
        err| Hint: `fleetctl list-machines` lists the machines that are up; name one that is down by its whole ID
        rc=1
    "#]].assert_eq(&said);
    session.fake.cluster().refused = Some(
        "web.service does not move to machine b2b2b2b2: the \
        machine lacks the metadata disk=ssd"
            .to_string(),
    );
    expect![[r#"
        $ fleetctl move web b2
        err| Error moving web.service: web.service does not move to machine b2b2b2b2: the machine lacks the metadata disk=ssd
        rc=1
    "#]].assert_eq(&session.run("move web b2"));
}
