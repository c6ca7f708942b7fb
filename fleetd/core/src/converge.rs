//! `converge`: what one machine should run and what its systemd says in, the steps that close the
//! gap out.
//!
//! It may be asked twice, or after a crash: it looks at what is, never at what it did. What it must
//! remember of an instance ([`Marker`]) lies in a file beside systemd's state, so a restarted
//! fleetd adopts what runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Assignment, DesiredState, InstanceStatus, Placement};
use crate::name::UnitName;
use crate::unit_file::ShortHash;

/// How often the agent restarts a failing instance before it says that it gave up. It goes on
/// trying after that.
pub const RESTART_LIMIT: u32 = 5;

/// The pause after the first restart of a failing instance, in milliseconds; doubles with each. The
/// first restart is at once.
pub const FIRST_PAUSE_MS: u64 = 1_000;

/// The longest such pause, in milliseconds.
pub const LONGEST_PAUSE_MS: u64 = 60_000;

/// How long an instance must run for its failures to be forgotten, in milliseconds.
pub const RAN_WELL_MS: u64 = 60_000;

/// How long what came up must stay up, without a restart by anybody, before it counts as up, in
/// milliseconds. systemd calls a `Type=simple` service active as soon as it has a process, also one
/// that dies at once. What the leader moved because it failed must stay up for [`RAN_WELL_MS`].
pub const SETTLED_MS: u64 = 2_000;

/// What fleet knows of a unit that it wrote on this host; kept on disk beside the unit until the
/// unit is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The record that it comes from.
    pub unit: UnitName,
    /// The text's number.
    pub revision: u64,
    /// The text's short hash.
    pub hash: ShortHash,
    /// Whether it was started since it was written. A unit that ended by itself is not started
    /// again.
    pub launched: bool,
    /// How many of the restarts asked for were carried out.
    pub restart: u64,
    /// What it was started under, if it is fenced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FencedBy>,
    /// Whether its text says that it ends by itself (`Type=oneshot`).
    pub oneshot: bool,
    /// Whether it stays up when its program has ended (`RemainAfterExit=`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remains: bool,
    /// Whether it was enabled, as its `[Install]` section says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enabled: bool,
    /// Whether it has no file of its own but runs its template's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Whether an older text of it had been started when it was written, and was neither stopped
    /// nor restarted since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outdated: bool,
    /// Whether its stop, or its start after a failure, was about to be asked for. If fleetd crashed
    /// then, what is down did not end by itself: it was stopped, or its failure was cleared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
    /// Whether its start was about to be asked for. If fleetd crashed then, what runs was started
    /// by fleet, not by a socket or timer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starting: bool,
    /// Whether its files were about to be written: they are of this text, or of another, or not
    /// there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writing: bool,
    /// Whether it was launched in an earlier start of user space, which a soft-reboot ended: what
    /// is down was stopped by that, unless systemd itself has started it since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub earlier: bool,
    /// Whether it is known to have ended by itself since its last start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// Whether its text binds it to other units (`BindsTo=`, `Requires=`, `Requisite=`): its start
    /// starts those, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bound: bool,
}

/// What a fenced unit on a host is started under; both stand in its drop-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedBy {
    /// Its placement's token.
    pub token: u64,
    /// The life of the keeper. systemd starts it in no other one.
    pub life: i64,
}

/// One unit of this host that fleet wrote or should write.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Seen {
    /// What fleet knows of it; `None` if it wrote no such unit.
    pub marker: Option<Marker>,
    /// What systemd says; `None` if it has not loaded the unit, which then is inactive.
    pub systemd: Option<SystemdState>,
    /// Its restarts so far.
    pub trouble: Trouble,
    /// Whether it is up for too short a time to tell whether it stays up.
    pub settling: bool,
    /// That systemd stopped it though fleet had not asked, if it is down and this is known.
    pub stopped: Option<Stopped>,
    /// Whether it is down, and how that came about is about to be known.
    pub asking: bool,
}

