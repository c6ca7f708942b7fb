//! The keeper of this machine's fenced units: it holds their lease in the store, and tells the
//! guard beside it of each renewal.
//!
//! What is fenced is bound to the guard (`BindsTo=`, `After=`), a process of its own that systemd's
//! watchdog watches: it answers each renewal with a ping, and ends when none came for as long as
//! the lease lasts. So the keeper may be killed, hung, upgraded or restarted: the next process
//! finds what the one before told the guard, and goes on with its lease. A lease that is lost is a
//! life that has ended: the keeper tells the guard, and registers another life only with another
//! guard. systemd starts that when it has stopped what was bound to the one before; what was ending
//! by itself then may take its own time, and does not start again under the next life.
//!
//! **Architecture invariant:** neither knows a unit's text or an assignment. The argument that they
//! carry is docs/fencing.md.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fleet_core::fence::ANSWER_MS;
use fleet_core::model::{FORMAT, Fence, Keeper as Document};
use fleet_core::name::{MachineId, UnitName};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::config::Settings;
use crate::process::files;
use crate::process::repeated::Repeated;
use crate::store::{LeaseId, Store, StoreError};
use crate::systemd::dbus::Bus;

mod guard;
mod host;

use guard::{Ended, GuardFile, Renewal, read_json, read_record, write_record};
pub use guard::{Guard, State, UNIT as GUARD_UNIT, life_file, read_state};
pub use host::Host;

/// The unit that the keeper runs as.
pub const UNIT: &str = "fleet-keeper.service";

/// How long to wait before the store is tried again: short against the watchdog, long against the
/// store's load.
const RETRY: Duration = Duration::from_millis(400);

/// A renewal that was sent longer ago than this is none: the guard pings no later.
const ANSWER: Duration = Duration::from_millis(ANSWER_MS);

/// An answer that took longer does not count: the guard is to hear of it in time.
const IN_TIME: Duration = Duration::from_millis(ANSWER_MS - 2 * LOOK.as_millis() as u64);

/// How long one endpoint of the store may take with one request. A renewal is two, and an endpoint
/// that hangs must have been left for the next one in time for several renewals.
pub const REQUEST: Duration = Duration::from_millis(ANSWER_MS / 2);

/// Renewals fit into one time of the guard's watchdog this often: a store that elects a leader may
/// miss two.
const RENEWALS: u32 = 4;

/// How often files of the process beside are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The keeper's own watchdog is told so often that it lives.
const PING: Duration = Duration::from_secs(1);

/// How long to wait for a guard; this keeper's end and restart start one.
const GUARD_PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for what systemd says of this process's end.
const BUS_PATIENCE: Duration = Duration::from_secs(1);

/// So long a keeper that is stopped for good waits for what was fenced to stop.
const LAST_WAIT: Duration = Duration::from_secs(8);

/// A keeper that is starting.
pub struct Keeper {
    store: Option<Store>,
    machine: MachineId,
    host: Arc<dyn Host>,
    guard_dir: PathBuf,
    /// What the guard is told, and what the next keeper goes on with.
    renewals: PathBuf,
    /// Where an earlier life of this boot left its lease.
    lease_file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    lease: i64,
    /// The boot and the machine that it is of; none where a version wrote it that did not note
    /// them. A file that came along with a copied disk names a lease that somebody else may hold.
    #[serde(default)]
    boot_id: Option<String>,
    #[serde(default)]
    machine: Option<MachineId>,
}

impl Keeper {
    /// The keeper of the host that this runs on. `store` is none where the embedded store makes
    /// this machine the whole cluster.
    pub fn new(
        settings: &Settings,
        machine: MachineId,
        store: Option<Store>,
    ) -> anyhow::Result<Keeper> {
        let bus = if settings.systemd_user { Bus::User } else { Bus::System };
        let host = Arc::new(host::Booted::new(bus)?);
        Keeper::on(host, machine, store, &settings.guard_dir(), &settings.run_dir)
    }

