//! This machine's presence in the store: a lease, the machine's record under it, and keeping both alive.
//!
//! The lease's id lies on disk, so a fleetd that restarts (or a machine that reboots within the lease) goes on with the record that it
//! had, and nobody sees it gone. A disk may be copied, so that id alone is no permission:
//!
//! - A restart in the same boot, which a file in `run_dir` proves, goes on with the lease at once.
//! - A reboot looks on first. If nobody renews the lease until it is about to end, the record is put under a new one.
//! - If somebody renews it, another fleetd lives with this machine's id. That one keeps its place; this one is refused, starts and stops
//!   nothing, and leaves a note (`rivals/<id>`) from which the other one learns of it. Both say what to do. When the other one has left, or
//!   the leader has given up on it, this one registers, with nothing assigned to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_core::model::{FORMAT, Machine, Rival};
use fleet_core::name::MachineId;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use crate::health::Health;
use crate::keeper;
use crate::store::kv::WatchEvent;
use crate::store::{LeaseId, Registered, Registration, Store, StoreError};

mod saved;
mod watched;

use saved::{Files, Left};
use watched::{Holder, Watched};

/// How long to wait before the store is tried again: short against any lease, long against its load.
const RETRY: Duration = Duration::from_millis(500);

/// How often a fleetd that was refused looks whether the other one has gone.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long to wait before the store is asked again who else has this machine's id.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// What a machine says of itself, and how long it may be silent.
#[derive(Debug, Clone, PartialEq)]
pub struct Presence {
    /// Its record.
    pub machine: Machine,
    /// The time of its lease.
    pub ttl: Duration,
}

/// Whether this machine's id is its own, by the store's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The store has not answered.
    NoAnswer,
    /// A record of the id is there, and whose it is will be known within seconds.
    Asked,
    /// It is, and this is the registration, unless there is none at the moment.
    Own(Option<Registration>),
    /// Another fleetd has it, and lives.
    Taken,
}

impl Standing {
    /// The present registration.
    pub fn registration(self) -> Option<Registration> {
        if let Standing::Own(registration) = self { registration } else { None }
    }

    /// Whether this machine may act by its id.
    pub fn is_own(self) -> bool {
        matches!(self, Standing::Own(_))
    }
}

/// How the machine stands, with a channel for each part that waits for it: they are woken in the
/// order in which they subscribed. Of one channel tokio wakes the waiters in a random order, and the
/// simulator's seeds would stand for no history.
struct Standings {
    now: Mutex<Standing>,
    told: Mutex<Vec<watch::Sender<Standing>>>,
}

impl Default for Standings {
    fn default() -> Standings {
        Standings { now: Mutex::new(Standing::NoAnswer), told: Mutex::default() }
    }
}

