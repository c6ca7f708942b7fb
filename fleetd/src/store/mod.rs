//! The store: typed documents over a byte-level [`kv::Kv`] (etcd or embedded). Every write is a
//! compare-and-swap.
//!
//! **Architecture invariant:** nothing here knows what a good placement is, or what systemd is;
//! nothing outside knows a key.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::brief::{self, Brief, Briefs};
use fleet_core::model::{
    Assignment, Leader, MAX_DOCUMENT_BYTES, Machine, Report, Rival, Settings, UnitRecord,
};
use fleet_core::name::{MachineId, UnitName};
use serde::Serialize;
use serde::de::DeserializeOwned;

mod blobs;
mod check;
mod commit;
pub mod counted;
pub mod embedded;
pub mod etcd;
mod events;
mod fencing;
mod import;
mod keys;
pub mod kv;
mod mirror;
pub mod terms;

pub use commit::{Commit, CommitBatch};
pub use events::StoredEvent;
pub use import::UnitsLock;
pub use keys::Part;
use keys::{Key, Keys};
use kv::{Change, Compare, KeyValue, Kv, MAX_TXN_OPS, TimeLeft, WatchStream};
pub use kv::{LeaseId, StoreError};
pub use mirror::Mirror;

/// How many documents one commit transaction holds at most; each takes a compare and a put.
const COMMIT_DOCUMENTS: usize = MAX_TXN_OPS - 8;

/// … and how many compares: one more for the leader, and three for a document that is guarded.
const COMMIT_COMPARES: usize = MAX_TXN_OPS - 4;

/// The largest unit record, in bytes: a unit file at its limit, escaped as JSON, in one of etcd's
/// requests.
const MAX_RECORD_BYTES: usize = 1_450_000;

/// How many bytes one commit transaction holds at most: etcd refuses requests over 1.5 MiB.
const COMMIT_BYTES: usize = 1_300_000;

/// Typed access to the cluster's documents. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    kv: Arc<dyn Kv>,
    keys: Keys,
}

/// A document and the revision of its last change, which a rewrite compares.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The document.
    pub value: T,
    /// The revision of its last change.
    pub revision: i64,
}

/// Whether there is a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Nobody leads.
    Vacant,
    /// Somebody leads, until the key goes with its lease.
    Taken,
    /// Somebody wrote the key at this revision without having been elected: it is under no lease,
    /// so it would stay for ever.
    Usurped(i64),
}

/// When units were written last, and which ones there were not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitsStanding {
    /// The newest write of those that there are.
    written: i64,
    /// Those that there are not, each with the revision at which it was looked for.
    absent: Vec<(UnitName, i64)>,
}

impl UnitsStanding {
    /// Whether the mirror shows all these units as they were then, or later.
    pub fn is_in(&self, mirror: &Mirror) -> bool {
        let cluster = mirror.cluster();
        let is_gone = |(name, looked): &(UnitName, i64)| {
            cluster.units_written.get(name).is_none_or(|written| written > looked)
        };
        cluster.snapshot.revision >= self.written && self.absent.iter().all(is_gone)
    }
}

/// Proof of having been elected: the fencing token that every write of a leader carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The revision that created the leader key.
    pub create_revision: i64,
    /// The lease that the leader key is under.
    pub lease: LeaseId,
}

/// A machine's presence in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// The lease that the machine's keys are under.
    pub lease: LeaseId,
    /// The revision that created the machine's key.
    pub create_revision: i64,
}

/// A machine's record as it stands in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    /// The address that it gave; empty if the record cannot be read.
    pub address: String,
    /// Under which lease, and since when.
    pub registration: Registration,
    /// The revision of its last change.
    pub revision: i64,
}

impl Store {
    /// Everything under `prefix` (`/fleet/` by default) of a byte-level store.
    pub fn new(kv: Arc<dyn Kv>, prefix: &str) -> Store {
        Store { kv, keys: Keys::new(prefix) }
    }

    /// Everything, at one revision. An import that is decided and was cut short is finished first.
    pub async fn read_all(&self) -> Result<Mirror, StoreError> {
        loop {
            let mirror = Mirror::load(&self.keys, self.kv.range(self.keys.root()).await?);
            if !mirror.importing() {
                return Ok(mirror);
            }
            self.finish_import().await?;
        }
    }

