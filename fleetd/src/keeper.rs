//! The keeper of this machine's fenced units: it lives as long as its lease in the store does, and says so to systemd's watchdog.
//!
//! What is fenced is bound to its service (`BindsTo=`, `After=`), so systemd ends that when the keeper ends or hangs. Each renewal
//! counts from its sending. One process is one life of the keeper: when the lease is lost it ends, and what systemd starts anew is
//! another life. Only an upgrade (SIGHUP) goes on with the same lease, by executing the new binary in the same process.
//!
//! **Architecture invariant:** it knows no unit and no assignment. The argument that it carries is docs/fencing.md.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fleet_core::fence::{ANSWER_MS, Fence, Keeper as Document};
use fleet_core::model::FORMAT;
use fleet_core::name::{MachineId, UnitName};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::clock;
use crate::config::Settings;
use crate::store::{LeaseId, Store, StoreError};
use crate::systemd::dbus::Bus;
use crate::systemd::own_job::{bound_units, own_job};

/// The unit that the keeper runs as.
pub const UNIT: &str = "fleet-keeper.service";

/// How long to wait before the store is tried again: short against the watchdog, long against the store's load.
const RETRY: Duration = Duration::from_millis(400);

/// Renewals fit into one time of the watchdog this often: a store that elects a leader may miss two.
const RENEWALS: u32 = 4;

/// What the keeper tells the agent of its host, in its runtime folder, which systemd takes away when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The revision that names this life; without a cluster, the time of its start.
    pub life: i64,
    /// Whether there is no cluster: the embedded store has one machine, and systemd alone keeps one copy.
    pub alone: bool,
    /// The lease.
    pub lease: i64,
    /// When the last renewal that counts was sent, in milliseconds since the host's boot.
    pub sent_ms: u64,
    /// Until when the units that are bound to it run on without another one, in milliseconds since 1970.
    pub until_ms: u64,
}

/// The file whose presence lets systemd start what was fenced under `life`: each such unit asserts it.
pub fn life_file(folder: &Path, life: i64) -> PathBuf {
    folder.join(format!("life-{life}"))
}

/// What the keeper of this host says; `None` while there is none.
pub fn read_state(folder: &Path) -> Option<State> {
    let state: State = serde_json::from_slice(&std::fs::read(folder.join("state.json")).ok()?).ok()?;
    life_file(folder, state.life).exists().then_some(state)
}

/// A keeper that is starting.
pub struct Keeper {
    store: Option<Store>,
    machine: MachineId,
    watchdog: Duration,
    bus: Bus,
    /// Gone with this process.
    folder: PathBuf,
    /// Where an earlier life of this boot left its lease.
    lease_file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    lease: i64,
}

impl Keeper {
    /// `store` is none where the embedded store makes this machine the whole cluster.
    pub fn new(settings: &Settings, machine: MachineId, store: Option<Store>) -> anyhow::Result<Keeper> {
        let watchdog = sd_notify::watchdog_enabled();
        let watchdog = watchdog.context("run it as fleet-keeper.service, with WatchdogSec=: without systemd's watchdog nothing would end what is fenced when this hangs")?;
        let shortest = Duration::from_millis(ANSWER_MS) * 2;
        ensure!(watchdog >= shortest, "WatchdogSec={} s is too short; use {} s or more", watchdog.as_secs(), shortest.as_secs());
        let folder = settings.keeper_dir();
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        std::fs::create_dir_all(&settings.run_dir).with_context(|| format!("cannot create {}", settings.run_dir.display()))?;
        let bus = if settings.systemd_user { Bus::User } else { Bus::System };
        Ok(Keeper { store, machine, watchdog, bus, folder, lease_file: settings.run_dir.join("keeper.json") })
    }

