//! Machines: those that are alive, and those that are missing.

use std::sync::Arc;

use super::Cluster;
use crate::model::{Assignment, Machine};
use crate::name::{MachineId, UnitName};
use crate::wire;

/// How many instances that moved off a lost machine are named; all are counted.
const MAX_MOVED: usize = 100;

impl Cluster {
    /// The machines that are alive, by id.
    pub fn machines(&self) -> Vec<wire::Machine> {
        let machine = |(id, machine): (&MachineId, &Arc<Machine>)| wire::Machine {
            id: id.to_string(),
            metadata: machine.metadata.clone(),
            primary_ip: machine.address.clone(),
            leader: self.leader.as_ref().is_some_and(|leader| leader.machine == *id),
            version: machine.version.clone(),
            instances: Some(
                self.snapshot
                    .assignments
                    .get(id)
                    .map_or(0, |assignment| assignment.instances.len() as u32),
            ),
            availability: self.snapshot.availability.get(id).copied().unwrap_or_default(),
            since_ms: Some(machine.since_ms).filter(|since| *since > 0),
            note: self.notes.get(id).cloned().map(Into::into),
            cpus: Some(machine.capacity.cpus),
            memory_bytes: Some(machine.capacity.memory_bytes),
        };
        self.snapshot.machines.iter().map(machine).collect()
    }

    /// The machines that are missing, while they are so many that their units are moved slowly, by
    /// the leader's word.
    pub fn missing(&self, now_ms: u64) -> Option<wire::Missing> {
        let slowed = self.leaders_word()?.slowed.as_ref()?;
        let machine = |id: &MachineId| wire::MissingMachine {
            id: id.to_string(),
            instances: self
                .snapshot
                .assignments
                .get(id)
                .map_or(0, |assignment| assignment.instances.len() as u32),
        };
        Some(wire::Missing {
            says: slowed.says.clone(),
            missing: slowed.missing,
            there: slowed.there,
            waits: slowed.waits.iter().map(machine).collect(),
            next_in_ms: (!slowed.waits.is_empty()).then(|| slowed.next_ms.saturating_sub(now_ms)),
        })
    }

    /// The machines that were lost within the last hour and have not come back, the last one first.
    /// Whoever led wrote that down, and it stays true.
    pub fn lost(&self, now_ms: u64) -> Vec<wire::LostMachine> {
        let lost = self.outlook.iter().flat_map(|outlook| outlook.lost.iter().rev());
        let lost = lost.filter(|lost| {
            lost.is_recent(now_ms) && !self.snapshot.machines.contains_key(&lost.machine)
        });
        let place = |name: &UnitName| {
            let holds = |assignment: &Arc<Assignment>| assignment.instances.contains_key(name);
            self.snapshot.assignments.iter().find(|(_, assignment)| holds(assignment))
        };
        let moved = |name: UnitName| wire::Moved {
            machine_id: place(&name).map(|(id, _)| id.to_string()).unwrap_or_default(),
            name: name.to_string(),
        };
        lost.map(|lost| wire::LostMachine {
            id: lost.machine.to_string(),
            primary_ip: lost.address.clone(),
            lost_ms: lost.at_ms,
            instances: lost.instances,
            moved: lost.units.names().take(MAX_MOVED).map(moved).collect(),
        })
        .collect()
    }
}
