//! What an apply does to machines, as far as the present state of the cluster says. The leader
//! decides when it is applied, and knows more: which absent machines are about to return, and what
//! has happened since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Applying;
use crate::model::{Assignment, DesiredState, Placement, Snapshot, Unit};
use crate::name::{MachineId, UnitName};
use crate::plan::plan;
use crate::unit::file::UnitFile;
use crate::wire::{InstanceOn, UnitPlan, Unplaced};

/// The instances of each unit with their machines.
type Placed<'a> = BTreeMap<UnitName, BTreeMap<InstanceOn, &'a Placement>>;

/// Fills in which instances start, stop and restart, and what fits nowhere.
pub fn forecast(snapshot: &Snapshot, now_ms: u64, applying: &mut Applying) {
    let units: BTreeSet<UnitName> =
        applying.plan.units.iter().map(|unit| UnitName::trusted(unit.name.as_str())).collect();
    let after = changed(snapshot, now_ms, applying);
    let planned = plan(&after);
    let mut documents: BTreeMap<&MachineId, &Assignment> =
        snapshot.assignments.iter().map(|(id, document)| (id, &**document)).collect();
    let before = placed(&documents, &units);
    documents.extend(&planned.documents);
    let then = placed(&documents, &units);
    for unit in &mut applying.plan.units {
        let name = UnitName::trusted(unit.name.as_str());
        let none = BTreeMap::new();
        let (was, will) = (before.get(&name).unwrap_or(&none), then.get(&name).unwrap_or(&none));
        unit.starts = will.keys().filter(|on| !was.contains_key(on)).cloned().collect();
        unit.stops = was.keys().filter(|on| !will.contains_key(on)).cloned().collect();
        let unplaced = planned.unplaced.iter().filter(|unplaced| unplaced.unit == name);
        unit.unplaced = unplaced
            .map(|unplaced| Unplaced {
                instances: unplaced.instances.clone(),
                reasons: unplaced
                    .misfits
                    .iter()
                    .map(|(misfit, count)| format!("{count} × {misfit}"))
                    .collect(),
            })
            .collect();
        if let Some(new) = after.units.get(&name) {
            let stays = was.iter().filter(|(on, _)| will.contains_key(on));
            restarts(unit, new, stays.map(|(_, placement)| *placement));
        }
    }
}

/// The snapshot as it is once the records are written.
fn changed(snapshot: &Snapshot, now_ms: u64, applying: &Applying) -> Snapshot {
    let mut after = Snapshot { now_ms, ..snapshot.clone() };
    for (record, _) in &applying.records {
        after.units.insert(record.name.clone(), Arc::new(Unit::from_record(record)));
    }
    for name in &applying.removed {
        after.units.remove(name);
    }
    // Whether an absent machine is lost is the leader's to say, and no matter of the apply.
    let absent = after.assignments.keys().filter(|id| !after.machines.contains_key(*id));
    let absent: Vec<MachineId> = absent.filter(|id| !after.left.contains(*id)).cloned().collect();
    after.settling.extend(absent);
    after
}

/// Where the instances of these units are.
fn placed<'a>(
    documents: &BTreeMap<&'a MachineId, &'a Assignment>,
    units: &BTreeSet<UnitName>,
) -> Placed<'a> {
    let mut placed = Placed::new();
    for (&machine, &document) in documents {
        for (instance, placement) in &document.instances {
            if units.contains(&placement.unit) {
                let on = InstanceOn { instance: instance.clone(), machine: machine.clone() };
                placed.entry(placement.unit.clone()).or_default().insert(on, placement);
            }
        }
    }
    placed
}

/// How many instances that stay where they are restart, and how many are down at once, those that
/// move included.
fn restarts<'a>(plan: &mut UnitPlan, new: &Unit, stay: impl Iterator<Item = &'a Placement>) {
    let same = match (&plan.old_text, &plan.new_text) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(old), Some(new)) => {
            UnitFile::parse_lenient(old).hash() == UnitFile::parse_lenient(new).hash()
        }
    };
    let launched = new.desired == DesiredState::Launched;
    let running = stay.filter(|placement| placement.state == DesiredState::Launched);
    plan.restarts = if same || !launched { 0 } else { running.count() };
    let moves = plan.stops.len().min(plan.starts.len());
    let down = plan.restarts + moves;
    let budget = new.constraints.max_unavailable.as_ref().map(|max| {
        let wanted = if new.name.is_template() { new.replicas.unwrap_or(0) as usize } else { 1 };
        max.of(wanted)
    });
    plan.down_at_most = budget.map_or(down, |budget| budget.min(down));
}
