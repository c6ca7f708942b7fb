//! The board that planning plays on: machines and units by number, what is on each machine so far,
//! and the changes made.

use std::collections::{BTreeMap, BTreeSet};

use super::budget::{self, Deferred};
use super::loads::Loads;
use super::seat::UnitSeat;
use super::slot::{Here, Slot};
use super::{Change, Plan, Retired, Unplaced, document, fencing};
use crate::constraint::{self, Misfit, Unsuited};
use crate::fence::Off;
use crate::glob;
use crate::model::{Availability, MAX_DOCUMENT_BYTES, Placement, Snapshot, Unit, Why};
use crate::name::UnitName;
use crate::xfleet::Constraints;

/// What is left of a document's limit for entries: its frame, and fields that a later version may
/// add.
const BUDGET_BYTES: usize = MAX_DOCUMENT_BYTES - 16 * 1024;

/// The most instances on one machine: as many as its report, in which each may differ from all
/// others, can tell of.
const MAX_INSTANCES: usize = 10_000;

/// How many units are fetched into the cache at once.
pub(super) const AHEAD: usize = 64;

/// No machine.
pub(super) const NOWHERE: u32 = u32::MAX;
/// On a machine that is absent but not called lost; or fenced, with a copy that may still be alive
/// somewhere.
pub(super) const SETTLING: u32 = u32::MAX - 1;

pub(super) struct Board<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// The machines that can be planned on, by id; a machine's number is its index.
    pub(super) slots: Vec<Slot<'a>>,
    /// All units, by name; a unit's number is its index.
    pub(super) units: Vec<UnitSeat<'a>>,
    /// Where the instances of all units are, one unit after the other; see [`Board::placed`].
    pub(super) placed: Vec<u32>,
    /// The machines by load; counted only while what is missing is placed.
    pub(super) loads: Loads,
    /// By unit number: the numbers of a scaled template that have a record of their own.
    pub(super) own_records: BTreeMap<usize, BTreeSet<u32>>,
    /// Whether any unit has conflicts: if not, nobody keeps lists of what is where.
    any_conflicts: bool,
    /// Whether any unit replaces others.
    pub(super) any_replaces: bool,
    /// Changes of text and restarts that wait for [`budget::update`].
    pub(super) deferred: Vec<Deferred<'a>>,
    /// What waits for its unit's budget, by unit and seat, with its machine.
    pub(super) waiting: BTreeMap<(usize, usize), u32>,
    /// What is taken down where it is, by unit and seat.
    pub(super) updating: BTreeSet<(usize, usize)>,
    pub(super) plan: Plan,
}

