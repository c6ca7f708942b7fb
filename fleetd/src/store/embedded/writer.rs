//! The one writer: takes the transactions that wait and the leases that ran out, and commits them
//! together.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redb::{ReadableTable, Table};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::file::{File, KEYS, LEASES, META, REVISION, key_value};
use super::history::History;
use super::leases::Leases;
use super::lock;
use crate::store::kv::{Change, Compare, LeaseId, Outcome, StoreError, WatchBatch, WatchEvent};

/// The most requests that share one fsync; beyond a hundred it no longer dominates.
const GROUP: usize = 128;

/// A change, and who waits for it.
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

pub(super) enum Operation {
    Txn { compares: Vec<Compare>, changes: Vec<Change> },
    Grant { lease: LeaseId, ttl: Duration },
    Revoke { lease: LeaseId },
}

/// Runs until the store is dropped.
pub(super) struct Writer {
    file: Arc<File>,
    leases: Arc<Mutex<Leases>>,
    history: Arc<History>,
    revision: i64,
    wake: watch::Sender<()>,
}

impl Writer {
    pub(super) fn new(
        file: Arc<File>,
        leases: Arc<Mutex<Leases>>,
        history: Arc<History>,
        revision: i64,
        wake: watch::Sender<()>,
    ) -> Self {
        Writer { file, leases, history, revision, wake }
    }

    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            let mut group = Vec::new();
            let deadline = lock(&self.leases).next_deadline();
            tokio::select! {
                received = requests.recv_many(&mut group, GROUP) => if received == 0 { return },
                // A lease renewed meanwhile has a later deadline now; then this turn finds nothing
                // to do.
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
            let now = Instant::now();
            // On a blocking thread for the fsync; also, paused time in tests stands still while one
            // works.
            let Ok((writer, failure)) = tokio::task::spawn_blocking(move || {
                let failure = self.commit(group, now).err();
                (self, failure)
            })
            .await
            else {
                return; // it panicked; whoever waits sees the store closed
            };
            self = writer;
            if let Some(problem) = failure {
                return self.refuse(problem, requests).await;
            }
        }
    }

    /// Commits what has expired and the group, then answers the group. On a failure nobody is told
    /// success, and the failure is returned.
    fn commit(&mut self, group: Vec<Request>, now: Instant) -> Result<(), String> {
        let expired = lock(&self.leases).expired(now);
        if expired.is_empty() && group.is_empty() {
            return Ok(());
        }
        match self.apply(&expired, &group, now) {
            Ok((answers, batches)) => {
                self.revision += batches.len() as i64;
                self.history.push(batches);
                self.wake.send_replace(());
                for (request, answer) in group.into_iter().zip(answers) {
                    // Whoever asked may have stopped waiting.
                    let _ = request.answer.send(answer);
                }
                Ok(())
            }
            Err(error) => {
                let problem = self.file.broken(error);
                let StoreError::Refused(problem) = problem else { return Err(problem.to_string()) };
                for request in group {
                    let _ = request.answer.send(Err(StoreError::Refused(problem.clone())));
                }
                Err(problem)
            }
        }
    }

    fn apply(
        &self,
        expired: &[LeaseId],
        group: &[Request],
        now: Instant,
    ) -> Result<(Vec<Answer>, Vec<WatchBatch>), redb::Error> {
        let mut write = self.file.database.begin_write()?;
        // One fsync more, and damage to the last commit is told from a commit that was cut short:
        // see decision 10.
        write.set_two_phase_commit(true);
        let mut answers = Vec::with_capacity(group.len());
        // A block, since the tables borrow `write`.
        let (revision, batches, changed) = {
            let mut tables = Tables {
                keys: write.open_table(KEYS)?,
                stored_leases: write.open_table(LEASES)?,
                leases: &self.leases,
                revision: self.revision,
                batches: Vec::new(),
                changed: false,
            };
            for lease in expired {
                tables.end_lease(*lease)?;
            }
            for request in group {
                answers.push(tables.apply(&request.operation, now)?);
            }
            (tables.revision, tables.batches, tables.changed)
        };
        if changed {
            write.open_table(META)?.insert(REVISION, revision)?;
            write.commit()?;
        } else {
            write.abort()?; // nothing to wait for the disk for
        }
        Ok((answers, batches))
    }

    /// After a failure: what is in memory may be ahead of the file, so nothing is written any more.
    /// Ends the watches.
    async fn refuse(self, problem: String, mut requests: mpsc::Receiver<Request>) {
        tracing::error!("{problem}");
        drop(self);
        while let Some(request) = requests.recv().await {
            let _ = request.answer.send(Err(StoreError::Refused(problem.clone())));
        }
    }
}

