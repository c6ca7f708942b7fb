//! Moves that users asked for. Each is granted once, by the rules that hold for all moves, or
//! refused with the reason: a wish is no constraint, so nothing is held there by it later.

use super::super::answer::{Immovable, Retired};
use super::super::board::{NOWHERE, SETTLING};
use super::super::candidate::Candidate;
use super::super::edit::Pen;
use super::super::fit;
use super::super::pending::{Leaving, Pending};
use crate::model::{Why, Wish};
use crate::name::UnitName;

/// Has what can move leave for the machine that was asked for, and answers all other wishes. What
/// was taken off for such a move and has ended since is put there.
pub(in crate::plan) fn move_as_asked(pen: &mut Pen, pending: &mut Pending) {
    let snapshot = pen.board().snapshot;
    for (instance, wish) in &snapshot.moves {
        match look(pen, pending, instance, wish) {
            Next::Answer(refused) => pen.answer(instance, wish, refused),
            Next::Wait => {}
            Next::Leave(leaving) => {
                let same =
                    |other: &Leaving| (other.number, other.seat) == (leaving.number, leaving.seat);
                pending.leaving.retain(|other| !same(other));
                pending.leaving.push(leaving);
            }
            Next::Place { number, seat, to } => {
                let displaced = pending.displaced.get(instance);
                let (why, moves) =
                    displaced.map_or((Why::Other, 0), |was| (was.why.clone(), was.moves));
                pen.place(number, seat, instance.clone(), to, why, moves);
            }
        }
    }
}

/// Answers wishes of which the passes found that they cannot be granted: what runs beside the
/// instance is in the way. What waits for its budget is still wished for.
pub(in crate::plan) fn answer_what_stays(pen: &mut Pen, pending: &Pending) {
    let snapshot = pen.board().snapshot;
    for leaving in pending.leaving.iter().filter(|leaving| leaving.cause == Retired::Moved) {
        let Leaving { number, seat, instance, to, .. } = leaving;
        let (Some(wish), Some(to)) = (snapshot.moves.get(instance), *to) else { continue };
        if pen.is_waiting(*number, *seat) {
            continue;
        }
        let wants = pen.board().wants(*number, instance);
        let candidate = Candidate { number: *number, instance, wants: &wants };
        let refused = match fit::misfit_of_new(pen.board(), &candidate, to) {
            Some(misfit) => Immovable::Unfit { misfit },
            None => Immovable::Beside,
        };
        pen.answer(instance, wish, Some(refused));
    }
}

/// What comes next for a wish.
enum Next {
    /// It is over: granted, or refused for that reason.
    Answer(Option<Immovable>),
    /// A copy of it may be alive: nothing yet.
    Wait,
    /// It leaves its machine, if its budget allows.
    Leave(Leaving),
    /// It has left its machine, and is put where it was to go.
    Place { number: usize, seat: usize, to: u32 },
}

fn look(pen: &Pen, pending: &Pending, instance: &UnitName, wish: &Wish) -> Next {
    let board = pen.board();
    let refuse = |reason| Next::Answer(Some(reason));
    let Some((number, seat)) = board.owner(instance, 0) else {
        return refuse(Immovable::Unwanted);
    };
    let unit = &board.units[number];
    if unit.is_spare(seat) {
        return refuse(Immovable::Unwanted);
    }
    if unit.global {
        return refuse(Immovable::Global);
    }
    if unit.follows {
        return refuse(Immovable::Follows);
    }
    let Ok(to) = board.slots.binary_search_by_key(&&wish.to, |slot| slot.id) else {
        return refuse(Immovable::Absent);
    };
    let (to, at) = (to as u32, board.at(number, seat));
    if at == to {
        return Next::Answer(None);
    }
    if at == SETTLING {
        return Next::Wait;
    }
    let wants = board.wants(number, instance);
    let candidate = Candidate { number, instance, wants: &wants };
    if let Some(misfit) = fit::misfit_of_new(board, &candidate, to) {
        return refuse(Immovable::Unfit { misfit });
    }
    if at != NOWHERE {
        let assigned = board.snapshot.assignments.get(board.slots[at as usize].id);
        let moves = assigned.and_then(|assignment| assignment.instances.get(instance));
        let moves = moves.map_or(0, |placement| placement.moves);
        let (instance, cause) = (instance.clone(), Retired::Moved);
        return Next::Leave(Leaving { number, seat, instance, cause, moves, to: Some(to) });
    }
    match pending.displaced.get(instance).map(|displaced| &displaced.why) {
        Some(Why::Moved(_)) => Next::Place { number, seat, to },
        _ => refuse(Immovable::Nowhere),
    }
}
