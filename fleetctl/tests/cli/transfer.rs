//! Moving a cluster: the real API over the embedded store, and a server that answers as fleet 1.0
//! did.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use axum::extract::RawQuery;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use expect_test::expect;
use fleet_core::name::MachineId;
use fleetd::store::Store;
use fleetd::store::embedded::EmbeddedKv;

/// The folder of a test, and fleetds in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// An API over an embedded store of its own, at `unix://DIR/<name>.sock`.
    fn fleetd(self, name: &str) -> Place {
        let (store, socket) =
            (self.path().join(format!("{name}.store")), self.path().join(format!("{name}.sock")));
        let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket");
        listener.set_nonblocking(true).expect("a socket that does not block");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let kv = Arc::new(EmbeddedKv::open(store).await.expect("a store"));
                let api = fleetd::api::Api::new(
                    Store::new(kv, "/fleet/"),
                    MachineId::new("m1"),
                    String::new,
                );
                let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
                axum::serve(listener, fleetd::api::router(api)).await.expect("served");
            });
        });
        self
    }

    fn run(&self, name: &str, arguments: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_fleetctl"))
            .args(arguments.split(' '))
            .current_dir(self.path())
            .env_clear()
            .env("FLEETCTL_ENDPOINT", format!("unix://{}/{name}.sock", self.path().display()))
            .output()
            .expect("fleetctl runs");
        let marked = |mark: &str, bytes: &[u8]| -> String {
            String::from_utf8_lossy(bytes).lines().map(|line| format!("{mark}| {line}\n")).collect()
        };
        let text = format!(
            "{name}$ fleetctl {arguments}\n{}{}rc={}\n",
            marked("out", &output.stdout),
            marked("err", &output.stderr),
            output.status.code().unwrap_or(-1)
        );
        text.replace(&self.path().display().to_string(), "DIR")
    }

    fn transcript(&self, lines: &str) -> String {
        let said = lines.lines().map(|line| {
            let (name, arguments) = line.trim().split_once("$ ").expect("NAME$ ARGUMENTS");
            self.run(name, arguments)
        });
        said.collect::<Vec<_>>().join("\n")
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path().join(path)).expect("a file")
    }
}

/// fleet 1.0's answer to `GET /units`: pages of 100, its tokens, no field of ours; a full last page
/// is followed by an empty one.
fn fleet1(units: usize) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket that does not block");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let list = move |query: RawQuery| async move {
        let query = query.0.unwrap_or_default();
        let page = if query.contains("ZAACAA") {
            2
        } else {
            usize::from(query.contains("ZAADAA")) * 2 + 1
        };
        let unit = |n: usize| {
            format!(
                "{{\"currentState\":\"inactive\",\"desiredState\":\"{}\",\
                 \"machineID\":\"c2e1b5180a5ec645aa037c911a0f20bb\",\"name\":\"u{n:03}.service\",\
                 \"options\":[{{\"name\":\"ExecStart\",\"section\":\"Service\",\
                 \"value\":\"/bin/sleep {n}\"}},{{\"name\":\"Conflicts\",\
                 \"section\":\"X-Fleet\",\"value\":\"u*.service\"}}]}}",
                if n.is_multiple_of(2) { "launched" } else { "loaded" }
            )
        };
        let all: Vec<String> = (0..units).skip((page - 1) * 100).take(100).map(unit).collect();
        let token = match (page, all.len()) {
            (1, 100) => ",\"nextPageToken\":\"ZAACAA==\"",
            (2, 100) => ",\"nextPageToken\":\"ZAADAA==\"",
            _ => "",
        };
        let body = if all.is_empty() {
            "{}".to_string()
        } else {
            format!("{{\"units\":[{}]{token}}}", all.join(","))
        };
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::SERVER, "fleetd/v1.0.0-15-g45224983"),
        ];
        (headers, body).into_response() as Response
    };
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, axum::Router::new().route("/fleet/v1/units", get(list)))
                .await
                .expect("served");
        });
    });
    url
}

