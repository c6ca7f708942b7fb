//! An engine whose planning panics stands aside for some seconds, then leads and plans again; nothing needs a restart by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fleetd::store::Store;
use fleetd::store::kv::{Change, Compare, KeyValue, Kv, LeaseId, Outcome, Range, StoreError, WatchStream};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// A store whose first list of everything panics: a stand-in for a document that planning cannot bear.
struct Panics {
    inner: Arc<dyn Kv>,
    armed: AtomicBool,
}

#[async_trait]
impl Kv for Panics {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        assert!(!self.armed.swap(false, Relaxed), "a document too strange");
        self.inner.range(prefix).await
    }

    async fn ranges(&self, prefixes: &[String]) -> Result<Range, StoreError> {
        self.inner.ranges(prefixes).await
    }

    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<(Vec<Option<KeyValue>>, i64), StoreError> {
        self.inner.get_many(keys).await
    }

    async fn txn(&self, compares: &[Compare], changes: &[Change]) -> Result<Outcome, StoreError> {
        self.inner.txn(compares, changes).await
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, StoreError> {
        self.inner.watch(prefix, from).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke(lease).await
    }
}

#[tokio::test]
async fn an_engine_that_panicked_leads_again() {
    let mut cluster = Cluster::start().await;
    cluster.join(["a".to_string()]).await;
    cluster.submit("web.service", None, "[Service]\nExecStart=/bin/sleep 1d\n").await;
    let store = Store::new(Arc::new(Panics { inner: cluster.kv.clone(), armed: AtomicBool::new(true) }), "/fleet/");
    let engine = cluster.engine("a", store);
    let (metrics, stop) = (engine.metrics.clone(), CancellationToken::new());
    let running = tokio::spawn(engine.run(stop.clone()));
    let begin = Instant::now();
    while cluster.mirror().await.cluster().snapshot.assignments.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing was placed; panics: {metrics:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(metrics.engine_panics.load(Relaxed), 1, "it was placed after the panic");
    stop.cancel();
    running.await.unwrap();
}
