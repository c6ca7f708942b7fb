//! Counts what is asked of the store and how long that takes, by kind, for `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::kv::{
    Change, Compare, KeyValue, Kv, LeaseId, Outcome, Range, StoreError, TimeLeft, WatchStream,
};

/// The kinds of operations, in the order of [`Counts::read`].
pub const KINDS: [&str; 5] = ["range", "get", "txn", "watch", "lease"];

/// Totals since the start of the process.
#[derive(Debug, Default)]
pub struct Counts([Kind; KINDS.len()]);

#[derive(Debug, Default)]
struct Kind {
    done: AtomicU64,
    failed: AtomicU64,
    micros: AtomicU64,
}

/// One kind's totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// Operations, failed ones among them.
    pub done: u64,
    /// Those that failed.
    pub failed: u64,
    /// How long they took, all together, in microseconds.
    pub micros: u64,
}

impl Counts {
    /// The totals of each kind.
    pub fn read(&self) -> [(&'static str, Total); KINDS.len()] {
        std::array::from_fn(|index| {
            let kind = &self.0[index];
            let total = Total {
                done: kind.done.load(Relaxed),
                failed: kind.failed.load(Relaxed),
                micros: kind.micros.load(Relaxed),
            };
            (KINDS[index], total)
        })
    }

    async fn note<T>(
        &self,
        kind: usize,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begin = Instant::now();
        let answer = call.await;
        let kind = &self.0[kind];
        kind.done.fetch_add(1, Relaxed);
        kind.failed.fetch_add(u64::from(answer.is_err()), Relaxed);
        kind.micros.fetch_add(begin.elapsed().as_micros() as u64, Relaxed);
        answer
    }
}

/// A store that counts.
pub struct Counted {
    inner: Arc<dyn Kv>,
    counts: Arc<Counts>,
}

impl Counted {
    /// Counts what is asked of `inner`.
    pub fn new(inner: Arc<dyn Kv>, counts: Arc<Counts>) -> Counted {
        Counted { inner, counts }
    }
}

#[async_trait]
impl Kv for Counted {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        self.counts.note(0, self.inner.range(prefix)).await
    }

    async fn keys(&self, prefix: &str) -> Result<Range, StoreError> {
        self.counts.note(0, self.inner.keys(prefix)).await
    }

    async fn ranges(&self, prefixes: &[String]) -> Result<Range, StoreError> {
        self.counts.note(0, self.inner.ranges(prefixes)).await
    }

    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        self.counts.note(1, self.inner.get(key)).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<(Vec<Option<KeyValue>>, i64), StoreError> {
        self.counts.note(1, self.inner.get_many(keys)).await
    }

    async fn txn(&self, compares: &[Compare], changes: &[Change]) -> Result<Outcome, StoreError> {
        self.counts.note(2, self.inner.txn(compares, changes)).await
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, StoreError> {
        self.counts.note(3, self.inner.watch(prefix, from)).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.counts.note(4, self.inner.grant(ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.counts.note(4, self.inner.keep_alive(lease)).await
    }

    async fn time_left(&self, lease: LeaseId) -> Result<Option<TimeLeft>, StoreError> {
        self.counts.note(4, self.inner.time_left(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.counts.note(4, self.inner.revoke(lease)).await
    }

    fn led_anew(&self) -> Option<tokio::time::Instant> {
        self.inner.led_anew()
    }
}
