//! The nouns: units, machines, placements, reports, and the snapshot that the planner sees. Each
//! document is JSON in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::fence::{Fenced, KeeperState, Off, StopTerms};
use crate::gist::Gist;
use crate::name::{MachineId, UnitName};
use crate::unit_file::{ShortHash, UnitFile};
use crate::xfleet::Constraints;

mod machines;

pub use machines::{Availability, Capacity, Machine, Rival, Settings};

/// The format number that every document carries as `v`. Readers keep fields that they do not know.
pub const FORMAT: u32 = 1;

/// The largest document, in bytes: etcd refuses requests over 1.5 MiB, and a commit holds more than
/// the document.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// The most replicas one template may have. More than the tests reach (a million), less than a slip
/// of the finger.
pub const MAX_REPLICAS: u32 = 1_000_000;

/// Fields of a document that this version does not know; kept when it is rewritten.
pub type Unknown = BTreeMap<String, serde_json::Value>;

/// What the user wants of a unit, in fleet's three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// Known to the cluster, on no machine.
    #[default]
    Inactive,
    /// On a machine, not started.
    Loaded,
    /// On a machine and started.
    Launched,
}

impl DesiredState {
    /// The word, as commands and the API use it.
    pub fn as_str(self) -> &'static str {
        match self {
            DesiredState::Inactive => "inactive",
            DesiredState::Loaded => "loaded",
            DesiredState::Launched => "launched",
        }
    }

    /// Reads the word; `None` for any other.
    pub fn parse(text: &str) -> Option<DesiredState> {
        [DesiredState::Inactive, DesiredState::Loaded, DesiredState::Launched]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

impl fmt::Display for DesiredState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// `units/<name>`: what a user submitted. Written by the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// The format, [`FORMAT`].
    pub v: u32,
    /// Its name; a template's record stands for all its replicas.
    pub name: UnitName,
    /// The unit file as submitted, comments and all.
    pub text: String,
    /// Counts the texts, from 1. The text of each is also under `revisions/<name>/<n>`.
    pub revision: u64,
    /// What the user wants of it.
    pub desired: DesiredState,
    /// How many instances of this template should run; none for units that were never scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// When it was first submitted, in milliseconds since 1970.
    pub created_ms: u64,
    /// Counts the restarts asked for; an instance whose agent has seen fewer is restarted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restart: u64,
    /// Restarts asked for of single replicas, on top of `restart`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restart_of: BTreeMap<UnitName, u64>,
    /// What a later version wrote.
    #[serde(flatten, deserialize_with = "crate::brief::unknown")]
    pub unknown: Unknown,
}

/// A unit as the planner needs it: its record without the text, and its constraints parsed once.
/// Nobody changes one that was read.
// In memory the fields keep their order: those that planning touches come first, side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[repr(C)]
pub struct Unit {
    /// What follows from the rest, found once. `gist.rs` keeps it out of documents.
    #[serde(skip)]
    pub(crate) gist: Gist,
    /// Its name.
    pub name: UnitName,
    /// The number of its text.
    pub revision: u64,
    /// The short hash of its text, see [`UnitFile::short_hash`].
    pub hash: ShortHash,
    /// The whole hash of its text, for people.
    pub full_hash: Arc<str>,
    /// What the user wants of it.
    pub desired: DesiredState,
    /// The wanted count, for a scaled template.
    pub replicas: Option<u32>,
    /// Restarts asked for.
    pub restart: u64,
    /// Restarts asked for of single replicas.
    pub restart_of: BTreeMap<UnitName, u64>,
    /// What its `[X-Fleet]` section demands, specifiers unexpanded.
    pub constraints: Constraints,
    /// How long its stop may take and what waits for that: for fenced units, and those that a
    /// fenced one's stop may wait for.
    pub stop: Option<StopTerms>,
}

impl Unit {
    /// Parses the text of `record` once, so that planning never does.
    pub fn from_record(record: &UnitRecord) -> Unit {
        let file = UnitFile::parse_lenient(&record.text);
        let full_hash = file.hash();
        let constraints = Constraints::from_file(&file);
        let stop = Some(StopTerms::from_file(&record.name, &file));
        let unit = Unit {
            gist: Gist::default(),
            name: record.name.clone(),
            revision: record.revision,
            hash: UnitFile::shorten(&full_hash).into(),
            full_hash: full_hash.into(),
            desired: record.desired,
            replicas: record.replicas,
            restart: record.restart,
            restart_of: record.restart_of.clone(),
            stop: stop.filter(|stop| constraints.fence || !stop.after.is_empty()),
            constraints,
        };
        unit.with_gist()
    }

    /// The terms of its stop, if at most one copy of it may be alive.
    pub fn fence(&self) -> Option<&StopTerms> {
        self.stop.as_ref().filter(|_| self.constraints.fence && !self.constraints.global)
    }

