//! `fleetctl scale`.

use expect_test::expect;

use crate::session::{Session, WEB};

#[test]
fn scaling_tells_what_comes_and_what_goes() {
    let session = Session::of_three();
    session.file("web@.service", WEB);
    let said = session.transcript(
        "submit web@.service
        scale web=2
        scale web@.service=5
        scale web@=+1
        scale web=-3
        scale --no-block web=4
        stop web@.service
        start web@
        restart web@.service
        scale web=0
        unload web@
        destroy web@.service",
    );
    expect![[r#"
        $ fleetctl submit web@.service
        out| Unit web@.service inactive
        rc=0

        $ fleetctl scale web=2
        out| Unit web@.service scaled from 0 to 2
        out| Unit web@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.service launched on b2b2b2b2.../10.0.0.2
        rc=0

        $ fleetctl scale web@.service=5
        out| Unit web@.service scaled from 2 to 5
        out| Unit web@3.service launched on c3c3c3c3.../10.0.0.3
        out| Unit web@4.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@5.service launched on b2b2b2b2.../10.0.0.2
        rc=0

        $ fleetctl scale web@=+1
        out| Unit web@.service scaled from 5 to 6
        out| Unit web@6.service launched on c3c3c3c3.../10.0.0.3
        rc=0

        $ fleetctl scale web=-3
        out| Unit web@.service scaled from 6 to 3
        out| Unit web@4.service inactive
        out| Unit web@5.service inactive
        out| Unit web@6.service inactive
        rc=0

        $ fleetctl scale --no-block web=4
        out| Unit web@.service scaled from 3 to 4
        rc=0

        $ fleetctl stop web@.service
        out| Unit web@1.service loaded on a1a1a1a1.../10.0.0.1
        out| Unit web@2.service loaded on b2b2b2b2.../10.0.0.2
        out| Unit web@3.service loaded on c3c3c3c3.../10.0.0.3
        out| Unit web@4.service loaded on a1a1a1a1.../10.0.0.1
        err| Successfully stopped units [web@.service].
        rc=0

        $ fleetctl start web@
        out| Unit web@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.service launched on b2b2b2b2.../10.0.0.2
        out| Unit web@3.service launched on c3c3c3c3.../10.0.0.3
        out| Unit web@4.service launched on a1a1a1a1.../10.0.0.1
        rc=0

        $ fleetctl restart web@.service
        out| Unit web@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.service launched on b2b2b2b2.../10.0.0.2
        out| Unit web@3.service launched on c3c3c3c3.../10.0.0.3
        out| Unit web@4.service launched on a1a1a1a1.../10.0.0.1
        err| Unit(web@.service) was restarted.
        rc=0

        $ fleetctl scale web=0
        out| Unit web@.service scaled from 4 to 0
        out| Unit web@1.service inactive
        out| Unit web@2.service inactive
        out| Unit web@3.service inactive
        out| Unit web@4.service inactive
        rc=0

        $ fleetctl unload web@
        err| Successfully unloaded units [web@.service].
        rc=0

        $ fleetctl destroy web@.service
        out| Destroyed web@.service
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn several_templates_scale_at_once_and_local_files_are_submitted_first() {
    let session = Session::of_three();
    session
        .file("web@.service", WEB)
        .file("db@.service", WEB)
        .file("pod@.container", "[Container]\nImage=x\n");
    expect![[r#"
        $ fleetctl scale web=2 db=1 pod=1
        out| Unit web@.service scaled from 0 to 2
        out| Unit db@.service scaled from 0 to 1
        out| Unit pod@.container scaled from 0 to 1
        out| Unit web@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.service launched on b2b2b2b2.../10.0.0.2
        out| Unit db@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit pod@1.container launched on a1a1a1a1.../10.0.0.1
        rc=0

        $ fleetctl scale --json web=+1 db=+0
        out| [
        out|   {
        out|     "name": "web@.service",
        out|     "before": 2,
        out|     "replicas": 3
        out|   },
        out|   {
        out|     "name": "db@.service",
        out|     "before": 1,
        out|     "replicas": 1
        out|   }
        out| ]
        rc=0
    "#]]
    .assert_eq(&session.transcript("scale web=2 db=1 pod=1\nscale --json web=+1 db=+0"));
}

#[test]
fn counts_that_make_no_sense_are_refused() {
    let session = Session::of_three();
    session.file("web@.service", WEB).run("scale web=2");
    let said = session.transcript(
        "scale
        scale web
        scale web=
        scale web=-
        scale web=abc
        scale web.service=2
        scale web@1.service=2
        scale web=-3
        scale web=1000000000
        scale web=99999999999999999999
        scale nosuch=1",
    );
    expect![[r#"
        $ fleetctl scale
        err| Error: No units given
        err| Hint: write UNIT=COUNT: web=5, web@.service=5, web=+2 or web=-1
        rc=2

        $ fleetctl scale web
        err| Error: "web" has no count
        err| Hint: write UNIT=COUNT: web=5, web@.service=5, web=+2 or web=-1
        rc=2

        $ fleetctl scale web=
        err| Error: "web=" does not end in a number
        err| Hint: write UNIT=COUNT: web=5, web@.service=5, web=+2 or web=-1
        rc=2

        $ fleetctl scale web=-
        err| Error: "web=-" does not end in a number
        err| Hint: write UNIT=COUNT: web=5, web@.service=5, web=+2 or web=-1
        rc=2

        $ fleetctl scale web=abc
        err| Error: "web=abc" does not end in a number
        err| Hint: write UNIT=COUNT: web=5, web@.service=5, web=+2 or web=-1
        rc=2

        $ fleetctl scale web.service=2
        err| Error: "web.service=2" cannot be scaled: web.service is not a template; templates are named like web@.service
        err| Hint: write UNIT=COUNT: web=5, web@.service=5, web=+2 or web=-1
        rc=2

        $ fleetctl scale web@1.service=2
        err| Error: "web@1.service=2" cannot be scaled: web@1.service is not a template; templates are named like web@.service
        err| Hint: write UNIT=COUNT: web=5, web@.service=5, web=+2 or web=-1
        rc=2

        $ fleetctl scale web=-3
        err| Error scaling units: replicas would be -1; expect 0 to 1000000
        rc=1

        $ fleetctl scale web=1000000000
        err| Error scaling units: replicas would be 1000000000; expect 0 to 1000000
        rc=1

        $ fleetctl scale web=99999999999999999999
        err| Error: "web=99999999999999999999" has no count: expect 0 to 1000000
        err| Hint: write UNIT=COUNT: web=5, web@.service=5, web=+2 or web=-1
        rc=2

        $ fleetctl scale nosuch=1
        err| Error scaling units: unable to find Unit(nosuch@.service) in Registry or on filesystem
        err| Hint: a template's file is named nosuch@.service; run this where it lies, or `fleetctl submit` it first
        rc=1
    "#]]
    .assert_eq(&said);
    assert_eq!(session.fake.cluster().units["web@.service"].replicas, Some(2));
}

#[test]
fn replicas_with_records_of_their_own_are_left_as_they_are_and_said_to_be() {
    let session = Session::of_three();
    session.file("web@.service", WEB).run("scale web=3");
    let said = session.transcript(
        "stop web@2
        restart web@
        stop web@
        start web@
        scale web=4
        scale web=1
        scale web=3
        destroy web@2
        destroy web@2",
    );
    expect![[r#"
        $ fleetctl stop web@2
        out| Unit web@2.service loaded on a1a1a1a1.../10.0.0.1
        err| Successfully stopped units [web@2.service].
        rc=0

        $ fleetctl restart web@
        out| Unit web@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@3.service launched on c3c3c3c3.../10.0.0.3
        err| Not changed, because they have records of their own: web@2.service (loaded)
        err| Unit(web@.service) was restarted.
        rc=0

        $ fleetctl stop web@
        out| Unit web@1.service loaded on a1a1a1a1.../10.0.0.1
        out| Unit web@3.service loaded on c3c3c3c3.../10.0.0.3
        err| Not changed, because they have records of their own: web@2.service (loaded)
        err| Successfully stopped units [web@.service].
        rc=0

        $ fleetctl start web@
        out| Unit web@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@3.service launched on c3c3c3c3.../10.0.0.3
        err| Not changed, because they have records of their own: web@2.service (loaded)
        rc=0

        $ fleetctl scale web=4
        out| Unit web@.service scaled from 3 to 4
        out| Unit web@4.service launched on a1a1a1a1.../10.0.0.1
        err| Not changed, because they have records of their own: web@2.service (loaded)
        rc=0

        $ fleetctl scale web=1
        out| Unit web@.service scaled from 4 to 1
        out| Unit web@3.service inactive
        out| Unit web@4.service inactive
        err| Not changed, because they have records of their own: web@2.service (loaded)
        rc=0

        $ fleetctl scale web=3
        out| Unit web@.service scaled from 1 to 3
        out| Unit web@3.service launched on c3c3c3c3.../10.0.0.3
        err| Not changed, because they have records of their own: web@2.service (loaded)
        rc=0

        $ fleetctl destroy web@2
        out| Removed web@2.service's own record; web@.service counts it again
        rc=0

        $ fleetctl destroy web@2
        rc=0
    "#]]
    .assert_eq(&said);
}
