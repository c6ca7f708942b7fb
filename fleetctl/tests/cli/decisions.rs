//! What was decided and why: events, a plan planned again, the store's check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use expect_test::expect;
use fleet_core::check::{Problem, StoreCheck};
use fleet_core::event::{Event, Item, Reason, What};
use fleet_core::model::{FORMAT, Machine, Snapshot, Unit, Unknown, Why};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::replay::Saved;
use fleet_core::wire::{
    FenceWait, Fencing, KeeperLease, LostMachine, Missing, MissingMachine, Moved,
};
use serde_json::json;

use crate::session::{Session, WEB};

const A: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";
const B: &str = "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2";

fn told(session: &Session) {
    let placed = |machine: &str, numbers: &str| Item {
        what: What::Placed,
        machine: Some(MachineId::new(machine)),
        units: BTreeMap::from([(UnitName::trusted("web@.service"), numbers.parse().unwrap())]),
        reason: Some(Reason::Placed { why: Why::Fewest }),
    };
    let event = |at_ms: u64, items: Vec<Item>| Event {
        id: format!("0000000000000007-{at_ms:09}"),
        at_ms: 1_795_534_800_000 + 1000 * at_ms,
        leader: MachineId::new(A),
        term: 7,
        revision: 40,
        plan: "0123456789ab".to_string(),
        ..Event::new(items)
    };
    session.fake.cluster().events = vec![
        event(1, vec![Item::of_machine(What::Leads, MachineId::new(A), Reason::First)]),
        event(2, vec![placed(A, "1-99/2"), placed(B, "2-100/2")]),
        Event {
            left_out: 3,
            ..event(
                3,
                vec![Item::of_machine(What::Lost, MachineId::new(B), Reason::Ran { units: 50 })],
            )
        },
    ];
}

