//! What is kept of fenced units (`Fence=yes`) and of the keepers that they live by.

use serde::{Deserialize, Serialize};

use super::{Unknown, Why};

/// How a placement is fenced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fenced {
    /// The store's revision when it was placed: greater with each placement of the unit. The unit
    /// has it in its environment.
    pub token: u64,
    /// How long its stop may take from the moment that systemd begins it, in milliseconds: of all
    /// texts that this placement had.
    pub stop_ms: u64,
    /// The units that it starts after. systemd stops it first, and their stop waits for its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
}

/// A fenced instance that was taken off a machine and is not known to have ended there: it is
/// placed nowhere until it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Off {
    /// The generation of the assignment that took it off.
    pub generation: u64,
    /// How it was fenced.
    pub fence: Fenced,
    /// Why it moves; none if it was not wanted any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// How often it was moved because it failed.
    #[serde(default)]
    pub moves: u32,
}

/// `keepers/<id>`: a machine's keeper is alive. Written by the keeper under its lease.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Keeper {
    /// The format, [`FORMAT`](super::FORMAT).
    pub v: u32,
    /// The kernel's boot id.
    #[serde(default)]
    pub boot_id: String,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `fences/<id>`: what holds for a machine's keeper, also when it is gone. Written by the keeper,
/// under no lease, at each of its registrations and when it ends in good order: so its revision
/// tells one life of the keeper from the next.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Fence {
    /// The format, [`FORMAT`](super::FORMAT).
    pub v: u32,
    /// The guard's `WatchdogSec=`, in milliseconds.
    pub watchdog_ms: u64,
    /// Whether it ended after systemd had stopped all that was bound to it.
    #[serde(default)]
    pub released: bool,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A machine's keeper as the planner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeeperState {
    /// The revision of `fences/<id>`; 0 if there is none.
    pub life: i64,
    /// Whether `keepers/<id>` is there.
    pub held: bool,
    /// Whether it is there and of another boot than the machine that is registered: what that
    /// machine reports says nothing of the copies that live by this keeper. One of the two is on a
    /// copied disk, or the machine has rebooted before the lease ran out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_another_boot: bool,
    /// See [`Fence::watchdog_ms`].
    pub watchdog_ms: u64,
    /// See [`Fence::released`].
    pub released: bool,
    /// For how long this leader has seen the key absent, in milliseconds of its own clock. A new
    /// leader counts anew.
    pub silent_ms: u64,
}
