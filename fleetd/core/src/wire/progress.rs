//! How far units are: the lines that a follower is sent.

use serde::{Deserialize, Serialize};

use crate::event::{Reason, reason};
use crate::model::{InstanceStatus, Why};
use crate::name::MachineId;
use crate::plan::Misfit;
use crate::rollout::{Failure, Kind, State};

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
    /// How far its text is, if anybody looks after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// One entry an instance and machine: those wanted, and those that are not gone yet.
    pub instances: Vec<InstanceProgress>,
    /// Whether everything is as wanted: all that is wanted is placed and in its state, and all else
    /// is gone.
    pub done: bool,
}

/// How far a unit's text is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// How it is.
    pub state: State,
    /// The number of the text.
    pub revision: u64,
    /// The number of the last good text, which all get again when this one fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<u64>,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What is new.
    #[serde(default)]
    pub kind: Kind,
    /// Whether it waits for a user to resume or undo it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// Since when it is in its state, in milliseconds since 1970.
    #[serde(default)]
    pub since_ms: u64,
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
    /// Whether it is a spare instance, which goes once all others are as wanted. It is never done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
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
    /// What it waits for while it has no machine and may get one, or before it is changed, for
    /// people; empty if that is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub waits: String,
    /// The same as data.
    #[serde(deserialize_with = "reason::read", skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Reason>,
}

/// A reason, and for how many machines it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MisfitCount {
    /// `lacks the metadata region=eu`, for people.
    pub reason: String,
    /// How many machines.
    pub machines: usize,
    /// The reason as data: its `kind` and the fields of that kind. None from an older version, and
    /// if it is of a kind that a later version knows.
    #[serde(flatten)]
    pub misfit: Option<Misfit>,
}

impl MisfitCount {
    /// A reason that holds for so many machines.
    pub fn new(misfit: &Misfit, machines: usize) -> MisfitCount {
        MisfitCount { reason: misfit.to_string(), machines, misfit: Some(misfit.clone()) }
    }
}

impl InstanceProgress {
    /// Notes what it waits for, as data and for people.
    pub fn wait_for(&mut self, reason: Option<Reason>) {
        self.waits = reason.as_ref().map(Reason::to_string).unwrap_or_default();
        self.waits_for = reason;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;

    #[test]
    fn why_no_machine_fits_is_a_sentence_and_data() {
        let values = ["nvme", "ssd"].map(str::to_string).into();
        let counted = MisfitCount::new(&Misfit::Lacks { key: "disk".to_string(), values }, 2);
        let written = json!({
            "reason": "lacks the metadata disk=nvme or ssd", "machines": 2,
            "kind": "lacks", "key": "disk", "values": ["nvme", "ssd"],
        });
        assert_eq!(to_value(&counted).unwrap(), written);
        assert_eq!(from_value::<MisfitCount>(written).unwrap(), counted);
        let none = MisfitCount::new(&Misfit::NoMachines, 0);
        assert_eq!(from_value::<MisfitCount>(to_value(&none).unwrap()).unwrap(), none);
    }

    #[test]
    fn a_reason_of_an_older_or_later_version_is_its_sentence() {
        let read = |written: Value| from_value::<MisfitCount>(written).unwrap();
        let older = read(json!({"reason": "is full", "machines": 1}));
        let later = json!({"reason": "is full", "machines": 1, "kind": "too-hot", "degrees": 90});
        assert_eq!((&older.reason[..], &older.misfit), ("is full", &None));
        assert_eq!(read(later), older);
        let waits = json!({"name": "web@1.service", "waitsFor": {"kind": "tide"}});
        let waits: InstanceProgress = from_value(waits).unwrap();
        assert_eq!(waits.waits_for, Some(Reason::Other));
    }
}
