//! A unit as it is on this host: what fleet noted of it, and what systemd says.

use serde::{Deserialize, Serialize};

use super::Trouble;
use crate::configuration::{ConfigChanged, Uses};
use crate::health::{Health, HealthCheck};
use crate::name::UnitName;
use crate::unit::file::ShortHash;
use crate::unit::on_failure::OnFailure;

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
    /// Whether the text that was about to be written runs the same as the one that was started:
    /// then nothing older or other runs, whichever of the two its files are of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alike: bool,
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
    /// The services that fleet keeps here for its sake, by systemd's names: the networks, volumes
    /// and the like that it names, and the containers of a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<UnitName>,
    /// Those that its text names no longer, and that what still runs of an older one may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside_old: Vec<UnitName>,
    /// The configuration that its text names, and what is there of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Configured>,
    /// How long it must have been up before it counts as healthy, in milliseconds; none:
    /// [`SETTLED_MS`](super::SETTLED_MS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles_ms: Option<u64>,
    /// What it is asked for its health, if its text says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Box<HealthCheck>>,
    /// Whether its answers were good when it was last known, so that a restarted fleetd goes on
    /// from there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub healthy: bool,
    /// What its text says of failures.
    #[serde(default, skip_serializing_if = "OnFailure::is_empty")]
    pub on_failure: OnFailure,
}

/// The configuration of a unit on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// Which, and what a change does.
    #[serde(flatten)]
    pub uses: Uses,
    /// The revision that it was started or reloaded with, or, if fleet did not start it, that was
    /// written; 0 if none was.
    #[serde(default)]
    pub revision: u64,
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
    /// How it answers its health check, if it has one and runs.
    pub health: Option<Health>,
    /// That systemd stopped it though fleet had not asked, if it is down and this is known.
    pub stopped: Option<Stopped>,
    /// Whether it is down, and how that came about is about to be known.
    pub asking: bool,
    /// Whether the image that it is to run is on this host, see
    /// [`wants_image`](super::wants_image).
    pub image: ImageState,
    /// That it failed, or is unhealthy, and stays so, and the words of its file that say that.
    pub given_up: Option<String>,
    /// Of a pod that is up the container that failed, by systemd's name.
    pub failed_part: Option<UnitName>,
}

/// Whether an image is on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ImageState {
    /// It is, or podman is to see to it at the start.
    #[default]
    Ready,
    /// Not known yet.
    Unknown,
    /// It is not, and nobody has tried to pull it.
    Missing,
    /// It is being pulled: which one, and how far that is.
    Pulling(String),
    /// It could not be pulled: why, and when that is tried again.
    Failed(Trouble),
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
    pub(super) fn waits(&self) -> Option<String> {
        if let Some(need) = self.needs.first() {
            return Some(format!("systemd stopped it; it is started again when {need} is up"));
        }
        let rival = self.rivals.first()?;
        Some(format!(
            "systemd stopped it; it is started again when {rival}, which conflicts, is down"
        ))
    }
}

impl Seen {
    /// Whether a step failed lately, so that the next one waits.
    pub fn is_held_back(&self, now_ms: u64) -> bool {
        self.trouble.message.is_some() && now_ms < self.trouble.not_before_ms
    }

    /// Whether it runs and does not do what it is there for.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.health.as_ref().is_some_and(Health::is_unhealthy)
    }

    /// Whether nothing of it runs, and nothing is about to.
    pub fn is_down(&self) -> bool {
        matches!(phase(self), Phase::Down | Phase::Failed)
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

    /// The unit's configuration, if one of `revision` or later is not here yet.
    pub(super) fn lacks(&self, revision: u64) -> Option<&Configured> {
        let lacks = |config: &&Configured| {
            let changes = config.revision == 0 || config.uses.changed != ConfigChanged::Ignore;
            config.revision < revision && changes
        };
        self.config.as_ref().filter(lacks)
    }

    /// Whether fleet asked for its start, or was about to.
    pub fn asked_for(&self) -> bool {
        self.launched || self.starting
    }
}

/// Whether a start that fleet asked for is still queued or under way; it may never end. A stop
/// takes its place.
pub(super) fn hanging(seen: &Seen) -> bool {
    let asked_for = seen.marker.as_ref().is_some_and(Marker::asked_for);
    asked_for
        && seen.systemd.as_ref().is_some_and(|state| state.job && state.active != "deactivating")
}

/// Whether it runs, or is on its way up, because fleet launched it.
pub(super) fn running_by_us(seen: &Seen) -> bool {
    let asked_for = seen.marker.as_ref().is_some_and(Marker::asked_for);
    asked_for && (matches!(phase(seen), Phase::Up | Phase::Activating) || hanging(seen))
}

/// systemd's states by what they mean here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
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

pub(super) fn phase(seen: &Seen) -> Phase {
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