    /// Some parts of everything, at one revision; the others are empty. As for [`Store::read_all`],
    /// an import is finished first.
    pub async fn read(&self, parts: &[Part]) -> Result<Mirror, StoreError> {
        let mut prefixes: Vec<String> =
            parts.iter().flat_map(|part| self.keys.part(*part)).collect();
        prefixes.push(self.keys.import());
        loop {
            let mirror = Mirror::load(&self.keys, self.kv.ranges(&prefixes).await?);
            if !mirror.importing() {
                return Ok(mirror);
            }
            self.finish_import().await?;
        }
    }

    /// As [`Store::read`], with the units only as lists show them.
    pub async fn read_briefs(&self, parts: &[Part]) -> Result<(Briefs, Mirror), StoreError> {
        let mut prefixes: Vec<String> =
            parts.iter().flat_map(|part| self.keys.part(*part)).collect();
        prefixes.push(self.keys.import());
        loop {
            let mut range = self.kv.ranges(&prefixes).await?;
            let mut briefs = Briefs::default();
            range.kvs.retain(|kv| {
                let Some(Key::Unit(name)) = self.keys.read(&kv.key) else { return true };
                // One that cannot be read is in no list; the leader and `fleetctl store check` name
                // it.
                briefs.0.extend(Brief::read(&kv.value).ok().map(|brief| (name, brief)));
                false
            });
            let mirror = Mirror::load(&self.keys, range);
            if !mirror.importing() {
                return Ok((briefs, mirror));
            }
            self.finish_import().await?;
        }
    }

    /// Every change after `revision`, for a [`Mirror`].
    pub async fn watch_all(&self, revision: i64) -> Result<WatchStream, StoreError> {
        self.kv.watch(self.keys.root(), revision + 1).await
    }

    /// One unit's record, and the store's revision.
    pub async fn unit(
        &self,
        name: &UnitName,
    ) -> Result<(Option<Versioned<UnitRecord>>, i64), StoreError> {
        self.document(&self.keys.unit(name)).await
    }

    /// The revision of a unit's record, which need not be readable; `None` if there is none.
    pub async fn unit_revision(&self, name: &UnitName) -> Result<Option<i64>, StoreError> {
        Ok(self.kv.get(&self.keys.unit(name)).await?.0.map(|kv| kv.mod_revision))
    }

    /// When each of these units was written last, or, of a replica without a record, its template:
    /// what a [`Mirror`] must hold that is to show them as new as they are now.
    pub async fn standing_of(&self, units: &[UnitName]) -> Result<UnitsStanding, StoreError> {
        let templates = units.iter().filter_map(UnitName::template);
        let names: BTreeSet<UnitName> = units.iter().cloned().chain(templates).collect();
        let mut standing = UnitsStanding::default();
        for chunk in names.into_iter().collect::<Vec<_>>().chunks(MAX_TXN_OPS) {
            let keys: Vec<String> = chunk.iter().map(|name| self.keys.unit(name)).collect();
            let (found, revision) = self.kv.get_many(&keys).await?;
            for (name, kv) in chunk.iter().zip(found) {
                match kv {
                    Some(kv) => standing.written = standing.written.max(kv.mod_revision),
                    None => standing.absent.push((name.clone(), revision)),
                }
            }
        }
        Ok(standing)
    }

    /// Writes a unit's record, if it still is as `old` says (`None`: absent), and with `new_text`
    /// its text. Answers with the revision.
    pub async fn put_unit(
        &self,
        record: &UnitRecord,
        old: Option<i64>,
        new_text: bool,
    ) -> Result<i64, StoreError> {
        let key = self.keys.unit(&record.name);
        let value = encode_record(&key, record)?;
        let size = value.len();
        let mut changes = vec![Change::Put { key: key.clone(), value, lease: None }];
        if new_text {
            let text = Change::Put {
                key: self.keys.text(&record.name, record.revision),
                value: record.text.clone().into_bytes(),
                lease: None,
            };
            if size + record.text.len() <= COMMIT_BYTES {
                changes.push(text);
            } else {
                // Too large for one request: the text goes first, where nobody looks for it before
                // the record names it.
                self.apply_unlocked(&[unchanged(&key, old)], &[text], &key).await?;
            }
        }
        self.apply_unlocked(&[unchanged(&key, old)], &changes, &key).await
    }

