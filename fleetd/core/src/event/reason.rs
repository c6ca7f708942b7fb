//! Why something was done or seen, and what is waited for: data up to the screen. Its
//! [`Display`](fmt::Display) is the only place where that becomes English.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::acts;
use crate::model::{DesiredState, Did, InstanceStatus, Placement, Why};
use crate::name::{MachineId, UnitName};
use crate::plan::{Held, Misfit, Missing, Needing, Retired, Rolling, Spares, Unplaced, Until};

/// Why something was done or seen, or what is waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// Nobody led before.
    First,
    /// Another machine led before.
    After {
        /// Which.
        machine: MachineId,
        /// Whether it fell silent rather than resigned.
        silent: bool,
    },
    /// fleetd stops there.
    Stops,
    /// A machine came that was not known.
    Address {
        /// Its address.
        address: String,
    },
    /// A machine is back that was waited for.
    Back,
    /// What is assigned to a machine that went away.
    Ran {
        /// How many units.
        units: usize,
    },
    /// Why units were taken off.
    Removed {
        /// The reason.
        why: Retired,
    },
    /// Why units were placed there.
    Placed {
        /// The reason.
        why: Why,
    },
    /// What of units that stay has changed.
    Changed {
        /// The changes.
        changes: Vec<Difference>,
    },
    /// How units failed that were restarted in vain.
    Failed {
        /// systemd's `Result`: `exit-code`, `timeout`…
        #[serde(default, skip_serializing_if = "String::is_empty")]
        result: String,
        /// The exit status or signal of the main process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// How often they were restarted.
        restarts: u32,
        /// The words of a step that was refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// systemd's own words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        said: Option<String>,
    },
    /// Why no machine can run units.
    Misfits {
        /// The reasons, without the machines: one more that does not suit is no news.
        misfits: BTreeSet<Misfit>,
    },
    /// What fenced units wait for.
    Fenced {
        /// Where another copy may be alive.
        machine: MachineId,
        /// What ends the wait.
        until: Until,
    },
    /// What `MaxUnavailable=` lets happen for now.
    Rolling {
        /// How many instances are still to be changed.
        waiting: usize,
        /// How many are unavailable.
        unavailable: usize,
        /// How many are wanted.
        wanted: usize,
        /// How many may be unavailable; none if the budget is that of what runs beside it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most: Option<usize>,
    },
    /// What `UpdateOrder=start-first` lets happen for now.
    StartFirst {
        /// How many instances are still to be changed.
        waiting: usize,
        /// How many are up, spare ones counted.
        up: usize,
        /// How many are wanted.
        wanted: usize,
        /// Why no machine can run a spare instance, if none can.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        misfits: BTreeSet<Misfit>,
    },
    /// What starts once another unit is healthy (`Needs=`).
    Needs {
        /// That unit.
        unit: UnitName,
    },
    /// So many machines are missing that moves are slowed.
    Slowed {
        /// How many are missing.
        missing: usize,
        /// How many are there.
        there: usize,
    },
    /// A user asked for it.
    AskedFor {
        /// Who, as far as fleetd knows.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    /// What waits for a user, who has seen few instances with the new text.
    Canary,
    /// What a rollout waits for that is paused.
    Paused {
        /// Of which unit.
        unit: UnitName,
    },
    /// What waits for the leader, which has yet to plan it.
    Undecided,
    /// What waits for machines that are absent, and that get time to return.
    Returning,
    /// A user did it.
    User {
        /// Who, as far as fleetd knows; empty if it knows nothing.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
        /// When, by the clock of the machine that was asked, in milliseconds since 1970.
        #[serde(default)]
        at_ms: u64,
        /// What.
        did: Did,
    },
    /// How units failed that were started again.
    Restarted {
        /// systemd's `Result`: `exit-code`, `timeout`…
        #[serde(default, skip_serializing_if = "String::is_empty")]
        result: String,
        /// The exit status or signal of the main process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// How often they were restarted since they last ran well.
        restarts: u32,
    },
    /// Words, of a version that wrote no data.
    Said {
        /// The words.
        text: String,
    },
    /// Something that a later version knows.
    Other,
}

