//! What units have to do with each other: jobs that take others along (`BindsTo=`) or wait for them
//! (`After=`), and what an end takes away.

use super::unit::{Manager, Unit};
use super::*;

impl Manager {
    /// Takes a job into the queue, and what it takes along. `None`: there was nothing to stop.
    pub(super) fn install(&mut self, name: &UnitName, job: Job) -> Result<Option<u32>, String> {
        match (self.load(name), job) {
            (None | Some("bad-setting" | "not-found"), Job::Stop) if !self.is_up(name) => {
                return Ok(None);
            }
            (None | Some("not-found"), _) => {
                return Err(format!("Unit {name} not found."));
            }
            (Some("bad-setting"), Job::Start | Job::Restart | Job::Reload) => {
                self.forget_if_idle(name);
                return Err(format!("Unit {name} has a bad unit file setting."));
            }
            (_, Job::Reload) if !self.units.get(name).is_some_and(|unit| unit.settings.reloads) => {
                self.forget_if_idle(name);
                return Err(format!("Job type reload is not applicable for unit {name}."));
            }
            _ => (),
        }
        self.end_job_as(name, "canceled");
        self.last_job += 1;
        let id = self.last_job;
        let Some(unit) = self.units.get_mut(name) else { return Ok(None) };
        unit.job = Some((id, job));
        self.wait(name, job);
        let taken = self.take_along(name, job);
        if taken.is_err() {
            if let Some(unit) = self.units.get_mut(name) {
                unit.job = None;
            }
            self.waiting.remove(name);
            self.forget_if_idle(name);
        }
        taken.map(|()| Some(id))
    }

    /// The job is run as soon as its turn comes.
    pub(super) fn wait(&mut self, name: &UnitName, job: Job) {
        self.waiting.insert(name.clone(), job);
    }

    /// A start or restart takes along what the unit is bound to, requires and wants, and stops what
    /// conflicts with it; a stop or restart takes along what is bound to it or requires it.
    fn take_along(&mut self, name: &UnitName, job: Job) -> Result<(), String> {
        if job == Job::Reload {
            return Ok(());
        }
        if job != Job::Start {
            self.take(self.bound_units(name), job);
            self.take(self.requiring_units(name), job);
        }
        if job != Job::Stop {
            let settings = self.units.get(name).map(|unit| unit.settings.clone());
            let Some(settings) = settings else { return Ok(()) };
            for other in settings.binds_to.iter().chain(&settings.requires) {
                self.bring(other)?;
            }
            self.take(self.rivals(name), Job::Stop);
            for other in settings.wants {
                let _ = self.bring(&other); // one that is missing is no reason to refuse
            }
        }
        Ok(())
    }

    /// Starts a unit unless it is up or about to be.
    fn bring(&mut self, name: &UnitName) -> Result<(), String> {
        let comes = |unit: &Unit| match unit.job {
            Some((_, job)) => job != Job::Stop,
            None => unit.active == "active",
        };
        if !self.units.get(name).is_some_and(comes) {
            self.install(name, Job::Start)?;
        }
        Ok(())
    }

    /// What is bound to a unit goes with it also where nobody asked for that, unless it is ending
    /// by itself.
    pub(super) fn end_bound(&mut self, name: &UnitName) {
        let ending = |other: &UnitName| {
            self.units.get(other).is_some_and(|unit| unit.active == "deactivating")
        };
        let bound = self.bound_units(name).into_iter().filter(|other| !ending(other)).collect();
        self.take(bound, Job::Stop);
    }

    fn take(&mut self, bound: Vec<UnitName>, job: Job) {
        for other in bound {
            let goes = self
                .units
                .get(&other)
                .is_some_and(|unit| unit.job.is_some_and(|(_, job)| job == Job::Stop));
            if self.is_up(&other) && !goes {
                let _ = self.install(&other, job); // it is loaded: nothing refuses
            }
        }
    }

    /// Runs each job whose turn has come, one after the other.
    pub(super) fn settle(&mut self) {
        while let Some((name, job)) =
            self.waiting.iter().find(|(name, job)| self.has_turn(name, **job))
        {
            let (name, job) = (name.clone(), *job);
            self.waiting.remove(&name);
            self.run(&name, job);
        }
    }

    /// systemd's order: starts go along `After=`, stops against it, and a stop goes before a start.
    fn has_turn(&self, name: &UnitName, job: Job) -> bool {
        let stops =
            |unit: &Unit| unit.job.is_some_and(|(_, job)| matches!(job, Job::Stop | Job::Restart));
        if self
            .units
            .iter()
            .any(|(other, unit)| other != name && unit.settings.after.contains(name) && stops(unit))
        {
            return false;
        }
        let Some(unit) = self.units.get(name).filter(|_| job == Job::Start) else { return true };
        unit.settings
            .after
            .iter()
            .all(|other| self.units.get(other).is_none_or(|other| other.job.is_none()))
    }

