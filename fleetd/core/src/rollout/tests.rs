//! Rollouts as a leader sees them: one look after the other.

use std::sync::Arc;

use super::tally::{Standing, standing};
use super::{Kind, Pause, Rollout, Rollouts, State, advance, put_in_force};
use crate::event::Reason;
use crate::health::Health;
use crate::model::{DesiredState, InstanceStatus, Report, Snapshot};
use crate::name::{MachineId, UnitName};
use crate::plan::plan;
use crate::plan::script::{applied, print, runs, snapshot};

mod spares;
mod wishes;

/// A cluster that a leader plans, and whose machines do as they are assigned.
struct Cluster {
    asked: Snapshot,
    rollouts: Rollouts,
}

impl Cluster {
    fn new(text: &str) -> Cluster {
        Cluster { asked: snapshot(text), rollouts: Rollouts::new() }
    }

    /// Another text of the units.
    fn submit(&mut self, lines: &str) {
        self.asked.units.extend(snapshot(lines).units);
    }

    /// A leader looks, and writes what it decides; another one goes on with what is written.
    fn look(&mut self) -> String {
        let advanced = advance(&self.asked, &self.rollouts);
        for (name, next) in advanced.documents {
            match next {
                Some(next) => {
                    let written = serde_json::to_string(&next).unwrap();
                    let read: Rollout = serde_json::from_str(&written).unwrap();
                    assert_eq!(read, next);
                    self.rollouts.insert(name, Arc::new(read));
                }
                None => drop(self.rollouts.remove(&name)),
            }
        }
        let again = advance(&self.asked, &self.rollouts).documents;
        assert!(again.is_empty(), "a second look changes {again:?}");
        let mut planned = self.asked.clone();
        put_in_force(&mut planned, &self.rollouts);
        let plan = plan(&planned);
        let after = applied(&planned, &plan);
        self.asked.assignments = after.assignments;
        print(&plan)
    }

    /// All machines report: what has `bad` text is so, all else is up.
    fn report(&mut self, bad: u64, active: &str) {
        self.asked.now_ms += 1_000;
        for (id, assignment) in &self.asked.assignments {
            let status = |name: &UnitName| {
                let is_bad = assignment.instances[name].revision == bad;
                let (name, mut status) = runs(assignment, name.as_str());
                if is_bad {
                    status.active =
                        active.replace("gave-up", "failed").replace("stays-down", "failed");
                    status.gave_up = active == "gave-up";
                    status.stays_down = active == "stays-down";
                    status.restarts = 5 * u32::from(status.gave_up);
                    status.result = "exit-code".to_string();
                    status.code = Some(1);
                }
                (name, status)
            };
            let instances = assignment.instances.keys().map(status).collect();
            let report =
                Report { generation: assignment.generation, instances, ..Report::default() };
            self.asked.reports.insert(id.clone(), Arc::new(report));
        }
    }

    /// All machines report: what has the text `revision` is up, with this health.
    fn answer(&mut self, revision: u64, health: &Health) {
        self.report(0, "");
        for (id, report) in &mut self.asked.reports {
            let assignment = &self.asked.assignments[id];
            for (name, status) in &mut Arc::make_mut(report).instances {
                if assignment.instances[name].revision == revision {
                    status.health = Some(health.clone());
                }
            }
        }
    }

    /// Looks and reports until nothing changes; answers with the most that were changed at once.
    fn until_quiet(&mut self, bad: u64, active: &str) -> usize {
        let mut most = 0;
        for _ in 0..30 {
            let said = self.look();
            let changed = said.lines().filter(|line| line.starts_with('~')).count();
            most = most.max(changed);
            let before = self.asked.reports.clone();
            self.report(bad, active);
            if changed == 0 && before == self.asked.reports {
                return most;
            }
        }
        panic!("it never comes to rest");
    }

    fn rollout(&self) -> &Rollout {
        &self.rollouts["web@.service"]
    }

    /// How many instances are assigned each revision.
    fn revisions(&self) -> Vec<u64> {
        let all = self.asked.assignments.values().flat_map(|assigned| assigned.instances.values());
        let mut revisions: Vec<u64> = all.map(|placement| placement.revision).collect();
        revisions.sort_unstable();
        revisions
    }
}

const MACHINES: &str = "machine a\nmachine b\nmachine c\n";

/// Five instances that are healthy with their first text.
fn five() -> Cluster {
    let mut cluster = Cluster::new(&format!("{MACHINES}unit web@.service x5"));
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.rollout().state, State::Done);
    cluster
}

#[test]
fn a_good_text_reaches_all_one_after_the_other_and_is_what_the_next_goes_back_to() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2");
    assert_eq!(cluster.until_quiet(0, "active"), 1);
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Done, vec![2; 5]));
    cluster.submit("unit web@.service x5 rev=3");
    cluster.look();
    assert_eq!(cluster.rollout().good.as_ref().map(|good| good.revision), Some(2));
}

