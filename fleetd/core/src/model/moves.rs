//! Moves that users asked for.

use serde::{Deserialize, Serialize};

use super::Unknown;
use crate::name::MachineId;

/// `moves/<instance>`: a user wants the instance on that machine. Written by the API, and deleted
/// by the leader once it has moved the instance or found that it cannot: a wish is granted once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// The format, [`FORMAT`](super::FORMAT).
    pub v: u32,
    /// Where to.
    pub to: MachineId,
    /// Who asked for it, as far as fleetd knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When, in milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A move that was asked for, as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Where to.
    pub to: MachineId,
    /// The revision of `moves/<instance>`: tells one wish from the next.
    pub revision: i64,
}
