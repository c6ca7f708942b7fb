//! What units have to do with each other: jobs that take others along (`BindsTo=`) or wait for them (`After=`), and what an end takes away.

use super::unit::{Manager, Unit};
use super::*;

impl Manager {
    /// Takes a job into the queue, and what it takes along. `None`: there was nothing to stop.
    pub(super) fn install(&mut self, name: &UnitName, job: Job) -> Result<Option<u32>, String> {
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
        unit.job = Some((id, job));
        self.wait(name, job);
        self.take_along(name, job)?;
        Ok(Some(id))
    }

    /// The job is run as soon as its turn comes.
    pub(super) fn wait(&mut self, name: &UnitName, job: Job) {
        self.waiting.insert(name.clone(), job);
    }

    /// A start or restart takes along what the unit is bound to and what it wants; a stop or restart, what is bound to it.
    fn take_along(&mut self, name: &UnitName, job: Job) -> Result<(), String> {
        if job != Job::Start {
            self.take(self.bound_units(name), job);
        }
        if job != Job::Stop {
            let settings = self.units.get(name).map(|unit| (unit.settings.binds_to.clone(), unit.settings.wants.clone()));
            let (bound, wanted) = settings.unwrap_or_default();
            for other in bound {
                self.bring(&other)?;
            }
            for other in wanted {
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

    /// What is bound to a unit goes with it also where nobody asked for that, unless it is ending by itself.
    pub(super) fn end_bound(&mut self, name: &UnitName) {
        let ending = |other: &UnitName| self.units.get(other).is_some_and(|unit| unit.active == "deactivating");
        let bound = self.bound_units(name).into_iter().filter(|other| !ending(other)).collect();
        self.take(bound, Job::Stop);
    }

    fn take(&mut self, bound: Vec<UnitName>, job: Job) {
        for other in bound {
            let goes = self.units.get(&other).is_some_and(|unit| unit.job.is_some_and(|(_, job)| job == Job::Stop));
            if self.is_up(&other) && !goes {
                let _ = self.install(&other, job); // it is loaded: nothing refuses
            }
        }
    }

    /// Runs each job whose turn has come, one after the other.
    pub(super) fn settle(&mut self) {
        while let Some((name, job)) = self.waiting.iter().find(|(name, job)| self.has_turn(name, **job)) {
            let (name, job) = (name.clone(), *job);
            self.waiting.remove(&name);
            self.run(&name, job);
        }
    }

    /// systemd's order: starts go along `After=`, stops against it, and a stop goes before a start.
    fn has_turn(&self, name: &UnitName, job: Job) -> bool {
        let stops = |unit: &Unit| unit.job.is_some_and(|(_, job)| job != Job::Start);
        if self.units.iter().any(|(other, unit)| other != name && unit.settings.after.contains(name) && stops(unit)) {
            return false;
        }
        let Some(unit) = self.units.get(name).filter(|_| job == Job::Start) else { return true };
        unit.settings.after.iter().all(|other| self.units.get(other).is_none_or(|other| other.job.is_none()))
    }

    /// Whether a start may go on: what the unit is bound to is up, and what it asserts and its conditions ask for is there. Of a unit that
    /// starts by its `Restart=` systemd asks no assertion (254 and later).
    pub(super) fn may_start(&self, name: &UnitName) -> bool {
        let Some(Unit { settings, sub, .. }) = self.units.get(name) else { return false };
        let up = |other: &UnitName| self.units.get(other).is_some_and(|unit| unit.active == "active");
        settings.binds_to.iter().filter(|other| settings.after.contains(other)).all(up)
            && (*sub == "auto-restart" || settings.asserts_paths.iter().all(|path| path.exists()))
            && settings.conditions.iter().all(|path| path.exists())
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
        self.bound_units(name).into_iter().map(|other| (other.clone(), self.units[&other].active.to_string())).collect()
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

    /// As systemd's `unit_process_job` has it: a unit that gets active ends a start of it, and no restart whose turn has not come.
    #[tokio::test(start_paused = true)]
    async fn a_restart_that_waits_for_its_turn_outlasts_the_start_that_it_took_the_place_of() {
        let sim = SimSystemd::new(Times { call: Duration::from_millis(1), job: Duration::from_millis(20) });
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