    /// Removes a unit and its texts, if it still is as it was read.
    pub async fn delete_unit(&self, name: &UnitName, old: i64) -> Result<i64, StoreError> {
        let key = self.keys.unit(name);
        let revision = self
            .apply_unlocked(
                &[unchanged(&key, Some(old))],
                &[Change::Delete { key: key.clone() }],
                &key,
            )
            .await?;
        // The texts go after the record: if this is cut short, stray texts are harmless, a record
        // without its text is not.
        let mut texts = self.kv.range(&self.keys.texts_of(name)).await?.kvs;
        // Somebody may have submitted the unit again meanwhile: that text is the new record's.
        texts.retain(|kv| kv.mod_revision < revision);
        for chunk in texts.chunks(MAX_TXN_OPS) {
            let compares: Vec<Compare> = chunk
                .iter()
                .map(|kv| Compare::ModRevision(kv.key.clone(), kv.mod_revision))
                .collect();
            let deletes: Vec<Change> =
                chunk.iter().map(|kv| Change::Delete { key: kv.key.clone() }).collect();
            self.kv.txn(&compares, &deletes).await?;
        }
        Ok(revision)
    }

    /// Removes the record under a name that is none, whatever is in it; `None` if there is no such
    /// record.
    pub async fn delete_misnamed(&self, name: &str) -> Result<Option<i64>, StoreError> {
        let key = format!("{}units/{name}", self.keys.root());
        let (Some(Key::Misnamed(..)), Some(old)) =
            (self.keys.read(&key), self.kv.get(&key).await?.0)
        else {
            return Ok(None);
        };
        let unchanged = unchanged(&key, Some(old.mod_revision));
        self.apply_unlocked(&[unchanged], &[Change::Delete { key: key.clone() }], &key)
            .await
            .map(Some)
    }

    /// All texts of one unit by their numbers, in order.
    pub async fn texts_of(&self, name: &UnitName) -> Result<Vec<(u64, String)>, StoreError> {
        let prefix = self.keys.texts_of(name);
        let number = |key: &str| key.strip_prefix(&prefix)?.parse::<u64>().ok();
        let texts = self.kv.range(&prefix).await?.kvs;
        Ok(texts
            .iter()
            .filter_map(|kv| {
                Some((number(&kv.key)?, String::from_utf8_lossy(&kv.value).into_owned()))
            })
            .collect())
    }

    /// The texts of several units, in the order asked; an absent one is `None`.
    pub async fn texts(
        &self,
        wanted: &[(UnitName, u64)],
    ) -> Result<Vec<Option<String>>, StoreError> {
        let mut texts = Vec::with_capacity(wanted.len());
        for chunk in wanted.chunks(MAX_TXN_OPS) {
            let keys: Vec<String> =
                chunk.iter().map(|(name, revision)| self.keys.text(name, *revision)).collect();
            let (found, _) = self.kv.get_many(&keys).await?;
            texts.extend(
                found
                    .into_iter()
                    .map(|kv| kv.map(|kv| String::from_utf8_lossy(&kv.value).into_owned())),
            );
        }
        Ok(texts)
    }

    /// What an operator set for a machine.
    pub async fn settings(
        &self,
        id: &MachineId,
    ) -> Result<Option<Versioned<Settings>>, StoreError> {
        Ok(self.document(&self.keys.settings(id)).await?.0)
    }

    /// Rewrites what an operator set for a machine, if it still is as it was read.
    pub async fn put_settings(
        &self,
        id: &MachineId,
        settings: &Settings,
        old: Option<i64>,
    ) -> Result<i64, StoreError> {
        let key = self.keys.settings(id);
        self.apply_unlocked(&[unchanged(&key, old)], &[put(&key, settings, None)?], &key).await
    }

    /// Registers a machine under its lease. A key that is there must be under the same lease: else
    /// another fleetd has this id, or an earlier life of this machine whose lease has not ended,
    /// and the answer is [`StoreError::Conflict`].
    pub async fn register(
        &self,
        machine: &Machine,
        lease: LeaseId,
    ) -> Result<Registration, StoreError> {
        let key = self.keys.machine(&machine.id);
        let (old, _) = self.kv.get(&key).await?;
        let (compare, created) = match old {
            Some(kv) if kv.lease == Some(lease) => {
                (Compare::ModRevision(key.clone(), kv.mod_revision), Some(kv.create_revision))
            }
            Some(_) => return Err(StoreError::Conflict(key)),
            None => (Compare::Absent(key.clone()), None),
        };
        let back = Change::Delete { key: self.keys.left(&machine.id) };
        let revision =
            self.apply(&[compare], &[put(&key, machine, Some(lease))?, back], &key).await?;
        Ok(Registration { lease, create_revision: created.unwrap_or(revision) })
    }

