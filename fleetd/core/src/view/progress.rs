//! How far units are, by what stands in the store and the leader's word.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Cluster;
use super::states::is_of;
use crate::event::Reason;
use crate::model::{DesiredState, InstanceStatus, Placement, UnitRecord};
use crate::name::{MachineId, UnitName};
use crate::rollout::is_asked_all;
use crate::wire;

impl Cluster {
    /// How far the units called `names` are, by what stands in the store and the leader's word.
    pub fn progress(&self, names: &[UnitName]) -> wire::Progress {
        wire::Progress {
            revision: self.snapshot.revision,
            leader: self.leader.as_ref().map(|leader| leader.machine.clone()),
            units: names.iter().map(|name| self.unit_progress(name)).collect(),
        }
    }

    fn unit_progress(&self, name: &UnitName) -> wire::UnitProgress {
        let record = self.owner(name);
        let unit = record.and_then(|record| self.snapshot.units.get(&record.name));
        // What the leader has not looked at yet, or has yet to change, is not done, however well
        // it runs.
        let written = record.and_then(|record| self.units_written.get(&record.name));
        let planned = record.is_none() || written.is_some_and(|at| self.is_planned(*at));
        let rollout = record.and_then(|record| self.rollouts.get(&record.name));
        let rollout = rollout.filter(|rollout| unit.is_some_and(|unit| rollout.is_of(unit)));
        // One of an earlier restart or configuration tells nothing of the present one.
        let told = rollout.filter(|rollout| {
            rollout.course().is_none() || unit.is_some_and(|unit| rollout.is_of_all(unit))
        });
        // What is paused without a failure is still to come.
        let waits = rollout.filter(|rollout| rollout.waits_for_a_user());
        // What they are to run is the last good text while their own is undone.
        let text = rollout.filter(|_| waits.is_none()).and_then(|rollout| rollout.in_force());
        let text = text.or(unit.map(|unit| &**unit));
        let mut instances: Vec<wire::InstanceProgress> = Vec::new();
        for (id, assignment) in &self.snapshot.assignments {
            for (instance, placement) in
                assignment.instances.iter().filter(|(i, p)| is_of(name, i, p))
            {
                let mut progress =
                    self.placed_progress(id, instance, placement, assignment.generation);
                let rolling =
                    self.outlook.as_ref().is_some_and(|outlook| outlook.is_rolling(instance));
                let old = text.is_none_or(|text| text.hash != placement.hash);
                let held = unit.filter(|unit| {
                    waits.is_some() && (old || !is_asked_all(unit, instance, placement))
                });
                progress.done &= planned && !rolling && !old && held.is_none();
                progress.acknowledged &= planned && !rolling;
                if let Some(unit) = held {
                    progress.wait_for(Some(Reason::Paused { unit: unit.name.clone() }));
                } else if !progress.done
                    && let Some(waits) = self.leaders_word().and_then(|word| word.waits(instance))
                {
                    progress.wait_for(Some(waits));
                }
                instances.push(progress);
            }
        }
        let placed: BTreeSet<UnitName> =
            instances.iter().map(|instance| UnitName::trusted(instance.name.as_str())).collect();
        instances.extend(self.leaving(name).map(|reported| wire::InstanceProgress {
            name: reported.instance.to_string(),
            machine: Some(reported.machine.clone()),
            address: self.address(reported.machine),
            status: Some(reported.status.clone()),
            ..wire::InstanceProgress::default()
        }));
        let global = unit.is_some_and(|unit| unit.constraints.global);
        for instance in self.wanted(name) {
            let misfits = self.misfits(&instance);
            // One that runs an older text stays where it is while the new one fits nowhere. How
            // many a global unit should have is the leader's to know.
            let is_there = global || placed.contains(&instance);
            if !misfits.is_empty() || !is_there {
                let mut progress = wire::InstanceProgress {
                    name: instance.to_string(),
                    wanted: true,
                    misfits,
                    ..wire::InstanceProgress::default()
                };
                progress.wait_for(self.waits(&instance, planned));
                instances.push(progress);
            }
        }
        instances.sort_by(|a, b| {
            natural(&a.name).cmp(&natural(&b.name)).then_with(|| a.machine.cmp(&b.machine))
        });
        wire::UnitProgress {
            name: name.to_string(),
            exists: record.is_some(),
            desired_state: record.map(|record| record.desired.to_string()).unwrap_or_default(),
            global,
            replicas: record
                .filter(|record| record.name == *name)
                .and_then(|record| record.replicas),
            rollout: told.map(|rollout| wire::Rollout {
                state: rollout.state,
                revision: rollout.text.revision,
                good: rollout.good.as_ref().map(|good| good.revision),
                failure: rollout.failure.clone(),
                kind: rollout.kind(),
                waits: rollout.waits_for_a_user(),
                since_ms: rollout.since_ms,
            }),
            done: planned && instances.iter().all(|instance| instance.done),
            instances,
        }
    }

