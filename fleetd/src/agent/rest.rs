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
use crate::systemd::{Bonds, Listed, Rest, Systemd, SystemdError};

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
pub(super) const CANCELED: &str = "canceled";

/// What is known of a launched unit that is at rest.
#[derive(Debug, Default)]
pub(super) struct AtRest {
    /// That systemd stopped it, and what its start would do to others.
    stopped: Option<Bonds>,
    /// How often the journal has been asked about it in vain.
    unknown: u32,
    /// That its start was called off, and not by fleet: stopped, whatever was noted.
    canceled: bool,
    /// That it failed by itself, and nobody stopped it.
    failed: bool,
    /// … and what a job has stopped of that which its next start would start, too.
    held_by: Vec<UnitName>,
}

/// What is asked about a unit that is at rest.
#[derive(Debug, Clone, Copy)]
enum Question {
    /// How it came to be so.
    Why,
    /// The same, where it is known that it was stopped.
    Stopped,
    /// What a job has stopped of that which its start would start.
    Needs,
}

/// What is known of it then.
enum Answer {
    Rest(Rest, Option<Bonds>),
    Needs(Vec<UnitName>),
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

impl AtRest {
    /// What the next start of one that failed waits for.
    fn holds(&self) -> Stopped {
        Stopped { needs: self.held_by.clone(), rivals: Vec::new() }
    }
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
        self.values().map(|instance| &instance.rest).flat_map(|rest| {
            let stopped = rest.stopped.iter();
            let stopped = stopped.flat_map(|bonds| bonds.needs.iter().chain(&bonds.rivals));
            stopped.chain(&rest.held_by)
        })
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
                let beside = seen.marker.as_ref().map(|marker| &*marker.beside);
                let culprit = self.failed_beside(beside.unwrap_or_default(), true);
                let culprit = culprit.map_or(String::new(), |name| format!("; {name} failed"));
                self.fail(name, words(&word) + &culprit, now_ms);
                seen.trouble = self.instances.of(name).trouble.clone();
            }
        }
    }

    /// Says of each launched unit that is at rest whether it was stopped, as far as that is known.
    /// Answers whether there is more to ask or to list soon.
    pub(super) async fn explain_rest(
        &mut self,
        host: &mut BTreeMap<UnitName, Seen>,
        now_ms: u64,
    ) -> bool {
        let mut asked = Vec::new();
        for (name, seen) in host.iter_mut() {
            let concerns = self.is_unexplained(name, seen);
            let (resting, rest) = (&self.resting, &mut self.instances.of(name).rest);
            if !concerns {
                *rest = AtRest::default();
                continue;
            }
            rest.held_by.retain(|need| !resting.up.contains(need));
            let question = match &rest.stopped {
                Some(bonds) => {
                    seen.stopped = Some(resting.waits_for(bonds));
                    continue;
                }
                None if rest.failed && !rest.held_by.is_empty() => {
                    seen.stopped = Some(rest.holds());
                    continue;
                }
                None if rest.failed && now_ms < seen.trouble.not_before_ms => continue,
                None if rest.failed => Question::Needs,
                None if rest.canceled => Question::Stopped,
                None => Question::Why,
            };
            seen.asking = true;
            asked.push((name.clone(), question));
        }
        let more = asked.len() > ASKED_A_PASS;
        asked.truncate(ASKED_A_PASS);
        let systemd = &*self.systemd;
        let looks = asked.into_iter().map(|(name, question)| async move {
            let answer = ask(systemd, &name.systemd_name(), question).await;
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
            match answer {
                Ok(answer) => {
                    if let Some(seen) = host.get_mut(&name) {
                        news |= self.take_answer(&name, seen, answer);
                    }
                }
                Err(error) => debug!("{error}"),
            }
        }
        news || more || late
    }

    /// Notes how a unit came to be at rest. Answers whether to look again soon: the next listing
    /// shows the state of what its start needs.
    fn take_answer(&mut self, name: &UnitName, seen: &mut Seen, answer: Answer) -> bool {
        let marker = seen.marker.as_ref();
        let beside = marker.map(|marker| marker.beside.as_slice()).unwrap_or_default();
        let rest = &mut self.instances.of(name).rest;
        let settled = match answer {
            Answer::Rest(Rest::Stopped, Some(mut bonds)) => {
                // What is here for its sake comes with it, whoever stopped that.
                bonds.needs.retain(|need| !beside.contains(need));
                info!(unit = %name, "{name} was stopped, and not by fleet; it is started again");
                rest.stopped = Some(bonds);
                return true;
            }
            Answer::Needs(mut needs) => {
                needs.retain(|need| !beside.contains(need));
                rest.held_by = needs;
                seen.stopped = (!rest.held_by.is_empty()).then(|| rest.holds());
                false
            }
            Answer::Rest(Rest::Unknown, _) => {
                rest.unknown += 1;
                if rest.unknown < ASKED_IN_VAIN && has_failed(seen) {
                    return true; // not to start what somebody has stopped, it waits for the note
                }
                rest.unknown >= ASKED_IN_VAIN
            }
            Answer::Rest(Rest::Ended | Rest::Stopped, _) => true,
        };
        seen.asking = false;
        if !settled {
            return false;
        }
        if !has_failed(seen) {
            self.note_ended(name);
            return false;
        }
        rest.failed = true;
        // What its start would start is asked about when that is due, which may be now.
        seen.asking = true;
        true
    }

    /// Whether it is launched, down, and not known why. A replica is started again in any case; it
    /// is asked about only if its start starts others, or if it counts as done when it is down.
    fn is_unexplained(&mut self, name: &UnitName, seen: &Seen) -> bool {
        let Some(marker) = &seen.marker else { return false };
        // What failed is started again, too, and that may start others.
        let starts_others = marker.bound && has_failed(seen);
        if !is_at_rest(seen) && !starts_others {
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
            // A replica of a one-shot that is down has run to its end, unless it was to stay up.
            let done = marker.has_done_its_work() && (!marker.oneshot || marker.remains);
            let asked = marker.bound || done || !placement.is_replica();
            wanted && placement.fence.is_none() && asked
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

fn has_failed(seen: &Seen) -> bool {
    seen.systemd.as_ref().is_some_and(|state| state.active == "failed" && !state.job)
}

async fn ask(
    systemd: &dyn Systemd,
    name: &UnitName,
    question: Question,
) -> Result<Answer, SystemdError> {
    let rest = match question {
        Question::Why => systemd.rest(name).await?,
        Question::Stopped => Rest::Stopped,
        Question::Needs => {
            let needs = systemd.bonds(name).await?.unwrap_or_default().needs;
            let mut stopped = Vec::new();
            for need in without_unneeded(systemd, needs).await? {
                if systemd.rest(&need).await? == Rest::Stopped {
                    stopped.push(need);
                }
            }
            return Ok(Answer::Needs(stopped));
        }
    };
    let mut bonds = if rest == Rest::Stopped { systemd.bonds(name).await? } else { None };
    if let Some(bonds) = &mut bonds {
        bonds.needs = without_unneeded(systemd, std::mem::take(&mut bonds.needs)).await?;
    }
    Ok(Answer::Rest(rest, bonds))
}

/// Leaves out what systemd stops whenever nobody needs it (`StopWhenUnneeded=`): that was nobody's
/// wish, and it comes back only with a unit that needs it.
async fn without_unneeded(
    systemd: &dyn Systemd,
    needs: Vec<UnitName>,
) -> Result<Vec<UnitName>, SystemdError> {
    let mut kept = Vec::new();
    for need in needs {
        if systemd.bonds(&need).await?.is_some() {
            kept.push(need);
        }
    }
    Ok(kept)
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
