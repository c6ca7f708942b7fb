//! `converge`: what one machine should run and what its systemd says in, the steps that close the
//! gap out.
//!
//! It may be asked twice, or after a crash: it looks at what is, never at what it did. What it must
//! remember of an instance ([`Marker`]) lies in a file beside systemd's state, so a restarted
//! fleetd adopts what runs.

use std::collections::BTreeMap;

use crate::configuration::ConfigChanged;
use crate::model::{Assignment, DesiredState, Placement};
use crate::name::UnitName;
use crate::unit::file::ShortHash;
use seen::{Phase, hanging, phase, running_by_us};

mod seen;
mod status;
mod trouble;

pub use seen::{Configured, FencedBy, ImageState, Marker, Seen, Stopped, SystemdState};
pub use status::status;
pub use trouble::{FIRST_PAUSE_MS, LONGEST_PAUSE_MS, RAN_WELL_MS, RESTART_LIMIT, Trouble};

/// How long what came up must stay up, without a restart by anybody, before it counts as up, in
/// milliseconds. systemd calls a `Type=simple` service active as soon as it has a process, also one
/// that dies at once. What the leader moved because it failed must stay up for [`RAN_WELL_MS`].
pub const SETTLED_MS: u64 = 2_000;

/// systemd's word for a unit that it is about to start again (`Restart=`).
const AUTO_RESTART: &str = "auto-restart";

/// One operation on this host, in fleet's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask systemd to stop it.
    Stop(UnitName),
    /// Take its files away; it is stopped.
    Remove(UnitName),
    /// Write its files, from the text of `unit` at `revision`.
    Write {
        /// The instance.
        instance: UnitName,
        /// The record that its text comes from.
        unit: UnitName,
        /// The number of the text.
        revision: u64,
        /// The text's short hash.
        hash: ShortHash,
        /// What it is to be started under, if it is fenced.
        fence: Option<FencedBy>,
    },
    /// Have systemd read changed files: once, however many changed.
    Reload,
    /// Start it, clearing an earlier failure first.
    Start {
        /// The instance.
        instance: UnitName,
        /// The restarts asked for, which a start fulfils.
        restart: u64,
        /// Whether it was running before and ended: counts towards its limit.
        again: bool,
    },
    /// Restart it: its text changed, or the user asked.
    Restart {
        /// The instance.
        instance: UnitName,
        /// The restarts asked for, which this fulfils.
        restart: u64,
    },
    /// Restart it because it is unhealthy: counts towards its limit.
    Revive {
        /// The instance.
        instance: UnitName,
        /// The restarts asked for, which this fulfils.
        restart: u64,
    },
    /// Have systemd pull the image that it is to run. It is started or restarted after that.
    Pull(UnitName),
    /// Write the values of its configuration, which changed.
    Configure {
        /// The instance.
        instance: UnitName,
        /// Whether it runs, and is to read them: by the unit's own reload.
        reload: bool,
    },
}

/// The answer of [`converge`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Converged {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// When to look again even if nothing happens, in milliseconds since 1970.
    pub wake_at_ms: Option<u64>,
}

/// Decides for this host. Without an assignment there is no opinion, and nothing is touched: a
/// store that lost its data, or a machine that was never assigned anything, stops nothing.
///
/// `keeper` is the life of this host's keeper, if the assignment is known to be no older than it:
/// only then may it start what is fenced. Else the leader may have given up on this machine since,
/// and the unit run elsewhere.
pub fn converge(
    assignment: Option<&Assignment>,
    host: &BTreeMap<UnitName, Seen>,
    keeper: Option<i64>,
    now_ms: u64,
) -> Converged {
    let Some(assignment) = assignment else { return Converged::default() };
    let mut out = Sorted { keeper, returning: returning(assignment, host), ..Sorted::default() };
    for (instance, seen) in host {
        if !assignment.instances.contains_key(instance) {
            out.retire(instance, seen, now_ms);
        }
    }
    let nobody = Seen::default();
    for (instance, placement) in &assignment.instances {
        out.keep(instance, placement, host.get(instance).unwrap_or(&nobody), now_ms);
    }
    out.into_converged()
}

