//! Health checks of the instances here: who is asked when, and what is known of each.
//!
//! Asking goes on beside the agent's passes, which only read what is known. So a check that hangs
//! holds up nothing but itself, and a pass that takes long no check. Nothing here needs the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fleet_core::converge::{Marker, Seen};
use fleet_core::health::{Course, Health, HealthCheck, Probe, seed};
use fleet_core::name::UnitName;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, watch};
use tracing::{debug, info};

use super::Agent;
use crate::probe::{Answer, Probes, Tally};
use crate::process::clock;

/// How many instances are asked over the network at once. If so many hang, the others are asked
/// late, and no sooner found to be unhealthy.
const MOST_ASKED: usize = 256;

/// How many commands run at once: each is a unit of systemd's, and may be a process of podman's.
const MOST_COMMANDS: usize = 8;

/// How long nobody is asked if nobody is due, in milliseconds.
const IDLE_MS: u64 = 60_000;

/// What is known, shared by the agent and the one that asks.
#[derive(Clone)]
pub(super) struct Checks {
    known: Arc<Mutex<Known>>,
    /// Counts up when the health of an instance changes.
    changed: watch::Sender<u64>,
    /// Whether somebody is due earlier than before.
    due: Arc<Notify>,
    probes: Option<Arc<dyn Probes>>,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Known {
    targets: BTreeMap<UnitName, Target>,
    /// Who is asked next: when, in milliseconds since 1970.
    queue: BTreeSet<(u64, UnitName)>,
    /// Counts targets, so that a late answer is of the right one.
    nth: u64,
}

struct Target {
    check: Arc<HealthCheck>,
    course: Course,
    nth: u64,
    /// When it is asked next; `None` while it is asked.
    next_ms: Option<u64>,
}

/// One question.
struct Question {
    instance: UnitName,
    nth: u64,
    check: Arc<HealthCheck>,
    asked_ms: u64,
}

/// What runs at present.
#[derive(Debug, Default, Clone, Copy)]
struct Running {
    asked: usize,
    commands: usize,
}

impl Checks {
    pub(super) fn new() -> Checks {
        Checks {
            known: Arc::default(),
            changed: watch::Sender::new(0),
            due: Arc::default(),
            probes: None,
            tally: Arc::default(),
        }
    }

