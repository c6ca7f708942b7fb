//! `fleetctl drain`, `cordon`, `uncordon`.

use expect_test::expect;
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
        err| Drained, so nothing new is placed there: a1a1a1a1...
        rc=0

        $ fleetctl list-machines --fields=machine,availability --no-legend
        out| a1a1a1a1...	draining
        out| b2b2b2b2...	active
        out| c3c3c3c3...	active
        err| Drained, so nothing new is placed there: a1a1a1a1...
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
        err| Cordoned, so nothing new is placed there: a1a1a1a1..., b2b2b2b2...
        err| Drained, so nothing new is placed there: c3c3c3c3...
        rc=0
    "#]]
    .assert_eq(&said);
}
