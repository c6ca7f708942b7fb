//! `fleetctl plan`, `apply`, `apps`, `diff`, `status APP` and `destroy --app`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use expect_test::expect;
use fleet_core::wire::Revision;

use crate::session::{Session, WEB};

const WEB_CONTAINER: &str = "[Container]\nImage=docker.io/library/nginx:1.26\n\
    Network=app.network\nVolume=./nginx.conf:/etc/nginx/nginx.conf:ro\n\n[Service]\n\
    ExecStart=/bin/web %i\n\n[X-Fleet]\nReplicas=2\n";

/// An application of several kinds, with a file.
fn shop() -> Session {
    let session = Session::of_three();
    session
        .file("shop/web@.container", WEB_CONTAINER)
        .file("shop/app.network", "[Network]\n")
        .file("shop/data.volume", "[Volume]\n")
        .file("shop/db.service", "[Service]\nExecStart=/bin/db\n")
        .file("shop/nginx.conf", "server {}\n");
    session
}

#[test]
fn an_application_is_planned_applied_and_planned_again() {
    let session = shop();
    let first = session.transcript("plan shop/\napply --yes shop\nplan shop");
    expect![[r#"
        $ fleetctl plan shop/
        out| + app.network
        out| + data.volume
        out| + db.service
        out|     starts on a1a1a1a1.../10.0.0.1: db.service
        out| + web@.container
        out|     starts on a1a1a1a1.../10.0.0.1: web@1.container
        out|     starts on b2b2b2b2.../10.0.0.2: web@2.container
        out| + nginx.conf (file; for web@.container)
        err| shop is new: 4 units and 1 file to create.
        err| `fleetctl apply --if-revision=0 shop/` does this, and refuses if somebody changed any of it first.
        rc=1

        $ fleetctl apply --yes shop
        out| + app.network
        out| + data.volume
        out| + db.service
        out|     starts on a1a1a1a1.../10.0.0.1: db.service
        out| + web@.container
        out|     starts on a1a1a1a1.../10.0.0.1: web@1.container
        out|     starts on b2b2b2b2.../10.0.0.2: web@2.container
        out| + nginx.conf (file; for web@.container)
        out| Applied shop, revision 1
        out| Unit db.service launched on a1a1a1a1.../10.0.0.1
        out| Unit web@1.container launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.container launched on b2b2b2b2.../10.0.0.2
        err| shop is new: 4 units and 1 file to create.
        err| Sent 1 file.
        rc=0

        $ fleetctl plan shop
        out| = app.network
        out| = data.volume
        out| = db.service
        out| = web@.container
        err| Nothing to do: shop is at revision 1.
        rc=0
    "#]].assert_eq(&first);
    session.file("shop/web@.container", WEB_CONTAINER.replace("1.26", "1.27"));
    session.file("shop/nginx.conf", "server { listen 80; }\n");
    std::fs::remove_file(session.path().join("shop/db.service")).expect("it is there");
    let second = session.transcript(
        "plan shop
        plan --prune shop --json
        diff shop
        apply -y --prune shop
        diff shop
        apply --yes shop --json",
    );
    expect![[r#"
        $ fleetctl plan shop
        out| = app.network
        out| = data.volume
        out| ! db.service: no longer in the files; --prune removes it
        out| ~ web@.container
        out|     @@ -1,5 +1,5 @@
        out|      [Container]
        out|     -Image=docker.io/library/nginx:1.26
        out|     +Image=docker.io/library/nginx:1.27
        out|      Network=app.network
        out|      Volume=./nginx.conf:/etc/nginx/nginx.conf:ro
        out|      
        out|     restarts 2 instances, at most 1 down at any time
        out| ~ nginx.conf (file; for web@.container)
        err| shop is at revision 1: 1 unit and 1 file to change, 2 units stay as they are.
        err| `fleetctl apply --if-revision=1 shop` does this, and refuses if somebody changed any of it first.
        rc=1

        $ fleetctl plan --prune shop --json
        out| {
        out|   "applied": false,
        out|   "revision": 1,
        out|   "changes": true,
        out|   "units": [
        out|     {
        out|       "name": "app.network",
        out|       "kind": "keep",
        out|       "details": [],
        out|       "restarts": 0,
        out|       "downAtMost": 0,
        out|       "starts": [],
        out|       "stops": [],
        out|       "unplaced": []
        out|     },
        out|     {
        out|       "name": "data.volume",
        out|       "kind": "keep",
        out|       "details": [],
        out|       "restarts": 0,
        out|       "downAtMost": 0,
        out|       "starts": [],
        out|       "stops": [],
        out|       "unplaced": []
        out|     },
        out|     {
        out|       "name": "db.service",
        out|       "kind": "remove",
        out|       "details": [],
        out|       "restarts": 0,
        out|       "downAtMost": 0,
        out|       "starts": [],
        out|       "stops": [
        out|         {
        out|           "instance": "db.service",
        out|           "machine": "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"
        out|         }
        out|       ],
        out|       "unplaced": []
        out|     },
        out|     {
        out|       "name": "web@.container",
        out|       "kind": "change",
        out|       "details": [],
        out|       "oldText": "[Container]\nImage=docker.io/library/nginx:1.26\nNetwork=app.network\nVolume=./nginx.conf:/etc/nginx/nginx.conf:ro\n\n[Service]\nExecStart=/bin/web %i\n\n[X-Fleet]\nReplicas=2\n",
        out|       "newText": "[Container]\nImage=docker.io/library/nginx:1.27\nNetwork=app.network\nVolume=./nginx.conf:/etc/nginx/nginx.conf:ro\n\n[Service]\nExecStart=/bin/web %i\n\n[X-Fleet]\nReplicas=2\n",
        out|       "restarts": 2,
        out|       "downAtMost": 1,
        out|       "starts": [],
        out|       "stops": [],
        out|       "unplaced": []
        out|     }
        out|   ],
        out|   "files": [
        out|     {
        out|       "path": "nginx.conf",
        out|       "kind": "change",
        out|       "units": [
        out|         "web@.container"
        out|       ]
        out|     }
        out|   ],
        out|   "missing": [
        out|     "b9148fc6dfefbfb3cd3bcda8ac9cab2b2956a206586e45bd6c0250a5f78665dd"
        out|   ],
        out|   "warnings": []
        out| }
        err| shop is at revision 1: 1 unit and 1 file to change, 1 unit to remove, 2 units stay as they are.
        err| `fleetctl apply --prune --if-revision=1 shop` does this, and refuses if somebody changed any of it first.
        rc=1

        $ fleetctl diff shop
        out| Only in the cluster: db.service
        out| --- cluster/web@.container
        out| +++ shop/web@.container
        out| @@ -1,5 +1,5 @@
        out|  [Container]
        out| -Image=docker.io/library/nginx:1.26
        out| +Image=docker.io/library/nginx:1.27
        out|  Network=app.network
        out|  Volume=./nginx.conf:/etc/nginx/nginx.conf:ro
        out|  
        out| --- cluster/nginx.conf
        out| +++ shop/nginx.conf
        out| @@ -1 +1 @@
        out| -server {}
        out| +server { listen 80; }
        rc=1

        $ fleetctl apply -y --prune shop
        out| = app.network
        out| = data.volume
        out| - db.service
        out|     leaves a1a1a1a1.../10.0.0.1: db.service
        out| ~ web@.container
        out|     @@ -1,5 +1,5 @@
        out|      [Container]
        out|     -Image=docker.io/library/nginx:1.26
        out|     +Image=docker.io/library/nginx:1.27
        out|      Network=app.network
        out|      Volume=./nginx.conf:/etc/nginx/nginx.conf:ro
        out|      
        out|     restarts 2 instances, at most 1 down at any time
        out| ~ nginx.conf (file; for web@.container)
        out| Applied shop, revision 2
        out| Destroyed db.service
        out| Unit web@1.container launched on a1a1a1a1.../10.0.0.1
        out| Unit web@2.container launched on b2b2b2b2.../10.0.0.2
        err| shop is at revision 1: 1 unit and 1 file to change, 1 unit to remove, 2 units stay as they are.
        err| Sent 1 file.
        rc=0

        $ fleetctl diff shop
        rc=0

        $ fleetctl apply --yes shop --json
        out| {
        out|   "applied": false,
        out|   "revision": 2,
        out|   "changes": false,
        out|   "units": [
        out|     {
        out|       "name": "app.network",
        out|       "kind": "keep",
        out|       "details": [],
        out|       "restarts": 0,
        out|       "downAtMost": 0,
        out|       "starts": [],
        out|       "stops": [],
        out|       "unplaced": []
        out|     },
        out|     {
        out|       "name": "data.volume",
        out|       "kind": "keep",
        out|       "details": [],
        out|       "restarts": 0,
        out|       "downAtMost": 0,
        out|       "starts": [],
        out|       "stops": [],
        out|       "unplaced": []
        out|     },
        out|     {
        out|       "name": "web@.container",
        out|       "kind": "keep",
        out|       "details": [],
        out|       "restarts": 0,
        out|       "downAtMost": 0,
        out|       "starts": [],
        out|       "stops": [],
        out|       "unplaced": []
        out|     }
        out|   ],
        out|   "files": [],
        out|   "missing": [],
        out|   "warnings": []
        out| }
        err| Nothing to do: shop is at revision 2.
        rc=0
    "#]].assert_eq(&second);
}

#[test]
fn applications_are_listed_shown_and_destroyed() {
    let session = shop();
    session.run("apply --yes shop");
    let said = session.transcript(
        "apps
        apps --fields=app,units,files --no-legend
        status shop
        status --app shop
        status nosuch
        status --app nosuch
        destroy --app shop
        destroy --app nosuch --yes
        destroy --app shop --yes
        apps --json",
    );
    expect![[r#"
        $ fleetctl apps
        out| APP	REVISION	RUNNING	APPLIED
        out| shop	1		3/3	2025-11-30T10:53:20Z
        rc=0

        $ fleetctl apps --fields=app,units,files --no-legend
        out| shop	4	1
        rc=0

        $ fleetctl status shop
        out| shop: revision 1, applied 2025-11-30T10:53:20Z (AGE ago), 3 of 3 instances running
        out| 
        out| UNIT		MACHINE			ACTIVE	SUB	MESSAGE
        out| app.network	-			-	-	-
        out| data.volume	-			-	-	-
        out| db.service	a1a1a1a1.../10.0.0.1	active	running	-
        out| web@1.container	a1a1a1a1.../10.0.0.1	active	running	-
        out| web@2.container	b2b2b2b2.../10.0.0.2	active	running	-
        out| 
        out| FILE		BYTES
        out| nginx.conf	10
        rc=0

        $ fleetctl status --app shop
        out| shop: revision 1, applied 2025-11-30T10:53:20Z (AGE ago), 3 of 3 instances running
        out| 
        out| UNIT		MACHINE			ACTIVE	SUB	MESSAGE
        out| app.network	-			-	-	-
        out| data.volume	-			-	-	-
        out| db.service	a1a1a1a1.../10.0.0.1	active	running	-
        out| web@1.container	a1a1a1a1.../10.0.0.1	active	running	-
        out| web@2.container	b2b2b2b2.../10.0.0.2	active	running	-
        out| 
        out| FILE		BYTES
        out| nginx.conf	10
        rc=0

        $ fleetctl status nosuch
        err| Unit nosuch.service does not exist.
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=1

        $ fleetctl status --app nosuch
        err| Application nosuch does not exist.
        err| Hint: `fleetctl apps` shows which there are
        rc=1

        $ fleetctl destroy --app shop
        err| Error: destroy --app asks first, and stdin is no terminal; nothing was changed
        err| Hint: --yes does it without asking
        rc=2

        $ fleetctl destroy --app nosuch --yes
        err| Application nosuch does not exist.
        err| Hint: `fleetctl apps` shows which there are
        rc=1

        $ fleetctl destroy --app shop --yes
        out| Destroyed app.network
        out| Destroyed data.volume
        out| Destroyed db.service
        out| Destroyed web@.container
        err| What data.volume held stays on the machines; `fleetctl destroy --volumes shop` removes it.
        rc=0

        $ fleetctl apps --json
        out| []
        rc=0
    "#]]
    .assert_eq(&hide_age(&said));
    let json = shop();
    json.run("apply --yes shop");
    let said = json.run("status shop --json");
    assert!(said.contains("\"app\": {") && said.contains("\"states\": ["), "{said}");
    assert!(said.ends_with("rc=0\n"), "{said}");
}

/// How long ago something was changes as tests run.
fn hide_age(said: &str) -> String {
    let begin = said.find(" (").filter(|at| said[*at..].contains(" ago)"));
    let Some(_) = begin else { return said.to_string() };
    let line = |line: &str| match (line.find("Z ("), line.find(" ago)")) {
        (Some(begin), Some(end)) => format!("{}Z (AGE{}\n", &line[..begin], &line[end..]),
        _ => format!("{line}\n"),
    };
    said.lines().map(line).collect()
}

#[test]
fn a_unit_of_the_applications_name_goes_first_and_names_need_no_ending() {
    let session = shop();
    session.file("shop/shop.service", "[Service]\nExecStart=/bin/shop\n");
    session.run("apply --yes shop");
    let said = session.run("status shop");
    assert!(said.contains("● shop.service") && !said.contains("revision 1"), "{said}");
    let said = session.run("status --app shop");
    assert!(said.contains("shop: revision 1, ") && said.contains("db.service"), "{said}");
    for (name, text) in [("app", "[Network]"), ("data", "[Volume]"), ("web@", "[Container]")] {
        let said = session.run(&format!("cat {name}"));
        assert!(said.contains(&format!("out| {text}\n")), "{said}");
    }
    let said = session.run("scale web@=3");
    assert!(said.contains("Unit web@.container scaled from 2 to 3"), "{said}");
}

#[test]
fn the_application_goes_before_a_network_of_its_name_which_has_no_state() {
    let session = shop();
    session.file("shop/shop.network", "[Network]\n");
    session.run("apply --yes shop");
    for json in ["", " --json"] {
        let said = session.run(&format!("status shop{json}"));
        assert!(said.contains("db.service") && said.contains("rc=0"), "{said}");
    }
    expect![[r#"
        $ fleetctl list-unit-files --fields=unit,dstate,state,target
        out| UNIT		DSTATE		STATE		TARGET
        out| app.network	-		-		shared
        out| data.volume	-		-		shared
        out| db.service	launched	launched	a1a1a1a1.../10.0.0.1
        out| shop.network	-		-		shared
        out| web@.container	launched	launched	2/2
        rc=0
    "#]]
    .assert_eq(&session.transcript("list-unit-files --fields=unit,dstate,state,target"));
}

#[test]
fn files_that_are_no_text_and_modes_are_compared_as_a_whole() {
    let session = shop();
    session.file("shop/logo.png", b"\x89PNG\0").file("shop/run.sh", "#!/bin/sh\n");
    session.file("shop/old.conf", "");
    session.run("apply --yes shop");
    session.file("shop/logo.png", b"\x89PNG\0\0").file("shop/new.conf", "");
    std::fs::remove_file(session.path().join("shop/old.conf")).expect("it is there");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(session.path().join("shop/run.sh"), mode).expect("a mode");
    // The cluster's end in a newline at least.
    session.file("shop/db.service", "[Service]\nExecStart=/bin/db");
    expect![[r#"
        $ fleetctl diff shop
        out| logo.png differs: 5 bytes in the cluster, 6 here
        out| Only here: new.conf
        out| Only in the cluster: old.conf
        out| run.sh differs: executable here, not in the cluster
        rc=1

        $ fleetctl diff shop --json
        out| [
        out|   {
        out|     "path": "logo.png",
        out|     "kind": "change",
        out|     "diff": "5 bytes in the cluster, 6 here"
        out|   },
        out|   {
        out|     "path": "new.conf",
        out|     "kind": "create"
        out|   },
        out|   {
        out|     "path": "old.conf",
        out|     "kind": "remove"
        out|   },
        out|   {
        out|     "path": "run.sh",
        out|     "kind": "change",
        out|     "diff": "executable here, not in the cluster"
        out|   }
        out| ]
        rc=1
    "#]]
    .assert_eq(&session.transcript("diff shop\ndiff shop --json"));
}

#[test]
fn a_plan_has_colours_where_they_are_asked_for() {
    let session = shop();
    session.run("apply --yes shop");
    session.file("shop/db.service", "[Service]\nExecStart=/bin/other\n");
    session.file("shop/new.service", "[Service]\nExecStart=/bin/new\n");
    let said = session.run("plan --color=always shop");
    for coloured in [
        "\u{1b}[33m~ db.service\u{1b}[0m",
        "\u{1b}[31m    -ExecStart=/bin/db\u{1b}[0m",
        "\u{1b}[32m    +ExecStart=/bin/other\u{1b}[0m",
        "\u{1b}[32m+ new.service\u{1b}[0m",
    ] {
        assert!(said.contains(coloured), "{said:?}");
    }
    assert!(!session.run("plan shop").contains('\u{1b}'));
}

#[test]
fn revisions_of_a_unit_are_compared() {
    let session = Session::of_three();
    session.file("web@.service", WEB);
    session.run("submit web@.service");
    let revision = |revision, text: &str, current| Revision {
        revision,
        current,
        text: Some(text.to_string()),
        ..Revision::default()
    };
    session.fake.cluster().revisions = vec![
        revision(3, "[Service]\nExecStart=/bin/c\n", true),
        revision(2, "[Service]\nExecStart=/bin/b\n", false),
        revision(1, "[Service]\nExecStart=/bin/a\n", false),
    ];
    let said = session.transcript(
        "diff web@ 1..2
        diff web@.service 2..
        diff web@ 2..2
        diff web@ 2..9
        diff nosuch 1..2
        diff web@",
    );
    expect![[r#"
        $ fleetctl diff web@ 1..2
        out| --- web@.service revision 1
        out| +++ web@.service revision 2
        out| @@ -1,2 +1,2 @@
        out|  [Service]
        out| -ExecStart=/bin/a
        out| +ExecStart=/bin/b
        rc=1

        $ fleetctl diff web@.service 2..
        out| --- web@.service revision 2
        out| +++ web@.service revision 3
        out| @@ -1,2 +1,2 @@
        out|  [Service]
        out| -ExecStart=/bin/b
        out| +ExecStart=/bin/c
        rc=1

        $ fleetctl diff web@ 2..2
        rc=0

        $ fleetctl diff web@ 2..9
        err| Error: web@.service has no revision 9
        err| Hint: `fleetctl list-revisions web@.service` shows what there is
        rc=2

        $ fleetctl diff nosuch 1..2
        err| Unit nosuch.service not found
        err| Hint: `fleetctl list-unit-files` shows what the cluster has
        rc=2

        $ fleetctl diff web@
        err| Error: there is no file or folder web@
        err| Hint: revisions of a unit are compared so: fleetctl diff web@ 3..4
        rc=2
    "#]]
    .assert_eq(&said);
}

#[test]
fn single_files_and_a_bundled_file_are_applications_too() {
    let session = Session::of_three();
    session
        .file("web.container", "[Container]\nImage=x\nVolume=./conf/a.conf:/a\n")
        .file("conf/a.conf", "a\n")
        .file(
            "shop.quadlets",
            "# FileName=app\n[Network]\n---\n# FileName=web\n[Container]\nImage=x\n",
        );
    let said = session.transcript(
        "plan shop.quadlets
        plan --app blog ./web.container conf/a.conf
        plan web.container
        plan --app Blog web.container
        plan --app blog conf web.container
        plan --app blog web.container /etc/hostname",
    );
    expect![[r#"
        $ fleetctl plan shop.quadlets
        out| + app.network
        out| + web.container
        out|     starts on a1a1a1a1.../10.0.0.1: web.container
        err| shop is new: 2 units to create.
        err| `fleetctl apply --if-revision=0 shop.quadlets` does this, and refuses if somebody changed any of it first.
        rc=1

        $ fleetctl plan --app blog ./web.container conf/a.conf
        out| + web.container
        out|     starts on a1a1a1a1.../10.0.0.1: web.container
        out| + conf/a.conf (file; for web.container)
        err| blog is new: 1 unit and 1 file to create.
        err| `fleetctl apply --if-revision=0 --app=blog ./web.container conf/a.conf` does this, and refuses if somebody changed any of it first.
        rc=1

        $ fleetctl plan web.container
        err| Error: single files have no name of an application
        err| Hint: give it one: --app=NAME web.container
        rc=2

        $ fleetctl plan --app Blog web.container
        err| Error: "Blog" is no name of an application: expect 1 to 63 lower-case letters, digits, "-" and "_", a letter or digit first
        rc=2

        $ fleetctl plan --app blog conf web.container
        err| Error: conf: this is a folder; name one folder, or files alone
        rc=2

        $ fleetctl plan --app blog web.container /etc/hostname
        err| Error: /etc/hostname: a file that is no unit keeps its path, so it must lie below this folder and be named from here
        rc=2
    "#]].assert_eq(&said);
}

#[test]
fn what_is_wrong_with_a_folder_is_said_with_its_path_before_anything_is_sent() {
    let session = Session::of_three();
    // Whoever asks the cluster would get this.
    session.fake.cluster().apply_refused = Some((500, "it was asked".to_string()));
    let unit = "[Service]\nExecStart=/bin/a\n";
    let refused = |name: &str| {
        let said = session.run(&format!("plan {name}"));
        assert!(said.ends_with("rc=2\n") && !said.contains("it was asked"), "{said}");
        said
    };
    session.file("empty/readme.txt", "");
    session.file("syntax/a.service", "[Service]\nnonsense\n");
    session.file("latin/a.service", b"[Service]\nA=\xff\n");
    session.file("badname/a b.service", unit);
    session.file("own/fleetd.service", unit);
    session.file("twins/web.service", unit).file("twins/web.container", "[Container]\nImage=x\n");
    session.file("dropin/web.service", unit).file("dropin/web.service.d/10.conf", "[Service]\n");
    session.file("Big/a.service", unit);
    session.file("large/a.service", unit).file("large/image.bin", vec![0; 20 << 20]);
    session.file("bundle/a.quadlets", "# FileName=a\n[Container]\nImage=x\nbad\n");
    session.file("twice/a.quadlets", "# FileName=a\n[Container]\nImage=x\n");
    session.file("twice/a.container", "[Container]\nImage=x\n");
    session.file("out/a.service", unit).file("secret", "x");
    symlink("../secret", session.path().join("out/link")).expect("a link");
    session.file("gone/a.service", unit);
    symlink("nowhere", session.path().join("gone/link")).expect("a link");
    session.file("loop/a.service", unit).file("loop/sub/x", "");
    symlink("..", session.path().join("loop/sub/up")).expect("a link");
    session.file("fifo/a.service", unit);
    let fifo = session.path().join("fifo/pipe");
    assert!(Command::new("mkfifo").arg(fifo).status().expect("it runs").success());
    let all = [
        "empty", "syntax", "latin", "badname", "own", "twins", "dropin", "Big", "large", "bundle",
        "twice", "out", "gone", "loop", "fifo", "nosuch",
    ]
    .map(refused);
    expect![[r#"
        $ fleetctl plan empty
        err| Error: empty: there is no unit file in it
        err| Hint: unit files and Quadlet files lie in the folder itself and are known by their endings, such as web.container
        rc=2

        $ fleetctl plan syntax
        err| Error: syntax/a.service:2: "nonsense" is neither a section, a comment nor a Name=Value option
        rc=2

        $ fleetctl plan latin
        err| Error: latin/a.service:2: this is not UTF-8 text
        rc=2

        $ fleetctl plan badname
        err| Error: badname/a b.service: "a b.service": invalid character ' ' in unit name
        rc=2

        $ fleetctl plan own
        err| Error: own/fleetd.service: fleetd.service is fleet's own; choose another name
        rc=2

        $ fleetctl plan twins
        err| Error: twins/web.container and twins/web.service make the same service, web.service
        rc=2

        $ fleetctl plan dropin
        err| Error: dropin/web.service.d: drop-in folders are not taken: put their options into the unit file
        rc=2

        $ fleetctl plan Big
        err| Error: Big: "Big" is no name of an application: expect 1 to 63 lower-case letters, digits, "-" and "_", a letter or digit first
        err| Hint: --app=NAME gives it another name
        rc=2

        $ fleetctl plan large
        err| Error: large/image.bin: it has 20971520 bytes; the limit is 1 MiB
        rc=2

        $ fleetctl plan bundle
        err| Error: bundle/a.quadlets:4: "bad" is neither a section, a comment nor a Name=Value option
        rc=2

        $ fleetctl plan twice
        err| Error: twice/a.quadlets: a.container stands in twice/a.container, too
        rc=2

        $ fleetctl plan out
        err| Error: out/link: this symbolic link leads out of the folder, to DIR/secret; put a copy in its place
        rc=2

        $ fleetctl plan gone
        err| Error: cannot read gone/link: this symbolic link leads nowhere: No such file or directory
        rc=2

        $ fleetctl plan loop
        err| Error: loop/sub/up: this symbolic link leads back to a folder that it is in
        rc=2

        $ fleetctl plan fifo
        err| Error: fifo/pipe: this is not a regular file
        rc=2

        $ fleetctl plan nosuch
        err| Error: cannot read nosuch: No such file or directory
        rc=2
    "#]].assert_eq(&all.join("\n"));
}

#[test]
fn more_than_an_application_may_have_is_refused_with_the_limit() {
    let session = Session::of_three();
    session.file("shop/a.service", "[Service]\nExecStart=/bin/a\n");
    for number in 0..1_001 {
        session.file(&format!("shop/files/{number:04}"), "");
    }
    let said = session.run("plan shop");
    assert!(
        said.contains("shop/files/1000: this is file 1001; an application has at most"),
        "{said}"
    );
    for number in 0..5_000 {
        session.file(&format!("shop/files/{number:04}"), "");
    }
    let said = session.run("plan shop");
    assert!(said.contains("shop/files: the folder has more than 4000 files"), "{said}");
    let session = Session::of_three();
    session.file("shop/a.service", "[Service]\nExecStart=/bin/a\n");
    for number in 0..17 {
        session.file(&format!("shop/{number:02}.bin"), vec![number; 1 << 20]);
    }
    let said = session.run("plan shop");
    assert!(
        said.contains("shop/16.bin: with this file the application's files have more than 16 MiB"),
        "{said}"
    );
}

#[test]
fn what_version_control_and_editors_leave_is_passed_over_and_the_rest_comes_with_its_mode() {
    let session = Session::of_three();
    session.file("shop/a.service", "[Service]\nExecStart=/bin/a\n");
    for name in [".git/config", ".gitignore", "a.service~", ".a.service.swp", "#a#", ".DS_Store"] {
        session.file(&format!("shop/{name}"), "");
    }
    symlink("user@host.1", session.path().join("shop/.#a.service")).expect("a link");
    session.file("shop/.env", "A=1\n").file("shop/logo.png", b"\x89PNG\0\xff");
    session.file("shop/run.sh", "#!/bin/sh\n").file("shop/image/app.container", "x");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(session.path().join("shop/run.sh"), mode).expect("a mode");
    symlink(".env", session.path().join("shop/same.env")).expect("a link");
    let said = session.run("apply --yes shop");
    assert!(said.contains("shop/image/app.container comes as a file, not as a unit"), "{said}");
    let cluster = session.fake.cluster();
    let app = &cluster.apps["shop"];
    let files: Vec<(&str, bool)> =
        app.files.iter().map(|(path, entry)| (path.as_str(), entry.executable)).collect();
    let expected = [
        (".env", false),
        ("image/app.container", false),
        ("logo.png", false),
        ("run.sh", true),
        ("same.env", false),
    ];
    assert_eq!(files, expected);
    assert_eq!(app.units.len(), 1);
    assert_eq!(cluster.blobs[app.files["logo.png"].sum.as_str()], b"\x89PNG\0\xff");
}

#[test]
fn apply_asks_on_a_terminal_and_refuses_where_nobody_can_answer() {
    let session = shop();
    expect![[r#"
        $ fleetctl apply shop
        err| Error: apply asks first, and stdin is no terminal; nothing was changed
        err| Hint: --yes does it without asking
        rc=2
    "#]]
    .assert_eq(&session.run("apply shop"));
    let answered = |answer: &str, arguments: &str| {
        let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_fleetctl"));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).current_dir(session.path());
        command.env("FLEETCTL_ENDPOINT", session.endpoint()).env("TERM", "dumb");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, answer.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    };
    let (said, code) = answered("n\n", "apply shop");
    assert!(said.contains("Apply this to shop? [y/N]"), "{said}");
    assert!(said.contains("Nothing was changed."), "{said}");
    assert_eq!(code, Some(1));
    assert!(session.fake.cluster().apps.is_empty());
    let (said, code) = answered("y\n", "apply shop");
    assert!(said.contains("Applied shop, revision 1"), "{said}");
    assert_eq!(code, Some(0));
    let (said, code) = answered("\n", "destroy --app shop");
    assert!(said.contains("- data.volume; its data stays on the machines"), "{said}");
    assert!(said.contains("Destroy shop: 4 units, 3 running instances? [y/N]"), "{said}");
    assert_eq!(code, Some(1));
    assert_eq!(session.fake.cluster().apps.len(), 1);
    let (said, code) = answered("yes\n", "destroy --app shop");
    assert!(said.contains("Destroyed web@.container"), "{said}");
    assert_eq!(code, Some(0));
    assert!(session.fake.cluster().apps.is_empty());
}

#[test]
fn what_a_plan_was_made_on_goes_into_the_command_that_applies_it() {
    let session = shop();
    session.fake.cluster().basis = "4812.9f0c12ab34cd56ef".to_string();
    let planned = session.run("plan shop");
    assert!(planned.contains("--if-revision=0.4812.9f0c12ab34cd56ef shop"), "{planned}");
    // A unit was scaled, say: the application is still at its revision.
    session.fake.cluster().basis = "4900.0000000000000000".to_string();
    let overtaken = session.transcript(
        "apply -y --if-revision=0.4812.9f0c12ab34cd56ef shop\n\
        apply -y --if-revision=0.4812 shop",
    );
    expect![[r#"
        $ fleetctl apply -y --if-revision=0.4812.9f0c12ab34cd56ef shop
        err| Error planning shop: shop changed since this was planned: somebody changed db.container
        err| Hint: `fleetctl plan shop` shows what would be done now
        rc=1

        $ fleetctl apply -y --if-revision=0.4812 shop
        err| Error: invalid value '0.4812' for '--if-revision <N>': expect a revision, as `fleetctl plan` says it: "0.4812"
        err| 
        err| For more information, try '--help'.
        rc=2
    "#]]
    .assert_eq(&overtaken);
    let now = session.run("apply -y --if-revision=0.4900.0000000000000000 shop");
    assert!(now.contains("Applied shop, revision 1"), "{now}");
}

#[test]
fn a_plan_that_was_overtaken_and_one_that_is_refused_change_nothing() {
    let session = shop();
    session.run("apply --yes shop");
    session.file("shop/db.service", "[Service]\nExecStart=/bin/other\n");
    session.fake.cluster().overtaken = true;
    let overtaken = session.transcript("apply -y --no-block shop\napply -y --if-revision=0 shop");
    session.fake.cluster().overtaken = false;
    let problem = "web@.container: line 3: Network=app.network: there is no app.network";
    session.fake.cluster().apply_refused = Some((400, problem.to_string()));
    let mut refused = session.transcript("plan shop\napply -y shop");
    let problems = format!("{problem}\ndb.service: line 2: nonsense");
    session.fake.cluster().apply_refused = Some((400, problems));
    refused.push_str(&session.run("plan shop"));
    session.fake.cluster().apply_refused =
        Some((503, "fleet server unable to communicate with etcd".to_string()));
    let away = session.run("plan shop");
    expect![[r#"
        $ fleetctl apply -y --no-block shop
        out| = app.network
        out| = data.volume
        out| ~ db.service
        out|     @@ -1,2 +1,2 @@
        out|      [Service]
        out|     -ExecStart=/bin/db
        out|     +ExecStart=/bin/other
        out|     restarts 1 instance, at most 1 down at any time
        out| = web@.container
        err| shop is at revision 1: 1 unit to change, 3 units stay as they are.
        err| Error applying shop: somebody applied revision 2 of shop since: web@.container
        err| Hint: `fleetctl plan shop` shows what would be done now
        rc=1

        $ fleetctl apply -y --if-revision=0 shop
        err| Error planning shop: somebody applied revision 1 of shop since: web@.container
        err| Hint: `fleetctl plan shop` shows what would be done now
        rc=1

        $ fleetctl plan shop
        err| Error planning shop: web@.container: line 3: Network=app.network: there is no app.network
        rc=2

        $ fleetctl apply -y shop
        err| Error planning shop: web@.container: line 3: Network=app.network: there is no app.network
        rc=2
        $ fleetctl plan shop
        err| Error planning shop:
        err|   web@.container: line 3: Network=app.network: there is no app.network
        err|   db.service: line 2: nonsense
        rc=2

        $ fleetctl plan shop
        err| Error planning shop: fleet server unable to communicate with etcd
        err| Hint: fleetd cannot reach its store; running units keep running. Is etcd healthy?
        rc=2
    "#]].assert_eq(&[overtaken, refused, away].join("\n"));
}

#[test]
fn an_apply_that_is_interrupted_says_what_it_left() {
    let session = shop();
    let (sender, receiver) = std::sync::mpsc::channel();
    session.fake.cluster().on_apply = Some(sender);
    let mut command = session.command("apply --yes shop");
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("fleetctl runs");
    receiver.recv().expect("it applies");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("it runs").success());
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Interrupted: either all of shop was applied or nothing."), "{said}");
    assert!(said.contains("Hint: `fleetctl plan shop` shows what is left to do"), "{said}");
    assert_eq!(output.status.code(), Some(130));
}

#[test]
fn an_instance_that_fails_after_an_apply_is_its_error() {
    let session = shop();
    session.file("shop/db.service", "[Service]\nExecStart=/bin/bad\n");
    let said = session.run("apply --yes shop");
    assert!(said.contains("Applied shop, revision 1") && said.ends_with("rc=1\n"), "{said}");
    assert!(said.contains("db.service"), "{said}");
    let said = session.run("status shop");
    assert!(said.contains("2 of 3 instances running") && said.ends_with("rc=3\n"), "{said}");
}
