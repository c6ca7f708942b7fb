//! Second part of planning: put what is missing on machines. Work grows with what is missing, not with machines times units.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::board::{AHEAD, Board, NOWHERE};
use super::constraints_of;
use super::keep::{Follower, Pending};
use crate::constraint::Misfit;
use crate::labels::Fingerprint;
use crate::model::Why;
use crate::name::UnitName;
use crate::xfleet::Constraints;

/// Machines by load, lowest first, then by number. Entries whose load has changed since are put right when they surface.
type Heap = BinaryHeap<Entry>;

/// A load and a machine's number in one number, which is compared at once.
type Entry = Reverse<u64>;

fn entry(load: u32, machine: u32) -> Entry {
    Reverse(u64::from(load) << 32 | u64::from(machine))
}

fn load_of(Reverse(entry): Entry) -> u32 {
    (entry >> 32) as u32
}

fn machine_of(Reverse(entry): Entry) -> u32 {
    entry as u32
}

/// One class for each set of labels asked for, by [`Labels::fingerprint`](crate::labels::Labels::fingerprint): units that ask for the same share it.
type Classes = BTreeMap<Fingerprint, Class>;

/// The machines that have a set of labels, and why the others have not: counted when the first unit finds no machine.
struct Class {
    heap: Heap,
    unsuited: Option<Vec<(Misfit, usize)>>,
}

pub(super) fn place_what_is_missing<'a>(board: &mut Board<'a>, pending: &mut Pending<'a>) {
    let mut classes = Classes::new();
    let mut anywhere: Option<Class> = None;
    let mut index: Option<Index> = None;
    board.expect(board.placed.iter().filter(|machine| **machine == NOWHERE).count());
    for number in 0..board.units.len() {
        if number % AHEAD == 0 {
            board.fetch(number..board.units.len().min(number + AHEAD));
        }
        let unit = &board.units[number];
        if !board.placed(number).contains(&NOWHERE) {
            continue;
        }
        if unit.global {
            place_global(board, number);
        } else if unit.follows {
            for (seat, instance) in board.empty_seats(number) {
                pending.followers.entry(instance).or_insert(Follower { number, seat, old: Vec::new() });
            }
        } else if unit.specifiers || unit.pinned {
            // Labels with specifiers, and pins, are rare and cheap to look at one by one; the rest shares heaps.
            place_one_by_one(board, pending, number);
        } else {
            let labels = unit.labels;
            let new = || Class::new(board, index.get_or_insert_with(|| index_labels(board)), &unit.unit.constraints);
            let class = match labels {
                None => anywhere.get_or_insert_with(new),
                Some(labels) => classes.entry(labels).or_insert_with(new),
            };
            match board.units[number].seats {
                1 => place_one(board, class, pending, number),
                _ => place_unit(board, class, pending, number),
            }
        }
    }
}

/// The machines that have a label, by key and value.
type Index<'a> = BTreeMap<(&'a str, &'a str), Vec<u32>>;

fn index_labels<'a>(board: &Board<'a>) -> Index<'a> {
    let mut index = Index::new();
    for (slot, machine) in board.slots.iter().zip(0..) {
        for (key, value) in &slot.machine.metadata {
            index.entry((key, value)).or_default().push(machine);
        }
    }
    index
}

impl Class {
    fn new(board: &Board, index: &Index, wants: &Constraints) -> Class {
        let entry = |machine: u32| entry(board.slots[machine as usize].load, machine);
        let takes = |machine: &u32| board.slots[*machine as usize].availability.is_active();
        let heap = match labelled(index, wants) {
            None => (0..board.slots.len() as u32).filter(takes).map(entry).collect(),
            Some(machines) => machines.into_iter().filter(takes).map(entry).collect(),
        };
        Class { heap, unsuited: None }
    }
}