impl<'a> Board<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Board<'a> {
        let availability = |id| snapshot.availability.get(id).copied().unwrap_or_default();
        let slots: Vec<Slot> = snapshot
            .machines
            .iter()
            .map(|(id, machine)| Slot::new(id, machine, availability(id)))
            .collect();
        let mut units: Vec<UnitSeat> = Vec::with_capacity(snapshot.units.len());
        let (mut seats, mut own_records) = (0, BTreeMap::new());
        let (mut any_conflicts, mut any_replaces) = (false, false);
        let all: Vec<&Unit> = snapshot.units.values().map(|unit| &**unit).collect();
        for some in all.chunks(AHEAD) {
            // As in `fetch`: the misses of these short reads are waited for side by side, those of
            // the loop below are not.
            std::hint::black_box(some.iter().map(|unit| unit.gist.wanted as usize).sum::<usize>());
            for unit in some {
                let mut seat = UnitSeat::new(unit, slots.len(), seats);
                seats += seat.seats as usize;
                any_conflicts |= seat.declares && seat.seats > 0;
                any_replaces |= seat.replaces;
                if let Some(replicas) = seat.find_own_records(snapshot) {
                    own_records.insert(units.len(), replicas);
                }
                units.push(seat);
            }
        }
        Board {
            snapshot,
            slots,
            units,
            placed: vec![NOWHERE; seats],
            loads: Loads::default(),
            own_records,
            any_conflicts,
            any_replaces,
            deferred: Vec::new(),
            waiting: BTreeMap::new(),
            updating: BTreeSet::new(),
            plan: Plan::default(),
        }
    }

    /// The number of the unit called `name`.
    pub(super) fn unit_number(&self, name: &str) -> Option<usize> {
        self.units.binary_search_by(|seat| seat.unit.name.as_str().cmp(name)).ok()
    }

    /// The unit that `instance` follows from and its seat there: its own record's, or that of the
    /// template which counts it. `None` if nobody wants it. A global unit has one seat a machine,
    /// and `machine` is its seat.
    pub(super) fn owner(&self, instance: &UnitName, machine: u32) -> Option<(usize, usize)> {
        if let Some(number) = self.unit_number(instance.as_str()) {
            let unit = &self.units[number];
            let seat = if unit.global { machine as usize } else { 0 };
            return (seat < unit.seats as usize && !unit.unit.name.is_template())
                .then_some((number, seat));
        }
        let number = self.unit_number(instance.template()?.as_str())?;
        Some((number, self.seat_of_replica(number, instance)?))
    }

    /// The name of the unit that `instance` follows from.
    fn unit_of(&self, instance: UnitName) -> UnitName {
        let owner =
            self.owner(&instance, 0).map(|(number, _)| self.units[number].unit.name.clone());
        owner.unwrap_or(instance)
    }

    /// Where `name` (a unit, an instance, a replica) is so far, as machine numbers.
    pub(super) fn machines_of(&self, name: &str) -> Vec<u32> {
        let name = UnitName::trusted(name);
        let known = |machine: &u32| *machine < SETTLING;
        match self.unit_number(name.as_str()).filter(|&number| self.units[number].global) {
            Some(number) => self.placed(number).iter().copied().filter(known).collect(),
            None => self
                .owner(&name, 0)
                .map(|(number, seat)| self.placed(number)[seat])
                .filter(known)
                .into_iter()
                .collect(),
        }
    }

    /// Whether `name` is on `machine` so far.
    pub(super) fn is_on(&self, name: &str, machine: u32) -> bool {
        let place = self
            .owner(&UnitName::trusted(name), machine)
            .map(|(number, seat)| self.placed(number)[seat]);
        place == Some(machine)
    }

    /// What of, on or beside the machine speaks against the instance there.
    pub(super) fn misfit(
        &self,
        number: usize,
        instance: &UnitName,
        wants: &Constraints,
        machine: u32,
    ) -> Option<Misfit> {
        let slot = &self.slots[machine as usize];
        if let Err(unsuited) = constraint::suits(slot.machine, wants) {
            return Some(unsuited.into());
        }
        let absent = wants.machine_of.iter().find(|name| !self.is_on(name, machine));
        absent
            .map(|name| Misfit::NotBeside(name.clone()))
            .or_else(|| self.crowded(number, instance, wants, machine))
    }

    /// The same of an instance that is not there yet.
    pub(super) fn misfit_of_new(
        &self,
        number: usize,
        instance: &UnitName,
        wants: &Constraints,
        machine: u32,
    ) -> Option<Misfit> {
        match self.slots[machine as usize].availability {
            Availability::Active => self.misfit(number, instance, wants, machine),
            Availability::Cordoned | Availability::Draining => Some(Misfit::Cordoned),
        }
    }

    /// What runs on the machine that speaks against the instance there; its labels were checked.
    pub(super) fn crowded(
        &self,
        number: usize,
        instance: &UnitName,
        wants: &Constraints,
        machine: u32,
    ) -> Option<Misfit> {
        let slot = &self.slots[machine as usize];
        if !self.has_room(slot, self.units[number].entry_bytes(instance), instance) {
            return Some(Misfit::Full);
        }
        // Without patterns of its own, only units that have some can be against it. What surely is
        // not against it is passed over by what the slot itself holds, since each unit that is
        // looked at costs some misses of the cache.
        let clash = if self.units[number].declares {
            slot.here.iter().find_map(|here| self.clash(here, instance, wants))
        } else if slot.may_refuse(instance.as_str()) {
            slot.declaring.iter().find_map(|(other, said)| match said {
                Some(patterns) if !hits(patterns, instance) => None,
                _ => self.clash(slot.of_unit(*other)?, instance, wants),
            })
        } else {
            None
        };
        clash.map(|name| Misfit::Conflict(name.clone()))
    }

    /// Whether the machine's document can take one more entry. What it holds already stays.
    fn has_room(&self, slot: &Slot, bytes: usize, instance: &UnitName) -> bool {
        let has_room =
            || (slot.load as usize) < MAX_INSTANCES && slot.bytes.get() + bytes <= BUDGET_BYTES;
        if has_room() {
            return true;
        }
        let present = self.snapshot.assignments.get(slot.id);
        if present.is_some_and(|present| present.instances.contains_key(instance)) {
            return true;
        }
        // The count takes each entry for a group of its own; most stand in a row with others.
        // Measured whenever it grew, though that costs milliseconds: whoever plans the planned
        // state must find the same room. With each measurement less than half as much is left.
        if slot.bytes.get() > slot.measured.get() {
            let size = document::encoded_size(&document::edited(
                present.map(|present| &**present),
                slot.edits.iter().cloned(),
            ));
            slot.bytes.set(size);
            slot.measured.set(size);
        }
        has_room()
    }

    /// The first of the unit's instances `here` that may not share a machine with `instance`,
    /// whoever declares it.
    fn clash<'b>(
        &'b self,
        here: &'b Here,
        instance: &UnitName,
        wants: &Constraints,
    ) -> Option<&'b UnitName> {
        let theirs = &self.units[here.number];
        let said_by_all = theirs.declares
            && !theirs.specifiers
            && hits(&theirs.unit.constraints.conflicts, instance);
        let said_by_some = theirs.specifiers && theirs.declares;
        // All names of a unit begin alike, so most patterns are done with a whole unit at once.
        let ours_may_hit = wants.conflicts.iter().any(|p| theirs.may_match(p));
        if !said_by_all && !said_by_some && !ours_may_hit {
            return None;
        }
        let names =
            if theirs.template { &*here.replicas } else { std::slice::from_ref(&theirs.unit.name) };
        names.iter().filter(|name| *name != instance).find(|name| {
            said_by_all
                || (ours_may_hit && hits(&wants.conflicts, name))
                || (said_by_some
                    && hits(&theirs.unit.constraints.expanded(name).conflicts, instance))
        })
    }

    /// Whether the conflict with `other` stands for every instance of unit `number`: declared by
    /// the unit itself, or by a pattern that matches all its instances. If not, it may be meant for
    /// one name alone.
    pub(super) fn refuses_all(&self, number: usize, other: &UnitName) -> bool {
        let unit = &self.units[number];
        let declared_here =
            unit.unit.constraints.conflicts.iter().any(|p| glob::matches(p, other.as_str()));
        let theirs = self.owner(other, 0).map(|(number, _)| &self.units[number]);
        declared_here
            || theirs.is_some_and(|theirs| {
                theirs.unit.constraints.conflicts.iter().any(|p| unit.all_match(p))
            })
    }

    /// Makes room for what is missing at once, since a list that grows is copied again and again.
    pub(super) fn expect(&mut self, missing: usize) {
        self.plan.changes.reserve(missing);
        let each = missing.div_ceil(self.slots.len().max(1));
        for slot in &mut self.slots {
            slot.edits.reserve(each + each / 4);
            if self.any_conflicts {
                slot.here.reserve(each + each / 4);
            }
        }
    }

    /// Reads what placing these units will read. These reads do not wait for each other, as those
    /// between the counting of references do.
    pub(super) fn fetch(&self, numbers: std::ops::Range<usize>) {
        let first = |text: &str| text.as_bytes().first().map_or(0, |byte| usize::from(*byte));
        let read = |seat: &UnitSeat| {
            first(seat.unit.name.as_str()) + first(&seat.unit.hash) + seat.unit.desired as usize
        };
        std::hint::black_box(self.units[numbers].iter().map(read).sum::<usize>());
    }

    /// Counts an instance as being on a machine.
    pub(super) fn take(&mut self, number: usize, seat: usize, instance: &UnitName, machine: u32) {
        *self.place_of(number, seat) = machine;
        let unit = &self.units[number];
        let slot = &mut self.slots[machine as usize];
        self.loads.grow(machine, slot.load);
        slot.load += 1;
        if slot.measured.get() == 0 {
            slot.bytes.set(slot.bytes.get() + unit.entry_bytes(instance));
        }
        if self.any_conflicts {
            let at = slot.find(number).unwrap_or_else(|at| {
                let said =
                    || (!unit.specifiers).then_some(unit.unit.constraints.conflicts.as_slice());
                slot.add(at, number, unit.declares.then(said));
                at
            });
            if unit.template {
                slot.here[at].replicas.push(instance.clone());
            }
        }
    }

    /// Undoes [`Board::take`], for an instance that moves on.
    pub(super) fn release(&mut self, number: usize, seat: usize, instance: &UnitName) {
        let machine = std::mem::replace(self.place_of(number, seat), NOWHERE);
        let unit = &self.units[number];
        let slot = &mut self.slots[machine as usize];
        slot.load -= 1;
        if slot.measured.get() == 0 {
            slot.bytes.set(slot.bytes.get() - unit.entry_bytes(instance));
        }
        let Ok(at) = slot.find(number) else { return };
        let here = &mut slot.here[at];
        here.replicas.retain(|name| name != instance);
        if here.replicas.is_empty() {
            slot.here.remove(at);
            slot.declaring.retain(|(other, _)| *other != number);
        }
    }

    /// Puts an instance on a machine and writes it down.
    pub(super) fn place(
        &mut self,
        number: usize,
        seat: usize,
        instance: UnitName,
        machine: u32,
        why: Why,
        moves: u32,
    ) {
        let slot = &self.slots[machine as usize];
        if slot.measured.get() > 0 {
            slot.bytes.set(slot.bytes.get() + self.units[number].entry_bytes(&instance));
        }
        self.take(number, seat, &instance, machine);
        let seat = &self.units[number];
        let unit = seat.unit;
        let terms = if seat.fenced { unit.fence() } else { None };
        let placement = Placement {
            unit: unit.name.clone(),
            revision: unit.revision,
            hash: unit.hash.clone(),
            state: unit.desired,
            why: why.clone(),
            since_ms: self.snapshot.now_ms,
            moves,
            restart: if seat.restarts { unit.restarts_asked(&instance) } else { 0 },
            fence: terms.map(|terms| fencing::fenced(terms, &instance, self.snapshot.revision)),
        };
        let slot = &mut self.slots[machine as usize];
        if placement.fence.is_some() {
            self.plan.fenced.insert(slot.id.clone());
        }
        self.plan.changes.push(Change::Place {
            instance: instance.clone(),
            machine: slot.id.clone(),
            why,
        });
        slot.edits.push((instance, Some(placement)));
    }

    /// Takes an instance off a machine that can be planned on, and writes it down. A fenced one is
    /// then placed nowhere in this plan.
    pub(super) fn retire(&mut self, instance: &UnitName, machine: u32, why: Retired) {
        fencing::take_off(self, instance, machine, &why);
        let slot = &mut self.slots[machine as usize];
        self.plan.changes.push(Change::Retire {
            instance: instance.clone(),
            machine: slot.id.clone(),
            why,
        });
        slot.edits.push((instance.clone(), None));
    }

    /// Takes an instance off its machine because `by` replaces it: undoes its placing by this very
    /// plan, else retires it. Answers with why it goes elsewhere, and how often it was moved
    /// because it failed.
    pub(super) fn push_off(
        &mut self,
        number: usize,
        seat: usize,
        instance: &UnitName,
        by: UnitName,
    ) -> (Why, u32) {
        let machine = self.placed(number)[seat];
        self.release(number, seat, instance);
        let slot = &mut self.slots[machine as usize];
        if let Some(at) =
            slot.edits.iter().rposition(|(name, placement)| name == instance && placement.is_some())
        {
            slot.edits.remove(at);
            let here = |change: &Change| match change {
                Change::Place { instance: name, machine, .. }
                | Change::Update { instance: name, machine } => {
                    name == instance && machine == slot.id
                }
                Change::Retire { .. } => false,
            };
            if let Some(at) = self.plan.changes.iter().rposition(here)
                && let Change::Place { why, .. } = self.plan.changes.remove(at)
            {
                return (why, 0);
            }
        }
        let placement = self
            .snapshot
            .assignments
            .get(slot.id)
            .and_then(|assignment| assignment.instances.get(instance));
        let moves = placement.map_or(0, |placement| placement.moves);
        let why = Why::Replaced(slot.id.clone());
        self.retire(instance, machine, Retired::Replaced(by));
        (why, moves)
    }

    /// Notes in a machine's document that a fenced instance may be alive there, or, with `None`,
    /// that it surely is not.
    pub(super) fn note_off(&mut self, instance: &UnitName, machine: u32, off: Option<Off>) {
        self.slots[machine as usize].off.push((instance.clone(), off));
    }

    /// Keeps an instance from being placed: a copy of it may be alive somewhere.
    pub(super) fn block(&mut self, instance: &UnitName) {
        // A global unit has no seat on a machine that is not there.
        if let Some((number, seat)) = self.owner(instance, NOWHERE)
            && self.placed(number)[seat] == NOWHERE
        {
            *self.place_of(number, seat) = SETTLING;
        }
    }

    /// Counts what is not placed but stands in a machine's document all the same.
    pub(super) fn fill(&mut self, machine: u32, bytes: usize) {
        let slot = &self.slots[machine as usize];
        slot.bytes.set(slot.bytes.get() + bytes);
    }

    /// Brings the document's entry of an instance that stays up to date with its unit; at the end
    /// of the plan, if that takes it down and its unit has a budget for that.
    pub(super) fn refresh(
        &mut self,
        number: usize,
        seat: usize,
        instance: &UnitName,
        machine: u32,
        old: &'a Placement,
    ) {
        if self.units[number].budgeted && budget::defers(self.units[number].unit, instance, old) {
            self.deferred.push(Deferred { number, seat, machine, instance: instance.clone(), old });
        } else {
            self.bring_up_to_date(number, instance, machine, old);
        }
    }

    /// See [`Board::refresh`].
    pub(super) fn bring_up_to_date(
        &mut self,
        number: usize,
        instance: &UnitName,
        machine: u32,
        old: &Placement,
    ) {
        let seat = &self.units[number];
        let unit = seat.unit;
        let terms = if seat.fenced { unit.fence() } else { None };
        let restart = if seat.restarts { unit.restarts_asked(instance) } else { 0 };
        let fence = terms.map(|terms| {
            fencing::refreshed(terms, instance, self.snapshot.revision, old.fence.as_deref())
        });
        let same = old.revision == unit.revision
            && old.hash == unit.hash
            && old.state == unit.desired
            && old.restart == restart
            && old.fence == fence
            && old.unit == unit.name;
        if same {
            return;
        }
        let placement = Placement {
            unit: unit.name.clone(),
            revision: unit.revision,
            hash: unit.hash.clone(),
            state: unit.desired,
            restart,
            fence,
            // How often another text failed says nothing of this one.
            moves: if old.hash == unit.hash { old.moves } else { 0 },
            ..old.clone()
        };
        let slot = &mut self.slots[machine as usize];
        self.plan
            .changes
            .push(Change::Update { instance: instance.clone(), machine: slot.id.clone() });
        slot.edits.push((instance.clone(), Some(placement)));
    }

    /// Notes an instance that would be taken down if its unit's budget were not spent.
    pub(super) fn waits_for_budget(&mut self, number: usize, seat: usize) {
        let machine = self.placed(number)[seat];
        self.waiting.insert((number, seat), machine);
    }

    /// Notes a time at which a pause ends.
    pub(super) fn wake_at(&mut self, at_ms: u64) {
        self.plan.wake_at_ms =
            Some(self.plan.wake_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }

    /// Notes instances that fit nowhere. `unsuited` are the reasons of machines that do not suit,
    /// counted; `crowded` says what speaks against each of those that do.
    pub(super) fn unplaced(
        &mut self,
        number: usize,
        instances: Vec<UnitName>,
        unsuited: &[(Misfit, usize)],
        crowded: impl Iterator<Item = Misfit>,
    ) {
        let mut counts: BTreeMap<Misfit, usize> = unsuited.iter().cloned().collect();
        for found in crowded {
            // A hundred machines, each with another replica in the way, are one reason.
            let found = match found {
                Misfit::Conflict(other) => Misfit::Conflict(self.unit_of(other)),
                found => found,
            };
            *counts.entry(found).or_default() += 1;
        }
        if self.slots.is_empty() {
            counts.insert(Misfit::NoMachines, 0);
        }
        let mut misfits: Vec<(Misfit, usize)> = counts.into_iter().collect();
        misfits.sort_by_key(|(_, machines)| std::cmp::Reverse(*machines));
        self.plan.unplaced.push(Unplaced {
            unit: self.units[number].unit.name.clone(),
            instances,
            misfits,
        });
    }

    /// The machines that suit what is wanted, by number, and the reasons of the others, counted.
    /// What must run beside another also goes to `cordoned` ones.
    pub(super) fn suiting(
        &self,
        wants: &Constraints,
        cordoned: bool,
    ) -> (Vec<u32>, Vec<(Misfit, usize)>) {
        let mut suiting = Vec::new();
        let mut unsuited: BTreeMap<Unsuited, usize> = BTreeMap::new();
        let mut closed = 0;
        for (slot, machine) in self.slots.iter().zip(0..) {
            match constraint::suits(slot.machine, wants) {
                Err(found) => *unsuited.entry(found).or_default() += 1,
                Ok(()) if cordoned || slot.availability.is_active() => suiting.push(machine),
                Ok(()) => closed += 1,
            }
        }
        let mut reasons: Vec<(Misfit, usize)> =
            unsuited.into_iter().map(|(found, machines)| (found.into(), machines)).collect();
        reasons.extend((closed > 0).then_some((Misfit::Cordoned, closed)));
        (suiting, reasons)
    }
}

fn hits(patterns: &[String], name: &UnitName) -> bool {
    patterns.iter().any(|pattern| glob::matches(pattern, name.as_str()))
}
