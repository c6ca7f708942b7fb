//! The judge: hears each write of the store and each step of each systemd, keeps the history, and
//! says what must not have happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use fleet_core::model::{Assignment, DesiredState};
use fleet_core::name::UnitName;
use fleetd::store::kv::{WatchBatch, WatchEvent};
use fleetd::systemd::Job;
use tokio::time::Instant;

use crate::apps::Apps;
use crate::budget::Budget;
use crate::copies::Copies;
use crate::etcd::{Origin, key};
use crate::host::COPY;
use crate::keeper;
use crate::needs::{NEEDING, Needs};
use crate::placing::Placing;
use crate::quitting::Quitting;
use crate::reboots::Reboots;
use crate::rollouts::Rollouts;
use crate::script::{CHECKED, ROLLING, SPARED};
use crate::stand_ins::StandIns;
use crate::texts::Texts;
use crate::values::Values;
use crate::verdict::{Check, Verdict};

/// How long after it was decided a stop may still be carried out: the longest fault, and the
/// longest pause after a failed step.
const STOP_STANDS: Duration = Duration::from_secs(180);

/// Three commits of one leader with no other write between them are one too many, unless time made
/// it: a pause that ended, or a fenced unit's wait. The first may have been planned before the last
/// write was seen, the second was not: it waited for the first to come round.
const AT_ONCE: Duration = Duration::from_millis(100);

/// The documents that fleetd rewrites whole.
pub(crate) const REWRITTEN: [&str; 3] =
    ["/fleet/units/", "/fleet/settings/", "/fleet/assignments/"];

/// A field that today's fleetd does not know, as it stands in a document.
const LATER_FIELD: &str = "\"x-later\":";

/// The judge, as its witnesses share it.
#[derive(Clone)]
pub struct SharedJudge(Arc<Mutex<Judge>>);

impl SharedJudge {
    /// Nothing has happened yet. Needs a tokio runtime, whose time it notes.
    pub fn new() -> SharedJudge {
        SharedJudge(Arc::new(Mutex::new(Judge {
            began: Instant::now(),
            history: Vec::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            verdict: None,
            leader: None,
            assignments: BTreeMap::new(),
            committed: (0, None, Instant::now()),
            stops: BTreeMap::new(),
            live: BTreeMap::new(),
            tokens: BTreeMap::new(),
            later: BTreeSet::new(),
            leaving: BTreeSet::new(),
            undisturbed: false,
            budgets: [Budget::of(ROLLING), Budget::of(CHECKED)],
            stand_ins: StandIns::default(),
            placing: Placing::default(),
            rollouts: Rollouts::default(),
            texts: Texts::default(),
            values: Values::default(),
            apps: Apps::default(),
            copies: Copies::default(),
            needs: Needs::default(),
            quitting: Quitting::default(),
            reboots: Reboots::default(),
        })))
    }

