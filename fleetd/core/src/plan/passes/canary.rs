//! Canaries (`Canary=`): of a unit with a new text, so many instances get it, and the others wait
//! for a user. They stay where they are: one that does not fit its machine with the new text is
//! none.

use super::super::board::Board;
use super::super::budget::Allowance;
use super::super::candidate::Candidate;
use super::super::edit::Pen;
use super::super::fit;
use crate::model::{Canary, DesiredState, Placement};
use crate::name::UnitName;

/// Gives the new text to as many instances as are to try it, as their budget permits.
pub(in crate::plan) fn give_to_canaries(pen: &mut Pen) {
    for number in 0..pen.board().units.len() {
        let unit = &pen.board().units[number];
        // A restart goes first: what it takes down is seen in the next plan.
        if unit.tried
            && let Some(canary) = unit.unit.canary.as_deref()
            && !pen.defers(number)
        {
            give(pen, number, canary);
        }
    }
}

fn give(pen: &mut Pen, number: usize, canary: &Canary) {
    let open = open(pen.board(), number, canary);
    let (mut left, mut allowance) = (open.left, Allowance::of_the_placed(pen.board(), number));
    for (instance, machine, placement) in open.others {
        if left == 0 {
            return;
        }
        let board = pen.board();
        if allowance.allows(board, &instance, machine) {
            allowance.spend(board, &instance, machine);
            pen.bring_to(&canary.unit, &instance, machine, placement);
            left -= 1;
        }
    }
}

/// What is still to be given to canaries.
pub(super) struct Open<'a> {
    /// How many more get the text.
    pub(super) left: usize,
    /// The instances that may, where they are.
    pub(super) others: Vec<(UnitName, u32, &'a Placement)>,
}

/// How many get the text of `canary` yet, and which may. A spare instance is none: it stands in for
/// one.
pub(super) fn open<'a>(board: &Board<'a>, number: usize, canary: &Canary) -> Open<'a> {
    let snapshot = board.snapshot;
    let mut open = Open { left: canary.most.of(board.wanted(number)), others: Vec::new() };
    for (seat, instance) in board.taken_seats(number) {
        if board.units[number].is_spare(seat) {
            continue;
        }
        let machine = board.at(number, seat);
        let slot = board.slots.get(machine as usize);
        let assigned = slot.and_then(|slot| snapshot.assignments.get(slot.id));
        let placement = assigned.and_then(|assignment| assignment.instances.get(&instance));
        match placement.filter(|placement| placement.state == DesiredState::Launched) {
            Some(placement) if placement.hash == canary.unit.hash => {
                open.left = open.left.saturating_sub(1);
            }
            Some(placement) => open.others.push((instance, machine, placement)),
            None => {}
        }
    }
    open.others.retain(|(instance, machine, _)| fits(board, number, canary, instance, *machine));
    open
}

/// Whether the instance may stay on its machine with the new text.
fn fits(board: &Board, number: usize, canary: &Canary, instance: &UnitName, machine: u32) -> bool {
    let wants = canary.unit.constraints.expanded(instance);
    let candidate = Candidate { number, instance, wants: &wants };
    fit::misfit(board, &candidate, machine).is_none()
}