    /// Who is registered by a machine's id, whoever that is.
    pub async fn registered(&self, id: &MachineId) -> Result<Option<Registered>, StoreError> {
        let key = self.keys.machine(id);
        let Some(kv) = self.kv.get(&key).await?.0 else { return Ok(None) };
        let by_hand =
            || "it is under no lease, so no fleetd wrote it; delete it with etcdctl".to_string();
        let lease = kv.lease.ok_or_else(|| StoreError::Corrupt { key, problem: by_hand() })?;
        // What is wrong with it is mended by the next registration, if it is this machine's.
        let address =
            mirror::parse::<Machine>(&kv.value).map_or(String::new(), |machine| machine.address);
        let registration = Registration { lease, create_revision: kv.create_revision };
        Ok(Some(Registered { address, registration, revision: kv.mod_revision }))
    }

    /// Whether nothing of a machine that is gone may still run there: it has left in good order and
    /// so has its keeper, after which nothing fenced is alive; or the leader has taken everything
    /// off it, but for what is fenced where `keeper`, the life of this host's own keeper, has the
    /// machine's place. What is fenced can run nowhere else then, and the leader leaves it there.
    pub async fn is_given_up(
        &self,
        id: &MachineId,
        keeper: Option<i64>,
    ) -> Result<bool, StoreError> {
        if self.kv.get(&self.keys.left(id)).await?.0.is_some() && self.keeper_has_ended(id).await? {
            return Ok(true);
        }
        let Some(assignment) = self.assignment(id).await?.0.map(|assignment| assignment.value)
        else {
            return Ok(true);
        };
        if assignment.instances.is_empty() && assignment.off.is_empty() {
            return Ok(true);
        }
        let holder = self.kv.get(&self.keys.keeper(id)).await?.0.map(|kv| kv.create_revision);
        Ok(keeper.is_some()
            && keeper == holder
            && assignment.instances.values().all(|placement| placement.fence.is_some()))
    }

    /// Puts a machine's registration and its report under another lease, at once, if that
    /// registration still holds.
    pub async fn change_lease(
        &self,
        machine: &Machine,
        held: Registration,
        lease: LeaseId,
    ) -> Result<Registration, StoreError> {
        let unchanged =
            Compare::CreateRevision(self.keys.machine(&machine.id), held.create_revision);
        self.move_to(machine, held, unchanged, lease).await
    }

    /// The same with the registration of an earlier life of this machine, if nobody has written it
    /// since it was read.
    pub async fn take_over(
        &self,
        machine: &Machine,
        there: &Registered,
        lease: LeaseId,
    ) -> Result<Registration, StoreError> {
        let unchanged = Compare::ModRevision(self.keys.machine(&machine.id), there.revision);
        self.move_to(machine, there.registration, unchanged, lease).await
    }

    async fn move_to(
        &self,
        machine: &Machine,
        held: Registration,
        unchanged: Compare,
        lease: LeaseId,
    ) -> Result<Registration, StoreError> {
        let (key, report) = (self.keys.machine(&machine.id), self.keys.report(&machine.id));
        let mut compares = vec![unchanged];
        let mut changes = vec![put(&key, machine, Some(lease))?];
        if let (Some(found), _) = self.kv.get(&report).await? {
            compares.push(Compare::ModRevision(report.clone(), found.mod_revision));
            changes.push(Change::Put { key: report, value: found.value, lease: Some(lease) });
        }
        self.apply(&compares, &changes, &key).await?;
        Ok(Registration { lease, ..held })
    }

    /// Ends a machine's registration, and leaves word that it is no silence: nobody need wait for
    /// its return.
    pub async fn leave(
        &self,
        id: &MachineId,
        registration: Registration,
    ) -> Result<i64, StoreError> {
        let key = self.keys.machine(id);
        // Another host may have put the record under a lease of its own while this one slept: then
        // it is not this one's to remove.
        let there = self.kv.get(&key).await?.0.filter(|kv| kv.lease == Some(registration.lease));
        let Some(there) = there else { return Err(StoreError::Conflict(key)) };
        let guard = Compare::ModRevision(key.clone(), there.mod_revision);
        let goodbye =
            Change::Put { key: self.keys.left(id), value: b"{\"v\":1}".to_vec(), lease: None };
        let gone = Change::Delete { key: key.clone() };
        self.apply(&[guard], &[goodbye, gone], &key).await
    }

    /// Notes that another fleetd with a machine's id was refused, for as long as `lease` lasts.
    pub async fn put_rival(
        &self,
        id: &MachineId,
        rival: &Rival,
        lease: LeaseId,
    ) -> Result<(), StoreError> {
        let key = self.keys.rival(id);
        self.apply(&[], &[put(&key, rival, Some(lease))?], &key).await.map(drop)
    }

