//! Launched units that are at rest: those whose work is done stay so, those that systemd stopped
//! though fleet had not asked are to start again, and those whose start failed are retried. What
//! follows from it is `converge`'s to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use fleet_core::converge::{Marker, Seen, Stopped};
use fleet_core::model::DesiredState;
use fleet_core::name::UnitName;
use futures_util::stream::{self, StreamExt};
use tokio::time::timeout;
use tracing::{debug, info};

use super::Agent;
use super::instance::Instances;
use crate::systemd::{Bonds, Listed, Rest, SystemdError};

/// How many units one pass asks about, and how many at once: each is a look into the journal.
const ASKED_A_PASS: usize = 16;
const ASKED_AT_ONCE: usize = 4;

/// How long all of a pass's looks may take: what has no answer by then is asked about in the next
/// pass, and nothing else waits for it.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How often the journal is asked about a unit of which it says nothing. What PID 1 notes is there
/// within milliseconds.
const ASKED_IN_VAIN: u32 = 3;

/// systemd's word for a job whose place another took, or that somebody called off.
const CANCELED: &str = "canceled";

/// What is known of a launched unit that is at rest.
#[derive(Debug, Default)]
pub(super) struct AtRest {
    /// That systemd stopped it, and what its start would do to others.
    stopped: Option<Bonds>,
    /// How often the journal has been asked about it in vain.
    unknown: u32,
    /// That its start was called off, and not by fleet: stopped, whatever was noted.
    canceled: bool,
}

/// What systemd last said of this host's units, as far as it tells of those at rest.
#[derive(Debug, Default)]
pub(super) struct Resting {
    /// Starts that ended otherwise than done, by systemd's names, until the next listing.
    pub(super) failed: BTreeMap<UnitName, String>,
    /// The units that were up at the last listing.
    up: BTreeSet<UnitName>,
    /// Those that were not at rest: a one-shot that does its work is no more to be stopped than
    /// what is up.
    busy: BTreeSet<UnitName>,
}

impl Resting {
    pub(super) fn note_listed(&mut self, listed: &BTreeMap<UnitName, Listed>) {
        let is_up =
            |unit: &Listed| ["active", "reloading", "refreshing"].contains(&unit.active.as_str());
        let is_busy =
            |unit: &Listed| unit.job || !["inactive", "failed"].contains(&unit.active.as_str());
        self.up =
            listed.iter().filter(|(_, unit)| is_up(unit)).map(|(name, _)| name.clone()).collect();
        self.busy =
            listed.iter().filter(|(_, unit)| is_busy(unit)).map(|(name, _)| name.clone()).collect();
    }

    /// Of what a stopped unit is bound to or conflicts with, what its start waits for.
    fn waits_for(&self, Bonds { needs, rivals }: &Bonds) -> Stopped {
        let needs = needs.iter().filter(|name| !self.up.contains(*name)).cloned().collect();
        let rivals = rivals.iter().filter(|name| self.busy.contains(*name)).cloned().collect();
        Stopped { needs, rivals }
    }
}

impl Instances {
    /// The units whose states tell whether a unit may start again.
    pub(super) fn bonds(&self) -> impl Iterator<Item = &UnitName> {
        let stopped = self.values().filter_map(|instance| instance.rest.stopped.as_ref());
        stopped.flat_map(|bonds| bonds.needs.iter().chain(&bonds.rivals))
    }
}

impl Agent {
    /// Takes what became of starts: one that left its unit at rest has failed, as systemd's word
    /// for it says, and is tried again after a pause. `host` was listed after they had ended.
    pub(super) fn take_failed_starts(&mut self, host: &mut BTreeMap<UnitName, Seen>, now_ms: u64) {
        if self.resting.failed.is_empty() {
            return;
        }
        let mut failed = std::mem::take(&mut self.resting.failed);
        for (name, seen) in host.iter_mut() {
            let Some(word) = failed.remove(&name.systemd_name()) else { continue };
            // A unit that failed says so itself; what is fenced waits for its keeper.
            let launched = seen
                .marker
                .as_ref()
                .is_some_and(|marker| marker.launched && marker.fence.is_none());
            if !launched || !is_at_rest(seen) {
                continue;
            }
            if word == CANCELED {
                self.instances.of(name).rest.canceled = true;
            } else {
                self.fail(name, words(&word), now_ms);
                seen.trouble = self.instances.of(name).trouble.clone();
            }
        }
    }