    /// How often `instance` of this unit was asked to restart.
    pub fn restarts_asked(&self, instance: &UnitName) -> u64 {
        self.restart + self.restart_of.get(instance).copied().unwrap_or(0)
    }
}

/// `assignments/<id>`: everything that one machine should run. Written by the leader; absent means
/// "no opinion", not "nothing".
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Assignment {
    /// The format, [`FORMAT`].
    pub v: u32,
    /// Counts the versions of this document.
    pub generation: u64,
    /// Instance to placement. In JSON what many have in common stands once, see the top of
    /// `compact.rs`.
    #[serde(with = "crate::compact")]
    pub instances: BTreeMap<UnitName, Placement>,
    /// Fenced instances that were taken off, until they are known to have ended here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub off: BTreeMap<UnitName, Off>,
    /// When the machine was given up as lost, in milliseconds since 1970; none once it is assigned
    /// anything again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_ms: Option<u64>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// One instance on one machine, as decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The record that it comes from: itself, or the template that it is a replica of.
    pub unit: UnitName,
    /// Which text of that unit, `revisions/<unit>/<revision>`.
    pub revision: u64,
    /// The short hash of that text.
    pub hash: ShortHash,
    /// Loaded or launched.
    pub state: DesiredState,
    /// Why here.
    pub why: Why,
    /// When it was put here, in milliseconds since 1970.
    pub since_ms: u64,
    /// How often it was moved because it failed.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub moves: u32,
    /// Restarts asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restart: u64,
    /// How it is fenced, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Box<Fenced>>,
}

impl Placement {
    /// Whether this is one of a scaled template's counted instances.
    pub fn is_replica(&self) -> bool {
        self.unit.is_template()
    }
}

/// Why an instance was put on its machine. For people only, so a reason of a later version is read
/// as [`Why::Other`]: while machines are upgraded one by one, a leader's new words must not make an
/// assignment unreadable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Of the machines that fit, it had the fewest units.
    Fewest,
    /// Its `MachineID=` names this machine.
    Pinned,
    /// It runs wherever that unit runs (`MachineOf=`).
    Beside(UnitName),
    /// It runs on every machine that fits (`Global=true`).
    Global,
    /// Its machine was lost.
    Lost(MachineId),
    /// Its machine left in good order.
    Left(MachineId),
    /// It failed again and again on that machine.
    Failed(MachineId),
    /// Its old machine fits no longer.
    Unfit(MachineId),
    /// A unit on that machine replaces it (`Replaces=`).
    Replaced(MachineId),
    /// That machine is drained.
    Drained(MachineId),
    /// For a reason that a later version knows.
    Other,
}

impl<'de> Deserialize<'de> for Why {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Why, D::Error> {
        let reason = serde_json::Value::deserialize(deserializer)?;
        let (word, whose) = match &reason {
            serde_json::Value::Object(one) => one
                .iter()
                .next()
                .map_or(("", None), |(word, whose)| (word.as_str(), whose.as_str())),
            plain => (plain.as_str().unwrap_or_default(), None),
        };
        let (unit, machine) =
            (whose.and_then(|name| UnitName::parse(name).ok()), whose.and_then(MachineId::parse));
        let why = match (word, unit, machine) {
            ("fewest", None, None) => Why::Fewest,
            ("pinned", None, None) => Why::Pinned,
            ("global", None, None) => Why::Global,
            ("beside", Some(unit), _) => Why::Beside(unit),
            ("lost", _, Some(machine)) => Why::Lost(machine),
            ("left", _, Some(machine)) => Why::Left(machine),
            ("failed", _, Some(machine)) => Why::Failed(machine),
            ("unfit", _, Some(machine)) => Why::Unfit(machine),
            ("replaced", _, Some(machine)) => Why::Replaced(machine),
            ("drained", _, Some(machine)) => Why::Drained(machine),
            _ => Why::Other,
        };
        Ok(why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Fewest => f.write_str("fewest units of the machines that fit"),
            Why::Pinned => f.write_str("MachineID names this machine"),
            Why::Beside(unit) => write!(f, "MachineOf: {unit} is here"),
            Why::Global => f.write_str("global unit"),
            Why::Lost(machine) => write!(f, "machine {} was lost", machine.short()),
            Why::Left(machine) => write!(f, "machine {} left", machine.short()),
            Why::Failed(machine) => {
                write!(f, "failed again and again on machine {}", machine.short())
            }
            Why::Replaced(machine) => {
                write!(f, "a unit on machine {} replaces it", machine.short())
            }
            Why::Drained(machine) => write!(f, "machine {} is drained", machine.short()),
            Why::Unfit(machine) => write!(f, "machine {} fits no longer", machine.short()),
            Why::Other => f.write_str("for a reason that this version does not know"),
        }
    }
}

