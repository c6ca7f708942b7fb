//! How far units are: the lines that a follower is sent.

use serde::{Deserialize, Serialize};

use crate::model::{InstanceStatus, Why};
use crate::name::MachineId;

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
    /// What it waits for while it has no machine and may get one, for people; empty if that is not
    /// known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub waits: String,
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
