//! How far rollouts are, by what stands in the store and the leader's word.

use super::Cluster;
use crate::event::Reason;
use crate::model::{DesiredState, Unit};
use crate::name::UnitName;
use crate::rollout::{self, Kind, Rollout, Standing, State};
use crate::wire::{RolloutStatus, WaitsOn};

impl Cluster {
    /// The rollout of a unit; `None` if there is no such unit, or if nobody looks after it: a unit
    /// by its own name that says nothing of it.
    pub fn rollout(&self, name: &UnitName) -> Option<RolloutStatus> {
        let unit = self.snapshot.units.get(name)?;
        unit.on_update_failure()?;
        let known = self.rollouts.get(name).map(|rollout| &**rollout);
        let rollout = known.filter(|rollout| rollout.is_of_all(unit));
        let mut status = RolloutStatus {
            name: name.to_string(),
            kind: rollout.map_or(Kind::Text, Rollout::kind),
            state: rollout.map_or(State::Rolling, |rollout| rollout.state),
            over: false,
            revision: unit.revision,
            good: rollout.and_then(|rollout| rollout.good.as_ref()).map(|good| good.revision),
            config: Some(unit.config).filter(|config| *config > 0),
            since_ms: rollout.map_or(0, |rollout| rollout.since_ms),
            wanted: 0,
            new: 0,
            old: 0,
            healthy: 0,
            waits: rollout.is_some_and(Rollout::waits_for_a_user),
            waits_on: None,
            waits_for: None,
            by: rollout.and_then(Rollout::course).map(|it| it.by.clone()).unwrap_or_default(),
            failure: rollout.and_then(|rollout| rollout.failure.clone()),
            failed: String::new(),
        };
        status.failed = status.failure.as_ref().map(ToString::to_string).unwrap_or_default();
        self.count(unit, rollout, &mut status);
        let placed = status.new + status.old;
        status.wanted = match unit.constraints.global {
            true => placed,
            false => self.wanted(name).len() as u32,
        };
        let launched = unit.desired == DesiredState::Launched;
        status.over = !launched
            || match status.state {
                State::Done | State::Failed => rollout.is_some(),
                State::Undone => status.new == 0 && status.healthy == placed,
                State::Paused => status.failure.is_some(),
                State::Rolling => false,
            };
        if rollout.is_none() {
            status.waits_for = Some(Reason::Undecided);
        } else if status.waits && status.waits_on.is_none() {
            status.waits_for = Some(Reason::Paused { unit: name.clone() });
        }
        Some(status)
    }

    /// All rollouts that are not over, or wait for a user, by unit.
    pub fn rollouts_under_way(&self) -> Vec<RolloutStatus> {
        let is_open = |name: &&UnitName| {
            let (unit, rollout) = (self.snapshot.units.get(*name), self.rollouts.get(*name));
            let unit = unit.filter(|unit| {
                unit.desired == DesiredState::Launched && unit.on_update_failure().is_some()
            });
            unit.is_some_and(|unit| {
                !rollout
                    .is_some_and(|rollout| rollout.is_of_all(unit) && rollout.state == State::Done)
            })
        };
        let all = self.snapshot.units.keys().filter(is_open);
        let all = all.filter_map(|name| self.rollout(name));
        all.filter(|status| status.wanted > 0).collect()
    }

    /// Counts who has what is new, who is well, and finds who is waited for.
    fn count(&self, unit: &Unit, rollout: Option<&Rollout>, status: &mut RolloutStatus) {
        let undone = status.state == State::Undone;
        let target = rollout.filter(|_| undone).and_then(|rollout| rollout.good.as_deref());
        let hash = target.map_or(&unit.hash, |good| &good.hash);
        let mut waits_for = None;
        for (id, assignment) in &self.snapshot.assignments {
            let report = self.snapshot.reports.get(id);
            let report = report.filter(|report| report.generation >= assignment.generation);
            let ours = assignment.instances.iter().filter(|(_, is)| is.unit == unit.name);
            for (instance, placement) in ours {
                let is_new =
                    placement.hash == unit.hash && rollout::is_asked_all(unit, instance, placement);
                match is_new {
                    true => status.new += 1,
                    false => status.old += 1,
                }
                let said = report.and_then(|report| report.instances.get(instance));
                let standing =
                    said.map_or(Standing::Unknown, |it| rollout::standing(placement, it));
                let is_target = placement.hash == *hash && (undone || is_new);
                if is_target && standing == Standing::Healthy {
                    status.healthy += 1;
                } else if is_target && status.waits_on.is_none() && status.state != State::Done {
                    status.waits_on = Some(WaitsOn {
                        instance: instance.to_string(),
                        machine_id: id.clone(),
                        since_ms: placement.since_ms.max(placement.changed_ms),
                    });
                } else if !is_target && waits_for.is_none() {
                    waits_for = self.leaders_word().and_then(|word| word.waits(instance));
                }
            }
        }
        status.waits_for = waits_for;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::script::snapshot;

    const FIVE: &str = "machine a\nmachine b\nunit web@.service x3 rev=2 | Canary=1\n\
        on a: web@1.service web@3.service/rev=1\non b: web@2.service/rev=1\n";

    fn cluster(runs: &str) -> Cluster {
        let snapshot = snapshot(&format!("{FIVE}{runs}"));
        let name = UnitName::trusted("web@.service");
        let record = serde_json::json!({
            "v": 1, "name": name, "text": "", "revision": 2, "desired": "launched", "replicas": 3, "created_ms": 0,
        });
        let record = serde_json::from_value(record).unwrap();
        Cluster { snapshot, records: [(name, Arc::new(record))].into(), ..Cluster::default() }
    }

    #[test]
    fn what_the_leader_has_yet_to_see_is_rolling() {
        let cluster = cluster("");
        let status = cluster.rollout(&UnitName::trusted("web@.service")).unwrap();
        assert_eq!((status.state, status.over), (State::Rolling, false));
        assert_eq!((status.new, status.old, status.wanted), (1, 2, 3));
        assert_eq!(status.waits_for, Some(Reason::Undecided));
        assert_eq!(cluster.rollouts_under_way(), vec![status]);
        assert_eq!(cluster.rollout(&UnitName::trusted("nosuch.service")), None);
    }

    #[test]
    fn canaries_that_are_healthy_wait_for_a_user_and_done_is_over() {
        let name = UnitName::trusted("web@.service");
        let mut cluster = cluster("runs a: web@1.service web@3.service\nruns b: web@2.service");
        let unit = cluster.snapshot.units[&name].clone();
        let good = snapshot("unit web@.service x3").units[&name].clone();
        let before = Rollout::new(&good, State::Done, 0);
        let known = [(name.clone(), Arc::new(before))].into();
        let next = rollout::advance(&cluster.snapshot, &known).documents;
        let next = next[&name].clone().unwrap();
        assert!(next.is_of_all(&unit));
        cluster.rollouts.insert(name.clone(), Arc::new(next));
        let status = cluster.rollout(&name).unwrap();
        assert_eq!((status.state, status.waits, status.over), (State::Paused, true, false));
        assert_eq!((status.new, status.old, status.healthy, status.good), (1, 2, 1, Some(1)));
        assert_eq!(status.waits_for, Some(Reason::Paused { unit: name.clone() }));
        let done = Rollout::new(&unit, State::Done, 0);
        cluster.rollouts.insert(name.clone(), Arc::new(done));
        assert!(cluster.rollout(&name).unwrap().over && cluster.rollouts_under_way().is_empty());
    }
}
