//! Whether what came up stays up. An instance counts as up once it has run for a while without a
//! restart by anybody.
//!
//! No listing shows systemd's own restarts (`Restart=`), and asking for their count costs a call a
//! unit. So the agent asks only where there is cause: at the end of that while, when systemd is
//! seen waiting to restart a unit, and after jobs of others.

use std::collections::BTreeMap;

use fleet_core::converge::{RAN_WELL_MS, SETTLED_MS, Seen};
use fleet_core::name::UnitName;
use futures_util::future::join_all;
use tracing::{debug, info};

use super::failures::words_of;
use super::instance::Instance;
use super::{Agent, YOUNG_MS, YOUNG_PERIOD_MS};
use crate::systemd::{JobOutcome, SystemdError};

/// How many units systemd is asked about in one pass.
const QUESTIONS: usize = 32;

/// About how many of those that it has restarted a pass looks into the journal.
const LOOKS_A_PASS: usize = 3;

/// systemd waits for `RestartSec=`. In `auto-restart-queued` it has begun, and counted, the
/// restart.
pub(super) const WAITS: &str = "auto-restart";

/// The search for restarts by systemd.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// After which unit it goes on.
    after: Option<UnitName>,
}

/// What is known of an instance's present start.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// When fleet asked for it; `None` if somebody else did.
    begun_ms: Option<u64>,
    /// systemd's count of restarts as last known, with the one that it waits for. Unknown where
    /// somebody else started it, or an earlier fleetd.
    restarts: Option<u32>,
    /// Whether it has stayed up.
    settled: bool,
    /// Whether it has to stay up for as long as it takes to forget failures: the leader moved it
    /// because it failed elsewhere.
    proves_itself: bool,
    /// The count of others' jobs when systemd was last asked.
    asked_at: u64,
    /// How its process ended when systemd was last seen waiting to restart it.
    end: Option<JobOutcome>,
    /// How it ended before systemd restarted it unseen, as the journal has it.
    found: Option<JobOutcome>,
}

impl Start {
    /// How long it has to stay up; `settles_ms` is what its text says.
    fn takes_ms(&self, settles_ms: Option<u64>) -> u64 {
        let takes_ms = settles_ms.unwrap_or(SETTLED_MS);
        if self.proves_itself { RAN_WELL_MS.max(takes_ms) } else { takes_ms }
    }

    /// Whether what is up is not known to stay up. What ended well, and is restarted as its unit
    /// file says, never does, and nothing is wrong with it.
    fn is_settling(&self) -> bool {
        !self.settled && self.end.as_ref().is_none_or(|end| end.result != "success")
    }

    /// Why systemd last restarted it, or waits to do so.
    pub(super) fn last_end(&self) -> Option<&JobOutcome> {
        self.found.as_ref().or(self.end.as_ref())
    }
}

impl Instance {
    /// A start or restart was asked for. `fresh` says that it was down, or is restarted by a job:
    /// then systemd counts from nought.
    fn begin_start(&mut self, fresh: bool, moved_for_failing: bool, now_ms: u64) {
        let moved = || Start { proves_itself: moved_for_failing, ..Start::default() };
        let start = self.start.get_or_insert_with(moved);
        let proves_itself = start.proves_itself && !start.settled;
        let (begun_ms, restarts) = (Some(now_ms), fresh.then_some(0));
        *start = Start { begun_ms, restarts, proves_itself, ..Start::default() };
        (self.since, self.adopted) = (None, false);
    }

    fn is_settling(&self) -> bool {
        self.start.as_ref().is_some_and(Start::is_settling)
    }
}

impl Search {
    /// Those that are to be asked about because others had jobs, which may have been restarts: a
    /// few in each pass, in turn.
    fn turn(&mut self, candidates: &[UnitName], most: usize) -> Vec<UnitName> {
        let after =
            self.after.as_ref().map_or(0, |last| candidates.partition_point(|name| name <= last));
        let turn: Vec<UnitName> =
            candidates[after..].iter().chain(&candidates[..after]).take(most).cloned().collect();
        self.after = turn.last().cloned();
        turn
    }
}

