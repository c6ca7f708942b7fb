//! First part of planning: walk what is assigned, keep what is wanted and fits, and note what must
//! move and why.

use std::collections::BTreeMap;

use super::board::{Board, NOWHERE};
use super::{Change, Retired, budget, constraints_of, fencing, missing, move_pause_ms};
use crate::constraint::Misfit;
use crate::model::{Assignment, Availability, FORMAT, Placement, Report, Why};
use crate::name::{MachineId, UnitName};

/// Instances that were somewhere and must be placed anew, or may move if another machine takes
/// them.
#[derive(Default)]
pub(super) struct Pending<'a> {
    /// Why an instance that has no machine any more lost it; all other missing instances are simply
    /// new.
    pub(super) displaced: BTreeMap<UnitName, Displaced>,
    /// Instances that stay only if no other machine takes them.
    pub(super) leaving: Vec<Leaving>,
    /// Followers (`MachineOf=`) that are still to be decided.
    pub(super) followers: BTreeMap<UnitName, Follower<'a>>,
}

pub(super) struct Displaced {
    pub(super) why: Why,
    pub(super) moves: u32,
}

pub(super) struct Leaving {
    pub(super) number: usize,
    pub(super) seat: usize,
    pub(super) instance: UnitName,
    /// Why, in the words of [`Retired`].
    pub(super) cause: Retired,
    /// How often it will have been moved because it failed, if it is moved now.
    pub(super) moves: u32,
}

pub(super) struct Follower<'a> {
    pub(super) number: usize,
    pub(super) seat: usize,
    /// The places that it has; more than one only after a fault.
    pub(super) old: Vec<(u32, &'a Placement)>,
}

pub(super) fn keep_what_fits<'a>(board: &mut Board<'a>) -> Pending<'a> {
    let mut pending = Pending::default();
    let snapshot = board.snapshot;
    for (id, assignment) in &snapshot.assignments {
        if let Ok(machine) = board.slots.binary_search_by_key(&id, |slot| slot.id) {
            let report = snapshot.reports.get(id).map(|report| &**report);
            keep_on_machine(board, &mut pending, machine as u32, assignment, report);
        }
    }
    let waits = missing::that_wait(board);
    // Absent machines come after all living ones: a copy that runs wins over one that may be gone.
    for (id, assignment) in
        snapshot.assignments.iter().filter(|(id, _)| !snapshot.machines.contains_key(*id))
    {
        if snapshot.settling.contains(id) || waits.contains(id) {
            keep_settling(board, assignment);
        } else if !assignment.instances.is_empty() || !assignment.off.is_empty() {
            lose_machine(board, &mut pending, id, assignment);
        }
    }
    pending
}

fn keep_on_machine<'a>(
    board: &mut Board<'a>,
    pending: &mut Pending<'a>,
    machine: u32,
    assignment: &'a Assignment,
    report: Option<&Report>,
) {
    let report = report.filter(|report| report.instances.values().any(|status| status.gave_up));
    let mut last = 0; // replicas of one template follow each other by name
    for (instance, placement) in &assignment.instances {
        let again = board
            .units
            .get(last)
            .filter(|unit| placement.is_replica() && unit.unit.name == placement.unit);
        let known =
            again.and_then(|_| board.seat_of_replica(last, instance)).map(|seat| (last, seat));
        let Some((number, seat)) = known.or_else(|| board.owner(instance, machine)) else {
            board.retire(instance, machine, Retired::Unwanted);
            continue;
        };
        last = number;
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
        if board.placed(number)[seat] != NOWHERE {
            board.retire(instance, machine, Retired::Twice);
            continue;
        }
        let expanded = constraints_of(board, number, instance);
        let wants = expanded.as_ref().unwrap_or(&board.units[number].unit.constraints);
        if let Some(misfit) = board.misfit(number, instance, wants, machine) {
            if budget::holds_up(&board.units[number], placement) {
                // It is a new text that fits here no longer: the old one runs on until its turn
                // comes, if another machine takes the new one.
                board.take(number, seat, instance, machine);
                let (cause, moves) = (Retired::Unfit(misfit), placement.moves);
                pending.leaving.push(Leaving {
                    number,
                    seat,
                    instance: instance.clone(),
                    cause,
                    moves,
                });
            } else {
                displace(board, pending, instance, machine, placement, misfit);
            }
            continue;
        }
        board.take(number, seat, instance, machine);
        board.refresh(number, seat, instance, machine, placement);
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
            });
        } else if report.is_some() {
            note_failing(board, pending, (number, seat), instance, placement, report);
        }
    }
}

