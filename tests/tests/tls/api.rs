//! The API's TLS listener, asked by clients of every kind, and by fleetctl.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use fleet_core::name::MachineId;
use fleet_tests::certs::{Authority, Lifetime};
use fleet_tests::etcd::free_port;
use fleet_tests::http_with;
use fleet_tls::Files;
use fleetd::api::{self, Api, Limits, ServerTls};
use fleetd::config::Listen;
use fleetd::store::Store;
use fleetd::store::embedded::EmbeddedKv;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

/// An API over TLS on loopback, and the CA of those who may use it.
struct Fixture {
    folder: TempDir,
    good: Authority,
    url: String,
    tls: ServerTls,
    stop: CancellationToken,
}

impl Fixture {
    async fn start(names: &[&str]) -> Fixture {
        Fixture::start_within(names, Limits::default()).await
    }

    async fn start_within(names: &[&str], limits: Limits) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let good = Authority::new(folder.path(), "good").unwrap();
        let files = good.issue("server", names, Lifetime::Good).unwrap();
        let (url, tls, stop) = serve(folder.path(), files, limits).await;
        Fixture { folder, good, url, tls, stop }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn plain(&self, said: impl AsRef<str>) -> String {
        said.as_ref().replace(&self.path().display().to_string(), "DIR").replace(&self.url, "URL")
    }

    /// What `fleetctl list-machines` says with these files: its exit code, and stderr.
    async fn fleetctl(&self, url: &str, files: &Files) -> (i32, String) {
        let mut command = tokio::process::Command::new(fleetctl());
        command.args(["--endpoint", url]);
        for (option, file) in
            [("--ca-file", &files.ca), ("--cert-file", &files.cert), ("--key-file", &files.key)]
        {
            if let Some(file) = file {
                command.arg(option).arg(file);
            }
        }
        let Output { status, stderr, .. } = command.arg("list-machines").output().await.unwrap();
        (status.code().unwrap(), self.plain(String::from_utf8(stderr).unwrap()))
    }

