//! Configurations: their values (`config/`), their revisions beside the root, and who uses them.
//!
//! A change is written together with the records of the units that use the configuration, so who
//! they are must not change between the reading of the units and that write: a text that begins to
//! use one touches the key of its users, which a change compares.

use std::collections::BTreeSet;

use fleet_core::app::AppName;
use fleet_core::configuration::{Configuration, KEPT_REVISIONS, Uses};
use fleet_core::model::{MAX_DOCUMENT_BYTES, UnitRecord};
use fleet_core::name::UnitName;

use super::acts;
use super::batch::{COMMIT_BYTES, encode, unchanged};
use super::keys::Key;
use super::kv::{Change, Compare, KeyValue, MAX_TXN_OPS, WatchStream};
use super::units::encode_record;
use super::{Documents, Part, Store, StoreError, Versioned, mirror};

/// How many configurations one request asks for: each document may have a megabyte, escaped, and
/// an answer four.
const DOCUMENTS_A_REQUEST: usize = 3;

/// The records of all units, and what a write compares that goes by them.
#[derive(Debug)]
pub struct Users {
    /// Every unit.
    pub records: Vec<Versioned<UnitRecord>>,
    /// Since when nobody has begun to use the configuration.
    begun: Compare,
}

impl Store {
    /// One configuration, and the store's revision.
    pub async fn configuration(
        &self,
        name: &AppName,
    ) -> Result<(Option<Versioned<Configuration>>, i64), StoreError> {
        self.document(&self.keys.config(name)).await
    }

    /// Several configurations, in the order asked; an absent one is `None`.
    pub async fn configurations(
        &self,
        wanted: &[AppName],
    ) -> Result<Vec<Option<Configuration>>, StoreError> {
        let mut found = Vec::with_capacity(wanted.len());
        for chunk in wanted.chunks(DOCUMENTS_A_REQUEST) {
            let keys: Vec<String> = chunk.iter().map(|name| self.keys.config(name)).collect();
            for kv in self.kv.get_many(&keys).await?.0 {
                found.push(kv.map(|kv| self.read_configuration(&kv)).transpose()?);
            }
        }
        Ok(found)
    }

    /// All configurations, by name.
    pub async fn all_configurations(&self) -> Result<Vec<Configuration>, StoreError> {
        let found = self.kv.ranges(&self.keys.part(Part::Configurations)).await?;
        found
            .kvs
            .iter()
            .filter(|kv| matches!(self.keys.read(&kv.key), Some(Key::Config(_))))
            .map(|kv| self.read_configuration(kv))
            .collect()
    }

    /// The revisions of a configuration that are kept, the present one among them, in order.
    pub async fn configuration_revisions(
        &self,
        name: &AppName,
    ) -> Result<Vec<Configuration>, StoreError> {
        let kept = self.kv.range(&self.keys.config_revisions_of(name)).await?;
        kept.kvs.iter().map(|kv| self.read_configuration(kv)).collect()
    }

    /// Every change of a configuration after `revision`. Names that begin with this one come along:
    /// ask [`Store::is_configuration`]. Read it with [`Store::read_configuration`].
    pub async fn watch_configuration(
        &self,
        name: &AppName,
        revision: i64,
    ) -> Result<WatchStream, StoreError> {
        self.kv.watch(&self.keys.config(name), revision + 1).await
    }

    /// Whether a key that [`Store::watch_configuration`] brought is this configuration's.
    pub fn is_configuration(&self, key: &str, name: &AppName) -> bool {
        key == self.keys.config(name)
    }

    /// Reads a value that [`Store::watch_configuration`] brought.
    pub fn read_configuration(&self, kv: &KeyValue) -> Result<Configuration, StoreError> {
        mirror::parse(&kv.value)
            .map_err(|problem| StoreError::Corrupt { key: kv.key.clone(), problem })
    }

    /// All units, for a change of the configuration `name`.
    pub async fn configuration_users(&self, name: &AppName) -> Result<Users, StoreError> {
        // Read first: who begins to use it after this, begins after this key was read.
        let begun = self.keys.config_users(name);
        let revision = self.kv.get(&begun).await?.0.map(|kv| kv.mod_revision);
        let mirror = self.read(&[Part::Units]).await?;
        let cluster = mirror.cluster();
        let record = |(name, record): (&UnitName, &std::sync::Arc<UnitRecord>)| Versioned {
            value: UnitRecord::clone(record),
            revision: cluster.units_written.get(name).copied().unwrap_or(0),
        };
        let uses = |(_, record): &(&UnitName, &std::sync::Arc<UnitRecord>)| {
            Uses::in_text(&record.text).is_some_and(|uses| uses.name == *name)
        };
        let records = cluster.records.iter().filter(uses).map(record).collect();
        mirror.drop_later();
        Ok(Users { records, begun: unchanged(&begun, revision) })
    }

