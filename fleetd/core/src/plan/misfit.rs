//! Why a machine cannot take an instance: data for the user's screen, not an error.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::UnitName;

/// Why a machine cannot take an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Misfit {
    /// `MachineID=` names another machine.
    OtherMachine {
        /// The id that it names.
        id: String,
    },
    /// `MachineMetadata=` wants one of some values of a key.
    Lacks {
        /// The key.
        key: String,
        /// The values, one of which would do.
        values: BTreeSet<String>,
    },
    /// The machine has no podman, which a Quadlet unit needs.
    NoPodman,
    /// Its podman does not know this type of Quadlet unit.
    OldPodman {
        /// Its version, major and minor.
        version: String,
        /// The type.
        unit_type: String,
    },
    /// Its podman lacks a secret that the unit takes.
    NoSecret {
        /// The secret's name.
        secret: String,
    },
    /// A unit on the machine conflicts with it, or the other way round.
    Conflict {
        /// The unit there.
        unit: UnitName,
    },
    /// So many instances of its template are there, and `MaxPerMachine=` allows no more.
    Enough {
        /// How many it allows.
        most: u32,
    },
    /// `MachineOf=` names a unit that runs elsewhere, or nowhere.
    NotBeside {
        /// That unit.
        unit: String,
    },
    /// The machine's assignment is at its size limit.
    Full,
    /// An operator cordoned or drains it.
    Cordoned,
    /// It waits for a unit that waits for it.
    Circle,
    /// No machine is registered at all.
    NoMachines,
}

impl Misfit {
    /// Whether it is about what podman is asked for at a start: somebody may have forgotten to make
    /// a secret, and nobody has said that the unit is to leave the machine.
    pub(super) fn is_of_podman(&self) -> bool {
        matches!(self, Misfit::NoPodman | Misfit::OldPodman { .. } | Misfit::NoSecret { .. })
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::OtherMachine { id } => write!(f, "MachineID={id} names another machine"),
            Misfit::Lacks { key, values } => {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                write!(f, "lacks the metadata {key}={}", values.join(" or "))
            }
            Misfit::NoPodman => f.write_str("has no podman"),
            Misfit::OldPodman { version, unit_type } => {
                write!(f, "its podman {version} knows no .{unit_type}")
            }
            Misfit::NoSecret { secret } => write!(f, "its podman has no secret {secret}"),
            Misfit::Conflict { unit } => write!(f, "conflicts with {unit}, which is there"),
            Misfit::Enough { most } => {
                write!(f, "has as many instances of it as MaxPerMachine={most} allows")
            }
            Misfit::NotBeside { unit } => write!(f, "MachineOf={unit}, which is not there"),
            Misfit::Full => f.write_str("holds as many instances as one assignment can"),
            Misfit::Cordoned => f.write_str("is cordoned or drained"),
            Misfit::Circle => f.write_str("MachineOf goes round in a circle"),
            Misfit::NoMachines => f.write_str("no machine is registered"),
        }
    }
}

/// What of the machine itself does not suit: a [`Misfit`] that borrows, so that counting reasons
/// over thousands of machines copies none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unsuited<'a> {
    /// `MachineID=` names another machine.
    OtherMachine(&'a str),
    /// `MachineMetadata=` wants one of these values of this key.
    Lacks(&'a str, &'a BTreeSet<String>),
    /// It has no podman.
    NoPodman,
    /// Its podman, of this version, does not know this type of Quadlet unit.
    OldPodman((u32, u32), &'static str),
    /// Its podman lacks this secret.
    NoSecret(&'a str),
}

impl From<Unsuited<'_>> for Misfit {
    fn from(unsuited: Unsuited<'_>) -> Misfit {
        match unsuited {
            Unsuited::OtherMachine(id) => Misfit::OtherMachine { id: id.to_string() },
            Unsuited::NoPodman => Misfit::NoPodman,
            Unsuited::OldPodman((major, minor), unit_type) => Misfit::OldPodman {
                version: format!("{major}.{minor}"),
                unit_type: unit_type.to_string(),
            },
            Unsuited::NoSecret(secret) => Misfit::NoSecret { secret: secret.to_string() },
            Unsuited::Lacks(key, values) => {
                Misfit::Lacks { key: key.to_string(), values: values.clone() }
            }
        }
    }
}
