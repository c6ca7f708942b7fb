//! The HTTP bodies: fleet 1.0's v1 resources, and our additions as further fields and resources.
//! Shared by fleetd and fleetctl.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::model::{Availability, InstanceStatus, Why};
use crate::name::{MachineId, UnitName};
use crate::time::utc;
use crate::unit_file::UnitOption;

/// The answer header that carries the store revision of a write: a follow from there misses
/// nothing.
pub const REVISION_HEADER: &str = "x-fleet-revision";

/// The answer header (and trailer-less stream's first header) that carries a remote command's exit
/// status.
pub const EXIT_STATUS_HEADER: &str = "x-fleet-exit-status";

/// The answer header that carries one warning a value, as `line N: …`.
pub const WARNING_HEADER: &str = "x-fleet-warning";

/// The answer header that names one machine a value which could not be asked, and why: the answer
/// lacks what is there.
pub const PROBLEM_HEADER: &str = "x-fleet-problem";

/// The first byte of a line of a journal that is no line of it, but says what went wrong.
pub const NOTE_MARK: u8 = 0;

/// The largest request body, in bytes: a unit at its limit, escaped as JSON.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// How many items a page of a list holds, as in fleet 1.0.
pub const PAGE_ITEMS: usize = 100;

/// A unit in `GET /units` and `GET /units/<name>`; also the body of `PUT /units/<name>`. Fields
/// below the line are ours.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Unit {
    /// What systemd was told so far: `inactive`, `loaded`, `launched`; empty for global units.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub current_state: String,
    /// What the user wants.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["inactive", "loaded", "launched"])))]
    pub desired_state: String,
    /// Where it was placed.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its options, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<UnitOption>,
    // ---- additions to fleet 1.0 ----
    /// The file as submitted, comments and all; on PUT it wins over `options`. In answers only for
    /// one unit, not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The wanted count of a scaled template. On PUT it sets the count, which stays as it is
    /// without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// SHA-1 of the normalised text, 40 hex digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Counts the unit's texts, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Set on a replica: the template that it follows from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// Why it was placed where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Whether it runs on every machine that fits: what its options say, also where a brief list
    /// leaves them out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub global: bool,
}

impl Unit {
    /// All keys in it, those of its options too: fleet 1.0 took them in any case.
    pub const KEYS: &[&str] = &[
        "currentState",
        "desiredState",
        "machineID",
        "name",
        "options",
        "section",
        "value",
        "text",
        "replicas",
        "hash",
        "revision",
        "template",
        "why",
        "global",
    ];
}

/// `GET /units`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UnitPage {
    /// The token of the next page; empty on the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// The units, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
}

/// What systemd says of a unit on one machine, in `GET /state`. Fields below the line are ours.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UnitState {
    /// SHA-1 of the normalised text that it runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Where.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// The unit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `active`, `failed`…
    #[serde(skip_serializing_if = "String::is_empty")]
    pub systemd_active_state: String,
    /// `loaded`, `not-found`…
    #[serde(skip_serializing_if = "String::is_empty")]
    pub systemd_load_state: String,
    /// `running`, `dead`…
    #[serde(skip_serializing_if = "String::is_empty")]
    pub systemd_sub_state: String,
    // ---- additions to fleet 1.0 ----
    /// systemd's `Result` when it failed, `exit-code`, `oom-kill`…
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// The main process's exit status or signal, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Restarts since it last ran well, by the agent or systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// When it is started again, in milliseconds since 1970, while it is down and waits for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_ms: Option<u64>,
    /// Since when it is in this active state, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// What went wrong outside systemd's states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `GET /state`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UnitStatePage {
    /// The token of the next page; empty on the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// The states, by unit name, then machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<UnitState>,
}

/// `GET /units/<name>/fencing`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct FencingPage {
    /// One entry a fenced instance and machine, by name; none for a unit that is not fenced.
    pub fencing: Vec<Fencing>,
}

/// How a fenced instance (`Fence=yes`) stands: by whose lease its copy lives and until when, or
/// what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Fencing {
    /// The instance.
    pub name: String,
    /// Where it is placed; a machine that fell silent keeps it until its copy there has surely
    /// ended.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// The fencing token of that placement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// The lease that its copy there lives by, as that machine's keeper says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<KeeperLease>,
    /// Why the lease is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unknown: String,
    /// Set while the leader waits before it places it, because another copy may be alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<FenceWait>,
}

