//! A machine's keeper and its guard: fleetd's own, run as the programs of their own unit files by
//! the simulated systemd.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::unit::file::UnitFile;
use fleetd::keeper::{self, Guard, Keeper};
use fleetd::store::Store;
use fleetd::systemd::SystemdError;
use fleetd::systemd::sim::{Process, Program, SimSystemd};
use tokio::time::Instant;

use crate::etcd::{Etcd, Origin};
use crate::gate::Gated;
use crate::host::EPOCH_MS;
use crate::judge::SharedJudge;
use crate::link::Link;
use crate::network::RemoteKv;
use crate::planted::Planted;

/// The unit files that the package brings.
const UNIT_FILE: &str = include_str!("../../../fleetd/dist/fleet-keeper.service");
const GUARD_UNIT_FILE: &str = include_str!("../../../fleetd/dist/fleet-guard.service");

/// What the keepers and guards of one machine find there, one after the other.
pub struct Surroundings {
    /// The machine's number.
    pub number: usize,
    /// Its id.
    pub id: MachineId,
    /// The store, far away.
    pub etcd: Etcd,
    /// The network between; and what stops the keeper and the guard.
    pub link: Arc<Link>,
    /// The machine's `/run`.
    pub run: PathBuf,
    /// How fast the machine's clock runs, in millionths more than real time.
    pub rate_ppm: i64,
    /// A bug to plant.
    pub planted: Option<Planted>,
    /// Who hears of it.
    pub judge: SharedJudge,
    /// When the simulation began.
    pub began: Instant,
    /// How far the wall clock is off, in milliseconds.
    pub offset_ms: Arc<AtomicI64>,
    /// Counts its keepers.
    pub lives: AtomicU64,
}

/// The keeper's unit.
pub fn unit() -> UnitName {
    UnitName::trusted(keeper::UNIT)
}

/// The guard's unit.
pub fn guard_unit() -> UnitName {
    UnitName::trusted(keeper::GUARD_UNIT)
}

/// Lets a machine's systemd know both units, and what they run.
pub fn install(systemd: &SimSystemd, around: Arc<Surroundings>) {
    systemd.set_run_root(&around.run);
    systemd.define_on_host(&unit(), "/usr/lib/systemd/system/fleet-keeper.service", UNIT_FILE);
    systemd.define_on_host(
        &guard_unit(),
        "/usr/lib/systemd/system/fleet-guard.service",
        GUARD_UNIT_FILE,
    );
    let beside = around.clone();
    let program: Program = Arc::new(move |process| {
        let gate = around.link.keeper.new_gate();
        Box::pin(Gated::new(gate, live(around.clone(), process)))
    });
    systemd.run_program(&unit(), program);
    let program: Program = Arc::new(move |process| {
        let gate = beside.link.guard.new_gate();
        Box::pin(Gated::new(gate, stand_guard(beside.clone(), process)))
    });
    systemd.run_program(&guard_unit(), program);
}

/// One process of a keeper.
async fn live(around: Arc<Surroundings>, process: Process) -> bool {
    let life = around.lives.fetch_add(1, Relaxed) + 1;
    let origin = Origin { machine: around.number, life, keeper: true };
    let host = Arc::new(Host { around: around.clone(), process });
    // Its times are not scaled: it goes by its host's clock.
    let kv = RemoteKv::new(around.etcd.asked_by(origin), around.link.clone(), 0, around.planted);
    let store = Store::new(Arc::new(kv), "/fleet/");
    let keeper =
        Keeper::on(host, around.id.clone(), Some(store), &around.guard_dir(), &around.run_dir());
    let ended = keeper.expect("folders in memory").run().await;
    let said = ended.as_ref().err().map_or("in good order".to_string(), ToString::to_string);
    around.judge.lock().note(format!("machine {}: its keeper {life} ends: {said}", around.number));
    ended.is_ok()
}

/// One process of a guard.
async fn stand_guard(around: Arc<Surroundings>, process: Process) -> bool {
    let host = Arc::new(Host { around: around.clone(), process });
    let guard = Guard::on(host, watchdog(), &around.guard_dir(), &around.run_dir());
    let ended = guard.expect("folders in memory").run().await;
    let said = ended.as_ref().err().map_or("in good order".to_string(), ToString::to_string);
    around.judge.lock().note(format!("machine {}: its guard ends: {said}", around.number));
    ended.is_ok()
}

fn watchdog() -> Duration {
    let file = UnitFile::parse_lenient(GUARD_UNIT_FILE);
    let seconds = file.last("Service", "WatchdogSec").and_then(|text| text.trim().parse().ok());
    Duration::from_secs(seconds.expect("WatchdogSec= in seconds in the guard's unit"))
}

impl Surroundings {
    fn guard_dir(&self) -> PathBuf {
        self.run.join("fleet-guard")
    }

    fn run_dir(&self) -> PathBuf {
        self.run.join("fleet")
    }
}

struct Host {
    around: Arc<Surroundings>,
    process: Process,
}

#[async_trait]
impl keeper::Host for Host {
    fn since_boot(&self) -> Duration {
        let passed_us = self.around.began.elapsed().as_micros() as i64;
        Duration::from_micros((passed_us + passed_us * self.around.rate_ppm / 1_000_000) as u64)
    }

    fn wall_ms(&self) -> u64 {
        (EPOCH_MS + self.since_boot().as_millis() as u64)
            .saturating_add_signed(self.around.offset_ms.load(Relaxed))
    }

    fn boot_id(&self) -> String {
        String::new()
    }

    async fn sleep(&self, time: Duration) {
        // Whole milliseconds: tokio's timers round the rest by the real clock.
        let ms =
            (time.as_micros() as u64 * 1_000).div_ceil((1_000_000 + self.around.rate_ppm) as u64);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    fn ping(&self, ready: bool) {
        if ready {
            self.process.ready();
        }
        self.process.ping();
    }

    async fn terminated(&self) {
        self.process.terminated().await;
    }

    async fn job_of(&self, _unit: &UnitName) -> Result<Option<String>, SystemdError> {
        Ok(self.process.job()?.map(|job| job.verb().to_string()))
    }

    async fn bound_to(&self, unit: &UnitName) -> Result<Vec<(String, String)>, SystemdError> {
        Ok(self
            .process
            .bound_to(unit)?
            .into_iter()
            .map(|(name, active)| (name.to_string(), active))
            .collect())
    }
}
