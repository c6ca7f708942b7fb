//! The board that planning plays on: machines and units by number, what is on each machine so far, and the changes made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Change, Plan, Retired, Unplaced, constraints_of};
use crate::constraint::{self, Misfit};
use crate::model::{Assignment, DesiredState, FORMAT, MAX_DOCUMENT_BYTES, Machine, Placement, Snapshot, Unit, Why};
use crate::name::{MachineId, UnitName};
use crate::xfleet::Constraints;

/// What one entry of an assignment takes as JSON beside its name and its unit's name, in bytes, rounded up: hash, numbers, reason.
const ENTRY_BYTES: usize = 220;

/// What is left of a document's limit for entries: its frame, and fields that a later version may add.
const BUDGET_BYTES: usize = MAX_DOCUMENT_BYTES - 16 * 1024;

pub(super) struct Board<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// The machines that can be planned on, by id; a machine's number is its index.
    pub(super) slots: Vec<Slot<'a>>,
    /// All units, by name; a unit's number is its index.
    pub(super) units: Vec<UnitSeat<'a>>,
    /// Whether any unit has conflicts: if not, nobody keeps lists of what is where.
    any_conflicts: bool,
    pub(super) plan: Plan,
}

/// One machine.
pub(super) struct Slot<'a> {
    pub(super) id: &'a MachineId,
    pub(super) machine: &'a Machine,
    /// Its instances so far, kept and placed.
    pub(super) load: u32,
    bytes: usize,
    /// What runs here and the patterns that it conflicts with; kept only if any unit has conflicts.
    here: Vec<(UnitName, Vec<String>)>,
    /// Changes to the document, `None` = removed. Applied at the end.
    edits: Vec<(UnitName, Option<Placement>)>,
}

/// One unit, and how far its wanted instances are placed.
pub(super) struct UnitSeat<'a> {
    pub(super) unit: &'a Arc<Unit>,
    pub(super) specifiers: bool,
    /// Numbers of a scaled template that have a record of their own, which wins.
    own_records: BTreeSet<u32>,
    /// By replica number less one, by machine number for a global unit, one entry for others: the machine it is on, or [`NOWHERE`].
    pub(super) placed: Vec<u32>,
}

/// No machine.
pub(super) const NOWHERE: u32 = u32::MAX;
/// On a machine that is absent but not called lost.
pub(super) const SETTLING: u32 = u32::MAX - 1;

