//! Units as the API shows them: what users submitted, and where it was placed.

use std::collections::{BTreeMap, BTreeSet};

use super::Cluster;
use crate::brief::Brief;
use crate::model::{DesiredState, InstanceStatus, Placement};
use crate::name::{MachineId, UnitName};
use crate::unit::family::{self, is_counted};
use crate::unit::file::UnitFile;
use crate::wire;

/// Where each instance was placed, by name. Built once for a request.
pub type Places<'a> = BTreeMap<&'a UnitName, Vec<(&'a MachineId, &'a Placement)>>;

impl Cluster {
    /// The numbers of texts of these units that are not to go, as far as the cluster says: the
    /// present ones, those that are assigned anywhere, and those that a rollout tries or goes back
    /// to.
    pub fn texts_in_use(&self, units: &BTreeSet<UnitName>) -> BTreeMap<UnitName, BTreeSet<u64>> {
        let mut used: BTreeMap<UnitName, BTreeSet<u64>> = BTreeMap::new();
        let mut add = |unit: &UnitName, number| {
            if units.contains(unit) {
                used.entry(unit.clone()).or_default().insert(number);
            }
        };
        for unit in units {
            if let Some(record) = self.records.get(unit) {
                add(unit, record.revision);
            }
            if let Some(rollout) = self.rollouts.get(unit) {
                add(unit, rollout.text.revision);
                rollout.good.iter().for_each(|good| add(unit, good.revision));
            }
        }
        for assignment in self.snapshot.assignments.values() {
            for placement in assignment.instances.values() {
                add(&placement.unit, placement.revision);
            }
        }
        used
    }

    /// All names that lists show: every record, and the replicas of scaled templates.
    pub fn names(&self) -> BTreeSet<UnitName> {
        family::names(&self.records, |record| record.replicas)
    }

    /// Where everything was placed.
    pub fn places(&self) -> Places<'_> {
        let mut places = Places::new();
        for (machine, assignment) in &self.snapshot.assignments {
            for (instance, placement) in &assignment.instances {
                places.entry(instance).or_default().push((machine, placement));
            }
        }
        places
    }

    /// One unit as the API shows it; `None` if there is no such unit or replica.
    pub fn unit(&self, name: &UnitName, places: &Places) -> Option<wire::Unit> {
        let record = self.owner(name)?;
        let parsed = self.snapshot.units.get(&record.name)?;
        let brief = Brief {
            revision: record.revision,
            desired: record.desired,
            replicas: record.replicas,
            hash: parsed.full_hash.clone(),
            global: parsed.constraints.global,
        };
        let options = UnitFile::parse_lenient(&record.text).options;
        Some(wire::Unit { options, ..self.brief_unit(name, (&record.name, &brief), places) })
    }

    /// The same without its options, which are most of the work; `owner` is the unit that `name`
    /// follows from.
    pub fn brief_unit(
        &self,
        name: &UnitName,
        owner: (&UnitName, &Brief),
        places: &Places,
    ) -> wire::Unit {
        let (owner, brief) = owner;
        let global = brief.global;
        let place = places.get(name).and_then(|places| places.first()).filter(|_| !global);
        let status = place.and_then(|(machine, _)| self.status(machine, name));
        let is_replica = owner != name;
        let current = match (global, place, status) {
            (true, _, _) => String::new(),
            (_, Some((_, placement)), Some(status)) => current_state(placement, status).to_string(),
            _ => DesiredState::Inactive.to_string(),
        };
        let counted = (!is_replica).then(|| self.counted(name, brief, places)).flatten();
        let (running, wanted) = counted.unzip();
        // A plain template is only a text; a scaled one stands for its replicas. One that was
        // stopped, and of which something still runs, is not inactive yet.
        let current = match brief.replicas.filter(|_| name.is_template()) {
            Some(_) if running > Some(0) => DesiredState::Launched.max(brief.desired).to_string(),
            Some(_) => brief.desired.to_string(),
            None => current,
        };
        wire::Unit {
            current_state: current,
            desired_state: brief.desired.to_string(),
            machine_id: place.map(|(machine, _)| machine.to_string()).unwrap_or_default(),
            name: name.to_string(),
            hash: brief.hash.to_string(),
            options: Vec::new(),
            text: None,
            replicas: brief.replicas.filter(|_| !is_replica),
            revision: Some(brief.revision),
            template: if is_replica { owner.to_string() } else { String::new() },
            why: place.map(|(_, placement)| placement.why.clone()),
            global,
            running,
            wanted,
        }
    }

    /// How many instances run, of how many that are wanted: of a scaled template those with its
    /// numbers, also where one has a record of its own; of a global unit those that the leader has
    /// assigned. `None` for a unit that is one instance, or a text alone.
    fn counted(&self, name: &UnitName, brief: &Brief, places: &Places) -> Option<(u32, u32)> {
        let runs = |instance: &UnitName, machine: &MachineId| {
            self.status(machine, instance)
                .is_some_and(|status| status.is_active() && !status.leaving)
        };
        if brief.global {
            let placed = places.get(name).map_or(&[][..], Vec::as_slice);
            let running = placed.iter().filter(|(machine, _)| runs(name, machine)).count();
            return Some((running as u32, placed.len() as u32));
        }
        let replicas = brief.replicas.filter(|_| name.is_template())?;
        let start = UnitName::trusted(format!("{}@", name.prefix()));
        let running = places
            .range::<UnitName, _>(&start..)
            .take_while(|(instance, _)| instance.as_str().starts_with(start.as_str()))
            .filter(|(instance, _)| {
                instance.suffix() == name.suffix() && is_counted(instance, Some(replicas))
            })
            .filter(|(instance, placed)| placed.iter().any(|(machine, _)| runs(instance, machine)))
            .count();
        let wanted = if brief.desired == DesiredState::Inactive { 0 } else { replicas };
        Some((running as u32, wanted))
    }
}