    /// Whoever holds it must not wait.
    pub fn lock(&self) -> MutexGuard<'_, Judge> {
        // A panic before the judge is told as such; what the judge has seen by then stands.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same; `None` while somebody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Judge>> {
        match self.0.try_lock() {
            Ok(judge) => Some(judge),
            Err(TryLockError::Poisoned(judge)) => Some(judge.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Default for SharedJudge {
    fn default() -> SharedJudge {
        SharedJudge::new()
    }
}

/// What was seen so far.
pub struct Judge {
    began: Instant,
    history: Vec<String>,
    hash: u64,
    verdict: Option<Verdict>,
    /// Which life of which machine created the leader key that stands.
    leader: Option<Origin>,
    assignments: BTreeMap<String, Assignment>,
    /// How many of the last revisions were commits of one leader, by whom, and when the last one
    /// was.
    committed: (usize, Option<Origin>, Instant),
    /// When the leader last decided that an instance stops or restarts on a machine.
    stops: BTreeMap<(usize, UnitName), Instant>,
    /// On which machines each unit has a process.
    live: BTreeMap<UnitName, BTreeSet<usize>>,
    /// The token of the last life of each fenced unit.
    tokens: BTreeMap<UnitName, u64>,
    /// The documents that hold a field of a later version.
    later: BTreeSet<String>,
    leaving: BTreeSet<usize>,
    /// Whether no unfenced unit may stop: nobody asked for it, and no machine is lost.
    undisturbed: bool,
    budgets: [Budget; 2],
    stand_ins: StandIns,
    placing: Placing,
    rollouts: Rollouts,
    texts: Texts,
    values: Values,
    apps: Apps,
    copies: Copies,
    needs: Needs,
    quitting: Quitting,
    reboots: Reboots,
}

impl Judge {
    /// Writes a line into the history.
    pub fn note(&mut self, line: String) {
        let line = format!("{:>9.3} {line}", self.began.elapsed().as_secs_f64());
        self.hash = line
            .bytes()
            .fold(self.hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        self.history.push(line);
    }

    /// Something that must not be. The first one is the verdict.
    pub fn fail(&mut self, check: Check, what: String) {
        self.note(format!("!!! {what}"));
        self.verdict.get_or_insert(Verdict { check, what });
    }

    /// The first thing that was wrong.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// What happened, and its hash.
    pub fn history(&self) -> (&[String], u64) {
        (&self.history, self.hash)
    }

    /// Which life of which machine leads by the store's word.
    pub fn leader(&self) -> Option<Origin> {
        self.leader
    }

    /// From now on no unfenced unit may stop, or: again it may.
    pub fn undisturbed(&mut self, undisturbed: bool) {
        self.note(format!("--- units may {}", if undisturbed { "not stop" } else { "stop" }));
        self.undisturbed = undisturbed;
    }

    /// A machine was told that it may reboot. The error is what is wrong.
    pub fn may_reboot(&mut self, machine: usize) -> Result<(), String> {
        self.reboots.may(machine)
    }

    /// A machine is about to say that it is steady.
    pub fn is_steady(&mut self, machine: usize) {
        self.reboots.is_steady(machine);
    }

    /// A machine leaves: it stops what it runs.
    pub fn leaves(&mut self, machine: usize) {
        self.leaving.insert(machine);
    }

    /// A machine goes on in the cluster.
    pub fn stays(&mut self, machine: usize) {
        self.leaving.remove(&machine);
    }

    /// A revision was written.
    pub fn wrote(&mut self, origin: Option<Origin>, batch: &WatchBatch) {
        let part = |origin: Origin| if origin.keeper { "k" } else { "" };
        let who = origin.map_or("store".to_string(), |origin| {
            format!("m{}.{}{}", origin.machine, part(origin), origin.life)
        });
        let mut line = format!("rev {} by {who}:", batch.revision);
        for event in &batch.events {
            line += if matches!(event, WatchEvent::Put(_)) { " +" } else { " -" };
            line += key(event).strip_prefix("/fleet").unwrap_or(key(event));
        }
        self.note(line);
        let commit = origin.is_some()
            && batch.events.iter().any(|event| key(event).starts_with("/fleet/assignments/"));
        let (row, by, at) = self.committed;
        let row = if !commit {
            0
        } else if by == origin && at.elapsed() < AT_ONCE {
            row + 1
        } else {
            1
        };
        let row = if row > 1 && self.gives_up_a_fenced_unit(batch) { 1 } else { row };
        self.committed = (row, origin, Instant::now());
        if row > 2 {
            self.fail(
                Check::Quiet,
                "the plan of a planned state was not empty: three commits in a row with nothing \
                    between them"
                    .to_string(),
            );
        }
        self.placing.wrote(batch);
        self.values.wrote(batch);
        if let Err(what) = self.rollouts.wrote(batch) {
            self.fail(Check::Rollouts, what);
        }
        if let Err(what) = self.apps.wrote(batch) {
            self.fail(Check::Files, what);
        }
        if let Err(what) = self.texts.wrote(batch) {
            self.fail(Check::Texts, what);
        }
        for event in &batch.events {
            let key = key(event);
            let value =
                if let WatchEvent::Put(kv) = event { Some(kv.value.as_slice()) } else { None };
            self.keeps_fields(key, value);
            if key == "/fleet/leader" {
                self.leader = value.and(origin);
            } else if let Some(machine) = key.strip_prefix("/fleet/machines/") {
                let lease = if let WatchEvent::Put(kv) = event { kv.lease } else { None };
                if let Err(what) = self.copies.registered(
                    machine,
                    origin.map(|origin| origin.machine),
                    lease,
                    self.undisturbed,
                ) {
                    self.fail(Check::Copied, what);
                }
            } else if key.starts_with("/fleet/rivals/") && value.is_some() {
                origin.iter().for_each(|origin| self.copies.noted(origin.machine));
            } else if let Some(machine) = key.strip_prefix("/fleet/assignments/") {
                self.assigned(origin, machine, value, batch);
            } else if let Some(unit) = key.strip_prefix("/fleet/units/") {
                let record = value.and_then(|value| serde_json::from_slice(value).ok());
                for budget in self.budgets.iter_mut().filter(|budget| budget.unit() == unit) {
                    budget.wanted(record.as_ref());
                }
                if unit == SPARED {
                    self.stand_ins.wanted(record.as_ref());
                }
                if unit == NEEDING {
                    self.needs.wrote(record.as_ref());
                }
            }
        }
        if let Some(Err(what)) = origin.map(|_| self.stand_ins.written()) {
            self.fail(Check::StandIn, what);
        }
    }

    /// Whether a commit takes a fenced unit off a machine, or knows that what was taken off has
    /// ended: then it was a wait's end that made it, and several may end at once.
    fn gives_up_a_fenced_unit(&self, batch: &WatchBatch) -> bool {
        batch.events.iter().any(|event| {
            let WatchEvent::Put(kv) = event else { return false };
            let Some(old) = kv
                .key
                .strip_prefix("/fleet/assignments/")
                .and_then(|machine| self.assignments.get(machine))
            else {
                return false;
            };
            let new: Assignment = serde_json::from_slice(&kv.value).unwrap_or_default();
            let goes = old
                .instances
                .iter()
                .any(|(name, was)| was.fence.is_some() && !new.instances.contains_key(name));
            goes || old.off.keys().any(|name| !new.off.contains_key(name))
        })
    }

    /// A field of a later version stays in its document for as long as there is one.
    fn keeps_fields(&mut self, key: &str, value: Option<&[u8]>) {
        if !REWRITTEN.iter().any(|prefix| key.starts_with(prefix)) {
            return;
        }
        let holds = value.is_some_and(|value| {
            value.windows(LATER_FIELD.len()).any(|part| part == LATER_FIELD.as_bytes())
        });
        if holds {
            self.later.insert(key.to_string());
        } else if self.later.remove(key) && value.is_some() {
            self.fail(
                Check::LaterFields,
                format!("a rewrite of {key} lost a field of a later version"),
            );
        }
    }

    fn assigned(
        &mut self,
        origin: Option<Origin>,
        machine: &str,
        value: Option<&[u8]>,
        batch: &WatchBatch,
    ) {
        if origin.is_some() && origin != self.leader {
            self.fail(
                Check::OneWriter,
                format!("{origin:?} wrote an assignment in the term of {:?}", self.leader),
            );
        }
        let Some(value) = value else { return drop(self.assignments.remove(machine)) };
        let Ok(new) = serde_json::from_slice::<Assignment>(value) else {
            return self
                .fail(Check::Generations, format!("the assignment of {machine} cannot be read"));
        };
        let old = self.assignments.insert(machine.to_string(), new.clone()).unwrap_or_default();
        if new.generation <= old.generation {
            let what = format!(
                "generation {} of {machine}'s assignment came after {}",
                new.generation, old.generation
            );
            self.fail(Check::Generations, what);
        }
        let number = usize::from_str_radix(&machine[24..], 16).unwrap_or(usize::MAX);
        let now = Instant::now();
        let mut line = format!("    machine {number} generation {}:", new.generation);
        for (name, was) in &old.instances {
            let stays = new.instances.get(name).is_some_and(|is| {
                is.state == was.state
                    && is.hash == was.hash
                    && is.restart == was.restart
                    && is.config == was.config
                    && is.unit == was.unit
            });
            if !stays {
                line += &format!(" -{name}");
                self.stops.insert((number, name.clone()), now);
            }
        }
        for (name, is) in &new.instances {
            if old.instances.get(name) != Some(is) {
                line += &format!(" +{name} {} r{}", is.state, is.revision);
            }
        }
        self.note(line);
        if let Some(Err(what)) = origin.map(|_| self.needs.assigned(&old, &new)) {
            self.fail(Check::Needs, what);
        }
        if let Some(Err(what)) = origin.map(|_| self.placing.assigned(batch, machine, &old, &new)) {
            self.fail(Check::Placed, what);
        }
        for what in self.budgets.each_mut().map(|budget| budget.assigned(number, &old, &new)) {
            what.unwrap_or_else(|what| self.fail(Check::Budget, what));
        }
        if let Err(what) = self.stand_ins.assigned(number, &old, &new) {
            self.fail(Check::StandIn, what);
        }
    }

    /// fleetd asked its systemd for a job.
    pub fn asked(&mut self, machine: usize, name: &UnitName, job: Job) {
        self.note(format!("m{machine} {} {name}", job.verb()));
        if let Err(what) = self.copies.asked(machine, name, job) {
            self.fail(Check::Copied, what);
        }
        self.values.asked(machine, name, job);
        let (host, machine) = (machine, machine % COPY); // what is decided for a machine is carried out by who has its place
        let id = |id: &&String| usize::from_str_radix(&id[24..], 16) == Ok(machine);
        let assignment = self.assignments.keys().find(id).and_then(|id| self.assignments.get(id));
        let placement = assignment.and_then(|assignment| assignment.instances.get(name));
        let left_alone = self.quitting.asked(host, name, job, placement);
        if let Err(what) = left_alone {
            return self.fail(Check::LeftAlone, what);
        }
        if job == Job::Start || self.leaving.contains(&host) || self.tokens.contains_key(name) {
            return; // what is fenced is stopped by its keeper's end, too
        }
        let decided =
            self.stops.get(&(machine, name.clone())).is_some_and(|at| at.elapsed() < STOP_STANDS);
        let unwanted = assignment.is_some()
            && placement.is_none_or(|placement| placement.state != DesiredState::Launched);
        let sick = job == Job::Restart
            && self.budgets.iter().any(|budget| budget.may_be_sick(machine, name));
        if !decided && !unwanted && !sick {
            self.fail(
                Check::Decided,
                format!(
                    "machine {machine} asked to {} {name}, which nobody had decided",
                    job.verb()
                ),
            );
        }
    }

    /// From now on every program answers its health check well as soon as it runs.
    pub fn all_are_mended(&mut self) {
        self.budgets.iter_mut().for_each(Budget::all_are_mended);
        self.quitting.all_are_mended();
    }

    /// What has a health check answers badly on this machine from now on, or no longer.
    pub fn sick(&mut self, machine: usize, sick: bool) {
        for budget in &mut self.budgets {
            match sick {
                true => budget.falls_sick(machine % COPY),
                false => budget.is_mended(machine % COPY),
            }
        }
    }

    /// An instance of the application starts, and finds these files.
    pub fn found_files(&mut self, machine: usize, name: &UnitName, found: Result<usize, String>) {
        if let Err(what) = found {
            self.fail(Check::Files, format!("{name} on machine {machine} {what}"));
        }
    }

    /// A unit entered a state. Its environment tells whether this life is fenced.
    pub fn entered(
        &mut self,
        machine: usize,
        name: &UnitName,
        active: &str,
        environment: &[String],
    ) {
        let token = environment
            .iter()
            .find_map(|line| line.strip_prefix("FLEET_FENCING_TOKEN=")?.parse::<u64>().ok());
        self.note(format!(
            "m{machine} {name} {active}{}",
            token.map_or(String::new(), |token| format!(" token {token}"))
        ));
        for budget in &mut self.budgets {
            budget.entered(machine % COPY, name, active, environment);
        }
        self.stand_ins.entered(machine % COPY, name, active);
        self.needs.entered(machine, name, active);
        if let Err(what) = self.values.entered(machine, name, active, environment) {
            self.fail(Check::Values, what);
        }
        let lives = matches!(active, "activating" | "active" | "reloading" | "deactivating");
        let machines = self.live.entry(name.clone()).or_default();
        let begins = lives && machines.insert(machine);
        if !lives {
            machines.remove(&machine);
        }
        if let Some(token) = token.filter(|_| lives) {
            if begins && self.copies.apart(machines).len() > 1 {
                let what = format!("{name} is fenced and lives on machines {machines:?}");
                self.fail(Check::OneLife, what);
            }
            let last = self.tokens.insert(name.clone(), token).unwrap_or(0);
            if active == "activating" && token < last {
                self.fail(
                    Check::Tokens,
                    format!("{name} started with token {token} after one with {last}"),
                );
            }
        }
        let exempt =
            self.tokens.contains_key(name) || [keeper::unit(), keeper::guard_unit()].contains(name);
        if self.undisturbed && !exempt && !matches!(active, "active" | "activating") {
            self.fail(
                Check::Undisturbed,
                format!("{name} on machine {machine} became {active}, though nobody asked for it"),
            );
        }
    }
}