/// Whether the instance's image must be there before it is touched: it is about to be started or
/// restarted, with this text, because of a decision. What failed is started again as it is.
pub fn wants_image(placement: &Placement, seen: &Seen) -> bool {
    placement.state == DesiredState::Launched
        && seen.marker.as_ref().is_none_or(|marker| {
            marker.hash != placement.hash
                || marker.writing
                || !marker.launched
                || (placement.restart != 0 && marker.restart != placement.restart)
        })
}

/// Steps by kind, so that one reload stands between all writes and all starts.
#[derive(Default)]
struct Sorted {
    keeper: Option<i64>,
    returning: BTreeMap<UnitName, u64>,
    stops: Vec<Step>,
    removes: Vec<Step>,
    writes: Vec<Step>,
    reload: bool,
    starts: Vec<Step>,
    pulls: Vec<Step>,
    wake_at_ms: Option<u64>,
}

impl Sorted {
    fn retire(&mut self, instance: &UnitName, seen: &Seen, now_ms: u64) {
        if seen.marker.is_none() || self.held_back(seen, now_ms) {
            return;
        }
        match phase(seen) {
            Phase::Moving if hanging(seen) => self.stops.push(Step::Stop(instance.clone())),
            Phase::Moving => {}
            Phase::Up | Phase::Activating => self.stops.push(Step::Stop(instance.clone())),
            Phase::Down | Phase::Failed => self.removes.push(Step::Remove(instance.clone())),
        }
    }

    fn keep(&mut self, instance: &UnitName, placement: &Placement, seen: &Seen, now_ms: u64) {
        let phase = phase(seen);
        let fence = match (&placement.fence, self.keeper) {
            (None, _) => None,
            (Some(fence), Some(life)) => Some(FencedBy { token: fence.token, life }),
            (Some(_), None) => {
                if placement.state != DesiredState::Launched
                    && running_by_us(seen)
                    && !self.held_back(seen, now_ms)
                {
                    self.stops.push(Step::Stop(instance.clone()));
                }
                return; // what runs is bound to the guard, and that is enough
            }
        };
        // systemd knows nothing of a unit whose start was refused: its file may be gone, so it is
        // written again.
        let lost =
            seen.systemd.is_none() && seen.trouble.message.is_some() && !seen.trouble.awaits_values;
        let is_other = |marker: &Marker| {
            marker.hash != placement.hash || marker.fence != fence || marker.writing
        };
        let current = seen.marker.as_ref().filter(|marker| !is_other(marker) && !lost);
        let Some(marker) = current else {
            // A new text need not wait for the pause of the old one's failures, only for that of a
            // failed step.
            if self.held_back(seen, now_ms) {
                return;
            }
            if placement.state != DesiredState::Launched && running_by_us(seen) {
                self.stops.push(Step::Stop(instance.clone())); // written when it is down, so that the stop is not forgotten
                return;
            }
            if placement.state == DesiredState::Launched
                && self.waits_for_image(instance, seen, now_ms)
            {
                if let Some(marker) = seen.marker.as_ref().filter(|marker| !marker.writing && !lost)
                {
                    self.keep_old(instance, marker, phase, seen, now_ms);
                }
                return;
            }
            self.writes.push(Step::Write {
                instance: instance.clone(),
                unit: placement.unit.clone(),
                revision: placement.revision,
                hash: placement.hash.clone(),
                fence,
            });
            // systemd reads a new name by itself; what it may have loaded already it reads again
            // only when told.
            self.reload |= seen.marker.as_ref().is_some_and(is_other);
            if placement.state == DesiredState::Launched {
                let restart = placement.restart;
                let running = matches!(phase, Phase::Up | Phase::Activating | Phase::Moving)
                    && seen.marker.is_some();
                self.starts.push(match running {
                    true => Step::Restart { instance: instance.clone(), restart },
                    false => Step::Start { instance: instance.clone(), restart, again: false },
                });
            }
            return;
        };
        match placement.state {
            DesiredState::Launched => {
                self.keep_launched(instance, placement, marker, phase, seen, now_ms)
            }
            // What a socket or a timer started is theirs: only what fleet launched is stopped. Also
            // what has ended since: the stop is how it counts as launched no longer, so that a
            // later start starts it.
            DesiredState::Loaded | DesiredState::Inactive => {
                let ended = marker.launched && matches!(phase, Phase::Down | Phase::Failed);
                if (ended || running_by_us(seen)) && !self.held_back(seen, now_ms) {
                    self.stops.push(Step::Stop(instance.clone()));
                } else if marker.lacks(placement.config.max(1)).is_some()
                    && phase != Phase::Moving
                    && !self.held_back(seen, now_ms)
                {
                    // What a timer or a socket starts next finds the new values.
                    self.configure(instance, false);
                }
            }
        }
    }

