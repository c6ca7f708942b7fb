//! Machines: what they say of themselves, and what an operator says of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use super::{Unknown, is_zero};
use crate::address;
use crate::name::MachineId;

/// `machines/<id>`: a machine that runs fleetd. Written by its agent, under its lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The format, [`FORMAT`](super::FORMAT).
    pub v: u32,
    /// Its `/etc/machine-id`.
    pub id: MachineId,
    /// The address that it is known by; empty if it is not known.
    #[serde(default, deserialize_with = "address::read_host")]
    pub address: String,
    /// Its labels, from its configuration; those that an operator set over the API are in
    /// `settings/<id>`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What it has.
    #[serde(default)]
    pub capacity: Capacity,
    /// The version of its fleetd.
    #[serde(default)]
    pub version: String,
    /// The kernel's boot id: tells a reboot from a restart of fleetd.
    #[serde(default)]
    pub boot_id: String,
    /// Since when it has been registered without a break, by its own clock, in milliseconds since
    /// 1970; 0 if it runs an older version.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub since_ms: u64,
    /// Where other machines reach its API, for journals and status: `http://10.0.0.1:4100`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "address::read_api"
    )]
    pub api: Option<String>,
    /// The version of its podman, as its Quadlet generator says it: `5.4.2`; empty if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub podman: Option<String>,
    /// The names of the secrets that its podman has, without what is in them; `None` if it does not
    /// say: an older fleetd, more than [`Machine::MAX_SECRETS`], or podman's list of them cannot be
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BTreeSet<String>>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Machine {
    /// The most secrets that a machine names.
    pub const MAX_SECRETS: usize = 1_000;

    /// The most bytes that their names take together.
    pub const MAX_SECRETS_BYTES: usize = 64 * 1024;

    /// One of which nothing else is known.
    pub fn new(id: MachineId, address: impl Into<String>) -> Machine {
        Machine {
            v: super::FORMAT,
            id,
            address: address.into(),
            metadata: BTreeMap::new(),
            capacity: Capacity::default(),
            version: String::new(),
            boot_id: String::new(),
            since_ms: 0,
            api: None,
            podman: None,
            secrets: None,
            unknown: Unknown::new(),
        }
    }
}

/// `rivals/<id>`: a fleetd that was started with the id of a machine which lives, and refused.
/// Written by it, under a lease of its own, so that the other one can say so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rival {
    /// The format, [`FORMAT`](super::FORMAT).
    pub v: u32,
    /// The address that it would be known by.
    #[serde(default)]
    pub address: String,
    /// The name of its host.
    #[serde(default)]
    pub host: String,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capacity {
    /// Processors that it may use.
    pub cpus: u32,
    /// Main memory, in bytes.
    pub memory_bytes: u64,
}

/// What an operator lets a machine run. Global units run on it whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// It takes instances.
    #[default]
    Active,
    /// It keeps what it has, and takes nothing new but what must run beside it.
    Cordoned,
    /// What can run elsewhere leaves it, as `MaxUnavailable=` permits.
    Draining,
}

impl Availability {
    /// Whether nobody said otherwise.
    pub fn is_active(&self) -> bool {
        *self == Availability::Active
    }

    /// Reads the word; `None` for any other.
    pub fn parse(text: &str) -> Option<Availability> {
        [Availability::Active, Availability::Cordoned, Availability::Draining]
            .into_iter()
            .find(|word| word.as_str() == text)
    }

    /// The word, as commands and the API use it.
    pub fn as_str(self) -> &'static str {
        match self {
            Availability::Active => "active",
            Availability::Cordoned => "cordoned",
            Availability::Draining => "draining",
        }
    }
}

impl<'de> Deserialize<'de> for Availability {
    /// A later version's word keeps new instances off: an unreadable document would keep the leader
    /// from planning at all.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Availability, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Availability::parse(&word).unwrap_or(Availability::Cordoned))
    }
}

/// Who set a machine's availability, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Note {
    /// Who, as far as fleetd knows: `root@h1`, the name in a certificate, an address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When, in milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Until when the machine should be drained, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Whether what is left then is stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl Note {
    /// The longest reason, in bytes.
    pub const MAX_REASON_BYTES: usize = 1024;
}

/// `settings/<id>`: what an operator set for a machine over the API. An empty value masks a
/// configured label, as in fleet 1.0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Settings {
    /// The format, [`FORMAT`](super::FORMAT).
    pub v: u32,
    /// Labels on top of the machine's own.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Whether it takes instances, and keeps those that it has.
    #[serde(default, skip_serializing_if = "Availability::is_active")]
    pub availability: Availability,
    /// Who set that, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Settings {
    /// When what is left on the machine is stopped, in milliseconds since 1970; `None` if it is
    /// not.
    pub fn evicts_at_ms(&self) -> Option<u64> {
        let note = self.note.as_ref().filter(|note| note.force);
        let note = note.filter(|_| self.availability == Availability::Draining);
        note.and_then(|note| note.deadline_ms)
    }

    /// The labels that hold for `machine`: its own, then those set over the API; empty values are
    /// absent.
    pub fn merged_metadata(&self, machine: &Machine) -> BTreeMap<String, String> {
        let mut all = machine.metadata.clone();
        all.extend(self.metadata.clone());
        all.retain(|_, value| !value.is_empty());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_versions_word_for_a_machine_keeps_new_instances_off() {
        let read = |text: &str| serde_json::from_str::<Settings>(text).unwrap().availability;
        assert_eq!(read(r#"{"v":1}"#), Availability::Active);
        assert_eq!(read(r#"{"v":1,"availability":"draining"}"#), Availability::Draining);
        assert_eq!(read(r#"{"v":1,"availability":"asleep"}"#), Availability::Cordoned);
    }
}