    /// The instances of a unit that should be on a machine: of a template its replicas, without
    /// those that are units of their own.
    pub(super) fn wanted(&self, name: &UnitName) -> Vec<UnitName> {
        let active = |record: &&Arc<UnitRecord>| record.desired != DesiredState::Inactive;
        let Some(record) = self.owner(name).filter(active) else { return Vec::new() };
        let unit = self.snapshot.units.get(&record.name);
        if unit.is_some_and(|unit| unit.member || unit.name.is_shared()) {
            return Vec::new(); // it is where others are
        }
        if !name.is_template() {
            return vec![name.clone()];
        }
        let replicas = (1..=record.replicas.unwrap_or(0)).map(|number| name.replica(number));
        replicas.filter(|replica| !self.records.contains_key(replica)).collect()
    }

    /// Why no machine can run the instance, if the present leader has found none. What it found
    /// before the last write of a user says nothing: the peer that the instance needs may have come
    /// since, or a machine may have been uncordoned.
    fn misfits(&self, instance: &UnitName) -> Vec<wire::MisfitCount> {
        let word = self.leaders_word().filter(|outlook| outlook.planned >= self.asked);
        let word = word.and_then(|outlook| outlook.misfits(instance));
        word.map(<[_]>::to_vec).unwrap_or_default()
    }

    /// What an instance without a machine waits for, if it can be said.
    fn waits(&self, instance: &UnitName, planned: bool) -> Option<Reason> {
        let outlook = self.leaders_word()?;
        match outlook.waits(instance) {
            None if !planned => Some(Reason::Undecided),
            None if outlook.settling => Some(Reason::Returning),
            waits => waits,
        }
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
            let restarted = (placement.restart == 0 || status.restart == placement.restart)
                && status.config >= placement.config;
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
            // Who waits for the unit waits until its spare instances are gone.
            done: !placement.is_spare() && status.is_some_and(|status| reached(placement, status)),
            spare: placement.is_spare(),
            status: status.cloned(),
            ..wire::InstanceProgress::default()
        }
    }

    fn address(&self, id: &MachineId) -> String {
        self.snapshot.machines.get(id).map(|machine| machine.address.clone()).unwrap_or_default()
    }
}