#[test]
fn events_are_lines_with_reasons_picked_by_unit_and_machine() {
    let session = Session::of_three();
    told(&session);
    let said = session.transcript(
        "events
        events --unit web@4
        events --machine a1a1a1a1...
        events -n 1
        events --unit nosuch
        events --unit nosuch --json",
    );
    expect![[r#"
        $ fleetctl events
        out| 2026-11-24T15:40:01Z machine a1a1a1a1 leads: the first to do so
        out| 2026-11-24T15:40:02Z placed web@{1-99/2}.service on a1a1a1a1: fewest units of the machines that fit
        out| 2026-11-24T15:40:02Z placed web@{2-100/2}.service on b2b2b2b2: fewest units of the machines that fit
        out| 2026-11-24T15:40:03Z machine b2b2b2b2 was lost: it ran 50 units
        out| 2026-11-24T15:40:03Z … and 3 more lines, which did not fit into one event
        rc=0

        $ fleetctl events --unit web@4
        out| 2026-11-24T15:40:02Z placed web@{2-100/2}.service on b2b2b2b2: fewest units of the machines that fit
        rc=0

        $ fleetctl events --machine a1a1a1a1...
        out| 2026-11-24T15:40:01Z machine a1a1a1a1 leads: the first to do so
        out| 2026-11-24T15:40:02Z placed web@{1-99/2}.service on a1a1a1a1: fewest units of the machines that fit
        rc=0

        $ fleetctl events -n 1
        out| 2026-11-24T15:40:03Z machine b2b2b2b2 was lost: it ran 50 units
        out| 2026-11-24T15:40:03Z … and 3 more lines, which did not fit into one event
        rc=0

        $ fleetctl events --unit nosuch
        rc=0

        $ fleetctl events --unit nosuch --json
        out| []
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn events_in_json_are_one_list_and_followed_one_a_line() {
    let session = Session::of_three();
    told(&session);
    let said = format!(
        "{}\n{}\n{}",
        session.run("events --json -n 1"),
        session.follow("events -f -n 2", 4),
        session.follow("events -f -n 1 --json", 1)
    );
    expect![[r#"
        $ fleetctl events --json -n 1
        out| [
        out|   {
        out|     "v": 1,
        out|     "id": "0000000000000007-000000003",
        out|     "at_ms": 1795534803000,
        out|     "leader": "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
        out|     "term": 7,
        out|     "revision": 40,
        out|     "plan": "0123456789ab",
        out|     "items": [
        out|       {
        out|         "what": "lost",
        out|         "machine": "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2",
        out|         "reason": {
        out|           "kind": "ran",
        out|           "units": 50
        out|         }
        out|       }
        out|     ],
        out|     "left_out": 3
        out|   }
        out| ]
        rc=0

        $ fleetctl events -f -n 2
        2026-11-24T15:40:02Z placed web@{1-99/2}.service on a1a1a1a1: fewest units of the machines that fit
        2026-11-24T15:40:02Z placed web@{2-100/2}.service on b2b2b2b2: fewest units of the machines that fit
        2026-11-24T15:40:03Z machine b2b2b2b2 was lost: it ran 50 units
        2026-11-24T15:40:03Z … and 3 more lines, which did not fit into one event

        $ fleetctl events -f -n 1 --json
        {"v":1,"id":"0000000000000007-000000003","at_ms":1795534803000,"leader":"a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1","term":7,"revision":40,"plan":"0123456789ab","items":[{"what":"lost","machine":"b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2","reason":{"kind":"ran","units":50}}],"left_out":3}
    "#]].assert_eq(&said);
}

fn saved() -> Saved {
    let machine = json!({"v": 1, "id": A, "metadata": {"disk": "ssd"}});
    let machine: Machine = serde_json::from_value(machine).unwrap();
    let unit = |name: &str, wants: &str| {
        let record = json!({"v": 1, "name": name, "text": format!("[X-Fleet]\n{wants}\n"), "revision": 1, "desired": "launched", "replicas": 3, "created_ms": 0});
        (
            UnitName::trusted(name),
            Arc::new(Unit::from_record(&serde_json::from_value(record).unwrap())),
        )
    };
    let snapshot = Snapshot {
        revision: 40,
        now_ms: 1_795_534_800_000,
        machines: BTreeMap::from([(machine.id.clone(), Arc::new(machine))]),
        units: BTreeMap::from([
            unit("web@.service", "MachineMetadata=disk=ssd"),
            unit("eu@.service", "MachineMetadata=region=eu"),
        ]),
        ..Snapshot::default()
    };
    let mut saved = Saved {
        v: FORMAT,
        version: "2.0.0".to_string(),
        leader: MachineId::new(A),
        term: 7,
        plan: String::new(),
        snapshot,
    };
    saved.plan = saved.replay().digest();
    saved
}

#[test]
fn a_saved_snapshot_is_planned_again() {
    let session = Session::of_three();
    let saved = saved();
    let digest = saved.plan.clone();
    session.fake.cluster().saved = Some(saved.clone());
    session.file(
        "other.json",
        serde_json::to_string(&Saved { plan: "0123456789ab".into(), ..saved.clone() }).unwrap(),
    );
    session.file("none.json", "{}");
    let said = session.transcript(&format!(
        "debug snapshot now.json
        debug replay now.json
        debug snapshot --plan {digest} named.json
        debug snapshot --plan 000000000000 gone.json
        debug replay other.json
        debug replay none.json
        debug replay nosuch.json"
    ));
    let said = said.replace(&digest, "DIGEST").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    expect![[r#"
        $ fleetctl debug snapshot now.json
        err| Saved the snapshot in now.json; `fleetctl debug replay` replays it.
        rc=0

        $ fleetctl debug replay now.json
        out| placed web@{1-3}.service on a1a1a1a1: fewest units of the machines that fit
        out| no machine can run eu@{1-3}.service: lacks the metadata region=eu
        err| The same plan as the leader's at revision 40: DIGEST.
        rc=0

        $ fleetctl debug snapshot --plan DIGEST named.json
        err| Saved the snapshot in named.json; `fleetctl debug replay` replays it.
        rc=0

        $ fleetctl debug snapshot --plan 000000000000 gone.json
        err| Error: the leader no longer has the snapshot of this plan; it keeps the last few
        rc=1

        $ fleetctl debug replay other.json
        out| placed web@{1-3}.service on a1a1a1a1: fewest units of the machines that fit
        out| no machine can run eu@{1-3}.service: lacks the metadata region=eu
        err| Error: at revision 40 this fleetctl plans DIGEST, the leader planned 0123456789ab
        err| Caused by:
        err|   the leader was fleetd 2.0.0, this is VERSION
        rc=1

        $ fleetctl debug replay none.json
        err| Error: none.json is not a snapshot that this version can read: missing field `v` at line 1 column 2
        err| Hint: `fleetctl debug snapshot FILE` writes one
        rc=1

        $ fleetctl debug replay nosuch.json
        err| Error: cannot read nosuch.json: No such file or directory (os error 2)
        rc=1
    "#]]
    .assert_eq(&said);
    let output = session.command("debug replay --json now.json").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        printed.trim_end(),
        serde_json::to_string(&saved.replay()).unwrap(),
        "byte for byte"
    );
    let printed = session.command("debug snapshot").output().unwrap().stdout;
    assert_eq!(printed, std::fs::read(session.path().join("now.json")).unwrap());
}

#[test]
fn the_stores_check_says_what_is_wrong_and_what_to_do() {
    let session = Session::new();
    let mut check = StoreCheck { revision: 77, ..StoreCheck::default() };
    check.count("units", "/fleet/units/a.service", 120);
    check.count("units", "/fleet/units/b.service", 90);
    check.count("reports", "/fleet/reports/x", 3000);
    session.fake.cluster().check = check.clone();
    let sound = session.run("store check");
    let problem = |harms| Problem {
        key: "/fleet/units/a.service".into(),
        problem: "it cannot be read: expected value at line 1 column 1".into(),
        remedy: "repair it or delete it".into(),
        harms,
    };
    session.fake.cluster().check.problems = vec![problem(true), problem(false)];
    let unsound = session.run("store check");
    expect![[r#"
        $ fleetctl store check
        out| units              2 keys         254 bytes, the largest 120
        out| reports            1 keys        3016 bytes, the largest 3000
        out| The store is sound at revision 77.
        rc=0

        $ fleetctl store check
        out| units              2 keys         254 bytes, the largest 120
        out| reports            1 keys        3016 bytes, the largest 3000
        out| BAD  /fleet/units/a.service: it cannot be read: expected value at line 1 column 1; repair it or delete it
        out| note /fleet/units/a.service: it cannot be read: expected value at line 1 column 1; repair it or delete it
        out| 1 document needs a person at revision 77.
        rc=1
    "#]]
    .assert_eq(&format!("{sound}\n{unsound}"));
    let output = session.command("store check --json").output().unwrap();
    let printed: StoreCheck = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((printed.problems.len(), printed.parts), (2, check.parts));
}

#[test]
fn an_unknown_field_of_a_snapshot_is_no_trouble() {
    let mut value = serde_json::to_value(saved()).unwrap();
    value["mood"] = json!("good");
    let read: Saved = serde_json::from_value(value).unwrap();
    assert_eq!(read, saved());
    assert!(read.snapshot.machines.values().all(|machine| machine.unknown == Unknown::new()));
}

#[test]
fn missing_machines_are_told_beside_the_list_and_marked_in_json() {
    let session = Session::of_three();
    let machine = |id: &str, instances| MissingMachine { id: id.to_string(), instances };
    let says = "4 machines are missing and 3 are there: their units are moved slowly, one machine \
        each 30 s, in case it is the network";
    let waits = vec![
        machine("d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4", 5),
        machine("e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5", 1),
    ];
    session.fake.cluster().missing = Some(Missing {
        says: says.to_string(),
        missing: 4,
        there: 3,
        waits,
        next_in_ms: Some(11_200),
    });
    expect![[r#"
        $ fleetctl list-machines
        out| MACHINE		IP		METADATA
        out| a1a1a1a1...	10.0.0.1	region=us
        out| b2b2b2b2...	10.0.0.2	region=us
        out| c3c3c3c3...	10.0.0.3	-
        err| WARNING: 4 machines are missing and 3 are there: their units are moved slowly, one machine each 30 s, in case it is the network
        err| Waiting for d4d4d4d4... (5 units), e5e5e5e5... (1 unit); gives up the first in 12 s
        rc=0
    "#]]
    .assert_eq(&session.run("list-machines"));
    let output = session.command("list-machines --json").output().unwrap();
    let entries: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let marked = |entry: &serde_json::Value| {
        (entry["id"].as_str().unwrap()[..2].to_string(), entry["missing"] == true)
    };
    let marked: Vec<_> = entries.as_array().unwrap().iter().map(marked).collect();
    let expected = [("a1", false), ("b2", false), ("c3", false), ("d4", true), ("e5", true)];
    assert_eq!(marked, expected.map(|(id, missing)| (id.to_string(), missing)));
    session.fake.cluster().missing = Some(Missing { says: says.to_string(), ..Missing::default() });
    let said = session.run("list-machines --no-legend");
    assert!(said.contains("err| All of them are given up"), "{said}");
}

#[test]
fn a_lost_machine_is_told_with_what_moved_off_it_and_listed_where_its_state_is_asked_for() {
    let session = Session::of_three();
    let moved = |name: &str, machine: &str| Moved {
        name: name.to_string(),
        machine_id: machine.repeat(16),
    };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    session.fake.cluster().lost = vec![LostMachine {
        id: "d4".repeat(16),
        primary_ip: "10.0.0.4".to_string(),
        lost_ms: now_ms - 4 * 60_000 - 500,
        instances: 3,
        moved: vec![moved("db.service", ""), moved("web@1.service", "a1")],
    }];
    let said = session.transcript(
        "list-machines
        list-machines --fields=machine,ip,state
        list-machines --color=always",
    );
    expect![[r#"
        $ fleetctl list-machines
        out| MACHINE		IP		METADATA
        out| a1a1a1a1...	10.0.0.1	region=us
        out| b2b2b2b2...	10.0.0.2	region=us
        out| c3c3c3c3...	10.0.0.3	-
        err| Lost 4m ago: d4d4d4d4.../10.0.0.4; moved off it: db.service (on no machine), web@1.service to a1a1a1a1... and 1 more
        rc=0

        $ fleetctl list-machines --fields=machine,ip,state
        out| MACHINE		IP		STATE
        out| a1a1a1a1...	10.0.0.1	up
        out| b2b2b2b2...	10.0.0.2	up
        out| c3c3c3c3...	10.0.0.3	up
        out| d4d4d4d4...	10.0.0.4	lost 4m
        err| Lost 4m ago: d4d4d4d4.../10.0.0.4; moved off it: db.service (on no machine), web@1.service to a1a1a1a1... and 1 more
        rc=0

        $ fleetctl list-machines --color=always
        out| ESC[1mMACHINEESC[0m      ESC[1mIPESC[0m        ESC[1mSTATEESC[0m    ESC[1mMETADATAESC[0m
        out| a1a1a1a1...  10.0.0.1  ESC[32mupESC[0m       region=us
        out| b2b2b2b2...  10.0.0.2  ESC[32mupESC[0m       region=us
        out| c3c3c3c3...  10.0.0.3  ESC[32mupESC[0m       -
        out| d4d4d4d4...  10.0.0.4  ESC[31mlost 4mESC[0m  -
        err| Lost 4m ago: d4d4d4d4.../10.0.0.4; moved off it: db.service (on no machine), web@1.service to a1a1a1a1... and 1 more
        rc=0
    "#]].assert_eq(&said.replace('\x1b', "ESC"));
    let output = session.command("list-machines --json").output().unwrap();
    let entries: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let last = entries.as_array().unwrap().last().unwrap();
    assert_eq!(last["lostMs"], now_ms - 4 * 60_000 - 500);
    assert_eq!(last["moved"][1]["machineID"], "a1".repeat(16));
    assert!(entries[0].get("lostMs").is_none());
}

#[test]
fn status_in_json_says_how_a_fenced_unit_stands_also_where_it_waits() {
    let session = Session::of_three();
    session.file("lone.service", WEB);
    session.run("start lone.service");
    let lease = KeeperLease { life: 7, until_ms: 1_795_534_801_000, left_ms: 5_400, alone: false };
    let (name, machine_id) =
        ("lone.service".to_string(), "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1".to_string());
    let held =
        Fencing { name, machine_id, token: Some(17), lease: Some(lease), ..Fencing::default() };
    let wait = FenceWait {
        name: held.name.clone(),
        machine_id: "b2".to_string(),
        why: "it waits".to_string(),
        ..FenceWait::default()
    };
    let waits = Fencing { name: held.name.clone(), waits: Some(wait), ..Fencing::default() };
    session.fake.cluster().fencing = vec![held, waits];
    let output = session.command("status --json lone.service").output().unwrap();
    let entries: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(entries[0]["systemdActiveState"], "active");
    assert_eq!(entries[0]["fencing"]["lease"]["untilMs"], 1_795_534_801_000_u64);
    assert_eq!(
        (&entries[0]["fencing"]["token"], &entries[1]["fencing"]["waits"]["machineID"]),
        (&17.into(), &"b2".into())
    );
    assert_eq!(entries.as_array().unwrap().len(), 2);
}
