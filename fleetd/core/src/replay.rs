//! A snapshot as a leader planned it, to be kept in a file: planned again anywhere, it gives the
//! same plan, byte for byte.

use serde::{Deserialize, Serialize};

use crate::model::Snapshot;
use crate::name::MachineId;
use crate::plan::{Plan, plan};

/// Everything that `plan` saw, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The format, [`FORMAT`](crate::model::FORMAT).
    pub v: u32,
    /// The version of the fleetd that planned.
    pub version: String,
    /// Who led.
    pub leader: MachineId,
    /// In which term: the revision that created the leader key.
    pub term: i64,
    /// The digest of the plan, see [`Plan::digest`]; the events of a commit name it.
    pub plan: String,
    /// What was planned, with the time and the machines that got time to return.
    pub snapshot: Snapshot,
}

impl Saved {
    /// Plans it again. Whether that is what the leader planned is for the caller to see, by the
    /// digests.
    pub fn replay(&self) -> Plan {
        plan(&self.snapshot)
    }
}
