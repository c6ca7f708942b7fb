//! The keeper of this machine's fenced units: it lives as long as its lease in the store does, and says so to systemd's watchdog.
//!
//! What is fenced is bound to its service (`BindsTo=`, `After=`), so systemd ends that when the keeper ends or hangs. Each renewal
//! counts from its sending. One process is one life of the keeper: when the lease is lost it ends, and what systemd starts anew is
//! another life. Only an upgrade (SIGHUP) goes on with the same lease, by executing the new binary in the same process.
//!
//! **Architecture invariant:** it knows no unit and no assignment. The argument that it carries is docs/fencing.md.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fleet_core::fence::{ANSWER_MS, Fence, Keeper as Document};
use fleet_core::model::FORMAT;
use fleet_core::name::{MachineId, UnitName};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::config::Settings;
use crate::repeated::Repeated;
use crate::store::{LeaseId, Store, StoreError};
use crate::systemd::dbus::Bus;

mod host;

pub use host::Host;

/// The unit that the keeper runs as.
pub const UNIT: &str = "fleet-keeper.service";

/// How long to wait before the store is tried again: short against the watchdog, long against the store's load.
const RETRY: Duration = Duration::from_millis(400);

/// An answer that took longer does not count.
const ANSWER: Duration = Duration::from_millis(ANSWER_MS);

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
    host: Arc<dyn Host>,
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
    /// The keeper of the host that this runs on. `store` is none where the embedded store makes this machine the whole cluster.
    pub fn new(settings: &Settings, machine: MachineId, store: Option<Store>) -> anyhow::Result<Keeper> {
        let watchdog = sd_notify::watchdog_enabled();
        let watchdog = watchdog.context("run it as fleet-keeper.service, with WatchdogSec=: without systemd's watchdog nothing would end what is fenced when this hangs")?;
        let shortest = ANSWER * 2;
        ensure!(watchdog >= shortest, "WatchdogSec={} s is too short; use {} s or more", watchdog.as_secs(), shortest.as_secs());
        let bus = if settings.systemd_user { Bus::User } else { Bus::System };
        let host = Arc::new(host::Booted::new(bus)?);
        Keeper::on(host, machine, store, watchdog, &settings.keeper_dir(), &settings.run_dir)
    }

    /// A keeper on any host: `folder` goes when its process does, `run_dir` at the next boot.
    pub fn on(
        host: Arc<dyn Host>,
        machine: MachineId,
        store: Option<Store>,
        watchdog: Duration,
        folder: &Path,
        run_dir: &Path,
    ) -> anyhow::Result<Keeper> {
        for folder in [folder, run_dir] {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let lease_file = run_dir.join("keeper.json");
        Ok(Keeper { store, machine, watchdog, host, folder: folder.to_path_buf(), lease_file })
    }

    /// Registers, renews until the lease is lost (an error) or systemd ends it in good order.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut held = tokio::select! {
            biased; // the same order in each run of the simulator
            held = self.begin() => held?,
            () = self.host.terminated() => return Ok(()), // nothing was ever bound to this life
        };
        let pause = self.watchdog / RENEWALS;
        let (mut repeated, mut unanswered) = (Repeated::default(), Repeated::default());
        let mut wait = pause.saturating_sub(self.since(held.renewed));
        loop {
            tokio::select! {
                biased;
                () = self.host.terminated() => return self.end(&held).await,
                () = self.host.upgraded() => self.host.execute_anew().await,
                () = self.host.sleep(wait) => {}
            }
            let sent = self.host.since_boot();
            wait = match self.renew(&held).await {
                Ok(true) if self.since(sent) <= ANSWER => {
                    held.renewed = sent;
                    unanswered = Repeated::default(); // the next outage is told anew
                    // The life's file is there since the start. A full disk must not end what is fenced, the renewal counts.
                    if let Err(error) = self.tell(&held)
                        && let Some(problem) = repeated.fresh(format!("{error:#}"))
                    {
                        warn!("{problem}; the lease is renewed all the same, but `fleetctl status` shows an old time");
                    }
                    self.host.ping(false);
                    pause.saturating_sub(self.since(sent))
                }
                Ok(true) => RETRY, // an answer from so long ago says nothing of now
                Ok(false) => bail!("the lease is lost; what is fenced is stopped here, and may run elsewhere soon"),
                Err(error) => {
                    if let Some(problem) = unanswered.fresh(error.to_string()) {
                        warn!("{problem}; what is fenced here runs on for {} s unless it answers", self.left(&held).as_secs());
                    }
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
            let renewed = Duration::from_millis(state.sent_ms);
            return Ok(Held { life: state.life, lease: LeaseId(state.lease), renewed });
        }
        let held = match &self.store {
            Some(store) => self.register(store).await,
            None => Held { life: self.host.wall_ms() as i64, lease: LeaseId(0), renewed: self.host.since_boot() },
        };
        self.tell(&held)?;
        self.host.ping(true);
        Ok(held)
    }

    /// Tries until it is registered: what is fenced waits for that with its start.
    async fn register(&self, store: &Store) -> Held {
        let (mut lease, mut said) = (None, String::new());
        loop {
            let sent = self.host.since_boot();
            match self.try_register(store, &mut lease).await {
                Ok((life, lease)) if self.since(sent) <= ANSWER => {
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
            self.host.sleep(RETRY).await;
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
        let document = Document { v: FORMAT, boot_id: self.host.boot_id(), ..Document::default() };
        Ok((store.register_keeper(&self.machine, &document, &self.fence(), held).await?, held))
    }

    async fn renew(&self, held: &Held) -> Result<bool, StoreError> {
        let Some(store) = &self.store else { return Ok(true) };
        let late = || StoreError::Unavailable(format!("no answer within {ANSWER_MS} ms"));
        tokio::select! {
            biased;
            answer = store.keeper_lives(&self.machine, held.life, held.lease) => answer,
            () = self.host.sleep(ANSWER) => Err(late()),
        }
    }

    /// systemd ends the keeper. Everything that was bound to it was stopped before, unless the signal came from somebody else.
    async fn end(&self, held: &Held) -> anyhow::Result<()> {
        let unit = UnitName::trusted(UNIT);
        let stop = self.host.job_of(&unit).await?.is_some_and(|job| job == "stop");
        let bound = self.host.bound_to(&unit).await?;
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
        self.watchdog.saturating_sub(self.since(held.renewed))
    }

    fn since(&self, moment: Duration) -> Duration {
        self.host.since_boot().saturating_sub(moment)
    }

    /// The state first, the file that opens starts last.
    fn tell(&self, held: &Held) -> anyhow::Result<()> {
        let until_ms = self.host.wall_ms() + self.left(held).as_millis() as u64;
        let sent_ms = held.renewed.as_millis() as u64;
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
    /// When the last renewal that counts was sent, since the host's boot.
    renewed: Duration,
}
