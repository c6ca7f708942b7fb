//! The answer: what a plan says, in words that the rest of fleet reads. Nothing here decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::misfit::Misfit;
use super::missing::Missing;
use crate::model::{Assignment, Why};
use crate::name::{MachineId, UnitName};

/// The planner's answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[must_use = "a plan that nobody commits changes nothing"]
pub struct Plan {
    /// What changes and why, for people.
    pub changes: Vec<Change>,
    /// What is wanted but fits nowhere, by unit.
    pub unplaced: Vec<Unplaced>,
    /// The next version of each document that changes: what the engine commits.
    pub documents: BTreeMap<MachineId, Assignment>,
    /// Set while so many machines are missing that their instances are moved slowly.
    pub slowed: Option<Missing>,
    /// Units of which `MaxUnavailable=` lets no more be taken down for now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rolling: Vec<Rolling>,
    /// Instances that start once another unit is healthy (`Needs=`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needing: Vec<Needing>,
    /// Fenced instances that wait, because another copy of theirs may still be alive.
    pub held: Vec<Held>,
    /// What must hold when a document is written, beside the document itself: the life of that
    /// machine's keeper (0: it never had one), and that it is away. Write these documents first:
    /// the others build on them.
    pub guards: BTreeMap<MachineId, i64>,
    /// The documents that put a fenced instance on a machine where it was not: no two such writes
    /// may pass each other.
    pub fenced: BTreeSet<MachineId>,
    /// The wishes for a move that need not be kept any longer, by instance.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub answered: BTreeMap<UnitName, Answered>,
    /// When to look again even if nothing happens, in milliseconds since 1970: a pause ends then.
    pub wake_at_ms: Option<u64>,
}

impl Plan {
    /// The first 12 digits of the SHA-1 of the plan as JSON: two plans with the same digest are the
    /// same, byte for byte.
    pub fn digest(&self) -> String {
        let mut sha1 = Sha1::new();
        // Nothing of a plan can fail to be written, and a hash takes every byte.
        let _ = serde_json::to_writer(std::io::BufWriter::new(&mut sha1), self);
        sha1.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// One item of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// An instance is put on a machine.
    Place {
        /// The instance.
        instance: UnitName,
        /// Where.
        machine: MachineId,
        /// Why there.
        why: Why,
    },
    /// An instance is taken off a machine.
    Retire {
        /// The instance.
        instance: UnitName,
        /// From where.
        machine: MachineId,
        /// Why.
        why: Retired,
    },
    /// An instance stays, and its text, state or restart count changes.
    Update {
        /// The instance.
        instance: UnitName,
        /// Where.
        machine: MachineId,
    },
}

impl Change {
    /// The instance that changes.
    pub fn instance(&self) -> &UnitName {
        match self {
            Change::Place { instance, .. }
            | Change::Retire { instance, .. }
            | Change::Update { instance, .. } => instance,
        }
    }
}

/// Why an instance is taken off a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Retired {
    /// Its unit was destroyed, unloaded or scaled below its number.
    Unwanted,
    /// The machine is gone without a word.
    Lost,
    /// The machine left in good order.
    Left,
    /// The machine no longer fits.
    Unfit(Misfit),
    /// It failed again and again.
    Failed,
    /// That unit is there, and replaces it.
    Replaced(UnitName),
    /// The machine is drained.
    Drained,
    /// A user moves it.
    Moved,
    /// Another machine runs it already.
    Twice,
}

/// What became of a wish for a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answered {
    /// The wish, see [`Wish::revision`](crate::model::Wish).
    pub wish: i64,
    /// Where to.
    pub to: MachineId,
    /// Why it was not granted; none if the instance is there.
    pub refused: Option<Immovable>,
}

/// Why an instance does not move to a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Immovable {
    /// There is no such instance, or nobody wants it.
    Unwanted,
    /// It runs on every machine that fits.
    Global,
    /// It runs where another unit runs (`MachineOf=`).
    Follows,
    /// That machine is not there.
    Absent,
    /// That machine cannot take it.
    Unfit {
        /// Why.
        misfit: Misfit,
    },
    /// What runs beside it cannot run there.
    Beside,
    /// It is on no machine, and is placed like all others.
    Nowhere,
}

impl fmt::Display for Immovable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Immovable::Unwanted => f.write_str("it is not loaded or launched"),
            Immovable::Global => {
                f.write_str("it is a global unit, which runs on every machine that fits")
            }
            Immovable::Follows => {
                f.write_str("it runs where the unit of its MachineOf= runs; move that")
            }
            Immovable::Absent => f.write_str("that machine is not there"),
            Immovable::Unfit { misfit } => write!(f, "the machine {misfit}"),
            Immovable::Beside => f.write_str("what runs beside it cannot run there"),
            Immovable::Nowhere => f.write_str("it is on no machine to move off"),
        }
    }
}

