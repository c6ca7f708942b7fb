//! `fleetctl volumes`, `destroy --volumes` and `update --check`.

use expect_test::expect;
use fleet_core::wire::{ImageCheck, ImageCheckPage, Unasked, Volume, VolumePage};

use crate::session::Session;

const A: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";
const B: &str = "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2";

fn volume(name: &str, unit: &str, machine: &str, size: Option<u64>, used_by: &[&str]) -> Volume {
    Volume {
        name: name.to_string(),
        unit: unit.to_string(),
        app: "shop".to_string(),
        machine_id: machine.to_string(),
        size_bytes: size,
        used_by: used_by.iter().map(|user| user.to_string()).collect(),
        last_user: "db.container".to_string(),
        last_used_ms: Some(1),
    }
}

fn shop() -> Session {
    let session = Session::of_three();
    session.fake.cluster().volumes = VolumePage {
        volumes: vec![
            volume("logs", "logs.volume", A, None, &[]),
            volume("systemd-data", "data.volume", A, Some(1_572_864), &["db.container"]),
            volume("systemd-data", "data.volume", B, Some(4096), &[]),
        ],
        unknown: vec![Unasked {
            machine_id: "d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4".to_string(),
            problem: "it is not there".to_string(),
        }],
    };
    session
}

#[test]
fn volumes_are_listed_and_machines_that_do_not_answer_are_named() {
    let session = shop();
    let said = session.transcript(
        "volumes
        volumes --no-legend --fields=app,volume,size
        volumes --fields=nosuch",
    );
    expect![[r#"
        $ fleetctl volumes
        out| VOLUME		UNIT		MACHINE			SIZE	USED
        out| logs		logs.volume	a1a1a1a1.../10.0.0.1	-	db.container
        out| systemd-data	data.volume	a1a1a1a1.../10.0.0.1	1572864	in use by db.container
        out| systemd-data	data.volume	b2b2b2b2.../10.0.0.2	4096	db.container
        err| WARNING: machine d4d4d4d4...: it is not there
        rc=1

        $ fleetctl volumes --no-legend --fields=app,volume,size
        out| shop	logs		-
        out| shop	systemd-data	1572864
        out| shop	systemd-data	4096
        err| WARNING: machine d4d4d4d4...: it is not there
        rc=1

        $ fleetctl volumes --fields=nosuch
        err| Invalid key in output format: "nosuch"
        err| Hint: valid fields are volume,unit,app,machine,size,used
        rc=1
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_volume_is_destroyed_by_name_machine_or_application_unless_it_is_in_use() {
    let session = shop();
    let said = session.transcript(
        "destroy --volumes data
        destroy --volumes --yes data
        destroy --volumes --yes shop
        destroy --volumes --yes nosuch
        destroy --volumes --yes data@b2
        destroy --volumes --yes data@b2b2b2b2
        destroy --volumes --yes logs --json
        destroy --volumes --app shop
        destroy --yes web.service
        volumes --no-legend",
    );
    expect![[r#"
        $ fleetctl destroy --volumes data
        err| Error: destroy --volumes asks first, and stdin is no terminal; nothing was changed
        err| Hint: --yes does it without asking
        rc=2

        $ fleetctl destroy --volumes --yes data
        err| WARNING: machine d4d4d4d4...: it is not there
        err| Error: systemd-data on a1a1a1a1.../10.0.0.1 is in use by db.container; nothing was changed
        err| Hint: `fleetctl unload` or `fleetctl destroy` takes its users off the machine first
        rc=1

        $ fleetctl destroy --volumes --yes shop
        err| WARNING: machine d4d4d4d4...: it is not there
        err| Error: systemd-data on a1a1a1a1.../10.0.0.1 is in use by db.container; nothing was changed
        err| Hint: `fleetctl unload` or `fleetctl destroy` takes its users off the machine first
        rc=1

        $ fleetctl destroy --volumes --yes nosuch
        err| WARNING: machine d4d4d4d4...: it is not there
        err| Error: there is no volume nosuch; nothing was changed
        err| Hint: `fleetctl volumes` shows which there are
        rc=1

        $ fleetctl destroy --volumes --yes data@b2
        err| WARNING: machine d4d4d4d4...: it is not there
        err| Error: data@b2: "b2" is too short for a machine; write 8 digits of its ID; nothing was changed
        err| Hint: `fleetctl volumes` shows which there are
        rc=1

        $ fleetctl destroy --volumes --yes data@b2b2b2b2
        out| Destroyed the volume systemd-data on b2b2b2b2.../10.0.0.2
        err| WARNING: machine d4d4d4d4...: it is not there
        rc=0

        $ fleetctl destroy --volumes --yes logs --json
        out| [
        out|   {
        out|     "unit": "logs",
        out|     "state": "destroyed",
        out|     "machineID": "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"
        out|   }
        out| ]
        err| WARNING: machine d4d4d4d4...: it is not there
        err| What machines have that did not answer is still there.
        rc=1

        $ fleetctl destroy --volumes --app shop
        err| Error: the argument '--volumes' cannot be used with '--app <NAME>'
        err| 
        err| Usage: fleetctl destroy --volumes [UNIT]...
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl destroy --yes web.service
        err| Error: the following required arguments were not provided:
        err|   <--app <NAME>|--volumes>
        err| 
        err| Usage: fleetctl destroy --yes <--app <NAME>|--volumes> <UNIT>...
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl volumes --no-legend
        out| systemd-data	data.volume	a1a1a1a1.../10.0.0.1	1572864	in use by db.container
        err| WARNING: machine d4d4d4d4...: it is not there
        rc=1
    "#]].assert_eq(&said);
}

#[test]
fn a_check_of_images_changes_nothing_and_its_status_says_what_differs() {
    let session = Session::of_three();
    let text = "[Container]\nImage=h1:5000/web:1\nAutoUpdate=registry\n[Service]\nExecStart=/a\n";
    session.file("web@.container", text).file("plain.container", text);
    session.transcript("submit web@.container plain.container\nscale web@.container=2");
    session.transcript("start plain.container");
    let image = |unit: &str, machine: &str, updated: &str| ImageCheck {
        unit: unit.to_string(),
        machine_id: machine.to_string(),
        image: "h1:5000/web:1".to_string(),
        policy: "registry".to_string(),
        updated: updated.to_string(),
    };
    let both = |first: &str, second: &str| ImageCheckPage {
        images: vec![image("web@1.container", A, first), image("web@2.container", B, second)],
        unknown: Vec::new(),
    };
    session.fake.cluster().images = both("false", "false");
    let same = session.transcript("update --check\nupdate --check web@\nupdate --check plain");
    session.fake.cluster().images = both("false", "pending");
    let other = session.transcript("update --check web@\nupdate --check web@ --json");
    session.fake.cluster().images = both("failed", "pending");
    let failed = session.transcript("update --check web@");
    let unknown = vec![Unasked { machine_id: B.to_string(), problem: "timed out".to_string() }];
    let images = vec![image("web@1.container", A, "false")];
    session.fake.cluster().images = ImageCheckPage { images, unknown };
    let away = session.transcript(
        "update --check web@
        update --check nosuch
        update --check web@ --image x
        update web@ plain --image x
        update --check --endpoint=unix:///nosuch.sock",
    );
    expect![[r#"
        $ fleetctl update --check
        out| UNIT		MACHINE			IMAGE		POLICY		UPDATED
        out| web@1.container	a1a1a1a1.../10.0.0.1	h1:5000/web:1	registry	false
        out| web@2.container	b2b2b2b2.../10.0.0.2	h1:5000/web:1	registry	false
        err| 1 running container not checked: without AutoUpdate=registry in its file podman asks no registry
        rc=0

        $ fleetctl update --check web@
        out| UNIT		MACHINE			IMAGE		POLICY		UPDATED
        out| web@1.container	a1a1a1a1.../10.0.0.1	h1:5000/web:1	registry	false
        out| web@2.container	b2b2b2b2.../10.0.0.2	h1:5000/web:1	registry	false
        rc=0

        $ fleetctl update --check plain
        out| UNIT		MACHINE			IMAGE		POLICY		UPDATED
        out| web@1.container	a1a1a1a1.../10.0.0.1	h1:5000/web:1	registry	false
        out| web@2.container	b2b2b2b2.../10.0.0.2	h1:5000/web:1	registry	false
        err| plain.container on a1a1a1a1.../10.0.0.1 not checked: without AutoUpdate=registry in its file podman asks no registry
        rc=2

        $ fleetctl update --check web@
        out| UNIT		MACHINE			IMAGE		POLICY		UPDATED
        out| web@1.container	a1a1a1a1.../10.0.0.1	h1:5000/web:1	registry	false
        out| web@2.container	b2b2b2b2.../10.0.0.2	h1:5000/web:1	registry	pending
        rc=1

        $ fleetctl update --check web@ --json
        out| {
        out|   "images": [
        out|     {
        out|       "unit": "web@1.container",
        out|       "machineID": "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
        out|       "image": "h1:5000/web:1",
        out|       "policy": "registry",
        out|       "updated": "false"
        out|     },
        out|     {
        out|       "unit": "web@2.container",
        out|       "machineID": "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2",
        out|       "image": "h1:5000/web:1",
        out|       "policy": "registry",
        out|       "updated": "pending"
        out|     }
        out|   ]
        out| }
        rc=1

        $ fleetctl update --check web@
        out| UNIT		MACHINE			IMAGE		POLICY		UPDATED
        out| web@1.container	a1a1a1a1.../10.0.0.1	h1:5000/web:1	registry	failed
        out| web@2.container	b2b2b2b2.../10.0.0.2	h1:5000/web:1	registry	pending
        rc=2

        $ fleetctl update --check web@
        out| UNIT		MACHINE			IMAGE		POLICY		UPDATED
        out| web@1.container	a1a1a1a1.../10.0.0.1	h1:5000/web:1	registry	false
        err| WARNING: machine b2b2b2b2.../10.0.0.2: timed out
        rc=2

        $ fleetctl update --check nosuch
        err| there is no unit or application nosuch
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=2

        $ fleetctl update --check web@ --image x
        err| Error: the argument '--check' cannot be used with '--image <IMAGE>'
        err| 
        err| Usage: fleetctl update --check <UNIT>...
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl update web@ plain --image x
        err| Error: update gives one unit another image; name one
        rc=2

        $ fleetctl update --check --endpoint=unix:///nosuch.sock
        err| Error asking for images: GET unix:///nosuch.sock/fleet/v1/images/check: no such file or directory
        err| Hint: is fleetd running on this machine? See `systemctl status fleetd`, or name another machine with --endpoint=http://HOST:PORT
        rc=2
    "#]].assert_eq(&[same, other, failed, away].join("\n"));
}
