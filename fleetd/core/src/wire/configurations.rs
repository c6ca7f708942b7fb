//! Configurations over HTTP.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::configuration::Changes;

/// `GET /config`: the configurations, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigPage {
    /// The token of the next page, if there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// The configurations.
    pub configs: Vec<ConfigSummary>,
}

/// One line of [`ConfigPage`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigSummary {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: u64,
    /// How many values it has.
    pub keys: usize,
    /// When it was changed last, in milliseconds since 1970.
    pub changed_ms: u64,
}

/// `GET /config/{name}`: the values as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// Its revision; 0 where there is no such configuration, which only a follower is told.
    pub revision: u64,
    /// When it was changed last, in milliseconds since 1970.
    pub changed_ms: u64,
    /// The values, by key.
    pub values: BTreeMap<String, String>,
}

/// `PATCH /config/{name}`: what to change, in one write. Makes the configuration if there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConfigPatch {
    /// The values to set, by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// The keys to remove. One that is not there is no error.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub remove: BTreeSet<String>,
    /// Only if this is its revision; 0 if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<u64>,
}

/// `POST /config/{name}/rollback`: gives a configuration the values of an earlier revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConfigRollback {
    /// Which; without it, the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// What a change of a configuration did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigChange {
    /// Its name.
    pub name: String,
    /// Its revision now; the one before if nothing changed.
    pub revision: u64,
    /// What changed.
    pub changes: Changes,
    /// The units whose instances are restarted.
    pub restarts: Vec<String>,
    /// The units whose instances reload.
    pub reloads: Vec<String>,
}

/// `GET /config/{name}/history`: the revisions that are kept, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigHistory {
    /// The revisions.
    pub revisions: Vec<ConfigRevision>,
}

/// One revision of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigRevision {
    /// Its number.
    pub revision: u64,
    /// When it was made, in milliseconds since 1970.
    pub changed_ms: u64,
    /// Whether it is the present one.
    pub current: bool,
    /// What it changed; of the oldest one that is kept, all its values.
    pub changes: Changes,
}
