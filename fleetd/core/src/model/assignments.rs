//! Assignments: what each machine should run, and why there.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::{DesiredState, Fenced, Off, Unknown, is_zero, is_zero_u32};
use crate::name::{MachineId, UnitName};
use crate::unit::file::ShortHash;

/// `assignments/<id>`: everything that one machine should run. Written by the leader; absent means
/// "no opinion", not "nothing".
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Assignment {
    /// The format, [`FORMAT`](super::FORMAT).
    pub v: u32,
    /// Counts the versions of this document.
    pub generation: u64,
    /// Instance to placement. In JSON what many have in common stands once, see the top of
    /// `compact.rs`.
    #[serde(with = "crate::compact")]
    pub instances: BTreeMap<UnitName, Placement>,
    /// Fenced instances that were taken off, until they are known to have ended here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub off: BTreeMap<UnitName, Off>,
    /// When the machine was given up as lost, in milliseconds since 1970; none once it is assigned
    /// anything again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_ms: Option<u64>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// One instance on one machine, as decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The record that it comes from: itself, or the template that it is a replica of.
    pub unit: UnitName,
    /// Which text of that unit, `revisions/<unit>/<revision>`.
    pub revision: u64,
    /// The short hash of that text.
    pub hash: ShortHash,
    /// Loaded or launched.
    pub state: DesiredState,
    /// Why here.
    pub why: Why,
    /// When it was put here, in milliseconds since 1970.
    pub since_ms: u64,
    /// When its text or its restarts were last changed there, in milliseconds since 1970; 0 if they
    /// never were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changed_ms: u64,
    /// How often it was moved because it failed.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub moves: u32,
    /// Restarts asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restart: u64,
    /// The revision of its configuration that it must have at least; 0: none is asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub config: u64,
    /// How it is fenced, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Box<Fenced>>,
}

impl Placement {
    /// Whether this is one of a scaled template's counted instances.
    pub fn is_replica(&self) -> bool {
        self.unit.is_template()
    }

    /// Whether this is a spare instance of a scaled template, beyond its count.
    pub fn is_spare(&self) -> bool {
        self.why == Why::Spare
    }
}

/// Why an instance was put on its machine. For people, so a reason of a later version is read as
/// [`Why::Other`]: while machines are upgraded one by one, a leader's new words must not make an
/// assignment unreadable. [`Why::Spare`] is for the planner, too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Of the machines that fit, it had the fewest units.
    Fewest,
    /// Its `MachineID=` names this machine.
    Pinned,
    /// It runs wherever that unit runs (`MachineOf=`).
    Beside(UnitName),
    /// It runs on every machine that fits (`Global=true`).
    Global,
    /// Its machine was lost.
    Lost(MachineId),
    /// Its machine left in good order.
    Left(MachineId),
    /// It failed again and again on that machine.
    Failed(MachineId),
    /// Its old machine fits no longer.
    Unfit(MachineId),
    /// A unit on that machine replaces it (`Replaces=`).
    Replaced(MachineId),
    /// That machine is drained.
    Drained(MachineId),
    /// A user moved it off that machine.
    Moved(MachineId),
    /// It stands in for instances of its template that are taken down (`UpdateOrder=start-first`).
    Spare,
    /// For a reason that a later version knows.
    Other,
}

impl<'de> Deserialize<'de> for Why {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Why, D::Error> {
        let reason = serde_json::Value::deserialize(deserializer)?;
        let (word, whose) = match &reason {
            serde_json::Value::Object(one) => one
                .iter()
                .next()
                .map_or(("", None), |(word, whose)| (word.as_str(), whose.as_str())),
            plain => (plain.as_str().unwrap_or_default(), None),
        };
        let (unit, machine) =
            (whose.and_then(|name| UnitName::parse(name).ok()), whose.and_then(MachineId::parse));
        let why = match (word, unit, machine) {
            ("fewest", None, None) => Why::Fewest,
            ("pinned", None, None) => Why::Pinned,
            ("global", None, None) => Why::Global,
            ("spare", None, None) => Why::Spare,
            ("beside", Some(unit), _) => Why::Beside(unit),
            ("lost", _, Some(machine)) => Why::Lost(machine),
            ("left", _, Some(machine)) => Why::Left(machine),
            ("failed", _, Some(machine)) => Why::Failed(machine),
            ("unfit", _, Some(machine)) => Why::Unfit(machine),
            ("replaced", _, Some(machine)) => Why::Replaced(machine),
            ("drained", _, Some(machine)) => Why::Drained(machine),
            ("moved", _, Some(machine)) => Why::Moved(machine),
            _ => Why::Other,
        };
        Ok(why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Fewest => f.write_str("fewest units of the machines that fit"),
            Why::Pinned => f.write_str("MachineID names this machine"),
            Why::Beside(unit) => write!(f, "MachineOf: {unit} is here"),
            Why::Global => f.write_str("global unit"),
            Why::Spare => f.write_str("a spare instance, until those that are changed are healthy"),
            Why::Lost(machine) => write!(f, "machine {} was lost", machine.short()),
            Why::Left(machine) => write!(f, "machine {} left", machine.short()),
            Why::Failed(machine) => {
                write!(f, "failed again and again on machine {}", machine.short())
            }
            Why::Replaced(machine) => {
                write!(f, "a unit on machine {} replaces it", machine.short())
            }
            Why::Drained(machine) => write!(f, "machine {} is drained", machine.short()),
            Why::Moved(machine) => {
                write!(f, "moved off machine {} on purpose", machine.short())
            }
            Why::Unfit(machine) => write!(f, "machine {} fits no longer", machine.short()),
            Why::Other => f.write_str("for a reason that this version does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_as_it_was_written_and_a_later_versions_reason_spoils_nothing() {
        let machine = || MachineId::new("4dbc7f3b");
        let known = [
            Why::Fewest,
            Why::Pinned,
            Why::Beside(UnitName::trusted("db.service")),
            Why::Global,
            Why::Lost(machine()),
            Why::Left(machine()),
            Why::Failed(machine()),
            Why::Unfit(machine()),
            Why::Replaced(machine()),
            Why::Drained(machine()),
            Why::Moved(machine()),
            Why::Spare,
            Why::Other,
        ];
        for why in known {
            let text = serde_json::to_string(&why).unwrap();
            assert_eq!(serde_json::from_str::<Why>(&text).unwrap(), why, "{text}");
        }
        for text in [
            "\"better\"",
            "{\"cheaper-than\":\"4dbc7f3b\"}",
            "{\"lost\":{\"machine\":\"a\",\"since\":7}}",
            "{}",
            "7",
        ] {
            assert_eq!(serde_json::from_str::<Why>(text).unwrap(), Why::Other, "{text}");
        }
    }
}
