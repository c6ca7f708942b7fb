//! What machines report of units.

use std::collections::BTreeSet;

use super::Cluster;
use crate::model::{InstanceStatus, Placement};
use crate::name::{MachineId, UnitName};
use crate::wire;

/// One line of a machine's report.
#[derive(Debug, Clone, Copy)]
pub struct Reported<'a> {
    /// The unit.
    pub instance: &'a UnitName,
    /// Who reports it.
    pub machine: &'a MachineId,
    /// What it reports.
    pub status: &'a InstanceStatus,
}

impl Reported<'_> {
    /// Whether it was to go there, and has ended.
    pub fn has_left(&self) -> bool {
        self.status.leaving && self.has_ended()
    }

    fn has_ended(&self) -> bool {
        ["inactive", "failed"].contains(&self.status.active.as_str())
    }
}

impl Cluster {
    /// What `machine` reports of `instance`, if the machine is alive.
    pub fn status(&self, machine: &MachineId, instance: &UnitName) -> Option<&InstanceStatus> {
        self.snapshot.reports.get(machine)?.instances.get(instance)
    }

    /// What systemd says of each unit on each machine that `wanted` takes, by unit, then machine;
    /// [`Cluster::state`] puts one in words.
    pub fn states(&self, wanted: impl Fn(&UnitName, &MachineId) -> bool) -> Vec<Reported<'_>> {
        let all = self.snapshot.reports.iter().flat_map(|(machine, report)| {
            report.instances.iter().map(move |(instance, status)| Reported {
                instance,
                machine,
                status,
            })
        });
        let mut states: Vec<Reported> =
            all.filter(|state| wanted(state.instance, state.machine)).collect();
        states.sort_by_key(|state| (state.instance, state.machine));
        self.without_what_was_left_behind(states)
    }

    /// Leaves out what another machine's line tells of by now, so that an instance that moves is
    /// one line: that of the machine which it leaves until the other one reports it. What systemd
    /// refuses to stop stays listed. A global unit does not move: only where it has ended it is
    /// left out.
    fn without_what_was_left_behind<'a>(&self, mut states: Vec<Reported<'a>>) -> Vec<Reported<'a>> {
        let mut left: BTreeSet<(&UnitName, &MachineId)> = BTreeSet::new();
        for several in states.chunk_by(|one, next| one.instance == next.instance) {
            let stays = |state: &&Reported| !state.status.leaving && self.may_stay(state);
            let staying = several.iter().filter(stays).count();
            if staying == 0 || several.len() == 1 {
                continue;
            }
            let global = staying > 1 || self.is_global(several[0].instance);
            let ended = |state: &&Reported| state.has_ended();
            let goes = several.iter().filter(|state| !stays(state));
            let goes = goes.filter(|state| !state.status.stop_refused);
            let goes = goes.filter(|state| !global || ended(state));
            left.extend(goes.map(|state| (state.instance, state.machine)));
        }
        states.retain(|state| !left.contains(&(state.instance, state.machine)));
        states
    }

    /// Whether the instance is assigned to the machine that reports it, or to none as far as is
    /// known: a machine may not know yet that it has lost one.
    fn may_stay(&self, state: &Reported) -> bool {
        let assignments = &self.snapshot.assignments;
        let holds = |machine: &MachineId| {
            assignments.get(machine).is_some_and(|one| one.instances.contains_key(state.instance))
        };
        holds(state.machine) || !assignments.keys().any(holds)
    }

    fn is_global(&self, name: &UnitName) -> bool {
        self.snapshot.units.get(name).is_some_and(|unit| unit.constraints.global)
    }

    /// The machines that the instances of a unit are assigned to, by machine, then instance.
    pub fn assigned<'a>(
        &'a self,
        name: &'a UnitName,
    ) -> impl Iterator<Item = (&'a MachineId, &'a UnitName)> {
        self.snapshot.assignments.iter().flat_map(move |(machine, assignment)| {
            let of_it = assignment.instances.iter().filter(move |(i, p)| is_of(name, i, p));
            of_it.map(move |(instance, _)| (machine, instance))
        })
    }

    /// What machines still report of a unit, of a template all its instances, and are not assigned:
    /// it is on its way out, perhaps of a unit that was destroyed.
    pub fn leaving<'a>(&'a self, name: &'a UnitName) -> impl Iterator<Item = Reported<'a>> {
        let of_it = move |instance: &UnitName| {
            instance == name
                || (name.is_template()
                    && instance.template().as_ref() == Some(name)
                    && !self.records.contains_key(instance))
        };
        let all = self.snapshot.reports.iter().flat_map(move |(machine, report)| {
            let of_it = report.instances.iter().filter(move |(instance, _)| of_it(instance));
            of_it.map(move |(instance, status)| Reported { instance, machine, status })
        });
        all.filter(move |reported| {
            let assignment = self.snapshot.assignments.get(reported.machine);
            let placed =
                assignment.and_then(|assignment| assignment.instances.get(reported.instance));
            !placed.is_some_and(|placement| is_of(name, reported.instance, placement))
        })
    }

    /// One state as the API shows it.
    pub fn state(&self, reported: &Reported) -> wire::UnitState {
        let Reported { instance, machine, status } = *reported;
        let placed = self
            .snapshot
            .assignments
            .get(machine)
            .and_then(|assignment| assignment.instances.get(instance));
        let unit = placed
            .map(|placement| &placement.unit)
            .or_else(|| self.owner(instance).map(|record| &record.name));
        let hash = unit.and_then(|unit| self.snapshot.units.get(unit)).map(|unit| &unit.full_hash);
        wire::UnitState {
            // A host that still runs an older text reports that one's short hash.
            hash: hash
                .filter(|hash| hash.starts_with(&*status.hash))
                .map_or(&*status.hash, |hash| hash)
                .to_string(),
            machine_id: machine.to_string(),
            name: instance.to_string(),
            systemd_active_state: status.active.clone(),
            systemd_load_state: status.load.clone(),
            systemd_sub_state: status.sub.clone(),
            result: status.result.clone(),
            code: status.code,
            restarts: (status.restarts > 0).then_some(status.restarts),
            health: status.health.clone(),
            next_try_ms: status.next_try_ms,
            since_ms: Some(status.since_ms),
            stays_down: status.stays_down,
            message: status
                .message
                .clone()
                .or_else(|| status.pulls.as_ref().map(|what| format!("pulling {what}")))
                .or_else(|| status.reason.clone()),
            spare: status.spare || placed.is_some_and(Placement::is_spare),
        }
    }
}