/// A unit that is down because systemd stopped it, though fleet had not asked for that: for another
/// unit's sake (`BindsTo=`, `PartOf=`, `Conflicts=`), for a target that was isolated, or by hand.
/// It has not done its work. Names are systemd's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stopped {
    /// What it is bound to or requires and is not up: a start would start that, too.
    pub needs: Vec<UnitName>,
    /// What is up and conflicts with it: a start would stop that.
    pub rivals: Vec<UnitName>,
}

impl Stopped {
    /// What it waits for before it is started again, for the report.
    fn waits(&self) -> Option<String> {
        if let Some(need) = self.needs.first() {
            return Some(format!("systemd stopped it; it is started again when {need} is up"));
        }
        let rival = self.rivals.first()?;
        Some(format!(
            "systemd stopped it; it is started again when {rival}, which conflicts, is down"
        ))
    }
}

/// What systemd says of a loaded unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemdState {
    /// `loaded`, `bad-setting`…
    pub load: String,
    /// `active`, `failed`…
    pub active: String,
    /// `running`, `dead`…
    pub sub: String,
    /// Whether a job for it is queued or running: then its state is on the move, and nothing is
    /// asked on top.
    pub job: bool,
}

/// An instance's recent failures on this host. Lost with the agent: a new one is patient anew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trouble {
    /// Restarts, and steps that failed, since it last ran well.
    pub failures: u32,
    /// Not to be touched before, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// What went wrong with a step, in systemd's or the file system's words.
    pub message: Option<String>,
    /// The short hash of the text that all of this is about.
    pub text: ShortHash,
}

impl Trouble {
    /// Counts one more restart or failed step.
    pub fn again(&mut self, now_ms: u64, message: Option<String>) {
        let pause = FIRST_PAUSE_MS.saturating_mul(1 << self.failures.min(20)).min(LONGEST_PAUSE_MS);
        self.failures += 1;
        self.not_before_ms = now_ms + pause;
        self.message = message;
    }

    /// Counts a restart by systemd itself (`Restart=`) as one by the agent: at most one a pause,
    /// however many there were.
    pub fn restarted_by_systemd(&mut self, now_ms: u64) {
        if now_ms >= self.not_before_ms {
            self.again(now_ms, self.message.clone());
        }
    }

    /// Forgets the failures of another text, which say nothing of this one; true if it was another.
    pub fn keep_only_of(&mut self, text: &ShortHash) -> bool {
        let other = self.text != *text;
        if other {
            *self = Trouble { text: text.clone(), ..Trouble::default() };
        }
        other
    }

    /// Whether the leader should try another machine.
    pub fn gave_up(&self) -> bool {
        self.failures >= RESTART_LIMIT
    }

    /// Forgets failures of an instance that has been running well since `since_ms`.
    pub fn forget_if_well(&mut self, active: bool, since_ms: u64, now_ms: u64) {
        if active
            && self.failures > 0
            && now_ms.saturating_sub(since_ms) >= RAN_WELL_MS
            && now_ms >= self.not_before_ms
        {
            *self = Trouble { text: std::mem::take(&mut self.text), ..Trouble::default() };
        }
    }
}

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