/// A fenced instance that waits for its other copy to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The instance.
    pub instance: UnitName,
    /// Where the other copy may be alive.
    pub machine: MachineId,
    /// What is waited for.
    pub until: Until,
}

/// Instances of one unit that wait for another unit before they start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Needing {
    /// The unit or template.
    pub unit: UnitName,
    /// Its instances that wait.
    pub instances: Vec<UnitName>,
    /// What they wait for.
    pub needs: UnitName,
}

/// What ends the wait of a fenced instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// The machine is there: its report that the copy is gone.
    Report,
    /// The machine is silent: its keeper still holds its lease, so systemd lets the copy run.
    KeeperEnds,
    /// The machine is silent and its keeper gone: systemd has surely ended the copy at this time,
    /// in milliseconds since 1970.
    Time(u64),
    /// The machine is silent, and a unit that starts after this one may take for ever to stop.
    Ever,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.machine.short();
        match self.until {
            Until::Report => {
                write!(f, "fenced: waits until machine {machine} reports its copy stopped")
            }
            Until::KeeperEnds => {
                write!(
                    f,
                    "fenced: machine {machine} is silent, but its keeper holds its lease and the \
                        copy there runs on"
                )
            }
            Until::Time(_) => write!(
                f,
                "fenced: waits until its copy on the lost machine {machine} has surely ended"
            ),
            Until::Ever => write!(
                f,
                "fenced: what starts after it on the lost machine {machine} may take for ever to \
                    stop"
            ),
        }
    }
}

impl fmt::Display for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Retired::Unwanted => f.write_str("no longer wanted there"),
            Retired::Lost => f.write_str("the machine was lost"),
            Retired::Left => f.write_str("the machine left"),
            Retired::Unfit(misfit) => write!(f, "the machine {misfit}"),
            Retired::Failed => f.write_str("failed there again and again"),
            Retired::Replaced(other) => write!(f, "{other} is there and replaces it"),
            Retired::Drained => f.write_str("the machine is drained"),
            Retired::Moved => f.write_str("moved on purpose"),
            Retired::Twice => f.write_str("another machine runs it already"),
        }
    }
}

/// Instances of one unit that fit nowhere, and why: each reason with the number of machines that it
/// holds for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unplaced {
    /// The unit or template.
    pub unit: UnitName,
    /// Its instances that fit nowhere.
    pub instances: Vec<UnitName>,
    /// Why, most machines first.
    pub misfits: Vec<(Misfit, usize)>,
}

/// A unit whose instances are changed a few at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rolling {
    /// The unit or template.
    pub unit: UnitName,
    /// Its instances that wait to be updated, restarted or moved.
    pub waiting: Vec<UnitName>,
    /// How many are unavailable now, or will be when this plan is carried out.
    pub unavailable: usize,
    /// How many it wants; with spare instances, without those that fit on no machine by default.
    pub wanted: usize,
    /// How many may be unavailable; none if it has no such budget, but what runs beside it has.
    pub most: Option<usize>,
    /// Set if spare instances stand in for what is taken down (`UpdateOrder=start-first`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spares: Option<Spares>,
}

/// How a unit with spare instances is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spares {
    /// How many instances are up, spare ones counted.
    pub up: usize,
    /// Why no machine can run a spare one, if none can.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub misfits: BTreeSet<Misfit>,
}

impl fmt::Display for Rolling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rolling { waiting, unavailable, wanted, most, .. } = self;
        if let Some(Spares { up, misfits }) = &self.spares {
            let (waiting, are) = (waiting.len(), if *up == 1 { "is" } else { "are" });
            write!(
                f,
                "{waiting} to go: {up} {are} up, spare ones counted, and UpdateOrder=start-first \
                    keeps {wanted} up"
            )?;
            for (n, misfit) in misfits.iter().enumerate() {
                f.write_str(if n > 0 { "; " } else { "; no machine can run a spare one: " })?;
                write!(f, "{misfit}")?;
            }
            return Ok(());
        }
        match most {
            Some(most) => {
                let are = if *unavailable == 1 { "is" } else { "are" };
                write!(
                    f,
                    "{} to go: {unavailable} of {wanted} {are} unavailable, and MaxUnavailable \
                        lets at most {most} be so",
                    waiting.len()
                )
            }
            None => write!(
                f,
                "{} to go: MaxUnavailable of what runs beside lets no more be taken down",
                waiting.len()
            ),
        }
    }
}
