//! A machine's keeper: fleetd's own, run as the program of its own unit file by the simulated systemd.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::unit_file::UnitFile;
use fleetd::keeper::{self, Keeper};
use fleetd::store::Store;
use fleetd::systemd::SystemdError;
use fleetd::systemd::sim::{Process, Program, SimSystemd};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::etcd::{Etcd, Origin};
use crate::gate::Gated;
use crate::host::EPOCH_MS;
use crate::judge::SharedJudge;
use crate::link::Link;
use crate::network::RemoteKv;
use crate::planted::Planted;

/// The unit file that the package brings.
const UNIT_FILE: &str = include_str!("../../../fleetd/dist/fleet-keeper.service");

/// What the keepers of one machine find there, one after the other.
pub struct Surroundings {
    /// The machine's number.
    pub number: usize,
    /// Its id.
    pub id: MachineId,
    /// The store, far away.
    pub etcd: Etcd,
    /// The network between; and what stops the keeper.
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
    /// SIGHUP: there is a new binary.
    pub hangup: Notify,
    /// Counts its keepers.
    pub lives: AtomicU64,
}

/// The keeper's unit.
pub fn unit() -> UnitName {
    UnitName::trusted(keeper::UNIT)
}

/// Lets a machine's systemd know the unit, and what it runs.
pub fn install(systemd: &SimSystemd, around: Arc<Surroundings>) {
    systemd.set_run_root(&around.run);
    systemd.define_on_host(&unit(), "/usr/lib/systemd/system/fleet-keeper.service", UNIT_FILE);
    let program: Program = Arc::new(move |process| {
        let gate = around.link.keeper.new_gate();
        Box::pin(Gated::new(gate, live(around.clone(), process)))
    });
    systemd.run_program(&unit(), program);
}

/// One process, of one binary after the other.
async fn live(around: Arc<Surroundings>, process: Process) -> bool {
    let life = around.lives.fetch_add(1, Relaxed) + 1;
    let origin = Origin { machine: around.number, life, keeper: true };
    let host = Arc::new(Host { around: around.clone(), process, anew: Notify::new() });
    let (folder, run_dir) = (around.run.join("fleet-keeper"), around.run.join("fleet"));
    loop {
        // Its times are not scaled: it goes by its host's clock.
        let kv = RemoteKv::new(around.etcd.asked_by(origin), around.link.clone(), 0, around.planted);
        let store = Store::new(Arc::new(kv), "/fleet/");
        let keeper = Keeper::on(host.clone(), around.id.clone(), Some(store), watchdog(), &folder, &run_dir);
        let running = keeper.expect("folders in memory").run();
        let ended = tokio::select! {
            biased;
            ended = running => ended,
            () = host.anew.notified() => continue,
        };
        let said = ended.as_ref().err().map_or("in good order".to_string(), ToString::to_string);
        around.judge.lock().note(format!("machine {}: its keeper {life} ends: {said}", around.number));
        return ended.is_ok();
    }
}

fn watchdog() -> Duration {
    let file = UnitFile::parse_lenient(UNIT_FILE);
    let seconds = file.last("Service", "WatchdogSec").and_then(|text| text.trim().parse().ok());
    Duration::from_secs(seconds.expect("WatchdogSec= in seconds in the keeper's unit"))
}

struct Host {
    around: Arc<Surroundings>,
    process: Process,
    /// The binary of now ends here, and the next one goes on.
    anew: Notify,
}

#[async_trait]
impl keeper::Host for Host {
    fn since_boot(&self) -> Duration {
        let passed_us = self.around.began.elapsed().as_micros() as i64;
        Duration::from_micros((passed_us + passed_us * self.around.rate_ppm / 1_000_000) as u64)
    }

    fn wall_ms(&self) -> u64 {
        (EPOCH_MS + self.since_boot().as_millis() as u64).saturating_add_signed(self.around.offset_ms.load(Relaxed))
    }

    fn boot_id(&self) -> String {
        String::new()
    }

    async fn sleep(&self, time: Duration) {
        // Whole milliseconds: tokio's timers round the rest by the real clock.
        let ms = (time.as_micros() as u64 * 1_000).div_ceil((1_000_000 + self.around.rate_ppm) as u64);
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

    async fn upgraded(&self) {
        self.around.hangup.notified().await;
    }

    async fn execute_anew(&self) {
        self.anew.notify_one();
        std::future::pending().await
    }

    async fn job_of(&self, _unit: &UnitName) -> Result<Option<String>, SystemdError> {
        Ok(self.process.job()?.map(|job| job.verb().to_string()))
    }

    async fn bound_to(&self, _unit: &UnitName) -> Result<Vec<(String, String)>, SystemdError> {
        Ok(self.process.bound()?.into_iter().map(|(name, active)| (name.to_string(), active)).collect())
    }
}