/// The lease of a machine's keeper. What is fenced is stopped there by systemd when it runs out
/// without having been renewed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct KeeperLease {
    /// The life of the keeper.
    pub life: i64,
    /// Whether this machine is the whole cluster: then nobody else could run a copy, and the lease
    /// is systemd's watchdog alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// Until when it holds without another renewal, in milliseconds since 1970 by that machine's
    /// clock.
    pub until_ms: u64,
    /// The same, in milliseconds from the answer.
    pub left_ms: u64,
}

/// What a fenced instance waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct FenceWait {
    /// The instance.
    pub name: String,
    /// Where another copy may be alive.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// One sentence for people.
    pub why: String,
    /// When that copy has surely ended, if nothing changes, in milliseconds since 1970 by the
    /// leader's clock; none if nobody can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// The same, in milliseconds from the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

/// `GET /fencing`: what one machine itself knows of fenced units.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct OwnFencing {
    /// The machine that answers.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// Its keeper's lease, if it has a keeper that holds one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<KeeperLease>,
    /// Whether it leads.
    pub leads: bool,
    /// If it leads: the fenced instances that wait.
    pub waits: Vec<FenceWait>,
}

impl fmt::Display for Fencing {
    /// One line, without the instance's name: `token 17; machine 4dbc7f3b holds its lease until
    /// 2026-11-24T15:40:01Z (6 s)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = MachineId::new(self.machine_id.as_str());
        let machine = machine.short();
        if let Some(waits) = &self.waits {
            return write!(f, "{waits}");
        }
        if let Some(token) = self.token {
            write!(f, "token {token}; ")?;
        }
        match &self.lease {
            Some(lease) if lease.alone => {
                write!(
                    f,
                    "machine {machine} is the whole cluster, so its systemd alone keeps one copy"
                )
            }
            Some(lease) => {
                let (until, left) = (utc(lease.until_ms), lease.left_ms.div_ceil(1000));
                write!(
                    f,
                    "machine {machine} holds its lease until {until} ({left} s), and renews it"
                )
            }
            None => write!(
                f,
                "until when machine {machine} holds its lease is not known: {}",
                self.unknown
            ),
        }
    }
}

impl fmt::Display for FenceWait {
    /// Why it waits, with the time where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match (self.until_ms, self.left_ms) {
            (Some(until), Some(left)) => {
                write!(f, ", about {} ({} s)", utc(until), left.div_ceil(1000))
            }
            _ => Ok(()),
        }
    }
}

/// A machine in `GET /machines`. Fields below the line are ours.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Machine {
    /// Its id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Its address.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub primary_ip: String,
    // ---- additions to fleet 1.0 ----
    /// Whether its engine leads.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leader: bool,
    /// The version of its fleetd.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// How many instances are assigned to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Whether it takes instances; absent if it does.
    #[serde(skip_serializing_if = "Availability::is_active")]
    pub availability: Availability,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Main memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// `GET /machines`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct MachinePage {
    /// The machines, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Machine>,
    /// The token of the next page; empty on the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    // ---- additions to fleet 1.0 ----
    /// Set while so many machines are missing that their units are moved slowly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

/// Whether a machine takes instances, and what an operator waits for who drains it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct MachineAvailability {
    /// What is wanted of it.
    pub availability: Availability,
    /// What is assigned to it or still reported by it, by name, global units left out.
    pub instances: Vec<Remaining>,
}

/// What an operator wants of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AvailabilityWish {
    /// Whether it takes instances.
    #[serde(deserialize_with = "known_availability")]
    pub availability: Availability,
}

/// What is written is one of the words that are known.
fn known_availability<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Availability, D::Error> {
    let word = String::deserialize(deserializer)?;
    let unknown = || {
        serde::de::Error::custom(format!(
            "invalid availability {word:?}: expect active, cordoned, or draining"
        ))
    };
    Availability::parse(&word).ok_or_else(unknown)
}

/// An instance on a machine, and why it is still there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Remaining {
    /// The instance.
    pub name: String,
    /// Why it is still there, for people; empty if the machine is not drained.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Whether it stays until its operator does something.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
}

