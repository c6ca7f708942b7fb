//! Whether instances have the values of their configuration: all of one revision, and of none older
//! than their machine is known to have been asked for.

use std::collections::BTreeMap;

use fleet_core::configuration::{ConfigChanged, Configuration, REVISION_VARIABLE, Uses};
use fleet_core::model::{Assignment, Report};
use fleet_core::name::UnitName;
use fleetd::store::kv::{WatchBatch, WatchEvent};
use fleetd::systemd::Job;
use serde::de::DeserializeOwned;

use crate::etcd::key;
use crate::host::COPY;
use crate::script::CONFIGURED;

/// The configuration's keys: both always have the same value.
pub(crate) const KEYS: [&str; 2] = ["first", "second"];

/// Where its present revision lies.
pub(crate) const CONFIG: &str = "/fleet/config/shop";

/// Where its revisions lie.
pub(crate) const REVISIONS: &str = "/fleet.config/shop/";

/// What is known of the configuration and its users.
#[derive(Default)]
pub(crate) struct Values {
    /// The value of each revision that there has been.
    revisions: BTreeMap<u64, String>,
    /// By machine: the generation, and what each instance is asked to have.
    assigned: BTreeMap<usize, (u64, BTreeMap<UnitName, u64>)>,
    /// By machine: the same, of the last generation that it said it had seen.
    seen: BTreeMap<usize, BTreeMap<UnitName, u64>>,
    /// What a start that was asked for must bring.
    due: BTreeMap<(usize, UnitName), u64>,
}

impl Values {
    /// A revision was written.
    pub(crate) fn wrote(&mut self, batch: &WatchBatch) {
        for event in &batch.events {
            let WatchEvent::Put(kv) = event else { continue };
            if key(event) == CONFIG {
                let Some(config) = read::<Configuration>(&kv.value) else { continue };
                let value = config.values.get(KEYS[0]).cloned().unwrap_or_default();
                self.revisions.insert(config.revision, value);
            } else if let Some(id) = key(event).strip_prefix("/fleet/assignments/") {
                let Some(new) = read::<Assignment>(&kv.value) else { continue };
                let asked = new.instances.iter().map(|(name, is)| (name.clone(), is.config));
                self.assigned.insert(number(id), (new.generation, asked.collect()));
            } else if let Some(id) = key(event).strip_prefix("/fleet/reports/") {
                let said = read::<Report>(&kv.value).map(|report| report.generation);
                let assigned = self.assigned.get(&number(id));
                if let Some((_, asked)) = assigned.filter(|(now, _)| said == Some(*now)) {
                    self.seen.insert(number(id), asked.clone());
                }
            }
        }
    }

    /// fleetd asked its systemd for a job: from now on a start brings what the machine has seen.
    pub(crate) fn asked(&mut self, machine: usize, name: &UnitName, job: Job) {
        let asked = self.seen.get(&machine).and_then(|seen| seen.get(name));
        if let Some(asked) = asked.filter(|_| matches!(job, Job::Start | Job::Restart)) {
            self.due.insert((machine, name.clone()), *asked);
        }
    }

    /// A unit entered a state. The error is what is wrong with its values.
    pub(crate) fn entered(
        &mut self,
        machine: usize,
        name: &UnitName,
        active: &str,
        environment: &[String],
    ) -> Result<(), String> {
        if !is_configured(name) || !matches!(active, "activating" | "active") {
            return Ok(());
        }
        let revision = of_one_revision(environment, &self.revisions)
            .map_err(|what| format!("{name} on machine {machine} {what}"))?;
        let due = if machine < COPY { self.due.remove(&(machine, name.clone())) } else { None };
        match (revision, due) {
            (Some(revision), Some(due)) if revision < due => Err(format!(
                "{name} on machine {machine} started with revision {revision} of its \
                    configuration when {due} was asked for"
            )),
            _ => Ok(()),
        }
    }
}

/// The revision of the values in an environment, if there are any. The error is what is wrong with
/// them.
fn of_one_revision(
    environment: &[String],
    revisions: &BTreeMap<u64, String>,
) -> Result<Option<u64>, String> {
    let value =
        |key: &str| environment.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let Some(revision) = value(REVISION_VARIABLE).and_then(|text| text.parse().ok()) else {
        return Ok(None);
    };
    let wanted = revisions.get(&revision).map(String::as_str);
    let values = KEYS.map(value);
    match wanted.is_some() && values.iter().all(|value| *value == wanted) {
        true => Ok(Some(revision)),
        false => Err(format!("has {values:?} as revision {revision}, which is {wanted:?}")),
    }
}

/// Whether what runs at rest has the present values, by the text that it runs and its environment.
pub(crate) fn up_to_date(
    text: &str,
    environment: &[String],
    present: Option<&Configuration>,
) -> Result<(), String> {
    let Some(uses) = Uses::in_text(text) else { return Ok(()) };
    let present = present.ok_or("runs without its configuration")?;
    let value = present.values.get(KEYS[0]).cloned().unwrap_or_default();
    if uses.changed == ConfigChanged::Ignore {
        return Ok(());
    }
    match of_one_revision(environment, &BTreeMap::from([(present.revision, value)]))? {
        Some(_) => Ok(()),
        None => Err("runs without its values".to_string()),
    }
}

pub(crate) fn is_configured(name: &UnitName) -> bool {
    let unit = name.template().unwrap_or_else(|| name.clone());
    CONFIGURED.iter().any(|(configured, _)| *configured == unit.as_str())
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

/// The number of the machine with this id.
fn number(id: &str) -> usize {
    id.get(24..).and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_two_revisions_are_told_from_those_of_one() {
        let revisions = BTreeMap::from([(1, "a".to_string()), (2, "b".to_string())]);
        let found = |words: &str| {
            let lines: Vec<String> = words.split_whitespace().map(str::to_string).collect();
            of_one_revision(&lines, &revisions)
        };
        assert_eq!(found("FLEET_CONFIG_REVISION=2 first=b second=b"), Ok(Some(2)));
        assert_eq!(found("PATH=/bin"), Ok(None));
        for bad in ["first=b second=a", "first=a second=a", "first=b", ""] {
            assert!(found(&format!("FLEET_CONFIG_REVISION=2 {bad}")).is_err(), "{bad}");
        }
        assert!(found("FLEET_CONFIG_REVISION=3 first=b second=b").is_err(), "there is none");
    }
}
