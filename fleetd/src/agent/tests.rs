//! The agent on a simulated host, a file a subject.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fleet_core::converge::{self, Trouble};
use fleet_core::model::{DesiredState, InstanceStatus, Machine, Placement, UnitRecord, Why};

use super::*;
use crate::store::embedded::EmbeddedKv;
use crate::store::{LeaseId, Registration};
use crate::systemd::sim::SimSystemd;
use crate::systemd::{Job, Listed};

mod alike;
mod assignment;
mod bundles;
mod configurations;
mod enable;
mod failures;
mod files;
mod health;
mod hosts_own;
mod images;
mod leaving;
mod report;
mod rest;
mod settling;
mod steps;
mod user_space;

const OLD: &str = "[Service]\nExecStart=/bin/old\n";
const NEW: &str = "[Service]\nExecStart=/bin/new\n";

struct Host {
    folder: tempfile::TempDir,
    store: Store,
    sim: SimSystemd,
    agent: Agent,
    now_ms: u64,
}

impl Host {
    async fn new() -> Host {
        Host::with(SimSystemd::default()).await
    }

    async fn with(sim: SimSystemd) -> Host {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(
            Arc::new(EmbeddedKv::open(folder.path().join("store.redb")).await.unwrap()),
            "/fleet/",
        );
        let agent = Host::agent(folder.path().join("run"), &store, &sim);
        Host { folder, store, sim, agent, now_ms: 1_000 }
    }

    fn agent(run_dir: PathBuf, store: &Store, sim: &SimSystemd) -> Agent {
        let systemd = Arc::new(sim.clone());
        let agent = Agent::new(MachineId::new("m"), store.clone(), systemd, &run_dir).unwrap();
        agent.with_probes(Arc::new(sim.clone()), Arc::default())
    }

    fn restart_fleetd(&mut self) {
        self.agent = Host::agent(self.folder.path().join("run"), &self.store, &self.sim);
    }

    /// Submits a text and answers with a placement of it.
    async fn text(&self, unit: &str, revision: u64, text: &str) -> Placement {
        let name = UnitName::parse(unit).unwrap();
        let record = UnitRecord {
            revision,
            desired: DesiredState::Launched,
            ..UnitRecord::new(name.clone(), text)
        };
        let old = self.store.unit(&name).await.unwrap().0.map(|old| old.revision);
        self.store.put_unit(&record, old, true).await.unwrap();
        let hash = fleet_core::unit::file::UnitFile::parse_lenient(text).short_hash();
        let (state, why) = (DesiredState::Launched, Why::Fewest);
        Placement {
            unit: name,
            revision,
            hash,
            state,
            why,
            since_ms: 0,
            changed_ms: 0,
            moves: 0,
            restart: 0,
            config: 0,
            fence: None,
        }
    }

    /// Assigns, and ticks until nothing is left to do.
    async fn run(&mut self, wanted: &[(&str, &Placement)]) {
        self.assign(wanted);
        let mut jobs = self.sim.changes();
        for _ in 0..20 {
            self.now_ms += 10_000;
            self.agent.pass(self.now_ms).await.unwrap();
            jobs.wait_for(|_| self.sim.jobs_in_flight() == 0).await.unwrap();
        }
    }

    /// Assigns this, without a tick.
    fn assign(&mut self, wanted: &[(&str, &Placement)]) {
        let instances = wanted
            .iter()
            .map(|(name, placement)| (UnitName::parse(name).unwrap(), (*placement).clone()))
            .collect();
        self.agent.assignment = Some(Arc::new(Assignment { instances, ..Assignment::default() }));
    }

    /// As [`Host::run`], where jobs may hang.
    async fn run_until_hanging(&mut self, wanted: &[(&str, &Placement)]) {
        self.assign(wanted);
        for _ in 0..20 {
            self.now_ms += 10_000;
            self.agent.pass(self.now_ms).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What is reported of a unit.
    async fn status(&mut self, name: &str) -> InstanceStatus {
        let mut seen = self.agent.observe(self.now_ms).await.unwrap();
        self.agent.judge_failures(&mut seen, self.now_ms).await;
        let report = self.agent.report(&seen, self.now_ms).await;
        report.instances[&UnitName::parse(name).unwrap()].clone()
    }

    /// The files, one a word: `web@.service=new web@1.service=old`.
    fn files(&self) -> String {
        let command = |text: &str| if text == NEW { "new" } else { "old" };
        let files: Vec<String> = self
            .sim
            .files()
            .iter()
            .map(|(name, (text, _))| format!("{name}={}", command(text)))
            .collect();
        files.join(" ")
    }

    /// What is known of a unit's failures.
    fn trouble(&self, name: &str) -> Trouble {
        let instance = self.agent.instances.get(&UnitName::parse(name).unwrap());
        instance.map(|instance| instance.trouble.clone()).unwrap_or_default()
    }

    /// What went wrong with a step, of any unit.
    fn said(&self) -> Option<String> {
        self.agent.instances.values().find_map(|instance| instance.trouble.message.clone())
    }

    /// What runs.
    fn running(&self) -> String {
        let loaded = self.sim.loaded();
        let running = loaded.iter().filter(|(_, unit)| unit.active == "active");
        running.map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(" ")
    }
}

fn machine() -> Machine {
    Machine::new(MachineId::new("m"), "")
}
