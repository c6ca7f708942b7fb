//! The last snapshots that this machine planned as the leader, for `fleetctl debug snapshot`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use fleet_core::replay::Saved;

/// How many snapshots that led to a commit are kept. They share all documents that did not change in between.
const KEPT: usize = 8;

/// Shared between the engine, which fills it, and the API.
#[derive(Debug, Default)]
pub struct Replays {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last: Option<Arc<Saved>>,
    committed: VecDeque<Arc<Saved>>,
}

impl Replays {
    /// Notes what was planned last.
    pub fn planned(&self, saved: Arc<Saved>) {
        self.lock().last = Some(saved);
    }

    /// Notes that what was planned last was also written.
    pub fn committed(&self, saved: Arc<Saved>) {
        let mut kept = self.lock();
        kept.committed.push_back(saved);
        let surplus = kept.committed.len().saturating_sub(KEPT);
        kept.committed.drain(..surplus);
    }

    /// Forgets everything: another machine leads.
    pub fn clear(&self) {
        *self.lock() = Kept::default();
    }

    /// What was planned last, or the snapshot whose plan has this digest.
    pub fn find(&self, digest: Option<&str>) -> Option<Arc<Saved>> {
        let kept = self.lock();
        match digest {
            None => kept.last.clone(),
            Some(digest) => kept.committed.iter().rev().find(|saved| saved.plan == digest).cloned(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // A panic while holding it cannot leave half a value.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
