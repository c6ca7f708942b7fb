//! What the leader plans: what stands in the store, and what it alone knows. Who is overdue, for
//! how long keepers have been silent, who gets time to return, and what time it is are put into a
//! snapshot here and nowhere else.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::fence::Silence;
use fleet_core::model::Snapshot;
use fleet_core::name::MachineId;

use crate::leader::overdue::Overdue;
use crate::machine::health::Health;
use crate::store::Mirror;

/// What a leader knows beside the store, from look to look; no successor takes it over.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// For how long each keeper has been away.
    silence: Silence,
    /// Machines that are there only because etcd gave their leases more time.
    pub overdue: Overdue,
}

/// What there is to plan.
#[derive(Debug)]
pub struct Seen {
    /// For the planner.
    pub snapshot: Snapshot,
    /// Whether absent machines get time to return: what fits nowhere may fit one of those, be it
    /// one that runs nothing.
    pub settling: bool,
    /// When they have had it, in milliseconds since 1970; `None` while nobody can say.
    pub settled_at_ms: Option<u64>,
}

impl Knowledge {
    /// Everything at this time. `settle` is how long the store must have been reachable before
    /// anybody is lost.
    pub fn look(
        &mut self,
        mirror: &Mirror,
        health: &Health,
        settle: Duration,
        now_ms: u64,
    ) -> Seen {
        let mut snapshot = mirror.cluster().snapshot.clone();
        snapshot.now_ms = now_ms;
        self.without_overdue(&mut snapshot, mirror);
        self.silence.note(&mut snapshot);
        let settled_at_ms = health.settled_at_ms(settle);
        let unsettled = settled_at_ms.is_none_or(|at| now_ms < at);
        snapshot.settling = if unsettled { absent_machines(&snapshot) } else { BTreeSet::new() };
        let settling = unsettled && is_any_absent(&snapshot);
        Seen { snapshot, settling, settled_at_ms }
    }

    /// Takes overdue machines out of what is planned, as if their leases had ended.
    fn without_overdue(&self, snapshot: &mut Snapshot, mirror: &Mirror) {
        for (id, _) in self
            .overdue
            .iter()
            .filter(|(id, created)| mirror.machines_created().get(*id) == Some(created))
        {
            snapshot.machines.remove(id);
            snapshot.reports.remove(id);
        }
    }
}

/// Machines that should run something, are not there, and did not say goodbye.
fn absent_machines(snapshot: &Snapshot) -> BTreeSet<MachineId> {
    let assigned = snapshot
        .assignments
        .iter()
        .filter(|(_, assignment)| !assignment.instances.is_empty() || !assignment.off.is_empty());
    assigned
        .map(|(id, _)| id)
        .filter(|id| !snapshot.machines.contains_key(*id) && !snapshot.left.contains(*id))
        .cloned()
        .collect()
}

/// Whether a machine that was ever assigned anything is not there, and did not say goodbye.
fn is_any_absent(snapshot: &Snapshot) -> bool {
    let is_absent =
        |id: &MachineId| !snapshot.machines.contains_key(id) && !snapshot.left.contains(id);
    snapshot.assignments.keys().any(is_absent)
}
