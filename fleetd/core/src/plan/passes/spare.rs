//! `UpdateOrder=start-first`: spare instances stand in for those that are taken down on purpose.
//!
//! While something of a unit waits to be taken down, and is not known to be down, spares are there:
//! as many as its budget has, at least one. When nothing waits and all others are up, they go. What
//! is decided follows from what is assigned and reported alone, so any leader goes on with it.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::super::answer::Retired;
use super::super::board::{Board, NOWHERE, SETTLING};
use super::super::budget::{Life, has_ended, life};
use super::super::candidate::Candidate;
use super::super::edit::Pen;
use super::super::fit::{self, Reasons};
use super::super::pending::{Leaving, Pending};
use super::super::rank::{self, Siblings};
use super::canary;
use crate::model::{DesiredState, Why};
use crate::name::UnitName;

/// Places the spares that are needed, and takes off those that are not. Answers with whether any
/// went: they leave room for what is missing.
pub(in crate::plan) fn stand_by(pen: &mut Pen, pending: &mut Pending) -> bool {
    let mut went = false;
    for number in pen.board().start_first.clone() {
        let work = Work::of(pen, pending, number);
        let wanted = work.spares(pen.board(), number);
        let there = pen.board().taken_spares(number);
        let not_up = if there.is_empty() { 0 } else { others_not_up(pen, number) };
        // One that leaves while others do not come up has a stand-in of its own.
        let needed = if wanted == 0 { not_up.min(most(pen.board(), number)) } else { wanted };
        let stays = |pending: &Pending, seat: usize| {
            let here = |leaving: &Leaving| (leaving.number, leaving.seat) == (number, seat);
            !pending.leaving.iter().any(here)
        };
        let up = |(seat, instance): &&(usize, UnitName)| {
            let machine = pen.board().at(number, *seat);
            stays(pending, *seat) && life(pen.board(), instance, machine) == Life::Up
        };
        let replaced = wanted == 0 && there.iter().filter(up).count() >= needed;
        for (seat, instance) in there {
            let machine = pen.board().at(number, seat);
            let leaves = |leaving: &Leaving| (leaving.number, leaving.seat) == (number, seat);
            let down = || life(pen.board(), &instance, machine) == Life::Down;
            let why = match pending.leaving.iter().find(|leaving| leaves(leaving)) {
                _ if wanted == 0 && not_up == 0 => Retired::Unwanted,
                Some(leaving) if not_up == 0 || replaced || down() => leaving.cause.clone(),
                _ => continue,
            };
            pen.release(number, seat, &instance);
            pen.retire(&instance, machine, why);
            pending.leaving.retain(|leaving| !leaves(leaving));
            went = true;
        }
        let there = pen.board().taken_spares(number);
        let staying = there.iter().filter(|(seat, _)| stays(pending, *seat)).count();
        let more = match wanted == 0 && staying < there.len() {
            true => needed.saturating_sub(staying),
            false => wanted.saturating_sub(there.len()),
        };
        if more > 0 {
            place(pen, number, more, &work);
        }
    }
    went
}

/// What is to be taken down and is not known to be down.
struct Work {
    /// Changed where it is.
    changes: usize,
    /// What other machines would take.
    leaves: Vec<Leaves>,
}

/// One that leaves its machine.
struct Leaves {
    instance: UnitName,
    from: u32,
    /// The only machine that will do, if a user named one.
    to: Option<u32>,
}

impl Leaves {
    /// Whether any machine takes it.
    fn fits(&self, board: &Board, number: usize) -> bool {
        let wants = board.wants(number, &self.instance);
        let candidate = Candidate { number, instance: &self.instance, wants: &wants };
        let fits = |machine: u32| {
            machine != self.from && fit::misfit_of_new(board, &candidate, machine).is_none()
        };
        match self.to {
            Some(to) => fits(to),
            None => (0..board.slots.len() as u32).any(fits),
        }
    }
}

impl Work {
    fn of(pen: &Pen, pending: &Pending, number: usize) -> Work {
        let board = pen.board();
        let unit = &board.units[number];
        if unit.unit.desired != DesiredState::Launched {
            return Work { changes: 0, leaves: Vec::new() };
        }
        let changes = pen.deferred().iter().filter(|change| {
            change.number == number
                && !unit.is_spare(change.seat)
                && board.at(number, change.seat) == change.machine
                && !pen.is_fresh(number, change.seat)
                && life(board, &change.instance, change.machine) != Life::Down
        });
        let leaving = pending
            .leaving
            .iter()
            .filter(|leaving| leaving.number == number && !unit.is_spare(leaving.seat));
        let leaves = leaving.filter_map(|leaving| {
            let from = board.at(number, leaving.seat);
            let leaves = Leaves { instance: leaving.instance.clone(), from, to: leaving.to };
            let is_work = from < SETTLING
                && life(board, &leaving.instance, from) != Life::Down
                && leaves.fits(board, number);
            is_work.then_some(leaves)
        });
        let canaries = match unit.unit.canary.as_deref() {
            Some(canary) => {
                let open = canary::open(board, number, canary);
                let up = |(instance, machine, _): &&(UnitName, u32, _)| {
                    life(board, instance, *machine) != Life::Down
                };
                open.left.min(open.others.iter().filter(up).count())
            }
            None => 0,
        };
        Work { changes: changes.count() + canaries, leaves: leaves.collect() }
    }

