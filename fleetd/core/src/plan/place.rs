//! Second half of planning: put what is missing on machines. Work grows with what is missing, not with machines times units.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::board::{Board, NOWHERE};
use super::keep::{self, Pending};
use super::{Retired, constraints_of};
use crate::constraint::{self, Misfit};
use crate::glob;
use crate::model::{DesiredState, Why};
use crate::name::UnitName;
use crate::xfleet::Constraints;

/// Machines by load, lowest first, then by number. Entries whose load has changed since are put right when they surface.
type Heap = BinaryHeap<Reverse<(u32, u32)>>;

/// One heap for each set of labels asked for: units that ask for the same share it.
type Heaps<'a> = BTreeMap<&'a BTreeMap<String, BTreeSet<String>>, Heap>;

pub(super) fn place_what_is_missing(board: &mut Board, mut pending: Pending) {
    let mut heaps = Heaps::new();
    for number in 0..board.units.len() {
        let unit = board.units[number].unit;
        let wants = &unit.constraints;
        if unit.desired == DesiredState::Inactive || board.units[number].placed.is_empty() && !wants.global {
            continue;
        }
        if wants.global {
            place_global(board, number);
        } else if !wants.machine_of.is_empty() {
            let known: BTreeSet<UnitName> =
                pending.followers.iter().filter(|(n, _, _)| *n == number).map(|(_, instance, _)| instance.clone()).collect();
            let missing: Vec<UnitName> = board.units[number].empty_seats().map(|(_, instance)| instance).collect();
            pending.followers.extend(missing.into_iter().filter(|i| !known.contains(i)).map(|instance| (number, instance, None)));
        } else {
            place_unit(board, &mut heaps, &pending, number);
        }
    }
    place_followers(board, &mut pending);
    move_failing(board, &pending);
}

/// A global unit goes to every machine that suits and has nothing against it. Where it cannot go is no misfit of the unit.
fn place_global(board: &mut Board, number: usize) {
    for machine in 0..board.slots.len() {
        if board.units[number].placed[machine] != NOWHERE || keep::suits(board, number, machine).is_err() {
            continue;
        }
        let unit = board.units[number].unit;
        let instance = unit.name.clone();
        if board.crowded(number, &instance, &unit.constraints, &board.slots[machine]).is_none() {
            board.place(number, machine, instance, machine as u32, Why::Global, 0);
        }
    }
}

/// Places the missing instances of one unit, spread over machines: a machine gets a second one only when all that fit have one.
fn place_unit<'a>(board: &mut Board<'a>, heaps: &mut Heaps<'a>, pending: &Pending, number: usize) {
    let missing: Vec<(usize, UnitName)> = board.units[number].empty_seats().collect();
    if missing.is_empty() {
        return;
    }
    let (unit, specifiers) = (board.units[number].unit, board.units[number].specifiers);
    // Labels with specifiers, and pins, are rare and cheap to look at one by one; the rest shares heaps.
    let one_by_one = specifiers || unit.constraints.machine_id.is_some();
    let mut own_heap = Heap::new();
    let heap = if one_by_one {
        &mut own_heap
    } else {
        heaps.entry(&unit.constraints.metadata).or_insert_with(|| {
            let fitting =
                board.slots.iter().enumerate().filter(|(_, slot)| constraint::suits(slot.machine, &unit.constraints).is_ok());
            fitting.map(|(machine, slot)| Reverse((slot.load, machine as u32))).collect()
        })
    };
    let mut siblings: BTreeMap<u32, u32> = BTreeMap::new();
    for &machine in board.units[number].placed.iter().filter(|&&machine| (machine as usize) < board.slots.len()) {
        *siblings.entry(machine).or_default() += 1;
    }
    let mut round = Round { siblings, level: 0, aside: Vec::new(), refused: Vec::new() };
    let mut unplaced: Vec<UnitName> = Vec::new();
    for (seat, instance) in missing {
        if !unplaced.is_empty() && !specifiers {
            unplaced.push(instance); // what no machine took once, none takes twice: loads only grow
            continue;
        }
        let expanded = constraints_of(unit, &instance, specifiers);
        let wants = expanded.as_ref().unwrap_or(&unit.constraints);
        let displaced = pending.displaced.get(&instance);
        let found = if one_by_one {
            least_loaded(board, number, &instance, wants, &round.siblings)
        } else {
            round.next(board, heap, number, &instance, wants)
        };
        match found {
            Some(machine) => {
                let plain = if wants.machine_id.is_some() { Why::Pinned } else { Why::Fewest };
                let (why, moves) = displaced.map_or((plain, 0), |d| (d.why.clone(), d.moves));
                board.place(number, seat, instance, machine, why, moves);
                *round.siblings.entry(machine).or_default() += 1;
                if !one_by_one {
                    round.aside.push(Reverse((board.slots[machine as usize].load, machine)));
                }
            }
            None => unplaced.push(instance),
        }
    }
    heap.extend(round.aside);
    heap.extend(round.refused);
    if let Some(first) = unplaced.first().cloned() {
        let wants = unit.constraints.expanded(&first);
        board.unplaced(number, unplaced, |board, slot| board.misfit(number, &first, &wants, slot));
    }
}

/// The rounds of spreading one unit: in round `level`, machines that hold more than `level` siblings wait aside.
struct Round {
    siblings: BTreeMap<u32, u32>,
    level: u32,
    aside: Vec<Reverse<(u32, u32)>>,
    /// Machines that something speaks against; nothing that this unit's placing does will change that.
    refused: Vec<Reverse<(u32, u32)>>,
}

