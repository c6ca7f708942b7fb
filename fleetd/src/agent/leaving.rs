//! A machine that leaves stops everything that fleet runs on it, and takes fleet's files away.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::converge::Trouble;
use fleet_core::model::Assignment;
use fleet_core::name::UnitName;
use tokio::time::timeout;
use tracing::warn;

use super::{Agent, BUSY_PERIOD_MS};
use crate::process::clock;

/// How long leaving waits for units to stop. Below fleetd's own TimeoutStopSec (90 s).
const LEAVE_TIMEOUT: Duration = Duration::from_secs(75);

impl Agent {
    /// Stops and removes everything that fleet runs here; for a machine that leaves. Gives up after
    /// a while and says so.
    pub async fn stop_everything(&mut self) {
        let deadline = clock::now_ms() + LEAVE_TIMEOUT.as_millis() as u64;
        self.assignment = Some(Arc::new(Assignment::default()));
        let mut jobs = self.systemd.changes();
        for instance in self.instances.values_mut() {
            (instance.trouble, instance.stop_refused) = (Trouble::default(), false);
        }
        self.reports.go_under(None);
        loop {
            let now_ms = clock::now_ms();
            let left: Vec<UnitName> = self.instances.written().cloned().collect();
            let alone = left.is_empty() && self.unneeded().is_empty();
            if alone {
                self.end_keeper().await;
                self.let_jobs_end(deadline).await;
                return self.forget_links().await;
            }
            if now_ms > deadline {
                let first = left.first().map_or("a network or volume", UnitName::as_str);
                return warn!("{} units did not stop in time: {first}", left.len());
            }
            let refused = |name| self.instances.get(name).is_some_and(|known| known.stop_refused);
            if !left.is_empty() && left.iter().all(refused) {
                let why =
                    self.instances.get(&left[0]).and_then(|known| known.trouble.message.clone());
                let why = why.unwrap_or_default();
                let units = if left.len() == 1 {
                    "1 unit runs".to_string()
                } else {
                    format!("{} units run", left.len())
                };
                warn!("{units} on here: {why}");
                if !left.iter().any(|name| {
                    self.instances.marker(name).is_some_and(|marker| marker.fence.is_some())
                }) {
                    self.end_keeper().await;
                }
                return self.let_jobs_end(deadline).await;
            }
            if let Err(error) = self.pass(now_ms).await {
                warn!("{error}");
            }
            let _ = timeout(Duration::from_millis(BUSY_PERIOD_MS), jobs.changed()).await;
        }
    }

    async fn let_jobs_end(&mut self, deadline_ms: u64) {
        let mut jobs = self.systemd.changes();
        while self.systemd.jobs_in_flight() > 0 && clock::now_ms() < deadline_ms {
            let _ = timeout(Duration::from_millis(BUSY_PERIOD_MS), jobs.changed()).await;
        }
    }
}