impl<'a> Board<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Board<'a> {
        let slots: Vec<Slot> = snapshot
            .machines
            .iter()
            .map(|(id, machine)| Slot { id, machine, load: 0, bytes: 0, here: Vec::new(), edits: Vec::new() })
            .collect();
        let units: Vec<UnitSeat> = snapshot.units.values().map(|unit| UnitSeat::new(unit, snapshot, slots.len())).collect();
        let any_conflicts = units.iter().any(|seat| !seat.unit.constraints.conflicts.is_empty());
        Board { snapshot, slots, units, any_conflicts, plan: Plan::default() }
    }

    /// The number of the unit called `name`.
    pub(super) fn unit_number(&self, name: &UnitName) -> Option<usize> {
        self.units.binary_search_by(|seat| seat.unit.name.cmp(name)).ok()
    }

    /// Where `name` (a unit, an instance, a replica) is so far, as machine numbers.
    pub(super) fn machines_of(&self, name: &UnitName) -> Vec<u32> {
        let seat = match self.unit_number(name) {
            Some(number) if !name.is_template() => Some((&self.units[number], None)),
            Some(_) => None,
            None => name.template().and_then(|t| self.unit_number(&t)).map(|number| (&self.units[number], name.replica_number())),
        };
        match seat {
            Some((seat, None)) => seat.placed.iter().copied().filter(|&m| m < SETTLING).collect(),
            Some((seat, Some(n))) => seat.placed.get(n as usize - 1).copied().filter(|&m| m < SETTLING).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// What beside or on the machine speaks against the instance there.
    pub(super) fn misfit(&self, number: usize, instance: &UnitName, wants: &Constraints, slot: &Slot) -> Option<Misfit> {
        if let Err(misfit) = constraint::suits(slot.machine, wants) {
            return Some(misfit);
        }
        self.crowded(number, instance, wants, slot)
    }

    /// What runs on the machine that speaks against the instance there; its labels were checked.
    pub(super) fn crowded(&self, number: usize, instance: &UnitName, wants: &Constraints, slot: &Slot) -> Option<Misfit> {
        if slot.bytes + entry_bytes(instance, &self.units[number].unit.name) > BUDGET_BYTES {
            return Some(Misfit::Full);
        }
        let clash = slot.here.iter().find(|(other, theirs)| constraint::conflict(instance, &wants.conflicts, other, theirs));
        clash.map(|(other, _)| Misfit::Conflict(other.clone()))
    }

    /// Counts an instance as being on a machine.
    pub(super) fn take(&mut self, number: usize, seat: usize, instance: &UnitName, machine: u32) {
        let (unit, specifiers) = (self.units[number].unit, self.units[number].specifiers);
        let slot = &mut self.slots[machine as usize];
        slot.load += 1;
        slot.bytes += entry_bytes(instance, &unit.name);
        if self.any_conflicts {
            let wants = constraints_of(unit, instance, specifiers);
            let conflicts = wants.map_or_else(|| unit.constraints.conflicts.clone(), |w| w.conflicts);
            slot.here.push((instance.clone(), conflicts));
        }
        self.units[number].placed[seat] = machine;
    }

    /// Undoes [`Board::take`], for an instance that moves on.
    pub(super) fn release(&mut self, number: usize, seat: usize, instance: &UnitName) {
        let machine = self.units[number].placed[seat];
        let bytes = entry_bytes(instance, &self.units[number].unit.name);
        let slot = &mut self.slots[machine as usize];
        slot.load -= 1;
        slot.bytes -= bytes;
        slot.here.retain(|(name, _)| name != instance);
        self.units[number].placed[seat] = NOWHERE;
    }

    /// Puts an instance on a machine and writes it down.
    pub(super) fn place(&mut self, number: usize, seat: usize, instance: UnitName, machine: u32, why: Why, moves: u32) {
        self.take(number, seat, &instance, machine);
        let unit = self.units[number].unit;
        let placement = Placement {
            unit: unit.name.clone(),
            revision: unit.revision,
            hash: unit.hash.clone(),
            state: unit.desired,
            why: why.clone(),
            since_ms: self.snapshot.now_ms,
            moves,
            restart: unit.restarts_asked(&instance),
        };
        let slot = &mut self.slots[machine as usize];
        self.plan.changes.push(Change::Place { instance: instance.clone(), machine: slot.id.clone(), why });
        slot.edits.push((instance, Some(placement)));
    }

    /// Takes an instance off a machine that can be planned on, and writes it down.
    pub(super) fn retire(&mut self, instance: &UnitName, machine: u32, why: Retired) {
        let slot = &mut self.slots[machine as usize];
        self.plan.changes.push(Change::Retire { instance: instance.clone(), machine: slot.id.clone(), why });
        slot.edits.push((instance.clone(), None));
    }

    /// Brings the document's entry of an instance that stays up to date with its unit.
    pub(super) fn refresh(&mut self, number: usize, instance: &UnitName, machine: u32, old: &Placement) {
        let unit = self.units[number].unit;
        let restart = if unit.restart == 0 && unit.restart_of.is_empty() { 0 } else { unit.restarts_asked(instance) };
        let same = old.revision == unit.revision
            && old.hash == unit.hash
            && old.state == unit.desired
            && old.restart == restart
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
            ..old.clone()
        };
        let slot = &mut self.slots[machine as usize];
        self.plan.changes.push(Change::Update { instance: instance.clone(), machine: slot.id.clone() });
        slot.edits.push((instance.clone(), Some(placement)));
    }

    /// Notes a time at which a pause ends.
    pub(super) fn wake_at(&mut self, at_ms: u64) {
        self.plan.wake_at_ms = Some(self.plan.wake_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }

    /// Notes instances that fit nowhere, with the reasons counted over all machines.
    pub(super) fn unplaced(
        &mut self,
        number: usize,
        instances: Vec<UnitName>,
        misfit: impl Fn(&Board<'a>, &Slot<'a>) -> Option<Misfit>,
    ) {
        let mut counts: BTreeMap<Misfit, usize> = BTreeMap::new();
        for found in self.slots.iter().filter_map(|slot| misfit(self, slot)) {
            *counts.entry(found).or_default() += 1;
        }
        if self.slots.is_empty() {
            counts.insert(Misfit::NoMachines, 0);
        }
        let mut misfits: Vec<(Misfit, usize)> = counts.into_iter().collect();
        misfits.sort_by_key(|(_, machines)| std::cmp::Reverse(*machines));
        self.plan.unplaced.push(Unplaced { unit: self.units[number].unit.name.clone(), instances, misfits });
    }

    /// Applies the edits to the documents.
    pub(super) fn into_plan(self) -> Plan {
        let Board { snapshot, slots, mut plan, .. } = self;
        for slot in slots.into_iter().filter(|slot| !slot.edits.is_empty()) {
            let old = snapshot.assignments.get(slot.id);
            let mut document =
                old.map_or_else(|| Assignment { v: FORMAT, ..Assignment::default() }, |old| Assignment::clone(old));
            document.generation += 1;
            for (instance, placement) in slot.edits {
                match placement {
                    Some(placement) => document.instances.insert(instance, placement),
                    None => document.instances.remove(&instance),
                };
            }
            plan.documents.insert(slot.id.clone(), document);
        }
        plan
    }
}

impl<'a> UnitSeat<'a> {
    fn new(unit: &'a Arc<Unit>, snapshot: &Snapshot, machines: usize) -> UnitSeat<'a> {
        let wanted = unit.desired != DesiredState::Inactive;
        let seats = match unit.replicas {
            _ if !wanted => 0,
            _ if unit.constraints.global => machines,
            Some(replicas) => replicas as usize,
            None if unit.name.is_template() => 0,
            None => 1,
        };
        let mut own_records = BTreeSet::new();
        if unit.name.is_template() && seats > 0 {
            let first = UnitName::trusted(format!("{}@", unit.name.prefix()));
            let family = snapshot.units.range(first..).take_while(|(name, _)| name.prefix() == unit.name.prefix());
            own_records.extend(
                family.filter(|(name, _)| name.suffix() == unit.name.suffix()).filter_map(|(name, _)| name.replica_number()),
            );
        }
        UnitSeat { unit, specifiers: unit.constraints.has_specifiers(), own_records, placed: vec![NOWHERE; seats] }
    }

    /// The seat of a replica, if it is wanted and has no record of its own.
    pub(super) fn seat_of_replica(&self, instance: &UnitName) -> Option<usize> {
        let number = instance.replica_number()?;
        let free = number >= 1 && number as usize <= self.placed.len() && !self.own_records.contains(&number);
        free.then_some(number as usize - 1)
    }

    /// The seats that nobody sits on, with the instance's name.
    pub(super) fn empty_seats(&self) -> impl Iterator<Item = (usize, UnitName)> + '_ {
        let name = &self.unit.name;
        self.placed.iter().enumerate().filter(|&(_, &machine)| machine == NOWHERE).filter_map(move |(seat, _)| {
            if !name.is_template() {
                return Some((seat, name.clone()));
            }
            let number = seat as u32 + 1;
            (!self.own_records.contains(&number)).then(|| (seat, name.replica(number)))
        })
    }
}

fn entry_bytes(instance: &UnitName, unit: &UnitName) -> usize {
    instance.as_str().len() + unit.as_str().len() + ENTRY_BYTES
}
