//! `fleetctl reboots`.

use expect_test::expect;
use fleet_core::wire::{RebootLockState, RebootState};

use crate::session::Session;

#[test]
fn the_rules_are_set_and_shown_and_who_never_came_back_is_released() {
    let session = Session::of_three();
    let lock = |machine: char, state, waits: &str| RebootLockState {
        machine_id: machine.to_string().repeat(32),
        group: "default".to_string(),
        state,
        since_ms: u64::MAX,
        by: "somebody at 127.0.0.1".to_string(),
        waits: waits.to_string(),
        ..RebootLockState::default()
    };
    session.fake.cluster().reboots.locks = vec![
        lock('d', RebootState::Away, ""),
        lock('e', RebootState::Draining, "1 unit is left: db.service (it is being stopped)"),
    ];
    let said = session.transcript(
        "reboots --slots 2 --group workers
        reboots --slots 1 --window Sat,Sun_02:00..05:00
        reboots --window whenever
        reboots
        reboots --release dddddddddddddddddddddddddddddddd
        reboots --window any
        reboots --no-legend --fields machine,state,waits
        reboots --release d --slots 2
        reboots --json",
    );
    expect![[r#"
        $ fleetctl reboots --slots 2 --group workers
        rc=0

        $ fleetctl reboots --slots 1 --window Sat,Sun_02:00..05:00
        rc=0

        $ fleetctl reboots --window whenever
        err| Error changing the rules of reboots: invalid window "whenever"
        rc=1

        $ fleetctl reboots
        out| MACHINE		GROUP	STATE		SINCE	BY
        out| dddddddd...	default	away		0s	somebody at 127.0.0.1
        out| eeeeeeee...	default	draining	0s	somebody at 127.0.0.1
        err| eeeeeeee...: 1 unit is left: db.service (it is being stopped)
        err| Slots: 1 of default, 2 of workers. Window: Sat,Sun_02:00..05:00 (closed now)
        rc=0

        $ fleetctl reboots --release dddddddddddddddddddddddddddddddd
        out| Machine dddddddd... holds no reboot lock
        rc=0

        $ fleetctl reboots --window any
        rc=0

        $ fleetctl reboots --no-legend --fields machine,state,waits
        out| eeeeeeee...	draining	1 unit is left: db.service (it is being stopped)
        err| eeeeeeee...: 1 unit is left: db.service (it is being stopped)
        err| Slots: 1 of default, 2 of workers. Window: any time
        rc=0

        $ fleetctl reboots --release d --slots 2
        err| Error: the argument '--release <MACHINE>' cannot be used with '--slots <N>'
        err| 
        err| Usage: fleetctl reboots --release <MACHINE>
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl reboots --json
        out| {
        out|   "slots": {
        out|     "default": 1,
        out|     "workers": 2
        out|   },
        out|   "open": false,
        out|   "locks": [
        out|     {
        out|       "machineID": "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
        out|       "group": "default",
        out|       "state": "draining",
        out|       "sinceMs": 18446744073709551615,
        out|       "by": "somebody at 127.0.0.1",
        out|       "waits": "1 unit is left: db.service (it is being stopped)"
        out|     }
        out|   ]
        out| }
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn who_waits_for_leave_is_told_each_new_reason_and_then_may_reboot() {
    let session = Session::of_three();
    let no = |text: &str| text.to_string();
    session.fake.cluster().reboot_noes = [no("machine x is missing"), no("nobody leads")].into();
    let said = session.transcript("reboots --wait a1\nreboots --no-legend\nreboots --done a1");
    expect![[r#"
        $ fleetctl reboots --wait a1
        out| Machine a1a1a1a1.../10.0.0.1 may reboot
        err| Machine a1a1a1a1.../10.0.0.1 may not reboot yet: machine x is missing
        err| Machine a1a1a1a1.../10.0.0.1 may not reboot yet: nobody leads
        rc=0

        $ fleetctl reboots --no-legend
        out| a1a1a1a1...	default	granted	0s	root@h1
        err| Slots: . Window: any time
        rc=0

        $ fleetctl reboots --done a1
        out| Machine a1a1a1a1.../10.0.0.1 takes units again
        rc=0
    "#]]
    .assert_eq(&said);
    session.fake.cluster().reboot_noes = vec![no("nobody leads"); 9].into();
    let said = session.transcript("reboots --wait a1 --timeout 1\nreboots --wait nosuch");
    expect![[r#"
        $ fleetctl reboots --wait a1 --timeout 1
        err| Machine a1a1a1a1.../10.0.0.1 may not reboot yet: nobody leads
        err| Timed out: machine a1a1a1a1.../10.0.0.1 may not reboot yet
        err| Hint: it keeps its place; `fleetctl reboots` shows it
        rc=3

        $ fleetctl reboots --wait nosuch
        err| No machine starts with "nosuch"
        err| Hint: `fleetctl list-machines` lists the machines that are up; name one that is down by its whole ID
        rc=1
    "#]].assert_eq(&said);
}
