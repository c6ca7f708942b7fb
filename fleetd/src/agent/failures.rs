//! How instances fail: what their texts say of that, and the last failures of this machine. Those
//! are kept when an instance leaves, so that they can be looked up where it is then.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use fleet_core::converge::{Marker, Seen, SystemdState};
use fleet_core::health::Health;
use fleet_core::model::{Failed, MAX_FAILURES, MAX_FAILURES_A_UNIT};
use fleet_core::name::UnitName;
use fleet_core::unit::on_failure::{Action, Kind, OnFailure};
use futures_util::future::join_all;
use tracing::{debug, info, warn};

use super::Agent;
use super::instance::Instance;
use super::report::UNHEALTHY;
use super::settling::WAITS;
use crate::process::files;
use crate::systemd::{JobOutcome, SystemdError};

/// How many failures one pass asks systemd about. The others wait for their turn, and are not
/// restarted before.
const ASKED_A_PASS: usize = 256;

/// The last failures on this machine, the newest first; also in a file, so that a new fleetd knows
/// them.
#[derive(Debug)]
pub(super) struct Failures {
    path: PathBuf,
    list: Vec<Failed>,
    /// Whether the file lacks something.
    changed: bool,
    /// Whether what has failed when this fleetd began was looked at: an earlier one may have
    /// counted it.
    began: bool,
}

impl Failures {
    /// Reads what an earlier fleetd left. What cannot be read is no loss: it is for people alone.
    pub(super) fn open(path: PathBuf) -> Failures {
        let list = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut list: Vec<Failed> = list.unwrap_or_default();
        list.truncate(MAX_FAILURES);
        Failures { path, list, changed: false, began: false }
    }

    /// All of them, the newest first.
    pub(super) fn list(&self) -> &[Failed] {
        &self.list
    }

    /// Notes one more.
    fn note(&mut self, instance: &UnitName, outcome: &JobOutcome, now_ms: u64) {
        let last = self.list.iter().position(|failed| failed.instance == *instance);
        let same = last.filter(|at| {
            let last = &self.list[*at];
            last.result == outcome.result && last.code == outcome.code
        });
        let new = Failed {
            instance: instance.clone(),
            result: outcome.result.clone(),
            code: outcome.code,
            at_ms: now_ms,
            first_ms: now_ms,
            count: 0,
        };
        let failed = same.map_or(new, |at| self.list.remove(at));
        let count = failed.count.saturating_add(1);
        self.list.insert(0, Failed { at_ms: now_ms, count, ..failed });
        let unit = unit_of(instance);
        let of_unit =
            self.list.iter().enumerate().filter(|(_, one)| unit_of(&one.instance) == unit);
        if let Some((oldest, _)) = of_unit.skip(MAX_FAILURES_A_UNIT).last() {
            self.list.remove(oldest);
        }
        self.list.truncate(MAX_FAILURES);
        self.changed = true;
    }

    /// Whether an earlier fleetd noted that, as the last failure of the instance.
    fn knows(&self, instance: &UnitName, outcome: &JobOutcome) -> bool {
        let last = self.list.iter().find(|failed| failed.instance == *instance);
        last.is_some_and(|last| last.result == outcome.result && last.code == outcome.code)
    }

    fn save(&mut self) {
        if std::mem::take(&mut self.changed)
            && let Err(error) = self.write()
        {
            debug!("cannot keep the last failures: {error}");
        }
    }

    fn write(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.list)?;
        files::write_in_memory(&self.path, &text)
    }
}

/// What an instance's failures are counted with: those of its template's other instances.
fn unit_of(instance: &UnitName) -> String {
    instance.template().unwrap_or_else(|| instance.clone()).to_string()
}