/// Notes an instance that gave up where it is, if its pause since the last move is over.
fn note_failing(
    board: &mut Board,
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
    let (stayed_ms, pause_ms) =
        (board.snapshot.now_ms.saturating_sub(placement.since_ms), move_pause_ms(placement.moves));
    // A time to come is another leader's, by a clock that was set back since: its pause says
    // nothing.
    if stayed_ms < pause_ms && placement.since_ms <= board.snapshot.now_ms {
        board.wake_at(placement.since_ms.saturating_add(pause_ms));
        return;
    }
    // What stayed far longer than it had to ran well in between: its failures start anew.
    let moves =
        if stayed_ms >= super::FORGET_MOVES_MS { 1 } else { placement.moves.saturating_add(1) };
    pending.leaving.push(Leaving {
        number,
        seat,
        instance: instance.clone(),
        cause: Retired::Failed,
        moves,
    });
}

pub(super) fn displace(
    board: &mut Board,
    pending: &mut Pending,
    instance: &UnitName,
    machine: u32,
    placement: &Placement,
    misfit: Misfit,
) {
    let from = board.slots[machine as usize].id.clone();
    board.retire(instance, machine, Retired::Unfit(misfit));
    pending
        .displaced
        .insert(instance.clone(), Displaced { why: Why::Unfit(from), moves: placement.moves });
}

/// The instances of a machine that gets time to return stay where they are, and what was taken off
/// it may be alive still; the document is left alone.
fn keep_settling(board: &mut Board, assignment: &Assignment) {
    for instance in assignment.instances.keys().chain(assignment.off.keys()) {
        board.block(instance);
    }
}

/// What a machine ran that was lost or left is planned anew. A fenced instance stays in its
/// document until it has surely ended there.
fn lose_machine(board: &mut Board, pending: &mut Pending, id: &MachineId, assignment: &Assignment) {
    let mut left = Assignment {
        v: FORMAT,
        generation: assignment.generation.saturating_add(1),
        ..Assignment::default()
    };
    left.lost_ms = Some(board.snapshot.now_ms);
    left.unknown.clone_from(&assignment.unknown);
    for (instance, placement) in &assignment.instances {
        if let Some(fence) = &placement.fence
            && !fencing::has_ended(board, id, instance, fence)
        {
            left.instances.insert(instance.clone(), placement.clone());
            continue;
        }
        let (why, retired) = match board.snapshot.left.contains(id) {
            true => (Why::Left(id.clone()), Retired::Left),
            false => (Why::Lost(id.clone()), Retired::Lost),
        };
        pending.displaced.insert(instance.clone(), Displaced { why, moves: placement.moves });
        board.plan.changes.push(Change::Retire {
            instance: instance.clone(),
            machine: id.clone(),
            why: retired,
        });
    }
    for (instance, off) in &assignment.off {
        if !fencing::has_ended(board, id, instance, &off.fence) {
            left.off.insert(instance.clone(), off.clone());
        } else if let Some(why) = &off.why {
            pending
                .displaced
                .insert(instance.clone(), Displaced { why: why.clone(), moves: off.moves });
        }
    }
    if (left.instances.len(), left.off.len()) != (assignment.instances.len(), assignment.off.len())
    {
        board.plan.documents.insert(id.clone(), left);
    }
}
