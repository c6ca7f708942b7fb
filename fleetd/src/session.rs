//! This machine's presence in the store: a lease, the machine's record under it, and keeping both alive.
//!
//! The lease's id lies on disk, so a fleetd that restarts (or a machine that reboots within the lease) goes on with the lease that
//! it had, and nobody sees it gone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::model::Machine;
use fleet_core::name::MachineId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::health::Health;
use crate::store::{LeaseId, Registration, Store, StoreError};

/// How long to wait before the store is tried again: short against any lease, long against its load.
const RETRY: Duration = Duration::from_millis(500);

/// Keeps the machine registered until it is told to stop.
pub struct Session {
    store: Store,
    machine: Machine,
    ttl: Duration,
    state_file: PathBuf,
    health: Arc<Health>,
    registration: watch::Sender<Option<Registration>>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    lease: i64,
}

impl Session {
    /// `state_dir` must survive a reboot; `ttl` is how long the machine may be silent before it is lost.
    pub fn new(store: Store, machine: Machine, ttl: Duration, state_dir: &Path, health: Arc<Health>) -> Session {
        let state_file = state_dir.join("session.json");
        Session { store, machine, ttl, state_file, health, registration: watch::Sender::new(None) }
    }

    /// The present registration; `None` while there is none.
    pub fn registration(&self) -> watch::Receiver<Option<Registration>> {
        self.registration.subscribe()
    }

    /// Registers and stays registered. Drop the future to stop; the lease then runs on for its time (see [`leave`]).
    pub async fn run(self) {
        let mut lease = self.saved_lease();
        loop {
            let registration = self.register(lease.take()).await;
            info!(lease = registration.lease.0, address = %self.machine.address, "registered machine {}", self.machine.id);
            self.registration.send_replace(Some(registration));
            self.keep_alive(registration.lease).await;
            warn!(
                "the machine's lease ended (it was silent for {} s, or the store lost it); registering anew",
                self.ttl.as_secs()
            );
            self.registration.send_replace(None);
        }
    }

    async fn register(&self, mut lease: Option<LeaseId>) -> Registration {
        let mut said = String::new();
        loop {
            match self.try_register(&mut lease).await {
                Ok(registration) => {
                    self.health.reachable();
                    return registration;
                }
                Err(StoreError::LeaseExpired) => lease = None,
                Err(error) => {
                    if matches!(error, StoreError::Unavailable(_)) {
                        self.health.unreachable();
                    }
                    let now = match &error {
                        StoreError::Conflict(_) => format!(
                            "a machine with the id {} is registered already; waiting for its lease to end. If this goes on, two machines share an /etc/machine-id: give one a new id with systemd-machine-id-setup",
                            self.machine.id
                        ),
                        error => format!("cannot register yet: {error}"),
                    };
                    // The same trouble is said once, not twice a second.
                    if now != said {
                        warn!("{now}");
                        said = now;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn try_register(&self, lease: &mut Option<LeaseId>) -> Result<Registration, StoreError> {
        let held = match *lease {
            Some(held) if self.store.keep_alive(held).await? => held,
            _ => {
                let granted = self.store.grant(self.ttl).await?;
                *lease = Some(granted);
                self.save_lease(granted);
                granted
            }
        };
        self.store.register(&self.machine, held).await
    }

    /// Returns when the lease has ended. An unreachable store ends nothing: only its word that the lease is gone does.
    async fn keep_alive(&self, lease: LeaseId) {
        // Three tries fit into one lease time.
        let mut beat = interval(self.ttl / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            loop {
                match self.store.keep_alive(lease).await {
                    Ok(true) => break self.health.reachable(),
                    Ok(false) => return,
                    Err(error) => {
                        if self.health.settled_at_ms(Duration::ZERO).is_some() {
                            warn!("{error}; nothing that runs is stopped, trying again");
                        }
                        self.health.unreachable();
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    fn saved_lease(&self) -> Option<LeaseId> {
        let text = std::fs::read_to_string(&self.state_file).ok()?;
        serde_json::from_str::<Saved>(&text).ok().map(|saved| LeaseId(saved.lease))
    }

    fn save_lease(&self, lease: LeaseId) {
        let text = format!("{{\"lease\":{}}}\n", lease.0);
        if let Err(error) = crate::files::write_atomic(&self.state_file, text.as_bytes()) {
            warn!("cannot write {}: {error}; a restart of fleetd will wait for the old lease to end", self.state_file.display());
        }
    }
}

/// Ends this machine's presence at once: its units are then planned elsewhere.
pub async fn leave(store: &Store, machine: &MachineId, registration: Registration) {
    if let Err(error) = store.leave(machine, registration).await {
        warn!("cannot say goodbye: {error}");
    }
    if let Err(error) = store.revoke(registration.lease).await {
        warn!("cannot leave the cluster cleanly: {error}; the lease will run out by itself");
    }
}
