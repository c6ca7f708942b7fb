//! Units: what a user submitted, and wants of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{FORMAT, RolloutWish, Unknown, is_zero};
use crate::configuration::Asked;
use crate::name::UnitName;
use crate::unit::family::is_counted;

/// What the user wants of a unit, in fleet's three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// The format, [`FORMAT`](super::FORMAT).
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
    /// The configuration that its instances must have at least; none if it was never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Asked>,
    /// What a user wants of its rollout; none if nobody ever wanted anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutWish>,
    /// What a later version wrote.
    #[serde(flatten, deserialize_with = "crate::brief::unknown")]
    pub unknown: Unknown,
}

impl UnitRecord {
    /// One that was just submitted: its first text, on no machine.
    pub fn new(name: UnitName, text: impl Into<String>) -> UnitRecord {
        UnitRecord {
            v: FORMAT,
            name,
            text: text.into(),
            revision: 1,
            desired: DesiredState::Inactive,
            replicas: None,
            created_ms: 0,
            restart: 0,
            restart_of: BTreeMap::new(),
            config: None,
            rollout: None,
            unknown: Unknown::new(),
        }
    }

    /// Sets the count. Restarts of replicas that it takes away are forgotten.
    pub fn set_replicas(&mut self, replicas: u32) {
        self.replicas = Some(replicas);
        self.restart_of.retain(|instance, _| is_counted(instance, Some(replicas)));
    }
}
