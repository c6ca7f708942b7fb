//! The simulated manager: the state of each unit, and what jobs, ends of processes and elapsed
//! times make of it. No task, no lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::process::{Child, Program};
use super::settings::End;
use super::*;
use crate::probe::Answer;

/// Something to do later, unless the unit went on meanwhile.
#[derive(Debug)]
pub(super) struct Timer {
    /// By the host's clock. `None`: as long as a job takes.
    pub(super) delay: Option<Duration>,
    /// Whether a systemd that is late is late with it.
    pub(super) lags: bool,
    pub(super) name: UnitName,
    pub(super) epoch: u64,
    pub(super) then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Started,
    Reloaded,
    /// Its program ends by itself, like this.
    Dies(End),
    Stopped,
    /// `TimeoutStopSec=` is over: SIGKILL.
    Killed,
    StartAgain,
    /// Whether `WatchdogSec=` is over.
    Watch,
}

pub(super) struct Unit {
    pub(super) settings: Settings,
    /// The text that its process was started with.
    pub(super) runs: String,
    /// … and the environment.
    pub(super) environment: Vec<String>,
    pub(super) load: &'static str,
    /// Whether systemd goes by a file of the host's own.
    pub(super) is_hosts: bool,
    pub(super) active: &'static str,
    pub(super) sub: &'static str,
    pub(super) job: Option<(u32, Job)>,
    pub(super) outcome: JobOutcome,
    /// Names its present process.
    pub(super) invocation: u64,
    /// Since when that runs.
    pub(super) began: Instant,
    /// When its watchdog ends it.
    pub(super) watched_until: Option<Instant>,
    pub(super) starts: VecDeque<Instant>,
    /// The links as they were when it was loaded, or at the last reload.
    pub(super) wants: BTreeSet<UnitName>,
    /// Changes with each step; a timer of an older one does nothing.
    pub(super) epoch: u64,
}

pub(super) struct Manager {
    /// What fleet wrote: text and drop-in.
    pub(super) files: BTreeMap<UnitName, (String, String)>,
    /// Drop-ins of instances that share their template's file.
    pub(super) drop_ins: BTreeMap<UnitName, String>,
    /// What the host brings: path and text.
    pub(super) host_files: BTreeMap<UnitName, (String, String)>,
    pub(super) behaviours: BTreeMap<UnitName, Behaviour>,
    /// Units whose starts end with this word before anything runs.
    pub(super) refused: BTreeMap<UnitName, &'static str>,
    /// How programs answer health checks, where it is not their arguments that say so.
    pub(super) answers: BTreeMap<UnitName, Answer>,
    /// How units that ran came to be at rest, as the journal has it.
    pub(super) rests: BTreeMap<UnitName, Rest>,
    /// How units failed last, as the journal has it.
    pub(super) failures: BTreeMap<UnitName, JobOutcome>,
    /// What was started in this start of user space.
    pub(super) has_run: BTreeSet<UnitName>,
    /// Which start of user space it is.
    pub(super) user_space: u64,
    /// The links on disk: who wants whom.
    pub(super) links: BTreeMap<UnitName, BTreeSet<UnitName>>,
    pub(super) timers: Vec<Timer>,
    pub(super) observer: Option<Observer>,
    /// What units run as their process, where that really acts.
    pub(super) programs: BTreeMap<UnitName, Program>,
    /// Their processes; those without a task are to be started.
    pub(super) children: BTreeMap<UnitName, Child>,
    /// How long units take to end once told to, if that is no job's usual time.
    pub(super) stop_times: BTreeMap<UnitName, Duration>,
    /// Where runtime folders lie.
    pub(super) run_root: Option<PathBuf>,
    /// How fast the host's clock runs, in millionths more than real time.
    pub(super) rate_ppm: i64,
    /// Jobs whose turn has not come; also restarts by `Restart=`, which are no jobs.
    pub(super) waiting: BTreeMap<UnitName, Job>,
    pub(super) units: BTreeMap<UnitName, Unit>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) last_job: u32,
    /// How often units were restarted by `Restart=`: to everybody else, jobs of others.
    pub(super) own_restarts: u64,
    last_epoch: u64,
}