impl Agent {
    /// Finds out how the launched instances failed that have done so since the last pass, and what
    /// follows by their texts. Answers whether there is more to ask soon.
    pub(super) async fn judge_failures(
        &mut self,
        host: &mut BTreeMap<UnitName, Seen>,
        now_ms: u64,
    ) -> bool {
        let mut asked = Vec::new();
        for (name, seen) in host.iter_mut() {
            let Some(state) = &seen.systemd else { continue };
            // What a stop of fleet's own left failed, or what a timer started, is no failure of an
            // instance that is to run.
            let ours = |marker: &Marker| marker.launched && !marker.stopping && !marker.writing;
            let counts = seen.marker.as_ref().is_some_and(ours);
            let instance = self.instances.of(name);
            match state.active.as_str() {
                "failed" if !state.job && instance.outcome.is_none() => {
                    asked.push((name.clone(), counts));
                }
                _ if is_up(state) && seen.failed_part.is_none() => instance.is_tried_again(),
                _ => {}
            }
        }
        let more = asked.len() > ASKED_A_PASS;
        let later = asked.split_off(asked.len().min(ASKED_A_PASS));
        let systemd = &self.systemd;
        let answers = join_all(
            asked.iter().map(|(name, _)| async { systemd.outcome(&name.systemd_name()).await }),
        )
        .await;
        for ((name, counts), outcome) in asked.iter().zip(answers) {
            match outcome {
                Ok(outcome) => {
                    let code = words_of(outcome.code);
                    info!(unit = %name, "{name} failed: {}{code}", outcome.result);
                    if *counts {
                        let known = !self.failures.began && self.failures.knows(name, &outcome);
                        self.take_failure(name, &outcome, now_ms, !known);
                    }
                    let instance = self.instances.of(name);
                    (instance.outcome, instance.reason) = (Some(outcome), None);
                }
                // What is to be done is not known, so it waits where its text has wishes.
                Err(SystemdError::Unavailable(problem)) => {
                    debug!("{problem}");
                    if let Some(seen) = host.get_mut(name) {
                        seen.asking |=
                            seen.marker.as_ref().is_some_and(|m| !m.on_failure.is_empty());
                    }
                }
                Err(error) => debug!("{error}"),
            }
        }
        for (name, _) in later {
            host.get_mut(&name).iter_mut().for_each(|seen| seen.asking = true);
        }
        self.failures.began = true;
        self.failures.save();
        for (name, seen) in host.iter_mut() {
            let instance = self.instances.of(name);
            seen.trouble = instance.trouble.clone();
            let failed = seen.systemd.as_ref().is_some_and(|state| state.active == "failed");
            let unhealthy = seen.health.as_ref().is_some_and(Health::is_unhealthy);
            let left_alone = || {
                let marker = instance.marker().filter(|_| unhealthy)?;
                said_of(&marker.on_failure, UNHEALTHY, None)
            };
            seen.given_up = given_up(instance).filter(|_| failed).or_else(left_alone);
        }
        more
    }

    /// Takes in one failure of an instance, which is not counted as a restart by that; `counts`
    /// unless an earlier fleetd noted it.
    pub(super) fn take_failure(
        &mut self,
        name: &UnitName,
        outcome: &JobOutcome,
        now_ms: u64,
        counts: bool,
    ) {
        let kind = Kind::of(&outcome.result);
        let instance = self.instances.of(name);
        let said = instance
            .marker()
            .and_then(|marker| marker.on_failure.action(&outcome.result, outcome.code));
        let action = said.map(|(action, _)| action);
        if action == Some(Action::GiveUp) {
            let words = said.map(|(_, words)| words.to_string()).unwrap_or_default();
            warn!(unit = %name, "{name} stays failed: {words}");
        }
        instance.trouble.failed(kind, action);
        if counts {
            self.failures.note(name, outcome, now_ms);
            self.failure_counts.count(kind);
        }
    }
}

/// The words of its text by which it stays failed.
fn given_up(instance: &Instance) -> Option<String> {
    let outcome = instance.outcome.as_ref()?;
    said_of(&instance.marker()?.on_failure, &outcome.result, outcome.code)
}

/// The words by which something is left as it is after such a failure.
fn said_of(on_failure: &OnFailure, result: &str, code: Option<i32>) -> Option<String> {
    let (action, words) = on_failure.action(result, code)?;
    (action == Action::GiveUp).then(|| words.to_string())
}

/// Whether somebody has it up again, or is about to.
fn is_up(state: &SystemdState) -> bool {
    matches!(state.active.as_str(), "active" | "activating" | "reloading") && state.sub != WAITS
}

/// `, status 78`
pub(super) fn words_of(code: Option<i32>) -> String {
    code.map_or(String::new(), |code| format!(", status {code}"))
}