#[test]
fn a_text_that_fails_is_undone_and_what_ran_the_old_one_never_notices() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2");
    let before = cluster.look();
    assert_eq!(before.lines().filter(|line| line.starts_with('~')).count(), 1, "{before}");
    cluster.report(2, "gave-up");
    assert_eq!(cluster.look(), "~ web@1.service on a");
    let rollout = cluster.rollout();
    assert_eq!((rollout.state, cluster.revisions()), (State::Undone, vec![1; 5]));
    let failure = rollout.failure.as_ref().unwrap().to_string();
    assert_eq!(failure, "web@1.service failed on machine a: exit-code (1) after 5 restarts");
    cluster.until_quiet(2, "gave-up");
    // The unit's record still has the text that failed; its count is the user's.
    cluster.submit("unit web@.service x6 rev=2");
    cluster.until_quiet(2, "gave-up");
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Undone, vec![1; 6]));
}

#[test]
fn a_text_of_which_one_instance_gives_up_as_its_file_says_is_undone_at_once() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2");
    cluster.look();
    cluster.report(2, "stays-down");
    assert_eq!(cluster.look(), "~ web@1.service on a");
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Undone, vec![1; 5]));
}

#[test]
fn a_text_of_which_one_instance_is_not_healthy_in_time_is_undone() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2 | HealthyDeadline=30s");
    cluster.look();
    let began = cluster.asked.now_ms;
    cluster.report(2, "activating");
    assert_eq!(cluster.look().lines().filter(|line| line.starts_with('~')).count(), 0);
    assert_eq!(advance(&cluster.asked, &cluster.rollouts).wake_at_ms, Some(began + 30_000));
    cluster.asked.now_ms = began + 30_000;
    cluster.look();
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Undone, vec![1; 5]));
    let failure = cluster.rollout().failure.as_ref().unwrap().to_string();
    assert_eq!(failure, "web@1.service on machine a was not healthy within 30 s");
}

#[test]
fn a_first_text_that_fails_has_nothing_to_go_back_to() {
    let mut cluster = Cluster::new(&format!("{MACHINES}unit web@.service x5"));
    cluster.look();
    cluster.report(1, "gave-up");
    cluster.look();
    assert_eq!((cluster.rollout().state, &cluster.rollout().good), (State::Failed, &None));
    // The next text may work, and then it is good.
    cluster.submit("unit web@.service x5 rev=2");
    cluster.until_quiet(1, "gave-up");
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Done, vec![2; 5]));
}

#[test]
fn what_a_later_version_says_of_a_failure_leaves_the_text_undone() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2");
    cluster.look();
    cluster.report(2, "gave-up");
    cluster.look();
    let mut written = serde_json::to_value(cluster.rollout()).unwrap();
    written["failure"]["reason"] = serde_json::json!({"kind": "whim", "of": "the moon"});
    let read: Rollout = serde_json::from_value(written).unwrap();
    assert_eq!(read.state, State::Undone);
    assert_eq!(read.failure.unwrap().reason, Reason::Other);
}

#[test]
fn a_text_that_follows_a_failed_one_goes_back_to_the_last_good_one() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2");
    cluster.look();
    cluster.report(2, "failed");
    cluster.look();
    cluster.submit("unit web@.service x5 rev=3");
    cluster.look();
    assert_eq!(cluster.rollout().good.as_ref().map(|good| good.revision), Some(1));
    cluster.until_quiet(3, "gave-up");
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Undone, vec![1; 5]));
}

#[test]
fn pause_leaves_what_runs_the_new_text_and_gives_it_to_nobody_else() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2 | OnUpdateFailure=pause");
    cluster.look();
    cluster.report(2, "gave-up");
    assert_eq!(cluster.look(), "");
    assert_eq!(
        (cluster.rollout().state, cluster.revisions()),
        (State::Paused, vec![1, 1, 1, 1, 2])
    );
    assert_eq!(cluster.until_quiet(2, "gave-up"), 0);
}

#[test]
fn continue_goes_on_as_ever() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2 | OnUpdateFailure=continue | MaxUnavailable=100%");
    cluster.look();
    cluster.report(2, "gave-up");
    cluster.look();
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Failed, vec![2; 5]));
}

#[test]
fn an_instance_that_fails_with_a_text_on_trial_is_not_moved() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2 | OnUpdateFailure=pause");
    cluster.look();
    cluster.asked.now_ms += 3_600_000;
    cluster.report(2, "gave-up");
    let said = cluster.look();
    assert!(!said.contains("Failed"), "{said}");
}

