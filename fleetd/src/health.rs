//! Since when the store has been reachable without a break: what decides whether an absent machine is lost or gets time to return.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock;

/// Shared between the session, which keeps the machine's lease and so notices every outage that matters, and the engine.
#[derive(Debug, Default)]
pub struct Health {
    since_ms: Mutex<Option<u64>>,
}

impl Health {
    /// The store answered.
    pub fn reachable(&self) {
        let mut since = self.lock();
        if since.is_none() {
            *since = Some(clock::now_ms());
        }
    }

    /// The store did not answer.
    pub fn unreachable(&self) {
        *self.lock() = None;
    }

    /// When absent machines may be called lost, in milliseconds since 1970: once the store has been reachable for `settle`.
    /// `None` while it is not reachable.
    pub fn settled_at_ms(&self, settle: Duration) -> Option<u64> {
        self.lock().map(|since| since + settle.as_millis() as u64)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        // A panic while holding it cannot leave half a value.
        self.since_ms.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
