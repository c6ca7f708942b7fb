//! Canaries, what users want of rollouts, and rollouts of restarts and configurations.

use super::*;
use crate::model::{RolloutAction, RolloutWish};

impl Cluster {
    /// A user's wish, as the API writes it into the record.
    fn wish(&mut self, action: RolloutAction) {
        let unit = (*self.asked.units["web@.service"]).clone();
        let id = unit.wish.as_ref().map_or(0, |wish| wish.id) + 1;
        let (revision, restart, config) = (unit.revision, unit.restart, unit.config);
        let wish = RolloutWish { action, id, revision, restart, config, by: "ann".to_string() };
        let unit = crate::model::Unit { wish: Some(Box::new(wish)), ..unit };
        self.asked.units.insert(unit.name.clone(), Arc::new(unit.with_gist()));
    }

    /// Another text, a count of restarts or of configurations: the wish stays in the record.
    fn resubmit(&mut self, line: &str) {
        let wish = self.asked.units["web@.service"].wish.clone();
        self.submit(line);
        let unit = (*self.asked.units["web@.service"]).clone();
        let unit = crate::model::Unit { wish, ..unit };
        self.asked.units.insert(unit.name.clone(), Arc::new(unit.with_gist()));
    }

    /// How often each instance was asked to restart.
    fn restarts(&self) -> Vec<u64> {
        let all = self.asked.assignments.values().flat_map(|assigned| assigned.instances.values());
        let mut restarts: Vec<u64> = all.map(|placement| placement.restart).collect();
        restarts.sort_unstable();
        restarts
    }

    fn is(&self) -> (State, Option<Pause>, Vec<u64>) {
        (self.rollout().state, self.rollout().pause(), self.revisions())
    }

    /// What fails with the text `bad` fails on one machine only.
    fn report_bad_on(&mut self, machine: &str, bad: u64) {
        self.report(0, "active");
        let good = self.asked.reports.clone();
        self.report(bad, "gave-up");
        for (id, report) in good {
            if id != MachineId::new(machine) {
                self.asked.reports.insert(id, report);
            }
        }
    }
}

const CANARY: &str = "unit web@.service x5 rev=2 | Canary=1";

#[test]
fn a_canary_tries_the_text_alone_until_a_user_resumes() {
    let mut cluster = five();
    cluster.submit(CANARY);
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.is(), (State::Paused, Some(Pause::Canary), vec![1, 1, 1, 1, 2]));
    assert!(cluster.rollout().course().unwrap().ready);
    // What is placed anew meanwhile gets the last good text.
    cluster.submit(&CANARY.replace("x5", "x7"));
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.revisions(), vec![1, 1, 1, 1, 1, 1, 2]);
    cluster.wish(RolloutAction::Resume);
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.is(), (State::Done, None, vec![2; 7]));
    assert_eq!(cluster.rollout().course().unwrap().wish, 1);
}

#[test]
fn a_share_of_canaries_is_rounded_down_and_is_one_at_least() {
    for (canary, expected) in [("50%", vec![1, 1, 1, 2, 2]), ("1%", vec![1, 1, 1, 1, 2])] {
        let mut cluster = five();
        cluster.submit(&format!("unit web@.service x5 rev=2 | Canary={canary}"));
        cluster.until_quiet(0, "active");
        assert_eq!(cluster.revisions(), expected, "{canary}");
    }
}

#[test]
fn a_canary_that_fails_is_undone_like_any_text() {
    let mut cluster = five();
    cluster.submit(CANARY);
    cluster.look();
    cluster.report(2, "gave-up");
    cluster.look();
    assert_eq!(cluster.is(), (State::Undone, None, vec![1; 5]));
    assert!(cluster.rollout().failure.is_some());
    // Tried again, it begins with one again.
    cluster.wish(RolloutAction::Resume);
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.is(), (State::Paused, Some(Pause::Canary), vec![1, 1, 1, 1, 2]));
    cluster.wish(RolloutAction::Undo);
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.is(), (State::Undone, None, vec![1; 5]));
    assert_eq!(cluster.rollout().failure, None);
}

#[test]
fn a_canary_that_fails_says_when_though_its_rollout_was_paused_before() {
    let mut cluster = five();
    cluster.submit(&format!("{CANARY} | OnUpdateFailure=pause"));
    cluster.look();
    let began_ms = cluster.rollout().since_ms;
    cluster.report(2, "gave-up");
    cluster.look();
    assert_eq!(cluster.is(), (State::Paused, None, vec![1, 1, 1, 1, 2]));
    assert!(cluster.rollout().failure.is_some());
    assert!(cluster.rollout().since_ms > began_ms, "no line of its journal is older than that");
}

