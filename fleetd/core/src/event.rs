//! Events: what the leader decided and saw, and what users did, why, at which revision and in which
//! term, in bounded space.
//!
//! One event tells of one transaction: everything that it changed, gathered by machine and reason,
//! with instances as [`Numbers`]. [`decisions`] says what a plan does, [`News`] what else happened
//! since it was last told.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{FORMAT, Snapshot, Unknown};
use crate::name::{MachineId, UnitName};
use crate::plan::Plan;

mod acts;
mod decisions;
mod news;
mod numbers;
pub(crate) mod reason;
#[cfg(test)]
mod tests;

pub use decisions::decisions;
pub use news::News;
pub use numbers::Numbers;
pub use reason::{Difference, Reason};

/// The largest event, in bytes: a thousand of the largest are still a store's backup that can be
/// read by a person.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;

/// What the frame of an event may take of that: times, names, numbers.
const FRAME_BYTES: usize = 1024;

/// `events/<id>`: what one transaction of the leader did. Written by the leader, with the
/// transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// The format, [`FORMAT`].
    pub v: u32,
    /// Its name: the term and a number counting up within it, so that names sort by time.
    pub id: String,
    /// When, by the leader's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who led.
    pub leader: MachineId,
    /// In which term: the revision that created the leader key.
    pub term: i64,
    /// The store's revision that the leader had seen when it decided; 0 if it decided nothing, and
    /// tells only what users did.
    pub revision: i64,
    /// The digest of the plan that this is a part of, see
    /// [`Plan::digest`](crate::plan::Plan::digest); empty where nothing was planned.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan: String,
    /// What was done and seen.
    pub items: Vec<Item>,
    /// How many items did not fit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// One thing that was done or seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Item {
    /// What.
    pub what: What,
    /// Where, or of which machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// Of which units: replicas by their template with their numbers, all others by their own name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<UnitName, Numbers>,
    /// Why. Events of older versions have a text, under the name `why`.
    #[serde(
        default,
        alias = "why",
        deserialize_with = "reason::read",
        skip_serializing_if = "Option::is_none"
    )]
    pub reason: Option<Reason>,
}

/// What was done or seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The machine began to lead.
    Leads,
    /// The machine ended its term by itself.
    Resigned,
    /// The machine came, or came back.
    Registered,
    /// The machine is absent, and gets time to return.
    Settling,
    /// The machine was given up.
    Lost,
    /// The machine said goodbye.
    Left,
    /// The units were taken off the machine.
    TookOff,
    /// The units were put on the machine.
    Placed,
    /// The units stay on the machine, and their text, state or restart count changed.
    Updated,
    /// The units gave up on the machine: the agent restarted them up to its limit in vain.
    GaveUp,
    /// No machine can run the units.
    Nowhere,
    /// The fenced units wait: another copy of theirs may still be alive on the machine.
    Waits,
    /// The unit's instances are changed a few at a time (`MaxUnavailable=`).
    Rolling,
    /// So many machines are missing that their units are moved slowly.
    Slowed,
    /// No longer so.
    UsualSpeed,
    /// A new text failed, or a user wants it no longer, and all get the last good one again.
    Undone,
    /// A new text or a restart failed, or a user has yet to say how it goes on: nobody else gets
    /// it.
    Paused,
    /// A user said that it goes on.
    Resumed,
    /// A new text failed, and there is no other, or its unit wants it all the same.
    TextFailed,
    /// A user did something: the reason says who and what.
    User,
    /// The units failed on the machine, and were started again there.
    Restarted,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

/// Everything that a plan says, by machine, and at the end what fits nowhere.
pub fn all_of(plan: &Plan, snapshot: &Snapshot) -> Vec<Item> {
    decisions(plan, snapshot)
        .into_values()
        .flatten()
        .chain(plan.unplaced.iter().map(news::nowhere))
        .collect()
}

impl Event {
    /// An event of as many `items` as fit; the frame is the caller's to fill in.
    pub fn new(items: Vec<Item>) -> Event {
        let mut room = MAX_EVENT_BYTES - FRAME_BYTES;
        let mut kept = Vec::new();
        let mut left_out = 0;
        for item in items {
            // One that is too large must not keep out the smaller ones behind it.
            let bytes = serde_json::to_vec(&item).map_or(usize::MAX, |text| text.len() + 1);
            match room.checked_sub(bytes) {
                Some(rest) => {
                    room = rest;
                    kept.push(item);
                }
                None => left_out += 1,
            }
        }
        Event {
            v: FORMAT,
            id: String::new(),
            at_ms: 0,
            leader: MachineId::new(""),
            term: 0,
            revision: 0,
            plan: String::new(),
            items: kept,
            left_out,
            unknown: Unknown::new(),
        }
    }