#[test]
fn a_unit_that_was_destroyed_or_restored_has_a_rollout_of_its_own() {
    let mut cluster = five();
    let unit = (*cluster.asked.units["web@.service"]).clone();
    let other = crate::model::Unit { created_ms: 7, ..unit };
    cluster.asked.units.insert(other.name.clone(), Arc::new(other));
    cluster.look();
    assert_eq!((cluster.rollout().text.created_ms, cluster.rollout().state), (7, State::Done));
    cluster.asked.units.clear();
    cluster.look();
    assert!(cluster.rollouts.is_empty());
}

#[test]
fn a_silent_machine_fails_no_text() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2");
    cluster.look();
    cluster.asked.now_ms += 3_600_000;
    cluster.look();
    assert_eq!(cluster.rollout().state, State::Rolling);
    cluster.report(2, "gave-up");
    cluster.asked.machines.remove(&MachineId::new("a"));
    cluster.asked.settling.insert(MachineId::new("a"));
    cluster.look();
    assert_eq!(cluster.rollout().state, State::Rolling);
}

#[test]
fn a_text_with_which_instances_answer_badly_is_undone_once_they_are_late() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2");
    cluster.look();
    assert_eq!(cluster.revisions(), [1, 1, 1, 1, 2]);
    let unhealthy = Health::Unhealthy { why: "503".to_string(), since_ms: 0 };
    for health in [Health::Starting, unhealthy.clone()] {
        cluster.answer(2, &health);
        let said = cluster.look();
        assert!(!said.contains('~'), "nobody else gets it: {health:?} {said}");
    }
    cluster.asked.now_ms += 120_000;
    cluster.answer(2, &unhealthy);
    let said = cluster.look();
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Undone, vec![1; 5]));
    assert!(said.starts_with("~ web@"), "at once: {said}");
}

#[test]
fn a_text_that_answers_well_is_done() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2");
    for _ in 0..10 {
        cluster.look();
        cluster.answer(2, &Health::Starting);
        assert_eq!(cluster.look().lines().filter(|line| line.starts_with('~')).count(), 0);
        cluster.answer(2, &Health::Healthy);
    }
    assert_eq!((cluster.rollout().state, cluster.revisions()), (State::Done, vec![2; 5]));
}

#[test]
fn units_by_name_are_looked_after_only_if_they_say_so() {
    let mut cluster = Cluster::new(&format!("{MACHINES}unit db.service"));
    cluster.until_quiet(0, "active");
    assert!(cluster.rollouts.is_empty());
    cluster.submit("unit db.service | OnUpdateFailure=rollback");
    cluster.until_quiet(0, "active");
    cluster.submit("unit db.service rev=2 | OnUpdateFailure=rollback");
    cluster.look();
    cluster.report(2, "gave-up");
    cluster.look();
    assert_eq!(
        (cluster.rollouts["db.service"].state, cluster.revisions()),
        (State::Undone, vec![1])
    );
}

#[test]
fn what_ends_by_itself_or_pauses_between_good_runs_is_healthy() {
    let ends = |ended, sub: &str, active: &str| InstanceStatus {
        active: active.to_string(),
        sub: sub.to_string(),
        ended,
        launched: true,
        hash: "v1".into(),
        ..InstanceStatus::default()
    };
    let cluster = snapshot("machine a\nunit web@.service x1\non a: web@1.service/rev=1");
    let placement = &cluster.assignments["a"].instances["web@1.service"];
    assert_eq!(placement.state, DesiredState::Launched);
    for (status, expected) in [
        (ends(true, "dead", "inactive"), Standing::Healthy),
        (ends(false, "auto-restart", "activating"), Standing::Healthy),
        (ends(false, "start", "activating"), Standing::Open),
        (ends(false, "dead", "inactive"), Standing::Open),
    ] {
        assert_eq!(standing(placement, &status), expected, "{status:?}");
    }
}

#[test]
fn what_goes_back_to_a_text_without_a_configuration_waits_for_none() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2 config=3 | Config=shop");
    cluster.look();
    cluster.report(2, "gave-up");
    cluster.look();
    assert_eq!(cluster.rollout().state, State::Undone);
    let mut planned = cluster.asked.clone();
    put_in_force(&mut planned, &cluster.rollouts);
    let unit = &planned.units["web@.service"];
    assert_eq!((unit.revision, unit.config), (1, 0));
}

#[test]
fn a_text_that_no_machine_can_start_in_time_is_undone() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2");
    cluster.look();
    // A machine knows it, and goes on with the old one: its image cannot be pulled.
    cluster.report(0, "active");
    let mut waits = (*cluster.asked.reports["a"]).clone();
    waits.instances.get_mut("web@1.service").unwrap().hash = "another".into();
    cluster.asked.reports.insert(MachineId::new("a"), Arc::new(waits));
    cluster.look();
    assert_eq!(cluster.rollout().state, State::Rolling);
    cluster.asked.now_ms += 121_000;
    cluster.look();
    assert_eq!(cluster.rollout().state, State::Undone);
}
