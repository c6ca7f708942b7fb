//! The suite on real etcds, and what happens to a client whose etcd dies, hangs or comes back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::Client;
use fleet_tests::etcd::{Etcd, binaries, free_port};
use fleetd::store::etcd::{EtcdKv, EtcdOptions};
use fleetd::store::kv::{Kv, StoreError};

use crate::{PATIENCE, Store, next, put, run_suite};

const BINARY: &str = "etcd";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract() {
    for binary in binaries().unwrap() {
        let etcd = Etcd::start(&binary).await.unwrap();
        let kv: Arc<dyn Kv> = Arc::new(client([etcd.url()]));
        let url = etcd.url();
        let compact = move |revision| {
            let url = url.clone();
            let compaction = async move {
                let mut second = Client::connect([url], None).await.unwrap();
                second.compact(revision, None).await.unwrap();
            };
            Box::pin(compaction) as _
        };
        run_suite(&binary.display().to_string(), Store { kv, compact: Arc::new(compact) }).await;
    }
}

#[tokio::test]
async fn with_a_dead_endpoint_first_calls_work() {
    let etcd = start().await;
    let kv = client([nobody(), etcd.url()]);
    // A write, since only those must not be sent twice; each client tries the dead one first.
    assert!(kv.txn(&[], &[put("a", "1")]).await.unwrap().applied);
    assert!(client([nobody(), etcd.url()]).range("").await.unwrap().kvs.len() == 1);
    let mut watch = client([nobody(), etcd.url()]).watch("", 2).await.unwrap();
    assert!(next(&mut watch).await.is_ok());
}

#[tokio::test]
async fn with_a_hanging_endpoint_first_one_call_fails_at_most() {
    let (hanging, etcd) = (start().await, start().await);
    hanging.pause().unwrap();
    let kv = client([hanging.url(), etcd.url()]);
    let mut failed = 0;
    for _ in 0..10 {
        match kv.txn(&[], &[put("a", "1")]).await {
            Ok(outcome) => assert!(outcome.applied),
            Err(error) => {
                assert_unavailable::<()>(Err(error));
                failed += 1;
            }
        }
    }
    assert!(failed <= 1, "{failed} failed");
}

#[tokio::test]
async fn an_etcd_that_comes_later_is_found() {
    let mut etcd = start().await;
    etcd.kill().unwrap();
    let kv = client([etcd.url()]);
    for _ in 0..3 {
        assert_unavailable(kv.get("a").await);
    }
    assert_unavailable(kv.watch("a", 1).await);
    etcd.run().await.unwrap();
    assert!(kv.get("a").await.is_ok());
    assert!(kv.txn(&[], &[put("a", "1")]).await.unwrap().applied);
}

#[tokio::test]
async fn an_etcd_that_hangs_is_unavailable_in_time_and_found_again() {
    let etcd = start().await;
    let kv = client([etcd.url()]);
    let lease = kv.grant(PATIENCE).await.unwrap();
    let mut watch = kv.watch("", 2).await.unwrap();
    etcd.pause().unwrap();
    let asked = Instant::now();
    assert_unavailable(kv.range("").await);
    assert_unavailable(kv.keep_alive(lease).await);
    assert!(
        asked.elapsed() < Duration::from_secs(6),
        "two calls of 2 s took {:?}",
        asked.elapsed()
    );
    assert_unavailable(next(&mut watch).await);
    etcd.resume().unwrap();
    assert!(kv.txn(&[], &[put("a", "1")]).await.unwrap().applied);
    assert!(kv.keep_alive(lease).await.unwrap());
}

#[tokio::test]
async fn an_etcd_that_restarts_ends_the_watch_and_is_found_again() {
    let mut etcd = start().await;
    let kv = client([etcd.url()]);
    let mut watch = kv.watch("", 2).await.unwrap();
    let revision = kv.txn(&[], &[put("a", "1")]).await.unwrap().revision;
    assert!(next(&mut watch).await.is_ok());
    etcd.kill().unwrap();
    assert_unavailable(next(&mut watch).await);
    assert!(watch.recv().await.is_none(), "the error is the last item");
    etcd.run().await.unwrap();
    let mut watch = kv.watch("", revision + 1).await.unwrap();
    kv.txn(&[], &[put("b", "1")]).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, revision + 1);
}

#[tokio::test]
async fn a_change_of_etcds_leader_is_heard_from_the_next_answer_of_any_kind() {
    let mut etcd = start().await;
    let kv = client([etcd.url()]);
    let lease = kv.grant(PATIENCE).await.unwrap();
    let mut heard = None;
    for what in 0..4 {
        assert_eq!(kv.led_anew(), heard);
        // The only member is elected anew when it starts.
        etcd.kill().unwrap();
        etcd.run().await.unwrap();
        assert_eq!(kv.led_anew(), heard, "nobody was asked");
        match what {
            0 => assert!(kv.keep_alive(lease).await.unwrap()),
            1 => assert!(kv.time_left(lease).await.unwrap().is_some()),
            2 => assert!(kv.get("a").await.is_ok()),
            _ => assert!(kv.txn(&[], &[put("a", "1")]).await.unwrap().applied),
        }
        assert!(kv.led_anew() > heard, "request {what}");
        heard = kv.led_anew();
    }
}

#[tokio::test]
async fn a_renewal_goes_past_an_endpoint_that_hangs_within_its_time() {
    let (hanging, other) = (start().await, start().await);
    let kv = client([hanging.url(), other.url()]);
    let lease = kv.grant(PATIENCE).await.unwrap();
    assert!(kv.keep_alive(lease).await.unwrap());
    hanging.pause().unwrap();
    // Two clusters: the other one has never heard of the lease, which is an answer.
    assert!(!kv.keep_alive(lease).await.unwrap());
    assert_eq!(kv.time_left(lease).await.unwrap(), None);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_a_right_one_works() {
    let etcd = start().await;
    let mut admin = Client::connect([etcd.url()], None).await.unwrap();
    admin.user_add("root", "secret", None).await.unwrap();
    admin.role_add("root").await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.auth_enable().await.unwrap();
    let with = |credentials: Option<(&str, &str)>| {
        let credentials =
            credentials.map(|(user, password)| (user.to_string(), password.to_string()));
        EtcdKv::connect(EtcdOptions { credentials, ..EtcdOptions::new([etcd.url()]) }).unwrap()
    };
    for credentials in [None, Some(("root", "wrong"))] {
        let refused = with(credentials).get("a").await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    }
    assert!(with(Some(("root", "secret"))).txn(&[], &[put("a", "1")]).await.unwrap().applied);
}

#[test]
fn options_that_cannot_work_are_refused_at_once() {
    for endpoints in [vec![], vec!["ftp://127.0.0.1:2379"]] {
        assert!(matches!(
            EtcdKv::connect(EtcdOptions::new(endpoints)),
            Err(StoreError::Refused(_))
        ));
    }
}

async fn start() -> Etcd {
    binaries().unwrap();
    Etcd::start(Path::new(BINARY)).await.unwrap()
}

fn client(endpoints: impl IntoIterator<Item = String>) -> EtcdKv {
    EtcdKv::connect(EtcdOptions::new(endpoints)).unwrap()
}

fn nobody() -> String {
    format!("http://127.0.0.1:{}", free_port().unwrap())
}

fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
}
