//! Since when the store has been reachable without a break: what decides whether an absent machine is lost or gets time to return.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock;

/// Shared between the session, which keeps the machine's lease and so notices every outage that matters, and the engine.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when it is reachable, in milliseconds since 1970; `None` while it is not.
    since_ms: Option<u64>,
    /// While it is not: since when, and since when it had been reachable until then.
    broken: Option<(u64, u64)>,
}

impl Health {
    /// The store answered. A break shorter than `short` was none: it cost no machine its lease.
    pub fn reachable(&self, short: Duration) {
        let (mut state, now_ms) = (self.lock(), clock::now_ms());
        if state.since_ms.is_none() {
            let before = state.broken.take().filter(|(at_ms, _)| now_ms < at_ms.saturating_add(short.as_millis() as u64));
            state.since_ms = Some(before.map_or(now_ms, |(_, since_ms)| since_ms));
        }
    }

    /// The store did not answer.
    pub fn unreachable(&self) {
        let mut state = self.lock();
        if let Some(since_ms) = state.since_ms.take() {
            state.broken = Some((clock::now_ms(), since_ms));
        }
    }

    /// When absent machines may be called lost, in milliseconds since 1970: once the store has been reachable for `settle`.
    /// `None` while it is not reachable.
    pub fn settled_at_ms(&self, settle: Duration) -> Option<u64> {
        self.lock().since_ms.map(|since| since + settle.as_millis() as u64)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic while holding it cannot leave half a value.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_break_starts_no_time_to_settle_and_a_longer_one_does() {
        let (health, settled) = (Health::default(), |health: &Health| health.settled_at_ms(Duration::ZERO));
        health.reachable(Duration::MAX);
        health.lock().since_ms = Some(1_000);
        health.unreachable();
        assert_eq!(settled(&health), None);
        health.unreachable();
        health.reachable(Duration::from_secs(60));
        assert_eq!(settled(&health), Some(1_000));
        health.unreachable();
        health.reachable(Duration::ZERO);
        assert!(settled(&health) > Some(1_000));
    }
}
