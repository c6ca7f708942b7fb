//! This machine's presence in the store: a lease, the machine's record under it, and keeping both
//! alive.
//!
//! The lease's id lies on disk, so a fleetd that restarts (or a machine that reboots within the
//! lease) goes on with the record that it had, and nobody sees it gone. A disk may be copied, so
//! that id alone is no permission:
//!
//! - A restart in the same boot, which a file in `run_dir` proves, goes on with the lease at once.
//! - A reboot looks on first. If nobody renews the lease until it is about to end, the record is
//!   put under a new one.
//! - If somebody renews it, another fleetd lives with this machine's id. That one keeps its place;
//!   this one is refused, starts and stops nothing, and leaves a note (`rivals/<id>`) from which
//!   the other one learns of it. Both say what to do. When the other one has left, or the leader
//!   has given up on it, this one registers. Where nobody leads, it may do so: somebody must give
//!   up on the other one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_core::model::Machine;
use fleet_core::name::MachineId;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use crate::keeper;
use crate::machine::health::Health;
use crate::process::clock;
use crate::store::{LeaseId, Registered, Registration, Store, StoreError};

mod rivals;
mod saved;
mod standing;
mod watched;

use rivals::refusal;
use saved::{Files, Left};
pub use standing::Standing;
use standing::Standings;
use watched::{Holder, Watched};

/// How long to wait before the store is tried again: short against any lease, long against its
/// load.
const RETRY: Duration = Duration::from_millis(500);

/// How often a fleetd that was refused looks whether the other one has gone.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What a machine says of itself, and how long it may be silent.
#[derive(Debug, Clone, PartialEq)]
pub struct Presence {
    /// Its record.
    pub machine: Machine,
    /// The time of its lease.
    pub ttl: Duration,
}

impl Presence {
    /// The record of a machine that has been registered since then.
    fn record(&self, since_ms: u64) -> Machine {
        Machine { since_ms, ..self.machine.clone() }
    }
}

/// Keeps the machine registered until it is told to stop.
pub struct Session {
    store: Store,
    presence: watch::Sender<Presence>,
    files: Files,
    health: Arc<Health>,
    standing: Standings,
    /// Whether this machine alone has the store open: then nobody else can hold anything in it.
    alone: bool,
    /// Where the guard of this host's keeper says how it stands.
    guard_dir: Option<PathBuf>,
    known: Mutex<Known>,
}

/// The leases that the machine's record may be under.
#[derive(Default)]
struct Known {
    /// Those of this boot.
    own: BTreeSet<LeaseId>,
    /// Those of the last boot, or of the machine that this disk was copied from.
    claimed: BTreeSet<LeaseId>,
    /// The time that an earlier fleetd wanted of the last one.
    ttl: Option<(LeaseId, Duration)>,
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
    /// Since when it has been registered, in milliseconds since 1970.
    since_ms: u64,
}

/// What goes on from one try to register to the next.
#[derive(Default)]
struct Trying {
    /// A lease that was granted for it.
    granted: Option<Lease>,
    /// The lease of somebody else that the record is under.
    watched: Option<Watched>,
    /// The note that this one was refused: its lease, and when that was renewed.
    note: Option<(LeaseId, Instant)>,
}

impl Session {
    /// `data_dir` must survive a reboot, `run_dir` must not; `ttl` is how long the machine may be
    /// silent before it is lost.
    pub fn new(
        store: Store,
        machine: Machine,
        ttl: Duration,
        (data_dir, run_dir): (&Path, &Path),
        health: Arc<Health>,
    ) -> Session {
        let files = Files::of(&machine, data_dir, run_dir);
        let Left { own, claimed, ttl_ms } = files.open();
        let known = Known {
            own: own.into_iter().collect(),
            claimed: claimed.into_iter().collect(),
            ttl: ttl_ms.map(|(lease, ms)| (lease, Duration::from_millis(ms))),
        };
        let presence = watch::Sender::new(Presence { machine, ttl });
        let standing = Standings::default();
        Session {
            store,
            presence,
            files,
            health,
            standing,
            alone: false,
            guard_dir: None,
            known: Mutex::new(known),
        }
    }

    /// For a store that this machine alone has open: nobody else can hold its record.
    #[must_use]
    pub fn alone(self, alone: bool) -> Session {
        Session { alone, ..self }
    }

