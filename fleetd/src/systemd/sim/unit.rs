//! The simulated manager: the state of each unit, and what jobs, ends of processes and elapsed times make of it. No task, no lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::unit_file::UnitFile;
use tokio::time::Instant;

use super::*;

/// Something to do later, unless the unit went on meanwhile.
#[derive(Debug)]
pub(super) struct Timer {
    /// `None`: as long as a job takes.
    pub(super) delay: Option<Duration>,
    name: UnitName,
    epoch: u64,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Started,
    Stopped,
    StoppedThenStart,
    StartAgain,
}

struct Unit {
    settings: Settings,
    /// The text that its process was started with.
    runs: String,
    load: &'static str,
    active: &'static str,
    sub: &'static str,
    job: Option<u32>,
    outcome: JobOutcome,
    starts: VecDeque<Instant>,
    /// The links as they were when it was loaded, or at the last reload.
    wants: BTreeSet<UnitName>,
    /// Changes with each step; a timer of an older one does nothing.
    epoch: u64,
}

pub(super) struct Manager {
    /// What fleet wrote: text and drop-in.
    pub(super) files: BTreeMap<UnitName, (String, String)>,
    /// Drop-ins of instances that share their template's file.
    pub(super) drop_ins: BTreeMap<UnitName, String>,
    /// What the host brings: path and text.
    pub(super) host_files: BTreeMap<UnitName, (String, String)>,
    pub(super) behaviours: BTreeMap<UnitName, Behaviour>,
    /// The links on disk: who wants whom.
    pub(super) links: BTreeMap<UnitName, BTreeSet<UnitName>>,
    pub(super) timers: Vec<Timer>,
    pub(super) observer: Option<Observer>,
    units: BTreeMap<UnitName, Unit>,
    jobs: Arc<Jobs>,
    last_job: u32,
    last_epoch: u64,
}

impl Manager {
    pub(super) fn new(jobs: Arc<Jobs>) -> Manager {
        Manager {
            files: BTreeMap::new(),
            drop_ins: BTreeMap::new(),
            host_files: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            links: BTreeMap::new(),
            timers: Vec::new(),
            observer: None,
            units: BTreeMap::new(),
            jobs,
            last_job: 0,
            last_epoch: 0,
        }
    }

    pub(super) fn listed(&self, name: &UnitName) -> Option<Listed> {
        let unit = self.units.get(name)?;
        Some(Listed { load: unit.load.into(), active: unit.active.into(), sub: unit.sub.into(), job: unit.job.is_some() })
    }

    pub(super) fn all(&self) -> BTreeMap<UnitName, Listed> {
        self.units.keys().filter_map(|name| Some((name.clone(), self.listed(name)?))).collect()
    }

    pub(super) fn running_text(&self, name: &UnitName) -> Option<String> {
        self.units.get(name).filter(|unit| unit.active == "active").map(|unit| unit.runs.clone())
    }

    pub(super) fn outcome(&self, name: &UnitName) -> JobOutcome {
        let fresh = || JobOutcome { result: "success".to_string(), ..JobOutcome::default() };
        self.units.get(name).map_or_else(fresh, |unit| unit.outcome.clone())
    }