/// The machines that have all labels asked for; `None` if none are asked for. The lists are sorted and a machine has one value of a key, so
/// that no machine itself needs to be looked at.
fn labelled(index: &Index, wants: &Constraints) -> Option<Vec<u32>> {
    let having = |key: &str, values: &BTreeSet<String>| {
        let mut machines: Vec<u32> =
            values.iter().flat_map(|value| index.get(&(key, value.as_str()))).flatten().copied().collect();
        machines.sort_unstable();
        machines
    };
    wants.metadata.iter().map(|(key, values)| having(key, values)).reduce(|mut among, having| {
        among.retain(|machine| having.binary_search(machine).is_ok());
        among
    })
}

/// A global unit goes to every machine that suits and has nothing against it. Where it cannot go is no misfit of the unit.
fn place_global(board: &mut Board, number: usize) {
    let instance = board.units[number].unit.name.clone();
    let expanded = constraints_of(board, number, &instance);
    let wants = expanded.as_ref().unwrap_or(&board.units[number].unit.constraints);
    for machine in 0..board.slots.len() {
        let free = board.placed(number)[machine] == NOWHERE;
        if free && board.misfit(number, &instance, wants, machine as u32).is_none() {
            board.place(number, machine, instance.clone(), machine as u32, Why::Global, 0);
        }
    }
}

/// Puts an instance where it goes, with the reason why it is not where it was.
fn settle(board: &mut Board, pending: &Pending, number: usize, seat: usize, instance: UnitName, machine: u32, plain: Why) {
    let displaced = if pending.displaced.is_empty() { None } else { pending.displaced.get(&instance) };
    let (why, moves) = displaced.map_or((plain, 0), |displaced| (displaced.why.clone(), displaced.moves));
    board.place(number, seat, instance, machine, why, moves);
}

/// The plain way, for units whose instances differ: look at every machine.
fn place_one_by_one(board: &mut Board, pending: &Pending, number: usize) {
    let mut siblings = board.siblings(number);
    let missing: Vec<(usize, UnitName)> = board.empty_seats(number).collect();
    for (seat, instance) in missing {
        let expanded = constraints_of(board, number, &instance);
        let wants = expanded.as_ref().unwrap_or(&board.units[number].unit.constraints);
        let fitting = pinned_to(board, wants).filter(|&machine| board.misfit_of_new(number, &instance, wants, machine).is_none());
        let on = |machine: &u32| siblings.get(machine).copied().unwrap_or(0);
        match fitting.min_by_key(|machine| (on(machine), board.slots[*machine as usize].load, *machine)) {
            Some(machine) => {
                let plain = if wants.machine_id.is_some() { Why::Pinned } else { Why::Fewest };
                settle(board, pending, number, seat, instance, machine, plain);
                *siblings.entry(machine).or_default() += 1;
            }
            None => {
                let (suiting, unsuited) = board.suiting(wants, false);
                let against = |machine| board.crowded(number, &instance, wants, machine);
                let crowded: Vec<Misfit> = suiting.into_iter().filter_map(against).collect();
                board.unplaced(number, vec![instance], &unsuited, crowded.into_iter());
            }
        }
    }
}

/// The machines whose id begins as `MachineID=` says: all, where it says nothing. The exact match is left to the misfit.
fn pinned_to(board: &Board, wants: &Constraints) -> impl Iterator<Item = u32> + use<> {
    let id = wants.machine_id.as_deref().unwrap_or("");
    let first = board.slots.partition_point(|slot| slot.id.as_str() < id);
    let many = board.slots[first..].iter().take_while(|slot| slot.id.as_str().starts_with(id)).count();
    first as u32..(first + many) as u32
}

/// Places a unit of one instance, which needs no rounds.
fn place_one(board: &mut Board, class: &mut Class, pending: &Pending, number: usize) {
    let Some(instance) = board.empty_seat(number, 0, &mut String::new()) else { return };
    let mut refused: Vec<Entry> = Vec::new();
    let mut open = Some(instance);
    while let Some(instance) = open.take_if(|_| !class.heap.is_empty())
        && let Some(mut top) = class.heap.peek_mut()
    {
        let machine = machine_of(*top);
        let load = board.slots[machine as usize].load;
        if load_of(*top) == load && board.crowded(number, &instance, &board.units[number].unit.constraints, machine).is_none() {
            settle(board, pending, number, 0, instance, machine, Why::Fewest);
            *top = entry(board.slots[machine as usize].load, machine);
            continue;
        }
        if load_of(*top) == load {
            refused.push(PeekMut::pop(top));
        } else {
            *top = entry(load, machine);
        }
        open = Some(instance);
    }
    class.heap.extend(refused);
    give_up(board, class, number, open.into_iter().collect());
}

