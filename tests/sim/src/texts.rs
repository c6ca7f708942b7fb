//! Whether the texts are kept that a unit may be rolled back to, that anything runs by, or that a
//! rollout goes back to, for as long as there is the unit.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::model::{Assignment, UnitRecord};
use fleet_core::rollout::Rollout;
use fleet_core::unit::file::UnitFile;
use fleetd::store::kv::{WatchBatch, WatchEvent};

use crate::etcd::key;

/// Where the texts lie, and the records.
const TEXTS: &str = "/fleet.revisions/";
const RECORDS: &str = "/fleet/units/";

const ASSIGNMENTS: &str = "/fleet/assignments/";
const ROLLOUTS: &str = "/fleet/rollouts/";

/// So many of the newest stay in any case.
const NEWEST: u64 = 10;

/// All texts and records that stand in the store, and which texts are in use.
#[derive(Default)]
pub(crate) struct Texts {
    texts: BTreeMap<String, BTreeMap<u64, String>>,
    records: BTreeMap<String, UnitRecord>,
    /// The texts of each machine's instances, by unit and number.
    assigned: BTreeMap<String, BTreeSet<(String, u64)>>,
    /// Those that each unit's rollout tries and goes back to.
    rollouts: BTreeMap<String, BTreeSet<u64>>,
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
            } else if let Some(machine) = key(event).strip_prefix(ASSIGNMENTS) {
                let read = value.and_then(|value| serde_json::from_slice::<Assignment>(value).ok());
                let placements = read.iter().flat_map(|it| it.instances.values());
                let used = placements.map(|it| (it.unit.to_string(), it.revision)).collect();
                self.assigned.insert(machine.to_string(), used);
            } else if let Some(unit) = key(event).strip_prefix(ROLLOUTS) {
                let read = value.and_then(|value| serde_json::from_slice::<Rollout>(value).ok());
                let used = read.iter().flat_map(|it| [Some(&it.text), it.good.as_ref()]);
                let used = used.flatten().map(|text| text.revision).collect();
                self.rollouts.insert(unit.to_string(), used);
            } else if let Some((name, number)) =
                key(event).strip_prefix(TEXTS).and_then(|path| path.split_once('/'))
            {
                // Beside a text stands where it comes from.
                let Ok(number) = number.parse() else { continue };
                let texts = self.texts.entry(name.to_string()).or_default();
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
        let newest = record.revision.saturating_sub(NEWEST - 1).max(1)..=record.revision;
        let assigned = self.assigned.values().flatten().filter(|(unit, _)| unit == name);
        let assigned = assigned.map(|(_, number)| *number);
        let rollout = self.rollouts.get(name).into_iter().flatten().copied();
        // A unit of the same name that is gone may have had more.
        let used = assigned.chain(rollout).filter(|number| *number <= record.revision);
        if let Some(number) = newest.chain(used).find(|number| !texts.contains_key(number)) {
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
