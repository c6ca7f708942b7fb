//! Instances that should leave: those that gave up where they are, those of a machine that is
//! drained, and those whose new text does not fit there. They move if any other machine takes them
//! and their unit's budget allows; else they stay, and go on as they are.

use std::collections::BTreeMap;

use super::super::answer::Retired;
use super::super::board::{Board, SETTLING};
use super::super::budget::Allowance;
use super::super::candidate::Candidate;
use super::super::edit::Pen;
use super::super::fit;
use super::super::pending::{Kept, Leaving, Pending};
use super::super::rank::{self, Siblings};
use super::follow;
use crate::model::Why;
use crate::name::UnitName;
use crate::unit::xfleet::Constraints;

/// Moves what can be moved, and what follows it. A move may make room for another, so this goes
/// round until nothing moves: what is left would not move in the next plan either.
pub(in crate::plan) fn move_leaving<'a>(
    pen: &mut Pen<'a>,
    pending: &mut Pending<'a>,
    kept: &mut Kept<'a>,
) {
    let mut open = std::mem::take(&mut pending.leaving);
    // Spare instances do not move: others are placed instead, see `spare.rs`. Nor do global ones.
    let stays = |leaving: &Leaving| {
        let unit = &pen.board().units[leaving.number];
        unit.global || unit.is_spare(leaving.seat)
    };
    let staying: Vec<Leaving> = open.extract_if(.., |leaving| stays(leaving)).collect();
    // What has a budget takes longest, so it has the first choice of the room that there is.
    let budgeted = |number: usize| pen.board().units[number].budgeted;
    open.sort_by_key(|leaving| (!budgeted(leaving.number), leaving.number, leaving.seat));
    while !open.is_empty() {
        let before = open.len();
        let (siblings, allowances, beside) =
            (BTreeMap::new(), BTreeMap::new(), beside(pen.board(), kept));
        let mut round = Round { number: usize::MAX, siblings, allowances, beside };
        open.retain(|leaving| !move_one(pen, &mut round, leaving));
        if open.len() == before {
            break; // they may move once more room is made
        }
        follow::release_followers(pen, pending, kept);
    }
    pending.leaving = open;
    pending.leaving.extend(staying);
}

/// Says of which new texts no machine can run an instance: it goes on with the old one.
pub(in crate::plan) fn say_what_fits_nowhere(pen: &mut Pen, pending: &Pending) {
    let unfit = |leaving: &&Leaving| matches!(leaving.cause, Retired::Unfit(_));
    let mut said: Option<usize> = None;
    for leaving in pending.leaving.iter().filter(unfit) {
        let Leaving { number, seat, instance, .. } = leaving;
        // Of a global unit all machines are told at once.
        if pen.board().units[*number].global && said.replace(*number) == Some(*number) {
            continue;
        }
        if pen.is_waiting(*number, *seat) || pen.board().units[*number].is_spare(*seat) {
            continue;
        }
        let wants = pen.board().wants(*number, instance);
        let candidate = Candidate { number: *number, instance, wants: &wants };
        let reasons = fit::reasons(pen.board(), &candidate, false);
        pen.unplaced(*number, vec![instance.clone()], reasons);
    }
}

/// What is counted once a round.
struct Round {
    /// The unit that is at it, and how many of its instances are on each machine.
    number: usize,
    siblings: Siblings,
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

fn move_one(pen: &mut Pen, round: &mut Round, leaving: &Leaving) -> bool {
    let (board, Leaving { number, seat, instance, .. }) = (pen.board(), leaving);
    if round.number != *number {
        (round.number, round.siblings) = (*number, board.siblings(*number));
    }
    let from = board.at(*number, *seat);
    // What runs beside it goes with it, so it is asked, too.
    let beside = round.beside.remove(instance.as_str()).unwrap_or_default();
    let moved = move_with(pen, round, leaving, from, &beside);
    if !moved && !beside.is_empty() {
        round.beside.insert(instance.to_string(), beside);
    }
    moved
}

fn move_with(
    pen: &mut Pen,
    round: &mut Round,
    leaving: &Leaving,
    from: u32,
    beside: &[Beside],
) -> bool {
    let (board, Leaving { number, seat, instance, cause, moves, to }) = (pen.board(), leaving);
    let mut goes = vec![(*number, *seat, instance)];
    goes.extend(beside.iter().map(|follower| (follower.number, follower.seat, &follower.instance)));
    let wants = board.wants(*number, instance);
    let candidate = Candidate { number: *number, instance, wants: &wants };
    let takes = |machine: &u32| {
        let suits = |follower: &Beside| {
            fit::unsuited(board.slots[*machine as usize].machine, &follower.wants).is_none()
        };
        *machine != from
            && to.is_none_or(|to| to == *machine)
            && fit::misfit_of_new(board, &candidate, *machine).is_none()
            // A drain stops nothing, so nothing that runs beside it either. Nor does a move.
            && (!matches!(cause, Retired::Drained | Retired::Moved) || beside.iter().all(suits))
    };
    let find = |siblings: &Siblings| {
        rank::best(board, siblings, (0..board.slots.len() as u32).filter(takes))
    };
    // What fits nowhere waits for no spare instance: it gets none.
    if board.units[*number].starts_first && find(&round.siblings).is_none() {
        return false;
    }
    let spent = |(number, _, instance): &&(usize, usize, &UnitName)| {
        !round.allowance(board, *number).allows(board, instance, from)
    };
    if let Some(&(by, its_seat, _)) = goes.iter().find(spent) {
        pen.waits_for_budget(by, its_seat);
        pen.waits_for_budget(*number, *seat);
        return false;
    }
    let Some(to) = find(&round.siblings) else { return false };
    for (number, _, instance) in &goes {
        round.allowance(board, *number).spend(board, instance, from);
    }
    let id = board.slots[from as usize].id.clone();
    let why = match cause {
        Retired::Drained => Why::Drained(id),
        Retired::Moved => Why::Moved(id),
        Retired::Unfit(_) => Why::Unfit(id),
        _ => Why::Failed(id),
    };
    pen.release(*number, *seat, instance);
    pen.retire(instance, from, cause.clone());
    round.siblings.entry(from).and_modify(|n| *n -= 1);
    if pen.board().at(*number, *seat) == SETTLING {
        return true; // fenced: it is placed when it has ended where it is
    }
    pen.place(*number, *seat, instance.clone(), to, why, *moves);
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