/// Places the missing instances of one unit, spread over machines: a machine gets a second one only when all that fit have one.
fn place_unit(board: &mut Board, class: &mut Class, pending: &Pending, number: usize) {
    let heap = &mut class.heap;
    let mut round = Round { siblings: board.siblings(number), ..Round::default() };
    let (seats, mut text) = (board.units[number].seats as usize, String::new());
    let mut unplaced: Vec<UnitName> = Vec::new();
    let mut hopeless = false;
    for seat in 0..seats {
        let Some(instance) = board.empty_seat(number, seat, &mut text) else { continue };
        if hopeless {
            unplaced.push(instance);
            continue;
        }
        match round.next(board, heap, number, &instance) {
            Ok(machine) => {
                settle(board, pending, number, seat, instance, machine, Why::Fewest);
                *round.siblings.entry(machine).or_default() += 1;
                round.aside.push(entry(board.slots[machine as usize].load, machine));
            }
            Err(for_all) => {
                hopeless = for_all;
                unplaced.push(instance);
            }
        }
    }
    heap.extend(round.aside);
    heap.extend(round.refused);
    give_up(board, class, number, unplaced);
}

/// Notes what fits nowhere; all machines of the class are in its heap again.
fn give_up(board: &mut Board, class: &mut Class, number: usize, unplaced: Vec<UnitName>) {
    let Some(first) = unplaced.first() else { return };
    let wants = &board.units[number].unit.constraints;
    let against = |entry: &Entry| board.crowded(number, first, wants, machine_of(*entry));
    let crowded: Vec<Misfit> = class.heap.iter().filter_map(against).collect();
    let unsuited = class.unsuited.get_or_insert_with(|| board.suiting(wants, false).1);
    board.unplaced(number, unplaced, unsuited, crowded.into_iter());
}

/// The rounds of spreading one unit: in round `level`, machines that hold more than `level` siblings wait aside.
#[derive(Default)]
struct Round {
    siblings: BTreeMap<u32, u32>,
    level: u32,
    aside: Vec<Entry>,
    /// Machines that something speaks against; nothing that this unit's placing does will change that.
    refused: Vec<Entry>,
}

impl Round {
    /// The next machine for `instance`, taken out of the heap; or whether no machine will take any further instance of this unit.
    fn next(&mut self, board: &Board, heap: &mut Heap, number: usize, instance: &UnitName) -> Result<u32, bool> {
        let wants = &board.units[number].unit.constraints;
        // A machine refused for this instance's own name may take the next one, so it comes back after this search.
        let mut refused_once: Vec<Entry> = Vec::new();
        let found = loop {
            let Some(mut top) = heap.peek_mut() else {
                let lowest = self.aside.iter().map(|entry| self.siblings.get(&machine_of(*entry)).copied().unwrap_or(0)).min();
                match lowest {
                    Some(level) => self.level = level,
                    None => break Err(refused_once.is_empty()),
                }
                heap.extend(self.aside.drain(..));
                continue;
            };
            let machine = machine_of(*top);
            let load = board.slots[machine as usize].load;
            if load_of(*top) != load {
                *top = entry(load, machine);
                continue;
            }
            let entry = PeekMut::pop(top);
            if self.siblings.get(&machine).copied().unwrap_or(0) > self.level {
                self.aside.push(entry);
            } else {
                match board.crowded(number, instance, wants, machine) {
                    None => break Ok(machine),
                    Some(Misfit::Conflict(other)) if !board.refuses_all(number, &other) => {
                        refused_once.push(entry);
                    }
                    Some(_) => self.refused.push(entry),
                }
            }
        };
        heap.extend(refused_once);
        found
    }
}
