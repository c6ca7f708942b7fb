//! The leader key.

use fleet_core::model::Leader;

use super::batch::put;
use super::kv::{Change, Compare, WatchStream};
use super::{LeaseId, Store, StoreError};

/// Whether there is a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Nobody leads.
    Vacant,
    /// Somebody leads, until the key goes with its lease.
    Taken,
    /// Somebody wrote the key at this revision without having been elected: it is under no lease,
    /// so it would stay for ever.
    Usurped(i64),
}

/// Proof of having been elected: the fencing token that every write of a leader carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The revision that created the leader key.
    pub create_revision: i64,
    /// The lease that the leader key is under.
    pub lease: LeaseId,
}

impl Store {
    /// Tries to become the leader under `lease`: `None` if somebody leads.
    pub async fn campaign(
        &self,
        leader: &Leader,
        lease: LeaseId,
    ) -> Result<Option<Term>, StoreError> {
        let key = self.keys.leader();
        let outcome = self
            .kv
            .txn(&[Compare::Absent(key.clone())], &[put(&key, leader, Some(lease))?])
            .await?;
        Ok(outcome.applied.then_some(Term { create_revision: outcome.revision, lease }))
    }

    /// Who leads, and the store's revision to watch from.
    pub async fn leader(&self) -> Result<(Option<Leader>, i64), StoreError> {
        let (leader, revision) = self.document(&self.keys.leader()).await?;
        Ok((leader.map(|leader| leader.value), revision))
    }

    /// How the leader's seat is, and the store's revision to watch from.
    pub async fn seat(&self) -> Result<(Seat, i64), StoreError> {
        let (kv, revision) = self.kv.get(&self.keys.leader()).await?;
        let seat = match kv {
            None => Seat::Vacant,
            Some(kv) if kv.lease.is_none() => Seat::Usurped(kv.mod_revision),
            Some(_) => Seat::Taken,
        };
        Ok((seat, revision))
    }

    /// Removes what [`Seat::Usurped`] says. Whoever was elected loses its term with it, and another
    /// election follows. False if the key has changed since.
    pub async fn vacate(&self, revision: i64) -> Result<bool, StoreError> {
        let key = self.keys.leader();
        let seen = Compare::ModRevision(key.clone(), revision);
        Ok(self.kv.txn(&[seen], &[Change::Delete { key }]).await?.applied)
    }

    /// Every change of the leader key after `revision`.
    pub async fn watch_leader(&self, revision: i64) -> Result<WatchStream, StoreError> {
        self.kv.watch(&self.keys.leader(), revision + 1).await
    }
}