    /// How many spares stand in for that.
    fn spares(&self, board: &Board, number: usize) -> usize {
        (self.changes + self.leaves.len()).min(most(board, number))
    }
}

/// How many spares there may be.
fn most(board: &Board, number: usize) -> usize {
    let (most, wanted) = (board.units[number].unit.max_unavailable(), board.wanted(number));
    most.map_or(1, |most| most.of(wanted)).max(1).min(wanted)
}

/// The best machine that takes one more instance of the unit.
fn somewhere(
    board: &Board,
    siblings: &Siblings,
    number: usize,
    instance: &UnitName,
) -> Option<u32> {
    let wants = board.wants(number, instance);
    let candidate = Candidate { number, instance, wants: &wants };
    let fits = |machine: &u32| fit::misfit_of_new(board, &candidate, *machine).is_none();
    let fitting = (0..board.slots.len() as u32).filter(fits);
    rank::best(board, siblings, fitting)
}

/// Why no machine takes the instance.
fn reasons(board: &Board, number: usize, instance: &UnitName) -> Reasons {
    let wants = board.wants(number, instance);
    fit::reasons(board, &Candidate { number, instance, wants: &wants }, false)
}

/// Places so many spares more, as far as there is room for them and for what is to leave then.
fn place(pen: &mut Pen, number: usize, more: usize, work: &Work) {
    // What is assigned under that name is on its way out: it must not count for the new one.
    let assigned = assigned_beyond(pen.board(), number);
    let free = pen.board().empty_spares(number);
    let free = free.filter(|(_, instance)| !assigned.contains(instance));
    let free: Vec<(usize, UnitName)> = free.take(more).collect();
    let mut siblings = pen.board().siblings(number);
    for (seat, instance) in free {
        let Some(machine) = somewhere(pen.board(), &siblings, number, &instance) else {
            let reasons = reasons(pen.board(), number, &instance);
            return pen.no_spare(number, reasons);
        };
        pen.keep(number, seat, &instance, machine);
        let goes = |leaves: &Leaves| leaves.fits(pen.board(), number);
        let blocked = match work.leaves.first() {
            Some(first) if work.changes == 0 && !work.leaves.iter().any(goes) => {
                Some(reasons(pen.board(), number, &first.instance))
            }
            _ => None,
        };
        pen.release(number, seat, &instance);
        if let Some(reasons) = blocked {
            return pen.no_spare(number, reasons);
        }
        pen.place(number, seat, instance, machine, Why::Spare, 0);
        *siblings.entry(machine).or_default() += 1;
    }
}

/// What is assigned anywhere of the unit with a number beyond its count.
fn assigned_beyond<'a>(board: &Board<'a>, number: usize) -> BTreeSet<&'a UnitName> {
    let unit = &board.units[number];
    let (head, _) = unit.split_name();
    let bounds = (Bound::Included(head), Bound::Unbounded);
    let assignments = board.snapshot.assignments.values();
    let family = assignments.flat_map(|assignment| {
        let from = assignment.instances.range::<str, _>(bounds).map(|(name, _)| name);
        from.take_while(|name| name.as_str().starts_with(head))
    });
    family.filter(|name| unit.number_of(name).is_some_and(|nth| nth > unit.seats)).collect()
}

/// How many other instances that have a machine are not known to be up, where they are now.
fn others_not_up(pen: &Pen, number: usize) -> usize {
    let board = pen.board();
    if board.units[number].unit.desired != DesiredState::Launched {
        return 0; // nobody counts on them
    }
    let taken = board.taken_seats(number).filter(|(seat, _)| !board.units[number].is_spare(*seat));
    let well = |(seat, instance): &(usize, UnitName)| {
        let machine = board.at(number, *seat);
        !pen.is_fresh(number, *seat)
            && (life(board, instance, machine) == Life::Up || has_ended(board, instance, machine))
    };
    let away = |machine: &&u32| **machine >= SETTLING && **machine != NOWHERE;
    taken.filter(|one| !well(one)).count() + board.placed(number).iter().filter(away).count()
}
