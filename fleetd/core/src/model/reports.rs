//! Reports: what each machine observed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Unknown, is_zero, is_zero_u32};
use crate::health::Health;
use crate::name::UnitName;
use crate::unit::file::ShortHash;

/// `reports/<id>`: what one machine observed. Written by its agent, under its lease.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// The format, [`FORMAT`](super::FORMAT).
    pub v: u32,
    /// The generation of the assignment that this report has seen and acted on.
    pub generation: u64,
    /// Instance to what systemd says of it. In JSON as in an assignment.
    #[serde(with = "crate::compact")]
    pub instances: BTreeMap<UnitName, InstanceStatus>,
    /// The last failures on this machine, the newest first, also of what has left it since: at most
    /// [`MAX_FAILURES`], of one unit [`MAX_FAILURES_A_UNIT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failed>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// How many failures a report keeps: some kilobytes.
pub const MAX_FAILURES: usize = 64;

/// How many of these are of one unit, of a template's instances together.
pub const MAX_FAILURES_A_UNIT: usize = 10;

/// An instance failed in this way, once or several times without another failure of it in between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The instance.
    pub instance: UnitName,
    /// systemd's `Result`.
    pub result: String,
    /// The main process's exit status or signal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// When it was seen last, in milliseconds since 1970.
    pub at_ms: u64,
    /// When it was seen first.
    pub first_ms: u64,
    /// How often it was seen. Of what systemd itself restarts faster than fleet looks, some are
    /// not.
    pub count: u32,
}

/// What systemd says of one unit, in systemd's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InstanceStatus {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load: String,
    /// `active`, `activating`, `deactivating`, `inactive`, `failed`.
    pub active: String,
    /// The unit type's own state: `running`, `exited`, `dead`, `listening`, `waiting`.
    pub sub: String,
    /// systemd's `Result` when it failed: `exit-code`, `signal`, `timeout`, `oom-kill`,
    /// `start-limit-hit`; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// The main process's exit status or signal number, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Why, in systemd's words from the journal, where it could not even run the program: what file
    /// is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often it was restarted since it last ran well, by the agent or by systemd (`Restart=`);
    /// at most once a pause, however often systemd did it.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub restarts: u32,
    /// Since when it is in this active state, in milliseconds since 1970.
    pub since_ms: u64,
    /// The short hash of the text that it runs.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub hash: ShortHash,
    /// Whether the agent has started it since it was placed (it may have ended since).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub launched: bool,
    /// Whether it has ended, and is not started again: its work is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// How many of the restarts asked for the agent has carried out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restart: u64,
    /// The revision of the configuration that it has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub config: u64,
    /// Whether it came up so lately that nobody knows yet whether it stays up: for 2 s after each
    /// start, longer where the leader moved it because it failed. Agents before this field never
    /// say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settling: bool,
    /// How it answers its health check while it runs; none if its text has none, or its agent knows
    /// of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// When the agent starts it again, in milliseconds since 1970, while it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_ms: Option<u64>,
    /// Whether it is no longer assigned here: it is being stopped, or about to be forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Whether it is assigned as a spare instance (`UpdateOrder=start-first`): lists read reports
    /// alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
    /// It was restarted up to the limit in vain: the leader may move it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gave_up: bool,
    /// Whether it stays failed, as its file says of such a failure (`OnFailure.…=give-up`): it is
    /// neither restarted nor moved. The message says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stays_down: bool,
    /// What went wrong outside systemd's states: a refused file, a failed call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether that is that systemd does not stop it: it runs on, whatever is wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop_refused: bool,
    /// The image that is being pulled for it, and how far that is. What was started before runs on
    /// until it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulls: Option<String>,
}

impl InstanceStatus {
    /// Whether it runs as wanted.
    pub fn is_active(&self) -> bool {
        self.active == "active" || self.active == "reloading"
    }

    /// Whether nothing is known against it by a health check: it has none, or its answers are good.
    pub fn is_well(&self) -> bool {
        self.health.as_ref().is_none_or(|health| *health == Health::Healthy)
    }

    /// Whether its machine took none of it: nothing of it was started there, and the message says
    /// why.
    pub fn is_refused(&self) -> bool {
        self.message.is_some()
            && !self.launched
            && ["inactive", "failed"].contains(&self.active.as_str())
    }
}

fn is_empty(text: &str) -> bool {
    text.is_empty()
}
