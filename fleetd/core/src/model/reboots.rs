//! Reboots by lock: who may reboot, how many at once, and when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Availability, Note, Unknown};
use crate::name::MachineId;

/// How many machines of a group reboot at once, unless it is said.
pub const DEFAULT_SLOTS: u32 = 1;

/// The group of machines that name none, and of those whose group has no slots of its own.
pub const DEFAULT_GROUP: &str = "default";

/// `reboots`: the rules of reboots, and the locks that machines hold. One document, so that nobody
/// takes a slot that another one has just taken. Written by the API.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reboots {
    /// The format, [`FORMAT`](super::FORMAT).
    pub v: u32,
    /// How many machines may reboot at once, by group; [`DEFAULT_SLOTS`] where nothing is said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<String, u32>,
    /// When machines may reboot, see [`Window`](crate::reboots::Window); none: at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// The locks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub locks: BTreeMap<MachineId, RebootLock>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Reboots {
    /// The most groups that have a number of slots of their own.
    pub const MAX_GROUPS: usize = 100;

    /// The group that a machine counts in: one that nobody has given slots shares those of
    /// [`DEFAULT_GROUP`], so that a mistyped name gets none of its own.
    pub fn group<'a>(&self, group: &'a str) -> &'a str {
        if self.slots.contains_key(group) { group } else { DEFAULT_GROUP }
    }

    /// How many machines of a group may reboot at once.
    pub fn slots(&self, group: &str) -> u32 {
        self.slots.get(group).copied().unwrap_or(DEFAULT_SLOTS)
    }
}

/// A machine that reboots, or is about to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RebootLock {
    /// Its group: each has its own slots.
    #[serde(default)]
    pub group: String,
    /// Since when it has its slot, in milliseconds since 1970.
    #[serde(default)]
    pub since_ms: u64,
    /// When it was allowed to reboot, in milliseconds since 1970; none while it is being drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_ms: Option<u64>,
    /// Who asked, as far as fleetd knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// The note of the drain that the lock began: while the machine has it, the drain is the
    /// lock's.
    #[serde(default)]
    pub drain: Note,
    /// What the machine was before that drain.
    #[serde(default, skip_serializing_if = "Availability::is_active")]
    pub before: Availability,
    /// Who had set that, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note_before: Option<Note>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}
