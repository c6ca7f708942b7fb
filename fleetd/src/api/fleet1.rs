//! What fleet 1.0's own client needs besides its API. Its `restart` sets `loaded`, waits until the
//! unit's current state is `launched`, and sets `launched`: fleet 1.0 was so slow that its first
//! look still saw the state before. So for a second that client sees the old state, and when it
//! then sets `launched`, the unit is restarted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use fleet_core::name::UnitName;
use fleet_core::wire;
use tokio::time::Instant;

/// How long the old state is told. That client looks at once, and then twice a second.
const OLD_STATE: Duration = Duration::from_secs(1);

/// The word in the user agent of clients that were made by Google's generator, as fleet 1.0's was.
const USER_AGENT: &str = "google-api-go-client";

/// Whether fleet 1.0's client asks.
pub(super) fn is_asking(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.contains(USER_AGENT))
}

/// Launched units that fleet 1.0's client has just set to `loaded`.
#[derive(Default)]
pub(super) struct Restarts {
    since: Mutex<HashMap<UnitName, Instant>>,
}

impl Restarts {
    fn recent(&self) -> MutexGuard<'_, HashMap<UnitName, Instant>> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|_, since| since.elapsed() < OLD_STATE);
        since
    }

    /// This launched unit was set to `loaded`.
    pub(super) fn begin(&self, name: &UnitName) {
        self.recent().insert(name.clone(), Instant::now());
    }

    /// Whether it was set to `loaded` just now. It is forgotten then.
    pub(super) fn end(&self, name: &UnitName) -> bool {
        self.recent().remove(name).is_some()
    }

    /// What is told of a unit.
    pub(super) fn told(&self, mut unit: wire::Unit) -> wire::Unit {
        if self.recent().contains_key(unit.name.as_str()) {
            unit.current_state = "launched".to_string();
        }
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_old_state_is_told_for_a_second() {
        let (restarts, name) = (Restarts::default(), UnitName::trusted("a.service"));
        let unit = wire::Unit {
            name: "a.service".into(),
            current_state: "loaded".into(),
            ..wire::Unit::default()
        };
        assert_eq!(restarts.told(unit.clone()).current_state, "loaded");
        restarts.begin(&name);
        assert_eq!(restarts.told(unit.clone()).current_state, "launched");
        tokio::time::advance(OLD_STATE).await;
        assert_eq!(restarts.told(unit).current_state, "loaded");
        assert!(!restarts.end(&name));
        restarts.begin(&name);
        assert!(restarts.end(&name) && !restarts.end(&name));
    }
}