    pub(super) fn reload(&mut self) {
        let names: Vec<UnitName> = self.units.keys().cloned().collect();
        for name in names {
            let settings = self.settings(&name);
            let wants = self.links.get(&name).cloned().unwrap_or_default();
            let Some(unit) = self.units.get_mut(&name) else { continue };
            unit.wants = wants;
            unit.load = settings.as_ref().map_or("not-found", |settings| settings.load);
            if let Some(settings) = settings {
                unit.settings = settings;
            }
        }
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

    /// Links a unit that fleet wrote, as its `[Install]` section says.
    pub(super) fn enable(&mut self, name: &UnitName) -> Result<(), String> {
        let Some((text, _)) = self.files.get(name) else { return Err(format!("Unit {name} does not exist")) };
        let file = UnitFile::parse_lenient(text);
        let by =
            ["WantedBy", "RequiredBy"].into_iter().flat_map(|key| file.values("Install", key)).flat_map(str::split_whitespace);
        for target in by {
            self.links.entry(UnitName::trusted(target)).or_default().insert(name.clone());
        }
        Ok(())
    }

    pub(super) fn disable(&mut self, name: &UnitName) {
        self.links.retain(|_, wanted| {
            wanted.remove(name);
            !wanted.is_empty()
        });
    }

    pub(super) fn reboot(&mut self) {
        for name in self.units.keys() {
            self.observer.iter().for_each(|observer| observer(name, "inactive"));
        }
        self.units.clear();
        self.links.clear();
        self.files.clear();
        self.drop_ins.clear();
        self.timers.clear();
    }

    /// Takes a job. `None`: there was nothing to stop.
    pub(super) fn queue(&mut self, name: &UnitName, job: Job) -> Result<Option<u32>, String> {
        match (self.load(name), job) {
            (None | Some("bad-setting" | "not-found"), Job::Stop) if !self.is_up(name) => return Ok(None),
            (None | Some("not-found"), Job::Start | Job::Restart) => return Err(format!("Unit {name} not found.")),
            (Some("bad-setting"), Job::Start | Job::Restart) => {
                self.forget_if_idle(name);
                return Err(format!("Unit {name} has a bad unit file setting."));
            }
            _ => (),
        }
        self.end_job(name);
        self.last_job += 1;
        let id = self.last_job;
        let Some(unit) = self.units.get_mut(name) else { return Ok(None) };
        unit.job = Some(id);
        match (job, unit.active) {
            (Job::Start, "active") | (Job::Stop, "inactive" | "failed") => {
                self.step(name, None, None);
                if job == Job::Start {
                    self.start_wanted(name); // for systemd too, also when it runs already
                }
                self.end_job(name);
                self.forget_if_idle(name);
            }
            (Job::Stop, _) => self.step(name, Some(("deactivating", "stop-sigterm")), Some((Then::Stopped, None))),
            (Job::Restart, "active") | (_, "deactivating") => {
                self.step(name, Some(("deactivating", "stop-sigterm")), Some((Then::StoppedThenStart, None)));
            }
            (Job::Start | Job::Restart, _) => self.begin_start(name),
        }
        Ok(Some(id))
    }

    /// Goes on where a timer left off.
    pub(super) fn elapsed(&mut self, timer: Timer) {
        let Timer { name, epoch, then, .. } = timer;
        if self.units.get(&name).is_none_or(|unit| unit.epoch != epoch) {
            return;
        }
        match then {
            Then::StoppedThenStart | Then::StartAgain => self.begin_start(&name),
            Then::Stopped => {
                self.step(&name, Some(("inactive", "dead")), None);
                self.end_job(&name);
                self.forget_if_idle(&name);
            }
            Then::Started => self.started(&name),
        }
    }

    fn begin_start(&mut self, name: &UnitName) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let now = Instant::now();
        if let Some((burst, window)) = unit.settings.start_limit {
            unit.starts.retain(|start| now - *start < window);
            if unit.starts.len() >= burst {
                unit.outcome.result = "start-limit-hit".to_string();
                self.step(name, Some(("failed", "failed")), None);
                return self.end_job(name);
            }
        }
        unit.starts.push_back(now);
        unit.runs.clone_from(&unit.settings.text);
        let hangs = self.behaviours.get(name) == Some(&Behaviour::Hangs);
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

    fn started(&mut self, name: &UnitName) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let oneshot = unit.settings.oneshot;
        let up = match name.suffix() {
            "service" => "running",
            "socket" => "listening",
            "timer" | "path" | "automount" => "waiting",
            "mount" => "mounted",
            _ => "active",
        };
        if !oneshot {
            unit.outcome.result = "success".to_string();
            self.step(name, Some(("active", up)), None);
        }
        match self.behaviours.get(name).cloned() {
            Some(Behaviour::Ends(result, code)) => self.process_ended(name, &result, code),
            _ if oneshot => self.process_ended(name, "success", 0),
            _ => (),
        }
        self.end_job(name);
        self.forget_if_idle(name);
    }

