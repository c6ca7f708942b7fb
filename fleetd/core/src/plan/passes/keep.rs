//! Walks what is assigned to machines that are there, keeps what is wanted and fits, and notes what
//! must move and why.

use super::super::answer::Retired;
use super::super::board::NOWHERE;
use super::super::candidate::Candidate;
use super::super::edit::Pen;
use super::super::pending::{Follower, Leaving, Pending};
use super::super::{budget, fit};
use crate::model::{Assignment, Availability, Placement, Report};
use crate::name::UnitName;

/// How long a failed unit stays where it was moved to before it is moved again, in milliseconds;
/// doubles with each move.
const FIRST_MOVE_PAUSE_MS: u64 = 10_000;

/// The longest such pause, in milliseconds: a unit that fails everywhere is tried on a new machine
/// once an hour.
const LONGEST_MOVE_PAUSE_MS: u64 = 3_600_000;

/// An instance that stayed this long before it gave up is taken to have run well: its moves are
/// counted anew. In milliseconds.
pub(in crate::plan) const FORGET_MOVES_MS: u64 = 2 * LONGEST_MOVE_PAUSE_MS;

/// Keeps what fits where it is.
pub(in crate::plan) fn keep_what_fits<'a>(pen: &mut Pen<'a>, pending: &mut Pending<'a>) {
    let snapshot = pen.board().snapshot;
    for (id, assignment) in &snapshot.assignments {
        if let Ok(machine) = pen.board().slots.binary_search_by_key(&id, |slot| slot.id) {
            let report = snapshot.reports.get(id).map(|report| &**report);
            keep_on_machine(pen, pending, machine as u32, assignment, report);
        }
    }
}

fn keep_on_machine<'a>(
    pen: &mut Pen<'a>,
    pending: &mut Pending<'a>,
    machine: u32,
    assignment: &'a Assignment,
    report: Option<&Report>,
) {
    let report = report.filter(|report| report.instances.values().any(|status| status.gave_up));
    let mut last = 0; // replicas of one template follow each other by name
    for (instance, placement) in &assignment.instances {
        let board = pen.board();
        let again = board
            .units
            .get(last)
            .filter(|unit| placement.is_replica() && unit.unit.name == placement.unit);
        let known =
            again.and_then(|_| board.seat_of_replica(last, instance)).map(|seat| (last, seat));
        let Some((number, seat)) = known.or_else(|| board.owner(instance, machine)) else {
            pen.retire(instance, machine, Retired::Unwanted);
            continue;
        };
        last = number;
        if board.units[number].is_spare(seat) && !placement.is_spare() {
            pen.retire(instance, machine, Retired::Unwanted); // it was scaled away
            continue;
        }
        if board.units[number].follows {
            let follower = Follower { number, seat, old: Vec::new() };
            pending
                .followers
                .entry(instance.clone())
                .or_insert(follower)
                .old
                .push((machine, placement));
            continue;
        }
        if board.at(number, seat) != NOWHERE {
            pen.retire(instance, machine, Retired::Twice);
            continue;
        }
        let wants = board.wants(number, instance);
        let candidate = Candidate { number, instance, wants: &wants };
        if let Some(misfit) = fit::misfit_of_held(board, &candidate, machine, placement) {
            let seat_of = &board.units[number];
            let forgotten = misfit.is_of_podman() && budget::runs_older(seat_of, placement);
            if forgotten || budget::holds_up(seat_of, placement) {
                // It is a new text that fits here no longer: the old one runs on until its turn
                // comes, if another machine takes the new one.
                pen.keep(number, seat, instance, machine);
                let (cause, moves) = (Retired::Unfit(misfit), placement.moves);
                pending.leaving.push(Leaving {
                    number,
                    seat,
                    instance: instance.clone(),
                    cause,
                    moves,
                    to: None,
                });
            } else {
                pen.displace(pending, instance, machine, placement, misfit);
            }
            continue;
        }
        pen.keep(number, seat, instance, machine);
        pen.refresh(number, seat, instance, machine, placement);
        let board = pen.board();
        if board.units[number].global {
            continue;
        }
        if board.slots[machine as usize].availability == Availability::Draining {
            let moves = placement.moves;
            pending.leaving.push(Leaving {
                number,
                seat,
                instance: instance.clone(),
                cause: Retired::Drained,
                moves,
                to: None,
            });
        } else if report.is_some()
            && !(board.units[number].tried
                && budget::is_on_trial(board.units[number].unit, placement))
        {
            note_failing(pen, pending, (number, seat), instance, placement, report);
        }
    }
}

/// Notes an instance that gave up where it is, if its pause since the last move is over.
fn note_failing(
    pen: &mut Pen,
    pending: &mut Pending,
    (number, seat): (usize, usize),
    instance: &UnitName,
    placement: &Placement,
    report: Option<&Report>,
) {
    let status = report.and_then(|report| report.instances.get(instance));
    if !status.is_some_and(|status| {
        status.gave_up && (status.hash == placement.hash || status.hash.is_empty())
    }) {
        return;
    }
    let now_ms = pen.board().snapshot.now_ms;
    let (stayed_ms, pause_ms) =
        (now_ms.saturating_sub(placement.since_ms), move_pause_ms(placement.moves));
    // A time to come is another leader's, by a clock that was set back since: its pause says
    // nothing.
    if stayed_ms < pause_ms && placement.since_ms <= now_ms {
        pen.wake_at(placement.since_ms.saturating_add(pause_ms));
        return;
    }
    // What stayed far longer than it had to ran well in between: its failures start anew.
    let moves = if stayed_ms >= FORGET_MOVES_MS { 1 } else { placement.moves.saturating_add(1) };
    pending.leaving.push(Leaving {
        number,
        seat,
        instance: instance.clone(),
        cause: Retired::Failed,
        moves,
        to: None,
    });
}

/// How long after its `moves`th move an instance may be moved again, in milliseconds.
fn move_pause_ms(moves: u32) -> u64 {
    FIRST_MOVE_PAUSE_MS.saturating_mul(1 << moves.min(20)).min(LONGEST_MOVE_PAUSE_MS)
}
