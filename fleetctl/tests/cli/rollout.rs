//! `fleetctl rollout`, and what commands that wait say of rollouts.

use expect_test::expect;
use fleet_core::event::Reason;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::rollout::{Failure, Kind, State};
use fleet_core::wire::{Rollout, RolloutStatus, WaitsOn};

use crate::session::{Session, WEB};

fn session() -> Session {
    let session = Session::of_three();
    session.file("web@.service", WEB);
    session.transcript("submit web@.service\nscale web=3");
    session
}

fn failure() -> Failure {
    Failure {
        instance: UnitName::trusted("web@1.service"),
        machine: MachineId::new("a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"),
        deadline_ms: None,
        reason: Reason::Failed {
            result: "exit-code".to_string(),
            code: Some(1),
            restarts: 5,
            message: None,
            said: None,
        },
    }
}

/// So many have the third text, and are healthy with it.
fn rolling(new: u32, healthy: u32) -> RolloutStatus {
    RolloutStatus {
        name: "web@.service".to_string(),
        kind: Kind::Text,
        state: State::Rolling,
        over: false,
        revision: 3,
        good: Some(2),
        config: None,
        since_ms: 4_000_000_000_000, // a time to come is shown as 0s
        wanted: 3,
        new,
        old: 3 - new,
        healthy,
        waits: false,
        waits_on: None,
        waits_for: None,
        by: String::new(),
        failure: None,
        failed: String::new(),
    }
}

fn waiting_on(new: u32) -> RolloutStatus {
    let on = WaitsOn {
        instance: format!("web@{new}.service"),
        machine_id: MachineId::new("b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2"),
        since_ms: 0,
    };
    RolloutStatus { waits_on: Some(on), ..rolling(new, new - 1) }
}

fn done() -> RolloutStatus {
    RolloutStatus { state: State::Done, over: true, good: None, ..rolling(3, 3) }
}

fn canary() -> RolloutStatus {
    let unit = UnitName::trusted("web@.service");
    let waits_for = Some(Reason::Paused { unit });
    RolloutStatus { state: State::Paused, waits: true, waits_for, ..rolling(1, 1) }
}

fn undone() -> RolloutStatus {
    let (failure, failed) = (Some(failure()), failure().to_string());
    RolloutStatus { state: State::Undone, over: true, failure, failed, ..rolling(0, 3) }
}