    fn configure(&mut self, instance: &UnitName, reload: bool) {
        self.starts.push(Step::Configure { instance: instance.clone(), reload });
    }

    fn keep_launched(
        &mut self,
        instance: &UnitName,
        placement: &Placement,
        marker: &Marker,
        phase: Phase,
        seen: &Seen,
        now_ms: u64,
    ) {
        let start = |again: bool| Step::Start {
            instance: instance.clone(),
            restart: placement.restart,
            again,
        };
        let restart = || Step::Restart { instance: instance.clone(), restart: placement.restart };
        let stopped = marker.stopping && matches!(phase, Phase::Down | Phase::Failed);
        if !marker.launched || stopped {
            if phase == Phase::Moving
                || self.held_back(seen, now_ms)
                || self.waits_for_image(instance, seen, now_ms)
            {
                return;
            }
            // It runs though this text was never noted as started: an older text runs, and its
            // restart was not taken yet. Else it is our own start, which a crash kept from being
            // noted, or a socket's or timer's: a start then only notes it.
            let older = marker.outdated && matches!(phase, Phase::Up | Phase::Activating);
            self.starts.push(if older { restart() } else { start(false) });
            return;
        }
        // Not `<`: a record submitted anew counts from nought, and its first restart must not be
        // taken for an old one.
        if placement.restart != 0 && marker.restart != placement.restart {
            if !self.held_back(seen, now_ms) {
                if self.waits_for_image(instance, seen, now_ms) {
                    self.keep_old(instance, marker, phase, seen, now_ms);
                } else {
                    self.starts.push(restart());
                }
            }
            return;
        }
        let done = phase == Phase::Down
            && marker.has_done_its_work()
            && seen.stopped.is_none()
            && !seen.asking;
        if let Some(config) = marker.lacks(placement.config) {
            let waits = seen.systemd.as_ref().is_some_and(|state| state.sub == AUTO_RESTART);
            match (config.uses.changed, phase) {
                _ if self.held_back(seen, now_ms) => return,
                // What has done its work does not do it again.
                _ if done => return self.configure(instance, false),
                // A start is due, and brings the values.
                (_, Phase::Down | Phase::Failed) if seen.stopped.is_some() || seen.asking => {}
                (ConfigChanged::Reload, Phase::Down | Phase::Failed) => {}
                (ConfigChanged::Reload, Phase::Up) => return self.configure(instance, true),
                // systemd reads the file at its next try.
                (ConfigChanged::Reload, Phase::Activating) if waits => {
                    return self.configure(instance, false);
                }
                (ConfigChanged::Reload, _) => return,
                _ => return self.starts.push(restart()),
            }
        }
        let ended = match phase {
            Phase::Down | Phase::Failed if seen.asking => false,
            // Its stop was nobody's wish. A oneshot that was up (`RemainAfterExit=`) comes back,
            // too. A program that takes its SIGTERM badly leaves its unit failed.
            Phase::Down | Phase::Failed if seen.stopped.is_some() => {
                match self.returning.get(&instance.systemd_name()).copied() {
                    Some(until_ms) => !self.waits_until(until_ms, now_ms),
                    None => false,
                }
            }
            Phase::Failed => seen.given_up.is_none(),
            // A start of a pod starts those of its containers that are down.
            Phase::Up if seen.failed_part.is_some() => true,
            Phase::Down => !done,
            Phase::Up | Phase::Activating | Phase::Moving => false,
        };
        if ended && !self.pausing(seen, now_ms) {
            self.starts.push(start(true));
        } else if !ended {
            self.revive(instance, placement.restart, phase, seen, now_ms);
        }
    }

    /// Restarts what runs and does not answer well, with the pauses that failures have.
    fn revive(
        &mut self,
        instance: &UnitName,
        restart: u64,
        phase: Phase,
        seen: &Seen,
        now_ms: u64,
    ) {
        let left_alone = seen.given_up.is_some();
        if phase == Phase::Up && seen.is_unhealthy() && !left_alone && !self.pausing(seen, now_ms) {
            self.starts.push(Step::Revive { instance: instance.clone(), restart });
        }
    }