impl Round {
    fn next(&mut self, board: &Board, heap: &mut Heap, number: usize, instance: &UnitName, wants: &Constraints) -> Option<u32> {
        // A machine refused for this instance's own name may take the next one, so it comes back after this search.
        let mut refused_once: Vec<Reverse<(u32, u32)>> = Vec::new();
        let found = loop {
            let Some(Reverse((load, machine))) = heap.pop() else {
                let lowest = self.aside.iter().map(|Reverse((_, m))| self.siblings.get(m).copied().unwrap_or(0)).min();
                match lowest {
                    Some(level) => self.level = level,
                    None => break None,
                }
                heap.extend(self.aside.drain(..));
                continue;
            };
            let slot = &board.slots[machine as usize];
            if load != slot.load {
                heap.push(Reverse((slot.load, machine)));
                continue;
            }
            if self.siblings.get(&machine).copied().unwrap_or(0) > self.level {
                self.aside.push(Reverse((load, machine)));
                continue;
            }
            match board.crowded(number, instance, wants, slot) {
                None => break Some(machine),
                // Declared by the other side alone, perhaps against this one name.
                Some(Misfit::Conflict(other)) if !wants.conflicts.iter().any(|p| glob::matches(p, other.as_str())) => {
                    refused_once.push(Reverse((load, machine)));
                }
                Some(_) => self.refused.push(Reverse((load, machine))),
            }
        };
        heap.extend(refused_once);
        found
    }
}

/// The plain way, for units whose instances differ: look at every machine.
fn least_loaded(
    board: &Board,
    number: usize,
    instance: &UnitName,
    wants: &Constraints,
    siblings: &BTreeMap<u32, u32>,
) -> Option<u32> {
    let fitting = board.slots.iter().enumerate().filter(|(_, slot)| board.misfit(number, instance, wants, slot).is_none());
    fitting
        .map(|(m, slot)| (siblings.get(&(m as u32)).copied().unwrap_or(0), slot.load, m as u32))
        .min()
        .map(|(_, _, machine)| machine)
}

/// Followers go where the units that they name are; a follower may be followed in turn, so go round until nothing moves.
fn place_followers(board: &mut Board, pending: &mut Pending) {
    let mut open = std::mem::take(&mut pending.followers);
    open.sort_by(|a, b| a.1.cmp(&b.1));
    loop {
        let waiting: BTreeSet<UnitName> = open.iter().map(|(_, instance, _)| instance.clone()).collect();
        let before = open.len();
        let mut later = Vec::new();
        for (number, instance, old) in open {
            let unit = board.units[number].unit;
            let wants = unit.constraints.expanded(&instance);
            if wants.machine_of.iter().any(|name| waiting.contains(name.as_str())) {
                later.push((number, instance, old));
                continue;
            }
            place_follower(board, pending, number, instance, &wants, old);
        }
        if later.is_empty() || later.len() == before {
            for (number, instance, old) in later {
                if let Some((machine, _)) = old {
                    board.retire(&instance, machine, Retired::Unfit(Misfit::Circle));
                }
                board.unplaced(number, vec![instance], |_, _| Some(Misfit::Circle));
            }
            return;
        }
        open = later;
    }
}

fn place_follower(
    board: &mut Board,
    pending: &mut Pending,
    number: usize,
    instance: UnitName,
    wants: &Constraints,
    old: Option<(u32, crate::model::Placement)>,
) {
    let seat = board.units[number].seat_of_replica(&instance).unwrap_or(0);
    let misfit = |board: &Board, machine: u32| {
        let slot = &board.slots[machine as usize];
        keep::beside(board, &wants.machine_of, machine).or_else(|| board.misfit(number, &instance, wants, slot))
    };
    if let Some((machine, placement)) = &old {
        match misfit(board, *machine) {
            None => {
                board.take(number, seat, &instance, *machine);
                board.refresh(number, &instance, *machine, placement);
                return;
            }
            Some(found) => keep::displace(board, pending, &instance, *machine, placement, found),
        }
    }
    let fitting = (0..board.slots.len() as u32).filter(|&machine| misfit(board, machine).is_none());
    match fitting.min_by_key(|&machine| (board.slots[machine as usize].load, machine)) {
        Some(machine) => {
            let target = UnitName::trusted(wants.machine_of[0].as_str());
            let moves = pending.displaced.get(&instance).map_or(0, |d| d.moves);
            board.place(number, seat, instance, machine, Why::Beside(target), moves);
        }
        None => {
            let found = instance.clone();
            board.unplaced(number, vec![found], |board, slot| {
                let machine = board.slots.iter().position(|s| s.id == slot.id).unwrap_or(0) as u32;
                misfit(board, machine)
            });
        }
    }
}

/// Instances that gave up where they are move if any other machine takes them; else they stay and go on trying.
fn move_failing(board: &mut Board, pending: &Pending) {
    for (number, seat, instance, placement) in &pending.failing {
        let unit = board.units[*number].unit;
        let wants = unit.constraints.expanded(instance);
        let from = board.units[*number].placed[*seat];
        let fitting = board
            .slots
            .iter()
            .enumerate()
            .filter(|(m, slot)| *m as u32 != from && board.misfit(*number, instance, &wants, slot).is_none());
        let Some(machine) = fitting.map(|(m, slot)| (slot.load, m as u32)).min().map(|(_, m)| m) else { continue };
        let id = board.slots[from as usize].id.clone();
        board.release(*number, *seat, instance);
        board.retire(instance, from, Retired::Failed);
        board.place(*number, *seat, instance.clone(), machine, Why::Failed(id), placement.moves + 1);
    }
}
