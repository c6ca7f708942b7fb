//! Canaries (`Canary=`): of a unit with a new text, so many instances get it, and the others wait
//! for a user. They stay where they are: one that does not fit its machine with the new text is
//! none.

use super::super::budget::Allowance;
use super::super::candidate::Candidate;
use super::super::edit::Pen;
use super::super::fit;
use crate::model::{Canary, DesiredState};
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
    let board = pen.board();
    let snapshot = board.snapshot;
    let mut left = canary.most.of(board.wanted(number));
    let mut others = Vec::new();
    for (seat, instance) in board.taken_seats(number) {
        let machine = board.placed(number)[seat];
        let slot = board.slots.get(machine as usize);
        let assigned = slot.and_then(|slot| snapshot.assignments.get(slot.id));
        let placement = assigned.and_then(|assignment| assignment.instances.get(&instance));
        match placement.filter(|placement| placement.state == DesiredState::Launched) {
            Some(placement) if placement.hash == canary.unit.hash => left = left.saturating_sub(1),
            Some(placement) => others.push((instance, machine, placement)),
            None => {}
        }
    }
    let mut allowance = Allowance::of_the_placed(board, number);
    for (instance, machine, placement) in others {
        if left == 0 {
            return;
        }
        let board = pen.board();
        if fits(pen, number, canary, &instance, machine)
            && allowance.allows(board, &instance, machine)
        {
            allowance.spend(board, &instance, machine);
            pen.bring_to(&canary.unit, &instance, machine, placement);
            left -= 1;
        }
    }
}

/// Whether the instance may stay on its machine with the new text.
fn fits(pen: &Pen, number: usize, canary: &Canary, instance: &UnitName, machine: u32) -> bool {
    let wants = canary.unit.constraints.expanded(instance);
    let candidate = Candidate { number, instance, wants: &wants };
    fit::misfit(pen.board(), &candidate, machine).is_none()
}
