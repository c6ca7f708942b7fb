//! Units as the API shows them: what users submitted, and where it was placed.

use std::collections::{BTreeMap, BTreeSet};

use super::Cluster;
use crate::brief::Brief;
use crate::model::{DesiredState, InstanceStatus, Placement};
use crate::name::{MachineId, UnitName};
use crate::unit::family;
use crate::unit::file::UnitFile;
use crate::wire;

/// Where each instance was placed, by name. Built once for a request.
pub type Places<'a> = BTreeMap<&'a UnitName, Vec<(&'a MachineId, &'a Placement)>>;

impl Cluster {
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
        // A plain template is only a text; a scaled one stands for its replicas.
        let current = if name.is_template() && brief.replicas.is_some() {
            brief.desired.to_string()
        } else {
            current
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
        }
    }
}

/// fleet's computed state of a placed unit: `launched` says that it was started, not that it runs.
fn current_state(placement: &Placement, status: &InstanceStatus) -> DesiredState {
    match placement.state {
        DesiredState::Launched if status.launched => DesiredState::Launched,
        _ => DesiredState::Loaded,
    }
}
