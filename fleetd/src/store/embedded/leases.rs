//! The leases' deadlines and keys. In memory only: renewing writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::kv::{LeaseId, TimeLeft};

/// Every lease that has not ended.
#[derive(Default)]
pub(super) struct Leases {
    by_id: BTreeMap<LeaseId, Lease>,
}

struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<String>,
}

impl Leases {
    pub(super) fn grant(&mut self, id: LeaseId, ttl: Duration, now: Instant) {
        self.by_id.insert(id, Lease { ttl, deadline: now + ttl, keys: BTreeSet::new() });
    }

    /// Whether the lease can be attached to.
    pub(super) fn exists(&self, id: LeaseId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Starts the lease's time anew. False if it has run out, even if its keys are still there for
    /// a moment.
    pub(super) fn renew(&mut self, id: LeaseId, now: Instant) -> bool {
        match self.by_id.get_mut(&id) {
            Some(lease) if lease.deadline > now => {
                lease.deadline = now + lease.ttl;
                true
            }
            _ => false,
        }
    }

    pub(super) fn time_left(&self, id: LeaseId, now: Instant) -> Option<TimeLeft> {
        let lease = self.by_id.get(&id).filter(|lease| lease.deadline > now)?;
        let left = Duration::from_secs(lease.deadline.duration_since(now).as_secs() + 1);
        Some(TimeLeft { granted: lease.ttl, left })
    }

    pub(super) fn attach(&mut self, id: LeaseId, key: &str) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(key.to_string());
        }
    }

    pub(super) fn detach(&mut self, id: LeaseId, key: &str) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// Ends the lease; its keys, which are still to be deleted.
    pub(super) fn end(&mut self, id: LeaseId) -> Option<BTreeSet<String>> {
        self.by_id.remove(&id).map(|lease| lease.keys)
    }

    /// Those whose time has run out, by id.
    pub(super) fn expired(&self, now: Instant) -> Vec<LeaseId> {
        self.by_id.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect()
    }

    /// When the next one runs out, unless it is renewed.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_id.values().map(|lease| lease.deadline).min()
    }
}
