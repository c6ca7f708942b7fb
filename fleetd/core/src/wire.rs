//! The HTTP bodies: fleet 1.0's v1 resources, and our additions as further fields and resources.
//! Shared by fleetd and fleetctl.

use serde::{Deserialize, Serialize};

use crate::event::Event;

mod apps;
mod configurations;
mod fencing;
mod hosts;
mod machines;
mod progress;
mod reboots;
mod rollouts;
mod units;

pub use apps::{
    App, AppFiles, AppPage, AppPlan, AppRemoved, FilePlan, InstanceOn, QuadletCheck,
    QuadletRefusal, QuadletsChecked, UnitPlan, Unplaced,
};
pub use configurations::{
    Config, ConfigChange, ConfigHistory, ConfigPage, ConfigPatch, ConfigRevision, ConfigRollback,
    ConfigSummary,
};
pub use fencing::{FenceWait, Fencing, FencingPage, KeeperLease, OwnFencing};
pub use hosts::{ImageCheck, ImageCheckPage, Unasked, Volume, VolumePage};
pub use machines::{
    AvailabilityNote, AvailabilityWish, LostMachine, Machine, MachineAvailability, MachinePage,
    Missing, MissingMachine, MoveState, MoveWish, Moved, Remaining, Stays,
};
pub use progress::{InstanceProgress, MisfitCount, Progress, Rollout, UnitProgress};
pub use reboots::{
    ClientParams, FleetLock, FleetLockRefusal, RebootLockState, RebootState, RebootWish,
    RebootsPatch, RebootsState,
};
pub use rollouts::{RolloutPage, RolloutStatus, RolloutWanted, WaitsOn};
pub use units::{
    FailurePage, Restart, Revision, RevisionPage, Rollback, RolledBack, Scale, Scaled, Unit,
    UnitFailure, UnitPage, UnitState, UnitStatePage,
};

/// The answer header that carries the store revision of a write: a follow from there misses
/// nothing.
pub const REVISION_HEADER: &str = "x-fleet-revision";

/// The answer header (and trailer-less stream's first header) that carries a remote command's exit
/// status.
pub const EXIT_STATUS_HEADER: &str = "x-fleet-exit-status";

/// The answer header that carries one warning a value, as `line N: …`.
pub const WARNING_HEADER: &str = "x-fleet-warning";

/// The answer header that names one machine a value which could not be asked, and why: the answer
/// lacks what is there.
pub const PROBLEM_HEADER: &str = "x-fleet-problem";

/// The first byte of a line of a journal that is no line of it, but says what went wrong. A line of
/// the journal that begins with this byte is sent with it twice, to those who asked for notes.
pub const NOTE_MARK: u8 = 0;

/// The largest request body, in bytes: a unit at its limit, escaped as JSON.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// How many items a page of a list holds, as in fleet 1.0.
pub const PAGE_ITEMS: usize = 100;

/// Every error's body: `{"error":{"code":404,"message":"…"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What an [`ErrorBody`] holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorDetail {
    /// The HTTP status.
    pub code: u16,
    /// One sentence.
    pub message: String,
    /// The reason behind it, where the sentence is fleet 1.0's and says less than is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl ErrorDetail {
    /// An error that one sentence says all of.
    pub fn new(code: u16, message: impl Into<String>) -> ErrorDetail {
        ErrorDetail { code, message: message.into(), detail: None }
    }
}

/// `GET /events`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventPage {
    /// The events, oldest first.
    pub events: Vec<Event>,
}

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    /// fleetd's version.
    pub version: String,
}