/// A unit's texts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionPage {
    /// Every text that the unit has had since it was submitted, newest first.
    pub revisions: Vec<Revision>,
}

/// One text of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Revision {
    /// Its number; the first text has 1.
    pub revision: u64,
    /// The hash of its options, as lists show it.
    pub hash: String,
    /// Whether it is the present one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub current: bool,
    /// How many instances are assigned with this text.
    pub instances: u32,
}

/// A wish for an earlier text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Rollback {
    /// The number of the text; none for the last one that differs from the present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// A wish for a restart: `{}`, for there is nothing to say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Restart {}

/// A unit that has an earlier text again, as a new revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RolledBack {
    /// The unit.
    pub name: String,
    /// The revision before.
    pub from: u64,
    /// The revision whose text it has again.
    pub to: u64,
    /// The number that this text has now.
    pub revision: u64,
}

/// Machines that are missing, so many that their units are moved slowly: one machine is given up at
/// a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Missing {
    /// One sentence for people.
    pub says: String,
    /// Those that are still waited for, in the order in which they are given up.
    pub waits: Vec<MissingMachine>,
    /// In how many milliseconds the first of them is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_in_ms: Option<u64>,
}

/// A machine that is missing and waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct MissingMachine {
    /// Its id.
    pub id: String,
    /// How many instances are assigned to it.
    pub instances: u32,
}

/// Every error's body: `{"error":{"code":404,"message":"…"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What an [`ErrorBody`] holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorDetail {
    /// The HTTP status.
    pub code: u16,
    /// One sentence.
    pub message: String,
    /// The reason behind it, where the sentence is fleet 1.0's and says less than is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl ErrorDetail {
    /// An error that one sentence says all of.
    pub fn new(code: u16, message: impl Into<String>) -> ErrorDetail {
        ErrorDetail { code, message: message.into(), detail: None }
    }
}

/// `PUT /units/<template>/replicas`: sets the wanted count, and launches the template if it was
/// inactive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scale {
    /// The count; with `relative`, what to add to it.
    pub replicas: i64,
    /// Whether `replicas` is added to the present count.
    #[serde(default)]
    pub relative: bool,
}

/// The answer to [`Scale`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Scaled {
    /// The template.
    pub name: UnitName,
    /// The count before.
    pub before: u32,
    /// The count now.
    pub replicas: u32,
}

/// One line of `GET /follow?unit=a.service&unit=web@.service`: how far the units are. The stream
/// sends one at once, and one at each change; each is whole. It never ends by itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// The store's revision that this line shows.
    pub revision: i64,
    /// Whether anybody leads; without a leader nothing new is placed.
    pub leader: Option<MachineId>,
    /// One entry a unit asked for, in the order asked.
    pub units: Vec<UnitProgress>,
}

/// How far one unit is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UnitProgress {
    /// The unit or template asked for.
    pub name: String,
    /// Whether it is in the store; false after it was destroyed.
    pub exists: bool,
    /// What the user wants.
    pub desired_state: String,
    /// Whether it runs on every machine that fits.
    pub global: bool,
    /// The wanted count of a scaled template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// One entry an instance and machine: those wanted, and those that are not gone yet.
    pub instances: Vec<InstanceProgress>,
    /// Whether everything is as wanted: all that is wanted is placed and in its state, and all else
    /// is gone.
    pub done: bool,
}

/// How far one instance is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceProgress {
    /// `web@3.service`.
    pub name: String,
    /// Whether it is wanted (else it is on its way out).
    pub wanted: bool,
    /// Where it was placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// The address of that machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Why there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Whether the machine's agent has acted on its newest assignment.
    pub acknowledged: bool,
    /// What the machine reports of it, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<InstanceStatus>,
    /// Whether this instance is as wanted.
    pub done: bool,
    /// Why no machine can take it: each reason with the number of machines it holds for. Empty when
    /// it can be placed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub misfits: Vec<MisfitCount>,
}

/// A reason, and for how many machines it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MisfitCount {
    /// `lacks region=eu`.
    pub reason: String,
    /// How many machines.
    pub machines: usize,
}

/// `GET /events`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventPage {
    /// The events, oldest first.
    pub events: Vec<Event>,
}

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    /// fleetd's version.
    pub version: String,
}