/// `reports/<id>`: what one machine observed. Written by its agent, under its lease.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// The format, [`FORMAT`].
    pub v: u32,
    /// The generation of the assignment that this report has seen and acted on.
    pub generation: u64,
    /// Instance to what systemd says of it. In JSON as in an assignment.
    #[serde(with = "crate::compact")]
    pub instances: BTreeMap<UnitName, InstanceStatus>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What systemd says of one unit, in systemd's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InstanceStatus {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load: String,
    /// `active`, `activating`, `deactivating`, `inactive`, `failed`.
    pub active: String,
    /// The unit type's own state: `running`, `exited`, `dead`, `listening`, `waiting`.
    pub sub: String,
    /// systemd's `Result` when it failed: `exit-code`, `signal`, `timeout`, `oom-kill`,
    /// `start-limit-hit`; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// The main process's exit status or signal number, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Why, in systemd's words from the journal, where it could not even run the program: what file
    /// is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often it was restarted since it last ran well, by the agent or by systemd (`Restart=`);
    /// at most once a pause, however often systemd did it.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub restarts: u32,
    /// Since when it is in this active state, in milliseconds since 1970.
    pub since_ms: u64,
    /// The short hash of the text that it runs.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub hash: ShortHash,
    /// Whether the agent has started it since it was placed (it may have ended since).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub launched: bool,
    /// Whether it has ended, and is not started again: its work is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// How many of the restarts asked for the agent has carried out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restart: u64,
    /// Whether it came up so lately that nobody knows yet whether it stays up: for 2 s after each
    /// start, longer where the leader moved it because it failed. Agents before this field never
    /// say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settling: bool,
    /// When the agent starts it again, in milliseconds since 1970, while it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_ms: Option<u64>,
    /// Whether it is no longer assigned here: it is being stopped, or about to be forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// It was restarted up to the limit in vain: the leader may move it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gave_up: bool,
    /// What went wrong outside systemd's states: a refused file, a failed call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether that is that systemd does not stop it: it runs on, whatever is wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop_refused: bool,
}

impl InstanceStatus {
    /// Whether it runs as wanted.
    pub fn is_active(&self) -> bool {
        self.active == "active" || self.active == "reloading"
    }

    /// Whether its machine took none of it: nothing of it was started there, and the message says
    /// why.
    pub fn is_refused(&self) -> bool {
        self.message.is_some()
            && !self.launched
            && ["inactive", "failed"].contains(&self.active.as_str())
    }
}

/// `leader`: who leads, and since when. Written by the election, under the leader's lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leader {
    /// The format, [`FORMAT`].
    pub v: u32,
    /// The leading machine.
    pub machine: MachineId,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Everything that the planner sees, at one revision of the store, with the time as a value.
/// Written as JSON and read again it gives the same plan; it holds no unit's text, so no secrets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The store's revision.
    pub revision: i64,
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
    /// All units.
    pub units: BTreeMap<UnitName, Arc<Unit>>,
    /// The machines whose lease is alive, metadata merged with the operator's settings.
    pub machines: BTreeMap<MachineId, Arc<Machine>>,
    /// What each machine should run.
    pub assignments: BTreeMap<MachineId, Arc<Assignment>>,
    /// What each machine observed.
    pub reports: BTreeMap<MachineId, Arc<Report>>,
    /// Machines that are absent but not called lost yet: the store was away, and they get time to
    /// return.
    pub settling: BTreeSet<MachineId>,
    /// Machines that said goodbye: their absence is no accident.
    pub left: BTreeSet<MachineId>,
    /// The machines that an operator cordoned or drains.
    #[serde(default)]
    pub availability: BTreeMap<MachineId, Availability>,
    /// The keepers of fenced units, for each machine that ever had one.
    pub keepers: BTreeMap<MachineId, KeeperState>,
}

pub(crate) fn is_zero(n: &u64) -> bool {
    *n == 0
}

pub(crate) fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

fn is_empty(text: &str) -> bool {
    text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_as_it_was_written_and_a_later_versions_reason_spoils_nothing() {
        let machine = || MachineId::new("4dbc7f3b");
        let known = [
            Why::Fewest,
            Why::Pinned,
            Why::Beside(UnitName::trusted("db.service")),
            Why::Global,
            Why::Lost(machine()),
            Why::Left(machine()),
            Why::Failed(machine()),
            Why::Unfit(machine()),
            Why::Replaced(machine()),
            Why::Drained(machine()),
            Why::Other,
        ];
        for why in known {
            let text = serde_json::to_string(&why).unwrap();
            assert_eq!(serde_json::from_str::<Why>(&text).unwrap(), why, "{text}");
        }
        for text in [
            "\"better\"",
            "{\"cheaper-than\":\"4dbc7f3b\"}",
            "{\"lost\":{\"machine\":\"a\",\"since\":7}}",
            "{}",
            "7",
        ] {
            assert_eq!(serde_json::from_str::<Why>(text).unwrap(), Why::Other, "{text}");
        }
    }
}