/// What is said of an instance in the report.
pub fn status(seen: &Seen, since_ms: u64) -> InstanceStatus {
    let written = seen.marker.as_ref().filter(|marker| !marker.writing);
    let state = seen.systemd.clone().unwrap_or_else(|| SystemdState {
        load: if written.is_some() { "loaded" } else { "not-found" }.to_string(),
        active: "inactive".to_string(),
        sub: "dead".to_string(),
        job: false,
    });
    // With a job queued the unit is on its way, whatever state it is still in: a start just asked
    // for is not "ended".
    let refused = seen.trouble.message.is_some() && seen.systemd.is_none();
    let state = if refused {
        SystemdState { active: "failed".to_string(), sub: "failed".to_string(), ..state }
    } else {
        state
    };
    let queued = state.job && ["inactive", "failed"].contains(&state.active.as_str());
    // A job on a running unit is its stop or restart, not carried out yet: who counts what is up
    // must not count on it.
    let stopping = state.job && state.active == "active";
    let state =
        if stopping { SystemdState { active: "deactivating".to_string(), ..state } } else { state };
    // What failed and has just been started again is on its way up until it has stayed up.
    let again = seen.settling && seen.trouble.failures > 0 && state.active == "active";
    let (active, sub) = ("activating".to_string(), "settling".to_string());
    let state = if again { SystemdState { active, sub, ..state } } else { state };
    let down = ["inactive", "failed"].contains(&state.active.as_str()) && !queued;
    let ended = phase(seen) == Phase::Down
        && !refused
        && seen.stopped.is_none()
        && !seen.asking
        && written.is_some_and(|marker| marker.launched && marker.has_done_its_work());
    let waits = down && !ended && seen.trouble.failures > 0;
    InstanceStatus {
        load: state.load,
        active: if queued { "activating".to_string() } else { state.active },
        sub: if queued { "queued".to_string() } else { state.sub },
        since_ms,
        hash: written.map(|marker| marker.hash.clone()).unwrap_or_default(),
        launched: seen.marker.as_ref().is_some_and(|marker| marker.launched),
        ended,
        restart: seen.marker.as_ref().map_or(0, |marker| marker.restart),
        restarts: seen.trouble.failures,
        settling: seen.settling,
        next_try_ms: waits.then_some(seen.trouble.not_before_ms),
        gave_up: seen.trouble.gave_up(),
        message: seen.trouble.message.clone().or_else(|| seen.stopped.as_ref()?.waits()),
        ..InstanceStatus::default()
    }
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
        let lost = seen.systemd.is_none() && seen.trouble.message.is_some();
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
                }
            }
        }
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
            if phase == Phase::Moving || self.held_back(seen, now_ms) {
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
                self.starts.push(restart());
            }
            return;
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
            Phase::Failed => true,
            Phase::Down => !marker.has_done_its_work(),
            Phase::Up | Phase::Activating | Phase::Moving => false,
        };
        if ended && !self.pausing(seen, now_ms) {
            self.starts.push(start(true));
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
        Converged { steps, wake_at_ms: self.wake_at_ms }
    }
}

impl Marker {
    /// Whether a unit that is down after it was started is done, rather than down.
    ///
    /// A replica of a service that ended is not running, whatever its exit; a unit submitted by
    /// name may be done. Not a fenced one: systemd may have stopped it for the keeper's sake, which
    /// looks the same. A one-shot ends by itself, and so does what is no service: a timer that
    /// elapsed (`RemainAfterElapse=no`), a path or a target that was needed no longer.
    pub fn has_done_its_work(&self) -> bool {
        let runs_on = self.unit.systemd_name().suffix() == "service" && !self.oneshot;
        !(runs_on && (self.unit.is_template() || self.fence.is_some()))
    }

    /// Whether fleet asked for its start, or was about to.
    pub fn asked_for(&self) -> bool {
        self.launched || self.starting
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

/// Whether a start that fleet asked for is still queued or under way; it may never end. A stop
/// takes its place.
fn hanging(seen: &Seen) -> bool {
    let asked_for = seen.marker.as_ref().is_some_and(Marker::asked_for);
    asked_for
        && seen.systemd.as_ref().is_some_and(|state| state.job && state.active != "deactivating")
}

/// Whether it runs, or is on its way up, because fleet launched it.
fn running_by_us(seen: &Seen) -> bool {
    let asked_for = seen.marker.as_ref().is_some_and(Marker::asked_for);
    asked_for && (matches!(phase(seen), Phase::Up | Phase::Activating) || hanging(seen))
}

/// systemd's states by what they mean here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Runs, or is being reloaded.
    Up,
    /// On its way up, or between systemd's own restarts, with no job of ours.
    Activating,
    /// A job is under way, or it is stopping: wait.
    Moving,
    /// Not running, ended well or never started.
    Down,
    /// Not running, and systemd says failed, or could not read it.
    Failed,
}

fn phase(seen: &Seen) -> Phase {
    let Some(state) = &seen.systemd else { return Phase::Down };
    match state.active.as_str() {
        _ if state.job => Phase::Moving,
        "active" | "reloading" | "refreshing" => Phase::Up,
        "activating" => Phase::Activating,
        "deactivating" | "maintenance" => Phase::Moving,
        "failed" => Phase::Failed,
        _ => Phase::Down,
    }
}

#[cfg(test)]
mod tests;