    /// Another fleetd with a machine's id that was refused, and the store's revision to watch from.
    pub async fn rival(&self, id: &MachineId) -> Result<(Option<Rival>, i64), StoreError> {
        let (rival, revision) = self.document(&self.keys.rival(id)).await?;
        Ok((rival.map(|rival| rival.value), revision))
    }

    /// Every change of that after `revision`. Read it with [`Store::read_rival`].
    pub async fn watch_rival(
        &self,
        id: &MachineId,
        revision: i64,
    ) -> Result<WatchStream, StoreError> {
        self.kv.watch(&self.keys.rival(id), revision + 1).await
    }

    /// Reads a value that [`Store::watch_rival`] brought.
    pub fn read_rival(&self, kv: &kv::KeyValue) -> Result<Rival, StoreError> {
        mirror::parse(&kv.value)
            .map_err(|problem| StoreError::Corrupt { key: kv.key.clone(), problem })
    }

    /// Publishes what a machine observed, under its lease, if that registration still holds and the
    /// last report is that of the revision `over` (0: there is none): one that was sent before and
    /// arrives late must not take its place.
    pub async fn put_report(
        &self,
        id: &MachineId,
        report: &Report,
        registration: Registration,
        over: i64,
    ) -> Result<i64, StoreError> {
        let key = self.keys.report(id);
        let registered =
            Compare::CreateRevision(self.keys.machine(id), registration.create_revision);
        let last = if over == 0 {
            Compare::Absent(key.clone())
        } else {
            Compare::ModRevision(key.clone(), over)
        };
        self.apply(&[registered, last], &[put(&key, report, Some(registration.lease))?], &key).await
    }

    /// The revision of a machine's last report; 0 if there is none.
    pub async fn report_revision(&self, id: &MachineId) -> Result<i64, StoreError> {
        let (kv, _) = self.kv.get(&self.keys.report(id)).await?;
        Ok(kv.map_or(0, |kv| kv.mod_revision))
    }

    /// A machine's assignment, and the store's revision to watch from.
    pub async fn assignment(
        &self,
        id: &MachineId,
    ) -> Result<(Option<Versioned<Assignment>>, i64), StoreError> {
        self.document(&self.keys.assignment(id)).await
    }

    /// Every change of a machine's assignment after `revision`. Read it with
    /// [`Store::read_assignment`].
    pub async fn watch_assignment(
        &self,
        id: &MachineId,
        revision: i64,
    ) -> Result<WatchStream, StoreError> {
        self.kv.watch(&self.keys.assignment(id), revision + 1).await
    }

    /// Reads a value that [`Store::watch_assignment`] brought.
    pub fn read_assignment(&self, kv: &kv::KeyValue) -> Result<Assignment, StoreError> {
        mirror::parse(&kv.value)
            .map_err(|problem| StoreError::Corrupt { key: kv.key.clone(), problem })
    }

    /// Tries to become the leader under `lease`: `None` if somebody leads.
    pub async fn campaign(
        &self,
        leader: &Leader,
        lease: LeaseId,
    ) -> Result<Option<Term>, StoreError> {
        let key = self.keys.leader();
        let outcome = self
            .kv
            .txn(&[Compare::Absent(key.clone())], &[put(&key, leader, Some(lease))?])
            .await?;
        Ok(outcome.applied.then_some(Term { create_revision: outcome.revision, lease }))
    }

    /// Who leads, and the store's revision to watch from.
    pub async fn leader(&self) -> Result<(Option<Leader>, i64), StoreError> {
        let (leader, revision) = self.document(&self.keys.leader()).await?;
        Ok((leader.map(|leader| leader.value), revision))
    }

    /// How the leader's seat is, and the store's revision to watch from.
    pub async fn seat(&self) -> Result<(Seat, i64), StoreError> {
        let (kv, revision) = self.kv.get(&self.keys.leader()).await?;
        let seat = match kv {
            None => Seat::Vacant,
            Some(kv) if kv.lease.is_none() => Seat::Usurped(kv.mod_revision),
            Some(_) => Seat::Taken,
        };
        Ok((seat, revision))
    }

    /// Removes what [`Seat::Usurped`] says. Whoever was elected loses its term with it, and another
    /// election follows. False if the key has changed since.
    pub async fn vacate(&self, revision: i64) -> Result<bool, StoreError> {
        let key = self.keys.leader();
        let seen = Compare::ModRevision(key.clone(), revision);
        Ok(self.kv.txn(&[seen], &[Change::Delete { key }]).await?.applied)
    }

