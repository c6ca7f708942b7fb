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

/// What a machine says of itself, and how long it may be silent.
#[derive(Debug, Clone, PartialEq)]
pub struct Presence {
    /// Its record.
    pub machine: Machine,
    /// The time of its lease.
    pub ttl: Duration,
}

/// Keeps the machine registered until it is told to stop.
pub struct Session {
    store: Store,
    presence: watch::Sender<Presence>,
    state_file: PathBuf,
    health: Arc<Health>,
    registration: watch::Sender<Option<Registration>>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    lease: i64,
    /// 0: written by a version that did not note it.
    #[serde(default)]
    ttl_ms: u64,
}

/// A lease and its time.
#[derive(Clone, Copy)]
struct Lease {
    id: LeaseId,
    ttl: Duration,
}

/// What the store knows of this machine.
struct Held {
    registration: Registration,
    presence: Presence,
}

impl Session {
    /// `state_dir` must survive a reboot; `ttl` is how long the machine may be silent before it is lost.
    pub fn new(store: Store, machine: Machine, ttl: Duration, state_dir: &Path, health: Arc<Health>) -> Session {
        let state_file = state_dir.join("session.json");
        let presence = watch::Sender::new(Presence { machine, ttl });
        Session { store, presence, state_file, health, registration: watch::Sender::new(None) }
    }

    /// Changes what is registered, without a break.
    pub fn presence(&self) -> watch::Sender<Presence> {
        self.presence.clone()
    }

    /// The present registration; `None` while there is none.
    pub fn registration(&self) -> watch::Receiver<Option<Registration>> {
        self.registration.subscribe()
    }

    /// Registers and stays registered. Drop the future to stop; the lease then runs on for its time (see [`leave`]).
    pub async fn run(self) {
        let mut lease = self.saved_lease();
        loop {
            let held = self.register(lease.take()).await;
            let Presence { machine, ttl } = held.presence.clone();
            info!(lease = held.registration.lease.0, address = %machine.address, "registered machine {}", machine.id);
            self.registration.send_replace(Some(held.registration));
            self.stay(held).await;
            warn!("the machine's lease ended (it was silent for {} s, or the store lost it); registering anew", ttl.as_secs());
            self.registration.send_replace(None);
        }
    }

    /// Returns when the lease has ended. Until then the store is told of every change of what this machine is.
    async fn stay(&self, mut held: Held) {
        let mut changes = self.presence.subscribe();
        let mut said = String::new();
        loop {
            let wanted = changes.borrow_and_update().clone();
            let mut retry = false;
            if wanted != held.presence {
                match self.update(&held, &wanted).await {
                    Ok(registration) => {
                        info!(lease = registration.lease.0, "registered what the configuration changed");
                        self.registration.send_replace(Some(registration));
                        held = Held { registration, presence: wanted };
                    }
                    Err(StoreError::LeaseExpired) => return,
                    Err(error) => {
                        retry = true;
                        let now = format!("what the configuration changed is not registered yet: {error}");
                        if now != said {
                            warn!("{now}");
                            said = now;
                        }
                    }
                }
            }
            tokio::select! {
                () = self.keep_alive(held.registration.lease, held.presence.ttl) => return,
                _ = changes.changed() => {}
                () = tokio::time::sleep(RETRY), if retry => {}
            }
        }
    }

    async fn update(&self, held: &Held, wanted: &Presence) -> Result<Registration, StoreError> {
        let old = held.registration;
        if wanted.ttl == held.presence.ttl {
            return self.store.register(&wanted.machine, old.lease).await;
        }
        // etcd cannot change a lease's time.
        let lease = self.store.grant(wanted.ttl).await?;
        let moved = self.store.change_lease(&wanted.machine, old, lease).await;
        if moved.is_ok() {
            self.save_lease(Lease { id: lease, ttl: wanted.ttl });
        }
        // Whichever of the two is not needed; a failure costs nothing, for it runs out by itself.
        let _ = self.store.revoke(if moved.is_ok() { old.lease } else { lease }).await;
        moved
    }

