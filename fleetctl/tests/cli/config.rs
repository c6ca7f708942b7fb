//! `fleetctl config`.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use expect_test::expect;
use fleet_core::wire::Config;

use crate::follow::{Server, begin, line};
use crate::session::Session;

const WEB: &str = "[Service]\nExecStart=/bin/web %i\nRestart=always\n[X-Fleet]\nConfig=shop\n";
const HUP: &str = "[Service]\nExecStart=/bin/hup\nExecReload=kill -HUP $MAINPID\n\
    [X-Fleet]\nConfig=shop\nConfigChanged=reload\n";

#[test]
fn values_are_set_shown_listed_rolled_back_and_removed() {
    let session = Session::of_three();
    session.file("web@.service", WEB).file("hup.service", HUP).file("lines", "two\nlines\n");
    session.transcript("config set shop LOG=info\nstart hup.service");
    session.transcript("submit web@.service\nscale web=2");
    let said = session.transcript(
        "config set shop LOG=debug db-host=10.0.0.5 cert@lines
        config set shop LOG=debug
        config set shop LOG=debug --json
        config set shop LOG
        config set shop LOG=a LOG=b
        config set shop 2=x
        config set Shop a=b
        config get shop
        config get shop cert
        config get shop nosuch
        config get nosuch
        config get shop --json
        config list
        config list --json
        config history shop
        config rollback shop
        config rollback shop --to=9
        config rollback shop --to=2 --no-block
        config rm shop cert LOG
        config rm shop cert
        config rm shop
        config rm shop --all
        config rm shop --all
        config list",
    );
    expect![[r#"
        $ fleetctl config set shop LOG=debug db-host=10.0.0.5 cert@lines
        out| Unit web@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.service launched on b2b2b2b2.../10.0.0.2
        out| Unit hup.service launched on a1a1a1a1.../10.0.0.1
        err| Configuration shop has revision 2
        err| It restarts web@.service
        err| It reloads hup.service
        rc=0

        $ fleetctl config set shop LOG=debug
        err| Configuration shop has these values already, revision 2
        rc=0

        $ fleetctl config set shop LOG=debug --json
        out| {
        out|   "name": "shop",
        out|   "revision": 2,
        out|   "changes": {},
        out|   "restarts": [],
        out|   "reloads": []
        out| }
        rc=0

        $ fleetctl config set shop LOG
        err| Error: "LOG": expect KEY=VALUE, KEY@FILE or KEY@-
        rc=2

        $ fleetctl config set shop LOG=a LOG=b
        err| Error: LOG is set twice
        rc=2

        $ fleetctl config set shop 2=x
        err| Error: "2" is no key: expect 1 to 128 letters, digits, "_", "." and "-", a letter or "_" first
        rc=1

        $ fleetctl config set Shop a=b
        err| Error: invalid value 'Shop' for '<NAME>': expect lower-case letters, digits, "-" and "_", a letter or digit first
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl config get shop
        out| LOG=debug
        out| cert="two\nlines\n"
        out| db-host=10.0.0.5
        rc=0

        $ fleetctl config get shop cert
        out| two
        out| lines
        rc=0

        $ fleetctl config get shop nosuch
        err| Error: shop has no value nosuch
        err| Hint: fleetctl config get shop
        rc=1

        $ fleetctl config get nosuch
        err| Error with configuration nosuch: there is no configuration nosuch
        err| Hint: fleetctl config set nosuch KEY=VALUE
        rc=1

        $ fleetctl config get shop --json
        out| {
        out|   "name": "shop",
        out|   "revision": 2,
        out|   "changedMs": 2000,
        out|   "values": {
        out|     "LOG": "debug",
        out|     "cert": "two\nlines\n",
        out|     "db-host": "10.0.0.5"
        out|   }
        out| }
        rc=0

        $ fleetctl config list
        out| NAME	REVISION	KEYS	CHANGED
        out| shop	2	3	1970-01-01T00:00:02Z
        rc=0

        $ fleetctl config list --json
        out| [
        out|   {
        out|     "name": "shop",
        out|     "revision": 2,
        out|     "keys": 3,
        out|     "changedMs": 2000
        out|   }
        out| ]
        rc=0

        $ fleetctl config history shop
        out| revision 2 (current), 1970-01-01T00:00:02Z
        out|   LOG=debug
        out|   cert="two\nlines\n"
        out|   db-host=10.0.0.5
        out| revision 1, 1970-01-01T00:00:01Z
        out|   LOG=info
        rc=0

        $ fleetctl config rollback shop
        out| Unit web@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.service launched on b2b2b2b2.../10.0.0.2
        out| Unit hup.service launched on a1a1a1a1.../10.0.0.1
        err| Configuration shop has revision 3
        err| It restarts web@.service
        err| It reloads hup.service
        rc=0

        $ fleetctl config rollback shop --to=9
        err| Error with configuration shop: revision 9 of shop is not kept
        rc=1

        $ fleetctl config rollback shop --to=2 --no-block
        err| Configuration shop has revision 4
        err| It restarts web@.service
        err| It reloads hup.service
        rc=0

        $ fleetctl config rm shop cert LOG
        out| Unit web@1.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.service launched on b2b2b2b2.../10.0.0.2
        out| Unit hup.service launched on a1a1a1a1.../10.0.0.1
        err| Configuration shop has revision 5
        err| It restarts web@.service
        err| It reloads hup.service
        rc=0

        $ fleetctl config rm shop cert
        err| Error: shop has no value cert
        rc=1

        $ fleetctl config rm shop
        err| Error: the following required arguments were not provided:
        err|   <KEY>...
        err| 
        err| Usage: fleetctl config rm <NAME> <KEY>...
        err| 
        err| For more information, try '--help'.
        rc=2

        $ fleetctl config rm shop --all
        err| Configuration shop was removed.
        rc=0

        $ fleetctl config rm shop --all
        err| Error with configuration shop: there is no configuration shop
        err| Hint: fleetctl config set shop KEY=VALUE
        rc=1

        $ fleetctl config list
        out| NAME	REVISION	KEYS	CHANGED
        rc=0
    "#]].assert_eq(&said);
}

#[test]
fn a_watch_runs_its_command_at_each_revision_once_and_goes_on_after_a_break() {
    let session = Session::new();
    let socket = session.path().join("other.sock");
    let server = Server::listen(&socket);
    session.file("says", "echo $FLEET_CONFIG_REVISION $LOG; [ $LOG != bad ]\n");
    let mut command = session.command("config watch shop -- /bin/sh says");
    command.env("FLEETCTL_ENDPOINT", format!("unix://{}", socket.display()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut fleetctl = command.spawn().expect("fleetctl runs");
    let mut stdout = BufReader::new(fleetctl.stdout.take().expect("a pipe"));
    let mut stderr = BufReader::new(fleetctl.stderr.take().expect("a pipe"));
    let config = |revision: u64, log: &str| {
        let values = [("LOG".to_string(), log.to_string()), ("a.b".to_string(), "x".to_string())];
        let config = Config { revision, values: values.into(), name: "shop".into(), changed_ms: 1 };
        format!("{}\n", serde_json::to_string(&config).expect("JSON"))
    };

    let (request, mut stream) = server.request();
    assert_eq!(request, "GET /fleet/v1/config/shop?follow=true HTTP/1.1");
    begin(&mut stream);
    // None is there yet: nothing is run.
    let none = serde_json::to_string(&Config::default()).expect("JSON");
    stream.write_all(format!("{none}\n{}", config(1, "info")).as_bytes()).expect("a reader");
    assert_eq!(line(&mut stdout), "1 info");
    stream.write_all(config(2, "bad").as_bytes()).expect("a reader");
    assert_eq!(line(&mut stdout), "2 bad");
    assert_eq!(line(&mut stderr), "/bin/sh ended with exit status: 1 at revision 2");

    server.stop(&socket);
    drop(stream);
    let told = "The connection to fleetd broke (fleetd ended the connection); trying again.";
    assert_eq!(line(&mut stderr), told);
    let server = Server::listen(&socket);
    let (_, mut stream) = server.request();
    begin(&mut stream);
    // What it was told already it does not run again.
    let lines = format!("{}{}", config(2, "bad"), config(5, "trace"));
    stream.write_all(lines.as_bytes()).expect("a reader");
    assert_eq!(line(&mut stdout), "5 trace");

    fleetctl.kill().expect("it runs still");
    fleetctl.wait().expect("it has ended");
    let mut rest = String::new();
    stdout.read_line(&mut rest).expect("text");
    assert_eq!(rest, "");
}

#[test]
fn a_watch_without_fleetd_is_an_error() {
    let session = Session::new();
    let gone = session.run("config watch shop --endpoint=unix:///nosuch.sock -- true");
    assert!(gone.contains("err| Error with configuration shop: "), "{gone}");
    assert!(gone.ends_with("rc=1\n"), "{gone}");
}
