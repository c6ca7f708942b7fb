//! Second part of planning: put what is missing on machines. Work grows with what is missing, not
//! with machines times units.

use std::collections::{BTreeMap, BTreeSet};

use super::board::{AHEAD, Board, NOWHERE};
use super::constraints_of;
use super::keep::{Follower, Pending};
use super::loads::{Loads, Machines, Start};
use crate::constraint::Misfit;
use crate::labels::Fingerprint;
use crate::model::Why;
use crate::name::UnitName;
use crate::xfleet::Constraints;

/// One class for each set of labels asked for, by
/// [`Labels::fingerprint`](crate::labels::Labels::fingerprint): units that ask for the same share
/// it.
type Classes = BTreeMap<Fingerprint, Class>;

/// The machines that have a set of labels, and why the others have not: counted when the first unit
/// finds no machine.
struct Class {
    machines: Machines,
    start: Start,
    unsuited: Option<Vec<(Misfit, usize)>>,
}

pub(super) fn place_what_is_missing<'a>(board: &mut Board<'a>, pending: &mut Pending<'a>) {
    let mut classes = Classes::new();
    let mut anywhere: Option<Class> = None;
    let mut index: Option<Index> = None;
    board.loads = Loads::new(board.slots.iter().map(|slot| slot.load));
    board.expect(board.placed.iter().filter(|machine| **machine == NOWHERE).count());
    for number in 0..board.units.len() {
        if number % AHEAD == 0 {
            board.fetch(number..board.units.len().min(number + AHEAD));
        }
        let unit = &board.units[number];
        let no_machines = unit.global && board.slots.is_empty() && unit.unit.gist.wanted > 0;
        if !board.placed(number).contains(&NOWHERE) && !no_machines {
            continue;
        }
        if unit.global {
            place_global(board, number);
        } else if unit.follows {
            for (seat, instance) in board.empty_seats(number) {
                pending.followers.entry(instance).or_insert(Follower {
                    number,
                    seat,
                    old: Vec::new(),
                });
            }
        } else if unit.specifiers || unit.pinned {
            // Labels with specifiers, and pins, are rare and cheap to look at one by one; the rest
            // shares classes.
            place_one_by_one(board, pending, number);
        } else {
            let labels = unit.labels;
            let new = || {
                Class::new(
                    board,
                    index.get_or_insert_with(|| index_labels(board)),
                    &unit.unit.constraints,
                )
            };
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
    board.loads = Loads::default();
}

/// The machines that have a label, by key, then by value.
type Index<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<u32>>>;

fn index_labels<'a>(board: &Board<'a>) -> Index<'a> {
    let mut index = Index::new();
    for (slot, machine) in board.slots.iter().zip(0..) {
        for (key, value) in &slot.machine.metadata {
            index.entry(key).or_default().entry(value).or_default().push(machine);
        }
    }
    index
}

impl Class {
    fn new(board: &Board, index: &Index, wants: &Constraints) -> Class {
        let mut machines = Machines::none_of(board.slots.len());
        let active = board.slots.iter().zip(0..).filter(|(slot, _)| slot.availability.is_active());
        active.for_each(|(_, machine)| machines.insert(machine));
        for (key, values) in wants.metadata.iter() {
            machines.retain(&labelled(board, index, key, values));
        }
        Class { machines, start: Start::default(), unsuited: None }
    }
}

/// The machines that have one of these values of a label, from the index: no machine itself needs
/// to be looked at.
fn labelled(board: &Board, index: &Index, key: &str, values: &BTreeSet<String>) -> Machines {
    let mut having = Machines::none_of(board.slots.len());
    let lists = index
        .get(key)
        .into_iter()
        .flat_map(|lists| values.iter().filter_map(|value| lists.get(value.as_str())));
    lists.flatten().for_each(|&machine| having.insert(machine));
    having
}

