//! Both stores keep the contract of `fleetd::store::kv`: one suite for all, then what only one of
//! them has.

mod check;
mod configurations;
mod damage;
mod embedded;
mod etcd;
mod fencing;
mod history;
mod imports;
mod kills;
mod leases;
mod model;
mod stress;
mod suite;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use fleetd::store::kv::{
    Change, KeyValue, Kv, LeaseId, Outcome, StoreError, WatchBatch, WatchEvent, WatchStream,
};
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long anything may take to happen. Far above what it does take, since the machine may be
/// busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A store under test, and what the trait lacks.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) kv: Arc<dyn Kv>,
    /// Forgets the history before a revision.
    pub(crate) compact: Arc<dyn Fn(i64) -> BoxFuture<'static, ()> + Send + Sync>,
}

/// A case of the suite: gets the store and a prefix of its own.
pub(crate) type Case = (&'static str, fn(Store, String) -> BoxFuture<'static, ()>);

/// A list of async fns as [`Case`]s.
#[macro_export]
macro_rules! cases {
    ($($name:ident)*) => { &[$((stringify!($name), |store, prefix| Box::pin($name(store, prefix)))),*] };
}

/// Runs every case; fails with the names of those that failed (their panics are printed above).
pub(crate) async fn run_suite(label: &str, store: Store) {
    let mut failed = Vec::new();
    for (name, case) in suite::CASES
        .iter()
        .chain(watches::CASES)
        .chain(history::CASES)
        .chain(imports::CASES)
        .chain(fencing::CASES)
        .chain(configurations::CASES)
    {
        if tokio::spawn(case(store.clone(), format!("{name}/"))).await.is_err() {
            failed.push(*name);
        }
    }
    // These wait for leases to run out, so they wait together.
    let mut waiting = JoinSet::new();
    for (name, case) in leases::CASES {
        let run = tokio::spawn(case(store.clone(), format!("{name}/")));
        waiting.spawn(async move { run.await.is_err().then_some(*name) });
    }
    failed.extend(waiting.join_all().await.into_iter().flatten());
    assert!(failed.is_empty(), "on {label} failed: {failed:?}");
}

pub(crate) fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.into(), value: value.into(), lease: None }
}

pub(crate) fn put_leased(key: &str, lease: LeaseId) -> Change {
    Change::Put { key: key.into(), value: b"leased".to_vec(), lease: Some(lease) }
}

pub(crate) fn delete(key: &str) -> Change {
    Change::Delete { key: key.into() }
}

/// Applies changes without a condition; the revision.
pub(crate) async fn apply(store: &Store, changes: &[Change]) -> i64 {
    let Outcome { applied, revision } = store.kv.txn(&[], changes).await.expect("a transaction");
    assert!(applied);
    revision
}

pub(crate) async fn get(store: &Store, key: &str) -> Option<KeyValue> {
    store.kv.get(key).await.expect("a read").0
}

pub(crate) async fn now(store: &Store) -> i64 {
    store.kv.get("nothing").await.expect("a read").1
}

/// The next item of a watch.
pub(crate) async fn next(watch: &mut WatchStream) -> Result<WatchBatch, StoreError> {
    timeout(PATIENCE, watch.recv())
        .await
        .expect("nothing came from the watch")
        .expect("the watch ended without an error")
}

/// A batch as text: `7: +a=x -b`.
pub(crate) fn text(batch: &WatchBatch) -> String {
    let event = |event: &WatchEvent| match event {
        WatchEvent::Put(kv) => format!(" +{}={}", kv.key, String::from_utf8_lossy(&kv.value)),
        WatchEvent::Delete(key) => format!(" -{key}"),
    };
    format!("{}:{}", batch.revision, batch.events.iter().map(event).collect::<String>())
}
