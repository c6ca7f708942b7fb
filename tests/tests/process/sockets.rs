//! TCP sockets that systemd holds and hands over: the same rules as for those that `listen` names.

use std::net::{SocketAddr, TcpListener};

use fleet_tests::certs::{Authority, Lifetime};
use fleet_tests::{http, http_with};

use super::fleetd::Fleetd;

fn socket(address: &str) -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind((address, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn a_socket_on_loopback_is_for_every_user_of_the_machine_so_it_must_be_insecure_on_purpose() {
    let (socket, address) = socket("127.0.0.1");
    let second = socket.try_clone().unwrap();
    let (code, said) = Fleetd::start_with(tempfile::tempdir().unwrap(), "", socket).ended().await;
    assert!(
        code == Some(1)
            && said.contains(
                "every user and every program of this \
        machine"
            ),
        "{said}"
    );

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
        "listening on http://{address}, insecure: every user and every program \
        of this machine"
    );
    assert!(fleetd.log().contains(&warned), "{}", fleetd.log());
}

#[tokio::test]
async fn a_socket_that_others_reach_is_refused_unless_it_is_named_or_insecure_on_purpose() {
    let (socket, address) = socket("0.0.0.0");
    let second = socket.try_clone().unwrap();
    let (code, said) = Fleetd::start_with(tempfile::tempdir().unwrap(), "", socket).ended().await;
    assert_eq!(code, Some(1), "{said}");
    let expected = format!(
        "Error: systemd hands over a socket on {address} that listen does not \
        name: over plain HTTP anybody"
    );
    assert!(said.contains(&expected), "{said}");

    let config = "insecure = true\npublic_ip = \"10.0.0.7\"\n";
    let fleetd = Fleetd::start_with(tempfile::tempdir().unwrap(), config, second);
    let url = format!("http://127.0.0.1:{}/fleet/v1/version", address.port());
    let answer = http().build().unwrap().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", fleetd.log());
    // It is this machine's API for the others, too.
    fleetd
        .until_said(&format!(
            "other machines reach the API at \
        http://10.0.0.7:{}",
            address.port()
        ))
        .await;
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
        "it is not bound \
        twice: {}",
        fleetd.log()
    );
}
