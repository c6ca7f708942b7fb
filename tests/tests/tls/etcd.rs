//! fleetd's store on a real etcd with TLS, client certificates and users.

use std::path::Path;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use fleet_tests::certs::{Authority, Lifetime};
use fleet_tests::etcd::{Etcd, binaries};
use fleet_tls::Files;
use fleetd::store::etcd::{EtcdKv, EtcdOptions};
use fleetd::store::kv::{Change, Kv, StoreError};
use tempfile::TempDir;

/// An etcd that lets in who has a certificate of the CA `good`.
struct Fixture {
    folder: TempDir,
    good: Authority,
    etcd: Etcd,
}

impl Fixture {
    async fn start(options: &[&str]) -> Fixture {
        let binary = binaries().unwrap().remove(0);
        let folder = tempfile::tempdir().unwrap();
        let good = Authority::new(folder.path(), "good").unwrap();
        let tls = Some(good.issue("etcd", &["127.0.0.1", "localhost"], Lifetime::Good).unwrap());
        let etcd = Etcd::start_secured(&binary, tls, options).await.unwrap();
        Fixture { folder, good, etcd }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn client(&self, tls: Files) -> EtcdKv {
        EtcdKv::connect(EtcdOptions { tls, ..EtcdOptions::new([self.etcd.url()]) }).unwrap()
    }

    /// Why a request does not work, without what differs between runs.
    async fn refusal(&self, kv: &EtcdKv) -> String {
        let error = kv.get("a").await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        error
            .to_string()
            .replace(&self.path().display().to_string(), "DIR")
            .replace(&self.etcd.url(), "ETCD")
    }
}

fn put(key: &str) -> [Change; 1] {
    [Change::Put { key: key.to_string(), value: b"1".to_vec(), lease: None }]
}

#[tokio::test]
async fn with_a_certificate_of_the_ca_everything_works_watches_too() {
    let fixture = Fixture::start(&[]).await;
    let kv = fixture.client(fixture.good.issue("fleet", &[], Lifetime::Good).unwrap());
    let mut watch = kv.watch("", 1).await.unwrap();
    assert!(kv.txn(&[], &put("a")).await.unwrap().applied);
    assert_eq!(watch.recv().await.unwrap().unwrap().events.len(), 1);
    let lease = kv.grant(std::time::Duration::from_secs(60)).await.unwrap();
    assert!(kv.keep_alive(lease).await.unwrap());
}

#[tokio::test]
async fn etcd_s_certificate_is_verified_whatever_else_is_given() {
    let fixture = Fixture::start(&[]).await;
    let ours = fixture.good.issue("fleet", &[], Lifetime::Good).unwrap();
    let other = Authority::new(fixture.path(), "other").unwrap();
    // fleet 1.0 skipped the verification when it had a CA file and no certificate.
    let only_ca = fixture.client(Files { ca: Some(other.ca()), ..Files::default() });
    let with_certificate = fixture.client(Files { ca: Some(other.ca()), ..ours });
    let expected = "ETCD: its certificate is not from a CA in DIR/other.pem; name the CA that it \
        is from";
    for kv in [only_ca, with_certificate] {
        let said = fixture.refusal(&kv).await;
        assert!(said.ends_with(expected), "{said}");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_and_one_with_a_stranger_s_are_told_so() {
    let fixture = Fixture::start(&[]).await;
    let ca = Some(fixture.good.ca());
    let said = fixture.refusal(&fixture.client(Files { ca: ca.clone(), ..Files::default() })).await;
    assert!(said.contains("ETCD: it lets nobody in without a client certificate"), "{said}");
    let other = Authority::new(fixture.path(), "other").unwrap();
    let stranger = other.issue("stranger", &[], Lifetime::Good).unwrap();
    let said = fixture.refusal(&fixture.client(Files { ca: ca.clone(), ..stranger })).await;
    assert!(said.contains("ETCD: it refuses DIR/stranger.pem"), "{said}");
    let expired = fixture.good.issue("expired", &[], Lifetime::Expired).unwrap();
    let said = fixture.refusal(&fixture.client(expired)).await;
    assert!(said.contains("ETCD: it refuses DIR/expired.pem"), "{said}");
}

#[tokio::test]
async fn an_etcd_with_another_name_or_an_old_certificate_is_refused() {
    let fixture = Fixture::start(&[]).await;
    let kv = fixture.client(fixture.good.issue("fleet", &[], Lifetime::Good).unwrap());
    // etcd reads its files for each connection.
    fixture.good.issue("etcd", &["10.9.9.9", "db"], Lifetime::Good).unwrap();
    let said = fixture.refusal(&kv).await;
    let expected = "ETCD: its certificate is for 10.9.9.9, db, not for 127.0.0.1; use a name that \
        it has, or issue it for this one";
    assert!(said.ends_with(expected), "{said}");
    fixture.good.issue("etcd", &["127.0.0.1"], Lifetime::Expired).unwrap();
    let said = fixture.refusal(&kv).await;
    assert!(
        said.ends_with("ETCD: its certificate expired on 2001-02-03; renew it there"),
        "{said}"
    );
}

#[tokio::test]
async fn files_that_will_not_do_are_named_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let good = Authority::new(folder.path(), "good").unwrap();
    let (a, b) = (
        good.issue("a", &[], Lifetime::Good).unwrap(),
        good.issue("b", &[], Lifetime::Good).unwrap(),
    );
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let empty = Some(folder.path().join("empty.pem"));
    let cases = [
        (
            Files { key: b.key, ..a.clone() },
            "DIR/b.key is not the key of DIR/a.pem; name the two that were made together",
        ),
        (
            Files { key: None, ..a.clone() },
            "DIR/a.pem: a certificate without its key; name the key file, too",
        ),
        (
            Files { cert: None, ..a.clone() },
            "DIR/a.key: a key without its certificate; name the certificate file, too",
        ),
        (
            Files { cert: empty.clone(), ..a.clone() },
            "DIR/empty.pem: there is no certificate in it (-----BEGIN CERTIFICATE-----)",
        ),
        (Files { key: a.cert.clone(), ..a.clone() }, "DIR/a.pem: there is no private key in it"),
        (
            Files { ca: Some("/nowhere.pem".into()), ..a.clone() },
            "/nowhere.pem: no such file; put it there, or name another",
        ),
    ];
    for (tls, expected) in cases {
        let refused =
            EtcdKv::connect(EtcdOptions { tls, ..EtcdOptions::new(["https://127.0.0.1:1"]) })
                .err()
                .unwrap();
        let said = refused.to_string().replace(&folder.path().display().to_string(), "DIR");
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn new_files_are_used_without_a_restart() {
    let fixture = Fixture::start(&[]).await;
    let files = fixture.good.issue("fleet", &[], Lifetime::Expired).unwrap();
    let kv = fixture.client(files);
    let said = fixture.refusal(&kv).await;
    assert!(said.contains("it refuses DIR/fleet.pem"), "{said}");
    fixture.good.issue("fleet", &[], Lifetime::Good).unwrap();
    assert!(kv.txn(&[], &put("a")).await.unwrap().applied);
    // Files that will not do, as in the middle of being replaced, change nothing.
    std::fs::write(fixture.path().join("fleet.key"), "nonsense").unwrap();
    assert!(kv.txn(&[], &put("b")).await.unwrap().applied);
}

/// An etcd over TLS with a user `fleet` who may use the keys below `/fleet/`.
async fn with_users(options: &[&str]) -> (Fixture, Files) {
    let fixture = Fixture::start(options).await;
    // Not a user's name: without a login, etcd takes the name in the certificate for the user.
    let files = fixture.good.issue("machine", &[], Lifetime::Good).unwrap();
    let read = |path: &Option<std::path::PathBuf>| std::fs::read(path.as_ref().unwrap()).unwrap();
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read(&files.ca)))
        .identity(Identity::from_pem(read(&files.cert), read(&files.key)));
    let mut admin =
        Client::connect([fixture.etcd.url()], Some(ConnectOptions::new().with_tls(tls)))
            .await
            .unwrap();
    for (user, password) in [("root", "secret"), ("fleet", "first")] {
        admin.user_add(user, password, None).await.unwrap();
        admin.role_add(user).await.unwrap();
        admin.user_grant_role(user, user).await.unwrap();
    }
    let everything_of_fleet = etcd_client::Permission::read_write("/fleet/").with_prefix();
    admin.role_grant_permission("fleet", everything_of_fleet).await.unwrap();
    admin.auth_enable().await.unwrap();
    (fixture, files)
}

fn user(name: &str, password: &str) -> Option<(String, String)> {
    Some((name.to_string(), password.to_string()))
}

#[tokio::test]
async fn a_login_that_ran_out_or_that_etcd_forgot_is_renewed() {
    let (mut fixture, tls) = with_users(&["--auth-token-ttl=1"]).await;
    let credentials = user("fleet", "first");
    let kv =
        EtcdKv::connect(EtcdOptions { credentials, tls, ..EtcdOptions::new([fixture.etcd.url()]) })
            .unwrap();
    assert!(kv.txn(&[], &put("/fleet/a")).await.unwrap().applied);
    // Three times the life of an unused token: time that etcd counts, not we.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(kv.txn(&[], &put("/fleet/b")).await.unwrap().applied);
    // etcd keeps its tokens in memory only.
    fixture.etcd.kill().unwrap();
    assert!(matches!(kv.get("/fleet/a").await, Err(StoreError::Unavailable(_))));
    fixture.etcd.run().await.unwrap();
    assert!(kv.txn(&[], &put("/fleet/c")).await.unwrap().applied);
    assert_eq!(kv.range("/fleet/").await.unwrap().kvs.len(), 3);
}

#[tokio::test]
async fn a_wrong_user_is_told_what_to_set_and_another_can_be_taken_without_a_restart() {
    let (fixture, tls) = with_users(&[]).await;
    let connect = |credentials| {
        EtcdKv::connect(EtcdOptions {
            credentials,
            tls: tls.clone(),
            ..EtcdOptions::new([fixture.etcd.url()])
        })
        .unwrap()
    };
    for credentials in [None, user("fleet", "second")] {
        let error = connect(credentials).get("/fleet/a").await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
        assert!(error.to_string().contains("see etcd_username and etcd_password"), "{error}");
    }
    let kv = connect(user("fleet", "first"));
    assert!(kv.txn(&[], &put("/fleet/a")).await.unwrap().applied);
    let error = kv.get("/elsewhere").await.unwrap_err();
    assert!(error.to_string().contains("grant its role readwrite"), "{error}");
    kv.change(user("root", "secret"), tls.clone()).await.unwrap();
    assert!(kv.get("/elsewhere").await.is_ok());
    assert!(kv.change(user("root", "secret"), Files { key: None, ..tls.clone() }).await.is_err());
    assert!(kv.get("/elsewhere").await.is_ok());
}