/// What of an instance that stays has changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Difference {
    /// It follows from another unit.
    Unit {
        /// Which now.
        to: UnitName,
    },
    /// It is to be in another state.
    State {
        /// The state before.
        from: DesiredState,
        /// The state now.
        to: DesiredState,
    },
    /// A restart was asked for.
    Restart,
    /// Its configuration changed.
    Configuration {
        /// The revision now.
        to: u64,
    },
    /// It runs another revision of its unit's file.
    Text {
        /// The revision before.
        from: u64,
        /// The revision now.
        to: u64,
    },
}

impl Reason {
    /// What an instance's placement says differently now.
    pub(super) fn changed(old: &Placement, new: &Placement) -> Reason {
        let mut changes = Vec::new();
        if old.unit != new.unit {
            changes.push(Difference::Unit { to: new.unit.clone() });
        }
        if (old.revision, &old.hash) != (new.revision, &new.hash) {
            changes.push(Difference::Text { from: old.revision, to: new.revision });
        }
        if old.state != new.state {
            changes.push(Difference::State { from: old.state, to: new.state });
        }
        if old.restart != new.restart {
            changes.push(Difference::Restart);
        }
        if old.config != new.config && new.config != 0 {
            changes.push(Difference::Configuration { to: new.config });
        }
        Reason::Changed { changes }
    }

    /// How an instance failed that was started again.
    pub(super) fn restarted(status: &InstanceStatus) -> Reason {
        let InstanceStatus { result, code, restarts, .. } = status;
        Reason::Restarted { result: result.clone(), code: *code, restarts: *restarts }
    }

    /// How an instance failed that was restarted in vain.
    pub(crate) fn failed(status: &InstanceStatus) -> Reason {
        Reason::Failed {
            result: status.result.clone(),
            code: status.code,
            restarts: status.restarts,
            message: status.message.clone(),
            said: status.reason.clone(),
        }
    }
}

impl From<&Held> for Reason {
    fn from(held: &Held) -> Reason {
        Reason::Fenced { machine: held.machine.clone(), until: held.until }
    }
}

impl From<&Rolling> for Reason {
    fn from(rolling: &Rolling) -> Reason {
        let Rolling { waiting, unavailable, wanted, most, .. } = rolling;
        let (unavailable, wanted, most) = (*unavailable, *wanted, *most);
        if let Some(Spares { up, misfits }) = rolling.spares.clone() {
            return Reason::StartFirst { waiting: waiting.len(), up, wanted, misfits };
        }
        Reason::Rolling { waiting: waiting.len(), unavailable, wanted, most }
    }
}

impl From<&Needing> for Reason {
    fn from(needing: &Needing) -> Reason {
        Reason::Needs { unit: needing.needs.clone() }
    }
}

impl From<&Missing> for Reason {
    fn from(missing: &Missing) -> Reason {
        Reason::Slowed { missing: missing.missing, there: missing.there }
    }
}

