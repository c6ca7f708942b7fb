//! A model of etcd: revisions, transactions, leases, watches, compaction and changes of its leader,
//! in tokio's time.
//!
//! It keeps the contract of `fleetd::store::kv` (the conformance suite runs on it). Absent:
//! members, disks, authentication. What lies between a machine and it (latency, loss, cuts) is
//! [`crate::network`]'s.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use fleetd::store::kv::{
    self, Change, Compare, KeyValue, Kv, LeaseId, Outcome, Range, StoreError, TimeLeft, WatchBatch,
    WatchEvent, WatchStream,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

/// etcd looks for expired leases twice a second.
const EXPIRY_PERIOD: Duration = Duration::from_millis(500);

/// What a new leader gives each lease on top of its time: etcd's default.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// Batches that wait in one watch; the others wait in the history.
const QUEUE: usize = 64;

/// Who sent a request: a machine and which of its lives, or nobody for the simulator's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The machine's number.
    pub machine: usize,
    /// Counts the starts of its fleetd, or its keeper.
    pub life: u64,
    /// Whether it was the keeper.
    pub keeper: bool,
}

/// Hears each revision as it is written, with who asked for it.
pub type Witness = Box<dyn FnMut(Option<Origin>, &WatchBatch) + Send>;

/// The model. Clones are one store.
#[derive(Clone)]
pub struct Etcd {
    shared: Arc<Shared>,
    origin: Option<Origin>,
}

struct Shared {
    state: Mutex<State>,
    /// Not a `watch`: that one wakes its receivers in an order of chance.
    woken: Notify,
}

struct State {
    revision: i64,
    keys: BTreeMap<String, KeyValue>,
    history: VecDeque<Arc<WatchBatch>>,
    /// The first revision that a watch may still start from.
    oldest: i64,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: i64,
    /// Without a quorum nothing is answered and no lease ends.
    quorum: bool,
    /// Counts etcd's own leaders; a watch of an earlier one breaks.
    elected: u64,
    witness: Option<Witness>,
}

struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<String>,
}

impl Etcd {
    /// An empty store. Needs a tokio runtime.
    pub fn new() -> Etcd {
        let state = State {
            revision: 1,
            keys: BTreeMap::new(),
            history: VecDeque::new(),
            oldest: 2,
            leases: BTreeMap::new(),
            last_lease: 0,
            quorum: true,
            elected: 1,
            witness: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), woken: Notify::new() });
        tokio::spawn(expire(Arc::downgrade(&shared)));
        Etcd { shared, origin: None }
    }

    /// The same store, asked by somebody else.
    pub fn asked_by(&self, origin: Origin) -> Etcd {
        Etcd { shared: self.shared.clone(), origin: Some(origin) }
    }

    /// Who asks.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// Tells `witness` of each revision from now on. It must not ask the store.
    pub fn set_witness(&self, witness: Witness) {
        self.state().witness = Some(witness);
    }

    /// Forgets the history before `revision`.
    pub fn compact(&self, revision: i64) {
        let mut state = self.state();
        while state.oldest < revision && state.history.pop_front().is_some() {
            state.oldest += 1;
        }
    }

    /// The present revision.
    pub fn revision(&self) -> i64 {
        self.state().revision
    }

    /// A quorum of members is lost, or back: then a new leader is elected.
    pub fn set_quorum(&self, quorum: bool) {
        let mut state = self.state();
        if quorum && !state.quorum {
            state.elect();
        }
        state.quorum = quorum;
        drop(state);
        self.shared.woken.notify_waiters();
    }

    /// Another member leads from now on: leases start their time anew, watches break.
    pub fn change_leader(&self) {
        self.state().elect();
        self.shared.woken.notify_waiters();
    }

    /// How many leaders it has had.
    pub fn term(&self) -> u64 {
        self.state().elected
    }

    /// Whether it answers.
    pub fn has_quorum(&self) -> bool {
        self.state().quorum
    }

    /// Waits until there is a quorum.
    pub async fn quorum(&self) {
        loop {
            let woken = self.shared.woken.notified();
            if self.has_quorum() {
                return;
            }
            woken.await;
        }
    }

    /// One key, without the network.
    pub fn peek(&self, key: &str) -> Option<KeyValue> {
        self.state().keys.get(key).cloned()
    }

    /// All keys under a prefix, without the network.
    pub fn peek_all(&self, prefix: &str) -> Vec<KeyValue> {
        self.state().under(prefix)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no panic inside the model of etcd")
    }

    fn finish(&self, mut state: MutexGuard<'_, State>, events: Vec<WatchEvent>) -> i64 {
        let revision = state.write(self.origin, events);
        drop(state);
        self.shared.woken.notify_waiters();
        revision
    }
}

