//! Instances that should leave: those that gave up where they are, those of a machine that is
//! drained, and those whose new text does not fit there. They move if any other machine takes them
//! and their unit's budget allows; else they stay, and go on as they are.

use std::collections::BTreeMap;

use super::board::{Board, SETTLING};
use super::budget::Allowance;
use super::follow::{self, Kept};
use super::keep::{Leaving, Pending};
use super::{Retired, constraints_of};
use crate::constraint::{self, Misfit};
use crate::model::Why;
use crate::name::UnitName;
use crate::xfleet::Constraints;

/// Moves what can be moved, and what follows it. A move may make room for another, so this goes
/// round until nothing moves: what is left would not move in the next plan either.
pub(super) fn move_leaving<'a>(
    board: &mut Board<'a>,
    pending: &mut Pending<'a>,
    kept: &mut Kept<'a>,
) {
    let mut open = std::mem::take(&mut pending.leaving);
    open.sort_by_key(|leaving| (leaving.number, leaving.seat));
    while !open.is_empty() {
        let before = open.len();
        let (siblings, allowances, beside) =
            (BTreeMap::new(), BTreeMap::new(), beside(board, kept));
        let mut round = Round { number: usize::MAX, siblings, allowances, beside };
        open.retain(|leaving| !move_one(board, &mut round, leaving));
        if open.len() == before {
            pending.leaving = open; // they may move once more room is made
            return;
        }
        follow::release_followers(board, pending, kept);
    }
}

/// Says of which new texts no machine can run an instance: it goes on with the old one.
pub(super) fn say_what_fits_nowhere(board: &mut Board, pending: &Pending) {
    let unfit = |leaving: &&Leaving| matches!(leaving.cause, Retired::Unfit(_));
    for leaving in pending.leaving.iter().filter(unfit) {
        let Leaving { number, seat, instance, .. } = leaving;
        if board.waiting.contains_key(&(*number, *seat)) {
            continue;
        }
        let expanded = constraints_of(board, *number, instance);
        let wants = expanded.as_ref().unwrap_or(&board.units[*number].unit.constraints);
        let (suiting, unsuited) = board.suiting(wants, false);
        let crowded: Vec<Misfit> = suiting
            .into_iter()
            .filter_map(|m| board.crowded(*number, instance, wants, m))
            .collect();
        board.unplaced(*number, vec![instance.clone()], &unsuited, crowded.into_iter());
    }
}

/// What is counted once a round.
struct Round {
    /// The unit that is at it, and how many of its instances are on each machine.
    number: usize,
    siblings: BTreeMap<u32, u32>,
    /// What the budgets leave, by unit.
    allowances: BTreeMap<usize, Allowance>,
    /// The followers that stay so far, by what they run beside.
    beside: BTreeMap<String, Vec<Beside>>,
}

impl Round {
    fn allowance(&mut self, board: &Board, number: usize) -> &mut Allowance {
        self.allowances.entry(number).or_insert_with(|| Allowance::of(board, number))
    }
}

fn move_one(board: &mut Board, round: &mut Round, leaving: &Leaving) -> bool {
    let Leaving { number, seat, instance, .. } = leaving;
    if round.number != *number {
        (round.number, round.siblings) = (*number, board.siblings(*number));
    }
    let from = board.placed(*number)[*seat];
    // What runs beside it goes with it, so it is asked, too.
    let beside = round.beside.remove(instance.as_str()).unwrap_or_default();
    let moved = move_with(board, round, leaving, from, &beside);
    if !moved && !beside.is_empty() {
        round.beside.insert(instance.to_string(), beside);
    }
    moved
}

fn move_with(
    board: &mut Board,
    round: &mut Round,
    leaving: &Leaving,
    from: u32,
    beside: &[Beside],
) -> bool {
    let Leaving { number, seat, instance, cause, moves } = leaving;
    let mut goes = vec![(*number, *seat, instance)];
    goes.extend(beside.iter().map(|follower| (follower.number, follower.seat, &follower.instance)));
    let spent = |(number, _, instance): &&(usize, usize, &UnitName)| {
        !round.allowance(board, *number).allows(board, instance, from)
    };
    if let Some(&(by, its_seat, _)) = goes.iter().find(spent) {
        board.waits_for_budget(by, its_seat);
        board.waits_for_budget(*number, *seat);
        return false;
    }
    let expanded = constraints_of(board, *number, instance);
    let wants = expanded.as_ref().unwrap_or(&board.units[*number].unit.constraints);
    let takes = |machine: &u32| {
        let suits = |follower: &Beside| {
            constraint::suits(board.slots[*machine as usize].machine, &follower.wants).is_ok()
        };
        *machine != from
            && board.misfit_of_new(*number, instance, wants, *machine).is_none()
            // A drain stops nothing, so nothing that runs beside it either.
            && (*cause != Retired::Drained || beside.iter().all(suits))
    };
    let fitting = (0..board.slots.len() as u32).filter(takes);
    let on = |machine: &u32| round.siblings.get(machine).copied().unwrap_or(0);
    let Some(to) =
        fitting.min_by_key(|machine| (on(machine), board.slots[*machine as usize].load, *machine))
    else {
        return false;
    };
    for (number, _, instance) in &goes {
        round.allowance(board, *number).spend(board, instance, from);
    }
    let id = board.slots[from as usize].id.clone();
    let why = match cause {
        Retired::Drained => Why::Drained(id),
        Retired::Unfit(_) => Why::Unfit(id),
        _ => Why::Failed(id),
    };
    board.release(*number, *seat, instance);
    board.retire(instance, from, cause.clone());
    round.siblings.entry(from).and_modify(|n| *n -= 1);
    if board.placed(*number)[*seat] == SETTLING {
        return true; // fenced: it is placed when it has ended where it is
    }
    board.place(*number, *seat, instance.clone(), to, why, *moves);
    *round.siblings.entry(to).or_default() += 1;
    true
}

/// A follower that runs beside one that leaves.
struct Beside {
    number: usize,
    seat: usize,
    instance: UnitName,
    wants: Constraints,
}

fn beside(board: &Board, kept: &Kept) -> BTreeMap<String, Vec<Beside>> {
    let mut beside: BTreeMap<String, Vec<Beside>> = BTreeMap::new();
    for (instance, follower) in kept {
        let wants = board.units[follower.number].unit.constraints.expanded(instance);
        for main in &wants.machine_of {
            let one = Beside {
                number: follower.number,
                seat: follower.seat,
                instance: instance.clone(),
                wants: wants.clone(),
            };
            beside.entry(main.clone()).or_default().push(one);
        }
    }
    beside
}