    /// The event with only those items that concern the unit and the machine, if any do.
    pub fn about(mut self, unit: Option<&UnitName>, machine: Option<&str>) -> Option<Event> {
        self.items.retain(|item| {
            unit.is_none_or(|unit| item.concerns(unit))
                && machine.is_none_or(|id| item.machine.as_ref().is_some_and(|m| m.matches(id)))
        });
        (!self.items.is_empty()).then_some(self)
    }
}

impl Item {
    /// Something that concerns a machine and no unit.
    pub fn of_machine(what: What, machine: MachineId, reason: impl Into<Reason>) -> Item {
        let reason = Some(reason.into());
        Item { what, machine: Some(machine), units: BTreeMap::new(), reason }
    }

    /// Whether it tells of `unit`: of a template all its replicas, of a replica that one.
    pub fn concerns(&self, unit: &UnitName) -> bool {
        if self.units.contains_key(unit) {
            return true;
        }
        let (Some(template), Some(number)) = (unit.template(), unit.replica_number()) else {
            return false;
        };
        self.units.get(&template).is_some_and(|numbers| numbers.contains(number))
    }

    /// How many instances it tells of.
    pub fn instances(&self) -> usize {
        self.units.values().map(|numbers| numbers.len().max(1)).sum()
    }
}

impl fmt::Display for Item {
    /// One line: `placed web@{1-5}.service on 4dbc7f3b: fewest units of the machines that fit`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units: Vec<String> =
            self.units.iter().map(|(unit, numbers)| names(unit, numbers)).collect();
        let units = units.join(", ");
        let machine = self.machine.as_ref().map_or("?", |machine| machine.short());
        if let Some(Reason::User { by, did, .. }) = &self.reason {
            return acts::tell(f, by, did, &units, machine);
        }
        match self.what {
            What::Leads => write!(f, "machine {machine} leads")?,
            What::Resigned => write!(f, "machine {machine} leads no longer")?,
            What::Registered => write!(f, "machine {machine} registered")?,
            What::Settling => write!(f, "machine {machine} is absent and gets time to return")?,
            What::Lost => write!(f, "machine {machine} was lost")?,
            What::Left => write!(f, "machine {machine} left")?,
            What::TookOff => write!(f, "took {units} off {machine}")?,
            What::Placed => write!(f, "placed {units} on {machine}")?,
            What::Updated => write!(f, "updated {units} on {machine}")?,
            What::GaveUp => write!(f, "{units} gave up on {machine}")?,
            What::Nowhere => write!(f, "no machine can run {units}")?,
            What::Waits => write!(f, "{units} waits for its copy on {machine}")?,
            What::Rolling => write!(f, "{units} changes a few instances at a time")?,
            What::Slowed => f.write_str("moves are slowed")?,
            What::UsualSpeed => f.write_str("moves go at the usual speed again")?,
            What::Undone if self.machine.is_none() => {
                write!(f, "the new text of {units} is undone")?
            }
            What::Undone => write!(f, "the new text of {units} is undone, it failed on {machine}")?,
            What::Paused if self.machine.is_none() => write!(f, "the rollout of {units} waits")?,
            What::Paused => {
                write!(f, "the rollout of {units} goes no further, it failed on {machine}")?
            }
            What::Resumed => write!(f, "the rollout of {units} goes on")?,
            What::TextFailed => write!(f, "the text of {units} failed on {machine}")?,
            What::User => write!(f, "a user did something to {units}")?,
            What::Restarted => write!(f, "{units} failed on {machine} and was started again")?,
            What::Other => {
                write!(f, "something that this version does not know, of {machine} {units}")?
            }
        }
        // An update of which nobody knows what changed, a machine without an address.
        match self.reason.as_ref().map(Reason::to_string).filter(|reason| !reason.is_empty()) {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// `web@{1-5,9}.service`, or the name of a unit without numbers.
fn names(unit: &UnitName, numbers: &Numbers) -> String {
    match (numbers.len(), unit.is_template()) {
        (0, _) | (_, false) => unit.to_string(),
        (1, true) => format!("{}@{numbers}.{}", unit.prefix(), unit.suffix()),
        (_, true) => format!("{}@{{{numbers}}}.{}", unit.prefix(), unit.suffix()),
    }
}

/// Instances by the name that they are gathered under, with their numbers.
#[derive(Default)]
pub(crate) struct Gathered(BTreeMap<UnitName, Vec<u32>>);

impl Gathered {
    pub(crate) fn add(&mut self, instance: &UnitName) {
        match (instance.template(), instance.replica_number()) {
            (Some(template), Some(number)) => self.0.entry(template).or_default().push(number),
            _ => {
                self.0.entry(instance.clone()).or_default();
            }
        }
    }

    pub(crate) fn into_units(self) -> BTreeMap<UnitName, Numbers> {
        self.0.into_iter().map(|(unit, numbers)| (unit, numbers.into_iter().collect())).collect()
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