    /// Whether the image of what is to run is not there yet; has it pulled.
    fn waits_for_image(&mut self, instance: &UnitName, seen: &Seen, now_ms: u64) -> bool {
        let until_ms = match &seen.image {
            ImageState::Ready => return false,
            ImageState::Unknown | ImageState::Pulling(_) => return true,
            ImageState::Missing => 0,
            ImageState::Failed(trouble) => trouble.not_before_ms,
        };
        if !self.waits_until(until_ms, now_ms) {
            self.pulls.push(Step::Pull(instance.clone()));
        }
        true
    }

    /// Keeps up what was started before, while the image of what is to take its place is not there:
    /// that may take as long as a registry is away.
    fn keep_old(
        &mut self,
        instance: &UnitName,
        marker: &Marker,
        phase: Phase,
        seen: &Seen,
        now_ms: u64,
    ) {
        let ended = match phase {
            Phase::Failed => seen.given_up.is_none(),
            Phase::Down => !marker.has_done_its_work(),
            Phase::Up | Phase::Activating | Phase::Moving => false,
        };
        let ours = marker.launched && !marker.stopping && marker.fence.is_none();
        let by_itself = seen.stopped.is_none() && !seen.asking;
        if ended && ours && by_itself && !self.pausing(seen, now_ms) {
            self.starts.push(Step::Start {
                instance: instance.clone(),
                restart: marker.restart,
                again: true,
            });
        } else if ours {
            self.revive(instance, marker.restart, phase, seen, now_ms);
        }
    }

    /// Whether the instance is in a pause after a failure; notes its end.
    fn pausing(&mut self, seen: &Seen, now_ms: u64) -> bool {
        self.waits_until(seen.trouble.not_before_ms, now_ms)
    }

    /// Whether that time is still to come; notes it.
    fn waits_until(&mut self, until: u64, now_ms: u64) -> bool {
        if now_ms >= until {
            return false;
        }
        self.wake_at_ms = Some(self.wake_at_ms.map_or(until, |earlier| earlier.min(until)));
        true
    }

    /// Whether a step failed lately, so that the next one waits; the pauses of a unit that fails by
    /// itself hold back nothing else.
    fn held_back(&mut self, seen: &Seen, now_ms: u64) -> bool {
        seen.trouble.message.is_some() && self.pausing(seen, now_ms)
    }

    fn into_converged(self) -> Converged {
        let mut steps = self.stops;
        steps.extend(self.removes);
        steps.extend(self.writes);
        if self.reload {
            steps.push(Step::Reload);
        }
        steps.extend(self.starts);
        steps.extend(self.pulls);
        Converged { steps, wake_at_ms: self.wake_at_ms }
    }
}

/// The launched units, by systemd's names, that were stopped by nobody's wish and are to start
/// again, and not before when, in milliseconds since 1970. What a unit needs must be up, or return
/// as well: two units may need each other. So the start of a unit never brings back another one
/// that somebody stopped.
fn returning(assignment: &Assignment, host: &BTreeMap<UnitName, Seen>) -> BTreeMap<UnitName, u64> {
    let mut stopped: BTreeMap<UnitName, (&Stopped, u64)> = BTreeMap::new();
    for (instance, placement) in &assignment.instances {
        let Some(seen) = host.get(instance) else { continue };
        let down = placement.state == DesiredState::Launched
            && matches!(phase(seen), Phase::Down | Phase::Failed);
        if let Some(why) = seen.stopped.as_ref().filter(|why| down && why.rivals.is_empty()) {
            stopped.insert(instance.systemd_name(), (why, seen.trouble.not_before_ms));
        }
    }
    loop {
        let may = |why: &Stopped| why.needs.iter().all(|need| stopped.contains_key(need));
        let waits: Vec<UnitName> = stopped
            .iter()
            .filter(|(_, (why, _))| !may(why))
            .map(|(name, _)| name.clone())
            .collect();
        if waits.is_empty() {
            break;
        }
        stopped.retain(|name, _| !waits.contains(name));
    }
    let pause = |need: &UnitName| stopped.get(need).map_or(0, |(_, until_ms)| *until_ms);
    let latest = |(why, own): &(&Stopped, u64)| why.needs.iter().map(pause).fold(*own, u64::max);
    stopped.iter().map(|(name, stopped)| (name.clone(), latest(stopped))).collect()
}

#[cfg(test)]
mod tests;
