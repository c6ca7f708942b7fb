//! Units: their records and their texts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_core::brief;
use fleet_core::model::UnitRecord;
use fleet_core::name::UnitName;
use tracing::{info, warn};

use super::acts::{self, Origin};
use super::batch::{COMMIT_BYTES, unchanged, within};
use super::keys::{Key, ORIGIN};
use super::kv::{Change, Compare, KeyValue, MAX_TXN_OPS};
use super::{Mirror, Store, StoreError, Versioned, mirror};
use crate::process::panics;

/// How often it is tried again to remove the texts of units that are gone.
const FORGET_TRIES: usize = 20;

/// How long it waits before each try: together, an outage of ten minutes.
const FORGET_PAUSE: Duration = Duration::from_secs(30);

/// The largest unit record, in bytes: a unit file at its limit, escaped as JSON, in one of etcd's
/// requests.
pub(super) const MAX_RECORD_BYTES: usize = 1_450_000;

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

/// A text that a unit has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptText {
    /// Its number.
    pub number: u64,
    /// The text.
    pub text: String,
    /// Where it comes from; none if an older version wrote it.
    pub origin: Option<Origin>,
}

impl Store {
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
        changes.extend(acts::changes(self.told_act(old).await?));
        if new_text {
            changes.extend(acts::changes(self.origin_of(record)));
            changes.extend(acts::changes(self.begin_to_use(std::iter::once(record))));
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
        let mut changes = vec![Change::Delete { key: key.clone() }];
        changes.extend(acts::changes(self.told_act(Some(old)).await?));
        let revision = self.apply_unlocked(&[unchanged(&key, Some(old))], &changes, &key).await?;
        // The texts go after the record: if this is cut short, stray texts are harmless, a record
        // without its text is not.
        self.forget_texts_of(std::slice::from_ref(name), revision).await;
        Ok(revision)
    }

    /// Removes the texts of units that were removed at this revision. The units are gone, so it is
    /// no error if the store is away now: a task of its own tries again.
    pub(super) async fn forget_texts_of(&self, names: &[UnitName], revision: i64) {
        let mut left = self.texts_left(names, revision).await;
        if left.is_empty() {
            return;
        }
        let store = self.clone();
        drop(panics::spawn_contained(async move {
            for _ in 0..FORGET_TRIES {
                tokio::time::sleep(FORGET_PAUSE).await;
                left = store.texts_left(&left, revision).await;
                if left.is_empty() {
                    return;
                }
            }
            warn!(
                "the texts of {} units that were removed are still in the store and only take \
                    space; `fleetctl store check` names them",
                left.len()
            );
        }));
    }

    /// Those of these units whose texts could not be removed.
    async fn texts_left(&self, names: &[UnitName], revision: i64) -> Vec<UnitName> {
        let mut left = Vec::new();
        for (done, name) in names.iter().enumerate() {
            if let Err(error) = self.forget_texts(name, revision).await {
                info!("{name} is removed, and its texts are not yet: {error}");
                left.extend(names[done..].iter().cloned());
                break; // the others would wait for the same store
            }
        }
        left
    }

    /// Removes the texts of a unit that was removed at this revision.
    async fn forget_texts(&self, name: &UnitName, revision: i64) -> Result<(), StoreError> {
        let mut texts = self.kv.keys(&self.keys.texts_of(name)).await?.kvs;
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
        Ok(())
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
        let kept = self.kept_texts_of(name).await?;
        Ok(kept.into_iter().map(|kept| (kept.number, kept.text)).collect())
    }

    /// The same, with where each comes from.
    pub async fn kept_texts_of(&self, name: &UnitName) -> Result<Vec<KeptText>, StoreError> {
        let prefix = self.keys.texts_of(name);
        let found = self.kv.range(&prefix).await?.kvs;
        let number = |key: &str| key.strip_prefix(&prefix)?.parse::<u64>().ok();
        let origin = |kv: &KeyValue| {
            let number = number(kv.key.strip_suffix(ORIGIN)?)?;
            Some((number, mirror::parse::<Origin>(&kv.value).ok()?))
        };
        let mut origins: BTreeMap<u64, Origin> = found.iter().filter_map(origin).collect();
        let kept = |kv: &KeyValue| {
            let number = number(&kv.key)?;
            let text = String::from_utf8_lossy(&kv.value).into_owned();
            Some(KeptText { number, text, origin: origins.remove(&number) })
        };
        Ok(found.iter().filter_map(kept).collect())
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
}

/// A unit's record as JSON, below the limit, with what lists show of its text.
pub(super) fn encode_record(key: &str, record: &UnitRecord) -> Result<Vec<u8>, StoreError> {
    within(key, brief::encode(record), MAX_RECORD_BYTES)
}
