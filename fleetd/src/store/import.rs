//! Writing many documents as one: nothing of them is there until all are, whatever dies in between.
//! Why so: docs/decisions/0005.
//!
//! The lock `/fleet/import` keeps everybody else from writing units and settings. What fits one
//! transaction is written in one, which also removes the lock; texts may be written before, where
//! nobody looks for them until a record names them. More is staged beside the root, where nobody
//! reads; then the lock is marked as decided, in one write, and from there on whoever
//! reads everything (the API, the leader) first finishes it. Until it is decided, the lock is under
//! a lease and dies with its owner.
//!
//! A fleetd that knows nothing of removals may be the one that finishes it. So removals go in the
//! write that decides, and where that has no room for them all, the lock says so in a form that
//! only a fleetd that removes takes for decided.

use std::time::Duration;

use fleet_core::app::{AppName, Application};
use fleet_core::configuration::Configuration;
use fleet_core::model::{MAX_DOCUMENT_BYTES, Settings, UnitRecord};
use fleet_core::name::{MachineId, UnitName};
use serde::{Deserialize, Serialize};

use super::batch::{Batch, COMMIT_BYTES, COMMIT_DOCUMENTS, encode};
use super::keys::Keys;
use super::kv::{Change, Compare, LeaseId};
use super::units::encode_record;
use super::{Store, StoreError, mirror};

/// How long the lock outlives its owner. Staging 20,000 units takes some seconds; nobody can write
/// units for that long.
const LOCK_TTL: Duration = Duration::from_secs(30);

/// How long a write waits before it tries again while an import is being staged.
const LOCKED_PAUSE: Duration = Duration::from_millis(100);

/// How many documents one step of finishing takes: each is a put and a removal.
const FINISH_DOCUMENTS: usize = COMMIT_DOCUMENTS / 2;

/// The right to import, see [`Store::lock_units`].
#[derive(Debug)]
pub struct UnitsLock {
    lease: LeaseId,
    create_revision: i64,
}

impl UnitsLock {
    /// Whether it is still held.
    pub(super) fn ours(&self, keys: &Keys) -> Compare {
        Compare::CreateRevision(keys.import(), self.create_revision)
    }
}

/// The lock's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lock {
    v: u32,
    /// Whether what is staged holds, and only has to be moved. An earlier fleetd demands the field,
    /// so it leaves alone what has `removed` in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decided: Option<bool>,
    /// The keys that go once all of it is moved. Any say that what is staged holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
}

impl Lock {
    /// That of an import which may still come to nothing.
    fn open() -> Lock {
        Lock { v: 1, decided: Some(false), removed: Vec::new() }
    }

    /// That of an import which holds; `removed` go at its end.
    fn holds(removed: Vec<String>) -> Lock {
        match removed.is_empty() {
            true => Lock { v: 1, decided: Some(true), removed },
            false => Lock { v: 2, decided: None, removed },
        }
    }

    fn is_decided(&self) -> bool {
        self.decided == Some(true) || !self.removed.is_empty()
    }
}

/// What one import writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Documents<'a> {
    /// Units, each with whether its text is new.
    pub records: &'a [(UnitRecord, bool)],
    /// Units that go, with all their texts.
    pub removed: &'a [UnitName],
    /// What is set for machines.
    pub settings: &'a [(MachineId, Settings)],
    /// Applications.
    pub apps: &'a [Application],
    /// Configurations, each with its revision.
    pub configurations: &'a [Configuration],
    /// Applications that go.
    pub removed_apps: &'a [AppName],
}

/// Keys, each with its value.
type Puts = Vec<(String, Vec<u8>)>;

impl Store {
    /// Keeps everybody else from writing units and settings until [`Store::import`] or
    /// [`Store::unlock_units`]. [`StoreError::Conflict`] while another import holds the lock.
    pub async fn lock_units(&self) -> Result<UnitsLock, StoreError> {
        let key = self.keys.import();
        let lease = self.grant(LOCK_TTL).await?;
        let lock = Change::Put {
            key: key.clone(),
            value: encode(&key, &Lock::open(), 64)?,
            lease: Some(lease),
        };
        match self
            .apply(
                &[Compare::Absent(key)],
                &[lock],
                "the units (another import or apply is running)",
            )
            .await
        {
            Ok(create_revision) => Ok(UnitsLock { lease, create_revision }),
            Err(error) => {
                let _ = self.revoke(lease).await;
                Err(error)
            }
        }
    }

    /// Gives the lock back, nothing imported.
    pub async fn unlock_units(&self, lock: UnitsLock) -> Result<(), StoreError> {
        self.revoke(lock.lease).await
    }