/// A global unit goes to every machine that suits and has nothing against it. Where it cannot go is
/// no misfit of the unit, unless it is nowhere at all.
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
    let is_somewhere = board.placed(number).iter().any(|machine| *machine != NOWHERE)
        || board
            .snapshot
            .assignments
            .values()
            .any(|assignment| assignment.instances.contains_key(&instance));
    if !is_somewhere {
        let (suiting, unsuited) = board.suiting(wants, true);
        let crowded: Vec<Misfit> = suiting
            .into_iter()
            .filter_map(|m| board.crowded(number, &instance, wants, m))
            .collect();
        board.unplaced(number, vec![instance], &unsuited, crowded.into_iter());
    }
}

/// Puts an instance where it goes, with the reason why it is not where it was.
fn settle(
    board: &mut Board,
    pending: &Pending,
    number: usize,
    seat: usize,
    instance: UnitName,
    machine: u32,
    plain: Why,
) {
    let displaced =
        if pending.displaced.is_empty() { None } else { pending.displaced.get(&instance) };
    let (why, moves) =
        displaced.map_or((plain, 0), |displaced| (displaced.why.clone(), displaced.moves));
    board.place(number, seat, instance, machine, why, moves);
}

/// The plain way, for units whose instances differ: look at every machine.
fn place_one_by_one(board: &mut Board, pending: &Pending, number: usize) {
    let mut siblings = board.siblings(number);
    let missing: Vec<(usize, UnitName)> = board.empty_seats(number).collect();
    for (seat, instance) in missing {
        let expanded = constraints_of(board, number, &instance);
        let wants = expanded.as_ref().unwrap_or(&board.units[number].unit.constraints);
        let fitting = pinned_to(board, wants)
            .filter(|&machine| board.misfit_of_new(number, &instance, wants, machine).is_none());
        let on = |machine: &u32| siblings.get(machine).copied().unwrap_or(0);
        match fitting
            .min_by_key(|machine| (on(machine), board.slots[*machine as usize].load, *machine))
        {
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

/// The machines whose id begins as `MachineID=` says: all, where it says nothing. The exact match
/// is left to the misfit.
fn pinned_to(board: &Board, wants: &Constraints) -> impl Iterator<Item = u32> + use<> {
    let id = wants.machine_id.as_deref().unwrap_or("");
    let first = board.slots.partition_point(|slot| slot.id.as_str() < id);
    let many =
        board.slots[first..].iter().take_while(|slot| slot.id.as_str().starts_with(id)).count();
    first as u32..(first + many) as u32
}

/// Places a unit of one instance, which needs no rounds.
fn place_one(board: &mut Board, class: &mut Class, pending: &Pending, number: usize) {
    let Some(instance) = board.empty_seat(number, 0, &mut String::new()) else { return };
    let wants = &board.units[number].unit.constraints;
    let fits = |machine| board.crowded(number, &instance, wants, machine).is_none();
    match board.loads.lowest(&class.machines, &mut class.start, fits) {
        Some(machine) => settle(board, pending, number, 0, instance, machine, Why::Fewest),
        None => give_up(board, class, number, vec![instance]),
    }
}

/// Places the missing instances of one unit, spread over machines: a machine gets a second one only
/// when all that fit have one.
fn place_unit(board: &mut Board, class: &mut Class, pending: &Pending, number: usize) {
    let mut round = Round::new(board, class, number);
    let (seats, mut text) = (board.units[number].seats as usize, String::new());
    let mut unplaced: Vec<UnitName> = Vec::new();
    let mut hopeless = false;
    for seat in 0..seats {
        let Some(instance) = board.empty_seat(number, seat, &mut text) else { continue };
        if hopeless {
            unplaced.push(instance);
            continue;
        }
        match round.next(board, number, &instance) {
            Ok(machine) => settle(board, pending, number, seat, instance, machine, Why::Fewest),
            Err(for_all) => {
                hopeless = for_all;
                unplaced.push(instance);
            }
        }
    }
    give_up(board, class, number, unplaced);
}

/// Notes what fits nowhere.
fn give_up(board: &mut Board, class: &mut Class, number: usize, unplaced: Vec<UnitName>) {
    let Some(first) = unplaced.first() else { return };
    let wants = &board.units[number].unit.constraints;
    let crowded: Vec<Misfit> = class
        .machines
        .iter()
        .filter_map(|machine| board.crowded(number, first, wants, machine))
        .collect();
    let unsuited = class.unsuited.get_or_insert_with(|| board.suiting(wants, false).1);
    board.unplaced(number, unplaced, unsuited, crowded.into_iter());
}

/// The rounds of spreading one unit: in round `level`, machines that hold more than `level`
/// siblings wait aside.
struct Round {
    siblings: BTreeMap<u32, u32>,
    level: u32,
    /// The machines that are left for this round, and those that wait for a later one. What speaks
    /// against the whole unit is in neither: nothing that its placing does will change that.
    open: Machines,
    aside: Machines,
    /// Where `open` begins.
    start: Start,
}

impl Round {
    fn new(board: &Board, class: &mut Class, number: usize) -> Round {
        // Only to bring the class's start up to date: or many small templates would each begin at
        // its beginning.
        board.loads.lowest(&class.machines, &mut class.start, |_| true);
        let (siblings, aside) = (board.siblings(number), Machines::none_of(board.slots.len()));
        let mut round =
            Round { siblings, level: 0, open: class.machines.clone(), aside, start: class.start };
        for &machine in round.siblings.keys().filter(|machine| class.machines.contains(**machine)) {
            round.open.remove(machine);
            round.aside.insert(machine);
        }
        round
    }

    fn let_in(&mut self, board: &Board, machine: u32) {
        self.open.insert(machine);
        self.start = self.start.min(Start::at(board.slots[machine as usize].load));
    }

    /// The next machine for `instance`, which then waits aside; or whether no machine will take any
    /// further instance of this unit.
    fn next(&mut self, board: &Board, number: usize, instance: &UnitName) -> Result<u32, bool> {
        let wants = &board.units[number].unit.constraints;
        let mut refused = Vec::new();
        // A machine refused for this instance's own name may take the next one, so it comes back
        // after this search.
        let mut refused_once = Vec::new();
        let found = loop {
            let found = board.loads.lowest(&self.open, &mut self.start, |machine| {
                match board.crowded(number, instance, wants, machine) {
                    None => return true,
                    Some(Misfit::Conflict(other)) if !board.refuses_all(number, &other) => {
                        refused_once.push(machine)
                    }
                    Some(_) => {}
                }
                refused.push(machine);
                false
            });
            refused.drain(..).chain(found).for_each(|machine| self.open.remove(machine));
            if let Some(machine) = found {
                self.aside.insert(machine);
                *self.siblings.entry(machine).or_default() += 1;
                break Ok(machine);
            }
            if !self.advance(board) {
                break Err(refused_once.is_empty());
            }
        };
        for machine in refused_once {
            match self.siblings.get(&machine) {
                Some(siblings) if *siblings > self.level => self.aside.insert(machine),
                _ => self.let_in(board, machine),
            }
        }
        found
    }

    /// Begins the next round, with those machines that wait aside and hold the fewest siblings;
    /// false if none waits.
    fn advance(&mut self, board: &Board) -> bool {
        // All that wait aside hold siblings, and a map is gone through faster than it is asked for
        // each.
        let waiting = || self.siblings.iter().filter(|(machine, _)| self.aside.contains(**machine));
        let Some(fewest) = waiting().map(|(_, siblings)| *siblings).min() else { return false };
        let next: Vec<u32> = waiting()
            .filter(|(_, siblings)| **siblings == fewest)
            .map(|(machine, _)| *machine)
            .collect();
        self.level = fewest;
        for machine in next {
            self.aside.remove(machine);
            self.let_in(board, machine);
        }
        true
    }
}
