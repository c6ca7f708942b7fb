//! Instances that gave up where they are move if any other machine takes them; else they stay and go on trying.

use std::collections::BTreeMap;

use super::board::{Board, SETTLING};
use super::follow::{self, Kept};
use super::keep::{Failing, Pending};
use super::{Retired, constraints_of};
use crate::model::Why;

/// Moves what can be moved, and what follows it. A move may make room for another, so this goes round until nothing moves:
/// what is left would not move in the next plan either.
pub(super) fn move_failing<'a>(board: &mut Board<'a>, pending: &mut Pending<'a>, kept: &mut Kept<'a>) {
    let mut open = std::mem::take(&mut pending.failing);
    open.sort_by_key(|failing| (failing.number, failing.seat));
    while !open.is_empty() {
        let before = open.len();
        let mut siblings = Siblings { number: usize::MAX, on: BTreeMap::new() };
        open.retain(|failing| !move_one(board, &mut siblings, failing));
        if open.len() == before {
            pending.failing = open; // they may move once more room is made
            return;
        }
        follow::release_followers(board, pending, kept);
    }
}

/// How many instances of one unit are on each machine; counted once a unit.
struct Siblings {
    number: usize,
    on: BTreeMap<u32, u32>,
}

fn move_one(board: &mut Board, siblings: &mut Siblings, failing: &Failing) -> bool {
    let Failing { number, seat, instance, moves } = failing;
    if siblings.number != *number {
        *siblings = Siblings { number: *number, on: board.units[*number].siblings() };
    }
    let expanded = constraints_of(board, *number, instance);
    let wants = expanded.as_ref().unwrap_or(&board.units[*number].unit.constraints);
    let from = board.units[*number].placed[*seat];
    let others = (0..board.slots.len() as u32).filter(|&machine| machine != from);
    let fitting = others.filter(|&machine| board.misfit(*number, instance, wants, machine).is_none());
    let on = |machine: &u32| siblings.on.get(machine).copied().unwrap_or(0);
    let Some(to) = fitting.min_by_key(|machine| (on(machine), board.slots[*machine as usize].load, *machine)) else {
        return false;
    };
    let why = Why::Failed(board.slots[from as usize].id.clone());
    board.release(*number, *seat, instance);
    board.retire(instance, from, Retired::Failed);
    siblings.on.entry(from).and_modify(|n| *n -= 1);
    if board.units[*number].placed[*seat] == SETTLING {
        return true; // fenced: it is placed when it has ended where it is
    }
    board.place(*number, *seat, instance.clone(), to, why, *moves);
    *siblings.on.entry(to).or_default() += 1;
    true
}