    /// Writes all of it, or nothing. Read after [`Store::lock_units`], it overwrites what is there.
    pub async fn import(&self, lock: UnitsLock, all: &Documents<'_>) -> Result<i64, StoreError> {
        let written = self.write_import(&lock, all).await;
        // The lock is gone or decided by now, and decided it is under no lease; after an error it
        // goes here.
        let _ = self.revoke(lock.lease).await;
        let revision = written?;
        self.forget_texts_of(all.removed, revision).await;
        Ok(revision)
    }

    async fn write_import(&self, lock: &UnitsLock, all: &Documents<'_>) -> Result<i64, StoreError> {
        let (texts, mut documents) = self.puts(all)?;
        documents.extend(self.told_act(Some(lock.create_revision)).await?);
        let key = self.keys.import();
        let ours = lock.ours(&self.keys);
        let lost = "the units (the import took too long)";
        let removed = all.removed.iter().map(|name| self.keys.unit(name));
        let removed = removed.chain(all.removed_apps.iter().map(|name| self.keys.app(name)));
        let removed: Vec<String> = removed.collect();
        let ends = removed.len() + 1;
        let fits = |puts: &Puts, more: &Puts| {
            let all = || puts.iter().chain(more);
            let bytes: usize = all().map(|(key, value)| key.len() + value.len()).sum();
            all().count() + ends <= COMMIT_DOCUMENTS && bytes <= COMMIT_BYTES
        };
        if fits(&documents, &Puts::new()) {
            let at_once = if fits(&texts, &documents) {
                texts
            } else {
                // They go first, where nobody looks for them before a record names them.
                self.put_all(&ours, texts, lost).await?;
                Vec::new()
            };
            let puts = at_once.into_iter().chain(documents).map(|(key, value)| Change::Put {
                key,
                value,
                lease: None,
            });
            let ends = removed.into_iter().chain([key]).map(|key| Change::Delete { key });
            let changes: Vec<Change> = puts.chain(ends).collect();
            return self.apply(&[ours], &changes, lost).await;
        }
        self.clear_stage(&ours, lost).await?;
        let staged = texts.into_iter().chain(documents);
        let staged = staged.map(|(key, value)| (self.keys.staged(&key), value)).collect();
        self.put_all(&ours, staged, lost).await?;
        // As long as the lock is there, nobody can submit again what is removed.
        let (now, later) = removed.split_at(removed.len().min(COMMIT_DOCUMENTS - 1));
        let decided = Change::Put {
            key: key.clone(),
            value: encode(&key, &Lock::holds(later.to_vec()), MAX_DOCUMENT_BYTES)?,
            lease: None,
        };
        let gone = now.iter().map(|key| Change::Delete { key: key.clone() });
        let changes: Vec<Change> = gone.chain([decided]).collect();
        self.apply(&[ours], &changes, lost).await?;
        self.finish_import().await
    }

    /// Puts all of it while the import is `ours`, in as few writes as it takes.
    pub(super) async fn put_all(
        &self,
        ours: &Compare,
        puts: Puts,
        lost: &str,
    ) -> Result<(), StoreError> {
        if puts.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(ours);
        for (key, value) in puts {
            if batch.is_full(value.len()) {
                self.apply(&batch.compares, &batch.changes, lost).await?;
                batch = Batch::new(ours);
            }
            batch.bytes += value.len();
            batch.changes.push(Change::Put { key, value, lease: None });
        }
        self.apply(&batch.compares, &batch.changes, lost).await.map(drop)
    }

    /// Moves what is staged to where it belongs, if that is decided; any number of fleetds may do
    /// so at once. Answers with the last revision.
    pub async fn finish_import(&self) -> Result<i64, StoreError> {
        loop {
            let (lock, mut revision) = self.document::<Lock>(&self.keys.import()).await?;
            let Some(lock) = lock.filter(|lock| lock.value.is_decided()) else {
                return Ok(revision);
            };
            let decided = Compare::ModRevision(self.keys.import(), lock.revision);
            let staged = self.kv.range(self.keys.stage()).await?;
            let mut batch = Batch::new(&decided);
            for kv in staged.kvs {
                let Some(key) = self.keys.unstaged(&kv.key) else { continue };
                if batch.is_full(kv.value.len()) || batch.changes.len() >= 2 * FINISH_DOCUMENTS {
                    // Somebody else may be as far: then the removal of the same keys is the
                    // conflict, and the next look sees what is left.
                    if !self.kv.txn(&batch.compares, &batch.changes).await?.applied {
                        break;
                    }
                    batch = Batch::new(&decided);
                }
                batch.bytes += kv.value.len();
                batch.compares.push(Compare::ModRevision(kv.key.clone(), kv.mod_revision));
                batch.changes.push(Change::Put {
                    key: key.to_string(),
                    value: kv.value,
                    lease: None,
                });
                batch.changes.push(Change::Delete { key: kv.key });
            }
            if !batch.changes.is_empty()
                && !self.kv.txn(&batch.compares, &batch.changes).await?.applied
            {
                continue;
            }
            if !self.kv.range(self.keys.stage()).await?.kvs.is_empty() {
                continue;
            }
            // What is removed goes last, with the lock: as long as that is there, nobody can have
            // submitted any of it again.
            let (last, before) =
                lock.value.removed.split_at(lock.value.removed.len().min(FINISH_DOCUMENTS));
            for chunk in before.chunks(FINISH_DOCUMENTS) {
                let gone: Vec<Change> =
                    chunk.iter().map(|key| Change::Delete { key: key.clone() }).collect();
                self.kv.txn(std::slice::from_ref(&decided), &gone).await?;
            }
            let gone = last.iter().cloned().chain([self.keys.import()]);
            let gone: Vec<Change> = gone.map(|key| Change::Delete { key }).collect();
            let outcome = self.kv.txn(&[decided], &gone).await?;
            revision = outcome.revision;
            if outcome.applied {
                return Ok(revision);
            }
        }
    }