/// Whether what is reported is what was assigned.
fn reached(placement: &Placement, status: &InstanceStatus) -> bool {
    if status.hash != placement.hash
        || (placement.restart != 0 && status.restart != placement.restart)
        || status.config < placement.config
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
    use crate::model::{Assignment, Leader, Report, Why};
    use crate::outlook::Outlook;
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
            changed_ms: 0,
            moves: 0,
            restart: 1,
            config: 0,
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
        // The unit itself, as the leader has planned it.
        submit(&mut cluster, &name, 5);
        let unit = cluster.snapshot.units.get_mut(&name).map(Arc::make_mut).unwrap();
        unit.hash = "1253888".into();
        cluster.outlook = Some(Outlook { planned: 5, ..Outlook::default() });
        cluster.progress(&[name]).units[0].instances[0].clone()
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
    fn a_unit_is_done_when_its_spare_instances_are_gone() {
        let mut cluster = Cluster {
            snapshot: snapshot(
                "machine a\nunit web@.service x1 | UpdateOrder=start-first
                 on a: web@1.service web@2.service/spare
                 runs a: web@1.service web@2.service",
            ),
            ..Cluster::default()
        };
        let name = UnitName::trusted("web@.service");
        submit(&mut cluster, &name, 5);
        cluster.outlook = Some(Outlook { planned: 5, ..Outlook::default() });
        let instances = |cluster: &Cluster| {
            let unit = cluster.progress(std::slice::from_ref(&name)).units.remove(0);
            let of = |i: &wire::InstanceProgress| (i.name.clone(), i.spare, i.done);
            (unit.done, unit.instances.iter().map(of).collect::<Vec<_>>())
        };
        let web = |number: u32| format!("web@{number}.service");
        assert_eq!(
            instances(&cluster),
            (false, vec![(web(1), false, true), (web(2), true, false)])
        );
        let states = cluster.states(|_, _| true);
        let spare: Vec<bool> = states.iter().map(|state| cluster.state(state).spare).collect();
        assert_eq!(spare, [false, true]);
        let assignment = cluster.snapshot.assignments.get_mut("a").map(Arc::make_mut).unwrap();
        assignment.instances.remove(&name.replica(2));
        assert!(!instances(&cluster).0, "it still runs there");
        let report = cluster.snapshot.reports.get_mut("a").map(Arc::make_mut).unwrap();
        report.instances.remove(&name.replica(2));
        assert_eq!(instances(&cluster), (true, vec![(web(1), false, true)]));
    }

    /// Submits a launched unit without a text, at this revision.
    fn submit(cluster: &mut Cluster, name: &UnitName, revision: i64) {
        let record = serde_json::json!({
            "v": 1, "name": name, "text": "", "revision": 1, "desired": "launched", "created_ms": 0,
        });
        let record: UnitRecord = serde_json::from_value(record).unwrap();
        let unit = crate::model::Unit::from_record(&record);
        cluster.snapshot.units.entry(name.clone()).or_insert_with(|| Arc::new(unit));
        cluster.records.insert(name.clone(), Arc::new(record));
        cluster.units_written.insert(name.clone(), revision);
    }

    #[test]
    fn that_no_machine_fits_is_said_only_after_the_leader() {
        let mut cluster = Cluster {
            snapshot: snapshot("machine a\nunit db.service | MachineMetadata=disk=ssd"),
            ..Cluster::default()
        };
        let name = UnitName::trusted("db.service");
        submit(&mut cluster, &name, 50);
        let plan = plan(&cluster.snapshot);
        let said = |cluster: &Cluster| {
            let progress = cluster.progress(std::slice::from_ref(&name));
            let instance = progress.units[0].instances[0].clone();
            assert!(instance.wanted && instance.machine.is_none() && !instance.done);
            (!instance.misfits.is_empty(), instance.waits)
        };
        let outlook =
            |term, planned, settling| Some(Outlook::of(&plan, term, planned, settling, None));
        assert_eq!(said(&cluster), (false, String::new()), "nobody leads");
        (cluster.term, cluster.leader) =
            (7, Some(Leader { v: 1, machine: MachineId::new("a"), since_ms: 0 }));
        assert_eq!(said(&cluster), (false, String::new()), "the leader has not said so");
        cluster.outlook = outlook(6, 100, false);
        assert_eq!(said(&cluster), (false, String::new()), "another leader said so");
        cluster.outlook = Some(Outlook { term: 7, planned: 49, ..Outlook::default() });
        assert_eq!(said(&cluster), (false, "waiting for the leader's decision".to_string()));
        cluster.outlook = outlook(7, 100, true);
        assert!(!said(&cluster).0 && said(&cluster).1.contains("may be about to return"));
        let progress = cluster.progress(std::slice::from_ref(&name));
        assert_eq!(progress.units[0].instances[0].waits_for, Some(Reason::Returning));
        cluster.outlook = outlook(7, 100, false);
        assert_eq!(said(&cluster), (true, String::new()));
        cluster.asked = 101;
        assert!(!said(&cluster).0, "what it needs may have been submitted since");
        cluster.asked = 100;
        assert!(said(&cluster).0);
        cluster.leader = None;
        assert_eq!(said(&cluster), (false, String::new()), "it leads no longer");
    }

    #[test]
    fn what_the_leader_has_yet_to_plan_is_not_done_and_what_another_planned_is() {
        let name = UnitName::trusted("all.service");
        let seen = snapshot("machine a\nmachine b\nunit all.service | Global=true");
        let mut cluster = Cluster { snapshot: seen, ..Cluster::default() };
        submit(&mut cluster, &name, 50);
        let done = |cluster: &Cluster| cluster.progress(std::slice::from_ref(&name)).units[0].done;
        assert!(!done(&cluster), "a global unit that is nowhere yet");
        cluster.outlook = Some(Outlook { term: 3, planned: 50, ..Outlook::default() });
        assert!(done(&cluster), "it should be nowhere, whoever leads by now");
        cluster.records.remove(&name);
        cluster.outlook = None;
        assert!(done(&cluster), "it is gone");
    }
}