impl Manager {
    pub(super) fn new(jobs: Arc<Jobs>) -> Manager {
        Manager {
            files: BTreeMap::new(),
            drop_ins: BTreeMap::new(),
            host_files: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            refused: BTreeMap::new(),
            answers: BTreeMap::new(),
            rests: BTreeMap::new(),
            failures: BTreeMap::new(),
            has_run: BTreeSet::new(),
            user_space: 1,
            links: BTreeMap::new(),
            timers: Vec::new(),
            observer: None,
            programs: BTreeMap::new(),
            children: BTreeMap::new(),
            stop_times: BTreeMap::new(),
            run_root: None,
            rate_ppm: 0,
            waiting: BTreeMap::new(),
            units: BTreeMap::new(),
            jobs,
            last_job: 0,
            own_restarts: 0,
            last_epoch: 0,
        }
    }

    pub(super) fn listed(&self, name: &UnitName) -> Option<Listed> {
        let unit = self.units.get(name)?;
        Some(Listed {
            load: unit.load.into(),
            active: unit.active.into(),
            sub: unit.sub.into(),
            job: unit.job.is_some(),
        })
    }

    pub(super) fn all(&self) -> BTreeMap<UnitName, Listed> {
        self.units.keys().filter_map(|name| Some((name.clone(), self.listed(name)?))).collect()
    }

    pub(super) fn running_text(&self, name: &UnitName) -> Option<String> {
        self.units.get(name).filter(|unit| unit.active == "active").map(|unit| unit.runs.clone())
    }

    pub(super) fn environment(&self, name: &UnitName) -> Option<Vec<String>> {
        self.units
            .get(name)
            .filter(|unit| unit.active == "active")
            .map(|unit| unit.environment.clone())
    }

    pub(super) fn job(&self, name: &UnitName) -> Option<Job> {
        self.units.get(name)?.job.map(|(_, job)| job)
    }

    pub(super) fn outcome(&self, name: &UnitName) -> JobOutcome {
        let fresh = || JobOutcome { result: "success".to_string(), ..JobOutcome::default() };
        self.units.get(name).map_or_else(fresh, |unit| unit.outcome.clone())
    }

    pub(super) fn reset_failed(&mut self, name: &UnitName) {
        if let Some(unit) = self.units.get_mut(name) {
            unit.starts.clear();
            unit.outcome = JobOutcome { result: "success".to_string(), ..JobOutcome::default() };
            if unit.active == "failed" {
                (unit.active, unit.sub) = ("inactive", "dead");
            }
        }
        self.forget_if_idle(name);
    }

    pub(super) fn rest(&self, name: &UnitName) -> Rest {
        self.rests.get(name).copied().unwrap_or(Rest::Unknown)
    }

    /// Takes a job, and runs it unless it has to wait. `None`: there was nothing to stop.
    pub(super) fn queue(&mut self, name: &UnitName, job: Job) -> Result<Option<u32>, String> {
        if job != Job::Start && self.units.get(name).is_some_and(|unit| unit.settings.refuses_stop)
        {
            return Err(format!(
                "Operation refused, unit {name} may be requested by dependency only (it is \
                    configured to refuse manual start/stop)."
            ));
        }
        let id = self.install(name, job)?;
        self.settle();
        Ok(id)
    }

    /// The job's turn has come.
    pub(super) fn run(&mut self, name: &UnitName, job: Job) {
        if self.break_off_reload(name) && matches!(job, Job::Stop | Job::Restart) {
            self.fails_with(name, "signal"); // the reload's process is ended, too
        }
        let Some(unit) = self.units.get(name) else { return };
        match (job, unit.active, unit.sub) {
            (Job::Reload, "active", _) => {
                self.step(name, Some(("reloading", "reload")), Some((Then::Reloaded, None)));
            }
            (Job::Reload, ..) => self.end_job_as(name, "invalid"),
            (Job::Start, "active", _) | (Job::Stop, "inactive" | "failed", _) => {
                self.step(name, None, None);
                if job == Job::Start {
                    self.start_wanted(name); // for systemd too, also when it runs already
                }
                self.end_job(name);
                self.forget_if_idle(name);
            }
            (_, "deactivating", _) | (Job::Start, "activating", "start") => {} // goes on when that has ended
            (Job::Stop, ..) | (Job::Restart, "active", _) | (Job::Restart, _, "start") => {
                self.begin_stop(name, "stop-sigterm")
            }
            (Job::Start | Job::Restart, ..) => self.begin_start(name),
        }
    }

