//! The store in one file, for a cluster without etcd: redb for the keys, memory for leases'
//! deadlines and the recent history.

mod file;
mod history;
mod leases;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use self::file::File;
use self::history::History;
use self::leases::Leases;
use self::writer::{Operation, Request, Writer};
use super::kv::{
    Change, Compare, KeyValue, Kv, LeaseId, Outcome, Range, StoreError, TimeLeft, WatchStream,
    check, check_count, check_key,
};
use crate::process::panics;

/// Transactions waiting for the disk; further callers wait for room, within [`ANSWER_TIMEOUT`].
const QUEUE: usize = 1024;

/// The time a call waits for the disk. Far above any fsync, so that only a disk that is gone ends
/// in [`StoreError::Unavailable`].
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The shortest lease, as with etcd.
const MIN_TTL: Duration = Duration::from_secs(2);

/// A store in one file, which one process at a time can hold open.
///
/// - Every applied transaction is on the disk before it is answered. Those that wait together share
///   one fsync.
/// - Watches see the last 10,000 events (or 64 MiB) since the store was opened; before that is
///   [`StoreError::Compacted`].
/// - On opening, every lease starts anew with its whole time: while the store was closed nobody
///   could renew it.
/// - After a disk error the file is taken to be unsound: every later write is
///   [`StoreError::Refused`] until the store is opened again.
///
/// Absent: other machines' access (they ask this fleetd), replication, giving free space back to
/// the file system.
pub struct EmbeddedKv {
    file: Arc<File>,
    leases: Arc<Mutex<Leases>>,
    history: Arc<History>,
    requests: mpsc::Sender<Request>,
    writer: JoinHandle<()>,
}

impl EmbeddedKv {
    /// Opens the file, or creates it (readable by its owner only). [`StoreError::Refused`], naming
    /// the path, if another process has it open, or if it is damaged or something else than a
    /// store.
    pub async fn open(path: impl AsRef<Path>) -> Result<EmbeddedKv, StoreError> {
        let path = path.as_ref().to_path_buf();
        let opening = path.clone();
        // redb panics on some damage that its own checks let through.
        let opened = panics::contained_work(move || File::open(&opening)).await;
        let (file, stored) = opened.unwrap_or_else(|panic| Err(file::damaged(&path, &panic)))?;
        let file = Arc::new(file);
        let now = Instant::now();
        let leases = Arc::new(Mutex::new(Leases::default()));
        for lease in stored.leases {
            lock(&leases).grant(lease.id, lease.ttl, now);
            lease.keys.iter().for_each(|key| lock(&leases).attach(lease.id, key));
        }
        let (wake, woken) = watch::channel(());
        let history = Arc::new(History::new(stored.revision, woken));
        let (requests, queue) = mpsc::channel(QUEUE);
        let writer =
            Writer::new(file.clone(), leases.clone(), history.clone(), stored.revision, wake);
        Ok(EmbeddedKv { file, leases, history, requests, writer: tokio::spawn(writer.run(queue)) })
    }

    /// Forgets the history before `revision`, for tests: watches from earlier end with
    /// [`StoreError::Compacted`].
    pub fn compact(&self, revision: i64) {
        self.history.compact(revision);
    }

    /// Waits for the transactions under way, then closes the file, so that it can be opened again.
    /// Dropping does the same in the background.
    pub async fn close(self) {
        drop(self.requests);
        // A writer that panicked holds the file no longer either.
        let _ = self.writer.await;
    }

    async fn write(&self, operation: Operation) -> Result<Outcome, StoreError> {
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError::Unavailable(format!("{} is closed", self.file.path.display()));
        let written = async {
            self.requests.send(Request { operation, answer }).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        };
        timeout(ANSWER_TIMEOUT, written).await.unwrap_or_else(|_| Err(self.no_answer()))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&File) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        let reading =
            panics::contained_work(move || read(&file).map_err(|error| file.broken(error)));
        match timeout(ANSWER_TIMEOUT, reading).await {
            Ok(done) => done.unwrap_or_else(|panic| Err(file::damaged(&self.file.path, &panic))),
            Err(_) => Err(self.no_answer()),
        }
    }

    fn no_answer(&self) -> StoreError {
        StoreError::Unavailable(format!(
            "the disk of {} did not answer within {ANSWER_TIMEOUT:?}",
            self.file.path.display()
        ))
    }
}

#[async_trait]
impl Kv for EmbeddedKv {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        self.ranges(&[prefix.to_string()]).await
    }

    async fn ranges(&self, prefixes: &[String]) -> Result<Range, StoreError> {
        check_count("prefixes", prefixes.len())?;
        let prefixes = prefixes.to_vec();
        self.read(move |file| file.ranges(&prefixes)).await
    }

    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        let (mut found, revision) = self.get_many(&[key.to_string()]).await?;
        Ok((found.pop().flatten(), revision))
    }

    async fn get_many(&self, keys: &[String]) -> Result<(Vec<Option<KeyValue>>, i64), StoreError> {
        check_count("keys", keys.len())?;
        keys.iter().try_for_each(|key| check_key(key))?;
        let keys = keys.to_vec();
        self.read(move |file| file.get_many(&keys)).await
    }

    async fn txn(&self, compares: &[Compare], changes: &[Change]) -> Result<Outcome, StoreError> {
        check(compares, changes)?;
        self.write(Operation::Txn { compares: compares.to_vec(), changes: changes.to_vec() }).await
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, StoreError> {
        Ok(self.history.watch(prefix, from))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let ttl =
            Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(MIN_TTL);
        // Random, so that no later lease gets the id of one that somebody still believes in;
        // positive and not 0, which means none.
        let lease =
            LeaseId(i64::try_from(Uuid::new_v4().as_u64_pair().0 >> 1).unwrap_or(i64::MAX).max(1));
        self.write(Operation::Grant { lease, ttl }).await?;
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        // Once the writer has failed no lease can end any more, so none may be taken to be held.
        if self.history.is_closed() {
            return Err(StoreError::Unavailable(format!(
                "{} is closed after an error",
                self.file.path.display()
            )));
        }
        Ok(lock(&self.leases).renew(lease, Instant::now()))
    }

    async fn time_left(&self, lease: LeaseId) -> Result<Option<TimeLeft>, StoreError> {
        Ok(lock(&self.leases).time_left(lease, Instant::now()))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.write(Operation::Revoke { lease }).await.map(drop)
    }
}

/// Locks, also after a panic elsewhere: what is behind these locks is whole between any two
/// statements.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
