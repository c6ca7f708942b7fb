//! Whether `UpdateOrder=start-first` is kept: what a decision takes down has a spare instance that
//! has stayed up, by what each systemd really ran.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::model::{Assignment, DesiredState, Placement, UnitRecord, Why};
use fleet_core::name::UnitName;
use tokio::time::Instant;

use crate::budget::{KNOWN, STAYED};
use crate::script::SPARED;

/// The instances of the unit with spare ones.
#[derive(Default)]
pub(crate) struct StandIns {
    /// How many are wanted.
    wanted: u32,
    /// How many were wanted at most.
    most: u32,
    /// Since when each has run, where.
    up: BTreeMap<(usize, UnitName), Instant>,
    /// The spare ones that are assigned, where.
    spares: BTreeSet<(usize, UnitName)>,
    /// Those of them that have stayed up at some time: what a leader may have been told.
    proven: BTreeSet<(usize, UnitName)>,
    /// Those that a decision took down while they ran, until they have stayed up again.
    down: BTreeMap<UnitName, Instant>,
}

impl StandIns {
    /// A unit of a machine entered a state.
    pub(crate) fn entered(&mut self, machine: usize, name: &UnitName, active: &str) {
        if name.template().is_none_or(|template| template.as_str() != SPARED) {
            return;
        }
        self.look();
        match active {
            "active" => self.up.insert((machine, name.clone()), Instant::now()),
            _ => self.up.remove(&(machine, name.clone())),
        };
    }

    /// The unit's record was written, or deleted. Another count is a user's decision, after which
    /// nothing is missed.
    pub(crate) fn wanted(&mut self, record: Option<&UnitRecord>) {
        let launched = record.filter(|record| record.desired == DesiredState::Launched);
        let wanted = launched.and_then(|record| record.replicas).unwrap_or(0);
        self.most = self.most.max(wanted);
        if wanted != self.wanted {
            self.wanted = wanted;
            self.down.clear();
        }
    }

    /// Notes what has stayed up by now.
    fn look(&mut self) {
        let up = &self.up;
        let stayed = |place: &(usize, UnitName)| {
            up.get(place).is_some_and(|since| since.elapsed() >= STAYED)
        };
        self.proven.extend(self.spares.iter().filter(|place| stayed(place)).cloned());
        self.down.retain(|name, at| {
            let mut lives = up.iter().filter(|((_, other), _)| other == name);
            !lives.any(|(_, since)| *since > *at && since.elapsed() >= STAYED)
        });
    }

    /// A whole revision was written. The error is that there are more spares than were ever wanted:
    /// a leader may have decided by an earlier count.
    pub(crate) fn written(&self) -> Result<(), String> {
        let (spares, most) = (self.spares.len(), self.most as usize);
        match spares <= most {
            true => Ok(()),
            false => Err(format!("{spares} spare instances, and no more than {most} were wanted")),
        }
    }

    /// A machine's assignment was written. The error is what is wrong.
    pub(crate) fn assigned(
        &mut self,
        machine: usize,
        old: &Assignment,
        new: &Assignment,
    ) -> Result<(), String> {
        self.look();
        let launched = |placement: &&Placement| {
            placement.unit.as_str() == SPARED && placement.state == DesiredState::Launched
        };
        let is_spare = |name: &UnitName| name.replica_number().is_some_and(|n| n > self.wanted);
        let of = |assignment: &Assignment| -> BTreeSet<(usize, UnitName)> {
            let spares =
                assignment.instances.iter().filter(|(name, is)| launched(is) && is_spare(name));
            spares.map(|(name, _)| (machine, name.clone())).collect()
        };
        let spares = of(new);
        self.spares.retain(|(other, name)| *other != machine && is_spare(name));
        self.spares.extend(spares);
        self.proven.retain(|place| self.spares.contains(place));
        let mut taken = Vec::new();
        for (name, is) in new.instances.iter().filter(|(_, is)| launched(is)) {
            let from = match (old.instances.get(name).filter(launched), &is.why) {
                (Some(was), _) if (&was.hash, was.restart) != (&is.hash, is.restart) => machine,
                (None, Why::Drained(from)) => {
                    usize::from_str_radix(&from.as_str()[24..], 16).unwrap_or(usize::MAX)
                }
                _ => continue,
            };
            let place = (from, name.clone());
            self.proven.remove(&place);
            let known = self.up.get(&place).is_some_and(|since| since.elapsed() >= KNOWN);
            let copy = from != machine && self.up.contains_key(&(machine, name.clone()));
            if known && !copy && !is_spare(name) && !self.down.contains_key(name) {
                taken.push(name.clone());
            }
        }
        self.down.extend(taken.iter().map(|name| (name.clone(), Instant::now())));
        if taken.is_empty() || self.down.len() <= self.proven.len() {
            return Ok(());
        }
        let names: Vec<&str> = self.down.keys().map(UnitName::as_str).collect();
        let names = names.join(", ");
        Err(format!("{names} were taken down, and {} spare ones stand in", self.proven.len()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn assignment(generation: u64, revision: u64, numbers: &[u32]) -> Assignment {
        let name = |number: &u32| SPARED.replace('@', &format!("@{number}"));
        let placement = json!({
            "unit": SPARED, "revision": revision, "hash": format!("h{revision}"),
            "state": "launched", "why": "fewest", "since_ms": 0,
        });
        let instances: BTreeMap<String, _> =
            numbers.iter().map(|number| (name(number), placement.clone())).collect();
        let document = json!({"v": 1, "generation": generation, "instances": instances});
        serde_json::from_value(document).expect("an assignment")
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_is_taken_down_only_beside_a_spare_that_has_stayed_up() {
        let name = |number: u32| UnitName::trusted(SPARED.replace('@', &format!("@{number}")));
        for (stays, allowed) in [(STAYED, true), (STAYED / 2, false)] {
            let mut judge = StandIns { wanted: 1, ..StandIns::default() };
            let (first, second) = (assignment(1, 1, &[1]), assignment(1, 2, &[2]));
            judge.entered(0, &name(1), "active");
            tokio::time::advance(KNOWN).await;
            judge.assigned(1, &Assignment::default(), &second).expect("a spare is placed");
            judge.entered(1, &name(2), "active");
            tokio::time::advance(stays).await;
            let judged = judge.assigned(0, &first, &assignment(2, 2, &[1]));
            assert_eq!(judged.is_ok(), allowed, "after {stays:?}: {judged:?}");
        }
    }
}