    /// Goes on where a timer left off.
    pub(super) fn elapsed(&mut self, timer: Timer) {
        let Timer { name, epoch, then, .. } = timer;
        let of_process = matches!(then, Then::Watch | Then::Dies(_));
        let stands = |unit: &Unit| epoch == if of_process { unit.invocation } else { unit.epoch };
        if !self.units.get(&name).is_some_and(stands) {
            return;
        }
        match then {
            Then::StartAgain => {
                self.own_restarts += 1;
                if let Some(unit) = self.units.get_mut(&name) {
                    unit.outcome.restarts += 1;
                }
                self.wait(&name, Job::Start);
            }
            Then::Dies(end) => self.process_ended(&name, end.result, end.code),
            Then::Stopped => self.stopped(&name),
            Then::Killed => {
                self.fails_with(&name, "timeout");
                self.stopped(&name);
            }
            Then::Started => self.started(&name),
            Then::Reloaded => self.reloaded(&name),
            Then::Watch => self.watch(&name),
        }
        self.settle();
    }

    fn begin_start(&mut self, name: &UnitName) {
        let ends_as = match self.refused.get(name) {
            Some(word) => Some(*word),
            None => self.start_ends_as(name),
        };
        let Some(unit) = self.units.get_mut(name) else { return };
        if let Some((_, job)) = &mut unit.job {
            *job = Job::Start; // what was to be stopped first is
        }
        if let Some(word) = ends_as {
            if unit.active == "activating" {
                self.step(name, Some(("inactive", "dead")), None);
            }
            self.end_job_as(name, word);
            return self.forget_if_idle(name);
        }
        self.rests.remove(name);
        self.has_run.insert(name.clone());
        let now = Instant::now();
        if let Some((burst, window)) = unit.settings.start_limit {
            unit.starts.retain(|start| now - *start < window);
            if unit.starts.len() >= burst {
                unit.outcome.result = "start-limit-hit".to_string();
                self.step(name, Some(("failed", "failed")), None);
                return self.end_job_as(name, "failed");
            }
            unit.starts.push_back(now);
        }
        let Some(environment) = unit.settings.read_environment() else {
            unit.outcome.result = "resources".to_string();
            self.step(name, Some(("failed", "failed")), None);
            return self.end_job_as(name, "failed");
        };
        unit.outcome.result = "success".to_string();
        if unit.job.is_some() && unit.sub != "auto-restart" {
            unit.outcome.restarts = 0; // started by a job: counted from nought
        }
        unit.runs.clone_from(&unit.settings.text);
        unit.environment = environment;
        self.last_epoch += 1;
        (unit.invocation, unit.began) = (self.last_epoch, now);
        let waits = unit.settings.notify && self.programs.contains_key(name);
        let hangs = waits || self.behaviours.get(name) == Some(&Behaviour::Hangs);
        if self.programs.contains_key(name) {
            let child = Child {
                invocation: unit.invocation,
                terminate: Arc::new(Notify::new()),
                task: None,
            };
            self.children.insert(name.clone(), child);
        }
        self.step(name, Some(("activating", "start")), (!hangs).then_some((Then::Started, None)));
        self.start_wanted(name);
    }

    fn start_wanted(&mut self, name: &UnitName) {
        let wanted = self.units.get(name).map(|unit| unit.wants.clone()).unwrap_or_default();
        for other in wanted.iter().filter(|other| *other != name) {
            if !self.is_up(other) {
                let _ = self.queue(other, Job::Start); // a wish: it may fail
            }
        }
    }

