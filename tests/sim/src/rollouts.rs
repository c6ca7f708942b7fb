//! Whether rollouts are kept to: after an undo nobody is given the bad text, while a rollout is
//! paused nobody else is given the new one but as many canaries as are asked for, and the text that
//! all return to is there.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::model::Assignment;
use fleet_core::rollout::{Kind, Pause, Rollout, State};
use fleetd::store::kv::{WatchBatch, WatchEvent};

use crate::etcd::key;

const ROLLOUTS: &str = "/fleet/rollouts/";
const UNITS: &str = "/fleet/units/";
const TEXTS: &str = "/fleet.revisions/";
const ASSIGNMENTS: &str = "/fleet/assignments/";
const MACHINES: &str = "/fleet/machines/";

/// How many canaries the scripts' texts ask for.
const CANARIES: usize = 1;

/// What the store holds of rollouts.
#[derive(Default)]
pub(crate) struct Rollouts {
    known: BTreeMap<String, Rollout>,
    units: BTreeSet<String>,
    texts: BTreeSet<(String, u64)>,
    machines: BTreeSet<String>,
    assignments: BTreeMap<String, Assignment>,
}

impl Rollouts {
    /// A revision was written. The error is what must not have been.
    pub(crate) fn wrote(&mut self, batch: &WatchBatch) -> Result<(), String> {
        let before = self.assignments.clone();
        for event in &batch.events {
            let value = if let WatchEvent::Put(kv) = event { Some(&*kv.value) } else { None };
            self.note(key(event), value);
        }
        for (unit, rollout) in &self.known {
            if let Some(good) = &rollout.good
                && self.units.contains(unit)
                && !self.texts.contains(&(unit.clone(), good.revision))
            {
                return Err(format!(
                    "{unit} may return to revision {}, whose text is gone",
                    good.revision
                ));
            }
        }
        let decided = batch.events.iter().any(|event| key(event).starts_with(ASSIGNMENTS));
        if decided { self.decided(&before) } else { Ok(()) }
    }

    fn note(&mut self, key: &str, value: Option<&[u8]>) {
        if let Some(unit) = key.strip_prefix(ROLLOUTS) {
            match value.and_then(|value| serde_json::from_slice(value).ok()) {
                Some(rollout) => drop(self.known.insert(unit.to_string(), rollout)),
                None => drop(self.known.remove(unit)),
            }
        } else if let Some(id) = key.strip_prefix(ASSIGNMENTS) {
            match value.and_then(|value| serde_json::from_slice(value).ok()) {
                Some(assignment) => drop(self.assignments.insert(id.to_string(), assignment)),
                None => drop(self.assignments.remove(id)),
            }
        } else if let Some(unit) = key.strip_prefix(UNITS) {
            set(&mut self.units, unit.to_string(), value.is_some());
        } else if let Some(id) = key.strip_prefix(MACHINES) {
            set(&mut self.machines, id.to_string(), value.is_some());
        } else if let Some((unit, number)) =
            key.strip_prefix(TEXTS).and_then(|path| path.split_once('/'))
        {
            let number = number.parse().unwrap_or(0);
            set(&mut self.texts, (unit.to_string(), number), value.is_some());
        }
    }

    /// A leader decided something: who has been given what is held back?
    fn decided(&self, before: &BTreeMap<String, Assignment>) -> Result<(), String> {
        for (unit, rollout) in &self.known {
            if rollout.kind() != Kind::Text || rollout.good.is_none() {
                continue;
            }
            let pause = rollout.course().and_then(|course| course.pause);
            let most = match (rollout.state, pause) {
                (State::Paused, Some(Pause::Canary)) => CANARIES,
                (State::Paused | State::Undone, _) => 0,
                _ => continue,
            };
            let with_text = |(id, assignment): (&String, &Assignment)| -> Vec<(String, String)> {
                let has = assignment
                    .instances
                    .iter()
                    .filter(|(_, is)| is.unit.as_str() == unit && is.hash == rollout.text.hash);
                has.map(|(name, _)| (id.clone(), name.to_string())).collect()
            };
            let now: BTreeSet<_> = self.assignments.iter().flat_map(with_text).collect();
            let was: BTreeSet<_> = before.iter().flat_map(with_text).collect();
            let there = now.iter().filter(|(id, _)| self.machines.contains(id)).count();
            if let Some((id, name)) = now.difference(&was).next()
                && there > most
            {
                return Err(format!(
                    "{name} was given revision {} on {id}, and its rollout is {:?}, {pause:?}",
                    rollout.text.revision, rollout.state
                ));
            }
        }
        Ok(())
    }
}

fn set<T: Ord>(all: &mut BTreeSet<T>, one: T, is_there: bool) {
    match is_there {
        true => drop(all.insert(one)),
        false => drop(all.remove(&one)),
    }
}