impl Default for Etcd {
    fn default() -> Etcd {
        Etcd::new()
    }
}

impl State {
    fn under(&self, prefix: &str) -> Vec<KeyValue> {
        self.keys
            .range(prefix.to_string()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, kv)| kv.clone())
            .collect()
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kv = self.keys.get(compare.key());
        match compare {
            Compare::Absent(_) => kv.is_none(),
            Compare::ModRevision(_, revision) => kv.is_some_and(|kv| kv.mod_revision == *revision),
            Compare::CreateRevision(_, revision) => {
                kv.is_some_and(|kv| kv.create_revision == *revision)
            }
        }
    }

    fn apply(&mut self, changes: &[Change]) -> Vec<WatchEvent> {
        let revision = self.revision + 1;
        let mut events = Vec::new();
        for change in changes {
            match change {
                Change::Put { key, value, lease } => {
                    self.detach(key);
                    if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
                        lease.keys.insert(key.clone());
                    }
                    let create_revision =
                        self.keys.get(key).map_or(revision, |kv| kv.create_revision);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision,
                        mod_revision: revision,
                        lease: *lease,
                    };
                    self.keys.insert(key.clone(), kv.clone());
                    events.push(WatchEvent::Put(kv));
                }
                Change::Delete { key } => events.extend(self.delete(key)),
            }
        }
        events
    }

    fn delete(&mut self, key: &str) -> Option<WatchEvent> {
        self.detach(key);
        self.keys.remove(key).map(|kv| WatchEvent::Delete(kv.key))
    }

    fn detach(&mut self, key: &str) {
        if let Some(lease) =
            self.keys.get(key).and_then(|kv| kv.lease).and_then(|lease| self.leases.get_mut(&lease))
        {
            lease.keys.remove(key);
        }
    }

    fn write(&mut self, origin: Option<Origin>, events: Vec<WatchEvent>) -> i64 {
        if !events.is_empty() {
            self.revision += 1;
            let batch = WatchBatch { revision: self.revision, events };
            if let Some(witness) = &mut self.witness {
                witness(origin, &batch);
            }
            self.history.push_back(Arc::new(batch));
        }
        self.revision
    }

    fn end_lease(&mut self, lease: LeaseId) -> Vec<WatchEvent> {
        let Some(lease) = self.leases.remove(&lease) else { return Vec::new() };
        lease
            .keys
            .iter()
            .filter_map(|key| self.keys.remove(key))
            .map(|kv| WatchEvent::Delete(kv.key))
            .collect()
    }

    fn elect(&mut self) {
        self.elected += 1;
        let now = Instant::now();
        for lease in self.leases.values_mut() {
            lease.deadline = now + lease.ttl + ELECTION_TIMEOUT;
        }
    }

    fn since(&self, from: i64) -> Result<(Vec<Arc<WatchBatch>>, i64), StoreError> {
        if from < self.oldest {
            return Err(StoreError::Compacted(self.oldest));
        }
        let skip = usize::try_from(from - self.oldest).unwrap_or(usize::MAX);
        let batches: Vec<_> = self.history.iter().skip(skip).take(QUEUE).cloned().collect();
        let next = batches.last().map_or(from, |last| last.revision + 1);
        Ok((batches, next))
    }
}

