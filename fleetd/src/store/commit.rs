//! Writing a plan: few transactions, each only if the term still leads, each with the event that
//! tells of it.

use std::iter::Peekable;
use std::vec;

use fleet_core::event::Event;
use fleet_core::model::{Assignment, MAX_DOCUMENT_BYTES};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::outlook::Outlook;
use fleet_core::plan::Plan;
use fleet_core::rollout::Rollout;

#[cfg(doc)]
use super::ACTS_A_COMMIT;
use super::batch::{Batch, encode, put, unchanged};
use super::kv::{Change, Compare};
use super::{Mirror, Store, StoreError, Term};

/// The transactions of a plan, one after the other.
pub struct Commit<'a> {
    store: &'a Store,
    term: Term,
    mirror: &'a Mirror,
    plan: &'a Plan,
    rest: Peekable<vec::IntoIter<(&'a MachineId, &'a Assignment)>>,
    /// The last write that placed anything fenced.
    fenced_commit: Option<i64>,
}

/// One transaction.
pub struct CommitBatch<'a> {
    /// Whose documents it holds.
    pub machines: Vec<&'a MachineId>,
    batch: Batch,
}

impl Store {
    /// The transactions that write the documents of a plan: as few as the limits allow, each
    /// applied only if the term still leads and each document still is as in `mirror`. On a
    /// conflict those before it are written; look again.
    ///
    /// Guarded documents go first: what they take off lost machines may be in the others. A write
    /// that places anything fenced also compares the last such write, so that one whose answer was
    /// lost cannot arrive behind it.
    pub fn begin_commit<'a>(
        &'a self,
        term: Term,
        mirror: &'a Mirror,
        plan: &'a Plan,
    ) -> Commit<'a> {
        let (guarded, plain): (Vec<_>, Vec<_>) =
            plan.documents.iter().partition(|(id, _)| plan.guards.contains_key(*id));
        let rest = [guarded, plain].concat().into_iter().peekable();
        Commit { store: self, term, mirror, plan, rest, fenced_commit: mirror.fenced_commit() }
    }

    /// Writes an event, what the leader's last plan says, or both, if the term still leads; and
    /// forgets the acts that the event tells of.
    pub async fn tell(
        &self,
        term: Term,
        event: Option<&Event>,
        outlook: Option<&Outlook>,
        acts: &[String],
    ) -> Result<i64, StoreError> {
        let fence = Compare::CreateRevision(self.keys.leader(), term.create_revision);
        self.apply(&[fence], &self.told(event, outlook, acts)?, "the leader key").await
    }

    /// Writes as many of the rollouts as one transaction holds, with the event that tells of them,
    /// if the term still leads; and answers with how many those are.
    pub async fn put_rollouts(
        &self,
        term: Term,
        rollouts: &[(&UnitName, &Option<Rollout>)],
        event: Option<&Event>,
    ) -> Result<(usize, i64), StoreError> {
        let fence = Compare::CreateRevision(self.keys.leader(), term.create_revision);
        let mut batch = Batch::new(&fence);
        for (unit, rollout) in rollouts {
            let key = self.keys.rollout(unit);
            let change = match rollout {
                Some(rollout) => {
                    let value = encode(&key, rollout, MAX_DOCUMENT_BYTES)?;
                    if batch.is_full(value.len()) {
                        break;
                    }
                    batch.bytes += value.len();
                    Change::Put { key, value, lease: None }
                }
                None if batch.is_full(0) => break,
                None => Change::Delete { key },
            };
            batch.changes.push(change);
        }
        let written = batch.changes.len();
        batch.changes.extend(self.told(event, None, &[])?);
        let revision = self.apply(&batch.compares, &batch.changes, "the leader key").await?;
        Ok((written, revision))
    }

    fn told(
        &self,
        event: Option<&Event>,
        outlook: Option<&Outlook>,
        acts: &[String],
    ) -> Result<Vec<Change>, StoreError> {
        let event = event.map(|event| put(&self.keys.event(&event.id), event, None));
        let outlook = outlook.map(|outlook| put(&self.keys.outlook(), outlook, None));
        let acts = acts.iter().map(|id| Ok(Change::Delete { key: self.keys.act(id) }));
        event.into_iter().chain(outlook).chain(acts).collect()
    }

    /// Writes the documents of a plan and what it says, without an event. Answers with the last
    /// document's revision.
    pub async fn commit(
        &self,
        term: Term,
        mirror: &Mirror,
        plan: &Plan,
    ) -> Result<Option<i64>, StoreError> {
        let mut commit = self.begin_commit(term, mirror, plan);
        let mut last = None;
        while let Some(batch) = commit.next_batch()? {
            last = Some(commit.write(batch, None, None, &[]).await?);
        }
        let planned = mirror.cluster().snapshot.revision;
        let outlook = Outlook::of(plan, term.create_revision, planned, false, None);
        let there = mirror.cluster().outlook.as_ref();
        if !there
            .is_some_and(|there| there.says_the_same(&outlook) && there.planned >= mirror.asked())
        {
            self.tell(term, None, Some(&outlook), &[]).await?;
        }
        Ok(last)
    }
}

impl<'a> Commit<'a> {
    /// The next transaction, if any document is left; the one before it must have been written.
    /// [`StoreError::TooLarge`] for a document over its limit.
    pub fn next_batch(&mut self) -> Result<Option<CommitBatch<'a>>, StoreError> {
        let keys = &self.store.keys;
        let mut batch =
            Batch::new(&Compare::CreateRevision(keys.leader(), self.term.create_revision));
        let mut machines = Vec::new();
        while let Some((machine, document)) = self.rest.peek().copied() {
            let key = keys.assignment(machine);
            let value = encode(&key, document, MAX_DOCUMENT_BYTES)?;
            if batch.is_full(value.len()) {
                break;
            }
            batch.bytes += value.len();
            batch.compares.push(unchanged(&key, self.mirror.assignment_revision(machine)));
            batch.changes.push(Change::Put { key, value, lease: None });
            if let Some(life) = self.plan.guards.get(machine) {
                batch.compares.push(Compare::Absent(keys.keeper(machine)));
                batch
                    .compares
                    .push(unchanged(&keys.fence(machine), Some(*life).filter(|life| *life > 0)));
            }
            if self.plan.fenced.contains(machine) && !batch.fenced {
                let key = keys.fenced_commits();
                batch.compares.push(unchanged(&key, self.fenced_commit));
                batch.changes.push(Change::Put { key, value: b"{\"v\":1}".to_vec(), lease: None });
                batch.fenced = true;
            }
            machines.push(machine);
            self.rest.next();
        }
        Ok((!machines.is_empty()).then_some(CommitBatch { machines, batch }))
    }

    /// Whether no transaction is left after the one that was asked for last.
    pub fn is_last(&mut self) -> bool {
        self.rest.peek().is_none()
    }

    /// Applies it, with an event and with what the plan says, if there are, and forgets the acts
    /// that the event tells of, at most [`ACTS_A_COMMIT`]. Answers with the revision.
    pub async fn write(
        &mut self,
        batch: CommitBatch<'_>,
        event: Option<&Event>,
        outlook: Option<&Outlook>,
        acts: &[String],
    ) -> Result<i64, StoreError> {
        let mut batch = batch.batch;
        batch.changes.extend(self.store.told(event, outlook, acts)?);
        let revision = self
            .store
            .apply(&batch.compares, &batch.changes, "the leader key or an assignment")
            .await?;
        if batch.fenced {
            self.fenced_commit = Some(revision);
        }
        Ok(revision)
    }
}