#[test]
fn a_first_text_has_no_canaries_and_a_canary_that_is_lost_has_a_successor() {
    let mut cluster =
        Cluster::new(&format!("{MACHINES}unit web@.service x5 | Canary=1 | MaxUnavailable=1"));
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.is(), (State::Done, None, vec![1; 5]));
    cluster.submit("unit web@.service x5 rev=2 | Canary=1 | MaxUnavailable=1");
    cluster.until_quiet(0, "active");
    let on = |cluster: &Cluster| {
        let new = |id: &&MachineId| {
            cluster.asked.assignments[*id].instances.values().any(|is| is.revision == 2)
        };
        cluster.asked.assignments.keys().find(new).cloned().unwrap()
    };
    let lost = on(&cluster);
    cluster.asked.machines.remove(&lost);
    cluster.asked.reports.remove(&lost);
    for _ in 0..6 {
        cluster.look();
        cluster.report(0, "active");
        cluster.asked.reports.remove(&lost);
    }
    assert_eq!(cluster.is(), (State::Paused, Some(Pause::Canary), vec![1, 1, 1, 1, 2]));
    assert_ne!(on(&cluster), lost);
}

#[test]
fn a_pause_holds_the_others_back_and_a_stale_one_is_void() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2");
    cluster.look();
    cluster.report(0, "active");
    cluster.wish(RolloutAction::Pause);
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.is(), (State::Paused, Some(Pause::User), vec![1, 1, 1, 1, 2]));
    // Another text is another rollout.
    cluster.resubmit("unit web@.service x5 rev=3");
    assert_eq!(cluster.until_quiet(0, "active"), 1);
    assert_eq!(cluster.is(), (State::Done, None, vec![3; 5]));
    // What was wished for when nothing rolled is not kept for later.
    cluster.wish(RolloutAction::Pause);
    cluster.until_quiet(0, "active");
    cluster.resubmit("unit web@.service x5 rev=3 restart=1");
    cluster.until_quiet(0, "active");
    assert_eq!((cluster.is(), cluster.restarts()), ((State::Done, None, vec![3; 5]), vec![1; 5]));
}

#[test]
fn what_failed_before_a_resume_has_its_whole_time_again() {
    let mut cluster = five();
    let text = "unit web@.service x5 rev=2 | OnUpdateFailure=pause | MaxUnavailable=2";
    cluster.submit(text);
    let looks = |cluster: &mut Cluster| {
        for _ in 0..4 {
            cluster.look();
            cluster.report_bad_on("c", 2);
        }
    };
    looks(&mut cluster);
    assert_eq!(cluster.is(), (State::Paused, None, vec![1, 2, 2, 2, 2]));
    cluster.wish(RolloutAction::Resume);
    looks(&mut cluster);
    assert_eq!(cluster.is(), (State::Rolling, None, vec![2; 5]));
    assert_eq!(cluster.rollout().failure, None);
    cluster.asked.now_ms += 121_000;
    cluster.look();
    assert_eq!(cluster.rollout().state, State::Paused, "it is late");
    assert!(cluster.rollout().failure.is_some());
}

/// The leader was lost when it had written that the text is undone, and before it planned.
#[test]
fn what_failed_before_a_resume_is_no_reason_against_canaries_either() {
    let mut cluster = five();
    cluster.submit(CANARY);
    cluster.look();
    cluster.report(2, "gave-up");
    let name = UnitName::trusted("web@.service");
    let undone = advance(&cluster.asked, &cluster.rollouts).documents[&name].clone().unwrap();
    assert_eq!(undone.state, State::Undone);
    cluster.rollouts.insert(name, Arc::new(undone));
    cluster.wish(RolloutAction::Resume);
    cluster.look();
    assert_eq!(cluster.is(), (State::Paused, Some(Pause::Canary), vec![1, 1, 1, 1, 2]));
    cluster.until_quiet(0, "active");
    assert!(cluster.rollout().course().unwrap().ready);
}

#[test]
fn a_text_that_fails_on_one_machine_only_is_undone_everywhere() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2 | MaxUnavailable=2");
    for _ in 0..10 {
        cluster.look();
        cluster.report_bad_on("b", 2);
    }
    assert_eq!(cluster.is(), (State::Undone, None, vec![1; 5]));
    let failure = cluster.rollout().failure.as_ref().unwrap();
    assert_eq!(failure.machine, MachineId::new("b"));
}

#[test]
fn a_restart_is_a_rollout_and_pauses_where_one_fails() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 restart=1");
    assert!(cluster.look().starts_with("~ web@1.service on a\n… web@.service: 4 to go"));
    assert_eq!(
        (cluster.rollout().state, cluster.rollout().kind()),
        (State::Rolling, Kind::Restart)
    );
    cluster.report(1, "gave-up");
    let mut good = five();
    good.asked.assignments.clone_from(&cluster.asked.assignments);
    good.report(0, "active");
    let failed = cluster.asked.reports[&MachineId::new("a")].clone();
    cluster.asked.reports.clone_from(&good.asked.reports);
    let mut a = (*cluster.asked.reports[&MachineId::new("a")]).clone();
    let first = UnitName::trusted("web@1.service");
    a.instances.insert(first.clone(), failed.instances[&first].clone());
    cluster.asked.reports.insert(MachineId::new("a"), Arc::new(a));
    assert!(!cluster.look().contains('~'));
    assert_eq!(cluster.is(), (State::Paused, None, vec![1; 5]));
    assert!(cluster.rollout().failure.is_some() && cluster.rollout().waits_for_a_user());
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.restarts(), vec![0, 0, 0, 0, 1]);
    // There is nothing to go back to, and a resume goes on.
    cluster.wish(RolloutAction::Undo);
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.rollout().state, State::Paused);
    cluster.wish(RolloutAction::Resume);
    cluster.until_quiet(0, "active");
    assert_eq!((cluster.is().0, cluster.restarts()), (State::Done, vec![1; 5]));
}