    /// Registers, renews until the lease is lost (an error) or systemd ends it in good order.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let mut held = tokio::select! {
            held = self.begin() => held?,
            _ = terminate.recv() => return Ok(()), // nothing was ever bound to this life
        };
        let pause = self.watchdog / RENEWALS;
        let mut wait = pause.saturating_sub(held.renewed.elapsed());
        loop {
            tokio::select! {
                _ = terminate.recv() => return self.end(&held).await,
                _ = hangup.recv() => execute_anew(),
                () = sleep(wait) => {}
            }
            let sent = Instant::now();
            wait = match self.renew(&held).await {
                Ok(true) if sent.elapsed() <= Duration::from_millis(ANSWER_MS) => {
                    held.renewed = sent;
                    self.tell(&held)?;
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                    pause.saturating_sub(sent.elapsed())
                }
                Ok(true) => RETRY, // an answer from so long ago says nothing of now
                Ok(false) => bail!("the lease is lost; what is fenced is stopped here, and may run elsewhere soon"),
                Err(error) => {
                    warn!("{error}; what is fenced here runs on for {} s", self.left(&held).as_secs());
                    RETRY
                }
            };
            if self.left(&held).is_zero() {
                bail!("the lease could not be renewed for {} s; what is fenced is stopped here", self.watchdog.as_secs());
            }
        }
    }

    async fn begin(&self) -> anyhow::Result<Held> {
        if let Some(state) = read_state(&self.folder).filter(|state| state.alone == self.store.is_none()) {
            // The binary was changed under a life that goes on. Its next renewal, not this start, tells the watchdog.
            info!(life = state.life, "going on with the lease of the binary before");
            let renewed = Instant(Duration::from_millis(state.sent_ms));
            return Ok(Held { life: state.life, lease: LeaseId(state.lease), renewed });
        }
        let held = match &self.store {
            Some(store) => self.register(store).await,
            None => Held { life: clock::now_ms() as i64, lease: LeaseId(0), renewed: Instant::now() },
        };
        self.tell(&held)?;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Watchdog]);
        Ok(held)
    }

    /// Tries until it is registered: what is fenced waits for that with its start.
    async fn register(&self, store: &Store) -> Held {
        let (mut lease, mut said) = (None, String::new());
        loop {
            let sent = Instant::now();
            match self.try_register(store, &mut lease).await {
                Ok((life, lease)) if sent.elapsed() <= Duration::from_millis(ANSWER_MS) => {
                    info!(life, "the keeper of machine {} holds its lease", self.machine);
                    return Held { life, lease, renewed: sent };
                }
                Ok(_) => {}
                Err(StoreError::LeaseExpired) => lease = None,
                Err(error) => {
                    let now = match error {
                        StoreError::Conflict(_) => {
                            "the lease of this machine's last boot has not run out yet; waiting for that".to_string()
                        }
                        error => format!("no lease yet: {error}; what is fenced waits"),
                    };
                    if now != said {
                        warn!("{now}");
                        said = now;
                    }
                }
            }
            sleep(RETRY).await;
        }
    }

    async fn try_register(&self, store: &Store, lease: &mut Option<LeaseId>) -> Result<(i64, LeaseId), StoreError> {
        // What was bound to an earlier life was stopped before systemd started this one.
        if let Some(Saved { lease: old }) =
            std::fs::read(&self.lease_file).ok().and_then(|saved| serde_json::from_slice(&saved).ok())
            && lease.is_none_or(|lease| lease.0 != old)
        {
            store.revoke(LeaseId(old)).await?;
        }
        let held = match *lease {
            Some(held) if store.keep_alive(held).await? => held,
            _ => {
                let granted = store.grant(self.watchdog).await?;
                *lease = Some(granted);
                granted
            }
        };
        self.save_lease(held);
        let document = Document { v: FORMAT, boot_id: boot_id(), ..Document::default() };
        Ok((store.register_keeper(&self.machine, &document, &self.fence(), held).await?, held))
    }

    async fn renew(&self, held: &Held) -> Result<bool, StoreError> {
        let Some(store) = &self.store else { return Ok(true) };
        let late = || StoreError::Unavailable(format!("no answer within {ANSWER_MS} ms"));
        let asked = store.keeper_lives(&self.machine, held.life, held.lease);
        timeout(Duration::from_millis(ANSWER_MS), asked).await.unwrap_or_else(|_| Err(late()))
    }

    /// systemd ends the keeper. Everything that was bound to it was stopped before, unless the signal came from somebody else.
    async fn end(&self, held: &Held) -> anyhow::Result<()> {
        let unit = UnitName::trusted(UNIT);
        let stop = own_job(&self.bus, &unit).await?.is_some_and(|job| job == "stop");
        let bound = bound_units(&self.bus, &unit).await?;
        let alive: Vec<&str> = bound
            .iter()
            .filter(|(_, active)| !["inactive", "failed"].contains(&active.as_str()))
            .map(|(name, _)| name.as_str())
            .collect();
        let Some(store) = self.store.as_ref().filter(|_| stop && alive.is_empty()) else {
            info!(
                "ending with the lease left to run out{}",
                if alive.is_empty() { String::new() } else { format!("; {} still runs", alive[0]) }
            );
            return Ok(());
        };
        match store.release_keeper(&self.machine, held.life, &self.fence(), held.lease).await {
            Ok(()) => info!("all that was fenced here is stopped; it may run elsewhere at once"),
            Err(error) => warn!("cannot say that all is stopped here: {error}; the lease runs out by itself"),
        }
        Ok(())
    }

    fn fence(&self) -> Fence {
        Fence { v: FORMAT, watchdog_ms: self.watchdog.as_millis() as u64, ..Fence::default() }
    }

    fn left(&self, held: &Held) -> Duration {
        self.watchdog.saturating_sub(held.renewed.elapsed())
    }

    /// The state first, the file that opens starts last.
    fn tell(&self, held: &Held) -> anyhow::Result<()> {
        let until_ms = clock::wall_ms() + self.left(held).as_millis() as u64;
        let sent_ms = held.renewed.0.as_millis() as u64;
        let state = State { life: held.life, alone: self.store.is_none(), lease: held.lease.0, sent_ms, until_ms };
        let path = self.folder.join("state.json");
        let write = || -> std::io::Result<()> {
            // The folder is memory: a rename is enough.
            std::fs::write(path.with_extension("new"), serde_json::to_vec(&state)?)?;
            std::fs::rename(path.with_extension("new"), &path)?;
            std::fs::write(life_file(&self.folder, held.life), "")
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    fn save_lease(&self, lease: LeaseId) {
        let text = format!("{{\"lease\":{}}}\n", lease.0);
        if let Err(error) = std::fs::write(&self.lease_file, text) {
            warn!(
                "cannot write {}: {error}; after a crash the next keeper waits for this lease to run out",
                self.lease_file.display()
            );
        }
    }
}

/// A lease that is held.
struct Held {
    life: i64,
    lease: LeaseId,
    renewed: Instant,
}

/// A time that goes on while the host is suspended: what slept through its lease must not take it for fresh.
#[derive(Debug, Clone, Copy)]
struct Instant(Duration);

impl Instant {
    fn now() -> Instant {
        let now = clock_gettime(ClockId::Boottime);
        Instant(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
    }

    fn elapsed(self) -> Duration {
        Instant::now().0.saturating_sub(self.0)
    }
}

/// Puts the binary that is installed now in the place of this one, in the same process: systemd sees no end, so nothing is stopped.
/// A binary that does not run is said, and this one goes on.
fn execute_anew() {
    let mut arguments = std::env::args_os();
    let Some(program) = arguments.next() else { return };
    let works = Command::new(&program).arg("--version").output();
    if !works.as_ref().is_ok_and(|said| said.status.success()) {
        return warn!("{} does not run ({works:?}); going on with the old binary", program.display());
    }
    let error = Command::new(&program).args(arguments).exec();
    warn!("cannot execute {}: {error}; going on with the old binary", program.display());
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}
