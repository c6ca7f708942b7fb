//! What is said of this host, and how often.

use std::collections::BTreeMap;

use fleet_core::converge::{self, Seen};
use fleet_core::model::{FORMAT, InstanceStatus, Report};
use fleet_core::name::UnitName;
use tracing::{debug, info, warn};

use super::{Agent, REPORT_BURST, REPORT_PERIOD_MS};
use crate::store::{Registration, StoreError};

/// For how many failures a pass looks for systemd's own words: each look is a process. Those of a
/// whole template fail alike.
const LOOKS_A_PASS: usize = 3;

impl Agent {
    /// What to say of the host. Asks systemd for the reason of each failure once.
    pub(super) async fn report(&mut self, host: &BTreeMap<UnitName, Seen>, now_ms: u64) -> Report {
        let mut instances = BTreeMap::new();
        let mut looks = LOOKS_A_PASS;
        for (name, seen) in host {
            let since_ms = self.since.get(name).map_or(now_ms, |(_, since_ms)| *since_ms);
            let mut status = converge::status(seen, since_ms);
            status.stop_refused = self.stop_refused.contains(name) && status.message.is_some();
            status.gave_up &= !status.stop_refused; // on no machine would it stop any sooner
            if status.active == "failed" || seen.trouble.failures > 0 {
                self.explain(name, &mut status, &mut looks).await;
            } else {
                self.outcomes.remove(name);
                self.reasons.remove(name);
            }
            status.leaving = self
                .assignment
                .as_ref()
                .is_some_and(|assignment| !assignment.instances.contains_key(name));
            let fenced = self
                .assignment
                .as_ref()
                .and_then(|assignment| assignment.instances.get(name)?.fence.as_ref());
            if fenced.is_some()
                && status.message.is_none()
                && ["inactive", "failed"].contains(&status.active.as_str())
                && let Some((message, too_long)) = self.waits_for_keeper(now_ms)
            {
                (status.message, status.gave_up) = (Some(message), status.gave_up || too_long);
                (status.active, status.sub) = ("activating".to_string(), "keeper".to_string());
            }
            instances.insert(name.clone(), status);
        }
        let generation = self.assignment.as_ref().map_or(0, |assignment| assignment.generation);
        Report { v: FORMAT, generation, instances, ..Report::default() }
    }

    async fn explain(&mut self, name: &UnitName, status: &mut InstanceStatus, looks: &mut usize) {
        if status.active == "failed"
            && !self.outcomes.contains_key(name)
            && status.message.is_none()
        {
            match self.systemd.outcome(&name.systemd_name()).await {
                Ok(outcome) => {
                    let code =
                        outcome.code.map_or(String::new(), |code| format!(", status {code}"));
                    self.reasons.remove(name); // it may have been another one
                    info!(unit = %name, "{name} failed: {}{code}", outcome.result);
                    self.outcomes.insert(name.clone(), outcome);
                }
                Err(error) => debug!("{error}"),
            }
        }
        let end = self.settling.last_end(name).filter(|end| end.result != "success");
        if let Some(outcome) = self.outcomes.get(name).or(end) {
            status.result.clone_from(&outcome.result);
            status.code = outcome.code;
            if *looks > 0 && outcome.has_words() && !self.reasons.contains_key(name) {
                *looks -= 1;
                let reason = self.systemd.reason(&name.systemd_name()).await;
                reason.iter().for_each(|reason| info!(unit = %name, "{name}: {reason}"));
                self.reasons.insert(name.clone(), reason);
            }
            status.reason = self.reasons.get(name).cloned().flatten();
        }
    }

    /// Publishes a report if it says something new; false if it has to wait its turn.
    pub(super) async fn publish(&mut self, report: Report, now_ms: u64) -> bool {
        if self.reported.as_ref() == Some(&report) {
            return true;
        }
        let Some(registration) = self.registration else { return true }; // a new registration wakes the next tick
        if !self.may_report(now_ms) {
            return false;
        }
        match self.put_report(&report, registration).await {
            Ok(()) => self.reported = Some(report),
            // Somebody else's write of it can only be an earlier one of ours, which arrived late.
            Err(problem @ (StoreError::Unavailable(_) | StoreError::Conflict(_))) => {
                debug!("the report waits: {problem}")
            }
            Err(error) => warn!("the report was not taken: {error}"),
        }
        true
    }

    async fn put_report(
        &mut self,
        report: &Report,
        registration: Registration,
    ) -> Result<(), StoreError> {
        let over = match self.reported_at.take() {
            Some(last) => last,
            None => self.store.report_revision(&self.machine).await?,
        };
        self.reported_at =
            Some(self.store.put_report(&self.machine, report, registration, over).await?);
        Ok(())
    }

    /// A bucket of [`REPORT_BURST`] reports that fills by one each [`REPORT_PERIOD_MS`].
    fn may_report(&mut self, now_ms: u64) -> bool {
        let earliest = now_ms.saturating_sub(REPORT_PERIOD_MS * (REPORT_BURST - 1));
        let credit = self.report_credit_ms.max(earliest);
        if credit > now_ms {
            return false;
        }
        self.report_credit_ms = credit + REPORT_PERIOD_MS;
        true
    }
}
