//! A systemd in memory, for tests of scale and faults: the same answers as the real one, as far as
//! fleet looks.
//!
//! It has no time of its own: jobs and restarts take tokio's time, so with a paused clock
//! everything is at once and in one order. It knows what fleet's tests need of unit files:
//! `Type=oneshot` and `notify`, `RemainAfterExit=`, `Restart=`, `RestartSec=`, the start limit,
//! `TimeoutStopSec=`, `WatchdogSec=`, `RuntimeDirectory=`, that a service needs an `ExecStart=`,
//! `ExecReload=`, `EnvironmentFile=` (which a program reads again when it is reloaded), programs
//! that die by themselves (`/bin/false`, `/bin/sh -c 'sleep 0.5; exit 1'`), and between
//! units `WantedBy=`, `BindsTo=`, `Requires=`, `Conflicts=`, `After=` and `AssertPathExists=`; and
//! that what a timer, path or socket starts must be there. Other dependencies are absent: a slice
//! does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::name::UnitName;
use tokio::sync::{Semaphore, watch};

use super::counters::{Counters, Tally};
use super::jobs::{DONE, Jobs};
use super::{Bonds, Job, JobOutcome, Listed, MAX_CALLS, Rest, Systemd, SystemdError, TakenOver};
use settings::Settings;
use unit::Manager;

mod bound;
mod ends;
mod files;
mod probes;
mod process;
mod reboot;
mod settings;
mod unit;

pub use process::{Process, Program};

/// What a unit's process does once started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Comes up; a oneshot then ends well.
    Works,
    /// Ends at once, with systemd's `Result` (`success`, `exit-code`, `signal`, `oom-kill`…) and
    /// its status or signal.
    Ends(String, i32),
    /// Stays activating for ever.
    Hangs,
    /// Comes up, and each reload of it fails.
    RefusesReloads,
}

/// How long things take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// A bus call. Calls over [`MAX_CALLS`] wait.
    pub call: Duration,
    /// A start or a stop; a restart takes two.
    pub job: Duration,
}

/// Hears each state that a unit enters: its name, its active state and its environment
/// (`NAME=value`). `inactive` for all that ran when the host went down.
pub type Observer = Box<dyn Fn(&UnitName, &str, &[String]) + Send>;

/// The simulated systemd. Clones are one host.
#[derive(Clone)]
pub struct SimSystemd {
    manager: Arc<Mutex<Manager>>,
    jobs: Arc<Jobs>,
    tally: Arc<Tally>,
    calls: Arc<Semaphore>,
    reachable: Arc<AtomicBool>,
    /// How many more unit files the disk has room for.
    room: Arc<AtomicU64>,
    /// How late systemd is, in milliseconds.
    lag_ms: Arc<AtomicU64>,
    times: Times,
}

impl SimSystemd {
    /// A freshly booted host.
    pub fn new(times: Times) -> SimSystemd {
        let tally = Arc::<Tally>::default();
        let jobs = Jobs::new(Arc::clone(&tally));
        SimSystemd {
            manager: Arc::new(Mutex::new(Manager::new(Arc::clone(&jobs)))),
            jobs,
            tally,
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            reachable: Arc::new(AtomicBool::new(true)),
            room: Arc::new(AtomicU64::new(u64::MAX)),
            lag_ms: Arc::default(),
            times,
        }
    }

    /// Tells `observer` of each step of each unit, as it happens. It must not call back.
    pub fn observe(&self, observer: Observer) {
        self.manager().observer = Some(observer);
    }

    /// Where the folders of `RuntimeDirectory=` lie, so that they go when their unit ends. Whoever
    /// runs there makes them.
    pub fn set_run_root(&self, folder: &Path) {
        self.manager().run_root = Some(folder.to_path_buf());
    }

    /// How fast the host's clock runs, in millionths more than real time: systemd's timeouts and
    /// watchdogs go by it.
    pub fn set_clock_rate(&self, rate_ppm: i64) {
        self.manager().rate_ppm = rate_ppm;
    }

    /// From now on each start of the unit runs this.
    pub fn run_program(&self, name: &UnitName, program: Program) {
        self.manager().programs.insert(name.clone(), program);
    }

    /// SIGKILL for the program of a unit.
    pub fn kill(&self, name: &UnitName) {
        self.with_manager(|manager| {
            if manager.children.contains_key(name) {
                manager.process_ended(name, "signal", 9);
            }
        });
    }

    /// How long the unit takes to end when it is told to; SIGKILL comes after its
    /// `TimeoutStopSec=`.
    pub fn stops_slowly(&self, name: &UnitName, time: Duration) {
        self.manager().stop_times.insert(name.clone(), time);
    }