impl Agent {
    /// Notes that a start or a restart was asked for.
    pub(super) fn note_start(&mut self, name: &UnitName, restart: bool, now_ms: u64) {
        let placement =
            self.assignment.as_ref().and_then(|assignment| assignment.instances.get(name));
        let moved_for_failing = placement.is_some_and(|placement| placement.moves > 0);
        // A start of what runs changes nothing, and between its own restarts systemd goes on
        // counting.
        let instance = self.instances.of(name);
        let fresh = match instance.since.as_ref().map(|(active, _)| active.as_str()) {
            Some("active") => restart,
            Some("activating") => false,
            _ => true,
        };
        instance.begin_start(fresh, moved_for_failing, now_ms);
        self.forget_health(name);
    }

    /// Finds out which of the launched instances have stayed up, and counts systemd's restarts of
    /// them as trouble.
    pub(super) async fn settle(&mut self, host: &mut BTreeMap<UnitName, Seen>, now_ms: u64) {
        let jobs = self.systemd.jobs_of_others();
        let (mut ended, mut waiting, mut candidates) = (Vec::new(), Vec::new(), Vec::new());
        for (name, seen) in host.iter() {
            let assigned = self
                .assignment
                .as_ref()
                .is_some_and(|assignment| assignment.instances.contains_key(name));
            let launched = assigned && seen.marker.as_ref().is_some_and(|marker| marker.launched);
            let instance = self.instances.of(name);
            let since_ms = instance.since_ms(now_ms);
            let settles_ms = seen.marker.as_ref().and_then(|marker| marker.settles_ms);
            let Some(state) = seen.systemd.as_ref().filter(|_| launched) else {
                if !launched {
                    // It goes, or is only loaded: what systemd does not stop, or its socket starts,
                    // is no new start.
                    instance.start = None;
                } else if let Some(start) = &mut instance.start {
                    start.settled = false;
                }
                continue;
            };
            // What answered well when an earlier fleetd last asked has shown that it stays up.
            let adopted = std::mem::take(&mut instance.adopted);
            let settled = adopted && seen.marker.as_ref().is_some_and(|marker| marker.healthy);
            let start = instance.start.get_or_insert_with(|| Start { settled, ..Start::default() });
            let counts = name.systemd_name().suffix() == "service";
            if state.sub == WAITS && !state.job {
                start.settled = false;
                // Before each wait there was a job of systemd's own: without a new one it is the
                // wait that is known.
                let known = start.end.is_some() && start.asked_at == jobs;
                if !known && now_ms >= instance.trouble.not_before_ms {
                    waiting.push(name.clone());
                }
            } else if state.active != "active" || state.job {
                start.settled = false;
            } else if !start.settled {
                if now_ms < since_ms.saturating_add(start.takes_ms(settles_ms)) {
                    continue;
                }
                start.settled = !counts;
                if counts {
                    ended.push(name.clone());
                }
            } else if counts && start.asked_at != jobs {
                candidates.push(name.clone());
            }
        }
        // What settles has its share, whatever waits.
        waiting.truncate(QUESTIONS / 2);
        ended.truncate(QUESTIONS - waiting.len());
        ended.extend(self.search.turn(&candidates, QUESTIONS - waiting.len() - ended.len()));
        let systemd = &self.systemd;
        let waits = join_all(
            waiting.iter().map(|name| async { systemd.outcome(&name.systemd_name()).await }),
        );
        let counts = join_all(
            ended.iter().map(|name| async { systemd.restarts(&name.systemd_name()).await }),
        );
        let (waits, counts) = tokio::join!(waits, counts);
        for (name, outcome) in waiting.iter().zip(waits) {
            self.waits_for_restart(name, outcome, jobs, now_ms);
        }
        let mut restarted = Vec::new();
        for (name, count) in ended.iter().zip(counts) {
            if self.was_restarted(name, count, jobs, now_ms) {
                restarted.push(name);
            }
        }
        // A restart clears what systemd itself knows of the failure.
        let looks = restarted.iter().take(LOOKS_A_PASS);
        let systemd = &self.systemd;
        let looks =
            join_all(looks.map(|name| async { systemd.last_failure(&name.systemd_name()).await }));
        let failures = looks.await;
        for (name, failure) in restarted.iter().zip(failures) {
            if let Some(failure) = failure {
                self.take_failure(name, &failure, now_ms, true);
                let start = self.instances.of(name).start.as_mut();
                start.into_iter().for_each(|start| start.found = Some(failure.clone()));
            }
        }
        for name in restarted {
            self.instances.of(name).trouble.restarted_by_systemd(now_ms);
        }
        for (name, seen) in host.iter_mut() {
            let up = seen.systemd.as_ref().is_some_and(|state| state.active == "active");
            seen.settling = up && self.instances.get(name).is_some_and(Instance::is_settling);
        }
    }