    /// With the folder in which the guard of this host's keeper says how it stands.
    #[must_use]
    pub fn with_guard(self, guard_dir: PathBuf) -> Session {
        Session { guard_dir: Some(guard_dir), ..self }
    }

    /// The life of this host's keeper, if it has the machine's place.
    fn own_keeper(&self) -> Option<i64> {
        self.guard_dir.as_deref().and_then(keeper::read_state).map(|state| state.life)
    }

    /// Changes what is registered, without a break.
    pub fn presence(&self) -> watch::Sender<Presence> {
        self.presence.clone()
    }

    /// Whether the machine's id is its own, and its registration. Each part that waits for it asks
    /// for a receiver of its own, see `Standings`.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Registers and stays registered. Drop the future to stop; the lease then runs on for its time
    /// (see [`leave`]).
    pub async fn run(self) {
        tokio::select! {
            biased; // the same order in each run of the simulator
            never = self.be_registered() => never,
            never = self.hear_of_rivals() => never,
        }
    }

    async fn be_registered<T>(&self) -> T {
        loop {
            let held = self.register().await;
            let Presence { machine, ttl } = held.presence.clone();
            info!(lease = held.registration.lease.0, address = %machine.address, "registered \
                machine {}", machine.id);
            self.stand(Standing::Own(Some(held.registration)));
            self.stay(held).await;
            warn!(
                "the machine's lease ended (it was silent for {} s, or the store lost it); \
                    registering anew",
                ttl.as_secs()
            );
            self.stand(Standing::Own(None));
        }
    }

    /// Returns when the lease has ended. Until then the store is told of every change of what this
    /// machine is.
    async fn stay(&self, mut held: Held) {
        let mut changes = self.presence.subscribe();
        let mut said = String::new();
        loop {
            let wanted = changes.borrow_and_update().clone();
            let mut retry = false;
            if wanted != held.presence {
                match self.update(&held, &wanted).await {
                    Ok(registration) => {
                        info!(
                            lease = registration.lease.0,
                            "registered what has changed of this machine"
                        );
                        self.stand(Standing::Own(Some(registration)));
                        held = Held { registration, presence: wanted, ..held };
                    }
                    Err(StoreError::LeaseExpired) => return,
                    Err(error) => {
                        retry = true;
                        let now = format!(
                            "what has changed of this machine is not registered yet: {error}"
                        );
                        if now != said {
                            warn!("{now}");
                            said = now;
                        }
                    }
                }
            }
            tokio::select! {
                biased; // the same order in each run of the simulator
                () = self.keep_alive(held.registration.lease, held.presence.ttl) => return,
                _ = changes.changed() => {}
                () = tokio::time::sleep(RETRY), if retry => {}
            }
        }
    }

    async fn update(&self, held: &Held, wanted: &Presence) -> Result<Registration, StoreError> {
        let old = held.registration;
        let record = wanted.record(held.since_ms);
        if wanted.ttl == held.presence.ttl {
            return self.store.register(&record, old.lease).await;
        }
        // etcd cannot change a lease's time.
        let lease = self.store.grant(wanted.ttl).await?;
        // Both may be this machine's, whatever becomes of it now.
        self.own(Lease { id: lease, ttl: wanted.ttl }, Some(old.lease));
        let moved = self.store.change_lease(&record, old, lease).await;
        match &moved {
            Ok(_) => self.own(Lease { id: lease, ttl: wanted.ttl }, None),
            Err(_) => self.own(Lease { id: old.lease, ttl: held.presence.ttl }, None),
        }
        // Whichever of the two is not needed; a failure costs nothing, for it runs out by itself.
        let _ = self.store.revoke(if moved.is_ok() { old.lease } else { lease }).await;
        moved
    }