    /// How late systemd is from now on with watchdogs and with SIGKILL: its host is busy.
    pub fn set_lag(&self, lag: Duration) {
        self.lag_ms.store(lag.as_millis() as u64, Ordering::Relaxed);
    }

    /// What was asked so far.
    pub fn counters(&self) -> Counters {
        self.tally.read()
    }

    /// From now on the unit behaves like this; a running one ends right away if the behaviour is to
    /// end.
    pub fn behave(&self, name: &UnitName, behaviour: Behaviour) {
        let mut manager = self.manager();
        let runs = |unit: &Listed| matches!(&*unit.active, "active" | "reloading");
        let running = manager.listed(name).is_some_and(|unit| runs(&unit));
        let ends = match &behaviour {
            Behaviour::Ends(result, code) if running => Some((result.clone(), *code)),
            _ => None,
        };
        manager.behaviours.insert(name.clone(), behaviour);
        if let Some((result, code)) = ends {
            manager.process_ended(name, &result, code);
            self.run_timers(manager);
        }
    }

    /// Its starts fail from now on and it fails if it runs. `code` is the exit status or the
    /// signal.
    pub fn fail(&self, name: &UnitName, result: &str, code: i32) {
        self.behave(name, Behaviour::Ends(result.to_string(), code));
    }

    /// It ends with status 0.
    pub fn exit(&self, name: &UnitName) {
        self.behave(name, Behaviour::Ends("success".to_string(), 0));
    }

    /// Its starts hang in `activating` from now on.
    pub fn hang(&self, name: &UnitName) {
        self.behave(name, Behaviour::Hangs);
    }

    /// Its next start works again.
    pub fn heal(&self, name: &UnitName) {
        self.behave(name, Behaviour::Works);
    }

    /// Each start of the unit ends with this word of systemd's before anything runs (`dependency`,
    /// `failed`, `timeout`…); `None`: no longer.
    pub fn end_starts_as(&self, name: &UnitName, word: Option<&'static str>) {
        let mut manager = self.manager();
        match word {
            Some(word) => drop(manager.refused.insert(name.clone(), word)),
            None => drop(manager.refused.remove(name)),
        }
    }

    /// `systemctl start`, `stop` or `restart` by somebody on the host.
    pub fn systemctl(&self, job: Job, name: &UnitName) {
        self.with_manager(|manager| drop(manager.queue(name, job)));
    }

    /// `systemctl isolate`: stops all that runs, but for `kept`.
    pub fn isolate(&self, kept: &[UnitName]) {
        self.with_manager(|manager| manager.isolate(kept));
    }

    /// `systemctl soft-reboot`: all that runs is stopped, and user space begins anew; what fleet
    /// wrote in `/run` stays.
    pub fn soft_reboot(&self) {
        self.manager().soft_reboot();
        self.jobs.forget_all();
        self.jobs.wake();
    }

