//! What a plan does, by machine and reason.

use std::collections::BTreeMap;

use super::{Gathered, Item, Reason, What};
use crate::model::Snapshot;
use crate::name::{MachineId, UnitName};
use crate::plan::{Change, Plan};

/// The items of each machine's document: first what was taken off, then what was placed, then what
/// was updated.
pub fn decisions(plan: &Plan, snapshot: &Snapshot) -> BTreeMap<MachineId, Vec<Item>> {
    let mut gathered: BTreeMap<&MachineId, BTreeMap<(What, Reason), Gathered>> = BTreeMap::new();
    for change in &plan.changes {
        let (instance, machine, what, reason) = match change {
            Change::Retire { instance, machine, why } => {
                (instance, machine, What::TookOff, Reason::Removed { why: why.clone() })
            }
            Change::Place { instance, machine, why } => {
                (instance, machine, What::Placed, Reason::Placed { why: why.clone() })
            }
            Change::Update { instance, machine } => {
                (instance, machine, What::Updated, update(plan, snapshot, instance, machine))
            }
        };
        gathered.entry(machine).or_default().entry((what, reason)).or_default().add(instance);
    }
    let items = |machine: &MachineId, reasons: BTreeMap<(What, Reason), Gathered>| {
        let item = |((what, reason), units): ((What, Reason), Gathered)| Item {
            what,
            machine: Some(machine.clone()),
            units: units.into_units(),
            reason: Some(reason),
        };
        reasons.into_iter().map(item).collect()
    };
    gathered
        .into_iter()
        .map(|(machine, reasons)| (machine.clone(), items(machine, reasons)))
        .collect()
}

/// What of an instance that stays has changed.
fn update(plan: &Plan, snapshot: &Snapshot, instance: &UnitName, machine: &MachineId) -> Reason {
    let old =
        snapshot.assignments.get(machine).and_then(|assignment| assignment.instances.get(instance));
    let new = plan.documents.get(machine).and_then(|assignment| assignment.instances.get(instance));
    match (old, new) {
        (Some(old), Some(new)) => Reason::changed(old, new),
        _ => Reason::Changed { changes: Vec::new() },
    }
}