#[test]
fn a_cluster_goes_through_a_folder_into_another_store() {
    let place = Place::new().fleetd("old").fleetd("new");
    place.file("hello.service", "# kept\n[Service]\nExecStart=/bin/true\n");
    place.file("web@.service", "[Service]\nExecStart=/bin/web %i\n");
    place.run("old", "start --no-block hello.service");
    place.run("old", "scale --no-block web=3");
    let said = place.transcript(
        "old$ export backup
        old$ export backup
        new$ import backup
        new$ list-unit-files --no-legend
        new$ import backup --yes
        new$ list-unit-files --no-legend --fields=unit,dstate,replicas
        new$ cat hello
        new$ import backup --yes",
    );
    expect![[r##"
        old$ fleetctl export backup
        err| Exported 2 units and the settings of 0 machines into backup.
        rc=0

        old$ fleetctl export backup
        err| Error: cannot write backup: Directory not empty (os error 39)
        err| Hint: name a new folder, or an empty one
        rc=1

        new$ fleetctl import backup
        out| create hello.service: launched
        out| create web@.service: launched, 3 replicas
        err| Would import: 2 changes, 0 unchanged. Nothing was changed; --yes does it.
        rc=0

        new$ fleetctl list-unit-files --no-legend
        rc=0

        new$ fleetctl import backup --yes
        out| create hello.service: launched
        out| create web@.service: launched, 3 replicas
        err| Imported: 2 changes, 0 unchanged.
        rc=0

        new$ fleetctl list-unit-files --no-legend --fields=unit,dstate,replicas
        out| hello.service	launched	-
        out| web@.service	launched	3
        out| web@1.service	launched	-
        out| web@2.service	launched	-
        out| web@3.service	launched	-
        rc=0

        new$ fleetctl cat hello
        out| # kept
        out| [Service]
        out| ExecStart=/bin/true
        rc=0

        new$ fleetctl import backup --yes
        err| Imported: 0 changes, 2 unchanged.
        rc=0
    "##]]
    .assert_eq(&said);
    // What comes out of the new one is what came out of the old.
    place.run("new", "export again");
    assert_eq!(place.read("again/fleet.json"), place.read("backup/fleet.json"));
    assert_eq!(place.read("again/units/hello.service"), place.read("backup/units/hello.service"));
    let leftovers: Vec<_> = std::fs::read_dir(place.path())
        .unwrap()
        .filter_map(Result::ok)
        .map(|e| e.file_name())
        .collect();
    assert!(
        !leftovers.iter().any(|name| name.to_string_lossy().contains("fleet-export")),
        "{leftovers:?}"
    );
}

#[test]
fn comments_are_replaced_without_a_new_revision() {
    let place = Place::new().fleetd("here");
    place.file("hello.service", "# old\n[Service]\nExecStart=/bin/true\n");
    place.run("here", "start --no-block hello.service");
    place.file("hello.service", "# new\n[Service]\nExecStart=/bin/true\n");
    place.file("web@.service", "# old\n[Service]\nExecStart=/bin/web %i\n");
    place.run("here", "submit web@.service");
    place.run("here", "scale --no-block web=1");
    place.file("web@.service", "# new\n[Service]\nExecStart=/bin/web %i\n");
    let said = place.transcript(
        "here$ submit hello.service
        here$ cat hello
        here$ submit --replace hello.service web@1.service
        here$ cat hello
        here$ cat web@
        here$ start --replace --no-block web@.service
        here$ cat web@1
        here$ list-unit-files --no-legend --fields=unit,dstate,revision,replicas",
    );
    expect![[r#"
        here$ fleetctl submit hello.service
        rc=0

        here$ fleetctl cat hello
        out| # old
        out| [Service]
        out| ExecStart=/bin/true
        rc=0

        here$ fleetctl submit --replace hello.service web@1.service
        out| Found same Unit(hello.service) in Registry, nothing to do
        out| Found same Unit(web@1.service) in Registry, nothing to do
        rc=0

        here$ fleetctl cat hello
        out| # new
        out| [Service]
        out| ExecStart=/bin/true
        rc=0

        here$ fleetctl cat web@
        out| # old
        out| [Service]
        out| ExecStart=/bin/web %i
        rc=0

        here$ fleetctl start --replace --no-block web@.service
        out| Found same Unit(web@.service) in Registry, nothing to do
        rc=0

        here$ fleetctl cat web@1
        out| # new
        out| [Service]
        out| ExecStart=/bin/web %i
        rc=0

        here$ fleetctl list-unit-files --no-legend --fields=unit,dstate,revision,replicas
        out| hello.service	launched	1	-
        out| web@.service	launched	1	1
        out| web@1.service	launched	1	-
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn what_differs_is_shown_and_replaced_only_when_asked() {
    let place = Place::new().fleetd("here");
    place.file("a.service", "[Service]\nExecStart=/bin/a\n");
    place.run("here", "submit a.service");
    place.file("new/units/a.service", "[Service]\nExecStart=/bin/b\n");
    place.file("new/units/b.service", "[Service]\nExecStart=/bin/b\n[X-Fleet]\nConflict=x\n");
    place.file(
        "new/fleet.json",
        r#"{"format": 1, "units": {"a.service": {"desiredState": "loaded"}, "b.service": {}}}"#,
    );
    let said = place.transcript(
        "here$ import new --yes
        here$ list-unit-files --no-legend --fields=unit,dstate,revision
        here$ import new --yes --replace
        here$ list-unit-files --no-legend --fields=unit,dstate,revision",
    );
    expect![[r#"
        here$ fleetctl import new --yes
        out| conflict a.service: text, inactive → loaded
        out| create b.service: inactive
        err| WARNING: Unit b.service: line 4: unrecognized requirement in [X-Fleet] section: "Conflict"; did you mean "Conflicts"?
        err| Error: 1 unit differs from what the cluster has; nothing was changed
        err| Hint: --replace takes the imported ones
        rc=1

        here$ fleetctl list-unit-files --no-legend --fields=unit,dstate,revision
        out| a.service	inactive	1
        rc=0

        here$ fleetctl import new --yes --replace
        out| replace a.service: text, inactive → loaded
        out| create b.service: inactive
        err| WARNING: Unit b.service: line 4: unrecognized requirement in [X-Fleet] section: "Conflict"; did you mean "Conflicts"?
        err| Imported: 2 changes, 0 unchanged.
        rc=0

        here$ fleetctl list-unit-files --no-legend --fields=unit,dstate,revision
        out| a.service	loaded		2
        out| b.service	inactive	1
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn folders_that_are_not_whole_are_refused() {
    let place = Place::new().fleetd("here");
    for folder in ["nodocument", "typo", "lost", "extra", "path", "bad"] {
        place.file(&format!("{folder}/units/a.service"), "[Service]\nExecStart=/bin/a\n");
    }
    place.file("typo/fleet.json", "{\"format\": 1,\n \"unitz\": {}}");
    place.file("lost/fleet.json", r#"{"format": 1, "units": {"a.service": {}, "b.service": {}}}"#);
    place.file("extra/fleet.json", r#"{"format": 1, "units": {}}"#);
    place.file("path/fleet.json", r#"{"format": 1, "units": {"../../etc/passwd": {}}}"#);
    place.file("bad/units/t@.service", "[Service]\nExecStart=/bin/a\ngarbage\n");
    place.file(
        "bad/fleet.json",
        r#"{"format": 1, "units": {"a.service": {"desiredState": "up"}, "t@.service": {}}}"#,
    );
    let said = place.transcript(
        "here$ import nodocument
        here$ import typo
        here$ import lost
        here$ import extra
        here$ import path
        here$ import bad --yes
        here$ import
        here$ list-unit-files --no-legend",
    );
    expect![[r#"
        here$ fleetctl import nodocument
        err| Error: cannot read nodocument/fleet.json: No such file or directory (os error 2)
        rc=1

        here$ fleetctl import typo
        err| Error: typo/fleet.json:2: unknown field `unitz`, expected one of `format`, `units`, `machines`, `configurations`, `apps` at line 2 column 8
        err| Hint: `fleetctl export` writes such folders
        rc=1

        here$ fleetctl import lost
        err| Error: cannot read lost/units/b.service: No such file or directory (os error 2)
        rc=1

        here$ fleetctl import extra
        err| Error: extra/fleet.json has no entry for units/a.service
        err| Hint: add "a.service": {"desiredState": "inactive"} to its units, or remove the file
        rc=1

        here$ fleetctl import path
        err| Error: path/fleet.json: "../../etc/passwd": invalid unit type: "/etc/passwd"
        rc=1

        here$ fleetctl import bad --yes
        err| Error importing, nothing was changed: a.service: invalid desired state "up": expect inactive, loaded, or launched
        err| t@.service: line 3: "garbage" is neither a section, a comment nor a Name=Value option
        rc=1

        here$ fleetctl import
        err| Error: the following required arguments were not provided:
        err|   <FOLDER>
        err| 
        err| Usage: fleetctl import <FOLDER>
        err| 
        err| For more information, try '--help'.
        rc=2

        here$ fleetctl list-unit-files --no-legend
        rc=0
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_running_fleet_1_0_is_read_page_by_page_and_moved_in_as_a_whole() {
    let place = Place::new().fleetd("here");
    let url = fleet1(200);
    let dry = place.run("here", &format!("import --from-fleet1 {url}"));
    assert!(
        dry.contains("out| create u000.service: launched\nout| create u001.service: loaded\n"),
        "{dry}"
    );
    assert!(
        dry.contains(
            "err| Would import: 200 changes, 0 unchanged. Nothing was changed; --yes does it.\nrc=0"
        ),
        "{dry}"
    );
    assert_eq!(place.run("here", "list-unit-files --no-legend").lines().count(), 2);
    let done = place.run("here", &format!("import --from-fleet1 {url} --yes"));
    assert!(done.ends_with("err| Imported: 200 changes, 0 unchanged.\nrc=0\n"), "{done}");
    let list = place.run("here", "list-unit-files --no-legend --fields=unit,dstate");
    assert_eq!((list.matches("launched").count(), list.matches("loaded").count()), (100, 100));
    assert!(place.run("here", "cat u007").contains(
        "out| ExecStart=/bin/sleep 7\nout| \nout| [X-Fleet]\nout| Conflicts=u*.service\n"
    ));
    // The folder is the way when both cannot run at once.
    let said = place.run("here", &format!("export --from-fleet1 {url} old"));
    assert!(
        said.ends_with("err| Exported 200 units and the settings of 0 machines into old.\nrc=0\n"),
        "{said}"
    );
    assert!(
        place.run("here", "import old --yes").contains("err| Imported: 0 changes, 200 unchanged.")
    );
    let nobody = place.run("here", "import --from-fleet1 http://127.0.0.1:1 --yes");
    assert!(
        nobody.contains(
            "err| Error reading fleet 1.0: GET http://127.0.0.1:1/fleet/v1/units: \
            connection refused"
        ),
        "{nobody}"
    );
}

/// A fleetd that says what an import would change, and breaks off when it is to be done, after
/// `answer`.
fn breaks_off(answer: &'static str) -> String {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (mut reader, mut head, mut length) = (BufReader::new(&stream), String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let start = head.len();
                reader.read_line(&mut head).expect("a line");
                if let Some(text) = head[start..].to_lowercase().strip_prefix("content-length:") {
                    length = text.trim().parse().expect("a length");
                }
            }
            reader.read_exact(&mut vec![0; length]).expect("a body");
            let body =
                "{\"changes\":[{\"name\":\"a.service\",\"kind\":\"create\",\"details\":[]}]}";
            let planned = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let answer = if head.contains("dryRun=true") { planned.as_str() } else { answer };
            (&stream).write_all(answer.as_bytes()).expect("an answer");
        }
    });
    url
}

#[test]
fn an_import_that_broke_off_may_have_been_done() {
    let place = Place::new();
    place.file("new/units/a.service", "[Service]\nExecStart=/bin/a\n");
    place.file("new/fleet.json", r#"{"format": 1, "units": {"a.service": {}}}"#);
    let answers = [
        "",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ];
    let said = answers.map(|answer| {
        let url = breaks_off(answer);
        place.run("x", &format!("--endpoint {url} import new --yes")).replace(&url, "URL")
    });
    expect![[r#"
        x$ fleetctl --endpoint URL import new --yes
        err| Error importing, which may have been done: POST URL/fleet/v1/import: connection closed before message completed
        err| Hint: is that a fleetd? `fleetctl version --json` shows both versions
        err| Hint: run it again to see what is left
        rc=1

        x$ fleetctl --endpoint URL import new --yes
        err| Error importing, which may have been done: POST URL/fleet/v1/import: HTTP 503 Service Unavailable
        err| Hint: fleetd cannot reach its store; running units keep running. Is etcd healthy?
        err| Hint: run it again to see what is left
        rc=1

        x$ fleetctl --endpoint URL import new --yes
        err| Error importing, nothing was changed: POST URL/fleet/v1/import: HTTP 409 Conflict
        rc=1
    "#]]
    .assert_eq(&said.join("\n"));
}

/// An answer to `GET /export`, whatever it says.
fn exports(document: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket that does not block");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let answer =
                move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
            axum::serve(listener, axum::Router::new().route("/fleet/v1/export", get(answer)))
                .await
                .expect("served");
        });
    });
    url
}

#[test]
fn an_export_writes_nothing_outside_its_folder_whatever_the_answer_names() {
    let place = Place::new();
    let documents = [
        r#"{"format":1,"units":{"../../escaped.service":{"text":"x"}}}"#,
        r#"{"format":1,"units":{"/tmp/fleet-escaped.service":{"text":"x"}}}"#,
        r#"{"format":1,"units":{"a.service":{"text":"x"},"..":{"text":"x"}}}"#,
    ];
    for document in documents {
        let said =
            place.run("none", &format!("--endpoint {} export out/backup", exports(document)));
        assert!(
            said.contains("err| Error: fleetd names a unit \"") && said.ends_with("rc=1\n"),
            "{said}"
        );
        assert!(said.contains("; nothing was written"), "{said}");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "{said}");
    }
}

#[test]
fn an_export_is_its_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new().fleetd("here");
    place.file("hello.service", "[Service]\nExecStart=/bin/true\n");
    place.run("here", "submit hello.service");
    place.run("here", "export backup");
    let mode = |path: &str| {
        std::fs::metadata(place.path().join(path)).unwrap().permissions().mode() & 0o777
    };
    let modes =
        ["backup", "backup/units", "backup/fleet.json", "backup/units/hello.service"].map(mode);
    assert_eq!(modes, [0o700, 0o700, 0o600, 0o600]);
}

#[test]
fn an_import_reads_plain_files_only() {
    let place = Place::new().fleetd("here");
    for folder in ["link", "pipe", "folder"] {
        place.file(&format!("{folder}/fleet.json"), r#"{"format": 1, "units": {"a.service": {}}}"#);
        std::fs::create_dir(place.path().join(folder).join("units")).unwrap();
    }
    place.file("secret", "[Service]\nExecStart=/bin/secret\n");
    place.file("folder/units/a.service/x", "");
    std::os::unix::fs::symlink("../../secret", place.path().join("link/units/a.service")).unwrap();
    let pipe = place.path().join("pipe/units/a.service");
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    place.file("device/units/a.service", "");
    std::os::unix::fs::symlink("/dev/zero", place.path().join("device/fleet.json")).unwrap();
    std::fs::create_dir(place.path().join("elsewhere")).unwrap();
    place.file("elsewhere/fleet.json", r#"{"format": 1, "units": {}}"#);
    std::os::unix::fs::symlink("../link/units", place.path().join("elsewhere/units")).unwrap();
    let said = place.transcript(
        "here$ import link
        here$ import pipe
        here$ import folder
        here$ import device
        here$ import elsewhere",
    );
    expect![[r#"
        here$ fleetctl import link
        err| Error: cannot read link/units/a.service: it is a symbolic link; an exported folder has none
        rc=1

        here$ fleetctl import pipe
        err| Error: cannot read pipe/units/a.service: it is not a regular file; an exported folder has only folders and regular files
        rc=1

        here$ fleetctl import folder
        err| Error: cannot read folder/units/a.service: it is not a regular file; an exported folder has only folders and regular files
        rc=1

        here$ fleetctl import device
        err| Error: cannot read device/fleet.json: it is a symbolic link; an exported folder has none
        rc=1

        here$ fleetctl import elsewhere
        err| Error: cannot read elsewhere/units: it is a symbolic link; an exported folder has none
        rc=1
    "#]]
    .assert_eq(&said);
}