    /// Whether the bus answers; if not, every call is [`SystemdError::Unavailable`]. Units run on.
    pub fn set_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Ordering::Relaxed);
        self.jobs.wake();
    }

    /// How many more times unit files can be written or shared before the disk is full.
    pub fn set_room(&self, files: u64) {
        self.room.store(files, Ordering::Relaxed);
    }

    fn take_room(&self, name: &UnitName) -> Result<(), SystemdError> {
        let taken = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.map(drop).map_err(|_| SystemdError::File {
            path: name.to_string(),
            source: std::io::Error::from(std::io::ErrorKind::StorageFull),
        })
    }

    /// The host itself brings this unit. One in `/etc` goes before fleet's of the same name, from
    /// the next reload on.
    pub fn define_on_host(&self, name: &UnitName, path: &str, text: &str) {
        self.manager().host_files.insert(name.clone(), (path.to_string(), text.to_string()));
    }

    /// A reboot: nothing runs, nothing is loaded, and the folder in memory is empty. Behaviours and
    /// the host's own files stay.
    pub fn crash_host(&self) {
        self.manager().reboot();
        self.jobs.forget_all();
        self.jobs.wake();
    }

    /// The names of the unit files that fleet wrote, with text and drop-in.
    pub fn files(&self) -> BTreeMap<UnitName, (String, String)> {
        self.manager().files.clone()
    }

    /// What each target wants, by the links of enabled units.
    pub fn links(&self) -> BTreeMap<UnitName, BTreeSet<UnitName>> {
        self.manager().links.clone()
    }

    /// The text that an active unit was started with: its file may have changed since.
    pub fn running_text(&self, name: &UnitName) -> Option<String> {
        self.manager().running_text(name)
    }

    /// The environment that an active unit was started with.
    pub fn environment(&self, name: &UnitName) -> Option<Vec<String>> {
        self.manager().environment(name)
    }

    /// All units that systemd has loaded.
    pub fn loaded(&self) -> BTreeMap<UnitName, Listed> {
        self.manager().all()
    }

    async fn call(&self, count: impl FnOnce(&mut Counters)) -> Result<(), SystemdError> {
        let _permit = self.calls.acquire().await.expect("never closed");
        let in_flight = MAX_CALLS - self.calls.available_permits();
        self.tally.count(|c| {
            count(c);
            c.most_calls = c.most_calls.max(in_flight);
        });
        if !self.times.call.is_zero() {
            tokio::time::sleep(self.times.call).await;
        }
        self.answers()
    }

    fn answers(&self) -> Result<(), SystemdError> {
        match self.reachable.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(SystemdError::Unavailable("the simulated bus is down".to_string())),
        }
    }

    fn with_manager(&self, act: impl FnOnce(&mut Manager)) {
        let mut manager = self.manager();
        act(&mut manager);
        self.run_timers(manager);
    }

    fn manager(&self) -> MutexGuard<'_, Manager> {
        self.manager.lock().expect("no panic inside the simulated systemd")
    }

    /// Starts a task for each process and each thing that the manager wants done later.
    fn run_timers(&self, mut manager: MutexGuard<'_, Manager>) {
        let Manager { programs, children, .. } = &mut *manager;
        for (name, child) in children.iter_mut().filter(|(_, child)| child.task.is_none()) {
            let (name, invocation, terminate) =
                (name.clone(), child.invocation, child.terminate.clone());
            let Some(program) = programs.get(&name) else { continue };
            let process = Process { sim: self.clone(), name: name.clone(), invocation, terminate };
            let (sim, running) = (self.clone(), program(process));
            let task = tokio::spawn(async move {
                let well = running.await;
                sim.with_manager(|manager| manager.exited(&name, invocation, well));
            });
            child.task = Some(task.abort_handle());
        }
        let lag = Duration::from_millis(self.lag_ms.load(Ordering::Relaxed));
        for timer in std::mem::take(&mut manager.timers) {
            let sim = self.clone();
            let delay = timer.delay.unwrap_or(self.times.job)
                + if timer.lags { lag } else { Duration::ZERO };
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let mut manager = sim.manager();
                manager.elapsed(timer);
                sim.run_timers(manager);
            });
        }
    }
}

impl Default for SimSystemd {
    fn default() -> SimSystemd {
        SimSystemd::new(Times::default())
    }
}

#[async_trait]
impl Systemd for SimSystemd {
    async fn list(&self, wanted: &[UnitName]) -> Result<BTreeMap<UnitName, Listed>, SystemdError> {
        self.call(|c| c.list += 1).await?;
        let manager = self.manager();
        Ok(wanted.iter().filter_map(|name| Some((name.clone(), manager.listed(name)?))).collect())
    }

    async fn outcome(&self, name: &UnitName) -> Result<JobOutcome, SystemdError> {
        self.call(|c| c.outcome += 1).await?;
        Ok(self.manager().outcome(name))
    }

    async fn restarts(&self, name: &UnitName) -> Result<u32, SystemdError> {
        self.call(|c| c.outcome += 1).await?;
        Ok(self.manager().outcome(name).restarts)
    }

    fn jobs_of_others(&self) -> u64 {
        self.manager().own_restarts
    }

    async fn reason(&self, name: &UnitName) -> Option<String> {
        let failed = self.manager().outcome(name);
        failed.has_words().then(|| "Failed to run it".to_string())
    }

    async fn last_failure(&self, name: &UnitName) -> Option<JobOutcome> {
        self.tally.count(|c| c.journal += 1);
        self.manager().failures.get(name).cloned()
    }

    /// A simulated program prints nothing.
    async fn output(&self, _: &UnitName) -> String {
        String::new()
    }

    async fn reload(&self) -> Result<(), SystemdError> {
        self.call(|c| c.reload += 1).await?;
        self.manager().reload();
        Ok(())
    }

