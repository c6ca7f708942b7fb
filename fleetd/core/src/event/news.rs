//! What happened besides decisions: machines that came and went, units that gave up or fit nowhere.
//! Each is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Event, Gathered, Item, Numbers, Reason, What};
use crate::model::{InstanceStatus, Report, Snapshot};
use crate::name::{MachineId, UnitName};
use crate::plan::{Plan, Unplaced};

/// What was told so far. Rebuilt from the events in the store by [`News::told`], so a new leader
/// neither repeats nor forgets.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// What was last said of each machine, and the revision that created its key where it is there.
    machines: BTreeMap<MachineId, (What, i64)>,
    /// Units that failed and were started again, where, and the restarts that were told last. Each
    /// is told at the first restart since it last ran well, the second, the fourth and so on.
    restarted: BTreeMap<MachineId, BTreeMap<UnitName, u32>>,
    /// Units that gave up, where.
    gave_up: BTreeMap<MachineId, BTreeSet<UnitName>>,
    /// The reports that these were read from: most of them do not change between two looks.
    reports: BTreeMap<MachineId, Arc<Report>>,
    /// Fenced units that wait for a copy, where.
    waiting: BTreeSet<(MachineId, UnitName)>,
    /// Units whose instances are changed a few at a time. Not known to a new leader, which says so
    /// once more.
    rolling: BTreeSet<UnitName>,
    /// Whether so many machines are missing that their units are moved slowly.
    slowed: bool,
    /// What fits nowhere: how many instances, and why.
    nowhere: BTreeMap<UnitName, (usize, Reason)>,
}

