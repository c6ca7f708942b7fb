//! Instances that should leave: those that gave up where they are, and those of a machine that is drained. They move if any other
//! machine takes them; else they stay, and go on trying.

use std::collections::BTreeMap;

use super::board::{Board, SETTLING};
use super::budget::Allowance;
use super::follow::{self, Kept};
use super::keep::{Leaving, Pending};
use super::{Retired, constraints_of};
use crate::model::Why;

/// Moves what can be moved, and what follows it. A move may make room for another, so this goes round until nothing moves:
/// what is left would not move in the next plan either.
pub(super) fn move_leaving<'a>(board: &mut Board<'a>, pending: &mut Pending<'a>, kept: &mut Kept<'a>) {
    let mut open = std::mem::take(&mut pending.leaving);
    open.sort_by_key(|leaving| (leaving.number, leaving.seat));
    while !open.is_empty() {
        let before = open.len();
        let mut unit = Unit { number: usize::MAX, siblings: BTreeMap::new(), allowance: Allowance::default() };
        open.retain(|leaving| !move_one(board, &mut unit, leaving));
        if open.len() == before {
            pending.leaving = open; // they may move once more room is made
            return;
        }
        follow::release_followers(board, pending, kept);
    }
}

/// What is counted once for all instances of one unit.
struct Unit {
    number: usize,
    /// How many of its instances are on each machine.
    siblings: BTreeMap<u32, u32>,
    /// How many of them may be taken down.
    allowance: Allowance,
}

fn move_one(board: &mut Board, unit: &mut Unit, leaving: &Leaving) -> bool {
    let Leaving { number, seat, instance, cause, moves } = leaving;
    if unit.number != *number {
        *unit = Unit { number: *number, siblings: board.siblings(*number), allowance: Allowance::of(board, *number) };
    }
    let expanded = constraints_of(board, *number, instance);
    let wants = expanded.as_ref().unwrap_or(&board.units[*number].unit.constraints);
    let from = board.placed(*number)[*seat];
    let others = (0..board.slots.len() as u32).filter(|&machine| machine != from);
    let fitting = others.filter(|&machine| board.misfit_of_new(*number, instance, wants, machine).is_none());
    let on = |machine: &u32| unit.siblings.get(machine).copied().unwrap_or(0);
    let Some(to) = fitting.min_by_key(|machine| (on(machine), board.slots[*machine as usize].load, *machine)) else {
        return false;
    };
    if !unit.allowance.take_down(board, instance, from) {
        board.waits_for_budget(*number, *seat);
        return false;
    }
    let id = board.slots[from as usize].id.clone();
    let why = if *cause == Retired::Drained { Why::Drained(id) } else { Why::Failed(id) };
    board.release(*number, *seat, instance);
    board.retire(instance, from, cause.clone());
    unit.siblings.entry(from).and_modify(|n| *n -= 1);
    if board.placed(*number)[*seat] == SETTLING {
        return true; // fenced: it is placed when it has ended where it is
    }
    board.place(*number, *seat, instance.clone(), to, why, *moves);
    *unit.siblings.entry(to).or_default() += 1;
    true
}
