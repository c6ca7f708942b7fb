//! The byte-level store under fleet: the contract that etcd and the embedded store both keep.
//! Conformance: `tests/tests/store.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

/// A key-value store with one revision counter, transactions, watches and leases: etcd's model.
///
/// - **Revision**: every transaction that changes something raises the counter by one; all its
///   changes carry that revision. An empty store stands at 1.
/// - **Keys** are not empty, and ordered by their bytes.
/// - **Errors say what the caller may do**: see [`StoreError`]. A lost answer is
///   [`StoreError::Unavailable`], and the transaction may still have been applied: guard writes by
///   compares and look again.
/// - **No hidden retries**: a call either answers within the backend's request timeout or fails;
///   the caller's next tick retries. (Inside that time etcd's backend may move on to another
///   endpoint, if the first one surely did nothing.)
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// All keys that start with `prefix` (empty: all keys; for one key see [`Kv::get`]), ordered,
    /// as they stood at one revision, which is returned with them. Linearisable: it sees every
    /// transaction that was answered before it was asked.
    async fn range(&self, prefix: &str) -> Result<Range, StoreError>;

    /// One key, linearisable.
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError>;

    /// All keys that start with one of `prefixes`, prefix by prefix, as they stood at one revision.
    /// No prefix may start with another. At most [`MAX_TXN_OPS`]. As linearisable as [`Kv::range`].
    async fn ranges(&self, prefixes: &[String]) -> Result<Range, StoreError>;

    /// As [`Kv::range`], without the values, which may be large: each is empty.
    async fn keys(&self, prefix: &str) -> Result<Range, StoreError> {
        let mut range = self.range(prefix).await?;
        range.kvs.iter_mut().for_each(|kv| kv.value = Vec::new());
        Ok(range)
    }

    /// Several keys at one revision, in the order asked; absent ones are `None`. At most
    /// [`MAX_TXN_OPS`].
    async fn get_many(&self, keys: &[String]) -> Result<(Vec<Option<KeyValue>>, i64), StoreError>;

    /// Applies `changes` if every compare holds, all or nothing. A key may stand in `changes` once.
    /// An empty list of changes only checks, linearisably. At most [`MAX_TXN_OPS`] compares and as
    /// many changes (more is a bug: [`StoreError::Refused`]); [`StoreError::TooLarge`] over
    /// [`MAX_TXN_BYTES`]. Once the compares hold, a put with a lease that has ended fails the whole
    /// transaction with [`StoreError::LeaseExpired`]. After [`StoreError::Unavailable`], and after
    /// a refusal for want of space, it may have been applied.
    async fn txn(&self, compares: &[Compare], changes: &[Change]) -> Result<Outcome, StoreError>;

    /// Every change under `prefix` (empty: all keys) with a revision of at least `from` (1 or more;
    /// it may lie ahead), in order, without gaps. The stream ends with [`StoreError::Compacted`]
    /// when that history is gone (list again, watch from there), or [`StoreError::Unavailable`]
    /// when the connection broke or was silent for [`etcd`](super::etcd)'s keepalive time; `watch`
    /// itself fails only if the watch cannot be opened. All changes of one revision come in one
    /// batch. A reader that falls behind holds up its own stream, not the store. Dropping the
    /// receiver ends the watch.
    async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, StoreError>;

    /// A new lease. Keys attached to it vanish, all in one revision, when it is not kept alive for
    /// `ttl` (whole seconds, rounded up; etcd grants no less than 2 s, the embedded store neither),
    /// at the latest about a second after.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Renews a lease; `Ok(false)` if it has expired or was never granted.
    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError>;

    /// How long a lease has, unless it is renewed; `None` if it has ended.
    async fn time_left(&self, lease: LeaseId) -> Result<Option<TimeLeft>, StoreError>;

    /// Ends a lease at once, with its keys. `Ok` if it is already gone.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// When this client last heard that another member leads the store than before. At the
    /// election, shortly before, each lease got its whole time again, and etcd's election timeout
    /// on top, whenever it had been renewed. Reads, transactions, grants and renewals tell. `None`
    /// if it has heard of no change, as of a store without members.
    fn led_anew(&self) -> Option<Instant> {
        None
    }
}

/// The most operations in one transaction: etcd's default limit.
pub const MAX_TXN_OPS: usize = 128;

/// The most bytes in one transaction, keys and values together. etcd's default limit for the
/// encoded request is 1.5 MiB (1,572,864); the difference is left for the encoding.
pub const MAX_TXN_BYTES: usize = 1_500_000;

/// A lease's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

