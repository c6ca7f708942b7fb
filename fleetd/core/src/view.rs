//! What the API shows: pure joins of units, assignments and reports, all of one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::brief::Brief;
use crate::model::{DesiredState, InstanceStatus, Leader, Placement, Snapshot, UnitRecord};
use crate::name::{MachineId, UnitName};
use crate::nowhere::Nowhere;
use crate::plan::{Change, Plan, missing};
use crate::unit::family;
use crate::unit_file::UnitFile;
use crate::wire;

/// Everything in the store at one revision: what the planner sees, and what only people need.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// What the planner sees.
    pub snapshot: Snapshot,
    /// The units as submitted.
    pub records: BTreeMap<UnitName, Arc<UnitRecord>>,
    /// Who leads, if anybody does.
    pub leader: Option<Leader>,
    /// In which term: the revision that created the leader key.
    pub term: i64,
    /// What the leader, or the one before it, found no machine for.
    pub nowhere: Option<Nowhere>,
}

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

    /// The record that `name` follows from: its own, or the template whose replica it is.
    pub fn owner(&self, name: &UnitName) -> Option<&Arc<UnitRecord>> {
        family::owner(&self.records, name, |record| record.replicas).map(|(_, record)| record)
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
        without_what_was_left_behind(states)
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
            next_try_ms: status.next_try_ms,
            since_ms: Some(status.since_ms),
            message: status.message.clone().or_else(|| status.reason.clone()),
        }
    }

    /// The machines that are alive, by id.
    pub fn machines(&self) -> Vec<wire::Machine> {
        let machine = |(id, machine): (&MachineId, &Arc<crate::model::Machine>)| wire::Machine {
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

    /// The machines that are missing, while they are so many that their units are moved slowly.
    pub fn missing(&self, now_ms: u64) -> Option<wire::Missing> {
        let slowed = missing(&self.snapshot, now_ms)?;
        let machine = |id: &MachineId| wire::MissingMachine {
            id: id.to_string(),
            instances: self
                .snapshot
                .assignments
                .get(id)
                .map_or(0, |assignment| assignment.instances.len() as u32),
        };
        Some(wire::Missing {
            says: slowed.to_string(),
            waits: slowed.waits.iter().map(machine).collect(),
            next_in_ms: (!slowed.waits.is_empty()).then(|| slowed.next_ms.saturating_sub(now_ms)),
        })
    }

    /// How far the units called `names` are; `plan` is what planning this very snapshot gives.
    pub fn progress(&self, plan: &Plan, names: &[UnitName]) -> wire::Progress {
        wire::Progress {
            revision: self.snapshot.revision,
            leader: self.leader.as_ref().map(|leader| leader.machine.clone()),
            units: names.iter().map(|name| self.unit_progress(plan, name)).collect(),
        }
    }

    fn unit_progress(&self, plan: &Plan, name: &UnitName) -> wire::UnitProgress {
        let record = self.owner(name);
        let scaled = name.is_template();
        let concerns =
            |instance: &UnitName, unit: &UnitName| instance == name || (scaled && unit == name);
        // What the leader has yet to change is not done, however well it runs.
        let waiting = plan.rolling.iter().flat_map(|rolling| &rolling.waiting);
        let planned: BTreeSet<&UnitName> =
            plan.changes.iter().map(Change::instance).chain(waiting).collect();
        let mut instances: Vec<wire::InstanceProgress> = Vec::new();
        for (id, assignment) in &self.snapshot.assignments {
            for (instance, placement) in
                assignment.instances.iter().filter(|(i, p)| concerns(i, &p.unit))
            {
                let mut progress =
                    self.placed_progress(id, instance, placement, assignment.generation);
                progress.done &= !planned.contains(instance);
                progress.acknowledged &= !planned.contains(instance);
                instances.push(progress);
            }
        }
        let assigned: BTreeSet<(UnitName, Option<MachineId>)> = instances
            .iter()
            .map(|i| (UnitName::trusted(i.name.as_str()), i.machine.clone()))
            .collect();
        // What a machine still reports, and is assigned no longer, is on its way out.
        for (id, report) in &self.snapshot.reports {
            for (instance, status) in &report.instances {
                let of_template = scaled
                    && instance.template().as_ref() == Some(name)
                    && !self.records.contains_key(instance);
                if (instance == name || of_template)
                    && !assigned.contains(&(instance.clone(), Some(id.clone())))
                {
                    instances.push(wire::InstanceProgress {
                        name: instance.to_string(),
                        machine: Some(id.clone()),
                        address: self.address(id),
                        status: Some(status.clone()),
                        ..wire::InstanceProgress::default()
                    });
                }
            }
        }
        for unplaced in &plan.unplaced {
            for instance in unplaced.instances.iter().filter(|i| concerns(i, &unplaced.unit)) {
                // The leader knows more than stands in the store, and may be about to place it.
                let said =
                    unplaced.misfits.iter().filter(|_| self.leader_found_no_machine(instance));
                let misfits = said.map(|(m, machines)| wire::MisfitCount {
                    reason: m.to_string(),
                    machines: *machines,
                });
                instances.push(wire::InstanceProgress {
                    name: instance.to_string(),
                    wanted: true,
                    misfits: misfits.collect(),
                    ..wire::InstanceProgress::default()
                });
            }
        }
        for held in plan.held.iter().filter(|held| {
            concerns(&held.instance, &held.instance.template().unwrap_or(held.instance.clone()))
        }) {
            let waits = wire::MisfitCount { reason: held.to_string(), machines: 1 };
            let on_lost_machine = |i: &&mut wire::InstanceProgress| {
                i.name == held.instance.as_str() && i.machine.as_ref() == Some(&held.machine)
            };
            match instances.iter_mut().find(on_lost_machine) {
                Some(instance) => instance.misfits.push(waits),
                None => instances.push(wire::InstanceProgress {
                    name: held.instance.to_string(),
                    wanted: true,
                    misfits: vec![waits],
                    ..wire::InstanceProgress::default()
                }),
            }
        }
        instances.sort_by(|a, b| {
            natural(&a.name).cmp(&natural(&b.name)).then_with(|| a.machine.cmp(&b.machine))
        });
        let planned =
            planned.iter().any(|i| *i == name || (scaled && i.template().as_ref() == Some(name)));
        wire::UnitProgress {
            name: name.to_string(),
            exists: record.is_some(),
            desired_state: record.map(|record| record.desired.to_string()).unwrap_or_default(),
            global: self.snapshot.units.get(name).is_some_and(|unit| unit.constraints.global),
            replicas: record
                .filter(|record| record.name == *name)
                .and_then(|record| record.replicas),
            done: !planned && instances.iter().all(|instance| instance.done),
            instances,
        }
    }

    /// Whether the present leader has planned the instance, and no machine fits.
    fn leader_found_no_machine(&self, instance: &UnitName) -> bool {
        let said = self
            .nowhere
            .as_ref()
            .filter(|nowhere| self.leader.is_some() && nowhere.term == self.term);
        said.is_some_and(|nowhere| nowhere.holds(instance))
    }

    fn placed_progress(
        &self,
        id: &MachineId,
        instance: &UnitName,
        placement: &Placement,
        generation: u64,
    ) -> wire::InstanceProgress {
        let report = self.snapshot.reports.get(id);
        let status = report.and_then(|report| report.instances.get(instance));
        // A report that first sees a new text or a restart wanted is made before either is carried
        // out: it tells how the old text fares. What could not be carried out says so.
        let carried_out = |status: &InstanceStatus| {
            let restarted = placement.restart == 0 || status.restart == placement.restart;
            (restarted && status.hash == placement.hash) || status.message.is_some()
        };
        let acknowledged = status.is_none_or(carried_out)
            && report.is_some_and(|report| report.generation >= generation);
        wire::InstanceProgress {
            name: instance.to_string(),
            wanted: true,
            machine: Some(id.clone()),
            address: self.address(id),
            why: Some(placement.why.clone()),
            acknowledged,
            done: status.is_some_and(|status| reached(placement, status)),
            status: status.cloned(),
            misfits: Vec::new(),
        }
    }

    fn address(&self, id: &MachineId) -> String {
        self.snapshot.machines.get(id).map(|machine| machine.address.clone()).unwrap_or_default()
    }
}

/// Leaves out where an instance has ended that has moved to another machine, which reports it by
/// now: nothing of it is left there.
fn without_what_was_left_behind(mut states: Vec<Reported<'_>>) -> Vec<Reported<'_>> {
    let ended = |state: &Reported| ["inactive", "failed"].contains(&state.status.active.as_str());
    let moved: BTreeSet<UnitName> = states
        .chunk_by(|one, next| one.instance == next.instance)
        .filter(|several| {
            several.iter().any(|state| state.status.leaving)
                && several.iter().any(|state| !state.status.leaving)
        })
        .map(|several| several[0].instance.clone())
        .collect();
    states
        .retain(|state| !(state.status.leaving && ended(state) && moved.contains(state.instance)));
    states
}

/// fleet's computed state of a placed unit: `launched` says that it was started, not that it runs.
fn current_state(placement: &Placement, status: &InstanceStatus) -> DesiredState {
    match placement.state {
        DesiredState::Launched if status.launched => DesiredState::Launched,
        _ => DesiredState::Loaded,
    }
}

/// Whether what is reported is what was assigned.
fn reached(placement: &Placement, status: &InstanceStatus) -> bool {
    if status.hash != placement.hash
        || (placement.restart != 0 && status.restart != placement.restart)
    {
        return false;
    }
    match placement.state {
        // A unit that did its work and ended is as wanted; one that is on its way up is not yet.
        DesiredState::Launched => {
            let ended = status.ended || !placement.is_replica();
            status.launched && (status.is_active() || (status.active == "inactive" && ended))
        }
        // A socket may have started what is only loaded; what fleet is stopping is "deactivating"
        // from the moment it was asked.
        DesiredState::Loaded | DesiredState::Inactive => {
            !status.launched && status.active != "deactivating"
        }
    }
}

/// Orders `web@2` before `web@10`.
fn natural(name: &str) -> (String, u32, String) {
    let name = UnitName::trusted(name);
    (name.prefix().to_string(), name.replica_number().unwrap_or(0), name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Assignment, Report, Why};
    use crate::plan::plan;
    use crate::plan::script::snapshot;

    /// It runs the assigned text, and was restarted as often as was asked.
    fn restarted_once() -> InstanceStatus {
        InstanceStatus {
            active: "active".into(),
            hash: "1253888".into(),
            launched: true,
            restart: 1,
            ..InstanceStatus::default()
        }
    }

    fn restarted(message: Option<&str>) -> wire::InstanceProgress {
        let message = message.map(str::to_string);
        progress_of(InstanceStatus {
            active: "inactive".into(),
            message,
            restart: 0,
            ..restarted_once()
        })
    }

    fn progress_of(status: InstanceStatus) -> wire::InstanceProgress {
        reports("web.service", status)
    }

    /// One restart of `name` was asked for, and this is what its machine reports.
    fn reports(name: &str, status: InstanceStatus) -> wire::InstanceProgress {
        let name = UnitName::trusted(name);
        let placement = Placement {
            unit: name.template().unwrap_or(name.clone()),
            revision: 1,
            hash: "1253888".into(),
            state: DesiredState::Launched,
            why: Why::Fewest,
            since_ms: 0,
            moves: 0,
            restart: 1,
            fence: None,
        };
        let machine = MachineId::new("m1");
        let assignment = Assignment {
            generation: 7,
            instances: [(name.clone(), placement)].into(),
            ..Assignment::default()
        };
        let report = Report {
            generation: 7,
            instances: [(name.clone(), status)].into(),
            ..Report::default()
        };
        let mut cluster = Cluster::default();
        cluster.snapshot.assignments.insert(machine.clone(), Arc::new(assignment));
        cluster.snapshot.reports.insert(machine, Arc::new(report));
        cluster.progress(&Plan::default(), &[name]).units[0].instances[0].clone()
    }

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
        assert_eq!(listed("deactivating", true, true), "a b", "it is still alive there");
        assert_eq!(listed("failed", true, false), "a", "nobody else has it yet");
        assert_eq!(listed("failed", false, true), "a b", "it is global");
    }

    #[test]
    fn what_a_machine_says_of_the_text_before_is_no_answer_to_the_new_one() {
        let instance = progress_of(InstanceStatus {
            active: "failed".into(),
            hash: "0ld0ld0".into(),
            ..restarted_once()
        });
        assert!(!instance.acknowledged && !instance.done);
        let refused = InstanceStatus { message: Some("no such image".into()), ..restarted_once() };
        assert!(progress_of(InstanceStatus { hash: "0ld0ld0".into(), ..refused }).acknowledged);
        assert!(
            progress_of(InstanceStatus { active: "failed".into(), ..restarted_once() })
                .acknowledged
        );
    }

    #[test]
    fn a_restart_is_acknowledged_once_it_was_carried_out_or_refused() {
        assert!(!restarted(None).acknowledged);
        let refused = restarted(Some("Unit web.service is masked."));
        assert!(refused.acknowledged && !refused.done);
    }

    #[test]
    fn a_replica_that_is_down_is_as_wanted_if_its_machine_says_that_its_work_is_done() {
        let down = |name: &str, ended: bool, restart: u64| {
            let (hash, active) = ("1253888".into(), "inactive".to_string());
            let status = InstanceStatus {
                active,
                hash,
                ended,
                restart,
                launched: true,
                ..InstanceStatus::default()
            };
            reports(name, status).done
        };
        assert!(down("job@1.service", true, 1));
        assert!(!down("job@1.service", true, 0), "it is restarted yet");
        assert!(!down("web@1.service", false, 1));
        assert!(
            down("web.service", false, 1),
            "an older fleetd does not say so, and it was submitted by name"
        );
    }

    #[test]
    fn that_no_machine_fits_is_said_only_after_the_leader() {
        let mut cluster = Cluster {
            snapshot: snapshot("machine a\nunit db.service | MachineMetadata=disk=ssd"),
            ..Cluster::default()
        };
        let name = UnitName::trusted("db.service");
        let record = serde_json::json!({"v": 1, "name": name, "text": "", "revision": 1, "desired": "launched", "created_ms": 0});
        cluster.records.insert(name.clone(), Arc::new(serde_json::from_value(record).unwrap()));
        let plan = plan(&cluster.snapshot);
        let said = |cluster: &Cluster| {
            let progress = cluster.progress(&plan, std::slice::from_ref(&name));
            let instance = &progress.units[0].instances[0];
            assert!(instance.wanted && instance.machine.is_none() && !instance.done);
            !instance.misfits.is_empty()
        };
        assert!(!said(&cluster), "nobody leads");
        (cluster.term, cluster.leader) =
            (7, Some(Leader { v: 1, machine: MachineId::new("a"), since_ms: 0 }));
        assert!(!said(&cluster), "the leader has not said so");
        cluster.nowhere = Some(Nowhere::of(&plan, 6));
        assert!(!said(&cluster), "another leader said so");
        cluster.nowhere = Some(Nowhere::of(&plan, 7));
        assert!(said(&cluster));
        cluster.leader = None;
        assert!(!said(&cluster), "it leads no longer");
    }
}
