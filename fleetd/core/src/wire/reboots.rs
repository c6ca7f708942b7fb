//! Reboots: FleetLock's bodies, and what operators see and set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a FleetLock client asks with: `POST /v1/pre-reboot` and `/v1/steady-state`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FleetLock {
    /// Who asks.
    pub client_params: ClientParams,
}

/// Who asks for a reboot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClientParams {
    /// The machine: its id, or what Zincati makes of it.
    pub id: String,
    /// Its group: letters, digits, dots and dashes.
    pub group: String,
}

/// FleetLock's form of an error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FleetLockRefusal {
    /// A word for programs, of a few.
    pub kind: String,
    /// The reason, for people.
    pub value: String,
}

/// `POST /reboots/<machine>`: asks for leave to reboot it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RebootWish {
    /// The machine's group, `default` if it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
}

/// `GET /reboots`: the rules of reboots, and the locks that machines hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RebootsState {
    /// How many machines may reboot at once, by group; 1 for a group that is not named.
    pub slots: BTreeMap<String, u32>,
    /// When machines may reboot; empty: at any time.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub window: String,
    /// Whether machines may reboot now, by the window.
    pub open: bool,
    /// The locks, by machine.
    pub locks: Vec<RebootLockState>,
}

/// A lock that a machine holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RebootLockState {
    /// The machine.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// Its group.
    pub group: String,
    /// How far it is.
    pub state: RebootState,
    /// Since when it has its slot, in milliseconds since 1970.
    pub since_ms: u64,
    /// When it was allowed to reboot, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_ms: Option<u64>,
    /// Who asked, as far as fleetd knows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// What it waits for, while it is drained; empty if for nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub waits: String,
}

/// How far a machine is that is to reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RebootState {
    /// Its units move off it.
    #[default]
    Draining,
    /// It may reboot, and is there.
    Granted,
    /// It may reboot, and is not there.
    Away,
}

impl RebootState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            RebootState::Draining => "draining",
            RebootState::Granted => "granted",
            RebootState::Away => "away",
        }
    }
}

/// `PATCH /reboots`: changes of the rules. What is not named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RebootsPatch {
    /// How many machines may reboot at once, by group; null forgets the number of a group, which
    /// is 1 then.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<String, Option<u32>>,
    /// When machines may reboot, as in `Sat,Sun 02:00..05:00`, in UTC; empty: at any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
}
