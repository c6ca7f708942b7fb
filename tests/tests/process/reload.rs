//! A real SIGHUP: what changes without a restart, of a process that goes on.

use etcd_client::{Client, ConnectOptions, Permission};
use fleet_tests::certs::{Authority, Lifetime};
use fleet_tests::etcd::{Etcd, binaries, free_port};
use fleet_tests::http_with;
use fleet_tls::Files;

use super::fleetd::Fleetd;

const RELOADED: &str = "the configuration was reloaded";

#[tokio::test]
async fn a_new_password_for_etcd_is_taken() {
    let etcd = Etcd::start(&binaries().unwrap()[0]).await.unwrap();
    let mut admin = Client::connect([etcd.url()], None).await.unwrap();
    for (user, password) in [("root", "secret"), ("fleet", "first")] {
        admin.user_add(user, password, None).await.unwrap();
        admin.role_add(user).await.unwrap();
        admin.user_grant_role(user, user).await.unwrap();
    }
    admin
        .role_grant_permission("fleet", Permission::read_write("/fleet").with_prefix())
        .await
        .unwrap();
    admin.auth_enable().await.unwrap();
    let mut admin =
        Client::connect([etcd.url()], Some(ConnectOptions::new().with_user("root", "secret")))
            .await
            .unwrap();

    let config = |password: &str| {
        format!(
            "etcd_servers = [{:?}]\netcd_username = \"fleet\"\netcd_password = \"{password}\"\n",
            etcd.url()
        )
    };
    let fleetd = Fleetd::start(tempfile::tempdir().unwrap(), &config("first"));
    fleetd.until("it leads", |said| *said == Ok(vec![true])).await;
    admin.user_change_password("fleet", "second").await.unwrap();
    let refused = |said: &Result<Vec<bool>, String>| {
        said.as_ref().is_err_and(|problem| problem.contains("see etcd_username and etcd_password"))
    };
    fleetd.until("etcd refuses the old password", refused).await;
    fleetd.reload(&config("second"));
    fleetd.until("etcd takes the new password", |said| *said == Ok(vec![true])).await;
    assert!(fleetd.log().contains(RELOADED), "{}", fleetd.log());
    let words =
        format!("Reloading configuration from {}", fleetd.path().join("fleetd.conf").display());
    assert!(fleetd.log().contains(&words), "{}", fleetd.log());
}

/// Whether a client with these files gets an answer.
async fn gets_in(url: &str, files: &Files) -> Result<(), String> {
    let client = http_with(fleet_tls::client(files).unwrap()).build().unwrap();
    client
        .get(format!("{url}/fleet/v1/machines"))
        .send()
        .await
        .map(drop)
        .map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn the_api_s_certificate_and_ca_are_other_files_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (
        Authority::new(folder.path(), "old").unwrap(),
        Authority::new(folder.path(), "new").unwrap(),
    );
    let clients = [(&old, "old-client"), (&new, "new-client")];
    let clients = clients.map(|(ca, name)| ca.issue(name, &[], Lifetime::Good).unwrap());
    let servers = [(&old, "old-server"), (&new, "new-server")];
    let servers = servers.map(|(ca, name)| ca.issue(name, &["127.0.0.1"], Lifetime::Good).unwrap());
    let port = free_port().unwrap();
    let config = |Files { ca, cert, key }: &Files| {
        let [ca, cert, key] = [ca, cert, key].map(|file| file.as_ref().unwrap());
        format!(
            "listen = [\"https://127.0.0.1:{port}\"]\ntls_cafile = {ca:?}\ntls_certfile = \
            {cert:?}\ntls_keyfile = {key:?}\n"
        )
    };
    let fleetd = Fleetd::start(folder, &config(&servers[0]));
    fleetd.until("it answers", Result::is_ok).await;
    let url = format!("https://127.0.0.1:{port}");
    gets_in(&url, &clients[0]).await.unwrap();
    gets_in(&url, &clients[1]).await.unwrap_err();

    fleetd.reload(&config(&servers[1]));
    fleetd.until_said(RELOADED).await;
    gets_in(&url, &clients[1]).await.unwrap();
    gets_in(&url, &clients[0]).await.unwrap_err();

    // Files that will not do change nothing.
    let broken = Files { cert: servers[0].cert.clone(), ..servers[1].clone() };
    fleetd.reload(&config(&broken));
    fleetd.until_said("new-server.key is not the key of").await;
    gets_in(&url, &clients[1]).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_is_disabled_resigns_and_one_that_is_enabled_leads() {
    let fleetd = Fleetd::start(tempfile::tempdir().unwrap(), "");
    fleetd.until("it leads", |said| *said == Ok(vec![true])).await;
    fleetd.reload("disable_engine = true\n");
    fleetd.until("nobody leads", |said| *said == Ok(vec![false])).await;
    fleetd.reload("disable_engine = false\n");
    fleetd.until("it leads again", |said| *said == Ok(vec![true])).await;
    assert_eq!(fleetd.log().matches(RELOADED).count(), 2, "{}", fleetd.log());
}

#[tokio::test]
async fn new_names_are_known_to_the_api_without_a_restart() {
    let listen = format!("127.0.0.1:{}", free_port().unwrap());
    let config = |name: &str| {
        format!("insecure = true\nlisten = [\"http://{listen}\"]\n{name}\npublic_ip = \"p.test\"\n")
    };
    let folder = tempfile::tempdir().unwrap();
    let fleetd = Fleetd::start(folder, &config("listen_names = [\"old.test\"]"));
    fleetd.until_said("listening on http://").await;
    let asked_as = async |name: &str| {
        let url = format!("http://{listen}/fleet/v1/version");
        let client = fleet_tests::http().build().unwrap();
        client.get(url).header("host", name).send().await.unwrap().status().as_u16()
    };
    let seen = [asked_as("old.test").await, asked_as("p.test").await, asked_as("new.test").await];
    assert_eq!(seen, [200, 200, 421], "{}", fleetd.log());
    fleetd.reload(&config("listen_names = [\"new.test\"]").replace("p.test", "q.test"));
    fleetd.until_said(RELOADED).await;
    let seen = [
        asked_as("old.test").await,
        asked_as("p.test").await,
        asked_as("new.test").await,
        asked_as("q.test").await,
    ];
    assert_eq!(seen, [421, 421, 200, 200], "{}", fleetd.log());
}