#[test]
fn another_configuration_is_a_rollout_and_a_text_that_follows_goes_back_to_the_one_before() {
    let mut cluster = five();
    cluster.submit("unit web@.service x5 rev=2 config=1 | Config=shop");
    cluster.until_quiet(0, "active");
    assert_eq!((cluster.rollout().state, cluster.rollout().kind()), (State::Done, Kind::Text));
    cluster.submit("unit web@.service x5 rev=2 config=2 | Config=shop");
    cluster.look();
    assert_eq!((cluster.rollout().state, cluster.rollout().kind()), (State::Rolling, Kind::Config));
    cluster.wish(RolloutAction::Pause);
    cluster.until_quiet(0, "active");
    let configs = |cluster: &Cluster| {
        let all = cluster.asked.assignments.values().flat_map(|it| it.instances.values());
        all.filter(|placement| placement.config == 2).count()
    };
    assert_eq!((cluster.rollout().pause(), configs(&cluster)), (Some(Pause::User), 1));
    cluster.submit("unit web@.service x5 rev=3 config=2 | Config=shop");
    cluster.look();
    assert_eq!(cluster.rollout().good.as_ref().map(|good| good.revision), Some(2));
    cluster.until_quiet(0, "active");
    assert_eq!((cluster.is().0, configs(&cluster)), (State::Done, 5));
}

#[test]
fn an_undo_of_a_good_rollout_is_refused_and_of_one_that_runs_returns_all_to_the_good_text() {
    let mut cluster = five();
    let over = cluster.rollout().after(RolloutAction::Undo);
    assert_eq!(over, Err(crate::rollout::Refused::Over));
    cluster.submit("unit web@.service x5 rev=2");
    for _ in 0..3 {
        cluster.look();
        cluster.report(0, "active");
    }
    assert_eq!(cluster.rollout().after(RolloutAction::Undo), Ok(State::Undone));
    cluster.wish(RolloutAction::Undo);
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.is(), (State::Undone, None, vec![1; 5]));
    // The same text again can be tried.
    assert_eq!(cluster.rollout().after(RolloutAction::Resume), Ok(State::Rolling));
    cluster.wish(RolloutAction::Resume);
    cluster.until_quiet(0, "active");
    assert_eq!(cluster.is(), (State::Done, None, vec![2; 5]));
}

#[test]
fn what_an_older_leader_wrote_beside_the_course_makes_it_void() {
    let mut cluster = five();
    cluster.submit(CANARY);
    cluster.until_quiet(0, "active");
    // It knows neither canaries nor the course, and keeps what it does not know.
    let mut document = serde_json::to_value(cluster.rollout()).unwrap();
    let newer = five();
    document["text"] = serde_json::to_value(&newer.rollout().text).unwrap();
    document["state"] = "rolling".into();
    let read: Rollout = serde_json::from_value(document).unwrap();
    assert!(read.course.is_some() && read.course().is_none());
    assert_eq!((read.kind(), read.pause()), (Kind::Text, None));
    // A restart that was asked for in its time is no news.
    let mut cluster = five();
    let mut rollout = cluster.rollout().clone();
    rollout.course = None;
    cluster.rollouts.insert(UnitName::trusted("web@.service"), Arc::new(rollout));
    cluster.submit("unit web@.service x5 restart=3");
    cluster.look();
    assert_eq!((cluster.rollout().state, cluster.rollout().kind()), (State::Done, Kind::Text));
}

#[test]
fn events_tell_who_asked_and_that_canaries_wait() {
    let mut cluster = five();
    let mut told = Vec::new();
    let mut look = |cluster: &mut Cluster| {
        let before = cluster.rollouts.get("web@.service").cloned();
        cluster.look();
        let name = UnitName::trusted("web@.service");
        told.extend(cluster.rollout().told(&name, before.as_deref()).map(|it| it.to_string()));
    };
    cluster.submit(CANARY);
    for _ in 0..4 {
        look(&mut cluster);
        cluster.report(0, "active");
    }
    for action in [RolloutAction::Resume, RolloutAction::Pause, RolloutAction::Undo] {
        cluster.wish(action);
        look(&mut cluster);
        look(&mut cluster);
    }
    assert_eq!(
        told,
        [
            "the rollout of web@.service waits: its canaries are healthy with the new text",
            "the rollout of web@.service goes on: ann asked for it",
            "the rollout of web@.service waits: ann asked for it",
            "the new text of web@.service is undone: ann asked for it",
        ]
    );
}