    /// The unit's process ended; `Restart=` decides what follows.
    pub(super) fn process_ended(&mut self, name: &UnitName, result: &str, code: i32) {
        let Some(unit) = self.units.get_mut(name) else { return };
        unit.outcome.result = result.to_string();
        unit.outcome.code = Some(code);
        let after = unit.settings.restart_after;
        if unit.settings.restarts_after(result) {
            unit.outcome.restarts += 1;
            self.step(name, Some(("activating", "auto-restart")), Some((Then::StartAgain, Some(after))));
        } else if result != "success" {
            self.step(name, Some(("failed", "failed")), None);
        } else if unit.settings.remain_after_exit {
            self.step(name, Some(("active", "exited")), None);
        } else {
            self.step(name, Some(("inactive", "dead")), None);
        }
        self.forget_if_idle(name);
    }

    /// Enters a state and says what follows; timers of earlier steps are void.
    fn step(&mut self, name: &UnitName, state: Option<(&'static str, &'static str)>, next: Option<(Then, Option<Duration>)>) {
        self.last_epoch += 1;
        let epoch = self.last_epoch;
        let Some(unit) = self.units.get_mut(name) else { return };
        unit.epoch = epoch;
        if let Some((active, sub)) = state {
            (unit.active, unit.sub) = (active, sub);
            self.observer.iter().for_each(|observer| observer(name, active));
        }
        if let Some((then, delay)) = next {
            self.timers.push(Timer { delay, name: name.clone(), epoch, then });
        }
    }

    fn end_job(&mut self, name: &UnitName) {
        if let Some(id) = self.units.get_mut(name).and_then(|unit| unit.job.take()) {
            self.jobs.ended(id);
        }
    }

    /// systemd keeps no unit that is inactive and has no job.
    fn forget_if_idle(&mut self, name: &UnitName) {
        if self.units.get(name).is_some_and(|unit| unit.active == "inactive" && unit.job.is_none()) {
            self.units.remove(name);
        }
    }

    fn is_up(&self, name: &UnitName) -> bool {
        self.units.get(name).is_some_and(|unit| !matches!(unit.active, "inactive" | "failed"))
    }

    /// Loads the unit unless it is, and says how that went.
    fn load(&mut self, name: &UnitName) -> Option<&'static str> {
        if let Some(unit) = self.units.get(name) {
            return Some(unit.load);
        }
        let settings = self.settings(name)?;
        let outcome = JobOutcome { result: "success".to_string(), ..JobOutcome::default() };
        let (load, starts) = (settings.load, VecDeque::new());
        let wants = self.links.get(name).cloned().unwrap_or_default();
        let unit = Unit {
            settings,
            runs: String::new(),
            load,
            active: "inactive",
            sub: "dead",
            job: None,
            outcome,
            starts,
            wants,
            epoch: 0,
        };
        self.units.insert(name.clone(), unit);
        Some(load)
    }

    fn settings(&self, name: &UnitName) -> Option<Settings> {
        let names = [Some(name.clone()), name.template()];
        let ours = names.iter().flatten().find_map(|name| self.files.get(name));
        let hosts = names.iter().flatten().find_map(|name| self.host_files.get(name));
        match (ours, hosts) {
            (Some((text, drop_in)), _) => Some(Settings::read(name, text, self.drop_ins.get(name).unwrap_or(drop_in))),
            (None, Some((_, text))) => Some(Settings::read(name, text, "")),
            (None, None) => None,
        }
    }
}