    /// Writes a configuration that still is as `old` says (`None`: absent), with the records of
    /// those that use it, all of them or nothing. Answers with the store's revision.
    pub async fn put_configuration(
        &self,
        config: &Configuration,
        old: Option<i64>,
        users: &Users,
    ) -> Result<i64, StoreError> {
        let key = self.keys.config(&config.name);
        let mut documents = self.configuration_documents(config)?;
        for record in &users.records {
            let key = self.keys.unit(&record.value.name);
            let value = encode_record(&key, &record.value)?;
            documents.push((key, value));
        }
        let mut compares = vec![unchanged(&key, old), users.begun.clone()];
        compares.extend(
            users.records.iter().map(|record| {
                unchanged(&self.keys.unit(&record.value.name), Some(record.revision))
            }),
        );
        let bytes: usize = documents.iter().map(|(key, value)| key.len() + value.len()).sum();
        let outdated = self.outdated(config);
        if compares.len() < MAX_TXN_OPS - 1
            && documents.len() < MAX_TXN_OPS - 2
            && bytes <= COMMIT_BYTES
        {
            let puts =
                documents.into_iter().map(|(key, value)| Change::Put { key, value, lease: None });
            let told = acts::changes(self.told_act(old).await?);
            let changes: Vec<Change> = puts.chain(outdated).chain(told).collect();
            return self.apply_unlocked(&compares, &changes, &key).await;
        }
        // More than one transaction takes: nobody else writes units meanwhile.
        let lock = self.lock_units().await?;
        if let Err(error) = self.still_holds(&compares, &key).await {
            self.unlock_units(lock).await?;
            return Err(error);
        }
        let records: Vec<(UnitRecord, bool)> =
            users.records.iter().map(|record| (record.value.clone(), false)).collect();
        let configurations = std::slice::from_ref(config);
        let all = Documents { records: &records, configurations, ..Documents::default() };
        let revision = self.import(lock, &all).await?;
        self.kv.txn(&[], &outdated.into_iter().collect::<Vec<_>>()).await?;
        Ok(revision)
    }

    /// Removes a configuration and its revisions, if it still is as it was read and nobody has
    /// begun to use it.
    pub async fn delete_configuration(
        &self,
        name: &AppName,
        old: i64,
        users: &Users,
    ) -> Result<i64, StoreError> {
        let key = self.keys.config(name);
        let kept = self.kv.range(&self.keys.config_revisions_of(name)).await?;
        let mut gone = vec![Change::Delete { key: key.clone() }];
        gone.extend(
            kept.kvs.into_iter().take(MAX_TXN_OPS - 3).map(|kv| Change::Delete { key: kv.key }),
        );
        gone.push(Change::Delete { key: self.keys.config_users(name) });
        gone.extend(acts::changes(self.told_act(Some(old)).await?));
        let compares = [unchanged(&key, Some(old)), users.begun.clone()];
        self.apply_unlocked(&compares, &gone, &key).await
    }

    /// The document of a configuration, and that of its revision.
    pub(super) fn configuration_documents(
        &self,
        config: &Configuration,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let key = self.keys.config(&config.name);
        let value = encode(&key, config, MAX_DOCUMENT_BYTES)?;
        let kept = self.keys.config_revision(&config.name, config.revision);
        Ok(vec![(key, value.clone()), (kept, value)])
    }

    /// The revision that goes for a new one.
    fn outdated(&self, config: &Configuration) -> Option<Change> {
        let revision = config.revision.checked_sub(KEPT_REVISIONS).filter(|first| *first > 0)?;
        Some(Change::Delete { key: self.keys.config_revision(&config.name, revision) })
    }

    /// What is written with new texts that use configurations, a document each.
    pub(super) fn begin_to_use<'a>(
        &self,
        records: impl Iterator<Item = &'a UnitRecord>,
    ) -> Vec<(String, Vec<u8>)> {
        let used = records.filter_map(|record| Uses::in_text(&record.text));
        let used: BTreeSet<AppName> = used.map(|uses| uses.name).collect();
        used.iter().map(|name| (self.keys.config_users(name), b"{\"v\":1}".to_vec())).collect()
    }

    /// Compares alone, in as many requests as that takes.
    async fn still_holds(&self, compares: &[Compare], what: &str) -> Result<(), StoreError> {
        for chunk in compares.chunks(MAX_TXN_OPS) {
            self.apply(chunk, &[], what).await?;
        }
        Ok(())
    }
}