    /// Counts up when the health of an instance changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Asks whoever is due, for ever.
    pub(super) async fn run(self) {
        let Some(probes) = self.probes.clone() else { return std::future::pending().await };
        let mut asking = FuturesUnordered::new();
        let mut running = Running::default();
        loop {
            let now_ms = clock::now_ms();
            let (due, next_ms) = self.known().take_due(now_ms, &mut running);
            for question in due {
                let probes = &probes;
                asking.push(async move {
                    let limit = Duration::from_millis(question.check.timeout_ms);
                    let probe = &question.check.probe;
                    let answer = probes.ask(&question.instance, probe, limit).await;
                    (question, answer)
                });
            }
            let pause = Duration::from_millis(next_ms.saturating_sub(now_ms));
            tokio::select! {
                biased; // the same order in each run of the simulator
                Some((question, answer)) = asking.next(), if !asking.is_empty() => {
                    running.end(&question.check.probe);
                    self.tally.count(&answer);
                    self.answered(&question, answer, clock::now_ms());
                }
                () = self.due.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn answered(&self, question: &Question, answer: Answer, now_ms: u64) {
        let Question { instance, nth, check, asked_ms } = question;
        let mut known = self.known();
        let Some(target) = known.targets.get_mut(instance).filter(|it| it.nth == *nth) else {
            return; // it was started again meanwhile, or is gone
        };
        let answer = match answer {
            Answer::Good => Some(Ok(())),
            Answer::Bad(why) => Some(Err(why)),
            Answer::None => Some(Err(format!("no answer within {}", seconds(check.timeout_ms)))),
            Answer::NotAsked(problem) => {
                debug!(unit = %instance, "{instance} was not asked for its health: {problem}");
                None
            }
        };
        let changed = answer.is_some_and(|answer| target.course.take(check, answer, now_ms));
        // What was asked late, or answers late, is asked no more often for that.
        let next_ms = target.course.next_ms(check, Some(*asked_ms), seed(instance)).max(now_ms);
        target.next_ms = Some(next_ms);
        match target.course.health() {
            Health::Unhealthy { why, .. } if changed => {
                info!(unit = %instance, "{instance} is unhealthy: {why}");
            }
            health if changed => info!(unit = %instance, "{instance} is {}", health.word()),
            _ => {}
        }
        known.queue.insert((next_ms, instance.clone()));
        drop(known);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// How an instance is that runs and has this check. One that was not known begins its course.
    fn look(
        &self,
        instance: &UnitName,
        check: &HealthCheck,
        begin: impl FnOnce(bool) -> Course,
    ) -> (Health, Option<u64>) {
        let mut known = self.known();
        let (is_known, same) = known
            .targets
            .get(instance)
            .map_or((false, false), |target| (true, *target.check == *check));
        if !same {
            known.forget(instance);
            known.nth += 1;
            let course = begin(is_known);
            let next_ms = course.next_ms(check, None, seed(instance));
            let (check, nth) = (Arc::new(check.clone()), known.nth);
            let target = Target { check, course, nth, next_ms: Some(next_ms) };
            known.targets.insert(instance.clone(), target);
            known.queue.insert((next_ms, instance.clone()));
            self.due.notify_one();
        }
        let course = &known.targets[instance].course;
        (course.health().clone(), course.well_since_ms())
    }

    /// It does not run, or was just started again.
    fn forget(&self, instance: &UnitName) {
        self.known().forget(instance);
    }

    fn forget_all_but(&self, running: &BTreeSet<UnitName>) {
        let mut known = self.known();
        let gone: Vec<UnitName> =
            known.targets.keys().filter(|name| !running.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| known.forget(name));
    }

    /// Why it is unhealthy, if it is.
    pub(super) fn why(&self, instance: &UnitName) -> Option<String> {
        match self.known().targets.get(instance)?.course.health() {
            Health::Unhealthy { why, .. } => Some(why.clone()),
            _ => None,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no panic while health is noted")
    }
}

impl Known {
    fn forget(&mut self, instance: &UnitName) {
        if let Some(Target { next_ms: Some(next_ms), .. }) = self.targets.remove(instance) {
            self.queue.remove(&(next_ms, instance.clone()));
        }
    }

    /// Takes those that are due and that there is room for. Answers also with when to look again;
    /// the end of a question is a reason to look as well.
    fn take_due(&mut self, now_ms: u64, running: &mut Running) -> (Vec<Question>, u64) {
        let (mut due, mut next_ms) = (Vec::new(), now_ms + IDLE_MS);
        for (at_ms, instance) in &self.queue {
            if *at_ms > now_ms {
                next_ms = next_ms.min(*at_ms);
                break;
            }
            if running.asked >= MOST_ASKED && running.commands >= MOST_COMMANDS {
                break;
            }
            let Some(target) = self.targets.get_mut(instance) else { continue };
            if running.begin(&target.check.probe) {
                target.next_ms = None;
                let (nth, check) = (target.nth, Arc::clone(&target.check));
                let instance = instance.clone();
                due.push((*at_ms, Question { instance, nth, check, asked_ms: now_ms }));
            }
        }
        for (at_ms, question) in &due {
            self.queue.remove(&(*at_ms, question.instance.clone()));
        }
        (due.into_iter().map(|(_, question)| question).collect(), next_ms)
    }
}

impl Running {
    fn of(&mut self, probe: &Probe) -> (&mut usize, usize) {
        match probe {
            Probe::Exec { .. } => (&mut self.commands, MOST_COMMANDS),
            Probe::Http { .. } | Probe::Tcp { .. } => (&mut self.asked, MOST_ASKED),
        }
    }

    /// Takes a place, if there is one.
    fn begin(&mut self, probe: &Probe) -> bool {
        let (count, most) = self.of(probe);
        let room = *count < most;
        *count += usize::from(room);
        room
    }

    fn end(&mut self, probe: &Probe) {
        *self.of(probe).0 -= 1;
    }
}

impl Agent {
    /// Has instances asked for their health, and the answers counted. Without it none is asked, and
    /// systemd's word is all there is.
    pub fn with_probes(mut self, probes: Arc<dyn Probes>, tally: Arc<Tally>) -> Agent {
        self.checks = Checks { probes: Some(probes), tally, ..self.checks };
        self
    }

    /// Says of each instance that runs and has a check how it is. Answers with since when those
    /// have been well that are, in milliseconds since 1970.
    pub(super) fn look_at_health(
        &mut self,
        host: &mut BTreeMap<UnitName, Seen>,
        now_ms: u64,
    ) -> BTreeMap<UnitName, u64> {
        let mut well = BTreeMap::new();
        if self.checks.probes.is_none() {
            return well;
        }
        let mut running = BTreeSet::new();
        let mut changed: Vec<(UnitName, Marker)> = Vec::new();
        for (name, seen) in host.iter_mut() {
            let Some(marker) = seen.marker.as_ref() else { continue };
            let up = |active: &str| matches!(active, "active" | "reloading" | "refreshing");
            let up = seen.systemd.as_ref().is_some_and(|state| up(&state.active));
            let check = marker.check.as_ref().filter(|_| up && marker.launched);
            let check = check.filter(|_| seen.failed_part.is_none());
            if let Some(check) = check {
                let since_ms = self.instances.of(name).since_ms(now_ms);
                let (health, well_since) = self.checks.look(name, check, |known| match known {
                    true => Course::starting(now_ms), // another check than before
                    false if marker.healthy => Course::healthy(now_ms),
                    false => Course::starting(since_ms),
                });
                seen.health = Some(health);
                well.extend(well_since.map(|since_ms| (name.clone(), since_ms)));
                running.insert(name.clone());
            }
            let healthy = seen.health == Some(Health::Healthy);
            if marker.healthy != healthy {
                changed.push((name.clone(), Marker { healthy, ..marker.clone() }));
            }
        }
        self.checks.forget_all_but(&running);
        for (name, marker) in changed {
            if let Some(seen) = host.get_mut(&name) {
                seen.marker = Some(marker.clone());
            }
            self.keep(&name, marker);
        }
        well
    }

    /// It is started or restarted, by whom ever: what it answered before says nothing any more.
    pub(super) fn forget_health(&mut self, name: &UnitName) {
        self.checks.forget(name);
        if let Some(marker) = self.instances.marker(name).filter(|marker| marker.healthy).cloned() {
            self.keep(name, Marker { healthy: false, ..marker });
        }
    }
}

fn seconds(ms: u64) -> String {
    match ms.is_multiple_of(1_000) {
        true => format!("{} s", ms / 1_000),
        false => format!("{ms} ms"),
    }
}
