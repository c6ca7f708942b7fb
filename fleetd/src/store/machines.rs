//! Machines: their registrations, what is set for them, what they report and are assigned.

use fleet_core::model::{Assignment, Machine, Report, Rival, Settings};
use fleet_core::name::MachineId;

use super::acts;
use super::batch::{put, unchanged};
use super::keys::Key;
use super::kv::{Change, Compare, KeyValue, WatchStream};
use super::{LeaseId, Part, Store, StoreError, Versioned, kv, mirror};

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
    /// Since when it has been registered, by its own clock, in milliseconds since 1970; 0 if that
    /// is not known.
    pub since_ms: u64,
    /// Under which lease, and since when.
    pub registration: Registration,
    /// The revision of its last change.
    pub revision: i64,
}

impl Store {
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
        let mut changes = vec![put(&key, settings, None)?];
        changes.extend(acts::changes(self.told_act(old).await?));
        self.apply_unlocked(&[unchanged(&key, old)], &changes, &key).await
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
        let (address, since_ms) = mirror::parse::<Machine>(&kv.value)
            .map_or((String::new(), 0), |machine| (machine.address, machine.since_ms));
        let registration = Registration { lease, create_revision: kv.create_revision };
        Ok(Some(Registered { address, since_ms, registration, revision: kv.mod_revision }))
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
}
