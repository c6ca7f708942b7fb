//! Machines: those that are alive, and those that are missing.

use std::sync::Arc;

use super::Cluster;
use crate::model::Machine;
use crate::name::MachineId;
use crate::wire;

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
}
