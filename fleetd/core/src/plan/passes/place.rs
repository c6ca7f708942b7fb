//! Puts what is missing on machines. Work grows with what is missing, not with machines times
//! units.

use super::super::board::{AHEAD, Board, NOWHERE};
use super::super::candidate::Candidate;
use super::super::edit::Pen;
use super::super::fit;
use super::super::pending::{Follower, Pending};
use super::super::rank::classes::{Class, Classes};
use super::super::rank::loads::Loads;
use super::super::rank::rounds::Rounds;
use super::super::rank::{self, Way};
use crate::model::Why;
use crate::name::UnitName;
use crate::unit::xfleet::Constraints;

/// Places every instance that has no machine, unit by unit in the order of their names. Followers
/// are left to be placed once all others are.
pub(in crate::plan) fn place_what_is_missing<'a>(
    pen: &mut Pen<'a>,
    pending: &mut Pending<'a>,
    way: Way,
) {
    pen.expect(pen.board().missing());
    let loads = Loads::new(pen.board().slots.iter().map(|slot| slot.load));
    let mut classes = Classes::default();
    let mut place = Place { pen, loads };
    for number in 0..place.board().units.len() {
        let board = place.board();
        if number % AHEAD == 0 {
            board.fetch(number..board.units.len().min(number + AHEAD));
        }
        let unit = &board.units[number];
        let no_machines = unit.global && board.slots.is_empty() && unit.unit.gist.wanted > 0;
        if !board.placed(number).contains(&NOWHERE) && !no_machines {
            continue;
        }
        if unit.global {
            place.global(number);
        } else if unit.follows {
            for (seat, instance) in board.empty_seats(number) {
                pending.followers.entry(instance).or_insert(Follower {
                    number,
                    seat,
                    old: Vec::new(),
                });
            }
        } else if unit.specifiers || unit.pinned || way == Way::Plain {
            // Labels with specifiers, and pins, are rare and cheap to look at one by one; the rest
            // shares classes.
            place.one_by_one(pending, number);
        } else {
            let one = unit.seats == 1;
            let class = classes.of(board, number);
            if one {
                place.single(class, pending, number);
            } else {
                place.spread(class, pending, number);
            }
        }
    }
}

/// The pen, and the machines by load as it fills them.
struct Place<'p, 'a> {
    pen: &'p mut Pen<'a>,
    loads: Loads,
}

impl<'a> Place<'_, 'a> {
    fn board(&self) -> &Board<'a> {
        self.pen.board()
    }

    /// Notes that the machine is about to get one more instance.
    fn grow(&mut self, machine: u32) {
        self.loads.grow(machine, self.pen.board().slots[machine as usize].load);
    }

    /// Puts an instance where it goes, with the reason why it is not where it was.
    fn settle(
        &mut self,
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
        self.grow(machine);
        self.pen.place(number, seat, instance, machine, why, moves);
    }

    /// A global unit goes to every machine that suits and has nothing against it. Where it cannot
    /// go is no misfit of the unit, unless it is nowhere at all.
    fn global(&mut self, number: usize) {
        let instance = self.board().units[number].unit.name.clone();
        let wants = self.board().wants(number, &instance);
        let candidate = Candidate { number, instance: &instance, wants: &wants };
        for machine in 0..self.board().slots.len() {
            let free = self.board().at(number, machine) == NOWHERE;
            if free && fit::misfit(self.board(), &candidate, machine as u32).is_none() {
                self.grow(machine as u32);
                self.pen.place(number, machine, instance.clone(), machine as u32, Why::Global, 0);
            }
        }
        let board = self.board();
        let is_somewhere = board.placed(number).iter().any(|machine| *machine != NOWHERE)
            || board
                .snapshot
                .assignments
                .values()
                .any(|assignment| assignment.instances.contains_key(&instance));
        if !is_somewhere {
            let reasons = fit::reasons(board, &candidate, true);
            self.pen.unplaced(number, vec![instance], reasons);
        }
    }

    /// The plain way: look at every machine.
    fn one_by_one(&mut self, pending: &Pending, number: usize) {
        let mut siblings = self.board().siblings(number);
        let missing: Vec<(usize, UnitName)> = self.board().empty_seats(number).collect();
        for (seat, instance) in missing {
            let board = self.board();
            let wants = board.wants(number, &instance);
            let candidate = Candidate { number, instance: &instance, wants: &wants };
            let fitting = pinned_to(board, &wants)
                .filter(|&machine| fit::misfit_of_new(board, &candidate, machine).is_none());
            match rank::best(board, &siblings, fitting) {
                Some(machine) => {
                    let plain = if wants.machine_id.is_some() { Why::Pinned } else { Why::Fewest };
                    self.settle(pending, number, seat, instance, machine, plain);
                    *siblings.entry(machine).or_default() += 1;
                }
                None => {
                    let reasons = fit::reasons(board, &candidate, false);
                    self.pen.unplaced(number, vec![instance], reasons);
                }
            }
        }
    }

    /// Places a unit of one instance, which needs no rounds.
    fn single(&mut self, class: &mut Class, pending: &Pending, number: usize) {
        let board = self.pen.board();
        let Some(instance) = board.empty_seat(number, 0, &mut String::new()) else { return };
        let wants = &board.units[number].unit.constraints;
        let candidate = Candidate { number, instance: &instance, wants };
        let fits = |machine| fit::crowded(board, &candidate, machine).is_none();
        match class.least_loaded(&self.loads, fits) {
            Some(machine) => self.settle(pending, number, 0, instance, machine, Why::Fewest),
            None => self.give_up(class, number, vec![instance]),
        }
    }

    /// Places the missing instances of one unit, spread over machines: a machine gets a second one
    /// only when all that fit have one.
    fn spread(&mut self, class: &mut Class, pending: &Pending, number: usize) {
        let mut rounds = Rounds::new(self.pen.board(), &self.loads, class, number);
        let unit = &self.board().units[number];
        let (seats, wants) = (unit.seats as usize, &unit.unit.constraints);
        let mut text = String::new();
        let mut unplaced: Vec<UnitName> = Vec::new();
        let mut hopeless = false;
        for seat in 0..seats {
            let board = self.pen.board();
            let Some(instance) = board.empty_seat(number, seat, &mut text) else { continue };
            if hopeless {
                unplaced.push(instance);
                continue;
            }
            let candidate = Candidate { number, instance: &instance, wants };
            match rounds.next(board, &self.loads, &candidate) {
                Ok(machine) => self.settle(pending, number, seat, instance, machine, Why::Fewest),
                Err(for_all) => {
                    hopeless = for_all;
                    unplaced.push(instance);
                }
            }
        }
        self.give_up(class, number, unplaced);
    }

    /// Says what fits nowhere, and why the first of them does not.
    fn give_up(&mut self, class: &mut Class, number: usize, unplaced: Vec<UnitName>) {
        let Some(instance) = unplaced.first() else { return };
        let board = self.pen.board();
        let wants = &board.units[number].unit.constraints;
        let candidate = Candidate { number, instance, wants };
        let unsuited = class.unsuited(board, wants).clone();
        let crowded = class.machines().filter_map(|m| fit::crowded(board, &candidate, m));
        let reasons = fit::with_crowded(board, unsuited, crowded);
        self.pen.unplaced(number, unplaced, reasons);
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