    async fn queue(&self, name: &UnitName, job: Job) -> Result<(), SystemdError> {
        let ticket = self.jobs.take(name, job).await;
        self.call(|c| match job {
            Job::Start => c.start += 1,
            Job::Stop => c.stop += 1,
            Job::Restart => c.restart += 1,
            Job::Reload => c.reload_unit += 1,
        })
        .await?;
        let mut manager = self.manager();
        match manager.queue(name, job) {
            Ok(Some(id)) => ticket.queued(id),
            Ok(None) => self.jobs.wake(),
            Err(problem) => {
                return Err(SystemdError::Refused {
                    what: job.verb(),
                    name: name.clone(),
                    problem,
                });
            }
        }
        self.run_timers(manager);
        Ok(())
    }

    async fn reset_failed(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.call(|c| c.reset_failed += 1).await?;
        self.manager().reset_failed(name);
        Ok(())
    }

    async fn enable(&self, names: &[UnitName]) -> Result<(), SystemdError> {
        self.call(|c| c.enable += 1).await?;
        let mut manager = self.manager();
        let refused = |name: &UnitName, problem| SystemdError::Refused {
            what: "enable",
            name: name.clone(),
            problem,
        };
        names
            .iter()
            .try_for_each(|name| manager.enable(name).map_err(|problem| refused(name, problem)))
    }

    async fn disable(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.call(|c| c.disable += 1).await?;
        self.manager().disable(name);
        Ok(())
    }

    async fn host_defines(&self, name: &UnitName) -> Result<Option<String>, SystemdError> {
        let manager = self.manager();
        let names = [Some(name.clone()), name.template()];
        Ok(names
            .iter()
            .flatten()
            .find_map(|name| manager.host_files.get(name))
            .map(|(path, _)| path.clone()))
    }

    async fn host_takes_over(&self, name: &UnitName) -> Result<Option<TakenOver>, SystemdError> {
        Ok(self.manager().taken_over(name))
    }

    async fn write(&self, name: &UnitName, text: &str, drop_in: &str) -> Result<(), SystemdError> {
        self.take_room(name)?;
        self.tally.count(|c| c.write += 1);
        self.manager().files.insert(name.clone(), (text.to_string(), drop_in.to_string()));
        Ok(())
    }

    async fn share(&self, name: &UnitName, drop_in: Option<&str>) -> Result<(), SystemdError> {
        self.take_room(name)?;
        let mut manager = self.manager();
        let had_file = manager.files.remove(name).is_some();
        let had_drop_in = manager.drop_ins.remove(name).is_some();
        if let Some(drop_in) = drop_in {
            manager.drop_ins.insert(name.clone(), drop_in.to_string());
        }
        if had_file || had_drop_in || drop_in.is_some() {
            self.tally.count(|c| c.write += 1);
        }
        Ok(())
    }

    async fn unshare(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.tally.count(|c| c.write += 1);
        let mut manager = self.manager();
        let shared = name.template().and_then(|template| manager.files.get(&template).cloned());
        let Some((text, drop_in)) = shared else {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(SystemdError::File { path: name.to_string(), source });
        };
        let drop_in = manager.drop_ins.remove(name).unwrap_or(drop_in);
        manager.files.insert(name.clone(), (text, drop_in));
        Ok(())
    }

    async fn remove(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.tally.count(|c| c.remove += 1);
        let mut manager = self.manager();
        manager.files.remove(name);
        manager.drop_ins.remove(name);
        Ok(())
    }

    fn take_failed_starts(&self) -> BTreeMap<UnitName, String> {
        self.jobs.take_failed_starts()
    }

    fn take_failed_reloads(&self) -> BTreeMap<UnitName, String> {
        self.jobs.take_failed_reloads()
    }

    fn open_starts(&self) -> BTreeSet<UnitName> {
        self.jobs.open_starts()
    }

    async fn user_space(&self) -> Result<u64, SystemdError> {
        self.call(|c| c.upkeep += 1).await?;
        Ok(self.manager().user_space)
    }

    async fn has_run(&self, name: &UnitName) -> Result<bool, SystemdError> {
        self.call(|c| c.outcome += 1).await?;
        Ok(self.manager().has_run.contains(name))
    }

    async fn rest(&self, name: &UnitName) -> Result<Rest, SystemdError> {
        self.tally.count(|c| c.journal += 1);
        Ok(self.manager().rest(name))
    }

    async fn bonds(&self, name: &UnitName) -> Result<Option<Bonds>, SystemdError> {
        self.call(|c| c.outcome += 1).await?;
        Ok(self.manager().bonds(name))
    }

    async fn stopped_with(&self, name: &UnitName) -> Result<Vec<UnitName>, SystemdError> {
        self.call(|c| c.outcome += 1).await?;
        Ok(self.manager().stopped_with(name))
    }

    fn jobs_in_flight(&self) -> usize {
        self.jobs.in_flight()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.jobs.changes()
    }
}