impl From<&Unplaced> for Reason {
    fn from(unplaced: &Unplaced) -> Reason {
        let misfits = unplaced.misfits.iter().map(|(misfit, _)| misfit.clone()).collect();
        Reason::Misfits { misfits }
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Reason {
        Reason::Said { text: text.to_string() }
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Reason {
        Reason::Said { text }
    }
}

/// Reads a reason. A text is of a version that wrote no data; what cannot be read is of a later
/// one, and must not make the event unreadable.
pub(crate) fn read<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Reason>, D::Error> {
    let read = match Option::<serde_json::Value>::deserialize(source)? {
        None => None,
        Some(serde_json::Value::String(text)) => {
            (!text.is_empty()).then_some(Reason::Said { text })
        }
        Some(data) => Some(Reason::deserialize(data).unwrap_or(Reason::Other)),
    };
    Ok(read)
}

/// The same where there always is a reason.
pub(crate) fn read_known<'de, D: Deserializer<'de>>(source: D) -> Result<Reason, D::Error> {
    Ok(read(source)?.unwrap_or(Reason::Other))
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::First => f.write_str("the first to do so"),
            Reason::After { machine, silent } => {
                let silent = if *silent { ", which fell silent" } else { "" };
                write!(f, "after machine {}{silent}", machine.short())
            }
            Reason::Stops => f.write_str("it stops"),
            Reason::Address { address } => f.write_str(address),
            Reason::Back => f.write_str("it is back"),
            Reason::Ran { units: 0 } => f.write_str("it ran nothing"),
            Reason::Ran { units: 1 } => f.write_str("it ran 1 unit"),
            Reason::Ran { units } => write!(f, "it ran {units} units"),
            Reason::Removed { why } => write!(f, "{why}"),
            Reason::Placed { why } => write!(f, "{why}"),
            Reason::Changed { changes } => {
                for (n, change) in changes.iter().enumerate() {
                    f.write_str(if n > 0 { ", " } else { "" })?;
                    write!(f, "{change}")?;
                }
                Ok(())
            }
            Reason::Failed { result, code, restarts, message, said } => {
                // A step that was refused has no result, but words of its own.
                match (message, code) {
                    (Some(message), _) if result.is_empty() => {
                        return write!(f, "{message}; tried {restarts} times");
                    }
                    _ if result.is_empty() => f.write_str("it failed again")?,
                    (_, Some(code)) => write!(f, "{result} ({code})")?,
                    (_, None) => f.write_str(result)?,
                }
                write!(f, " after {restarts} restarts")?;
                match said.as_ref().filter(|_| !result.is_empty()) {
                    Some(said) => write!(f, ": {said}"),
                    None => Ok(()),
                }
            }
            Reason::Misfits { misfits } => {
                // By their words: the order in which they were always told.
                let words: BTreeSet<String> = misfits.iter().map(Misfit::to_string).collect();
                f.write_str(&words.into_iter().collect::<Vec<_>>().join("; "))
            }
            Reason::Fenced { machine, until } => {
                let (machine, until) = (machine.clone(), *until);
                write!(f, "{}", Held { instance: UnitName::trusted(""), machine, until })
            }
            Reason::Rolling { waiting, unavailable, wanted, most } => {
                let unit = UnitName::trusted("");
                let waiting = vec![unit.clone(); *waiting];
                let (unavailable, wanted, most) = (*unavailable, *wanted, *most);
                let spares = None;
                write!(f, "{}", Rolling { unit, waiting, unavailable, wanted, most, spares })
            }
            Reason::StartFirst { waiting, up, wanted, misfits } => {
                let unit = UnitName::trusted("");
                let (waiting, wanted) = (vec![unit.clone(); *waiting], *wanted);
                let spares = Some(Spares { up: *up, misfits: misfits.clone() });
                let (unavailable, most) = (0, None);
                write!(f, "{}", Rolling { unit, waiting, unavailable, wanted, most, spares })
            }
            Reason::Needs { unit } => {
                write!(f, "waiting until {unit} is healthy on any machine (Needs=)")
            }
            Reason::Slowed { missing, there } => {
                let (missing, there) = (*missing, *there);
                write!(f, "{}", Missing { missing, there, waits: Vec::new(), next_ms: 0 })
            }
            Reason::User { by, at_ms: _, did } => acts::tell(f, by, did, "units", "a machine"),
            Reason::Restarted { result, code, restarts } => {
                let result = if result.is_empty() { "it failed" } else { result };
                f.write_str(result)?;
                if let Some(code) = code {
                    write!(f, " ({code})")?;
                }
                match restarts {
                    0 | 1 => Ok(()),
                    n => write!(f, ", {n} times since it last ran well"),
                }
            }
            Reason::AskedFor { by } if by.is_empty() => f.write_str("a user asked for it"),
            Reason::AskedFor { by } => write!(f, "{by} asked for it"),
            Reason::Canary => f.write_str("its canaries are healthy with the new text"),
            Reason::Paused { unit } => {
                write!(f, "its rollout waits for `fleetctl rollout resume {unit}` or undo")
            }
            Reason::Undecided => f.write_str("waiting for the leader's decision"),
            Reason::Returning => {
                f.write_str("waiting for machines that are absent and may be about to return")
            }
            Reason::Said { text } => f.write_str(text),
            Reason::Other => f.write_str("for a reason that this version does not know"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Unit { to } => write!(f, "follows from {to} now"),
            Difference::Text { from, to } => write!(f, "text {from} to {to}"),
            Difference::State { from, to } => write!(f, "{from} to {to}"),
            Difference::Restart => f.write_str("restart asked for"),
            Difference::Configuration { to } => write!(f, "revision {to} of its configuration"),
        }
    }
}