    /// A keeper on any host: the guard's folder goes when its process does, `run_dir` at the next
    /// boot.
    pub fn on(
        host: Arc<dyn Host>,
        machine: MachineId,
        store: Option<Store>,
        guard_dir: &Path,
        run_dir: &Path,
    ) -> anyhow::Result<Keeper> {
        files::public_folder(run_dir)
            .with_context(|| format!("cannot create {}", run_dir.display()))?;
        let (renewals, lease_file) = (guard::renewals_file(run_dir), run_dir.join("keeper.json"));
        Ok(Keeper {
            store,
            machine,
            host,
            guard_dir: guard_dir.to_path_buf(),
            renewals,
            lease_file,
        })
    }

    /// Registers, renews until the lease is lost (an error) or systemd ends it in good order.
    pub async fn run(self) -> anyhow::Result<()> {
        self.host.ping(true);
        tokio::select! {
            biased; // the same order in each run of the simulator
            ended = self.hold() => ended,
            never = self.ping_on() => never,
        }
    }

    /// Tells systemd's watchdog of a process that hangs. What is fenced does not hang on this.
    async fn ping_on<T>(&self) -> T {
        loop {
            self.host.sleep(PING).await;
            self.host.ping(false);
        }
    }

    async fn hold(&self) -> anyhow::Result<()> {
        let mut held = tokio::select! {
            biased;
            held = self.begin() => held?,
            () = self.host.terminated() => return self.end(None).await,
        };
        let pause = held.watchdog / RENEWALS;
        let (mut repeated, mut unanswered) = (Repeated::default(), Repeated::default());
        let mut wait = pause.saturating_sub(self.since(held.renewed));
        loop {
            tokio::select! {
                biased;
                () = self.host.terminated() => return self.end(Some(&held)).await,
                () = self.host.sleep(wait) => {}
            }
            self.check_guard(held.guard)?;
            let sent = self.host.since_boot();
            wait = match self.renew(&held).await {
                Ok(true) if self.since(sent) <= IN_TIME => {
                    held.renewed = sent;
                    unanswered = Repeated::default(); // the next outage is told anew
                    if let Err(error) = self.tell(&held, None)
                        && let Some(problem) = repeated.fresh(format!("{error:#}"))
                    {
                        warn!(
                            "{problem}; what is fenced here is stopped in {} s unless it can be \
                                written",
                            held.watchdog.as_secs()
                        );
                    }
                    pause.saturating_sub(self.since(sent))
                }
                Ok(true) => RETRY, // an answer from so long ago says nothing of now
                Ok(false) => {
                    let _ = self.tell(&held, Some(Ended::Lost)); // if this fails, the guard waits for its time
                    bail!(
                        "the lease is lost; what is fenced is stopped here, and may run elsewhere \
                            soon"
                    );
                }
                Err(error) => {
                    if let Some(problem) = unanswered.fresh(error.to_string()) {
                        warn!(
                            "{problem}; what is fenced here runs on for {} s unless it answers",
                            self.left(&held).as_secs()
                        );
                    }
                    RETRY
                }
            };
            if self.left(&held).is_zero() {
                let _ = self.tell(&held, Some(Ended::Lost));
                bail!(
                    "the lease could not be renewed for {} s; what is fenced is stopped here",
                    held.watchdog.as_secs()
                );
            }
        }
    }

    async fn begin(&self) -> anyhow::Result<Held> {
        let began = self.host.since_boot();
        let guard = loop {
            ensure!(
                self.since(began) < GUARD_PATIENCE,
                "{GUARD_UNIT} has not come up; beginning anew"
            );
            match (self.guard(), self.told()) {
                (Some(guard), Some(told)) if told.guard == guard.number => {
                    if told.ended.is_none() && told.alone == self.store.is_none() {
                        info!(life = told.life, "going on with the lease of the keeper before");
                        let renewed = Duration::from_millis(told.sent_ms);
                        let (guard, watchdog) = (guard.number, guard.watchdog());
                        return Ok(Held {
                            guard,
                            watchdog,
                            life: told.life,
                            lease: LeaseId(told.lease),
                            renewed,
                        });
                    }
                    if told.ended.is_none() {
                        write_record(
                            &self.renewals,
                            &Renewal { ended: Some(Ended::Lost), ..told },
                        )?; // another kind of store
                    }
                }
                (Some(guard), _) => break guard,
                (None, _) => {}
            }
            self.host.sleep(LOOK).await;
        };
        let held = match &self.store {
            Some(store) => self.register(store, &guard).await?,
            None => {
                let (life, renewed) = (self.host.wall_ms() as i64, self.host.since_boot());
                Held {
                    guard: guard.number,
                    watchdog: guard.watchdog(),
                    life,
                    lease: LeaseId(0),
                    renewed,
                }
            }
        };
        self.tell(&held, None)?;
        Ok(held)
    }