    /// Every change of the leader key after `revision`.
    pub async fn watch_leader(&self, revision: i64) -> Result<WatchStream, StoreError> {
        self.kv.watch(&self.keys.leader(), revision + 1).await
    }

    /// A new lease, see [`Kv::grant`].
    pub async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.kv.grant(ttl).await
    }

    /// Renews a lease; false if it has ended.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.kv.keep_alive(lease).await
    }

    /// How long a lease has, see [`Kv::time_left`].
    pub async fn time_left(&self, lease: LeaseId) -> Result<Option<TimeLeft>, StoreError> {
        self.kv.time_left(lease).await
    }

    /// When the store's own leader changed last, as far as heard, see [`Kv::led_anew`].
    pub fn led_anew(&self) -> Option<tokio::time::Instant> {
        self.kv.led_anew()
    }

    /// The registrations of all machines.
    pub async fn registrations(&self) -> Result<Vec<(MachineId, Registration)>, StoreError> {
        let found = self.kv.ranges(&self.keys.part(Part::Machines)).await?;
        let machine = |kv: KeyValue| match self.keys.read(&kv.key) {
            Some(Key::Machine(id)) => kv
                .lease
                .map(|lease| (id, Registration { lease, create_revision: kv.create_revision })),
            _ => None,
        };
        Ok(found.kvs.into_iter().filter_map(machine).collect())
    }

    /// Ends a lease with all its keys.
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.kv.revoke(lease).await
    }

    async fn document<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<(Option<Versioned<T>>, i64), StoreError> {
        let (kv, revision) = self.kv.get(key).await?;
        let Some(kv) = kv else { return Ok((None, revision)) };
        let value = mirror::parse(&kv.value)
            .map_err(|problem| StoreError::Corrupt { key: key.to_string(), problem })?;
        Ok((Some(Versioned { value, revision: kv.mod_revision }), revision))
    }

    async fn apply(
        &self,
        compares: &[Compare],
        changes: &[Change],
        what: &str,
    ) -> Result<i64, StoreError> {
        let outcome = self.kv.txn(compares, changes).await?;
        if outcome.applied {
            Ok(outcome.revision)
        } else {
            Err(StoreError::Conflict(what.to_string()))
        }
    }
}

/// One transaction of several.
struct Batch {
    compares: Vec<Compare>,
    changes: Vec<Change>,
    bytes: usize,
    /// Whether it places anything fenced.
    fenced: bool,
}

impl Batch {
    fn new(fence: &Compare) -> Batch {
        Batch { compares: vec![fence.clone()], changes: Vec::new(), bytes: 0, fenced: false }
    }

    fn is_full(&self, next_bytes: usize) -> bool {
        let full = self.changes.len() >= COMMIT_DOCUMENTS || self.compares.len() >= COMMIT_COMPARES;
        !self.changes.is_empty() && (full || self.bytes + next_bytes > COMMIT_BYTES)
    }
}

fn unchanged(key: &str, revision: Option<i64>) -> Compare {
    match revision {
        Some(revision) => Compare::ModRevision(key.to_string(), revision),
        None => Compare::Absent(key.to_string()),
    }
}

fn put(key: &str, document: &impl Serialize, lease: Option<LeaseId>) -> Result<Change, StoreError> {
    Ok(Change::Put {
        key: key.to_string(),
        value: encode(key, document, MAX_DOCUMENT_BYTES)?,
        lease,
    })
}

/// JSON, below the limit.
fn encode(key: &str, document: &impl Serialize, limit: usize) -> Result<Vec<u8>, StoreError> {
    within(key, serde_json::to_vec(document), limit)
}

/// The same of a unit's record, with what lists show of its text.
fn encode_record(key: &str, record: &UnitRecord) -> Result<Vec<u8>, StoreError> {
    within(key, brief::encode(record), MAX_RECORD_BYTES)
}

fn within(
    key: &str,
    encoded: serde_json::Result<Vec<u8>>,
    limit: usize,
) -> Result<Vec<u8>, StoreError> {
    let value = encoded.map_err(|error| StoreError::Corrupt {
        key: key.to_string(),
        problem: error.to_string(),
    })?;
    if value.len() > limit {
        return Err(StoreError::TooLarge {
            what: format!("the document {key}"),
            bytes: value.len(),
            limit,
        });
    }
    Ok(value)
}
