//! Whether what needs another unit was first placed when that had lately been up: judged by what
//! each systemd really ran.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_core::model::{Assignment, DesiredState, Placement, UnitRecord, Why};
use fleet_core::name::UnitName;
use tokio::time::Instant;

/// For how long a report may be out of date: the longest fault, and some.
const KNOWN: Duration = Duration::from_secs(60);

/// What is needed, and who needs it, in those of its texts that say so.
pub(crate) const NEEDED: &str = "base.service";
pub(crate) const NEEDING: &str = "front@.service";

/// The needed unit, and the texts of the one that needs it.
#[derive(Default)]
pub(crate) struct Needs {
    /// Whether it is up now.
    up: BTreeMap<usize, ()>,
    /// When it was last seen up.
    seen: Option<Instant>,
    /// Whether the text of each revision needs it.
    texts: BTreeMap<u64, bool>,
}

impl Needs {
    /// A unit of a machine entered a state.
    pub(crate) fn entered(&mut self, machine: usize, name: &UnitName, active: &str) {
        if name.as_str() != NEEDED {
            return;
        }
        match active {
            "active" => drop(self.up.insert(machine, ())),
            _ => {
                if self.up.remove(&machine).is_some() {
                    self.seen = Some(Instant::now());
                }
            }
        }
    }

    /// The record of the unit that needs the other was written.
    pub(crate) fn wrote(&mut self, record: Option<&UnitRecord>) {
        if let Some(record) = record {
            self.texts.insert(record.revision, record.text.contains("Needs="));
        }
    }

    /// A machine's assignment was written. The error is what is wrong.
    pub(crate) fn assigned(&self, old: &Assignment, new: &Assignment) -> Result<(), String> {
        let lately = self.seen.is_some_and(|seen| seen.elapsed() < KNOWN);
        if !self.up.is_empty() || lately {
            return Ok(());
        }
        // One that only moves ran before.
        let starts = |is: &Placement| {
            is.state == DesiredState::Launched
                && matches!(is.why, Why::Fewest | Why::Lost(_) | Why::Left(_))
        };
        let needs = |is: &Placement| {
            is.unit.as_str() == NEEDING && self.texts.get(&is.revision) == Some(&true)
        };
        let early = new
            .instances
            .iter()
            .find(|(name, is)| needs(is) && starts(is) && !old.instances.contains_key(*name));
        match early {
            None => Ok(()),
            Some((name, _)) => Err(format!("{name} starts, and {NEEDED} has not been up lately")),
        }
    }
}