type Answer = Result<Outcome, StoreError>;

/// One commit under way.
struct Tables<'a> {
    keys: Table<'a, &'static str, super::file::Row<'static>>,
    stored_leases: Table<'a, i64, u64>,
    leases: &'a Mutex<Leases>,
    revision: i64,
    batches: Vec<WatchBatch>,
    /// Whether there is anything to commit: also a lease without keys.
    changed: bool,
}

impl Tables<'_> {
    fn apply(&mut self, operation: &Operation, now: Instant) -> Result<Answer, redb::Error> {
        match operation {
            Operation::Txn { compares, changes } => return self.txn(compares, changes),
            Operation::Grant { lease, ttl } => {
                self.stored_leases.insert(lease.0, ttl.as_secs())?;
                self.changed = true;
                lock(self.leases).grant(*lease, *ttl, now);
            }
            Operation::Revoke { lease } => self.end_lease(*lease)?,
        }
        Ok(Ok(Outcome { applied: true, revision: self.revision }))
    }

    fn txn(&mut self, compares: &[Compare], changes: &[Change]) -> Result<Answer, redb::Error> {
        for compare in compares {
            if !self.holds(compare)? {
                return Ok(Ok(Outcome { applied: false, revision: self.revision }));
            }
        }
        let ended = |change: &Change| matches!(change, Change::Put { lease: Some(lease), .. } if !lock(self.leases).exists(*lease));
        if changes.iter().any(ended) {
            return Ok(Err(StoreError::LeaseExpired));
        }
        let revision = self.revision + 1;
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Put { key, value, lease } => {
                    events.push(self.put(key, value, *lease, revision)?)
                }
                Change::Delete { key } => events.extend(self.delete(key)?),
            }
        }
        self.finish(events);
        Ok(Ok(Outcome { applied: true, revision: self.revision }))
    }

    fn holds(&self, compare: &Compare) -> Result<bool, redb::Error> {
        let row = self.keys.get(compare.key())?;
        let row = row.as_ref().map(|row| row.value());
        Ok(match compare {
            Compare::Absent(_) => row.is_none(),
            Compare::ModRevision(_, revision) => row.is_some_and(|row| row.1 == *revision),
            Compare::CreateRevision(_, revision) => row.is_some_and(|row| row.0 == *revision),
        })
    }

    fn put(
        &mut self,
        key: &str,
        value: &[u8],
        lease: Option<LeaseId>,
        revision: i64,
    ) -> Result<WatchEvent, redb::Error> {
        let before = self.keys.get(key)?.map(|row| (row.value().0, row.value().2));
        let create_revision = before.map_or(revision, |(created, _)| created);
        let row = (create_revision, revision, lease.map_or(0, |lease| lease.0), value);
        self.keys.insert(key, row)?;
        let mut leases = lock(self.leases);
        if let Some((_, lease)) = before {
            leases.detach(LeaseId(lease), key);
        }
        if let Some(lease) = lease {
            leases.attach(lease, key);
        }
        Ok(WatchEvent::Put(key_value(key, row)))
    }

    fn delete(&mut self, key: &str) -> Result<Option<WatchEvent>, redb::Error> {
        let Some(lease) = self.keys.remove(key)?.map(|row| row.value().2) else { return Ok(None) };
        lock(self.leases).detach(LeaseId(lease), key);
        Ok(Some(WatchEvent::Delete(key.to_string())))
    }

    fn end_lease(&mut self, lease: LeaseId) -> Result<(), redb::Error> {
        let Some(keys) = lock(self.leases).end(lease) else { return Ok(()) };
        self.stored_leases.remove(lease.0)?;
        self.changed = true;
        let mut events = Vec::with_capacity(keys.len());
        for key in keys {
            events.extend(self.delete(&key)?);
        }
        self.finish(events);
        Ok(())
    }

    /// Raises the revision, if anything changed.
    fn finish(&mut self, events: Vec<WatchEvent>) {
        if !events.is_empty() {
            self.changed = true;
            self.revision += 1;
            self.batches.push(WatchBatch { revision: self.revision, events });
        }
    }
}
