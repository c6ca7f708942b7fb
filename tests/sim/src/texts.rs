//! Whether each text that a unit has had is kept for as long as there is the unit: what it may be
//! rolled back to.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::model::UnitRecord;
use fleet_core::unit::file::UnitFile;
use fleetd::store::kv::{WatchBatch, WatchEvent};

use crate::etcd::key;

/// Where the texts lie, and the records.
const TEXTS: &str = "/fleet.revisions/";
const RECORDS: &str = "/fleet/units/";

/// All texts and records that stand in the store.
#[derive(Default)]
pub(crate) struct Texts {
    texts: BTreeMap<String, BTreeMap<u64, String>>,
    records: BTreeMap<String, UnitRecord>,
}

impl Texts {
    /// A revision was written. The error is what is missing.
    pub(crate) fn wrote(&mut self, batch: &WatchBatch) -> Result<(), String> {
        let mut touched = BTreeSet::new();
        for event in &batch.events {
            let value = if let WatchEvent::Put(kv) = event { Some(&kv.value) } else { None };
            if let Some(name) = key(event).strip_prefix(RECORDS) {
                match value.and_then(|value| serde_json::from_slice(value).ok()) {
                    Some(record) => drop(self.records.insert(name.to_string(), record)),
                    None => drop(self.records.remove(name)),
                }
                touched.insert(name);
            } else if let Some((name, number)) =
                key(event).strip_prefix(TEXTS).and_then(|path| path.split_once('/'))
            {
                let (texts, number) =
                    (self.texts.entry(name.to_string()).or_default(), number.parse().unwrap_or(0));
                match value {
                    Some(value) => {
                        drop(texts.insert(number, String::from_utf8_lossy(value).into_owned()))
                    }
                    None => drop(texts.remove(&number)),
                }
                touched.insert(name);
            }
        }
        touched.into_iter().try_for_each(|name| self.kept(name))
    }

    fn kept(&self, name: &str) -> Result<(), String> {
        let Some(record) = self.records.get(name) else { return Ok(()) };
        let none = BTreeMap::new();
        let texts = self.texts.get(name).unwrap_or(&none);
        if let Some(number) = (1..=record.revision).find(|number| !texts.contains_key(number)) {
            return Err(format!(
                "the text of revision {number} of {name} is not kept; its record is at {}",
                record.revision
            ));
        }
        let hash = |text: &str| UnitFile::parse_lenient(text).hash();
        if hash(&texts[&record.revision]) != hash(&record.text) {
            return Err(format!(
                "the text kept as revision {} of {name} is not that of its record",
                record.revision
            ));
        }
        Ok(())
    }
}
