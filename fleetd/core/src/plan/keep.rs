//! First half of planning: walk what is assigned, keep what is wanted and fits, and note what must move and why.

use std::collections::BTreeMap;

use super::board::{Board, NOWHERE, SETTLING};
use super::{Retired, move_pause_ms};
use crate::constraint::{self, Misfit};
use crate::model::{Assignment, DesiredState, FORMAT, Placement, Report, Why};
use crate::name::{MachineId, UnitName};

/// Instances that were somewhere and must be placed anew, or may move if another machine takes them.
#[derive(Default)]
pub(super) struct Pending {
    /// Why an instance that has no machine any more lost it; all other missing instances are simply new.
    pub(super) displaced: BTreeMap<UnitName, Displaced>,
    /// Instances that gave up where they are: (unit number, seat, instance).
    pub(super) failing: Vec<(usize, usize, UnitName, Placement)>,
    /// Followers (`MachineOf=`) with the place that they had: decided after all others.
    pub(super) followers: Vec<(usize, UnitName, Option<(u32, Placement)>)>,
}

pub(super) struct Displaced {
    pub(super) why: Why,
    pub(super) moves: u32,
}

pub(super) fn keep_what_fits(board: &mut Board) -> Pending {
    let mut pending = Pending::default();
    let snapshot = board.snapshot;
    let mut machine = 0u32;
    for (id, assignment) in &snapshot.assignments {
        while (machine as usize) < board.slots.len() && board.slots[machine as usize].id < id {
            machine += 1;
        }
        let alive = board.slots.get(machine as usize).is_some_and(|slot| slot.id == id);
        if alive {
            let report = snapshot.reports.get(id).map(|report| &**report);
            keep_on_machine(board, &mut pending, machine, assignment, report);
        } else if snapshot.settling.contains(id) {
            keep_settling(board, assignment);
        }
    }
    // Lost machines come after all living ones: a copy that runs wins over one that is gone.
    for (id, assignment) in &snapshot.assignments {
        if !snapshot.machines.contains_key(id) && !snapshot.settling.contains(id) && !assignment.instances.is_empty() {
            lose_machine(board, &mut pending, id, assignment);
        }
    }
    pending
}

/// Which unit and seat an assigned instance has, if it is wanted at all.
fn owner(board: &Board, instance: &UnitName, placement: &Placement, machine: u32) -> Option<(usize, usize)> {
    if placement.is_replica() {
        if let Some(number) = board.unit_number(&placement.unit)
            && let Some(seat) = board.units[number].seat_of_replica(instance)
        {
            return Some((number, seat));
        }
        // A user submitted this instance by name since: its own record takes over where it stands.
    }
    let number = board.unit_number(instance).or_else(|| {
        let template = instance.template().and_then(|template| board.unit_number(&template))?;
        board.units[template].seat_of_replica(instance).map(|_| template)
    })?;
    let seat = &board.units[number];
    match seat.unit.desired {
        DesiredState::Inactive => None,
        _ if seat.unit.name.is_template() => seat.seat_of_replica(instance).map(|seat| (number, seat)),
        _ if seat.unit.constraints.global => Some((number, machine as usize)),
        _ => Some((number, 0)),
    }
}

fn keep_on_machine(board: &mut Board, pending: &mut Pending, machine: u32, assignment: &Assignment, report: Option<&Report>) {
    let anyone_gave_up = report.is_some_and(|report| report.instances.values().any(|status| status.gave_up));
    for (instance, placement) in &assignment.instances {
        let Some((number, seat)) = owner(board, instance, placement, machine) else {
            board.retire(instance, machine, Retired::Unwanted);
            continue;
        };
        let unit = board.units[number].unit;
        if board.units[number].placed[seat] != NOWHERE {
            board.retire(instance, machine, Retired::Twice);
            continue;
        }
        if !unit.constraints.machine_of.is_empty() {
            pending.followers.push((number, instance.clone(), Some((machine, placement.clone()))));
            continue;
        }
        let expanded = super::constraints_of(unit, instance, board.units[number].specifiers);
        let wants = expanded.as_ref().unwrap_or(&unit.constraints);
        if let Some(misfit) = board.misfit(number, instance, wants, &board.slots[machine as usize]) {
            displace(board, pending, instance, machine, placement, misfit);
            continue;
        }
        board.take(number, seat, instance, machine);
        board.refresh(number, instance, machine, placement);
        if anyone_gave_up && gave_up(report, instance, placement) && !unit.constraints.global {
            let free_at = placement.since_ms + move_pause_ms(placement.moves);
            if board.snapshot.now_ms >= free_at {
                pending.failing.push((number, seat, instance.clone(), placement.clone()));
            } else {
                board.wake_at(free_at);
            }
        }
    }
}

fn gave_up(report: Option<&Report>, instance: &UnitName, placement: &Placement) -> bool {
    let status = report.and_then(|report| report.instances.get(instance));
    status.is_some_and(|status| status.gave_up && (status.hash == placement.hash || status.hash.is_empty()))
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
    pending.displaced.insert(instance.clone(), Displaced { why: Why::Unfit(from), moves: placement.moves });
}

/// The instances of a machine that gets time to return stay where they are; the document is left alone.
fn keep_settling(board: &mut Board, assignment: &Assignment) {
    for (instance, placement) in &assignment.instances {
        if let Some((number, seat)) = owner(board, instance, placement, NOWHERE)
            && let Some(place) = board.units[number].placed.get_mut(seat)
            && *place == NOWHERE
        {
            *place = SETTLING;
        }
    }
}

fn lose_machine(board: &mut Board, pending: &mut Pending, id: &MachineId, assignment: &Assignment) {
    for (instance, placement) in &assignment.instances {
        let displaced = Displaced { why: Why::Lost(id.clone()), moves: placement.moves };
        pending.displaced.insert(instance.clone(), displaced);
        board.plan.changes.push(super::Change::Retire { instance: instance.clone(), machine: id.clone(), why: Retired::Lost });
    }
    let emptied = Assignment {
        v: FORMAT,
        generation: assignment.generation + 1,
        unknown: assignment.unknown.clone(),
        ..Assignment::default()
    };
    board.plan.documents.insert(id.clone(), emptied);
}

/// Checks what a kept follower needs beside it: every unit that it names must be on the machine.
pub(super) fn beside(board: &Board, machine_of: &[String], machine: u32) -> Option<Misfit> {
    let absent = machine_of.iter().find(|name| !board.machines_of(&UnitName::trusted(name.as_str())).contains(&machine));
    absent.map(|name| Misfit::NotBeside(name.clone()))
}

/// Whether the machine itself suits; used for global units.
pub(super) fn suits(board: &Board, number: usize, machine: usize) -> Result<(), Misfit> {
    constraint::suits(board.slots[machine].machine, &board.units[number].unit.constraints)
}