    pub(super) fn started(&mut self, name: &UnitName) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let (oneshot, dies) = (unit.settings.oneshot, unit.settings.dies);
        let up = match name.suffix() {
            "service" => "running",
            "socket" => "listening",
            "timer" | "path" | "automount" => "waiting",
            "mount" => "mounted",
            _ => "active",
        };
        let watched = unit
            .settings
            .watchdog
            .filter(|_| self.programs.contains_key(name))
            .map(|time| real(time, self.rate_ppm));
        if !oneshot {
            unit.outcome.result = "success".to_string();
            unit.watched_until = watched.map(|time| Instant::now() + time);
            let invocation = unit.invocation;
            self.step(name, Some(("active", up)), None);
            if let Some(time) = watched {
                self.watch_later(name, invocation, time);
            }
        }
        match self.behaviours.get(name).cloned() {
            Some(Behaviour::Ends(result, code)) => self.process_ended(name, &result, code),
            Some(Behaviour::Works) if dies.is_some() => {} // what its program dies of elsewhere is mended
            _ if dies.is_some() => self.die_later(name, dies),
            _ if oneshot => self.process_ended(name, "success", 0),
            _ => (),
        }
        // A restart that waits for its turn took the place of the start which is now done.
        if !matches!(self.waiting.get(name), Some(Job::Restart | Job::Stop)) {
            self.end_job(name);
        }
        self.forget_if_idle(name);
    }

    /// Its reload comes to nothing: another job takes its place, or its process ends. False if
    /// there is none.
    pub(super) fn break_off_reload(&mut self, name: &UnitName) -> bool {
        let reloads = self.units.get(name).is_some_and(|unit| unit.active == "reloading");
        if reloads {
            self.step(name, Some(("active", "running")), None);
            if self.job(name) == Some(Job::Reload) {
                self.end_job_as(name, "failed");
            }
        }
        reloads
    }

    /// Its program has read its files again, or, where it works no more, would not.
    fn reloaded(&mut self, name: &UnitName) {
        let refuses = matches!(self.behaviours.get(name), Some(Behaviour::RefusesReloads));
        if let Some(unit) = self.units.get_mut(name)
            && !refuses
            && let Some(environment) = unit.settings.read_environment()
        {
            unit.environment = environment;
        }
        self.step(name, Some(("active", "running")), None);
        self.end_job_as(name, if refuses { "failed" } else { DONE });
    }

    /// Its program ends by itself some time from now, or at once.
    fn die_later(&mut self, name: &UnitName, dies: Option<(Duration, End)>) {
        let (Some((after, end)), Some(unit)) = (dies, self.units.get(name)) else { return };
        if after.is_zero() {
            return self.process_ended(name, end.result, end.code);
        }
        let (delay, epoch) = (Some(real(after, self.rate_ppm)), unit.invocation);
        self.timers.push(Timer {
            delay,
            lags: false,
            name: name.clone(),
            epoch,
            then: Then::Dies(end),
        });
    }

    /// Enters a state and says what follows; timers of earlier steps are void.
    pub(super) fn step(
        &mut self,
        name: &UnitName,
        state: Option<(&'static str, &'static str)>,
        next: Option<(Then, Option<Duration>)>,
    ) {
        self.last_epoch += 1;
        let epoch = self.last_epoch;
        let Some(unit) = self.units.get_mut(name) else { return };
        unit.epoch = epoch;
        if let Some((active, sub)) = state {
            (unit.active, unit.sub) = (active, sub);
            self.observer.iter().for_each(|observer| observer(name, active, &unit.environment));
        }
        if let Some((then, delay)) = next {
            let delay = delay.map(|delay| real(delay, self.rate_ppm));
            self.timers.push(Timer {
                delay,
                lags: then == Then::Killed,
                name: name.clone(),
                epoch,
                then,
            });
        }
    }

    pub(super) fn end_job(&mut self, name: &UnitName) {
        self.end_job_as(name, DONE);
    }

    /// The job of a unit is over, in systemd's word for how.
    pub(super) fn end_job_as(&mut self, name: &UnitName, result: &str) {
        if let Some((id, job)) = self.units.get_mut(name).and_then(|unit| unit.job.take()) {
            self.waiting.remove(name);
            self.jobs.ended(id, result);
            if job.starts() && result != DONE && result != "canceled" {
                self.fail_dependents(name);
            }
        }
    }

    /// systemd keeps no unit that is inactive and has no job.
    pub(super) fn forget_if_idle(&mut self, name: &UnitName) {
        if self.units.get(name).is_some_and(|unit| unit.active == "inactive" && unit.job.is_none())
        {
            self.units.remove(name);
        }
    }

    pub(super) fn is_up(&self, name: &UnitName) -> bool {
        self.units.get(name).is_some_and(|unit| !matches!(unit.active, "inactive" | "failed"))
    }
}

/// How long a time of a host's clock takes in real time. Whole milliseconds: tokio's timers round
/// the rest by the host's own clock.
pub(super) fn real(time: Duration, rate_ppm: i64) -> Duration {
    Duration::from_millis(
        (time.as_millis() as i64 * 1_000_000).div_euclid(1_000_000 + rate_ppm) as u64
    )
}
