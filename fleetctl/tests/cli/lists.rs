//! Lists: columns, order, pages, JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use expect_test::expect;
use fleet_core::wire::{FailurePage, UnitFailure};

use crate::session::{HELLO, Session, WEB};

fn busy() -> Session {
    let session = Session::of_three();
    session
        .file("web@.service", WEB)
        .file("hello.service", HELLO)
        .file("bad.service", "[Service]\nExecStart=/bin/bad\n");
    session.file("glob.service", "[Service]\nExecStart=/bin/x\n[X-Fleet]\nGlobal=true\n");
    for command in ["scale web=4", "start glob", "submit hello", "start --no-block bad"] {
        session.run(command);
    }
    session
}

#[test]
fn lists_of_several_machines_are_sorted_by_unit_then_machine() {
    let said = busy().transcript(
        "list-units
        list-units --fields=unit,active,result -l
        list-unit-files
        list-unit-files --fields=unit,replicas,revision --no-legend
        list-machines
        list-machines -l --fields=metadata,machine",
    );
    expect![[r#"
        $ fleetctl list-units
        out| UNIT		MACHINE			ACTIVE	SUB
        out| bad.service	a1a1a1a1.../10.0.0.1	failed	failed
        out| glob.service	a1a1a1a1.../10.0.0.1	active	running
        out| glob.service	b2b2b2b2.../10.0.0.2	active	running
        out| glob.service	c3c3c3c3.../10.0.0.3	active	running
        out| web@1.service	a1a1a1a1.../10.0.0.1	active	running
        out| web@2.service	b2b2b2b2.../10.0.0.2	active	running
        out| web@3.service	c3c3c3c3.../10.0.0.3	active	running
        out| web@4.service	a1a1a1a1.../10.0.0.1	active	running
        rc=0

        $ fleetctl list-units --fields=unit,active,result -l
        out| UNIT		ACTIVE	RESULT
        out| bad.service	failed	exit-code
        out| glob.service	active	-
        out| glob.service	active	-
        out| glob.service	active	-
        out| web@1.service	active	-
        out| web@2.service	active	-
        out| web@3.service	active	-
        out| web@4.service	active	-
        rc=0

        $ fleetctl list-unit-files
        out| UNIT		HASH	DSTATE		STATE		TARGET
        out| bad.service	59c96fd	launched	launched	a1a1a1a1.../10.0.0.1
        out| glob.service	1c79c8c	launched	-		global
        out| hello.service	1253888	inactive	inactive	-
        out| web@.service	c8616cb	launched	launched	4/4
        rc=0

        $ fleetctl list-unit-files --fields=unit,replicas,revision --no-legend
        out| bad.service	-	-
        out| glob.service	-	-
        out| hello.service	-	-
        out| web@.service	4	-
        rc=0

        $ fleetctl list-machines
        out| MACHINE		IP		METADATA
        out| a1a1a1a1...	10.0.0.1	region=us
        out| b2b2b2b2...	10.0.0.2	region=us
        out| c3c3c3c3...	10.0.0.3	-
        rc=0

        $ fleetctl list-machines -l --fields=metadata,machine
        out| METADATA	MACHINE
        out| region=us	a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1
        out| region=us	b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2
        out| -		c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn json_is_one_document_of_the_apis_fields() {
    let session = busy();
    for (command, entries) in [
        ("list-units", 8),
        ("list-unit-files", 4),
        ("list-machines", 3),
        ("status hello web@.service", 4),
    ] {
        let output = session.command(&format!("{command} --json")).output().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect(command);
        assert_eq!(value.as_array().expect(command).len(), entries, "{command}");
    }
    let said = session.transcript(
        "list-machines --json
        cat hello --json
        stop --json bad
        destroy --json nosuch",
    );
    expect![[r#"
        $ fleetctl list-machines --json
        out| [
        out|   {
        out|     "id": "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
        out|     "metadata": {
        out|       "region": "us"
        out|     },
        out|     "primaryIP": "10.0.0.1"
        out|   },
        out|   {
        out|     "id": "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2",
        out|     "metadata": {
        out|       "region": "us"
        out|     },
        out|     "primaryIP": "10.0.0.2"
        out|   },
        out|   {
        out|     "id": "c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3",
        out|     "primaryIP": "10.0.0.3"
        out|   }
        out| ]
        rc=0

        $ fleetctl cat hello --json
        out| {
        out|   "currentState": "inactive",
        out|   "desiredState": "inactive",
        out|   "name": "hello.service",
        out|   "options": [
        out|     {
        out|       "name": "Description",
        out|       "section": "Unit",
        out|       "value": "Hello World"
        out|     },
        out|     {
        out|       "name": "ExecStart",
        out|       "section": "Service",
        out|       "value": "/bin/bash -c \"while true; do echo Hello, World!; sleep 2; done\""
        out|     }
        out|   ],
        out|   "text": "[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/bash -c \"while true; do echo Hello, World!; sleep 2; done\"\n",
        out|   "hash": "12538882634ecdba3dc6ddab70473ebc073de4e7"
        out| }
        rc=0

        $ fleetctl stop --json bad
        out| [
        out|   {
        out|     "unit": "bad.service",
        out|     "state": "loaded",
        out|     "machineID": "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
        out|     "primaryIP": "10.0.0.1"
        out|   }
        out| ]
        err| Successfully stopped units [bad.service].
        rc=0

        $ fleetctl destroy --json nosuch
        out| []
        err| Units not found in registry
        rc=0
    "#]].assert_eq(&said);
}

#[test]
fn json_of_an_empty_cluster_is_an_empty_list() {
    expect![[r#"
        $ fleetctl list-units --json
        out| []
        rc=0

        $ fleetctl list-unit-files --json
        out| []
        rc=0
    "#]]
    .assert_eq(&Session::new().transcript("list-units --json\nlist-unit-files --json"));
}

#[test]
fn status_exits_as_systemctl_did_and_the_worst_of_several_counts() {
    let said = busy().transcript(
        "status glob.service
        status glob bad
        status hello
        status nosuch glob
        status web
        journal web
        cat web",
    );
    expect![[r#"
        $ fleetctl status glob.service
        out| ● glob.service
        out|      Active: active
        rc=0

        $ fleetctl status glob bad
        out| ● glob.service
        out|      Active: active
        out| 
        out| ● bad.service
        out|      Active: failed
        rc=3

        $ fleetctl status hello
        err| Unit hello.service does not appear to be loaded.
        err| Caused by:
        err|   it is inactive: on no machine
        rc=1

        $ fleetctl status nosuch glob
        out| 
        out| ● glob.service
        out|      Active: active
        err| Unit nosuch.service does not exist.
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl status web
        err| Unit web.service does not exist.
        err| Hint: did you mean web@.service?
        rc=1

        $ fleetctl journal web
        err| Unit web.service does not exist.
        err| Hint: did you mean web@.service?
        rc=1

        $ fleetctl cat web
        err| Unit web.service not found
        err| Hint: did you mean web@.service?
        rc=1
    "#]]
    .assert_eq(&said);
}

#[test]
fn the_journals_options_reach_fleetd() {
    let session = busy();
    let said = session.transcript(
        "journal glob
        journal -f -n 5 -o cat glob
        journal --f --lines=7 --output short-iso --sudo glob
        journal hello
        journal glob hello",
    );
    expect![[r#"
        $ fleetctl journal glob
        out| Nov 22 21:33:16 host glob.service: hello
        rc=0

        $ fleetctl journal -f -n 5 -o cat glob
        out| Nov 22 21:33:16 host glob.service: hello
        err| Error: the journal of glob.service ended early: fleetd closed the connection
        rc=1

        $ fleetctl journal --f --lines=7 --output short-iso --sudo glob
        out| Nov 22 21:33:16 host glob.service: hello
        err| Error: the journal of glob.service ended early: fleetd closed the connection
        rc=1

        $ fleetctl journal hello
        err| Unit hello.service does not appear to be running.
        err| Caused by:
        err|   it is inactive: on no machine
        rc=1

        $ fleetctl journal glob hello
        err| One unit file must be provided.
        rc=1
    "#]]
    .assert_eq(&said);
    expect![[r#"
        lines=10&follow=false&output=short&notes=true
        lines=5&follow=true&output=cat&notes=true
        lines=7&follow=true&output=short-iso&notes=true
        lines=10&follow=false&output=short&notes=true"#]]
    .assert_eq(&session.fake.cluster().journals.join("\n"));
}

#[test]
fn a_line_of_a_journal_that_begins_like_a_note_is_none_and_one_without_an_end_is_printed() {
    let session = busy();
    let endless = "x".repeat(1 << 20);
    session.fake.cluster().says = Some(format!("\0\0unit glob was destroyed\n{endless}"));
    let output = session.command("journal glob").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected =
        format!("Nov 22 21:33:16 host glob.service: hello\n\0unit glob was destroyed\n{endless}");
    assert!(printed == expected, "{} bytes", printed.len());
    assert!(output.stderr.is_empty() && output.status.success(), "{output:?}");
    session.fake.cluster().says = None;
    session.fake.cluster().problem = Some("machine a1a1a1a1 does not answer".to_string());
    let said = session.run("journal glob");
    assert!(said.contains("err| Error: machine a1a1a1a1 does not answer"), "{said}");
}

#[test]
fn status_shows_the_last_failures_also_of_a_machine_that_was_left() {
    let session = busy();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let failure = |machine: &str, result: &str, code, count, minutes: u64| UnitFailure {
        name: "bad.service".to_string(),
        machine_id: machine.to_string(),
        result: result.to_string(),
        code,
        count,
        at_ms: now_ms - minutes * 60_000 - 5_000,
        first_ms: now_ms - 10_000_000,
    };
    session.fake.cluster().failures = FailurePage {
        failures: vec![
            failure("a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1", "exit-code", Some(78), 3, 2),
            failure("b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2", "timeout", None, 1, 12),
        ],
        kinds: [("exit-code".to_string(), 3), ("timeout".to_string(), 1)].into(),
    };
    expect![[r#"
        $ fleetctl status bad glob
        out| ● bad.service
        out|      Active: failed
        out| 
        out| Last failures (exit-code 3, timeout 1):
        out|     2m ago  bad.service on a1a1a1a1...: exit-code (78), 3 times
        out|    12m ago  bad.service on b2b2b2b2...: timeout
        out| 
        out| ● glob.service
        out|      Active: active
        rc=3
    "#]]
    .assert_eq(&session.transcript("status bad glob"));
    let output = session.command("status --json bad").output().unwrap();
    let entries: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(entries[0]["failures"][0]["code"], 78);
    assert_eq!(entries[0]["failures"][1]["machineID"], "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2");
}

#[test]
fn status_in_json_shows_what_was_destroyed_and_still_stops() {
    let session = Session::of_three();
    session.fake.cluster().stopping.insert("gone.service".to_string());
    let output = session.command("status --json gone").output().unwrap();
    let entries: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(entries[0]["name"], "gone.service");
    assert_eq!(entries[0]["systemdActiveState"], "deactivating");
    session.fake.cluster().stopping.clear();
    let said = session.run("status --json gone");
    assert!(said.contains("Unit gone.service does not exist."), "{said}");
}
