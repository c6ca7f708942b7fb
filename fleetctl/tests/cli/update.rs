//! `fleetctl update`.

use expect_test::expect;

use crate::session::Session;

const WEB: &str = "# The shop's web server.\n[Container]\nImage=h1:5000/web:1\n\n[Service]\n\
    Restart=always\n";

#[test]
fn an_update_changes_the_image_in_the_file_and_waits() {
    let session = Session::of_three();
    session.file("web@.container", WEB);
    session.file("plain.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    session.transcript("submit web@.container\nscale web@.container=2\nsubmit plain.service");
    let said = session.transcript(
        "update web@ --image h1:5000/web:2
        cat web@
        update web@ --image h1:5000/web:2
        update web@ --image h1:5000/web:3 --no-block --json
        update web@1.container --image h1:5000/web:4
        update plain --image x
        update web@ --image -x
        update nosuch --image x
        update web@",
    );
    expect![[r#"
        $ fleetctl update web@ --image h1:5000/web:2
        out| Unit web@.container has the image h1:5000/web:2 instead of h1:5000/web:1
        out| Unit web@1.container launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.container launched on b2b2b2b2.../10.0.0.2
        rc=0

        $ fleetctl cat web@
        out| # The shop's web server.
        out| [Container]
        out| Image=h1:5000/web:2
        out| 
        out| [Service]
        out| Restart=always
        rc=0

        $ fleetctl update web@ --image h1:5000/web:2
        out| Unit web@.container has the image h1:5000/web:2, nothing to do
        rc=0

        $ fleetctl update web@ --image h1:5000/web:3 --no-block --json
        out| {
        out|   "name": "web@.container",
        out|   "image": "h1:5000/web:3",
        out|   "before": "h1:5000/web:2"
        out| }
        rc=0

        $ fleetctl update web@1.container --image h1:5000/web:4
        err| Error: cannot update web@1.container: it has no file of its own, it follows web@.container
        err| Hint: fleetctl update web@.container --image h1:5000/web:4
        rc=1

        $ fleetctl update plain --image x
        err| Error: cannot update plain.service: no `docker run` or `podman run` whose image can be told stands in its ExecStart=
        err| Hint: `fleetctl start --replace FILE` takes a file as you write it
        rc=1

        $ fleetctl update web@ --image -x
        err| Error: unknown flag: -x
        err| Run 'fleetctl COMMAND --help' for usage.
        rc=2

        $ fleetctl update nosuch --image x
        err| Unit nosuch.service not found
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl update web@
        err| Error: the following required arguments were not provided:
        err|   --image <IMAGE>
        err| 
        err| Usage: fleetctl update --image <IMAGE> <UNIT>...
        err| 
        err| For more information, try '--help'.
        rc=2
    "#]].assert_eq(&said);
}
