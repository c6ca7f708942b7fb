//! The board: the facts that planning stands on. Machines and units by number, and who is where so
//! far. No rule stands here, and nothing that is for the answer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::seat::UnitSeat;
use super::slot::Slot;
use crate::model::{Snapshot, Unit};
use crate::name::UnitName;
use crate::unit::xfleet::Constraints;

mod seats;

/// How many units are fetched into the cache at once.
pub(super) const AHEAD: usize = 64;

/// No machine.
pub(super) const NOWHERE: u32 = u32::MAX;
/// To be placed by nobody: on a machine that is absent but not called lost; or fenced, with a copy
/// that may still be alive somewhere; or waiting for another unit (`Needs=`).
pub(super) const SETTLING: u32 = u32::MAX - 1;

pub(super) struct Board<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// The machines that can be planned on, by id; a machine's number is its index.
    pub(super) slots: Vec<Slot<'a>>,
    /// All units, by name; a unit's number is its index.
    pub(super) units: Vec<UnitSeat<'a>>,
    /// Where the instances of all units are, one unit after the other; see [`Board::placed`].
    placed: Vec<u32>,
    /// By unit number: the numbers of a scaled template that have a record of their own.
    own_records: BTreeMap<usize, BTreeSet<u32>>,
    /// Whether any unit asks what else is on its machine: if not, nobody keeps lists of that.
    any_lists: bool,
    /// Whether any unit replaces others.
    pub(super) any_replaces: bool,
    /// The units that may have spare instances.
    pub(super) start_first: Vec<usize>,
    /// How many instances wait for another unit (`Needs=`), by unit number.
    needing: BTreeMap<usize, usize>,
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
        let (mut any_lists, mut any_replaces) = (false, false);
        let mut start_first = Vec::new();
        let all: Vec<&Unit> = snapshot.units.values().map(|unit| &**unit).collect();
        for some in all.chunks(AHEAD) {
            // As in `fetch`: the misses of these short reads are waited for side by side, those of
            // the loop below are not.
            std::hint::black_box(some.iter().map(|unit| unit.gist.wanted as usize).sum::<usize>());
            for unit in some {
                let mut seat = UnitSeat::new(unit, slots.len(), seats);
                any_lists |= (seat.declares || seat.limited) && seat.seats > 0;
                any_replaces |= seat.replaces;
                let replicas = seat.find_own_records(snapshot);
                seat.allow_spares(replicas.as_ref().map_or(0, BTreeSet::len));
                if let Some(replicas) = replicas {
                    own_records.insert(units.len(), replicas);
                }
                if seat.spares > 0 {
                    start_first.push(units.len());
                }
                seats += (seat.seats + seat.spares) as usize;
                units.push(seat);
            }
        }
        Board {
            snapshot,
            slots,
            units,
            placed: vec![NOWHERE; seats],
            own_records,
            any_lists,
            any_replaces,
            start_first,
            needing: BTreeMap::new(),
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
    pub(super) fn unit_of(&self, instance: UnitName) -> UnitName {
        let owner =
            self.owner(&instance, 0).map(|(number, _)| self.units[number].unit.name.clone());
        owner.unwrap_or(instance)
    }

    /// The unit's constraints, with specifiers put in for one instance where there are any.
    pub(super) fn wants(&self, number: usize, instance: &UnitName) -> Cow<'a, Constraints> {
        let seat = &self.units[number];
        match seat.specifiers {
            true => Cow::Owned(seat.unit.constraints.expanded(instance)),
            false => Cow::Borrowed(&seat.unit.constraints),
        }
    }

    /// Where `name` (a unit, an instance, a replica) is so far, as machine numbers.
    pub(super) fn machines_of(&self, name: &str) -> Vec<u32> {
        let name = UnitName::trusted(name);
        let known = |machine: &u32| *machine < SETTLING;
        match self.unit_number(name.as_str()).filter(|&number| self.units[number].global) {
            Some(number) => self.placed(number).iter().copied().filter(known).collect(),
            None => self
                .owner(&name, 0)
                .map(|(number, seat)| self.at(number, seat))
                .filter(known)
                .into_iter()
                .collect(),
        }
    }

    /// Whether `name` is on `machine` so far.
    pub(super) fn is_on(&self, name: &str, machine: u32) -> bool {
        let place = self
            .owner(&UnitName::trusted(name), machine)
            .map(|(number, seat)| self.at(number, seat));
        place == Some(machine)
    }

    /// How many wanted instances have no machine.
    pub(super) fn missing(&self) -> usize {
        let spare = |number: &usize| self.units[*number].spares as usize;
        let spares: usize = self.start_first.iter().map(spare).sum();
        let nowhere = self.placed.iter().filter(|machine| **machine == NOWHERE).count();
        nowhere.saturating_sub(spares) // few of which are there
    }

    /// Makes room for so many instances at once, since a list that grows is copied again and again.
    pub(super) fn expect(&mut self, missing: usize) {
        let each = missing.div_ceil(self.slots.len().max(1));
        for slot in &mut self.slots {
            slot.edits.reserve(each + each / 4);
            if self.any_lists {
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
        slot.load += 1;
        if slot.measured.get() == 0 {
            slot.bytes.set(slot.bytes.get() + unit.entry_bytes(instance));
        }
        if self.any_lists {
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

    /// Keeps an instance from being placed: a copy of it may be alive somewhere.
    pub(super) fn block(&mut self, instance: &UnitName) {
        // A global unit has no seat on a machine that is not there.
        if let Some((number, seat)) = self.owner(instance, NOWHERE)
            && self.at(number, seat) == NOWHERE
        {
            *self.place_of(number, seat) = SETTLING;
        }
    }

    /// Keeps an instance from being placed, on its seat: it waits for another unit.
    pub(super) fn keep_off(&mut self, number: usize, seat: usize) {
        *self.place_of(number, seat) = SETTLING;
        *self.needing.entry(number).or_default() += 1;
    }

    /// How many instances of the unit wait for another one.
    pub(super) fn needing(&self, number: usize) -> usize {
        self.needing.get(&number).copied().unwrap_or(0)
    }

    /// Counts what is not placed but stands in a machine's document all the same.
    pub(super) fn fill(&self, machine: u32, bytes: usize) {
        let slot = &self.slots[machine as usize];
        slot.bytes.set(slot.bytes.get() + bytes);
    }
}