    /// One guarded write of a unit or settings: not while an import has the lock. Waits a little
    /// for it, so that a caller who tries again does not spin.
    pub(super) async fn apply_unlocked(
        &self,
        compares: &[Compare],
        changes: &[Change],
        what: &str,
    ) -> Result<i64, StoreError> {
        let key = self.keys.import();
        let mut guarded = compares.to_vec();
        guarded.push(Compare::Absent(key.clone()));
        let written = self.apply(&guarded, changes, what).await;
        if let Err(StoreError::Conflict(_)) = written
            && let (Some(lock), _) = self.document::<Lock>(&key).await?
        {
            match lock.value.is_decided() {
                true => drop(self.finish_import().await?),
                false => tokio::time::sleep(LOCKED_PAUSE).await,
            }
        }
        written
    }

    /// Removes what an import left that never was decided.
    async fn clear_stage(&self, ours: &Compare, lost: &str) -> Result<(), StoreError> {
        let strays = self.kv.range(self.keys.stage()).await?;
        for chunk in strays.kvs.chunks(COMMIT_DOCUMENTS) {
            let removals: Vec<Change> =
                chunk.iter().map(|kv| Change::Delete { key: kv.key.clone() }).collect();
            self.apply(std::slice::from_ref(ours), &removals, lost).await?;
        }
        Ok(())
    }

    /// The texts to put, and the documents.
    fn puts(&self, all: &Documents<'_>) -> Result<(Puts, Puts), StoreError> {
        let (mut texts, mut documents) = (Puts::new(), Puts::new());
        for (record, new_text) in all.records {
            let key = self.keys.unit(&record.name);
            let value = encode_record(&key, record)?;
            documents.push((key, value));
            if *new_text {
                texts.push((
                    self.keys.text(&record.name, record.revision),
                    record.text.clone().into_bytes(),
                ));
                texts.extend(self.origin_of(record));
            }
        }
        let new = all.records.iter().filter(|(_, new_text)| *new_text);
        documents.extend(self.begin_to_use(new.map(|(record, _)| record)));
        for config in all.configurations {
            documents.extend(self.configuration_documents(config)?);
        }
        for (id, settings) in all.settings {
            let key = self.keys.settings(id);
            let value = encode(&key, settings, MAX_DOCUMENT_BYTES)?;
            documents.push((key, value));
        }
        for app in all.apps {
            let key = self.keys.app(&app.name);
            let value = encode(&key, app, MAX_DOCUMENT_BYTES)?;
            documents.push((key, value));
        }
        Ok((texts, documents))
    }
}

/// Whether the lock's document says that what is staged holds.
pub(super) fn is_decided(value: &[u8]) -> Result<bool, String> {
    mirror::parse::<Lock>(value).map(|lock| lock.is_decided())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lock's document as fleetd had it before there were removals.
    #[derive(Debug, Deserialize)]
    struct Earlier {
        decided: bool,
    }

    fn earlier(lock: &Lock) -> Option<bool> {
        let bytes = serde_json::to_vec(lock).unwrap();
        assert_eq!(is_decided(&bytes), Ok(lock.is_decided()), "it reads its own");
        mirror::parse::<Earlier>(&bytes).ok().map(|lock| lock.decided)
    }

    #[test]
    fn an_earlier_fleetd_takes_no_import_for_decided_whose_removals_it_would_forget() {
        assert_eq!(earlier(&Lock::open()), Some(false));
        assert_eq!(earlier(&Lock::holds(Vec::new())), Some(true));
        assert_eq!(earlier(&Lock::holds(vec!["/fleet/units/a.service".to_string()])), None);
        // What an earlier fleetd decided is finished, with what it removes.
        let before = br#"{"v":1,"decided":true,"removed":["/fleet/units/a.service"]}"#;
        assert_eq!(is_decided(before), Ok(true));
    }
}
