//! What a plan does, by machine and reason.

use std::collections::BTreeMap;

use super::{Gathered, Item, What};
use crate::model::{Placement, Snapshot};
use crate::name::{MachineId, UnitName};
use crate::plan::{Change, Plan};

/// The items of each machine's document: first what was taken off, then what was placed, then what
/// was updated.
pub fn decisions(plan: &Plan, snapshot: &Snapshot) -> BTreeMap<MachineId, Vec<Item>> {
    let mut gathered: BTreeMap<&MachineId, BTreeMap<(What, String), Gathered>> = BTreeMap::new();
    for change in &plan.changes {
        let (instance, machine, what, why) = match change {
            Change::Retire { instance, machine, why } => {
                (instance, machine, What::TookOff, why.to_string())
            }
            Change::Place { instance, machine, why } => {
                (instance, machine, What::Placed, why.to_string())
            }
            Change::Update { instance, machine } => {
                (instance, machine, What::Updated, update(plan, snapshot, instance, machine))
            }
        };
        gathered.entry(machine).or_default().entry((what, why)).or_default().add(instance);
    }
    let items = |machine: &MachineId, reasons: BTreeMap<(What, String), Gathered>| {
        let item = |((what, why), units): ((What, String), Gathered)| Item {
            what,
            machine: Some(machine.clone()),
            units: units.into_units(),
            why,
        };
        reasons.into_iter().map(item).collect()
    };
    gathered
        .into_iter()
        .map(|(machine, reasons)| (machine.clone(), items(machine, reasons)))
        .collect()
}

/// What of an instance that stays has changed: `text 3 to 4`, `loaded to launched`, `restart asked
/// for`.
fn update(plan: &Plan, snapshot: &Snapshot, instance: &UnitName, machine: &MachineId) -> String {
    let old =
        snapshot.assignments.get(machine).and_then(|assignment| assignment.instances.get(instance));
    let new = plan.documents.get(machine).and_then(|assignment| assignment.instances.get(instance));
    let (Some(old), Some(new)) = (old, new) else { return String::new() };
    differences(old, new).join(", ")
}

fn differences(old: &Placement, new: &Placement) -> Vec<String> {
    let mut differences = Vec::new();
    if old.unit != new.unit {
        differences.push(format!("follows from {} now", new.unit));
    }
    if (old.revision, &old.hash) != (new.revision, &new.hash) {
        differences.push(format!("text {} to {}", old.revision, new.revision));
    }
    if old.state != new.state {
        differences.push(format!("{} to {}", old.state, new.state));
    }
    if old.restart != new.restart {
        differences.push("restart asked for".to_string());
    }
    differences
}