    /// When the next instance will have stayed up for long enough.
    pub(super) fn settles_at_ms(&self, host: &BTreeMap<UnitName, Seen>) -> Option<u64> {
        let settling = host.iter().filter(|(_, seen)| seen.settling);
        let ends = settling.filter_map(|(name, seen)| {
            let instance = self.instances.get(name)?;
            let settles_ms = seen.marker.as_ref().and_then(|marker| marker.settles_ms);
            Some(instance.since.as_ref()?.1 + instance.start.as_ref()?.takes_ms(settles_ms))
        });
        ends.min()
    }

    /// When to look again because something was started so lately that it may be about to die.
    pub(super) fn young_at_ms(&self, host: &BTreeMap<UnitName, Seen>, now_ms: u64) -> Option<u64> {
        let is_young = |name: &UnitName| {
            let begun_ms = self.instances.get(name)?.start.as_ref()?.begun_ms?;
            (now_ms < begun_ms.saturating_add(YOUNG_MS)).then_some(())
        };
        let settling = host.iter().filter(|(_, seen)| seen.settling);
        let mut young = settling.filter(|(name, _)| is_young(name).is_some());
        young.next().map(|_| now_ms + self.paced(YOUNG_PERIOD_MS))
    }

    /// systemd waits to restart it.
    fn waits_for_restart(
        &mut self,
        name: &UnitName,
        outcome: Result<JobOutcome, SystemdError>,
        jobs: u64,
        now_ms: u64,
    ) {
        let Instance { start: Some(start), trouble, .. } = self.instances.of(name) else { return };
        let pauses = now_ms < trouble.not_before_ms;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return debug!("{error}"),
        };
        let count = outcome.restarts.saturating_add(1); // the one that it waits for
        let new = start.restarts.replace(count) != Some(count);
        let well = outcome.result == "success";
        if new && !well {
            let code = words_of(outcome.code);
            info!(unit = %name, "{name} failed: {}{code}; systemd restarts it", outcome.result);
        }
        (start.end, start.found, start.asked_at) = (Some(outcome.clone()), None, jobs);
        if new && !well && !pauses {
            self.take_failure(name, &outcome, now_ms, true);
            self.instances.of(name).trouble.restarted_by_systemd(now_ms);
        }
    }

    /// It has been up for long enough, unless systemd has restarted it in between. Answers whether
    /// that is so, because it failed, and counts.
    fn was_restarted(
        &mut self,
        name: &UnitName,
        count: Result<u32, SystemdError>,
        jobs: u64,
        now_ms: u64,
    ) -> bool {
        let Instance { start: Some(start), trouble, since, .. } = self.instances.of(name) else {
            return false;
        };
        let count = match count {
            Ok(count) => count,
            Err(SystemdError::Unavailable(problem)) => {
                debug!("{problem}");
                return false;
            }
            Err(error) => {
                debug!("{error}");
                start.restarts.unwrap_or(0) // it does not say, so nothing is known against it
            }
        };
        start.asked_at = jobs;
        let Some(before) = start.restarts.replace(count) else {
            // The first count of a start that this fleetd did not ask for says nothing: it takes a
            // second one.
            *since = Some(("active".to_string(), now_ms));
            return false;
        };
        start.settled = count == before;
        if start.settled {
            return false;
        }
        *since = Some(("active".to_string(), now_ms));
        // What is known to end well is restarted as its unit file says, and nothing is wrong with
        // it.
        let well = start.end.as_ref().is_some_and(|end| end.result == "success");
        let counts = count > before && !well && now_ms >= trouble.not_before_ms;
        if count > before && !well {
            info!(unit = %name, "systemd has restarted {name}, {count} times by now");
        }
        self.forget_health(name);
        counts
    }
}