/// How long a lease has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft {
    /// The time that each renewal gives it.
    pub granted: Duration,
    /// What is left, at most: in whole seconds, rounded up (etcd rounds down, and a second is
    /// added). After an election it may be more than `granted`.
    pub left: Duration,
}

/// A key with its value and history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key, prefix included.
    pub key: String,
    /// The bytes.
    pub value: Vec<u8>,
    /// The revision that created it (a key that was deleted and put again has a new one).
    pub create_revision: i64,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// The lease that it is attached to.
    pub lease: Option<LeaseId>,
}

/// The answer of [`Kv::range`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    /// The keys, ordered.
    pub kvs: Vec<KeyValue>,
    /// The store's revision that they stood at; watch from the next one.
    pub revision: i64,
}

/// What must hold for a transaction to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(String),
    /// The key exists and was last changed by exactly this revision.
    ModRevision(String, i64),
    /// The key exists and was created by exactly this revision.
    CreateRevision(String, i64),
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a key; attached to the lease, if given, else to none.
    Put {
        /// The whole key.
        key: String,
        /// The bytes.
        value: Vec<u8>,
        /// The lease.
        lease: Option<LeaseId>,
    },
    /// Removes a key; nothing happens if it is absent.
    Delete {
        /// The whole key.
        key: String,
    },
}

impl Compare {
    /// The key it looks at.
    pub fn key(&self) -> &str {
        match self {
            Compare::Absent(key)
            | Compare::ModRevision(key, _)
            | Compare::CreateRevision(key, _) => key,
        }
    }
}

impl Change {
    /// The key it changes.
    pub fn key(&self) -> &str {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the compares held and the changes were applied.
    pub applied: bool,
    /// The store's revision afterwards.
    pub revision: i64,
}

/// The changes of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// The revision.
    pub revision: i64,
    /// What changed, each key once.
    pub events: Vec<WatchEvent>,
}

/// One changed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key was set.
    Put(KeyValue),
    /// The key was removed, or its lease ended.
    Delete(String),
}

/// The stream of [`Kv::watch`]: batches, then one error as its last item.
pub type WatchStream = tokio::sync::mpsc::Receiver<Result<WatchBatch, StoreError>>;

/// What went wrong, by what the caller may do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nobody answered in time. A write may have been applied. Try again later.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// Somebody else wrote in between. Look again.
    #[error("somebody else changed {0} in between")]
    Conflict(String),
    /// The history asked for is gone. List again.
    #[error("the store's history before revision {0} was compacted")]
    Compacted(i64),
    /// The lease has ended. Start over with a new one.
    #[error("the lease has expired")]
    LeaseExpired,
    /// The request or document is over the limit. Do not try again.
    #[error("{what} is {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// What was too large.
        what: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A document cannot be read. Needs a person.
    #[error("the document {key} cannot be read: {problem}")]
    Corrupt {
        /// Its key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The store refused: no space, bad credentials, a bug. Needs a person. The write that first
    /// finds no space may have been applied: etcd raises its alarm after it.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// Refuses a transaction that is over a limit or names a key twice, alike in all backends, before
/// anything is sent. Its size.
pub fn check(compares: &[Compare], changes: &[Change]) -> Result<usize, StoreError> {
    check_count("compares", compares.len())?;
    check_count("changes", changes.len())?;
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    for compare in compares {
        check_key(compare.key())?;
        bytes += compare.key().len();
    }
    for change in changes {
        check_key(change.key())?;
        if !seen.insert(change.key()) {
            return Err(StoreError::Refused(format!(
                "a transaction changes {} twice, which is a bug",
                change.key()
            )));
        }
        bytes += change.key().len();
        if let Change::Put { value, .. } = change {
            bytes += value.len();
        }
    }
    if bytes > MAX_TXN_BYTES {
        let what = match changes {
            [one] => format!("the document {}", one.key()),
            _ => format!("a transaction of {} changes", changes.len()),
        };
        return Err(StoreError::TooLarge { what, bytes, limit: MAX_TXN_BYTES });
    }
    Ok(bytes)
}

/// Refuses more than [`MAX_TXN_OPS`] of something.
pub fn check_count(what: &str, count: usize) -> Result<(), StoreError> {
    if count > MAX_TXN_OPS {
        return Err(StoreError::Refused(format!(
            "{count} {what} in one transaction, at most {MAX_TXN_OPS} are allowed, which is a bug"
        )));
    }
    Ok(())
}

/// Refuses the empty key.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::Refused("a key is empty, which is a bug".into()));
    }
    Ok(())
}