    async fn register(&self) -> Held {
        let mut trying = Trying::default();
        let mut said = String::new();
        loop {
            let mut pause = RETRY;
            let now = match self.try_register(&mut trying).await {
                Ok(Ok(held)) => {
                    self.health.reachable(self.store.led_anew(), held.presence.ttl);
                    if let Some((note, _)) = trying.note {
                        let _ = self.store.revoke(note).await; // it runs out by itself
                    }
                    return held;
                }
                Ok(Err((Holder::Lives, address))) => {
                    self.health.reachable(self.store.led_anew(), self.presence.borrow().ttl);
                    self.stand(Standing::Taken);
                    self.leave_note(&mut trying).await;
                    pause = LOOK_AGAIN.min(self.presence.borrow().ttl / 3);
                    let said_now = refusal(&self.presence.borrow().machine.id, &address);
                    if said_now != said {
                        error!("{said_now}");
                        said = said_now;
                    }
                    None
                }
                Ok(Err((_, address))) => {
                    self.health.reachable(self.store.led_anew(), self.presence.borrow().ttl);
                    if self.standing.now() == Standing::NoAnswer {
                        self.stand(Standing::Asked);
                    }
                    (said.is_empty()).then(|| {
                        format!(
                            "a machine with the id {} is registered already, at {address}; \
                                looking for a few seconds whether it lives",
                            self.presence.borrow().machine.id
                        )
                    })
                }
                Err(StoreError::LeaseExpired) => {
                    trying.granted = None;
                    None
                }
                // Somebody else wrote in between: who that was is looked at next.
                Err(StoreError::Conflict(key)) => {
                    debug!("looking again: {key} changed");
                    None
                }
                Err(error) => {
                    if matches!(error, StoreError::Unavailable(_)) {
                        self.health.unreachable();
                        // A store that was away says nothing of who renewed a lease meanwhile.
                        trying.watched = None;
                        if self.standing.now() == Standing::Asked {
                            self.stand(Standing::NoAnswer);
                        }
                    }
                    Some(format!("cannot register yet: {error}"))
                }
            };
            // The same trouble is said once, not twice a second.
            if let Some(now) = now.filter(|now| *now != said) {
                warn!("{now}");
                said = now;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The registration; or, where somebody else has the id, what is known of it, and its address.
    async fn try_register(
        &self,
        trying: &mut Trying,
    ) -> Result<Result<Held, (Holder, String)>, StoreError> {
        let wanted = self.presence.borrow().clone();
        let there = self.store.registered(&wanted.machine.id).await?;
        let Some(there) = there else {
            trying.watched = None;
            if self.standing.now().is_refused()
                && !self.store.is_given_up(&wanted.machine.id, self.own_keeper()).await?
            {
                if self.standing.now() == Standing::Taken {
                    info!(
                        "the other fleetd with this machine's id is gone; waiting until the \
                            leader has given up on it"
                    );
                    self.stand(Standing::Vacant);
                }
                return Ok(Err((Holder::Unknown, String::new())));
            }
            return self.begin(wanted, trying).await.map(Ok);
        };
        let lease = there.registration.lease;
        if self.known().own.contains(&lease) {
            return self.go_on(wanted, &there).await.map(Ok);
        }
        if self.standing.now() == Standing::Vacant {
            self.stand(Standing::Taken); // it is back
        }
        if !self.alone {
            let Some(left) = self.store.time_left(lease).await? else {
                return Err(StoreError::LeaseExpired);
            };
            let watched = trying.watched.take().filter(|watched| watched.lease == lease);
            let watched =
                trying.watched.insert(watched.unwrap_or_else(|| Watched::new(lease, &left)));
            let holder = watched.look(&left);
            let last_boot =
                self.known().claimed.contains(&lease) && !self.standing.now().is_refused();
            if holder != Holder::Silent || !last_boot {
                return Ok(Err((holder, there.address)));
            }
        }
        self.take_over(wanted, &there, trying).await.map(Ok)
    }

    /// Nobody is registered by this id.
    async fn begin(&self, wanted: Presence, trying: &mut Trying) -> Result<Held, StoreError> {
        let begun = self.begin_anew(wanted, trying).await;
        if let Err(StoreError::Refused(_) | StoreError::TooLarge { .. }) = begun
            && !self.standing.now().is_own()
        {
            self.stand(Standing::Own(None)); // nobody has it, and a store that takes no writes keeps nothing from running
        }
        begun
    }

    async fn begin_anew(&self, wanted: Presence, trying: &mut Trying) -> Result<Held, StoreError> {
        let lease = self.granted(&wanted, trying).await?;
        self.own(lease, None);
        let since_ms = clock::now_ms();
        let registration = self.store.register(&wanted.record(since_ms), lease.id).await?;
        Ok(Held { registration, presence: Presence { ttl: lease.ttl, ..wanted }, since_ms })
    }

    /// This boot of this machine is.
    async fn go_on(&self, wanted: Presence, there: &Registered) -> Result<Held, StoreError> {
        if !self.standing.now().is_own() {
            self.stand(Standing::Own(None));
        }
        let id = there.registration.lease;
        if !self.store.keep_alive(id).await? {
            return Err(StoreError::LeaseExpired);
        }
        // An earlier fleetd's lease may have another time than this one's configuration says;
        // `stay` sees to that.
        let noted = self.known().ttl.filter(|(lease, _)| *lease == id).map(|(_, ttl)| ttl);
        let ttl = match noted {
            Some(ttl) => ttl,
            None => self.store.time_left(id).await?.map_or(wanted.ttl, |left| left.granted),
        };
        let since_ms = registered_since(there);
        let registration = self.store.register(&wanted.record(since_ms), id).await?;
        self.own(Lease { id, ttl }, None);
        Ok(Held { registration, presence: Presence { ttl, ..wanted }, since_ms })
    }

    /// The last boot of this machine is. Its lease is not gone on with: whoever else may believe in
    /// it would not notice.
    async fn take_over(
        &self,
        wanted: Presence,
        there: &Registered,
        trying: &mut Trying,
    ) -> Result<Held, StoreError> {
        let lease = self.granted(&wanted, trying).await?;
        self.known().own.insert(lease.id);
        self.files.keep_for_this_boot(lease.id, lease.ttl.as_millis() as u64, None);
        let since_ms = registered_since(there);
        let record = wanted.record(since_ms);
        let registration = self.store.take_over(&record, there, lease.id).await?;
        self.own(lease, None);
        info!("going on with the registration of this machine's last boot");
        let _ = self.store.revoke(there.registration.lease).await; // it runs out by itself
        Ok(Held { registration, presence: Presence { ttl: lease.ttl, ..wanted }, since_ms })
    }

    async fn granted(&self, wanted: &Presence, trying: &mut Trying) -> Result<Lease, StoreError> {
        if let Some(lease) = trying.granted
            && self.store.keep_alive(lease.id).await?
        {
            return Ok(lease);
        }
        let granted = Lease { id: self.store.grant(wanted.ttl).await?, ttl: wanted.ttl };
        trying.granted = Some(granted);
        Ok(granted)
    }

    /// Notes that the machine's record is, or is about to be, under this lease; `before` while it
    /// may be under that one still.
    fn own(&self, lease: Lease, before: Option<LeaseId>) {
        self.known().own.insert(lease.id);
        self.files.keep(lease.id, lease.ttl.as_millis() as u64, before);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner) // a panic leaves no half of it
    }

    fn stand(&self, standing: Standing) {
        self.standing.tell(standing);
    }

    /// Returns when the lease has ended. An unreachable store ends nothing: only its word that the
    /// lease is gone does.
    async fn keep_alive(&self, lease: LeaseId, ttl: Duration) {
        // Three tries fit into one lease time.
        let mut beat = interval(ttl / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut renewed, mut silent) = (Instant::now(), false);
        loop {
            beat.tick().await;
            loop {
                match self.store.keep_alive(lease).await {
                    Ok(true) => {
                        (renewed, silent) = (Instant::now(), false);
                        if !self.health.is_reachable() {
                            // A renewal may be answered by a member that has not heard of an
                            // election yet; a read is not.
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
                        if !silent && renewed.elapsed() >= ttl {
                            silent = true;
                            // fleet 1.0's words, which its operators look for.
                            error!(
                                "Server monitor triggered: Monitor timed out before successful \
                                    heartbeat"
                            );
                        }
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }
}

/// Since when a machine has been registered that goes on with its record; from now on if an older
/// version wrote it.
fn registered_since(there: &Registered) -> u64 {
    if there.since_ms == 0 { clock::now_ms() } else { there.since_ms }
}

/// Ends this machine's presence at once: its units are then planned elsewhere. Whoever leaves stops
/// them first, see [`crate::leave`].
pub async fn leave(store: &Store, machine: &MachineId, registration: Registration) {
    if let Err(error) = store.leave(machine, registration).await {
        warn!("cannot say goodbye: {error}");
    }
    if let Err(error) = store.revoke(registration.lease).await {
        warn!("cannot leave the cluster cleanly: {error}; the lease will run out by itself");
    }
}

#[cfg(test)]
mod tests;
