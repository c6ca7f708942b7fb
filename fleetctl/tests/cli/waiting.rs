//! Waiting: until it is so, until it can never be, until time is up, until Ctrl-C.

use std::process::{Command, Stdio};

use expect_test::expect;

use crate::session::{HELLO, Session, WEB};

#[test]
fn a_start_waits_until_the_unit_is_ready() {
    let session = Session::new();
    session.file("later.service", "[Service]\nExecStart=/bin/later\n");
    expect![[r#"
        $ fleetctl start later
        out| Unit later.service inactive
        out| Unit later.service launched on c2e1b518.../127.0.0.1
        rc=0
    "#]]
    .assert_eq(&session.run("start later"));
}

#[test]
fn an_impossible_unit_says_why_at_once() {
    let session = Session::of_three();
    session
        .file("eu.service", "[Service]\nExecStart=/bin/x\n[X-Fleet]\nMachineMetadata=region=eu\n");
    session.file(
        "far@.service",
        "[Service]\nExecStart=/bin/x\n[X-Fleet]\nMachineMetadata=region=eu\n",
    );
    let said = session.transcript(
        "start --block-attempts=1 eu
        scale far=5
        stop eu
        destroy eu",
    );
    expect![[r#"
        $ fleetctl start --block-attempts=1 eu
        out| Unit eu.service inactive
        err| Error: no machine can run eu.service
        err| Hint: 3 machines: lacks the metadata region=eu
        err| Hint: eu.service stays submitted and is placed when a machine fits; `fleetctl destroy eu.service` removes it
        rc=1

        $ fleetctl scale far=5
        out| Unit far@.service scaled from 0 to 5
        err| Error: no machine can run far@1.service, far@2.service, far@3.service and 2 more
        err| Hint: 3 machines: lacks the metadata region=eu
        err| Hint: far@.service stays submitted and is placed when a machine fits; `fleetctl destroy far@.service` removes it
        rc=1

        $ fleetctl stop eu
        out| Unit eu.service inactive
        err| Successfully stopped units [eu.service].
        rc=0

        $ fleetctl destroy eu
        out| Destroyed eu.service
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_global_unit_that_fits_nowhere_is_an_error_too() {
    let session = Session::of_three();
    session.file(
        "all.service",
        "[Service]\nExecStart=/bin/x\n[X-Fleet]\nGlobal=true\nMachineMetadata=region=eu\n",
    );
    expect![[r#"
        $ fleetctl start all
        out| Unit all.service 
        out| Triggered global unit all.service start
        err| Error: no machine can run all.service
        err| Hint: 3 machines: lacks the metadata region=eu
        err| Hint: all.service stays submitted and is placed when a machine fits; `fleetctl destroy all.service` removes it
        rc=1
    "#]]
    .assert_eq(&session.run("start all"));
}

#[test]
fn a_failed_unit_is_an_error_with_systemds_words() {
    let session = Session::new();
    session.file("bad.service", "[Service]\nExecStart=/bin/bad\n");
    let said = session.transcript(
        "start bad
        start bad
        restart bad
        restart bad --json
        list-units
        destroy bad",
    );
    expect![[r#"
        $ fleetctl start bad
        out| Unit bad.service inactive
        out| Unit bad.service launched on c2e1b518.../127.0.0.1
        err| Error: bad.service failed on c2e1b518...: exit-code, status 203
        err| Hint: fleetctl journal bad.service
        rc=1

        $ fleetctl start bad
        out| Unit bad.service launched on c2e1b518.../127.0.0.1
        err| Error: bad.service failed on c2e1b518...: exit-code, status 203
        err| Hint: fleetctl journal bad.service
        rc=1

        $ fleetctl restart bad
        out| Unit bad.service launched on c2e1b518.../127.0.0.1
        err| Error: bad.service failed on c2e1b518...: exit-code, status 203
        err| Hint: fleetctl journal bad.service
        rc=1

        $ fleetctl restart bad --json
        out| [
        out|   {
        out|     "unit": "bad.service",
        out|     "state": "launched",
        out|     "machineID": "c2e1b5180a5ec645aa037c911a0f20bb",
        out|     "primaryIP": "127.0.0.1"
        out|   },
        out|   {
        out|     "unit": "bad.service",
        out|     "state": "failed",
        out|     "machineID": "c2e1b5180a5ec645aa037c911a0f20bb",
        out|     "primaryIP": "127.0.0.1",
        out|     "status": {
        out|       "load": "loaded",
        out|       "active": "failed",
        out|       "sub": "failed",
        out|       "result": "exit-code",
        out|       "code": 203,
        out|       "since_ms": 0,
        out|       "launched": true
        out|     }
        out|   }
        out| ]
        err| Error: bad.service failed on c2e1b518...: exit-code, status 203
        err| Hint: fleetctl journal bad.service
        rc=1

        $ fleetctl list-units
        out| UNIT		MACHINE			ACTIVE	SUB
        out| bad.service	c2e1b518.../127.0.0.1	failed	failed
        rc=0

        $ fleetctl destroy bad
        out| Destroyed bad.service
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn what_fails_just_after_it_came_up_is_an_error() {
    let session = Session::of_three();
    session.file("dies.service", "[Service]\nExecStart=/bin/dies\n");
    session.file("dies@.service", "[Service]\nExecStart=/bin/dies\n");
    session.file("flaky.service", "[Service]\nExecStart=/bin/flaky\n");
    session.file("ends.service", "[Service]\nExecStart=/bin/ends\n");
    let said = session.transcript(
        "start dies
        scale dies=2
        start flaky
        start ends",
    );
    expect![[r#"
        $ fleetctl start dies
        out| Unit dies.service inactive
        out| Unit dies.service launched on a1a1a1a1.../10.0.0.1
        err| Error: dies.service failed on a1a1a1a1...: exit-code, status 7
        err| Hint: fleetctl journal dies.service
        rc=1

        $ fleetctl scale dies=2
        out| Unit dies@.service scaled from 0 to 2
        out| Unit dies@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit dies@2.service launched on b2b2b2b2.../10.0.0.2
        err| Error: dies@1.service failed on a1a1a1a1...: exit-code, status 7
        err| Hint: fleetctl journal dies@1.service
        rc=1

        $ fleetctl start flaky
        out| Unit flaky.service inactive
        out| Unit flaky.service launched on a1a1a1a1.../10.0.0.1
        rc=0

        $ fleetctl start ends
        out| Unit ends.service inactive
        out| Unit ends.service launched on a1a1a1a1.../10.0.0.1
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn what_cannot_be_looked_at_is_believed_after_its_machine_s_next_report() {
    let session = Session::of_three();
    session.file("dies.service", "[Service]\nExecStart=/bin/dies\n");
    session.file("hello.service", HELLO);
    session.fake.cluster().busy = true;
    let said = session.transcript(
        "start dies
        start hello",
    );
    expect![[r#"
        $ fleetctl start dies
        out| Unit dies.service inactive
        out| Unit dies.service launched on a1a1a1a1.../10.0.0.1
        err| Error: dies.service failed on a1a1a1a1...: exit-code, status 7
        err| Hint: fleetctl journal dies.service
        rc=1

        $ fleetctl start hello
        out| Unit hello.service inactive
        out| Unit hello.service launched on a1a1a1a1.../10.0.0.1
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_start_of_what_runs_looks_no_more() {
    let session = Session::new();
    session.file("hello.service", HELLO);
    session.run("start hello");
    assert!(session.fake.cluster().looked_at.contains("hello.service"));
    session.fake.cluster().looked_at.clear();
    assert!(session.run("start hello").ends_with("rc=0\n"));
    assert!(session.fake.cluster().looked_at.is_empty());
    // Nor at the others of its unit when one more comes.
    session.file("web@.service", HELLO);
    session.run("scale web=6");
    session.fake.cluster().looked_at.clear();
    assert!(session.run("scale web=+1").ends_with("rc=0\n"));
    let looked_at: Vec<String> = session.fake.cluster().looked_at.iter().cloned().collect();
    assert_eq!(looked_at, ["web@7.service"]);
}

#[test]
fn time_runs_out_with_what_was_still_missing() {
    let session = Session::of_three();
    session
        .file("slow.service", "[Service]\nExecStart=/bin/slow\n")
        .file("slow@.service", "[Service]\nExecStart=/bin/slow\n");
    let said = session.transcript(
        "start --timeout=0.3 slow
        scale --timeout=0.3 slow=2
        start --block-attempts=1 slow
        start --no-block slow",
    );
    expect![[r#"
        $ fleetctl start --timeout=0.3 slow
        out| Unit slow.service inactive
        err| Error waiting for units: timed out waiting for unit slow.service to report state launched
        err|   slow.service  a1a1a1a1.../10.0.0.1  activating (start)
        err| Hint: the cluster continues with it; `fleetctl list-units` shows how far it is, --timeout=SECONDS waits longer
        rc=3

        $ fleetctl scale --timeout=0.3 slow=2
        out| Unit slow@.service scaled from 0 to 2
        err| Error waiting for units: timed out waiting for unit slow@.service to report state launched
        err|   slow@1.service  a1a1a1a1.../10.0.0.1  activating (start)
        err|   slow@2.service  b2b2b2b2.../10.0.0.2  activating (start)
        err| Hint: the cluster continues with it; `fleetctl list-units` shows how far it is, --timeout=SECONDS waits longer
        rc=3

        $ fleetctl start --block-attempts=1 slow
        err| Error waiting for units: timed out waiting for unit slow.service to report state launched
        err|   slow.service  a1a1a1a1.../10.0.0.1  activating (start)
        err| Hint: the cluster continues with it; `fleetctl list-units` shows how far it is, --timeout=SECONDS waits longer
        rc=3

        $ fleetctl start --no-block slow
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_broken_follow_is_followed_again() {
    let session = Session::new();
    session.file("hello.service", HELLO);
    session.fake.cluster().follows_to_break = 2;
    expect![[r#"
        $ fleetctl start hello
        out| Unit hello.service inactive
        out| Unit hello.service launched on c2e1b518.../127.0.0.1
        err| The connection to fleetd broke (fleetd closed the connection); trying again.
        rc=0
    "#]]
    .assert_eq(&session.run("start hello"));
}

#[test]
fn ctrl_c_leaves_the_unit_as_asked() {
    let session = Session::new();
    session.file("slow.service", "[Service]\nExecStart=/bin/slow\n");
    let (sender, followed) = std::sync::mpsc::channel();
    session.fake.cluster().on_follow = Some(sender);
    let child = session
        .command("start slow")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    followed.recv().unwrap();
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    expect![[r#"
        Interrupted. The cluster continues with what was asked: slow.service launched
    "#]]
    .assert_eq(&String::from_utf8_lossy(&output.stderr));
    assert_eq!(session.fake.cluster().units["slow.service"].desired_state, "launched");
}

#[test]
fn replacing_a_running_unit_does_not_stop_it_first() {
    let session = Session::new();
    session.file("web.service", WEB).run("start web");
    session.file("web.service", "[Service]\nExecStart=/bin/web2\n");
    expect![[r#"
        $ fleetctl start web
        err| WARNING: Unit web.service in registry differs from local unit file web.service. Add --replace to override.
        rc=0

        $ fleetctl start --replace web
        out| Unit web.service launched on c2e1b518.../127.0.0.1
        rc=0

        $ fleetctl load --replace web
        out| Found same Unit(web.service) in Registry, nothing to do
        out| Unit web.service loaded on c2e1b518.../127.0.0.1
        rc=0

        $ fleetctl cat web
        out| [Service]
        out| ExecStart=/bin/web2
        rc=0
    "#]]
    .assert_eq(&session.transcript("start web\nstart --replace web\nload --replace web\ncat web"));
}

#[test]
fn replacing_a_scaled_templates_text_tells_of_its_replicas_and_of_one_that_fails() {
    let session = Session::new();
    session.file("web@.service", WEB).run("scale web=2");
    session.file("web@.service", "[Service]\nExecStart=/bin/web2\n");
    session.file("bad@.service", WEB).run("scale bad=1");
    session.file("bad@.service", "[Service]\nExecStart=/bin/bad\n");
    expect![[r#"
        $ fleetctl start --replace web@.service
        out| Unit web@1.service launched on c2e1b518.../127.0.0.1
        out| Unit web@2.service launched on c2e1b518.../127.0.0.1
        rc=0

        $ fleetctl start --replace bad@.service
        out| Unit bad@1.service launched on c2e1b518.../127.0.0.1
        err| Error: bad@1.service failed on c2e1b518...: exit-code, status 203
        err| Hint: fleetctl journal bad@1.service
        rc=1
    "#]]
    .assert_eq(&session.transcript("start --replace web@.service\nstart --replace bad@.service"));
}

#[test]
fn a_start_of_what_is_down_starts_it_again_and_leaves_alone_what_runs() {
    let session = Session::of_three();
    session.file("dead.service", HELLO).file("web@.service", WEB);
    session.file("glob.service", "[Service]\nExecStart=/bin/x\n[X-Fleet]\nGlobal=true\n");
    session.run("start dead glob");
    session.run("scale web=3");
    let kill = |names: &[&str]| {
        session.fake.cluster().killed.extend(names.iter().map(ToString::to_string))
    };
    kill(&["dead.service", "web@2.service", "glob.service"]);
    let said = session.transcript(
        "start dead web@ glob
        start dead web@ glob",
    );
    expect![[r#"
        $ fleetctl start dead web@ glob
        out| Triggered global unit glob.service start
        out| Unit dead.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.service launched on b2b2b2b2.../10.0.0.2
        rc=0

        $ fleetctl start dead web@ glob
        rc=0
    "#]]
    .assert_eq(&said);
    assert_eq!(session.fake.cluster().restarts, ["dead.service", "web@2.service", "glob.service"]);
    kill(&["dead.service"]);
    expect![[r#"
        $ fleetctl start --no-block dead
        out| Triggered unit dead.service start
        rc=0

        $ fleetctl start --json dead
        out| []
        rc=0
    "#]]
    .assert_eq(&session.transcript("start --no-block dead\nstart --json dead"));
}

#[test]
fn what_a_machine_refuses_is_stopped_at_once() {
    let session = Session::new();
    session.file("own.service", HELLO);
    session.fake.cluster().refused = Some("this machine has a own.service of its own".to_string());
    expect![[r#"
        $ fleetctl start own
        out| Unit own.service inactive
        out| Unit own.service launched on c2e1b518.../127.0.0.1
        err| Error: own.service failed on c2e1b518...: this machine has a own.service of its own
        err| Hint: fleetctl journal own.service
        rc=1

        $ fleetctl start own
        err| Error: own.service failed on c2e1b518...: this machine has a own.service of its own
        err| Hint: fleetctl journal own.service
        rc=1

        $ fleetctl load own
        out| Unit own.service loaded on c2e1b518.../127.0.0.1
        err| Error: own.service failed on c2e1b518...: this machine has a own.service of its own
        err| Hint: fleetctl journal own.service
        rc=1

        $ fleetctl start own
        out| Unit own.service launched on c2e1b518.../127.0.0.1
        err| Error: own.service failed on c2e1b518...: this machine has a own.service of its own
        err| Hint: fleetctl journal own.service
        rc=1

        $ fleetctl stop own
        out| Unit own.service inactive
        err| Successfully stopped units [own.service].
        rc=0

        $ fleetctl destroy own
        out| Destroyed own.service
        rc=0
    "#]]
    .assert_eq(
        &session.transcript("start own\nstart own\nload own\nstart own\nstop own\ndestroy own"),
    );
}

#[test]
fn what_systemd_does_not_stop_is_said_at_once() {
    let session = Session::new();
    session.file("stays.service", HELLO);
    session.fake.cluster().unstoppable =
        Some("systemd refused to stop stays.service: Operation refused".to_string());
    expect![[r#"
        $ fleetctl start stays
        out| Unit stays.service inactive
        out| Unit stays.service launched on c2e1b518.../127.0.0.1
        rc=0

        $ fleetctl destroy stays
        err| Error: stays.service still runs on c2e1b518...: systemd refused to stop stays.service: Operation refused
        err| Hint: fleet retries every minute; `systemctl kill stays.service` on that machine ends it
        rc=1
    "#]]
    .assert_eq(&session.transcript("start stays\ndestroy stays"));
}