impl News {
    /// What `events` (all of them, in order) have told already. Machines created up to the last
    /// revision that they saw are known.
    pub fn told<'a>(
        events: impl IntoIterator<Item = &'a Event>,
        created: &BTreeMap<MachineId, i64>,
    ) -> News {
        let mut news = News::default();
        let mut seen = 0;
        for event in events {
            seen = seen.max(event.revision);
            event.items.iter().for_each(|item| news.note(item));
        }
        for (machine, created) in created.iter().filter(|(_, created)| **created <= seen) {
            news.machines.insert(machine.clone(), (What::Registered, *created));
        }
        news
    }

    /// What is new in `snapshot` and its plan, and what will have been told once that is written.
    /// `created` are the revisions of the machines' keys, `left` the machines that said goodbye.
    /// Unless `sure`, what newly fits nowhere is not told: machines may be about to return.
    pub fn look(
        &self,
        snapshot: &Snapshot,
        plan: &Plan,
        created: &BTreeMap<MachineId, i64>,
        left: &BTreeSet<MachineId>,
        sure: bool,
    ) -> (Vec<Item>, News) {
        let mut items = Vec::new();
        let slowed = self.slowed(plan, &mut items);
        let machines = self.machines(snapshot, plan, created, left, &mut items);
        let restarted = self.restarts(snapshot, &mut items);
        let gave_up = self.failures(snapshot, &mut items);
        let waiting = self.held(plan, &mut items);
        let rolling = self.rolling(plan, &mut items);
        let nowhere = if sure { self.misfits(plan, &mut items) } else { self.nowhere.clone() };
        (
            items,
            News {
                machines,
                restarted,
                gave_up,
                reports: snapshot.reports.clone(),
                waiting,
                rolling,
                slowed,
                nowhere,
            },
        )
    }

    fn note(&mut self, item: &Item) {
        match (item.what, &item.machine) {
            (What::Registered | What::Settling | What::Lost | What::Left, Some(machine)) => {
                self.machines.insert(machine.clone(), (item.what, 0));
            }
            (What::Restarted, Some(machine)) => {
                if let Some(Reason::Restarted { restarts, .. }) = item.reason {
                    let known = self.restarted.entry(machine.clone()).or_default();
                    known.extend(instances(item).into_iter().map(|instance| (instance, restarts)));
                }
            }
            (What::GaveUp, Some(machine)) => {
                self.gave_up.entry(machine.clone()).or_default().extend(instances(item))
            }
            (What::Waits, Some(machine)) => {
                self.waiting.extend(
                    instances(item).into_iter().map(|instance| (machine.clone(), instance)),
                );
            }
            (What::Slowed | What::UsualSpeed, _) => self.slowed = item.what == What::Slowed,
            (What::Nowhere, _) => {
                let reason = item.reason.clone().unwrap_or(Reason::Other);
                self.nowhere.extend(
                    item.units
                        .iter()
                        .map(|(unit, n)| (unit.clone(), (n.len().max(1), reason.clone()))),
                );
            }
            _ => {}
        }
    }

    fn slowed(&self, plan: &Plan, items: &mut Vec<Item>) -> bool {
        let item = |what, reason| Item { what, machine: None, units: BTreeMap::new(), reason };
        match &plan.slowed {
            Some(slowed) if !self.slowed => items.push(item(What::Slowed, Some(slowed.into()))),
            None if self.slowed => items.push(item(What::UsualSpeed, None)),
            _ => {}
        }
        plan.slowed.is_some()
    }

    fn machines(
        &self,
        snapshot: &Snapshot,
        plan: &Plan,
        created: &BTreeMap<MachineId, i64>,
        left: &BTreeSet<MachineId>,
        items: &mut Vec<Item>,
    ) -> BTreeMap<MachineId, (What, i64)> {
        let waits: BTreeSet<&MachineId> =
            plan.slowed.iter().flat_map(|slowed| &slowed.waits).collect();
        let mut now = BTreeMap::new();
        for (id, machine) in &snapshot.machines {
            let created = created.get(id).copied().unwrap_or(0);
            match self.machines.get(id) {
                Some((What::Registered, known)) if *known == created => {}
                Some((What::Settling, _)) => {
                    items.push(Item::of_machine(What::Registered, id.clone(), Reason::Back))
                }
                _ => {
                    let address = machine.address.clone();
                    let reason = Reason::Address { address };
                    items.push(Item::of_machine(What::Registered, id.clone(), reason));
                }
            }
            now.insert(id.clone(), (What::Registered, created));
        }
        let assigned = |id: &MachineId| {
            snapshot.assignments.get(id).map_or(0, |assignment| assignment.instances.len())
        };
        // Known by what was said of them, or by what they should run.
        let mut absent: BTreeSet<&MachineId> = self.machines.keys().collect();
        absent.extend(
            snapshot.assignments.iter().filter(|(_, a)| !a.instances.is_empty()).map(|(id, _)| id),
        );
        for id in absent.into_iter().filter(|id| !snapshot.machines.contains_key(*id)) {
            let (before, known) = self.machines.get(id).copied().unwrap_or((What::Other, 0));
            let what = match () {
                () if left.contains(id) => What::Left,
                () if snapshot.settling.contains(id) || waits.contains(id) => What::Settling,
                () => What::Lost,
            };
            // A machine that left and is called lost later has not done anything new.
            if before != what && !(before == What::Left && assigned(id) == 0) {
                let reason = Reason::Ran { units: assigned(id) };
                items.push(Item::of_machine(what, id.clone(), reason));
            }
            now.insert(id.clone(), (what, known));
        }
        now
    }

    fn restarts(
        &self,
        snapshot: &Snapshot,
        items: &mut Vec<Item>,
    ) -> BTreeMap<MachineId, BTreeMap<UnitName, u32>> {
        let mut now: BTreeMap<MachineId, BTreeMap<UnitName, u32>> = BTreeMap::new();
        for (machine, report) in &snapshot.reports {
            let before = self.restarted.get(machine);
            if self.reports.get(machine).is_some_and(|known| Arc::ptr_eq(known, report)) {
                now.extend(before.map(|before| (machine.clone(), before.clone())));
                continue;
            }
            let mut fresh: BTreeMap<Reason, Gathered> = BTreeMap::new();
            let is_so = |status: &InstanceStatus| status.restarts > 0 && !status.leaving;
            for (instance, status) in report.instances.iter().filter(|(_, it)| is_so(it)) {
                let told = before.and_then(|before| before.get(instance)).copied().unwrap_or(0);
                // It ran well in between, or the next power of two is reached.
                let is_news = status.restarts < told || status.restarts >= (told * 2).max(1);
                let known = if is_news { status.restarts } else { told };
                now.entry(machine.clone()).or_default().insert(instance.clone(), known);
                // One that gave up is told as that.
                if is_news && !status.gave_up {
                    fresh.entry(Reason::restarted(status)).or_default().add(instance);
                }
            }
            let item = |(reason, units): (Reason, Gathered)| Item {
                what: What::Restarted,
                machine: Some(machine.clone()),
                units: units.into_units(),
                reason: Some(reason),
            };
            items.extend(fresh.into_iter().map(item));
        }
        now
    }

    fn failures(
        &self,
        snapshot: &Snapshot,
        items: &mut Vec<Item>,
    ) -> BTreeMap<MachineId, BTreeSet<UnitName>> {
        let mut now: BTreeMap<MachineId, BTreeSet<UnitName>> = BTreeMap::new();
        let none = BTreeSet::new();
        for (machine, report) in &snapshot.reports {
            let before = self.gave_up.get(machine).unwrap_or(&none);
            if self.reports.get(machine).is_some_and(|known| Arc::ptr_eq(known, report)) {
                if !before.is_empty() {
                    now.insert(machine.clone(), before.clone());
                }
                continue;
            }
            let mut fresh: BTreeMap<Reason, Gathered> = BTreeMap::new();
            for (instance, status) in report.instances.iter().filter(|(_, status)| status.gave_up) {
                now.entry(machine.clone()).or_default().insert(instance.clone());
                if !before.contains(instance) {
                    fresh.entry(Reason::failed(status)).or_default().add(instance);
                }
            }
            let item = |(reason, units): (Reason, Gathered)| Item {
                what: What::GaveUp,
                machine: Some(machine.clone()),
                units: units.into_units(),
                reason: Some(reason),
            };
            items.extend(fresh.into_iter().map(item));
        }
        now
    }

    fn held(&self, plan: &Plan, items: &mut Vec<Item>) -> BTreeSet<(MachineId, UnitName)> {
        let mut fresh: BTreeMap<(&MachineId, Reason), Gathered> = BTreeMap::new();
        let mut now = BTreeSet::new();
        for held in &plan.held {
            let key = (held.machine.clone(), held.instance.clone());
            if !self.waiting.contains(&key) {
                fresh.entry((&held.machine, held.into())).or_default().add(&held.instance);
            }
            now.insert(key);
        }
        let item = |((machine, reason), units): ((&MachineId, Reason), Gathered)| Item {
            what: What::Waits,
            machine: Some(machine.clone()),
            units: units.into_units(),
            reason: Some(reason),
        };
        items.extend(fresh.into_iter().map(item));
        now
    }

    /// Told when a rollout begins to wait: what it does then, decisions tell.
    fn rolling(&self, plan: &Plan, items: &mut Vec<Item>) -> BTreeSet<UnitName> {
        for rolling in plan.rolling.iter().filter(|rolling| !self.rolling.contains(&rolling.unit)) {
            let units = BTreeMap::from([(rolling.unit.clone(), Numbers::default())]);
            let reason = Some(rolling.into());
            items.push(Item { what: What::Rolling, machine: None, units, reason });
        }
        plan.rolling.iter().map(|rolling| rolling.unit.clone()).collect()
    }

    fn misfits(&self, plan: &Plan, items: &mut Vec<Item>) -> BTreeMap<UnitName, (usize, Reason)> {
        let mut now = BTreeMap::new();
        for unplaced in &plan.unplaced {
            let misfit = (unplaced.instances.len(), Reason::from(unplaced));
            let told = self.nowhere.get(&unplaced.unit);
            // An older version told the words alone.
            let same = |(count, reason): &(usize, Reason)| match reason {
                Reason::Said { text } => *count == misfit.0 && *text == misfit.1.to_string(),
                reason => (*count, reason) == (misfit.0, &misfit.1),
            };
            if !told.is_some_and(same) {
                items.push(nowhere(unplaced));
            }
            now.insert(unplaced.unit.clone(), misfit);
        }
        now
    }
}

/// Every instance that an item tells of.
fn instances(item: &Item) -> Vec<UnitName> {
    let one = |(unit, numbers): (&UnitName, &super::Numbers)| match unit.is_template() {
        true => numbers.iter().map(|number| unit.replica(number)).collect(),
        false => vec![unit.clone()],
    };
    item.units.iter().flat_map(one).collect()
}

/// What fits nowhere, as an item.
pub(super) fn nowhere(unplaced: &Unplaced) -> Item {
    let mut units = Gathered::default();
    unplaced.instances.iter().for_each(|instance| units.add(instance));
    let reason = Some(unplaced.into());
    Item { what: What::Nowhere, machine: None, units: units.into_units(), reason }
}
