//! What is said of this host, and how often.

use std::collections::BTreeMap;

use fleet_core::converge::{self, Seen};
use fleet_core::health::Health;
use fleet_core::model::{FORMAT, InstanceStatus, Report};
use fleet_core::name::UnitName;
use tracing::{debug, info, warn};

use super::Agent;
use super::instance::Reason;
use super::settling::Start;
use crate::store::{Registration, StoreError};
use crate::systemd::SystemdError;

/// The failure of what runs and does not answer its health check well, beside systemd's `Result`s.
pub(super) const UNHEALTHY: &str = "unhealthy";

/// For how many failures a pass looks for systemd's own words: each look is a process. Those of a
/// whole template fail alike.
const LOOKS_A_PASS: usize = 3;

/// What a pass may still ask about failures.
struct Looks {
    /// How often for systemd's own words.
    words: usize,
    /// Whether systemd does not answer: then nothing more is asked in this pass.
    away: bool,
}

/// Two reports go out at once; after that one each half second.
pub(super) const PERIOD_MS: u64 = 500;
const BURST: u64 = 2;

/// The reports of this machine.
#[derive(Debug, Default)]
pub(super) struct Reports {
    last: Option<Report>,
    /// The revision of the last report in the store, 0 if there is none; unknown while one of ours
    /// may still arrive.
    at: Option<i64>,
    /// Under which registration that was; a new one starts with an empty report.
    registration: Option<Registration>,
    /// The time up to which reports are paid for, see [`Reports::may_go`].
    credit_ms: u64,
}

impl Reports {
    /// What was last said.
    pub(super) fn last(&self) -> Option<&Report> {
        self.last.as_ref()
    }

    /// The machine is registered like this; `None` while it is not.
    pub(super) fn go_under(&mut self, registration: Option<Registration>) {
        if registration != self.registration {
            self.registration = registration;
            (self.last, self.at) = (None, None);
        }
    }

    /// When the next one may go.
    pub(super) fn next_ms(&self) -> u64 {
        self.credit_ms
    }

    /// A bucket of [`BURST`] reports that fills by one each [`PERIOD_MS`].
    fn may_go(&mut self, now_ms: u64) -> bool {
        let earliest = now_ms.saturating_sub(PERIOD_MS * (BURST - 1));
        let credit = self.credit_ms.max(earliest);
        if credit > now_ms {
            return false;
        }
        self.credit_ms = credit + PERIOD_MS;
        true
    }
}

impl Agent {
    /// What to say of the host. Asks systemd for the reason of each failure once.
    pub(super) async fn report(&mut self, host: &BTreeMap<UnitName, Seen>, now_ms: u64) -> Report {
        let mut instances = BTreeMap::new();
        let mut looks = Looks { words: LOOKS_A_PASS, away: false };
        for (name, seen) in host {
            let instance = self.instances.of(name);
            let mut status = converge::status(seen, instance.since_ms(now_ms));
            status.stop_refused = instance.stop_refused && status.message.is_some();
            status.gave_up &= !status.stop_refused; // on no machine would it stop any sooner
            if status.gave_up && instance.marker().is_none() && name.refusal().is_some() {
                status.gave_up = false; // an earlier version took that name; no machine runs it now
            }
            if let Some(word) = instance.reload_failed.as_ref().filter(|_| status.message.is_none())
            {
                let problem = "it may run with values from before";
                status.message = Some(format!("its reload failed ({word}); {problem}"));
                status.config = status.config.saturating_sub(1);
            }
            if status.active == "failed" || seen.trouble.failures > 0 {
                self.explain(name, &mut status, &mut looks).await;
            } else {
                instance.forget_outcome();
            }
            self.explain_health(name, &mut status);
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

    /// Says of what is unhealthy, or was last restarted for that, that this is its failure.
    fn explain_health(&mut self, name: &UnitName, status: &mut InstanceStatus) {
        let now = match &status.health {
            Some(Health::Unhealthy { why, .. }) => Some(why.clone()),
            _ => None,
        };
        let before = || self.instances.get(name)?.unhealthy.clone();
        let before = || before().filter(|_| status.result.is_empty());
        if let Some(why) = now.or_else(before) {
            (status.result, status.code) = (UNHEALTHY.to_string(), None);
            status.reason = Some(format!("health check: {why}"));
        }
    }

    async fn explain(&mut self, name: &UnitName, status: &mut InstanceStatus, looks: &mut Looks) {
        let instance = self.instances.of(name);
        let asks = instance.outcome.is_none() && status.message.is_none() && !looks.away;
        if status.active == "failed" && asks {
            match self.systemd.outcome(&name.systemd_name()).await {
                Ok(outcome) => {
                    let code =
                        outcome.code.map_or(String::new(), |code| format!(", status {code}"));
                    instance.reason = None; // it may have been another one
                    info!(unit = %name, "{name} failed: {}{code}", outcome.result);
                    instance.outcome = Some(outcome);
                }
                Err(error) => {
                    looks.away |= matches!(error, SystemdError::Unavailable(_));
                    debug!("{error}");
                }
            }
        }
        let end = instance.start.as_ref().and_then(Start::last_end);
        let end = end.filter(|end| end.result != "success");
        if let Some(outcome) = instance.outcome.as_ref().or(end) {
            status.result.clone_from(&outcome.result);
            status.code = outcome.code;
            if looks.words > 0 && outcome.has_words() && instance.reason.is_none() {
                looks.words -= 1;
                let reason = self.systemd.reason(&name.systemd_name()).await;
                reason.iter().for_each(|reason| info!(unit = %name, "{name}: {reason}"));
                instance.reason = Some(Reason(reason));
            }
            status.reason = instance.reason.as_ref().and_then(|reason| reason.0.clone());
        }
    }

    /// Publishes a report if it says something new; false if it has to wait its turn.
    pub(super) async fn publish(&mut self, report: Report, now_ms: u64) -> bool {
        if self.reports.last.as_ref() == Some(&report) {
            return true;
        }
        let Some(registration) = self.reports.registration else { return true }; // a new registration wakes the next tick
        if !self.reports.may_go(now_ms) {
            return false;
        }
        match self.put_report(&report, registration).await {
            Ok(()) => self.reports.last = Some(report),
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
        let over = match self.reports.at.take() {
            Some(last) => last,
            None => self.store.report_revision(&self.machine).await?,
        };
        self.reports.at =
            Some(self.store.put_report(&self.machine, report, registration, over).await?);
        Ok(())
    }
}