    /// Why a start may not go on, by the word that its job ends with: what the unit is bound to is
    /// not up, what it asserts or its conditions ask for is not there, what it triggers is not
    /// there. Of a unit that starts by its `Restart=` systemd asks no assertion (254 and later).
    pub(super) fn start_ends_as(&mut self, name: &UnitName) -> Option<&'static str> {
        let Some(Unit { settings, sub, .. }) = self.units.get(name) else { return Some("failed") };
        let up =
            |other: &UnitName| self.units.get(other).is_some_and(|unit| unit.active == "active");
        if !settings.binds_to.iter().filter(|other| settings.after.contains(other)).all(up) {
            return Some("dependency");
        }
        if *sub != "auto-restart" && !settings.asserts_paths.iter().all(|path| path.exists()) {
            return Some("assert");
        }
        if !settings.conditions.iter().all(|path| path.exists()) {
            return Some(DONE); // it was not to be
        }
        let triggers = settings.triggers.clone()?;
        let loaded = self.load(&triggers) == Some("loaded");
        self.forget_if_idle(&triggers);
        (!loaded).then_some("failed")
    }

    /// A process is gone, and with it its runtime folder.
    pub(super) fn clean_up(&mut self, name: &UnitName) {
        if let Some(child) = self.children.remove(name) {
            child.kill();
        }
        let folder = self.units.get(name).and_then(|unit| unit.settings.runtime_directory.clone());
        if let (Some(root), Some(folder)) = (&self.run_root, folder) {
            let _ = std::fs::remove_dir_all(root.join(folder));
        }
    }

    /// The units that are bound to `name`, with their active states.
    pub(super) fn bound_to(&self, name: &UnitName) -> Vec<(UnitName, String)> {
        self.bound_units(name)
            .into_iter()
            .map(|other| (other.clone(), self.units[&other].active.to_string()))
            .collect()
    }

    /// What conflicts with a unit, by either's word.
    fn rivals(&self, name: &UnitName) -> Vec<UnitName> {
        let own =
            self.units.get(name).map(|unit| unit.settings.conflicts.clone()).unwrap_or_default();
        let rival = |(other, unit): &(&UnitName, &Unit)| {
            *other != name && (own.contains(other) || unit.settings.conflicts.contains(name))
        };
        self.units.iter().filter(rival).map(|(other, _)| other.clone()).collect()
    }

    /// What a start of a unit would do to others; of what is not loaded only by the unit's own
    /// word.
    pub(super) fn bonds(&mut self, name: &UnitName) -> Option<Bonds> {
        self.load(name);
        let settings = self.units.get(name).map(|unit| unit.settings.clone());
        let (Some(settings), mut rivals) = (settings, self.rivals(name)) else {
            return Some(Bonds::default());
        };
        self.forget_if_idle(name);
        if settings.goes_unneeded {
            return None;
        }
        let stopped = |other: &&UnitName| self.rests.get(*other) == Some(&Rest::Stopped);
        let required = settings.requires.iter().filter(stopped).cloned();
        let needs = settings.binds_to.iter().cloned().chain(required).collect();
        rivals.extend(settings.conflicts);
        Some(Bonds { needs, rivals })
    }

    /// What a stop of the unit stops, too.
    pub(super) fn stopped_with(&self, name: &UnitName) -> Vec<UnitName> {
        self.requiring_units(name).into_iter().chain(self.bound_units(name)).collect()
    }

    /// A start that failed takes along the starts that wait for it.
    pub(super) fn fail_dependents(&mut self, name: &UnitName) {
        let needs = |unit: &Unit| {
            unit.settings.binds_to.contains(name) || unit.settings.requires.contains(name)
        };
        let waits = |other: &UnitName| self.waiting.get(other) == Some(&Job::Start);
        let dependents: Vec<UnitName> = self
            .units
            .iter()
            .filter(|(other, unit)| needs(unit) && waits(other))
            .map(|(other, _)| other.clone())
            .collect();
        for other in dependents {
            self.end_job_as(&other, "dependency");
            self.forget_if_idle(&other);
        }
    }

    fn requiring_units(&self, name: &UnitName) -> Vec<UnitName> {
        let requires = |unit: &Unit| unit.settings.requires.contains(name);
        self.units
            .iter()
            .filter(|(_, unit)| requires(unit))
            .map(|(other, _)| other.clone())
            .collect()
    }

    fn bound_units(&self, name: &UnitName) -> Vec<UnitName> {
        let bound = |unit: &Unit| unit.settings.binds_to.contains(name);
        self.units.iter().filter(|(_, unit)| bound(unit)).map(|(other, _)| other.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
    const RUNS_ONCE: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n";

    /// As systemd's `unit_process_job` has it: a unit that gets active ends a start of it, and no
    /// restart whose turn has not come.
    #[tokio::test(start_paused = true)]
    async fn a_restart_that_waits_for_its_turn_outlasts_the_start_that_it_took_the_place_of() {
        let sim = SimSystemd::new(Times {
            call: Duration::from_millis(1),
            job: Duration::from_millis(20),
        });
        let [first, second] = ["first.service", "second.service"].map(UnitName::trusted);
        sim.write(&first, RUNS, "").await.unwrap();
        sim.write(&second, &format!("[Unit]\nAfter={first}\n{RUNS}"), "").await.unwrap();
        sim.queue(&second, Job::Start).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        sim.stops_slowly(&second, Duration::from_secs(1));
        sim.queue(&first, Job::Start).await.unwrap();
        sim.queue(&second, Job::Stop).await.unwrap();
        sim.queue(&first, Job::Restart).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        sim.write(&first, RUNS_ONCE, "").await.unwrap();
        sim.reload().await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = sim.list(std::slice::from_ref(&first)).await.unwrap();
        assert_eq!(
            (now[&first].active.as_str(), now[&first].sub.as_str()),
            ("active", "exited"),
            "it runs the text of its restart"
        );
    }
}