    async fn refusal(&self, files: &Files) -> String {
        let (code, said) = self.fleetctl(&self.url, files).await;
        assert_eq!(code, 1, "{said}");
        let line =
            said.lines().find(|line| line.contains("URL: ")).unwrap_or_else(|| panic!("{said}"));
        line.split_once("URL: ")
            .unwrap()
            .1
            .lines()
            .next()
            .unwrap()
            .trim_end_matches(')')
            .to_string()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Beside the test's own folder; `make test` builds it.
fn fleetctl() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let path = exe.ancestors().nth(2).unwrap().join("fleetctl");
    assert!(path.exists(), "{} is missing; run `cargo build -p fleetctl`", path.display());
    path
}

async fn serve(
    folder: &Path,
    files: Files,
    limits: Limits,
) -> (String, ServerTls, CancellationToken) {
    let kv = EmbeddedKv::open(&folder.join("store.redb")).await.unwrap();
    let store = Store::new(Arc::new(kv), "/fleet/");
    let api = Api::new(store, MachineId::new("0123456789abcdef0123456789abcdef"), String::new);
    let tls = api::server_tls(files).unwrap();
    let port = free_port().unwrap();
    let listen = Listen { address: ([127, 0, 0, 1], port).into(), tls: true };
    let listeners = api::listen(&folder.join("fleet.sock"), &[listen], false, Some(&tls)).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(api::serve(api.with_limits(limits), listeners, stop.clone()));
    (format!("https://127.0.0.1:{port}"), tls, stop)
}

async fn get(client: &reqwest::Client, url: &str) -> Result<u16, String> {
    let answer = client.get(format!("{url}/fleet/v1/machines")).send().await;
    answer.map(|answer| answer.status().as_u16()).map_err(|error| format!("{error:?}"))
}

fn client(files: &Files) -> reqwest::Client {
    http_with(fleet_tls::client(files).unwrap()).build().unwrap()
}

#[tokio::test]
async fn a_client_of_the_ca_gets_in() {
    let fixture = Fixture::start(&["127.0.0.1"]).await;
    let ours = fixture.good.issue("me", &[], Lifetime::Good).unwrap();
    assert_eq!(get(&client(&ours), &fixture.url).await, Ok(200));
    let (code, said) = fixture.fleetctl(&fixture.url, &ours).await;
    assert_eq!((code, said.as_str()), (0, ""));
    let discovery =
        client(&ours).get(format!("{}/fleet/v1/discovery", fixture.url)).send().await.unwrap();
    let said = discovery.text().await.unwrap();
    assert!(said.contains(&format!("\"rootUrl\":\"{}/\"", fixture.url)), "{said}");
}

#[tokio::test]
async fn everybody_else_is_refused_with_one_line_that_says_what_to_do() {
    let fixture = Fixture::start(&["127.0.0.1"]).await;
    let ours = fixture.good.issue("me", &[], Lifetime::Good).unwrap();
    let other = Authority::new(fixture.path(), "other").unwrap();
    let stranger =
        Files { ca: ours.ca.clone(), ..other.issue("stranger", &[], Lifetime::Good).unwrap() };
    let expired = fixture.good.issue("expired", &[], Lifetime::Expired).unwrap();
    let nobody = Files { cert: None, key: None, ..ours.clone() };
    let distrusting = Files { ca: Some(other.ca()), ..ours.clone() };
    let mut said = Vec::new();
    for files in [&nobody, &stranger, &expired, &distrusting] {
        said.push(fixture.refusal(files).await);
    }
    expect_test::expect![[r#"
        it lets nobody in without a client certificate; name one and its key
        it refuses DIR/stranger.pem: from a CA that it does not know; use one of the cluster's CA
        it refuses DIR/expired.pem: expired, by its clock; renew it
        its certificate is not from a CA in DIR/other.pem; name the CA that it is from"#]]
    .assert_eq(&said.join("\n"));
}

#[tokio::test]
async fn a_server_with_another_name_or_an_old_certificate_is_refused() {
    let fixture = Fixture::start(&["10.9.9.9"]).await;
    let ours = fixture.good.issue("me", &[], Lifetime::Good).unwrap();
    assert_eq!(
        fixture.refusal(&ours).await,
        "its certificate is for 10.9.9.9, not for 127.0.0.1; use a name that it has, or issue it \
            for this one"
    );
    fixture.good.issue("server", &["127.0.0.1"], Lifetime::Expired).unwrap();
    assert_eq!(
        fixture.refusal(&ours).await,
        "its certificate expired on 2001-02-03; renew it there"
    );
}

#[tokio::test]
async fn plain_http_on_the_tls_port_and_tls_on_a_plain_one_are_told_apart() {
    let fixture = Fixture::start(&["127.0.0.1"]).await;
    let (code, said) =
        fixture.fleetctl(&fixture.url.replace("https", "http"), &Files::default()).await;
    assert!(
        code == 1 && said.contains("this address speaks TLS; write https:// instead of http://"),
        "{said}"
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
    let ours = fixture.good.issue("me", &[], Lifetime::Good).unwrap();
    let (code, said) = fixture.fleetctl(&url, &ours).await;
    assert!(code == 1 && said.contains("it does not speak TLS; write http://"), "{said}");
}

#[tokio::test]
async fn new_files_are_served_to_new_connections_and_open_ones_go_on() {
    let fixture = Fixture::start(&["127.0.0.1"]).await;
    let ours = fixture.good.issue("me", &[], Lifetime::Good).unwrap();
    let running = client(&ours);
    assert_eq!(get(&running, &fixture.url).await, Ok(200));

    // In the middle of being replaced: the last good ones serve.
    std::fs::write(fixture.path().join("server.key"), "nonsense").unwrap();
    assert_eq!(get(&client(&ours), &fixture.url).await, Ok(200));

    // Another CA altogether: who comes now needs a certificate of it.
    let next = Authority::new(fixture.path(), "next").unwrap();
    next.issue("server", &["127.0.0.1"], Lifetime::Good).unwrap();
    std::fs::copy(next.ca(), fixture.path().join("good.pem")).unwrap();
    let theirs = next.issue("them", &[], Lifetime::Good).unwrap();
    assert_eq!(get(&client(&theirs), &fixture.url).await, Ok(200));
    let refused = fixture.refusal(&Files { ca: Some(next.ca()), ..ours }).await;
    assert!(refused.contains("it refuses DIR/me.pem"), "{refused}");
    assert_eq!(get(&running, &fixture.url).await, Ok(200));

    // By other names, as after SIGHUP.
    let last = Authority::new(fixture.path(), "last").unwrap();
    fixture.tls.change(last.issue("last-server", &["127.0.0.1"], Lifetime::Good).unwrap()).unwrap();
    let last_client = last.issue("last-client", &[], Lifetime::Good).unwrap();
    assert_eq!(get(&client(&last_client), &fixture.url).await, Ok(200));
    assert!(get(&client(&theirs), &fixture.url).await.is_err());
}

#[tokio::test]
async fn files_that_are_missing_are_named_by_fleetctl() {
    let fixture = Fixture::start(&["127.0.0.1"]).await;
    let ours = fixture.good.issue("me", &[], Lifetime::Good).unwrap();
    let missing = Files { key: Some(fixture.path().join("missing.key")), ..ours.clone() };
    let (code, said) = fixture.fleetctl(&fixture.url, &missing).await;
    assert_eq!(
        (code, said.as_str()),
        (1, "Error: DIR/missing.key: no such file; put it there, or name another\n")
    );
    let (_, said) =
        fixture.fleetctl(&format!("unix://{}/none.sock", fixture.path().display()), &ours).await;
    assert!(said.contains("no endpoint is https://"), "{said}");
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_keep_others_waiting() {
    let fixture = Fixture::start(&["127.0.0.1"]).await;
    let address = fixture.url.strip_prefix("https://").unwrap().to_string();
    let _silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let ours = fixture.good.issue("me", &[], Lifetime::Good).unwrap();
    assert_eq!(get(&client(&ours), &fixture.url).await, Ok(200));
}

/// Those who have said nothing, and those who stop in the middle of the handshake.
#[tokio::test]
async fn a_host_full_of_silent_connections_shuts_out_nobody() {
    let limits = Limits { connections_of_one: 8, ..Limits::default() };
    let fixture = Fixture::start_within(&["127.0.0.1"], limits).await;
    let address = fixture.url.strip_prefix("https://").unwrap().to_string();
    let mut strangers = Vec::new();
    for n in 0..20 {
        let mut stranger = tokio::net::TcpStream::connect(&address).await.unwrap();
        if n % 2 == 0 {
            // The beginning of a TLS record. One that was cut off already cannot say it.
            let _ = stranger.write_all(&[22, 3, 1, 1, 0]).await;
        }
        strangers.push(stranger);
    }
    let ours = fixture.good.issue("me", &[], Lifetime::Good).unwrap();
    let running = client(&ours);
    assert_eq!(get(&running, &fixture.url).await, Ok(200));
    // One that has asked outlives those who come later and never ask.
    for _ in 0..7 {
        strangers.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    assert_eq!(get(&running, &fixture.url).await, Ok(200));
}
