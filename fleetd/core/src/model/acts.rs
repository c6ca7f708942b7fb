//! Acts: what users did, kept until the leader has told it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Availability, DesiredState, RolloutAction, Unknown};
use crate::app::AppName;
use crate::name::{MachineId, UnitName};

/// `acts/<id>`: what a user did. Written by the API in the transaction that does it, and deleted by
/// the leader in the transaction with the event that tells of it: so each act is told once, whoever
/// leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// The format, [`FORMAT`](super::FORMAT).
    pub v: u32,
    /// Who, as far as fleetd knows: `root@h1`, the name in a certificate, an address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When, by the clock of the machine that was asked, in milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
    /// The units that it is about, at most [`Act::MAX_UNITS`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub units: BTreeSet<UnitName>,
    /// The machine that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// What.
    pub did: Did,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What a user did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Did {
    /// Gave the unit a text.
    Submitted {
        /// The text's number.
        revision: u64,
        /// What is other than before, see [`changed`](crate::unit::changed::changed); empty for a
        /// first text.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        change: String,
        /// The state that the unit is to be in.
        desired: DesiredState,
        /// The count that came with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replicas: Option<u32>,
    },
    /// Gave the unit an earlier text again.
    RolledBack {
        /// The number of the text before.
        from: u64,
        /// The number that the text had.
        to: u64,
        /// The number that it has now.
        revision: u64,
    },
    /// Set the count of the template.
    Scaled {
        /// The count before.
        from: u32,
        /// The count now.
        to: u32,
    },
    /// Set the desired state of the unit.
    SetState {
        /// The state before.
        from: DesiredState,
        /// The state now.
        to: DesiredState,
    },
    /// Asked for a restart.
    Restarted,
    /// Destroyed the unit.
    Destroyed,
    /// Asked for a move to the machine.
    Moved,
    /// Said whether the machine takes instances, and keeps those that it has.
    SetAvailability {
        /// What holds now.
        to: Availability,
        /// Why, in the operator's words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Set labels of the machine; an empty value takes one away.
    Labelled {
        /// The labels.
        labels: BTreeMap<String, String>,
    },
    /// Changed a configuration.
    Configured {
        /// Its name.
        config: AppName,
        /// Its revision now.
        revision: u64,
        /// The keys that changed; their values may be nobody's business.
        keys: BTreeSet<String>,
    },
    /// Removed a configuration.
    ConfigRemoved {
        /// Its name.
        config: AppName,
    },
    /// Applied an application.
    Applied {
        /// Its name.
        app: AppName,
        /// Its revision now.
        revision: u64,
        /// How many units that changed or removed.
        units: usize,
    },
    /// Destroyed an application with its units.
    AppDestroyed {
        /// Its name.
        app: AppName,
    },
    /// Imported an exported cluster.
    Imported {
        /// How many units that changed.
        units: usize,
    },
    /// Paused, resumed or undid the unit's rollout.
    SteeredRollout {
        /// Which of them.
        action: RolloutAction,
    },
    /// Changed the rules of reboots.
    SetReboots {
        /// How many machines of each group may reboot at once; the default again if that is unset.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        slots: BTreeMap<String, Option<u32>>,
        /// When they may; empty for always.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<String>,
    },
    /// Asked for leave to reboot the machine, which is drained for that.
    AskedToReboot {
        /// The group whose slot it takes.
        group: String,
    },
    /// Got leave to reboot the machine.
    MayReboot {
        /// The group whose slot it has.
        group: String,
    },
    /// Gave the machine's reboot lock back, or took it away.
    ReleasedReboot {
        /// The group whose slot it had.
        group: String,
    },
    /// Destroyed a volume of the machine, with all data in it.
    DestroyedVolume {
        /// Its name.
        volume: String,
    },
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

impl Act {
    /// How many units an act names.
    pub const MAX_UNITS: usize = 100;

    /// How many keys and labels an act names.
    pub const MAX_KEYS: usize = 20;

    /// An act without units and machine.
    pub fn new(by: impl Into<String>, at_ms: u64, did: Did) -> Act {
        Act {
            v: super::FORMAT,
            by: by.into(),
            at_ms,
            units: BTreeSet::new(),
            machine: None,
            did,
            unknown: Unknown::new(),
        }
    }

    /// The same of a unit.
    pub fn of_unit(self, unit: &UnitName) -> Act {
        self.of_units([unit])
    }

    /// The same of units, as many as it names.
    pub fn of_units<'a>(self, units: impl IntoIterator<Item = &'a UnitName>) -> Act {
        Act { units: units.into_iter().take(Act::MAX_UNITS).cloned().collect(), ..self }
    }

    /// The same of a machine.
    pub fn on(self, machine: &MachineId) -> Act {
        Act { machine: Some(machine.clone()), ..self }
    }
}