#[async_trait]
impl Kv for Etcd {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let state = self.state();
        Ok(Range { kvs: state.under(prefix), revision: state.revision })
    }

    async fn ranges(&self, prefixes: &[String]) -> Result<Range, StoreError> {
        kv::check_count("prefixes", prefixes.len())?;
        let state = self.state();
        Ok(Range {
            kvs: prefixes.iter().flat_map(|prefix| state.under(prefix)).collect(),
            revision: state.revision,
        })
    }

    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        kv::check_key(key)?;
        let state = self.state();
        Ok((state.keys.get(key).cloned(), state.revision))
    }

    async fn get_many(&self, keys: &[String]) -> Result<(Vec<Option<KeyValue>>, i64), StoreError> {
        kv::check_count("keys", keys.len())?;
        let state = self.state();
        Ok((keys.iter().map(|key| state.keys.get(key).cloned()).collect(), state.revision))
    }

    async fn txn(&self, compares: &[Compare], changes: &[Change]) -> Result<Outcome, StoreError> {
        kv::check(compares, changes)?;
        let mut state = self.state();
        if !compares.iter().all(|compare| state.holds(compare)) {
            return Ok(Outcome { applied: false, revision: state.revision });
        }
        let ended = |change: &Change| match change {
            Change::Put { lease: Some(lease), .. } => !state.leases.contains_key(lease),
            _ => false,
        };
        if changes.iter().any(ended) {
            return Err(StoreError::LeaseExpired);
        }
        let events = state.apply(changes);
        Ok(Outcome { applied: true, revision: self.finish(state, events) })
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, StoreError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let elected = self.state().elected;
        tokio::spawn(follow(self.clone(), prefix.to_string(), from.max(1), elected, sender));
        Ok(receiver)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let mut state = self.state();
        // Ids as etcd's: no small numbers.
        state.last_lease += 1;
        let id = LeaseId(7_587_000_000_000 + state.last_lease);
        let ttl = Duration::from_secs(ttl.as_secs_f64().ceil().max(2.0) as u64);
        state
            .leases
            .insert(id, Lease { ttl, deadline: Instant::now() + ttl, keys: BTreeSet::new() });
        Ok(id)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        match self.state().leases.get_mut(&lease) {
            Some(lease) if lease.deadline > Instant::now() => {
                lease.deadline = Instant::now() + lease.ttl;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn time_left(&self, lease: LeaseId) -> Result<Option<TimeLeft>, StoreError> {
        let now = Instant::now();
        Ok(self.state().leases.get(&lease).filter(|lease| lease.deadline > now).map(|lease| {
            let left = Duration::from_secs(lease.deadline.duration_since(now).as_secs() + 1);
            TimeLeft { granted: lease.ttl, left }
        }))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let mut state = self.state();
        let events = state.end_lease(lease);
        self.finish(state, events);
        Ok(())
    }
}

/// Ends leases whose time is over, for as long as the store is there.
async fn expire(shared: Weak<Shared>) {
    loop {
        sleep(EXPIRY_PERIOD).await;
        let Some(shared) = shared.upgrade() else { return };
        let etcd = Etcd { shared, origin: None };
        let now = Instant::now();
        let mut state = etcd.state();
        if !state.quorum {
            continue;
        }
        let over: Vec<LeaseId> = state
            .leases
            .iter()
            .filter(|(_, lease)| lease.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for lease in over {
            let events = state.end_lease(lease);
            state.write(None, events);
        }
        drop(state);
        etcd.shared.woken.notify_waiters();
    }
}

async fn follow(
    etcd: Etcd,
    prefix: String,
    mut from: i64,
    elected: u64,
    sender: mpsc::Sender<Result<WatchBatch, StoreError>>,
) {
    loop {
        // Before looking: what is added while we look wakes us again.
        let woken = etcd.shared.woken.notified();
        let found = match etcd.state() {
            state if state.elected != elected => {
                Err(StoreError::Unavailable("etcd's leader changed".to_string()))
            }
            state => state.since(from),
        };
        let (batches, next) = match found {
            Ok(found) => found,
            Err(error) => return drop(sender.send(Err(error)).await),
        };
        for batch in &batches {
            let under = |event: &&WatchEvent| key(event).starts_with(&prefix);
            let events: Vec<_> = batch.events.iter().filter(under).cloned().collect();
            if !events.is_empty()
                && sender.send(Ok(WatchBatch { revision: batch.revision, events })).await.is_err()
            {
                return;
            }
        }
        from = next;
        if batches.is_empty() {
            tokio::select! {
                biased;
                () = sender.closed() => return,
                () = woken => {}
            }
        }
    }
}

/// The key that an event is about.
pub fn key(event: &WatchEvent) -> &str {
    match event {
        WatchEvent::Put(kv) => &kv.key,
        WatchEvent::Delete(key) => key,
    }
}
