//! Whether `MaxUnavailable=` is kept: judged by what each systemd really ran when the leader
//! decided, not by what was reported. What has a health check counts from when it really answers
//! well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_core::model::{Assignment, DesiredState, Placement, UnitRecord, Why};
use fleet_core::name::UnitName;
use fleet_core::unit::file::ShortHash;
use tokio::time::Instant;

use crate::script::{BUDGET, READY};

/// An instance that has run for so long is known to run: longer than the longest fault, behind
/// which a report may be out of date.
pub(crate) const KNOWN: Duration = Duration::from_secs(50);

/// What came up counts as up when it has stayed up for so long: the 5 s of the docs, by a clock
/// that may be one percent fast.
pub(crate) const STAYED: Duration = Duration::from_millis(4_950);

/// Longer than any run, in milliseconds.
const NEVER_MS: u64 = 86_400_000;

/// The instances of a unit with a budget.
pub(crate) struct Budget {
    unit: &'static str,
    /// Those that run, where.
    up: BTreeMap<(usize, UnitName), Life>,
    /// Whether what made programs answer badly is mended: all that runs answers well.
    mended: bool,
    /// The machines where they answer badly, whatever they are.
    sick: BTreeSet<usize>,
    /// Those that run there.
    unwell: BTreeMap<(usize, UnitName), Life>,
    /// Those that a decision took down while they ran, until they have stayed up again.
    down: BTreeMap<UnitName, Down>,
}

/// An instance that runs.
#[derive(Clone, Copy)]
struct Life {
    /// Since when.
    began: Instant,
    /// Since when it answers its health check well, which may be still to come; if it has none, it
    /// does from the beginning.
    well: Instant,
}

/// An instance that a decision took down.
struct Down {
    at: Instant,
    /// The text that it ran with.
    hash: ShortHash,
    /// … and the restarts.
    restart: u64,
}

impl Down {
    fn now(hash: ShortHash, restart: u64) -> Down {
        Down { at: Instant::now(), hash, restart }
    }
}

impl Budget {
    /// Of this unit.
    pub(crate) fn of(unit: &'static str) -> Budget {
        let (up, unwell, down) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Budget { unit, up, mended: false, sick: BTreeSet::new(), unwell, down }
    }

