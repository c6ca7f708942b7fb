//! What would happen, by the leader's own snapshot: nothing is changed by asking.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::model::{Availability, Snapshot};
use crate::name::{MachineId, UnitName};
use crate::plan::{Change, Misfit, plan};

/// What a drain would do with one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Departure {
    /// The instance.
    pub instance: UnitName,
    /// The machine that is drained.
    pub from: MachineId,
    /// Whether it would leave at all: if not, no other machine takes it.
    pub leaves: bool,
    /// Where it would go, as things are now. Of a fenced instance that is decided once it has
    /// stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<MachineId>,
    /// Whether it would go at once, not only when its unit's budget or a unit that it runs beside
    /// allows.
    pub at_once: bool,
    /// Why no other machine takes it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub misfits: Vec<Misfit>,
}

/// What a drain of these machines would do with what is on them, by machine and instance. Global
/// units stay, and are left out.
pub fn drain(snapshot: &Snapshot, machines: &[MachineId]) -> Vec<Departure> {
    let mut drained = snapshot.clone();
    for machine in machines {
        drained.availability.insert(machine.clone(), Availability::Draining);
        drained.evictions.remove(machine);
    }
    let off = |plan: &crate::plan::Plan| -> BTreeSet<UnitName> {
        let of_it = |change: &Change| match change {
            Change::Retire { instance, machine, .. } if machines.contains(machine) => {
                Some(instance.clone())
            }
            _ => None,
        };
        plan.changes.iter().filter_map(of_it).collect()
    };
    let first = plan(&drained);
    let at_once = off(&first);
    let waits: BTreeSet<&UnitName> =
        first.rolling.iter().flat_map(|rolling| &rolling.waiting).collect();
    // As if all time were up: that says of each where it would go in the end.
    drained.evictions.extend(machines.iter().map(|machine| (machine.clone(), 0)));
    let last = plan(&drained);
    let mut places: BTreeMap<&UnitName, &MachineId> = BTreeMap::new();
    for change in &last.changes {
        if let Change::Place { instance, machine, .. } = change {
            places.insert(instance, machine);
        }
    }
    let misfits = |instance: &UnitName| -> Vec<Misfit> {
        let unplaced = last.unplaced.iter().find(|one| one.instances.contains(instance));
        let own = |misfit: &&Misfit| **misfit != Misfit::Cordoned;
        let all = unplaced.into_iter().flat_map(|one| one.misfits.iter().map(|(misfit, _)| misfit));
        all.filter(own).cloned().collect()
    };
    let gone = off(&last);
    let mut departures = Vec::new();
    for machine in machines {
        let Some(assignment) = snapshot.assignments.get(machine) else { continue };
        for instance in assignment.instances.keys().filter(|instance| gone.contains(*instance)) {
            let to = places.get(instance).map(|to| (*to).clone());
            let at_once = at_once.contains(instance);
            let leaves = to.is_some() || at_once || waits.contains(instance);
            let misfits = if leaves { Vec::new() } else { misfits(instance) };
            let (instance, from) = (instance.clone(), machine.clone());
            departures.push(Departure { instance, from, leaves, to, at_once, misfits });
        }
    }
    departures
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Departure { instance, from, leaves, to, at_once, misfits } = self;
        let from = from.short();
        if !leaves {
            write!(f, "{instance}: stays on {from}; no other machine can take it")?;
            let why: Vec<String> = misfits.iter().map(Misfit::to_string).collect();
            return if why.is_empty() { Ok(()) } else { write!(f, ": {}", why.join("; ")) };
        }
        match to {
            Some(to) => write!(f, "{instance}: {from} to {}", to.short())?,
            None => write!(f, "{instance}: off {from}, then where it fits once it has stopped")?,
        }
        if *at_once { Ok(()) } else { f.write_str(", when its budget allows") }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::plan::script::snapshot;

    #[test]
    fn a_drain_that_is_only_thought_of_says_of_each_instance_where_it_would_go() {
        let seen = snapshot(
            "machine a r=1
             machine b
             machine c
             unit web@.service x3 | MaxUnavailable=1
             unit only.service | MachineMetadata=r=1
             unit side.service | MachineOf=web@1.service
             unit all.service | Global=true
             unit db.service | Fence=yes
             on a: web@1.service web@2.service only.service side.service all.service db.service
             on b: web@3.service all.service
             on c: all.service
             runs a: web@1.service web@2.service only.service side.service all.service db.service
             runs b: web@3.service all.service
             runs c: all.service",
        );
        let before = seen.clone();
        let told: Vec<String> =
            drain(&seen, &[MachineId::new("a")]).iter().map(Departure::to_string).collect();
        expect![[r#"
            db.service: off a, then where it fits once it has stopped
            only.service: stays on a; no other machine can take it: lacks the metadata r=1
            side.service: a to c
            web@1.service: a to c
            web@2.service: a to b, when its budget allows"#]]
        .assert_eq(&told.join("\n"));
        assert_eq!(seen, before);
        assert_eq!(drain(&seen, &[MachineId::new("z")]), []);
    }
}
