//! What is outside fleetctl's power: a store that is away, endpoints that do not answer, readers
//! that leave.

use std::process::Stdio;

use expect_test::expect;

use crate::session::{HELLO, Session, WEB};

const GLOBAL: &str = "[Service]\nExecStart=/bin/x\n[X-Fleet]\nGlobal=true\n";

#[test]
fn a_store_that_is_away_is_said_so() {
    let session = Session::new();
    session.fake.cluster().store_is_away = true;
    expect![[r#"
        $ fleetctl list-unit-files
        err| Error retrieving list of units from repository: fleet server unable to communicate with etcd
        err| Hint: fleetd cannot reach its store; running units keep running. Is etcd healthy?
        rc=1
    "#]]
    .assert_eq(&session.run("list-unit-files"));
}

#[test]
fn endpoints_are_tried_in_turn() {
    let session = Session::new();
    let good = format!("unix://{}/fleet.sock", session.path().display());
    let said = session.run(&format!(
        "--endpoint http://127.0.0.1:1,unix:///nonexistent,{good} list-machines --no-legend"
    ));
    expect![[r#"
        $ fleetctl --endpoint http://127.0.0.1:1,unix:///nonexistent,unix://DIR/fleet.sock list-machines --no-legend
        out| c2e1b518...	127.0.0.1	node=a
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn something_else_that_answers_is_no_fleetd() {
    use std::io::{Read, Write};
    let session = Session::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            );
        }
    });
    let said = session
        .run(&format!("--endpoint http://{address} list-machines"))
        .replace(&address.to_string(), "ADDRESS");
    expect![[r#"
        $ fleetctl --endpoint http://ADDRESS list-machines
        err| Error retrieving list of active machines from fleet API (GET /fleet/v1/machines: the answer is not one of fleetd's: expected value at line 1 column 1)
        err| Possible issues:
        err|   etcd is unhealthy and/or lost quorum
        err|   connection cannot be established to any etcd servers
        err| Hint: is that a fleetd? `fleetctl version --json` shows both versions
        rc=1
    "#]].assert_eq(&said);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let session = Session::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child =
        session.command("list-machines").stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
        (Some(0), "")
    );
}

#[test]
fn a_full_disk_is_an_error() {
    let session = Session::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = session
        .command("list-machines")
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    expect![[r#"
        Error: cannot write the output: No space left on device (os error 28)
    "#]]
    .assert_eq(&String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_endpoint_that_hangs_is_given_ten_seconds_then_the_next_is_asked() {
    let session = Session::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let good = session.endpoint();
    let (alone, both) = std::thread::scope(|scope| {
        let alone = scope.spawn(|| session.run(&format!("--endpoint http://{address} list-units")));
        let both = scope.spawn(|| {
            session.run(&format!("--endpoint http://{address},{good} list-machines --no-legend"))
        });
        (alone.join().unwrap(), both.join().unwrap())
    });
    expect![[r#"
        $ fleetctl --endpoint http://ADDRESS list-units
        err| Error retrieving list of units from repository: GET http://ADDRESS/fleet/v1/state: no answer within 10 s
        err| Hint: fleetd accepted the request but does not answer; see `journalctl -u fleetd` on that machine, or name another with --endpoint
        rc=1
    "#]].assert_eq(&alone.replace(&address, "ADDRESS"));
    expect![[r#"
        $ fleetctl --endpoint http://ADDRESS,unix://DIR/fleet.sock list-machines --no-legend
        out| c2e1b518...	127.0.0.1	node=a
        err| GET http://ADDRESS/fleet/v1/machines: no answer within 10 s; trying unix://DIR/fleet.sock
        rc=0
    "#]]
    .assert_eq(&both.replace(&address, "ADDRESS"));
}

#[test]
fn a_machine_that_does_not_answer_is_an_error_after_what_the_others_say() {
    let session = Session::new();
    session.file("hello.service", HELLO).run("start hello");
    session.fake.cluster().problem =
        Some("machine cccccccc did not answer: connection refused".to_string());
    expect![[r#"
        $ fleetctl status hello
        out| ● hello.service
        out|      Active: active
        err| Error: machine cccccccc did not answer: connection refused
        rc=1

        $ fleetctl journal hello
        out| Nov 22 21:33:16 host hello.service: hello
        err| Error: machine cccccccc did not answer: connection refused
        rc=1

        $ fleetctl journal -f hello
        out| Nov 22 21:33:16 host hello.service: hello
        err| machine cccccccc did not answer: connection refused
        rc=1
    "#]]
    .assert_eq(&session.transcript("status hello\njournal hello\njournal -f hello"));
    session.fake.cluster().problem = None;
    expect![[r#"
        $ fleetctl journal -f hello
        out| Nov 22 21:33:16 host hello.service: hello
        err| Error: the journal of hello.service ended early: fleetd closed the connection
        rc=1
    "#]]
    .assert_eq(&session.run("journal -f hello"));
}

#[test]
fn nothing_is_changed_where_one_of_several_cannot_be() {
    let session = Session::of_three();
    session
        .file("a.service", HELLO)
        .file("b.service", HELLO)
        .file("web@.service", WEB)
        .file("glob@.service", GLOBAL);
    session.run("start a");
    session.run("submit b web@.service glob@.service");
    let revision = session.fake.cluster().revision;
    expect![[r#"
        $ fleetctl stop a b
        err| Unable to stop unit b.service in state inactive
        rc=1

        $ fleetctl scale web=3 nosuch=2
        err| Error scaling units: unable to find Unit(nosuch@.service) in Registry or on filesystem
        err| Hint: a template's file is named nosuch@.service; run this where it lies, or `fleetctl submit` it first
        rc=1

        $ fleetctl scale web=3 web=-1
        err| Error scaling units: replicas would be -1; expect 0 to 1000000
        rc=1

        $ fleetctl scale web=3 glob=1
        err| Error scaling units: glob@.service is Global: it runs once on every machine that fits, and has no count
        rc=1
    "#]]
    .assert_eq(&session.transcript("stop a b\nscale web=3 nosuch=2\nscale web=3 web=-1\nscale \
        web=3 glob=1"));
    assert_eq!(session.fake.cluster().revision, revision);
}

#[test]
fn without_a_unit_type_a_container_is_found_by_every_command() {
    let session = Session::new();
    session
        .file("worker@.container", "[Container]\nImage=x\n")
        .file("solo.container", "[Container]\nImage=y\n");
    session.run("scale worker=1");
    session.run("start solo");
    let said = session.transcript(
        "cat worker@1
        cat solo
        status worker@1
        status --json solo
        status nosuch
        journal worker@1
        journal solo
        list-revisions solo
        restart solo
        stop solo
        start solo",
    );
    expect![[r#"
        $ fleetctl cat worker@1
        out| [Container]
        out| Image=x
        rc=0

        $ fleetctl cat solo
        out| [Container]
        out| Image=y
        rc=0

        $ fleetctl status worker@1
        out| ● worker@1.container
        out|      Active: active
        rc=0

        $ fleetctl status --json solo
        out| [
        out|   {
        out|     "hash": "1d4a13dd41219e3723a0a5d6f9b0f98865b4001b",
        out|     "machineID": "c2e1b5180a5ec645aa037c911a0f20bb",
        out|     "name": "solo.container",
        out|     "systemdActiveState": "active",
        out|     "systemdLoadState": "loaded",
        out|     "systemdSubState": "running"
        out|   }
        out| ]
        rc=0

        $ fleetctl status nosuch
        err| Unit nosuch.service does not exist.
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl journal worker@1
        out| Nov 22 21:33:16 host worker@1.container: hello
        rc=0

        $ fleetctl journal solo
        out| Nov 22 21:33:16 host solo.container: hello
        rc=0

        $ fleetctl list-revisions solo
        out| REVISION	HASH	CURRENT	INSTANCES	DATE	BY	CHANGE
        rc=0

        $ fleetctl restart solo
        out| Unit solo.container launched on c2e1b518.../127.0.0.1
        err| Unit(solo.container) was restarted.
        rc=0

        $ fleetctl stop solo
        out| Unit solo.container loaded on c2e1b518.../127.0.0.1
        err| Successfully stopped units [solo.container].
        rc=0

        $ fleetctl start solo
        out| Unit solo.container launched on c2e1b518.../127.0.0.1
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn what_is_no_unit_is_named() {
    let session = Session::new();
    std::fs::create_dir(session.path().join("dir.service")).unwrap();
    session.file("worker@.container", "[Container]\nImage=x\n").run("submit worker@.container");
    expect![[r#"
        $ fleetctl start dir.service
        err| Error creating units: dir.service: this is a folder, not a unit file
        rc=1

        $ fleetctl start @.service
        err| Error creating units: unit name cannot start in "@"
        err| Hint: "@.service" is not the name of a unit
        rc=1

        $ fleetctl stop good.service @.service
        err| "@.service" is not the name of a unit: unit name cannot start in "@"
        err| Units not found in registry
        rc=0

        $ fleetctl destroy worker@
        out| Destroyed worker@.container
        rc=0
    "#]]
    .assert_eq(&session.transcript(
        "start dir.service\nstart @.service\nstop good.service @.service\ndestroy worker@",
    ));
    let output = session.command("").args(["submit", "a b.service"]).output().unwrap();
    expect![[r#"
        Error creating units: invalid character ' ' in unit name
        Hint: "a b.service" is not the name of a unit
    "#]]
    .assert_eq(&String::from_utf8_lossy(&output.stderr));
}

#[test]
fn data_in_json_is_one_entry_a_unit_and_none_is_an_empty_list() {
    let session = Session::new();
    session.file("hello.service", HELLO);
    expect![[r#"
        $ fleetctl --json stop nosuch
        out| []
        err| Units not found in registry
        rc=0

        $ fleetctl --json destroy nosuch
        out| []
        err| Units not found in registry
        rc=0

        $ fleetctl --json start hello
        out| [
        out|   {
        out|     "unit": "hello.service",
        out|     "state": "launched",
        out|     "machineID": "c2e1b5180a5ec645aa037c911a0f20bb",
        out|     "primaryIP": "127.0.0.1"
        out|   }
        out| ]
        rc=0
    "#]]
    .assert_eq(
        &session.transcript("--json stop nosuch\n--json destroy nosuch\n--json start hello"),
    );
}

#[test]
fn what_cannot_be_a_unit_s_name_is_passed_over_like_an_unknown_unit() {
    let session = Session::new();
    session.file("hello.service", HELLO).run("start hello.service");
    for (verb, done) in [
        ("stop", "Unit hello.service loaded"),
        ("unload", "Unit hello.service inactive"),
        ("destroy", "Destroyed hello.service"),
    ] {
        let output =
            session.command(verb).args(["hello.service", "my notes.txt"]).output().unwrap();
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.starts_with(done), "{verb}: {out}{err}");
        let said =
            "\"my notes.txt\" is not the name of a unit: invalid character ' ' in unit name\n";
        assert!(err.starts_with(said), "{verb}: {err}");
    }
}

#[test]
fn a_cat_is_the_file_to_the_byte() {
    let session = Session::new();
    session.file("bare.service", "[Service]\nExecStart=/bin/true").run("submit bare.service");
    let output = session.command("cat bare").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[Service]\nExecStart=/bin/true");
}
