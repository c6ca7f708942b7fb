//! What the API shows: pure joins of units, assignments and reports, all of one revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::app::{AppName, Application};
use crate::model::{Leader, Note, Snapshot, UnitRecord};
use crate::name::{MachineId, UnitName};
use crate::outlook::Outlook;
use crate::rollout::Rollouts;
use crate::unit::family;

mod failures;
mod machines;
mod progress;
mod rollouts;
mod states;
mod units;

pub use states::Reported;
pub use units::Places;

/// Everything in the store at one revision: what the planner sees, and what only people need.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// What the planner sees.
    pub snapshot: Snapshot,
    /// The units as submitted.
    pub records: BTreeMap<UnitName, Arc<UnitRecord>>,
    /// Who leads, if anybody does.
    pub leader: Option<Leader>,
    /// In which term: the revision that created the leader key.
    pub term: i64,
    /// What the leader's last plan says, or that of the one before it.
    pub outlook: Option<Outlook>,
    /// At which revision each unit's record was written last.
    pub units_written: BTreeMap<UnitName, i64>,
    /// At which revision users wrote anything last: a unit, or what is set for a machine. The
    /// leader says once it has planned that ([`Outlook::planned`]).
    pub asked: i64,
    /// Who cordoned or drains a machine, and why.
    pub notes: BTreeMap<MachineId, Note>,
    /// At which revision what an operator set for a machine was written last.
    pub settings_written: BTreeMap<MachineId, i64>,
    /// The applications.
    pub apps: BTreeMap<AppName, Arc<Application>>,
    /// How far the units' texts are.
    pub rollouts: Rollouts,
}

impl Cluster {
    /// The record that `name` follows from: its own, or the template whose replica it is.
    pub fn owner(&self, name: &UnitName) -> Option<&Arc<UnitRecord>> {
        family::owner(&self.records, name, |record| record.replicas).map(|(_, record)| record)
    }

    /// The present leader's word; `None` while nobody leads, or before it has planned.
    pub fn leaders_word(&self) -> Option<&Outlook> {
        self.outlook.as_ref().filter(|outlook| self.leader.is_some() && outlook.term == self.term)
    }

    /// Whether a leader has planned, and written, what was asked up to this revision. What it
    /// decided then stands in the assignments, also when it leads no longer.
    pub fn is_planned(&self, revision: i64) -> bool {
        self.outlook.as_ref().is_some_and(|outlook| outlook.planned >= revision)
    }
}