    /// Tries until it is registered: what is fenced waits for that with its start.
    async fn register(&self, store: &Store, guard: &GuardFile) -> anyhow::Result<Held> {
        let (mut lease, mut said) = (None, String::new());
        loop {
            self.check_guard(guard.number)?;
            let sent = self.host.since_boot();
            match self.try_register(store, guard.watchdog(), &mut lease).await {
                Ok((life, lease)) if self.since(sent) <= IN_TIME => {
                    info!(life, "the keeper of machine {} holds its lease", self.machine);
                    return Ok(Held {
                        guard: guard.number,
                        watchdog: guard.watchdog(),
                        life,
                        lease,
                        renewed: sent,
                    });
                }
                Ok(_) => {}
                Err(StoreError::LeaseExpired) => lease = None,
                Err(error) => {
                    let now = match error {
                        StoreError::Conflict(_) => {
                            "the lease of this machine's last boot has not run out yet; waiting \
                            for that. If this goes on, another machine has this one's \
                            /etc/machine-id: the journal of fleetd says what to do"
                                .to_string()
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

    async fn try_register(
        &self,
        store: &Store,
        watchdog: Duration,
        lease: &mut Option<LeaseId>,
    ) -> Result<(i64, LeaseId), StoreError> {
        // Nothing that was bound to an earlier life runs on or starts again: its guard is gone.
        if let Some(old) = self.saved_lease().filter(|old| *lease != Some(*old)) {
            store.revoke(old).await?;
        }
        let held = match *lease {
            Some(held) if store.keep_alive(held).await? => held,
            _ => {
                let granted = store.grant(watchdog).await?;
                *lease = Some(granted);
                granted
            }
        };
        self.save_lease(held);
        let document = Document { v: FORMAT, boot_id: self.host.boot_id(), ..Document::default() };
        Ok((store.register_keeper(&self.machine, &document, &fence(watchdog), held).await?, held))
    }

    async fn renew(&self, held: &Held) -> Result<bool, StoreError> {
        let Some(store) = &self.store else { return Ok(true) };
        let late =
            || StoreError::Unavailable(format!("no answer within {} ms", IN_TIME.as_millis()));
        tokio::select! {
            biased;
            answer = store.keeper_lives(&self.machine, held.life, held.lease) => answer,
            () = self.host.sleep(IN_TIME) => Err(late()),
        }
    }

    /// systemd ends the keeper. Only a stop is for good: after anything else the next process goes
    /// on with the lease.
    async fn end(&self, held: Option<&Held>) -> anyhow::Result<()> {
        // A bus that hangs must not use up the time in which the next keeper renews.
        let unit = UnitName::trusted(UNIT);
        let job = tokio::select! {
            biased;
            job = self.host.job_of(&unit) => job.unwrap_or_else(|error| { warn!("{error}"); None }),
            () = self.host.sleep(BUS_PATIENCE) => None,
        };
        if job.is_none_or(|job| job != "stop") {
            info!("ending; the next keeper goes on with the lease");
            return Ok(());
        }
        // Without a life of its own the guard has nothing bound to it; it ends all the same.
        match held {
            Some(held) => self.tell(held, Some(Ended::Stopped))?,
            None => self.dismiss()?,
        }
        let deadline = self.host.since_boot() + LAST_WAIT;
        let alive = loop {
            let alive = self.alive().await;
            if alive.is_none() || self.host.since_boot() >= deadline {
                break alive;
            }
            self.host.sleep(LOOK).await;
        };
        match (&self.store, held, alive) {
            (_, _, Some(alive)) => {
                info!("ending with the lease left to run out; {alive} still runs")
            }
            (Some(store), Some(held), None) => {
                match store
                    .release_keeper(&self.machine, held.life, &fence(held.watchdog), held.lease)
                    .await
                {
                    Ok(()) => {
                        info!("all that was fenced here is stopped; it may run elsewhere at once")
                    }
                    Err(error) => warn!(
                        "cannot say that all is stopped here: {error}; the lease runs out by itself"
                    ),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whoever of the guard and what is bound to it has not ended. The guard is asked first: while
    /// it is there, a unit may still start.
    async fn alive(&self) -> Option<String> {
        if guard::guard_file(&self.guard_dir).exists() {
            return Some(GUARD_UNIT.to_string());
        }
        match self.host.bound_to(&UnitName::trusted(GUARD_UNIT)).await {
            Ok(bound) => bound
                .into_iter()
                .find(|(_, active)| !["inactive", "failed"].contains(&active.as_str()))
                .map(|(name, _)| name),
            Err(error) => Some(format!("something ({error})")),
        }
    }

    /// Tells a guard that has no life yet to end.
    fn dismiss(&self) -> anyhow::Result<()> {
        let Some(guard) = self.guard() else { return Ok(()) };
        let told = Renewal {
            guard: guard.number,
            life: 0,
            alone: self.store.is_none(),
            lease: 0,
            sent_ms: 0,
            ended: Some(Ended::Stopped),
        };
        write_record(&self.renewals, &told)
    }

    fn check_guard(&self, number: u64) -> anyhow::Result<()> {
        let there = self.guard().is_some_and(|guard| guard.number == number);
        ensure!(there, "the guard has ended, and with it what was fenced here; beginning anew");
        Ok(())
    }

    fn guard(&self) -> Option<GuardFile> {
        read_json(&guard::guard_file(&self.guard_dir))
    }

    fn told(&self) -> Option<Renewal> {
        read_record(&self.renewals)
    }

    fn left(&self, held: &Held) -> Duration {
        held.watchdog.saturating_sub(self.since(held.renewed))
    }

    fn since(&self, moment: Duration) -> Duration {
        self.host.since_boot().saturating_sub(moment)
    }

    /// Tells the guard, and whoever is the keeper next.
    fn tell(&self, held: &Held, ended: Option<Ended>) -> anyhow::Result<()> {
        let Held { guard, life, lease, renewed, .. } = held;
        let (alone, sent_ms) = (self.store.is_none(), renewed.as_millis() as u64);
        write_record(
            &self.renewals,
            &Renewal { guard: *guard, life: *life, alone, lease: lease.0, sent_ms, ended },
        )
    }

    /// The lease of an earlier life in this boot of this machine.
    fn saved_lease(&self) -> Option<LeaseId> {
        let Saved { lease, boot_id, machine } =
            serde_json::from_slice(&std::fs::read(&self.lease_file).ok()?).ok()?;
        let ours = boot_id.is_none_or(|boot_id| boot_id == self.host.boot_id())
            && machine.is_none_or(|machine| machine == self.machine);
        ours.then_some(LeaseId(lease))
    }

    fn save_lease(&self, lease: LeaseId) {
        let saved = Saved {
            lease: lease.0,
            boot_id: Some(self.host.boot_id()),
            machine: Some(self.machine.clone()),
        };
        let text = serde_json::to_string(&saved).unwrap_or_default() + "\n";
        let written = files::create(&self.lease_file, files::PRIVATE)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            warn!(
                "cannot write {}: {error}; after a crash the next keeper waits for this lease to \
                    run out",
                self.lease_file.display()
            );
        }
    }
}

/// A lease that is held.
struct Held {
    /// The guard that goes by it, and after how long without a renewal that ends.
    guard: u64,
    watchdog: Duration,
    life: i64,
    lease: LeaseId,
    /// When the last renewal that counts was sent, since the host's boot.
    renewed: Duration,
}

fn fence(watchdog: Duration) -> Fence {
    Fence { v: FORMAT, watchdog_ms: watchdog.as_millis() as u64, ..Fence::default() }
}
