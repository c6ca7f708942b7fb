//! What is said of this host, and how often.

use std::collections::BTreeMap;

use fleet_core::converge::{self, Seen};
use fleet_core::health::Health;
use fleet_core::model::{FORMAT, InstanceStatus, Placement, Report};
use fleet_core::name::UnitName;
use tracing::{debug, info, warn};

use super::Agent;
use super::instance::Reason;
use super::settling::Start;
use crate::store::{Registration, StoreError};

/// The failure of what runs and does not answer its health check well, beside systemd's `Result`s.
pub(super) const UNHEALTHY: &str = "unhealthy";

/// For how many failures a pass looks for systemd's own words: each look is a process. Those of a
/// whole template fail alike.
const LOOKS_A_PASS: usize = 3;

/// Two reports go out at once; after that one each half second.
pub(super) const PERIOD_MS: u64 = 500;
const BURST: u64 = 2;

/// … and as many more in advance that tell of something that has died: whoever has just started it
/// waits for that.
const URGENT: u64 = 2;

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

    /// Whether it tells of a failure that was not told of.
    fn is_urgent(&self, report: &Report) -> bool {
        let failed = |status: &InstanceStatus| status.active == "failed";
        let told = |name: &UnitName| {
            let last = self.last.as_ref().and_then(|last| last.instances.get(name));
            last.is_some_and(failed)
        };
        report.instances.iter().any(|(name, status)| failed(status) && !told(name))
    }

    /// A bucket of [`BURST`] reports that fills by one each [`PERIOD_MS`].
    fn may_go(&mut self, now_ms: u64, urgent: bool) -> bool {
        let earliest = now_ms.saturating_sub(PERIOD_MS * (BURST - 1));
        let credit = self.credit_ms.max(earliest);
        let in_advance = if urgent { PERIOD_MS * URGENT } else { 0 };
        if credit > now_ms + in_advance {
            return false;
        }
        self.credit_ms = credit + PERIOD_MS;
        true
    }
}

impl Agent {
    /// What to say of the host. Asks for systemd's own words on each failure once.
    pub(super) async fn report(&mut self, host: &BTreeMap<UnitName, Seen>, now_ms: u64) -> Report {
        let mut instances = BTreeMap::new();
        let mut looks = LOOKS_A_PASS;
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
            let assignment = self.assignment.as_ref();
            let placement = assignment.and_then(|assignment| assignment.instances.get(name));
            status.leaving = assignment.is_some() && placement.is_none();
            status.spare = placement.is_some_and(Placement::is_spare);
            let fenced = placement.and_then(|placement| placement.fence.as_ref());
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
        let failures = self.failures.list().to_vec();
        Report { v: FORMAT, generation, instances, failures, ..Report::default() }
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

    async fn explain(&mut self, name: &UnitName, status: &mut InstanceStatus, looks: &mut usize) {
        let instance = self.instances.of(name);
        let end = instance.start.as_ref().and_then(Start::last_end);
        let end = end.filter(|end| end.result != "success");
        let before = instance.outcome_before.as_ref();
        if let Some(outcome) = instance.outcome.as_ref().or(end).or(before) {
            status.result.clone_from(&outcome.result);
            status.code = outcome.code;
            if *looks > 0 && outcome.has_words() && instance.reason.is_none() {
                *looks -= 1;
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
        let urgent = self.reports.is_urgent(&report);
        if !self.reports.may_go(now_ms, urgent) {
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