    /// Says of each launched unit that is at rest whether it was stopped, as far as that is known.
    /// Answers whether there is more to ask or to list soon.
    pub(super) async fn explain_rest(&mut self, host: &mut BTreeMap<UnitName, Seen>) -> bool {
        let mut asked = Vec::new();
        for (name, seen) in host.iter_mut() {
            let unexplained = self.is_unexplained(name, seen);
            let rest = &mut self.instances.of(name).rest;
            if !unexplained {
                *rest = AtRest::default();
                continue;
            }
            match &rest.stopped {
                Some(bonds) => seen.stopped = Some(self.resting.waits_for(bonds)),
                None => {
                    seen.asking = true;
                    asked.push((name.clone(), rest.canceled));
                }
            }
        }
        let more = asked.len() > ASKED_A_PASS;
        asked.truncate(ASKED_A_PASS);
        let systemd = &self.systemd;
        let looks = asked.into_iter().map(|(name, canceled)| async move {
            let systemd_name = name.systemd_name();
            let answer = async {
                let rest =
                    if canceled { Rest::Stopped } else { systemd.rest(&systemd_name).await? };
                let bonds =
                    if rest == Rest::Stopped { systemd.bonds(&systemd_name).await? } else { None };
                Ok::<(Rest, Option<Bonds>), SystemdError>((rest, bonds))
            };
            let answer = answer.await;
            (name, answer)
        });
        // In order, for the same order in each run of the simulator.
        let mut answers = Vec::new();
        let late = {
            let mut looks = pin!(stream::iter(looks).buffered(ASKED_AT_ONCE));
            let all = async {
                while let Some(answer) = looks.next().await {
                    answers.push(answer);
                }
            };
            timeout(LONGEST_LOOK, all).await.is_err()
        };
        let mut news = false;
        for (name, answer) in answers {
            // Of what a start needs, the next listing shows how it is.
            let settled =
                matches!(answer, Ok((Rest::Ended | Rest::Unknown, _) | (Rest::Stopped, None)));
            if let Some(seen) = host.get_mut(&name).filter(|_| settled) {
                seen.asking = false;
            }
            match answer {
                Ok((Rest::Stopped, Some(bonds))) => {
                    info!(unit = %name, "{name} was stopped, and not by fleet; it is started \
                        again");
                    self.instances.of(&name).rest.stopped = Some(bonds);
                    news = true;
                }
                Ok((Rest::Unknown, _)) => {
                    let rest = &mut self.instances.of(&name).rest;
                    rest.unknown += 1;
                    if rest.unknown >= ASKED_IN_VAIN {
                        self.note_ended(&name);
                    }
                }
                Ok((Rest::Ended | Rest::Stopped, _)) => self.note_ended(&name),
                Err(error) => debug!("{error}"),
            }
        }
        news || more || late
    }

    /// Whether it is launched, down, and not known why. A replica is started again in any case; it
    /// is asked about only if its start starts others.
    fn is_unexplained(&mut self, name: &UnitName, seen: &Seen) -> bool {
        let Some(marker) = &seen.marker else { return false };
        if !is_at_rest(seen) {
            if marker.ended && seen.systemd.as_ref().is_some_and(|state| state.active == "active") {
                let marker = marker.clone();
                self.keep(name, Marker { ended: false, ..marker }); // a timer, or somebody, started it
            }
            return false;
        }
        let settled = !marker.launched
            || marker.writing
            || marker.stopping
            || marker.earlier
            || marker.ended
            || marker.fence.is_some();
        if settled || seen.trouble.message.is_some() {
            return false;
        }
        let placement =
            self.assignment.as_ref().and_then(|assignment| assignment.instances.get(name));
        placement.is_some_and(|placement| {
            let wanted = placement.state == DesiredState::Launched && placement.hash == marker.hash;
            wanted && placement.fence.is_none() && (marker.bound || !placement.is_replica())
        })
    }

    fn note_ended(&mut self, name: &UnitName) {
        if let Some(marker) = self.instances.marker(name).cloned() {
            self.keep(name, Marker { ended: true, ..marker });
        }
    }
}

/// Whether it is down, and nothing is under way.
fn is_at_rest(seen: &Seen) -> bool {
    seen.systemd.as_ref().is_none_or(|state| state.active == "inactive" && !state.job)
}

/// What systemd's word for the end of a start means; the words are systemctl's.
fn words(word: &str) -> String {
    let means = match word {
        "failed" => "the start job failed",
        "dependency" => "a dependency job failed",
        "assert" => "an assertion failed",
        "timeout" => "the start job timed out",
        "unsupported" => "the type of unit is not supported on this system",
        "collected" => "the start job was garbage collected",
        "once" => "the unit was started already once and cannot be started again",
        _ => "the start job was not done",
    };
    format!("systemd did not start it: {means} ({word})")
}