    async fn register(&self, mut lease: Option<Lease>) -> Held {
        let mut said = String::new();
        loop {
            match self.try_register(&mut lease).await {
                Ok(held) => {
                    self.health.reachable(self.store.led_anew(), held.presence.ttl);
                    return held;
                }
                Err(StoreError::LeaseExpired) => lease = None,
                Err(error) => {
                    if matches!(error, StoreError::Unavailable(_)) {
                        self.health.unreachable();
                    }
                    let now = match &error {
                        StoreError::Conflict(_) => format!(
                            "a machine with the id {} is registered already; waiting for its lease to end. If this goes on, two machines share an /etc/machine-id: give one a new id with systemd-machine-id-setup",
                            self.presence.borrow().machine.id
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

    async fn try_register(&self, lease: &mut Option<Lease>) -> Result<Held, StoreError> {
        let wanted = self.presence.borrow().clone();
        let held = match *lease {
            Some(held) if self.store.keep_alive(held.id).await? => held,
            _ => {
                let granted = Lease { id: self.store.grant(wanted.ttl).await?, ttl: wanted.ttl };
                *lease = Some(granted);
                self.save_lease(granted);
                granted
            }
        };
        let registration = self.store.register(&wanted.machine, held.id).await?;
        // An earlier fleetd's lease may have another time than this one's configuration says; `stay` sees to that.
        Ok(Held { registration, presence: Presence { ttl: held.ttl, ..wanted } })
    }

    /// Returns when the lease has ended. An unreachable store ends nothing: only its word that the lease is gone does.
    async fn keep_alive(&self, lease: LeaseId, ttl: Duration) {
        // Three tries fit into one lease time.
        let mut beat = interval(ttl / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            loop {
                match self.store.keep_alive(lease).await {
                    Ok(true) => {
                        if !self.health.is_reachable() {
                            // A renewal may be answered by a member that has not heard of an election yet; a read is not.
                            let _ = self.store.leader().await;
                        }
                        break self.health.reachable(self.store.led_anew(), ttl);
                    }
                    Ok(false) => return,
                    Err(error) => {
                        if self.health.is_reachable() {
                            warn!("{error}; nothing that runs is stopped, trying again");
                        }
                        self.health.unreachable();
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    fn saved_lease(&self) -> Option<Lease> {
        let text = std::fs::read_to_string(&self.state_file).ok()?;
        let saved: Saved = serde_json::from_str(&text).ok()?;
        Some(Lease { id: LeaseId(saved.lease), ttl: Duration::from_millis(saved.ttl_ms) })
            .map(|lease| if saved.ttl_ms == 0 { Lease { ttl: self.presence.borrow().ttl, ..lease } } else { lease })
    }

    fn save_lease(&self, lease: Lease) {
        let saved = Saved { lease: lease.id.0, ttl_ms: lease.ttl.as_millis() as u64 };
        let text = serde_json::to_string(&saved).unwrap_or_default() + "\n";
        if let Err(error) = crate::files::write_atomic(&self.state_file, text.as_bytes()) {
            warn!("cannot write {}: {error}; a restart of fleetd will wait for the old lease to end", self.state_file.display());
        }
    }
}

/// Ends this machine's presence at once: its units are then planned elsewhere. Whoever leaves stops them first, see [`crate::leave`].
pub async fn leave(store: &Store, machine: &MachineId, registration: Registration) {
    if let Err(error) = store.leave(machine, registration).await {
        warn!("cannot say goodbye: {error}");
    }
    if let Err(error) = store.revoke(registration.lease).await {
        warn!("cannot leave the cluster cleanly: {error}; the lease will run out by itself");
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::model::{FORMAT, Report};

    use super::*;
    use crate::store::embedded::EmbeddedKv;

    fn machine(address: &str) -> Machine {
        Machine {
            v: FORMAT,
            id: MachineId::new("0123456789abcdef0123456789abcdef"),
            address: address.to_string(),
            metadata: Default::default(),
            capacity: Default::default(),
            version: String::new(),
            boot_id: String::new(),
            api: None,
            unknown: Default::default(),
        }
    }

    struct Running {
        folder: tempfile::TempDir,
        store: Store,
        task: tokio::task::JoinHandle<()>,
        presence: watch::Sender<Presence>,
        registration: watch::Receiver<Option<Registration>>,
    }

    impl Running {
        async fn start() -> Running {
            let folder = tempfile::tempdir().unwrap();
            let kv = EmbeddedKv::open(&folder.path().join("store.redb")).await.unwrap();
            Running::start_in(folder, Store::new(Arc::new(kv), "/fleet/"), Duration::from_secs(10))
        }

        fn start_in(folder: tempfile::TempDir, store: Store, ttl: Duration) -> Running {
            let session = Session::new(store.clone(), machine("10.0.0.1"), ttl, folder.path(), Arc::default());
            let (presence, registration) = (session.presence(), session.registration());
            Running { folder, store, task: tokio::spawn(session.run()), presence, registration }
        }

        /// The registration once it is another than `old`.
        async fn after(&mut self, old: Option<Registration>) -> Registration {
            let new = self.registration.wait_for(|now| now.is_some() && *now != old);
            tokio::time::timeout(Duration::from_secs(20), new).await.expect("a registration in time").unwrap().unwrap()
        }

        async fn seen(&self) -> (String, bool) {
            let mirror = self.store.read_all().await.unwrap();
            let snapshot = &mirror.cluster().snapshot;
            let id = machine("").id;
            (snapshot.machines[&id].address.clone(), snapshot.reports.contains_key(&id))
        }
    }

    #[tokio::test]
    async fn a_new_address_is_registered_under_the_same_lease() {
        let mut running = Running::start().await;
        let first = running.after(None).await;
        let seen = running.store.read_all().await.unwrap().cluster().snapshot.revision;
        let mut changes = running.store.watch_all(seen).await.unwrap();
        running.presence.send_modify(|presence| presence.machine.address = "10.0.0.2".to_string());
        while running.seen().await.0 != "10.0.0.2" {
            changes.recv().await.unwrap().unwrap();
        }
        assert_eq!(*running.registration.borrow(), Some(first));
    }

    #[tokio::test]
    async fn a_new_ttl_is_a_new_lease_that_takes_the_report_along() {
        let mut running = Running::start().await;
        let first = running.after(None).await;
        let report = Report { v: FORMAT, ..Report::default() };
        running.store.put_report(&machine("").id, &report, first, 0).await.unwrap();
        running.presence.send_modify(|presence| presence.ttl = Duration::from_secs(20));
        let second = running.after(Some(first)).await;
        assert_eq!(second.create_revision, first.create_revision, "it never was away");
        assert_ne!(second.lease, first.lease);
        while running.store.keep_alive(first.lease).await.unwrap() {}
        assert_eq!(running.seen().await, ("10.0.0.1".to_string(), true));
    }

    #[tokio::test]
    async fn a_restart_goes_on_with_the_lease_unless_its_time_is_another() {
        let mut running = Running::start().await;
        let first = running.after(None).await;
        running.task.abort();
        let mut same = Running::start_in(running.folder, running.store, Duration::from_secs(10));
        assert_eq!(same.after(None).await, first);
        same.task.abort();
        let mut other = Running::start_in(same.folder, same.store, Duration::from_secs(20));
        let second = other.after(Some(first)).await;
        assert_eq!(second.create_revision, first.create_revision);
        assert_ne!(second.lease, first.lease);
    }
}
