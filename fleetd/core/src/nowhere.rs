//! What the leader found no machine for, by its own plan: written down, so that who waits over
//! another machine is told the leader's word.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Gathered, Numbers};
use crate::model::{FORMAT, Unknown, is_zero};
use crate::name::UnitName;
use crate::plan::Plan;

/// The largest such document, in bytes. What is left out is waited for, without a word why.
const MAX_BYTES: usize = 256 * 1024;

/// `nowhere`: the instances that fit no machine. Written by the leader, when it changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Nowhere {
    /// The format, [`FORMAT`].
    pub v: u32,
    /// In which term: the revision that created the leader key. Another leader has not said it.
    pub term: i64,
    /// Replicas by their template with their numbers, all others by their own name.
    pub units: BTreeMap<UnitName, Numbers>,
    /// How many units did not fit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Nowhere {
    /// What a plan of that term found no machine for.
    pub fn of(plan: &Plan, term: i64) -> Nowhere {
        let mut gathered = Gathered::default();
        plan.unplaced
            .iter()
            .flat_map(|unplaced| &unplaced.instances)
            .for_each(|instance| gathered.add(instance));
        let mut nowhere = Nowhere { v: FORMAT, term, ..Nowhere::default() };
        let mut room = MAX_BYTES;
        for (unit, numbers) in gathered.into_units() {
            // A name, two pairs of quotes, a colon and a comma; a backslash takes two bytes.
            let bytes = 2 * unit.as_str().len() + numbers.to_string().len() + 6;
            match room.checked_sub(bytes) {
                Some(rest) => {
                    room = rest;
                    nowhere.units.insert(unit, numbers);
                }
                None => nowhere.left_out += 1,
            }
        }
        nowhere
    }

    /// What of this still holds by a later plan, while nothing is to be added: machines may be
    /// about to return.
    #[must_use]
    pub fn as_far_as(mut self, later: &Nowhere) -> Nowhere {
        self.units.retain(|unit, numbers| {
            let Some(still) = later.units.get(unit) else { return false };
            if numbers.is_empty() {
                return true;
            }
            *numbers = numbers.iter().filter(|number| still.contains(*number)).collect();
            !numbers.is_empty()
        });
        self
    }

    /// Whether the instance is in it.
    pub fn holds(&self, instance: &UnitName) -> bool {
        match (instance.template(), instance.replica_number()) {
            (Some(template), Some(number)) => {
                self.units.get(&template).is_some_and(|numbers| numbers.contains(number))
            }
            _ => self.units.contains_key(instance),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Unplaced;

    fn of(instances: &[&str]) -> Nowhere {
        let unplaced = |name: &&str| Unplaced {
            unit: UnitName::trusted(*name),
            instances: vec![UnitName::trusted(*name)],
            misfits: Vec::new(),
        };
        Nowhere::of(
            &Plan { unplaced: instances.iter().map(unplaced).collect(), ..Plan::default() },
            7,
        )
    }

    #[test]
    fn replicas_are_held_by_number_and_only_what_still_holds_is_kept() {
        let before = of(&["web@1.service", "web@2.service", "db.service", "old.service"]);
        let read: Nowhere = serde_json::from_value(serde_json::to_value(&before).unwrap()).unwrap();
        assert_eq!(read, before);
        let now =
            before.as_far_as(&of(&["web@2.service", "web@3.service", "db.service", "new.service"]));
        let held = [
            "web@1.service",
            "web@2.service",
            "web@3.service",
            "db.service",
            "old.service",
            "new.service",
        ]
        .map(|name| now.holds(&UnitName::trusted(name)));
        assert_eq!(held, [false, true, false, true, false, false]);
    }

    #[test]
    fn ten_thousand_long_names_fill_no_document() {
        let names: Vec<String> =
            (0..10_000).map(|n| format!("{n}-{}.service", "x".repeat(200))).collect();
        let nowhere = of(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(serde_json::to_vec(&nowhere).unwrap().len() <= MAX_BYTES + 200);
        assert_eq!(nowhere.units.len() as u64 + nowhere.left_out, 10_000);
    }
}