#[test]
fn status_follows_until_it_is_over() {
    let session = session();
    session.fake.cluster().rollouts =
        vec![waiting_on(1), waiting_on(1), waiting_on(2), done()].into();
    expect![[r#"
        $ fleetctl rollout status web@
        out| web@.service: revision 3 after 2: rolling, 1 of 3 new, 0 healthy; web@1.service on b2b2b2b2... is to become healthy
        out| web@.service: revision 3 after 2: rolling, 2 of 3 new, 1 healthy; web@2.service on b2b2b2b2... is to become healthy
        out| web@.service: revision 3: done, 3 of 3 new, 3 healthy
        rc=0
    "#]]
    .assert_eq(&session.run("rollout status web@"));
    let json = session.run("rollout status web@ --json");
    assert!(json.contains("out|   \"state\": \"done\"") && json.contains("rc=0"), "{json}");
}

#[test]
fn status_of_one_that_was_undone_says_what_failed_with_its_last_lines() {
    let session = session();
    session.fake.cluster().rollouts = vec![undone()].into();
    let lines = (0..12).map(|n| format!("{n}.000001 h1 web[7]: line {n}\n")).collect();
    session.fake.cluster().says = Some(lines);
    expect![[r#"
        $ fleetctl rollout status web@
        out| web@.service: revision 3 after 2: undone, 0 of 3 new, 3 healthy
        err| Error: revision 3 of web@.service was undone: web@1.service failed on machine a1a1a1a1: exit-code (1) after 5 restarts
        err| The last lines of web@1.service:
        err|   web[7]: line 2
        err|   web[7]: line 3
        err|   web[7]: line 4
        err|   web[7]: line 5
        err|   web[7]: line 6
        err|   web[7]: line 7
        err|   web[7]: line 8
        err|   web[7]: line 9
        err|   web[7]: line 10
        err|   web[7]: line 11
        err| Hint: `fleetctl rollout resume web@.service` tries it again
        rc=1
    "#]]
    .assert_eq(&session.run("rollout status web@"));
    let asked = session.fake.cluster().journals.clone();
    assert_eq!(asked, ["lines=100&output=short-unix"]);
}

#[test]
fn one_that_still_goes_on_at_the_time_limit_ends_with_3() {
    let session = session();
    session.fake.cluster().rollouts = vec![canary()].into();
    let said = session.transcript(
        "rollout status web@ --timeout=0.2
        rollout status web@ --no-block
        rollout pause web@
        rollout resume web@ --no-block
        rollout status nosuch",
    );
    expect![[r#"
        $ fleetctl rollout status web@ --timeout=0.2
        out| web@.service: revision 3 after 2: paused, 1 of 3 new, 1 healthy; waits for a user
        out| web@.service: revision 3 after 2: paused, 1 of 3 new, 1 healthy; waits for a user
        err| `fleetctl rollout resume web@.service` goes on, `fleetctl rollout undo web@.service` returns all to the last good text
        rc=3

        $ fleetctl rollout status web@ --no-block
        out| web@.service: revision 3 after 2: paused, 1 of 3 new, 1 healthy; waits for a user
        rc=3

        $ fleetctl rollout pause web@
        out| web@.service: revision 3 after 2: paused, 1 of 3 new, 1 healthy; waits for a user
        rc=0

        $ fleetctl rollout resume web@ --no-block
        out| web@.service: revision 3 after 2: paused, 1 of 3 new, 1 healthy; waits for a user
        rc=0

        $ fleetctl rollout status nosuch
        err| Unit nosuch.service not found
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1
    "#]]
    .assert_eq(&said);
    assert_eq!(session.fake.cluster().wanted, ["pause web@.service", "resume web@.service"]);
}

#[test]
fn what_a_user_may_do_is_said_once_a_canary_is_healthy_and_no_sooner() {
    let session = session();
    let starting = RolloutStatus { waits_on: waiting_on(1).waits_on, healthy: 0, ..canary() };
    session.fake.cluster().rollouts =
        vec![starting.clone(), starting.clone(), starting, canary(), canary(), done()].into();
    expect![[r#"
        $ fleetctl rollout status web@
        out| web@.service: revision 3 after 2: paused, 1 of 3 new, 0 healthy; web@1.service on b2b2b2b2... is to become healthy
        out| web@.service: revision 3 after 2: paused, 1 of 3 new, 1 healthy; waits for a user
        out| web@.service: revision 3: done, 3 of 3 new, 3 healthy
        err| `fleetctl rollout resume web@.service` goes on, `fleetctl rollout undo web@.service` returns all to the last good text
        rc=0
    "#]]
    .assert_eq(&session.run("rollout status web@"));
}

#[test]
fn an_undo_that_worked_ends_with_0_and_one_that_cannot_be_says_why() {
    let session = session();
    let by = || RolloutStatus {
        by: "ann".to_string(),
        failure: None,
        failed: String::new(),
        ..undone()
    };
    let returning = RolloutStatus { over: false, new: 1, healthy: 2, ..by() };
    session.fake.cluster().rollouts = vec![returning, by()].into();
    let mut said = session.transcript("rollout undo web@\nrollout status web@");
    session.fake.cluster().rollout_refused = Some("nothing is being rolled out".to_string());
    said += &session.run("rollout undo web@");
    expect![[r#"
        $ fleetctl rollout undo web@
        out| web@.service: revision 3 after 2: undone, 1 of 3 new, 2 healthy
        out| web@.service: revision 3 after 2: undone, 0 of 3 new, 3 healthy
        rc=0

        $ fleetctl rollout status web@
        out| web@.service: revision 3 after 2: undone, 0 of 3 new, 3 healthy
        err| Error: revision 3 of web@.service was undone: ann asked for it
        err| Hint: `fleetctl rollout resume web@.service` tries it again
        rc=1
        $ fleetctl rollout undo web@
        err| Error undoing the rollout of web@.service: nothing is being rolled out
        err| Hint: `fleetctl rollback web@.service` returns to an earlier text
        rc=1
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_list_shows_kinds_states_and_what_is_waited_for() {
    let session = session();
    let restart = RolloutStatus {
        name: "db@.service".to_string(),
        kind: Kind::Restart,
        state: State::Paused,
        failure: Some(failure()),
        failed: failure().to_string(),
        ..canary()
    };
    session.fake.cluster().rollouts = vec![restart, canary(), waiting_on(2)].into();
    expect![[r#"
        $ fleetctl rollout list
        out| UNIT		KIND	STATE	NEW	HEALTHY	WANTED	SINCE	WAITS
        out| db@.service	restart	paused	1	1	3	0s	web@1.service failed on machine a1a1a1a1: exit-code (1) after 5 restarts
        out| web@.service	text	paused	1	1	3	0s	waits for a user
        out| web@.service	text	rolling	2	1	3	0s	web@2.service on b2b2b2b2... is to become healthy
        rc=0
    "#]].assert_eq(&session.run("rollout list"));
}

#[test]
fn a_start_that_waits_for_a_user_says_so_once() {
    let session = session();
    session.fake.cluster().rollout = Some(Rollout {
        state: State::Paused,
        revision: 2,
        good: Some(1),
        failure: None,
        kind: Kind::Text,
        waits: true,
        since_ms: 0,
    });
    session.file("web@.service", "[Service]\nExecStart=/bin/web2 %i\n[X-Fleet]\nCanary=1\n");
    let said = session.run("start --replace web@.service --timeout=0.5");
    let word = "The rollout of web@.service waits for a user: `fleetctl rollout resume \
        web@.service` goes on, `fleetctl rollout undo web@.service` takes it back";
    assert_eq!(said.matches(word).count(), 1, "{said}");
    assert!(said.contains("rc=3"), "{said}");
    // A restart that failed ends the wait.
    let fails = Rollout {
        state: State::Paused,
        revision: 2,
        good: None,
        failure: Some(failure()),
        kind: Kind::Restart,
        waits: true,
        since_ms: 4_000_000_000_000,
    };
    session.fake.cluster().rollout = Some(fails);
    expect![[r#"
        $ fleetctl restart web@
        err| Error: the restart of web@.service goes no further: web@1.service failed on machine a1a1a1a1: exit-code (1) after 5 restarts
        err| Hint: `fleetctl rollout resume web@.service` tries on
        err| Hint: fleetctl journal web@1.service
        rc=1
    "#]].assert_eq(&session.run("restart web@"));
}

#[test]
fn a_text_that_was_undone_is_tried_again_by_start_replace() {
    let session = session();
    session.fake.cluster().rollouts = vec![undone()].into();
    let said = session.run("start --replace web@.service --no-block");
    expect![[r#"
        $ fleetctl start --replace web@.service --no-block
        out| Found same Unit(web@.service) in Registry, nothing to do
        err| The text of web@.service was undone, and is tried again
        rc=0
    "#]]
    .assert_eq(&said);
    assert_eq!(session.fake.cluster().wanted, ["resume web@.service"]);
    session.run("start web@.service --no-block");
    assert_eq!(session.fake.cluster().wanted.len(), 1, "only if it is asked for");
}