/// Whether a placement is one of the unit `name`, of a template any of its instances.
pub(super) fn is_of(name: &UnitName, instance: &UnitName, placement: &Placement) -> bool {
    instance == name || (name.is_template() && placement.unit == *name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Report;
    use crate::plan::script::snapshot;

    #[test]
    fn what_a_move_left_behind_is_not_listed_beside_what_runs() {
        let listed = |there: &str, leaving: bool, elsewhere: bool| {
            let name = UnitName::trusted("web.service");
            let status = |active: &str, leaving| InstanceStatus {
                active: active.into(),
                leaving,
                ..InstanceStatus::default()
            };
            let report = |status| {
                Arc::new(Report { instances: [(name.clone(), status)].into(), ..Report::default() })
            };
            let mut cluster = Cluster::default();
            cluster.snapshot.reports.insert(MachineId::new("a"), report(status(there, leaving)));
            if elsewhere {
                cluster
                    .snapshot
                    .reports
                    .insert(MachineId::new("b"), report(status("active", false)));
            }
            cluster
                .states(|_, _| true)
                .iter()
                .map(|state| state.machine.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(listed("failed", true, true), "b");
        assert_eq!(listed("deactivating", true, true), "b", "one line while it is stopped there");
        assert_eq!(listed("failed", true, false), "a", "nobody else has it yet");
        assert_eq!(listed("failed", false, true), "a b", "it is global");
    }

    #[test]
    fn an_instance_that_moves_is_one_line_before_its_old_machine_knows_of_it() {
        let listed = |text: &str| {
            let cluster = Cluster { snapshot: snapshot(text), ..Cluster::default() };
            let states = cluster.states(|_, _| true);
            let line = |state: &Reported| format!("{} {}", state.instance, state.machine);
            states.iter().map(line).collect::<Vec<_>>().join(", ")
        };
        let before = "machine a\nmachine b\nunit web.service\non a: web.service\n\
            runs a: web.service\n";
        assert_eq!(listed(before), "web.service a");
        // The assignment has moved on, and the report of a is the old one.
        let mut moving = snapshot(before);
        let moved = moving.assignments.remove("a").unwrap();
        moving.assignments.insert(MachineId::new("b"), moved);
        let mut cluster = Cluster { snapshot: moving, ..Cluster::default() };
        let lines = |cluster: &Cluster| {
            let states = cluster.states(|_, _| true);
            states.iter().map(|state| state.machine.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(lines(&cluster), ["a"], "b says nothing yet");
        let report = cluster.snapshot.reports["a"].clone();
        cluster.snapshot.reports.insert(MachineId::new("b"), report.clone());
        assert_eq!(lines(&cluster), ["b"]);
        // What systemd refuses to stop runs twice, and is listed twice.
        let mut refused = (*report).clone();
        for status in refused.instances.values_mut() {
            (status.leaving, status.stop_refused) = (true, true);
        }
        cluster.snapshot.reports.insert(MachineId::new("a"), Arc::new(refused));
        assert_eq!(lines(&cluster), ["a", "b"]);
        let global = "machine a\nmachine b\nunit all.service | Global=true\n\
            on a: all.service\non b: all.service\nruns a: all.service\nruns b: all.service";
        assert_eq!(listed(global), "all.service a, all.service b");
    }
}
