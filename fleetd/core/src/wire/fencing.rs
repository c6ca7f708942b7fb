//! Fenced units: whose lease their copies live by, and what they wait for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::{Reason, reason};
use crate::name::MachineId;
use crate::time::utc;

/// `GET /units/<name>/fencing`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct FencingPage {
    /// One entry a fenced instance and machine, by name; none for a unit that is not fenced.
    pub fencing: Vec<Fencing>,
}

/// How a fenced instance (`Fence=yes`) stands: by whose lease its copy lives and until when, or
/// what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Fencing {
    /// The instance.
    pub name: String,
    /// Where it is placed; a machine that fell silent keeps it until its copy there has surely
    /// ended.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// The fencing token of that placement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// The lease that its copy there lives by, as that machine's keeper says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<KeeperLease>,
    /// Why the lease is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unknown: String,
    /// Set while the leader waits before it places it, because another copy may be alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<FenceWait>,
}

/// The lease of a machine's keeper. What is fenced is stopped there by systemd when it runs out
/// without having been renewed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct KeeperLease {
    /// The life of the keeper.
    pub life: i64,
    /// Whether this machine is the whole cluster: then nobody else could run a copy, and the lease
    /// is systemd's watchdog alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// Until when it holds without another renewal, in milliseconds since 1970 by that machine's
    /// clock.
    pub until_ms: u64,
    /// The same, in milliseconds from the answer.
    pub left_ms: u64,
}

/// What a fenced instance waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct FenceWait {
    /// The instance.
    pub name: String,
    /// Where another copy may be alive.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// One sentence for people.
    pub why: String,
    /// The same as data.
    #[serde(deserialize_with = "reason::read", skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Reason>,
    /// When that copy has surely ended, if nothing changes, in milliseconds since 1970 by the
    /// leader's clock; none if nobody can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// The same, in milliseconds from the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

/// `GET /fencing`: what one machine itself knows of fenced units.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct OwnFencing {
    /// The machine that answers.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// Its keeper's lease, if it has a keeper that holds one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<KeeperLease>,
    /// Whether it leads.
    pub leads: bool,
    /// If it leads: the fenced instances that wait.
    pub waits: Vec<FenceWait>,
}

impl fmt::Display for Fencing {
    /// One line, without the instance's name: `token 17; machine 4dbc7f3b holds its lease until
    /// 2026-11-24T15:40:01Z (6 s)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = MachineId::new(self.machine_id.as_str());
        let machine = machine.short();
        if let Some(waits) = &self.waits {
            return write!(f, "{waits}");
        }
        if let Some(token) = self.token {
            write!(f, "token {token}; ")?;
        }
        match &self.lease {
            Some(lease) if lease.alone => {
                write!(
                    f,
                    "machine {machine} is the whole cluster, so its systemd alone keeps one copy"
                )
            }
            Some(lease) => {
                let (until, left) = (utc(lease.until_ms), lease.left_ms.div_ceil(1000));
                write!(
                    f,
                    "machine {machine} holds its lease until {until} ({left} s), and renews it"
                )
            }
            None => write!(
                f,
                "until when machine {machine} holds its lease is not known: {}",
                self.unknown
            ),
        }
    }
}

impl fmt::Display for FenceWait {
    /// Why it waits, with the time where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match (self.until_ms, self.left_ms) {
            (Some(until), Some(left)) => {
                write!(f, ", about {} ({} s)", utc(until), left.div_ceil(1000))
            }
            _ => Ok(()),
        }
    }
}
