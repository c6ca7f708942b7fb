//! `fleetctl rollback` and `list-revisions`.

use expect_test::expect;
use fleet_core::wire::Revision;

use crate::session::{Session, WEB};

#[test]
fn a_rollback_waits_for_the_earlier_text_and_revisions_are_a_list() {
    let session = Session::of_three();
    session.file("web@.service", WEB);
    session.transcript("submit web@.service\nscale web=2");
    let revision = |revision, hash: &str, current, instances| Revision {
        revision,
        hash: hash.repeat(5),
        current,
        instances,
        ..Revision::default()
    };
    session.fake.cluster().revisions = vec![
        Revision {
            by: "anna\u{1b}[2J@h1".into(),
            at_ms: Some(1_700_000_000_000),
            change: "ExecStart=, +Environment=; 3 lines".into(),
            ..revision(3, "c3c3c3c3", true, 1)
        },
        revision(2, "b2b2b2b2", false, 1),
        revision(1, "a1", false, 0),
    ];
    let said = session.transcript(
        "list-revisions web@
        list-revisions web@.service -l --fields=revision,hash --no-legend
        list-revisions nosuch
        rollback web@
        rollback web@ --to 1 --no-block
        rollback web@ --to=1 --json
        rollback web@ --to=9
        rollback web@ --to=0
        rollback nosuch
        rollback",
    );
    expect![[r#"
        $ fleetctl list-revisions web@
        out| REVISION	HASH	CURRENT	INSTANCES	DATE			BY		CHANGE
        out| 3		c3c3c3c	yes	1		2023-11-14T22:13:20Z	anna[2J@h1	ExecStart=, +Environment=; 3 lines
        out| 2		b2b2b2b	-	1		-			-		-
        out| 1		a1a1a1a	-	0		-			-		-
        rc=0

        $ fleetctl list-revisions web@.service -l --fields=revision,hash --no-legend
        out| 3	c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3
        out| 2	b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2
        out| 1	a1a1a1a1a1
        rc=0

        $ fleetctl list-revisions nosuch
        err| Unit nosuch.service not found
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl rollback web@
        out| Unit web@.service has the text of revision 2 again, as revision 4
        out| Unit web@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.service launched on b2b2b2b2.../10.0.0.2
        rc=0

        $ fleetctl rollback web@ --to 1 --no-block
        out| Unit web@.service has the text of revision 1 again, as revision 4
        rc=0

        $ fleetctl rollback web@ --to=1 --json
        out| {
        out|   "name": "web@.service",
        out|   "from": 3,
        out|   "to": 1,
        out|   "revision": 4
        out| }
        rc=0

        $ fleetctl rollback web@ --to=9
        err| Error rolling back web@.service: web@.service has no revision 9; its present one is 3
        err| Hint: `fleetctl list-revisions web@.service` shows what there is
        rc=1

        $ fleetctl rollback web@ --to=0
        err| Error: invalid value '0' for '--to <REVISION>': 0 is not in 1..18446744073709551615
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl rollback nosuch
        err| Unit nosuch.service not found
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl rollback
        err| Error: the following required arguments were not provided:
        err|   <UNIT>
        err| 
        err| Usage: fleetctl rollback <UNIT>
        err| 
        err| For more information, try '--help'.
        rc=2
    "#]]
    .assert_eq(&said);
}

#[test]
fn cat_prints_an_earlier_text_to_the_byte() {
    let session = Session::of_three();
    session.file("web.service", WEB);
    session.run("submit web.service");
    session.fake.cluster().revisions = vec![Revision {
        revision: 3,
        text: Some("# no newline at the end".to_string()),
        ..Revision::default()
    }];
    let said = session.transcript(
        "cat web --revision 3
        cat web --revision 4
        cat web --revision 0
        cat nosuch --revision 3",
    );
    expect![[r#"
        $ fleetctl cat web --revision 3
        out| # no newline at the end
        rc=0

        $ fleetctl cat web --revision 4
        err| Error retrieving revision 4 of web.service: web.service has no revision 4
        err| Hint: `fleetctl list-revisions web.service` shows what there is
        rc=1

        $ fleetctl cat web --revision 0
        err| Error: invalid value '0' for '--revision <REVISION>': 0 is not in 1..18446744073709551615
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl cat nosuch --revision 3
        err| Unit nosuch.service not found
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1
    "#]].assert_eq(&said);
    let output = session.command("cat web --revision=3").output().unwrap();
    assert_eq!(output.stdout, b"# no newline at the end");
}
