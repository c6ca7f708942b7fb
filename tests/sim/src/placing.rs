//! Whether each placement was right when it was decided: by the rules of [`crate::rules`], and by
//! what the store held at the revision that the leader had seen, which the event in the same
//! transaction names.

use std::collections::BTreeMap;

use fleet_core::event::Event;
use fleet_core::model::{Assignment, DesiredState, Machine, Placement, Settings, UnitRecord};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::rollout::{Pause, Rollout, State};
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::xfleet::Constraints;
use fleetd::store::kv::{WatchBatch, WatchEvent};
use serde::de::DeserializeOwned;

use crate::etcd::key;
use crate::rules::{Ground, refusal};
use crate::script::SPARED;

/// What is remembered of, and where the decisions are told.
const REMEMBERED: [&str; 4] =
    ["/fleet/units/", "/fleet/machines/", "/fleet/settings/", "/fleet/rollouts/"];
const EVENTS: &str = "/fleet.events/";

/// A document's texts, each with the revision that wrote it; none where it was deleted.
type Texts = Vec<(i64, Option<Vec<u8>>)>;

/// What the leaders could see.
#[derive(Default)]
pub(crate) struct Placing {
    documents: BTreeMap<String, Texts>,
}

impl Placing {
    /// A revision was written.
    pub(crate) fn wrote(&mut self, batch: &WatchBatch) {
        for event in batch
            .events
            .iter()
            .filter(|event| REMEMBERED.iter().any(|prefix| key(event).starts_with(prefix)))
        {
            let value = if let WatchEvent::Put(kv) = event { Some(kv.value.clone()) } else { None };
            self.documents.entry(key(event).to_string()).or_default().push((batch.revision, value));
        }
    }

    /// A leader's transaction changed a machine's assignment. The error is what is wrong with what
    /// is new there, instances and texts.
    pub(crate) fn assigned(
        &self,
        batch: &WatchBatch,
        id: &str,
        old: &Assignment,
        new: &Assignment,
    ) -> Result<(), String> {
        let is_new = |(name, is): &(&UnitName, &Placement)| {
            old.instances.get(*name).is_none_or(|was| was.revision != is.revision)
        };
        if !new.instances.iter().any(|one| is_new(&one)) {
            return Ok(());
        }
        let told = batch.events.iter().find_map(|event| match event {
            WatchEvent::Put(kv) if kv.key.starts_with(EVENTS) => {
                serde_json::from_slice::<Event>(&kv.value).ok()
            }
            _ => None,
        });
        let seen = told
            .ok_or_else(|| format!("the assignment of {id} was written, and no event tells of it"))?
            .revision;
        let machine: Machine =
            self.at(&format!("/fleet/machines/{id}"), seen).ok_or_else(|| {
                format!("{id} was given instances, and was not registered at revision {seen}")
            })?;
        let settings: Settings =
            self.at(&format!("/fleet/settings/{id}"), seen).unwrap_or_default();
        let demands = |record: &UnitRecord, name: &UnitName| match self.undone(record) {
            Some(rollout) => {
                rollout.good.map_or_else(Default::default, |good| good.constraints.expanded(name))
            }
            None => demands(record, name),
        };
        let wants = |name: &UnitName| {
            self.owner(name, seen).map(|record| demands(&record, name)).unwrap_or_default()
        };
        // What still runs an older text is on its way, if another machine takes it.
        let lingers = |name: &UnitName, is: &Placement| {
            let record = self.owner(name, seen);
            record.is_some_and(|record| !self.is_text_of(is, &record))
        };
        let mut ground = Ground {
            id: &MachineId::new(id),
            labels: &settings.merged_metadata(&machine),
            open: true,
            here: new
                .instances
                .iter()
                .filter(|(name, is)| !lingers(name, is))
                .map(|(name, _)| (name.clone(), wants(name)))
                .collect(),
        };
        for (name, placement) in new.instances.iter().filter(is_new) {
            // What was there before stays there, with a new text, too.
            ground.open = settings.availability.is_active() || old.instances.contains_key(name);
            let record = self.owner(name, seen).filter(|record| self.is_text_of(placement, record));
            let record = record.ok_or_else(|| {
                format!("{name} was placed on {id}, and not wanted so at revision {seen}")
            })?;
            if let Some(refusal) = refusal(&ground, name, &demands(&record, name)) {
                return Err(format!(
                    "{name} was placed where it may not be, at revision {seen}: {refusal}"
                ));
            }
        }
        Ok(())
    }

    /// The record that an instance followed from: its own, or the template's that counted it.
    fn owner(&self, name: &UnitName, revision: i64) -> Option<UnitRecord> {
        let record =
            |name: &UnitName| self.at::<UnitRecord>(&format!("/fleet/units/{name}"), revision);
        record(name).or_else(|| {
            let template = record(&name.template()?)?;
            let spare = template.name.as_str() == SPARED; // as many as `stand_ins.rs` says
            let counts = name.replica_number()? <= template.replicas.unwrap_or(0);
            (counts || spare).then_some(template)
        })
    }

    /// The rollout of the record's text, if the text is undone or goes no further. A leader writes
    /// that before what follows from it.
    fn undone(&self, record: &UnitRecord) -> Option<Rollout> {
        let key = format!("/fleet/rollouts/{}", record.name);
        let rollout = self.at::<Rollout>(&key, i64::MAX)?;
        let goes_back = matches!(rollout.state, State::Undone | State::Paused);
        (goes_back && rollout.good.is_some() && rollout.text.revision == record.revision)
            .then_some(rollout)
    }

    /// Whether an instance was placed as the record says, or with the last good text where the
    /// record's is undone.
    fn is_text_of(&self, placement: &Placement, record: &UnitRecord) -> bool {
        let undone = self.undone(record);
        let is_canary = undone.as_ref().is_some_and(|rollout| {
            rollout.course().is_some_and(|course| course.pause == Some(Pause::Canary))
                && placement.revision == record.revision
        });
        let good = undone.and_then(|rollout| rollout.good).filter(|_| !is_canary);
        let revision = good.map_or(record.revision, |good| good.revision);
        record.desired != DesiredState::Inactive
            && (&placement.unit, placement.revision, placement.state)
                == (&record.name, revision, record.desired)
    }

    /// A document as it stood at a revision.
    fn at<T: DeserializeOwned>(&self, key: &str, revision: i64) -> Option<T> {
        let (_, value) =
            self.documents.get(key)?.iter().rev().find(|(written, _)| *written <= revision)?;
        serde_json::from_slice(value.as_ref()?).ok()
    }
}

fn demands(record: &UnitRecord, name: &UnitName) -> Constraints {
    Constraints::from_file(&UnitFile::parse_lenient(&record.text)).expanded(name)
}