    /// The unit.
    pub(crate) fn unit(&self) -> &'static str {
        self.unit
    }

    /// A unit of a machine entered a state. Its environment tells when it answers well.
    pub(crate) fn entered(
        &mut self,
        machine: usize,
        name: &UnitName,
        active: &str,
        environment: &[String],
    ) {
        if !self.is_of(name) {
            return;
        }
        let life = (machine, name.clone());
        self.up.remove(&life);
        self.unwell.remove(&life);
        let mut ready = environment.iter().filter(|_| !self.mended);
        let ready = ready.find_map(|line| line.strip_prefix(READY));
        // A host's clock may be one percent fast.
        let after = ready.map_or(0, |ms| ms.parse().map_or(NEVER_MS, |ms: u64| ms * 98 / 100));
        if active == "active" {
            let began = Instant::now();
            let is = Life { began, well: began + Duration::from_millis(after) };
            match self.sick.contains(&machine) {
                true => self.unwell.insert(life, is),
                false => self.up.insert(life, is),
            };
        }
    }

    /// From now on what runs on this machine answers badly.
    pub(crate) fn falls_sick(&mut self, machine: usize) {
        self.sick.insert(machine);
        let here: Vec<_> = self.up.keys().filter(|(at, _)| *at == machine).cloned().collect();
        for life in here {
            self.unwell.extend(self.up.remove(&life).map(|is| (life, is)));
        }
    }

    /// No longer.
    pub(crate) fn is_mended(&mut self, machine: usize) {
        self.sick.remove(&machine);
        let here: Vec<_> = self.unwell.keys().filter(|(at, _)| *at == machine).cloned().collect();
        for life in here {
            let is = self.unwell.remove(&life);
            let is = is.map(|is| Life { well: is.well.max(Instant::now()), ..is });
            self.up.extend(is.map(|is| (life, is)));
        }
    }

    /// From now on every program answers well as soon as it runs.
    pub(crate) fn all_are_mended(&mut self) {
        self.mended = true;
        for life in self.up.values_mut().chain(self.unwell.values_mut()) {
            life.well = life.well.min(Instant::now());
        }
    }

    /// Whether an agent may restart the instance because it answers badly, or did until lately.
    pub(crate) fn may_be_sick(&self, machine: usize, name: &UnitName) -> bool {
        self.is_of(name) && !self.is_known_to_run(machine, name)
    }

    fn is_of(&self, name: &UnitName) -> bool {
        name.template().is_some_and(|template| template.as_str() == self.unit)
    }

    /// The unit's record was written, or deleted. What is no longer wanted is no longer missed.
    pub(crate) fn wanted(&mut self, record: Option<&UnitRecord>) {
        let replicas = record
            .filter(|record| record.desired == DesiredState::Launched)
            .and_then(|record| record.replicas);
        self.down.retain(|name, _| {
            name.replica_number().is_some_and(|number| number <= replicas.unwrap_or(0))
        });
    }

    /// A machine's assignment was written. The error is what is wrong.
    pub(crate) fn assigned(
        &mut self,
        machine: usize,
        old: &Assignment,
        new: &Assignment,
    ) -> Result<(), String> {
        let (up, unit) = (&self.up, self.unit);
        let stayed = |name: &UnitName, down: &Down| {
            let mut lives = up.iter().filter(|((_, other), _)| other == name).map(|(_, life)| life);
            lives.any(|life| {
                let is_well = Instant::now() >= life.well;
                life.began > down.at && life.began.elapsed() >= STAYED && is_well
            })
        };
        self.down.retain(|name, down| !stayed(name, down));
        let launched = |placement: &Placement| {
            placement.unit.as_str() == unit && placement.state == DesiredState::Launched
        };
        for (name, is) in new.instances.iter().filter(|(_, is)| launched(is)) {
            match (old.instances.get(name), &is.why) {
                (Some(was), _) if launched(was) => self.changed(machine, name, was, is),
                (None, Why::Drained(from)) => {
                    let from =
                        usize::from_str_radix(&from.as_str()[24..], 16).unwrap_or(usize::MAX);
                    // A machine that was cut off may still run a copy, and then that one goes on.
                    if self.is_known_to_run(from, name)
                        && !self.up.contains_key(&(machine, name.clone()))
                    {
                        self.down.insert(name.clone(), Down::now(ShortHash::default(), 0)); // nothing brings it back where it was
                    }
                }
                _ => {}
            }
        }
        if self.down.len() <= BUDGET {
            return Ok(());
        }
        let names: Vec<&str> = self.down.keys().map(UnitName::as_str).collect();
        Err(format!(
            "{} were taken down and are not up again, but MaxUnavailable={BUDGET}",
            names.join(", ")
        ))
    }

    fn changed(&mut self, machine: usize, name: &UnitName, was: &Placement, is: &Placement) {
        if was.hash == is.hash && was.restart == is.restart {
            return;
        }
        match self.down.get(name) {
            // Taken back before it was carried out.
            Some(down) if down.hash == is.hash && down.restart == is.restart => {
                drop(self.down.remove(name))
            }
            Some(_) => {}
            None if self.is_known_to_run(machine, name) => {
                self.down.insert(name.clone(), Down::now(was.hash.clone(), was.restart));
            }
            None => {}
        }
    }

    fn is_known_to_run(&self, machine: usize, name: &UnitName) -> bool {
        self.up.get(&(machine, name.clone())).is_some_and(|life| life.well.elapsed() >= KNOWN)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::script::ROLLING;

    /// Replica 1 of the unit, drained from machine 0.
    fn drained(number: u32) -> (UnitName, Assignment) {
        let name = UnitName::trusted(ROLLING.replace('@', &format!("@{number}")));
        let from = "a0000000000000000000000000000000";
        let placement = json!({
            "unit": ROLLING, "revision": 1, "hash": "0123456", "state": "launched", "why": {"drained": from}, "since_ms": 0,
        });
        let assignment = json!({"v": 1, "generation": 2, "instances": {name.as_str(): placement}});
        (name, serde_json::from_value(assignment).expect("an assignment"))
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_was_drained_to_where_a_copy_runs_is_not_down() {
        let (mut budget, before) = (Budget::of(ROLLING), Assignment::default());
        for number in 1..=BUDGET as u32 + 1 {
            budget.entered(0, &drained(number).0, "active", &[]);
        }
        // This machine was cut off: its copy of the first one was never stopped.
        budget.entered(2, &drained(1).0, "active", &[]);
        tokio::time::advance(KNOWN).await;
        for number in 1..=BUDGET as u32 + 1 {
            budget.assigned(2, &before, &drained(number).1).expect("as many as are allowed");
        }
        budget = Budget::of(ROLLING);
        for number in 1..=BUDGET as u32 + 1 {
            budget.entered(0, &drained(number).0, "active", &[]);
        }
        tokio::time::advance(KNOWN).await;
        let judged: Vec<bool> = (1..=BUDGET as u32 + 1)
            .map(|number| budget.assigned(2, &before, &drained(number).1).is_ok())
            .collect();
        assert_eq!(judged.iter().filter(|well| **well).count(), BUDGET, "{judged:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_a_check_is_up_once_it_answers_well_on_a_machine_where_it_can() {
        let (mut budget, name) = (Budget::of(ROLLING), drained(1).0);
        let ready = [format!("{READY}6000")];
        budget.entered(0, &name, "active", &ready);
        tokio::time::advance(KNOWN + Duration::from_secs(5)).await;
        assert!(!budget.is_known_to_run(0, &name));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(budget.is_known_to_run(0, &name) && !budget.may_be_sick(0, &name));
        budget.falls_sick(0);
        assert!(!budget.is_known_to_run(0, &name) && budget.may_be_sick(0, &name));
        budget.is_mended(0);
        tokio::time::advance(KNOWN).await;
        assert!(budget.is_known_to_run(0, &name));
        budget.entered(0, &name, "active", &[format!("{READY}never")]);
        tokio::time::advance(2 * KNOWN).await;
        assert!(!budget.is_known_to_run(0, &name), "it never answers well");
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_up_is_down_until_it_has_stayed_up() {
        for (stays, allowed) in [(STAYED, true), (STAYED / 2, false)] {
            let (mut budget, before) = (Budget::of(ROLLING), Assignment::default());
            for number in 1..=BUDGET as u32 + 1 {
                budget.entered(0, &drained(number).0, "active", &[]);
            }
            tokio::time::advance(KNOWN).await;
            for number in 1..=BUDGET as u32 {
                budget.assigned(2, &before, &drained(number).1).expect("as many as are allowed");
            }
            tokio::time::advance(Duration::from_millis(100)).await;
            budget.entered(2, &drained(1).0, "active", &[]);
            tokio::time::advance(stays).await;
            assert_eq!(
                budget.assigned(2, &before, &drained(BUDGET as u32 + 1).1).is_ok(),
                allowed,
                "after {stays:?}"
            );
        }
    }
}
