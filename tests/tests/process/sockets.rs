//! Sockets that systemd holds and hands over: the same rules as for those that `listen` names.

use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use fleet_tests::certs::{Authority, Lifetime};
use fleet_tests::{http, http_with};

use super::fleetd::Fleetd;

fn socket(address: &str) -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind((address, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What a closed socket answers.
async fn refusal(url: &str) -> String {
    let answer = http().build().unwrap().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    answer.text().await.unwrap()
}

#[tokio::test]
async fn a_socket_on_loopback_is_for_every_user_of_the_machine_so_it_must_be_insecure_on_purpose() {
    let (socket, address) = socket("127.0.0.1");
    let second = socket.try_clone().unwrap();
    // fleetd runs all the same: a machine whose fleetd does not start is lost.
    let fleetd = Fleetd::start_with(tempfile::tempdir().unwrap(), "", socket);
    let why = "every user and every program of this machine";
    let said = refusal(&format!("http://{address}/fleet/v1/version")).await;
    assert!(said.contains(why) && said.contains("systemctl restart fleetd"), "{said}");
    fleetd.until_said(why).await;
    fleetd.until("it serves its own socket", Result::is_ok).await;
    drop(fleetd);

    let fleetd = Fleetd::start_with(tempfile::tempdir().unwrap(), "insecure = true\n", second);
    // Who connects before fleetd listens waits: the socket is there.
    let answer = http()
        .build()
        .unwrap()
        .get(format!("http://{address}/fleet/v1/version"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{}", fleetd.log());
    let warned = format!(
        "listening on http://{address}, insecure: every user and every program of this machine"
    );
    assert!(fleetd.log().contains(&warned), "{}", fleetd.log());
}

#[tokio::test]
async fn a_socket_that_others_reach_is_refused_unless_it_is_named_or_insecure_on_purpose() {
    let (socket, address) = socket("0.0.0.0");
    let second = socket.try_clone().unwrap();
    let fleetd = Fleetd::start_with(tempfile::tempdir().unwrap(), "", socket);
    let said = refusal(&format!("http://127.0.0.1:{}/fleet/v1/units", address.port())).await;
    assert!(said.contains("over plain HTTP anybody who reaches it could"), "{said}");
    let expected = format!("systemd hands over a socket on {address} that listen does not name");
    fleetd.until_said(&expected).await;
    assert!(!fleetd.log().contains("other machines reach the API"), "{}", fleetd.log());
    drop(fleetd);

    let config = "insecure = true\npublic_ip = \"10.0.0.7\"\n";
    let fleetd = Fleetd::start_with(tempfile::tempdir().unwrap(), config, second);
    let url = format!("http://127.0.0.1:{}/fleet/v1/version", address.port());
    let answer = http().build().unwrap().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", fleetd.log());
    // It is this machine's API for the others, too.
    fleetd
        .until_said(&format!("other machines reach the API at http://10.0.0.7:{}", address.port()))
        .await;
}

#[tokio::test]
async fn a_unix_socket_that_everybody_may_write_to_is_shut_to_others() {
    for (config, expected) in [("", 0o660), ("insecure = true\n", 0o666)] {
        let folder = tempfile::tempdir().unwrap();
        // Where `Fleetd` asks; systemd's default is SocketMode=0666.
        let path = folder.path().join("fleet.sock");
        let socket = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let fleetd = Fleetd::start_with(folder, config, socket);
        fleetd.until("it answers", Result::is_ok).await;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, expected, "{}", fleetd.log());
        assert_eq!(fleetd.log().contains("SocketMode=0660"), expected == 0o660);
    }
    let address = std::os::unix::net::SocketAddr::from_abstract_name(format!(
        "fleet-test-{}",
        std::process::id()
    ));
    let socket = UnixListener::bind_addr(&address.unwrap()).unwrap();
    let fleetd = Fleetd::start_with(tempfile::tempdir().unwrap(), "", socket);
    fleetd.until("it serves a socket of its own", Result::is_ok).await;
    assert!(fleetd.log().contains("a unix socket that has no file"), "{}", fleetd.log());
}

#[tokio::test]
async fn a_socket_that_listen_names_with_https_asks_for_certificates() {
    // As systemd makes it of `ListenStream=4100`.
    let (socket, address) = socket("::");
    let folder = tempfile::tempdir().unwrap();
    let good = Authority::new(folder.path(), "good").unwrap();
    let files = good.issue("machine", &["127.0.0.1"], Lifetime::Good).unwrap();
    let [ca, cert, key] = [&files.ca, &files.cert, &files.key].map(|file| file.clone().unwrap());
    let port = address.port();
    let config = format!(
        "listen = [\"https://0.0.0.0:{port}\"]\ntls_cafile = {ca:?}\ntls_certfile = \
            {cert:?}\ntls_keyfile = {key:?}\n"
    );
    let fleetd = Fleetd::start_with(folder, &config, socket);
    let url = format!("https://127.0.0.1:{port}/fleet/v1/version");
    let get = async |files: &fleet_tls::Files| {
        http_with(fleet_tls::client(files).unwrap())
            .build()
            .unwrap()
            .get(&url)
            .send()
            .await
            .map(|answer| answer.status())
    };
    assert_eq!(get(&files).await.unwrap(), 200, "{}", fleetd.log());
    get(&fleet_tls::Files { cert: None, key: None, ..files.clone() }).await.unwrap_err();
    assert_eq!(
        fleetd.log().matches("listening on").count(),
        1,
        "it is not bound twice: {}",
        fleetd.log()
    );
}
