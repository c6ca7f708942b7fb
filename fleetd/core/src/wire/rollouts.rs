//! Rollouts: how far they are, and what users want of them.

use serde::{Deserialize, Serialize};

use crate::event::{Reason, reason};
use crate::model::RolloutAction;
use crate::name::MachineId;
use crate::rollout::{Failure, Kind, State};

/// How far a unit's rollout is: `GET /rollouts/<unit>`, and the answer to [`RolloutWanted`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The unit.
    pub name: String,
    /// What is new.
    pub kind: Kind,
    /// How it is.
    pub state: State,
    /// Whether it goes no further by itself, and nothing is on its way.
    pub over: bool,
    /// The number of the unit's text.
    pub revision: u64,
    /// The number of the last good text, if all can return to another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<u64>,
    /// The revision of the configuration that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<u64>,
    /// Since when it is in its state, in milliseconds since 1970; 0 if the leader has yet to look.
    #[serde(default)]
    pub since_ms: u64,
    /// How many instances should run.
    pub wanted: u32,
    /// How many have what is new.
    pub new: u32,
    /// How many have not.
    pub old: u32,
    /// How many are healthy with what they should have now: what is new, or what all return to.
    pub healthy: u32,
    /// Whether it waits for a user to resume or undo it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// The instance that is waited for, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_on: Option<WaitsOn>,
    /// What else is waited for, as data.
    #[serde(default, deserialize_with = "reason::read", skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Reason>,
    /// Who brought it into its state, if a user did and fleetd knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed: String,
}

/// An instance that is to become healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WaitsOn {
    /// The instance.
    pub instance: String,
    /// Where.
    #[serde(rename = "machineID")]
    pub machine_id: MachineId,
    /// Since when it is there, or was changed, in milliseconds since 1970.
    pub since_ms: u64,
}

/// `GET /rollouts`: those that are not over, by unit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutPage {
    /// The token of the next page; empty on the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// They.
    pub rollouts: Vec<RolloutStatus>,
}

/// What a user wants of a rollout: `POST /rollouts/<unit>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RolloutWanted {
    /// What.
    pub action: RolloutAction,
}