impl Standings {
    fn now(&self) -> Standing {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, standing: Standing) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = standing;
        for told in self.told.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            told.send_replace(standing);
        }
    }

    fn subscribe(&self) -> watch::Receiver<Standing> {
        let (sender, receiver) = watch::channel(self.now());
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
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
    /// `data_dir` must survive a reboot, `run_dir` must not; `ttl` is how long the machine may be silent before it is lost.
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
        Session { store, presence, files, health, standing, alone: false, guard_dir: None, known: Mutex::new(known) }
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

    /// Registers and stays registered. Drop the future to stop; the lease then runs on for its time (see [`leave`]).
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
            info!(lease = held.registration.lease.0, address = %machine.address, "registered machine {}", machine.id);
            self.stand(Standing::Own(Some(held.registration)));
            self.stay(held).await;
            warn!("the machine's lease ended (it was silent for {} s, or the store lost it); registering anew", ttl.as_secs());
            self.stand(Standing::Own(None));
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
                        info!(lease = registration.lease.0, "registered what has changed of this machine");
                        self.stand(Standing::Own(Some(registration)));
                        held = Held { registration, presence: wanted };
                    }
                    Err(StoreError::LeaseExpired) => return,
                    Err(error) => {
                        retry = true;
                        let now = format!("what has changed of this machine is not registered yet: {error}");
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
        // Both may be this machine's, whatever becomes of it now.
        self.own(Lease { id: lease, ttl: wanted.ttl }, Some(old.lease));
        let moved = self.store.change_lease(&wanted.machine, old, lease).await;
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
                    if self.standing.now() == Standing::NoAnswer {
                        self.stand(Standing::Asked);
                    }
                    (said.is_empty()).then(|| {
                        format!(
                            "a machine with the id {} is registered already, at {address}; looking for a few seconds whether it lives",
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
    async fn try_register(&self, trying: &mut Trying) -> Result<Result<Held, (Holder, String)>, StoreError> {
        let wanted = self.presence.borrow().clone();
        let there = self.store.registered(&wanted.machine.id).await?;
        let Some(there) = there else {
            trying.watched = None;
            if self.standing.now() == Standing::Taken && !self.store.is_given_up(&wanted.machine.id, self.own_keeper()).await? {
                // The one that lived was cut off, and what it runs may run on: nothing of that is begun here.
                return Ok(Err((Holder::Unknown, String::new())));
            }
            return self.begin(wanted, trying).await.map(Ok);
        };
        let lease = there.registration.lease;
        if self.known().own.contains(&lease) {
            return self.go_on(wanted, &there).await.map(Ok);
        }
        if !self.alone {
            let Some(left) = self.store.time_left(lease).await? else { return Err(StoreError::LeaseExpired) };
            let watched = trying.watched.take().filter(|watched| watched.lease == lease);
            let watched = trying.watched.insert(watched.unwrap_or_else(|| Watched::new(lease, &left)));
            let holder = watched.look(&left);
            let last_boot = self.known().claimed.contains(&lease) && self.standing.now() != Standing::Taken;
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
        let registration = self.store.register(&wanted.machine, lease.id).await?;
        Ok(Held { registration, presence: Presence { ttl: lease.ttl, ..wanted } })
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
        // An earlier fleetd's lease may have another time than this one's configuration says; `stay` sees to that.
        let noted = self.known().ttl.filter(|(lease, _)| *lease == id).map(|(_, ttl)| ttl);
        let ttl = match noted {
            Some(ttl) => ttl,
            None => self.store.time_left(id).await?.map_or(wanted.ttl, |left| left.granted),
        };
        let registration = self.store.register(&wanted.machine, id).await?;
        self.own(Lease { id, ttl }, None);
        Ok(Held { registration, presence: Presence { ttl, ..wanted } })
    }

    /// The last boot of this machine is. Its lease is not gone on with: whoever else may believe in it would not notice.
    async fn take_over(&self, wanted: Presence, there: &Registered, trying: &mut Trying) -> Result<Held, StoreError> {
        let lease = self.granted(&wanted, trying).await?;
        self.known().own.insert(lease.id);
        self.files.keep_for_this_boot(lease.id, lease.ttl.as_millis() as u64, None);
        let registration = self.store.take_over(&wanted.machine, there, lease.id).await?;
        self.own(lease, None);
        info!("going on with the registration of this machine's last boot");
        let _ = self.store.revoke(there.registration.lease).await; // it runs out by itself
        Ok(Held { registration, presence: Presence { ttl: lease.ttl, ..wanted } })
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

    /// Notes that the machine's record is, or is about to be, under this lease; `before` while it may be under that one still.
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

    /// Leaves word for the fleetd that has this machine's id, for as long as this one waits.
    async fn leave_note(&self, trying: &mut Trying) {
        let Presence { machine, ttl } = self.presence.borrow().clone();
        if trying.note.is_some_and(|(_, at)| at.elapsed() < ttl / 3) {
            return;
        }
        let noted = async {
            if let Some((lease, _)) = trying.note
                && self.store.keep_alive(lease).await?
            {
                return Ok(lease);
            }
            let lease = self.store.grant(ttl).await?;
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let rival = Rival { v: FORMAT, address: machine.address.clone(), host, ..Rival::default() };
            self.store.put_rival(&machine.id, &rival, lease).await.map(|()| lease)
        };
        match noted.await {
            Ok(lease) => trying.note = Some((lease, Instant::now())),
            Err::<_, StoreError>(error) => debug!("the other fleetd with this id is not told yet: {error}"),
        }
    }

    /// Says when another fleetd with this machine's id was refused.
    async fn hear_of_rivals<T>(&self) -> T {
        if self.alone {
            return std::future::pending().await;
        }
        let id = self.presence.borrow().machine.id.clone();
        let mut own = self.standing.subscribe();
        loop {
            let _ = own.wait_for(|standing| standing.is_own()).await;
            if let Err(problem) = self.follow_rivals(&id).await {
                debug!("looking again for others with this machine's id: {problem}");
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    async fn follow_rivals(&self, id: &MachineId) -> Result<(), StoreError> {
        let (rival, revision) = self.store.rival(id).await?;
        rival.iter().for_each(|rival| self.say(id, rival));
        let mut changes = self.store.watch_rival(id, revision).await?;
        while let Some(batch) = changes.recv().await {
            for event in batch?.events {
                if let WatchEvent::Put(kv) = event {
                    self.say(id, &self.store.read_rival(&kv)?);
                }
            }
        }
        Ok(())
    }

    fn say(&self, id: &MachineId, rival: &Rival) {
        if self.standing.now().is_own() {
            error!(
                "another fleetd with this machine's id {id} was started on {} at {}, and was refused; this one goes on. {}",
                rival.host, rival.address, REMEDY
            );
        }
    }

    /// Returns when the lease has ended. An unreachable store ends nothing: only its word that the lease is gone does.
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
                        if !silent && renewed.elapsed() >= ttl {
                            silent = true;
                            // fleet 1.0's words, which its operators look for.
                            error!("Server monitor triggered: Monitor timed out before successful heartbeat");
                        }
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }
}

/// What an operator does about two machines with one id.
const REMEDY: &str = "If that host is a copy of this one, or this one of it, give the copy an id of its own: \
                      rm /etc/machine-id; systemd-machine-id-setup; systemctl restart fleetd";

fn refusal(id: &MachineId, address: &str) -> String {
    format!(
        "another fleetd has this machine's id {id} and is alive, at {address}. This one is refused: it starts and stops nothing until the other \
         one is gone. {REMEDY}"
    )
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
        standing: watch::Receiver<Standing>,
    }

    impl Running {
        async fn start() -> Running {
            let folder = tempfile::tempdir().unwrap();
            let kv = EmbeddedKv::open(&folder.path().join("store.redb")).await.unwrap();
            Running::start_in(folder, Store::new(Arc::new(kv), "/fleet/"), Duration::from_secs(10))
        }

        fn start_in(folder: tempfile::TempDir, store: Store, ttl: Duration) -> Running {
            let folders = (folder.path(), folder.path());
            let session = Session::new(store.clone(), machine("10.0.0.1"), ttl, folders, Arc::default());
            let (presence, standing) = (session.presence(), session.standing());
            Running { folder, store, task: tokio::spawn(session.run()), presence, standing }
        }

        /// The registration once it is another than `old`.
        async fn after(&mut self, old: Option<Registration>) -> Registration {
            let new = self.standing.wait_for(|now| now.registration().is_some() && now.registration() != old);
            let new = tokio::time::timeout(Duration::from_secs(20), new).await.expect("a registration in time").unwrap();
            new.registration().unwrap()
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
        assert_eq!(running.standing.borrow().registration(), Some(first));
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
