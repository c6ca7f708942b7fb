//! `Replaces=`: a unit pushes those that it replaces off its machine, each to where its own
//! constraints let it run.
//!
//! What fits nowhere else stays beside: a unit is not stopped to make room. Two that replace each
//! other leave each other alone. Not pushed are global units, which belong on every machine, and
//! followers, which belong beside theirs. A follower pushes too, but one that was placed by this
//! very plan only in the next.

use std::collections::BTreeMap;

use super::super::board::{Board, SETTLING};
use super::super::candidate::Candidate;
use super::super::edit::Pen;
use super::super::pending::{Kept, Pending};
use super::super::{fit, rank};
use super::follow;
use crate::glob;
use crate::name::UnitName;

/// Moves what is replaced, and what follows it; true if anything moved. What is pushed goes where
/// it pushes nobody itself: so each move leaves fewer units beside one that replaces them, this
/// ends, and the next plan has nothing to move.
pub(in crate::plan) fn push_replaced<'a>(
    pen: &mut Pen<'a>,
    pending: &mut Pending<'a>,
    kept: &mut Kept<'a>,
) -> bool {
    if !pen.board().any_replaces {
        return false;
    }
    let mut pushers = Pushers::of(pen.board());
    if pushers.on.is_empty() {
        return false;
    }
    let (mut pushed, mut moving) = (false, true);
    while moving {
        moving = false;
        for number in 0..pen.board().units.len() {
            let board = pen.board();
            let unit = &board.units[number];
            if unit.global || unit.follows || !pushers.patterns.iter().any(|p| unit.may_match(p)) {
                continue;
            }
            let seats: Vec<(usize, UnitName)> = board.taken_seats(number).collect();
            for (seat, instance) in seats {
                if push_one(pen, &mut pushers, number, seat, &instance) {
                    moving = true;
                    // What it was to leave, it has left.
                    pending
                        .leaving
                        .retain(|leaving| (leaving.number, leaving.seat) != (number, seat));
                }
            }
        }
        pushed |= moving;
    }
    if pushed {
        follow::release_followers(pen, pending, kept);
    }
    pushed
}

/// The instances that replace others, by the machine that they are on.
struct Pushers {
    on: BTreeMap<u32, Vec<Pusher>>,
    /// All their patterns.
    patterns: Vec<String>,
}

struct Pusher {
    name: UnitName,
    patterns: Vec<String>,
}

impl Pushers {
    fn of(board: &Board) -> Pushers {
        let mut pushers = Pushers { on: BTreeMap::new(), patterns: Vec::new() };
        for (number, unit) in
            board.units.iter().enumerate().filter(|(_, unit)| unit.replaces && !unit.global)
        {
            for (seat, name) in board.taken_seats(number) {
                let patterns = unit.unit.constraints.expanded(&name).replaces;
                pushers.patterns.extend(patterns.iter().cloned());
                pushers
                    .on
                    .entry(board.at(number, seat))
                    .or_default()
                    .push(Pusher { name, patterns });
            }
        }
        pushers.patterns.sort();
        pushers.patterns.dedup();
        pushers
    }

    /// Who on `machine` replaces `instance`, which itself replaces what `own` match.
    fn against(&self, machine: u32, instance: &UnitName, own: &[String]) -> Option<&UnitName> {
        let pushes = |pusher: &&Pusher| {
            replaces(&pusher.name, &pusher.patterns, instance)
                && !replaces(instance, own, &pusher.name)
        };
        self.on.get(&machine)?.iter().find(pushes).map(|pusher| &pusher.name)
    }

    fn moved(&mut self, name: &UnitName, from: u32, to: u32) {
        let Some(here) = self.on.get_mut(&from) else { return };
        if let Some(at) = here.iter().position(|pusher| pusher.name == *name) {
            let pusher = here.swap_remove(at);
            self.on.entry(to).or_default().push(pusher);
        }
    }
}

fn replaces(name: &UnitName, patterns: &[String], other: &UnitName) -> bool {
    name != other && patterns.iter().any(|pattern| glob::matches(pattern, other.as_str()))
}

fn push_one(
    pen: &mut Pen,
    pushers: &mut Pushers,
    number: usize,
    seat: usize,
    instance: &UnitName,
) -> bool {
    let board = pen.board();
    let wants = board.wants(number, instance);
    let from = board.at(number, seat);
    let Some(by) = pushers.against(from, instance, &wants.replaces).cloned() else { return false };
    let candidate = Candidate { number, instance, wants: &wants };
    let fits = |machine: &u32| {
        *machine != from
            && pushers.against(*machine, instance, &wants.replaces).is_none()
            && fit::misfit_of_new(board, &candidate, *machine).is_none()
            && !pushes_anybody(board, instance, &wants.replaces, *machine)
    };
    let fitting = (0..board.slots.len() as u32).filter(fits);
    let Some(to) = rank::best(board, &board.siblings(number), fitting) else { return false };
    let (why, moves) = pen.push_off(number, seat, instance, by);
    if pen.board().at(number, seat) == SETTLING {
        pushers.moved(instance, from, SETTLING);
        return true; // fenced: it is placed when it has ended where it is
    }
    pen.place(number, seat, instance.clone(), to, why, moves);
    pushers.moved(instance, from, to);
    true
}

/// Whether anything on `machine` would have to make room for `instance`. Only asked of one that
/// replaces others itself.
fn pushes_anybody(board: &Board, instance: &UnitName, patterns: &[String], machine: u32) -> bool {
    let there = |number: usize| {
        let there =
            board.taken_seats(number).filter(|(seat, _)| board.at(number, *seat) == machine);
        let mut names = there.map(|(_, name)| name);
        names.any(|name| {
            let theirs = board.wants(number, &name);
            replaces(instance, patterns, &name) && !replaces(&name, &theirs.replaces, instance)
        })
    };
    !patterns.is_empty()
        && (0..board.units.len()).any(|number| {
            patterns.iter().any(|p| board.units[number].may_match(p)) && there(number)
        })
}