/// fleet's computed state of a placed unit: `launched` says that it was started, not that it runs.
fn current_state(placement: &Placement, status: &InstanceStatus) -> DesiredState {
    match placement.state {
        DesiredState::Launched if status.launched => DesiredState::Launched,
        _ => DesiredState::Loaded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::script::snapshot;

    #[test]
    fn a_scaled_template_says_how_many_run_and_is_not_inactive_while_one_does() {
        let seen = snapshot(
            "machine a\nmachine b\nunit web@.service x4\nunit all.service | Global=true\n\
             on a: web@1.service web@2.service all.service\non b: web@3.service all.service\n\
             runs a: web@1.service web@2.service/failed all.service\nruns b: web@3.service",
        );
        let mut cluster = Cluster { snapshot: seen, ..Cluster::default() };
        let shown = |cluster: &Cluster, name: &str, desired, replicas| {
            let name = UnitName::trusted(name);
            let global = name.as_str() == "all.service";
            let brief = Brief { revision: 1, desired, replicas, hash: "".into(), global };
            let unit = cluster.brief_unit(&name, (&name, &brief), &cluster.places());
            (unit.current_state, unit.running, unit.wanted)
        };
        use DesiredState::{Inactive, Launched};
        let web = |cluster: &Cluster, desired, replicas| {
            shown(cluster, "web@.service", desired, replicas)
        };
        assert_eq!(web(&cluster, Launched, Some(4)), ("launched".into(), Some(2), Some(4)));
        assert_eq!(web(&cluster, Launched, Some(2)), ("launched".into(), Some(1), Some(2)));
        // Somebody stopped it, or `submit --replace` did, and the machines still have to.
        assert_eq!(web(&cluster, Inactive, Some(4)), ("launched".into(), Some(2), Some(0)));
        assert_eq!(web(&cluster, Inactive, None), ("inactive".into(), None, None), "a text alone");
        let all = shown(&cluster, "all.service", Launched, None);
        assert_eq!(all, (String::new(), Some(1), Some(2)));
        cluster.snapshot.reports.clear();
        assert_eq!(web(&cluster, Inactive, Some(4)), ("inactive".into(), Some(0), Some(0)));
    }
}
