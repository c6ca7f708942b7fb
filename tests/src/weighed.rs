//! A store that weighs what is written to it and read from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use fleetd::store::kv::{
    Change, Compare, KeyValue, Kv, LeaseId, Outcome, Range, StoreError, TimeLeft, WatchEvent,
    WatchStream,
};
use tokio::sync::mpsc;

/// How many batches of a watch may lie here unread.
const BATCHES: usize = 16;

/// Bytes of keys and values, without what a protocol adds.
#[derive(Debug, Default)]
pub struct Weights {
    written: AtomicUsize,
    read: AtomicUsize,
}

impl Weights {
    /// The bytes written, and those read, by requests and by watches.
    pub fn bytes(&self) -> (usize, usize) {
        (self.written.load(Relaxed), self.read.load(Relaxed))
    }

    fn has_read<'a>(&self, kvs: impl IntoIterator<Item = &'a KeyValue>) {
        self.read.fetch_add(kvs.into_iter().map(weight).sum(), Relaxed);
    }
}

fn weight(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

/// `inner`, weighed.
pub struct Weighed {
    /// The store.
    pub inner: Arc<dyn Kv>,
    /// Where the bytes are added.
    pub weights: Arc<Weights>,
}

#[async_trait]
impl Kv for Weighed {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let range = self.inner.range(prefix).await?;
        self.weights.has_read(&range.kvs);
        Ok(range)
    }

    async fn ranges(&self, prefixes: &[String]) -> Result<Range, StoreError> {
        let range = self.inner.ranges(prefixes).await?;
        self.weights.has_read(&range.kvs);
        Ok(range)
    }

    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        let read = self.inner.get(key).await?;
        self.weights.has_read(&read.0);
        Ok(read)
    }

    async fn get_many(&self, keys: &[String]) -> Result<(Vec<Option<KeyValue>>, i64), StoreError> {
        let read = self.inner.get_many(keys).await?;
        self.weights.has_read(read.0.iter().flatten());
        Ok(read)
    }

    async fn txn(&self, compares: &[Compare], changes: &[Change]) -> Result<Outcome, StoreError> {
        let outcome = self.inner.txn(compares, changes).await?;
        let put = |change: &Change| match change {
            Change::Put { key, value, .. } => key.len() + value.len(),
            Change::Delete { key } => key.len(),
        };
        if outcome.applied {
            self.weights.written.fetch_add(changes.iter().map(put).sum(), Relaxed);
        }
        Ok(outcome)
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, StoreError> {
        let mut changes = self.inner.watch(prefix, from).await?;
        let (sender, weighed) = mpsc::channel(BATCHES);
        let weights = self.weights.clone();
        tokio::spawn(async move {
            while let Some(item) = changes.recv().await {
                if let Ok(batch) = &item {
                    let put = batch.events.iter().filter_map(|event| match event {
                        WatchEvent::Put(kv) => Some(kv),
                        WatchEvent::Delete { .. } => None,
                    });
                    weights.has_read(put);
                }
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        });
        Ok(weighed)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.inner.keep_alive(lease).await
    }

    async fn time_left(&self, lease: LeaseId) -> Result<Option<TimeLeft>, StoreError> {
        self.inner.time_left(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke(lease).await
    }

    fn led_anew(&self) -> Option<tokio::time::Instant> {
        self.inner.led_anew()
    }
}
