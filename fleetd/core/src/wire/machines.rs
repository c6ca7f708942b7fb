//! Machines: what they are, whether they take instances, which are missing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::Reason;
use crate::model::{Availability, Note};
use crate::name::UnitName;

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
    /// Since when it has been registered without a break, by its own clock, in milliseconds since
    /// 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Who set that, when and why; absent if it takes instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<AvailabilityNote>,
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
    /// The machines that were lost within the last hour, and have not come back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostMachine>,
}

/// A machine that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct LostMachine {
    /// Its id.
    pub id: String,
    /// The address that it was known by.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub primary_ip: String,
    /// When it was given up, in milliseconds since 1970.
    pub lost_ms: u64,
    /// How many instances moved off it.
    pub instances: u64,
    /// Those that are named, and where each is now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Moved>,
}

/// An instance that moved off a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Moved {
    /// The instance.
    pub name: String,
    /// Where it is now; empty if it is nowhere.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
}

/// Whether a machine takes instances, and what an operator waits for who drains it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct MachineAvailability {
    /// What is wanted of it.
    pub availability: Availability,
    /// Who set that, when and why; absent if it takes instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<AvailabilityNote>,
    /// What is assigned to it or still reported by it, by name, global units left out.
    pub instances: Vec<Remaining>,
}

/// Who set a machine's availability, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AvailabilityNote {
    /// Who, as far as fleetd knows: `root@h1`, the name in a certificate, an address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why, in the operator's words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Until when the machine should be drained, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Whether what is left then is stopped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl From<Note> for AvailabilityNote {
    fn from(note: Note) -> AvailabilityNote {
        let Note { by, at_ms, reason, deadline_ms, force } = note;
        AvailabilityNote { by, at_ms, reason, deadline_ms, force }
    }
}

/// What an operator wants of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AvailabilityWish {
    /// Whether it takes instances.
    #[serde(deserialize_with = "known_availability")]
    pub availability: Availability,
    /// Why, for other operators; at most 1024 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Within how many milliseconds a drain should be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<u64>,
    /// Whether what is left after that is stopped, past budgets and without a place elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// A wish for a move: `POST /units/<instance>/move`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MoveWish {
    /// Where to.
    #[serde(rename = "machineID")]
    pub machine_id: String,
}

/// How a move stands: the answer to [`MoveWish`], and `GET /units/<instance>/move`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct MoveState {
    /// The instance.
    pub name: String,
    /// Where it is assigned; empty if it is nowhere.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// Where it was asked to, while that has yet to be done.
    #[serde(rename = "toMachineID", skip_serializing_if = "String::is_empty")]
    pub to_machine_id: String,
    /// What it waits for, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub waits: String,
    /// Why the last wish was refused, within a few minutes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refused: String,
    /// Whether it is up, as its machine reports.
    pub active: bool,
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
    /// The same as data: its `kind` and the fields of that kind. None also if it is of a kind that
    /// a later version knows.
    #[serde(flatten)]
    pub stays: Option<Stays>,
    /// Whether it stays until its operator does something.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
}

impl Remaining {
    /// An instance that is there, and why if the machine is drained.
    pub fn new(name: &UnitName, stays: Option<Stays>) -> Remaining {
        let why = stays.as_ref().map(Stays::to_string).unwrap_or_default();
        let stuck = stays == Some(Stays::Nowhere);
        Remaining { name: name.to_string(), why, stays, stuck }
    }
}

/// Why an instance is still on a machine that is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Stays {
    /// Nobody leads, so nothing is moved.
    NoLeader,
    /// It waits for its turn, or for the end of another copy.
    Waits {
        /// What it waits for.
        waits_for: Reason,
    },
    /// It is being stopped.
    Stopping,
    /// The leader has yet to move it.
    Undecided,
    /// No other machine can take it, and absent machines may be about to return.
    Returning,
    /// It goes where another unit goes, which waits.
    Beside {
        /// That unit.
        unit: String,
    },
    /// No other machine can take it.
    Nowhere,
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stays::NoLeader => f.write_str("nobody leads at the moment, so nothing is moved"),
            Stays::Waits { waits_for } => write!(f, "{waits_for}"),
            Stays::Stopping => f.write_str("it is being stopped"),
            Stays::Undecided => f.write_str("the leader is about to move it"),
            Stays::Returning => f.write_str(
                "no other machine can take it; machines that are absent may be about to return",
            ),
            Stays::Beside { unit } => write!(f, "it goes where {unit} goes, which waits"),
            Stays::Nowhere => f.write_str("no other machine can take it"),
        }
    }
}

/// Machines that are missing, so many that their units are moved slowly: one machine is given up at
/// a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Missing {
    /// One sentence for people.
    pub says: String,
    /// How many machines are missing that should run something, those that were given up lately
    /// included.
    pub missing: usize,
    /// How many machines are there.
    pub there: usize,
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
