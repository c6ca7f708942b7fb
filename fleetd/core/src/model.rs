//! The nouns: units, machines, placements, reports, and the snapshot that the planner sees. Each
//! document is JSON in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use crate::gist::{Canary, Unit};
use crate::name::{MachineId, UnitName};

mod acts;
mod assignments;
mod fences;
mod machines;
mod moves;
mod reboots;
mod reports;
mod rollouts;
mod units;

pub use acts::{Act, Did};
pub use assignments::{Assignment, Placement, Why};
pub use fences::{Fence, Fenced, Keeper, KeeperState, Off};
pub use machines::{Availability, Capacity, Machine, Note, Rival, Settings};
pub use moves::{Move, Wish};
pub use reboots::{DEFAULT_GROUP, DEFAULT_SLOTS, RebootLock, Reboots};
pub use reports::{Failed, InstanceStatus, MAX_FAILURES, MAX_FAILURES_A_UNIT, Report};
pub use rollouts::{RolloutAction, RolloutWish};
pub use units::{DesiredState, UnitRecord};

/// The format number that every document carries as `v`. Readers keep fields that they do not know.
pub const FORMAT: u32 = 1;

/// The largest document, in bytes: etcd refuses requests over 1.5 MiB, and a commit holds more than
/// the document.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// The most replicas one template may have. More than the tests reach (a million), less than a slip
/// of the finger.
pub const MAX_REPLICAS: u32 = 1_000_000;

/// Fields of a document that this version does not know; kept when it is rewritten.
pub type Unknown = BTreeMap<String, serde_json::Value>;

/// `leader`: who leads, and since when. Written by the election, under the leader's lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leader {
    /// The format, [`FORMAT`].
    pub v: u32,
    /// The leading machine.
    pub machine: MachineId,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Everything that the planner sees, at one revision of the store, with the time as a value.
/// Written as JSON and read again it gives the same plan; it holds no unit's text, so no secrets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The store's revision.
    pub revision: i64,
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
    /// All units.
    pub units: BTreeMap<UnitName, Arc<Unit>>,
    /// The machines whose lease is alive, metadata merged with the operator's settings.
    pub machines: BTreeMap<MachineId, Arc<Machine>>,
    /// What each machine should run.
    pub assignments: BTreeMap<MachineId, Arc<Assignment>>,
    /// What each machine observed.
    pub reports: BTreeMap<MachineId, Arc<Report>>,
    /// Machines that are absent but not called lost yet: the store was away, and they get time to
    /// return.
    pub settling: BTreeSet<MachineId>,
    /// Machines that said goodbye: their absence is no accident.
    pub left: BTreeSet<MachineId>,
    /// The machines that an operator cordoned or drains.
    #[serde(default)]
    pub availability: BTreeMap<MachineId, Availability>,
    /// When what is left on a drained machine is stopped, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evictions: BTreeMap<MachineId, u64>,
    /// Moves that users asked for, by instance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moves: BTreeMap<UnitName, Wish>,
    /// The keepers of fenced units, for each machine that ever had one.
    pub keepers: BTreeMap<MachineId, KeeperState>,
}

pub(crate) fn is_zero(n: &u64) -> bool {
    *n == 0
}

pub(crate) fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}
