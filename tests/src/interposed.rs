//! A store with something between it and who asks: a process that dies between two writes, a
//! document that nothing can bear.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleetd::store::kv::{
    Change, Compare, KeyValue, Kv, LeaseId, Outcome, Range, StoreError, TimeLeft, WatchStream,
};

/// What is asked of the store, as far as anybody interferes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// All keys of a prefix.
    Range,
    /// A transaction.
    Txn,
    /// A lease's renewal.
    KeepAlive,
    /// The end of a lease.
    Revoke,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Fate {
    /// It is carried out and answered.
    Done,
    /// It is not carried out, and this is the answer.
    Refused(StoreError),
    /// It is carried out, and this is the answer.
    Unheard(StoreError),
}

/// `inner`, asked as far as `fate` lets it be.
pub struct Interposed {
    /// The store.
    pub inner: Arc<dyn Kv>,
    /// Decides about each request; it may panic.
    pub fate: Box<dyn Fn(Request) -> Fate + Send + Sync>,
}

impl Interposed {
    async fn pass<T>(
        &self,
        request: Request,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match (self.fate)(request) {
            Fate::Done => call.await,
            Fate::Refused(error) => Err(error),
            Fate::Unheard(error) => call.await.and(Err(error)),
        }
    }
}

#[async_trait]
impl Kv for Interposed {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        self.pass(Request::Range, self.inner.range(prefix)).await
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
        self.pass(Request::Txn, self.inner.txn(compares, changes)).await
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, StoreError> {
        self.inner.watch(prefix, from).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.pass(Request::KeepAlive, self.inner.keep_alive(lease)).await
    }

    async fn time_left(&self, lease: LeaseId) -> Result<Option<TimeLeft>, StoreError> {
        self.inner.time_left(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.pass(Request::Revoke, self.inner.revoke(lease)).await
    }

    fn led_anew(&self) -> Option<tokio::time::Instant> {
        self.inner.led_anew()
    }
}
