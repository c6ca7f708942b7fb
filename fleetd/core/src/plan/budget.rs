//! `MaxUnavailable=`: of a unit that has it, or of a scaled template or global unit by default, no
//! more instances are down at once through updates, restarts and drains, all together.
//!
//! What counts as up is what is known to run as it was last decided, with its text and its
//! restarts, by a report of its machine's present assignment, and to have stayed up for a while,
//! and to answer its health check well if it has one: its agent says when. An instance that is
//! known to be down is changed without further ado, so that a text that fails can be replaced.
//!
//! With `UpdateOrder=start-first` the budget is what there is beyond the wanted instances: spare
//! ones that are up.

use super::board::{Board, NOWHERE};
use super::seat::UnitSeat;
use crate::configuration::ConfigChanged;
use crate::health::Health;
use crate::model::{DesiredState, Placement, Unit};
use crate::name::UnitName;
use crate::unit::max_unavailable::MaxUnavailable;

/// A change that takes down an instance which stays where it is.
pub(super) struct Deferred<'a> {
    pub(super) number: usize,
    pub(super) seat: usize,
    pub(super) machine: u32,
    pub(super) instance: UnitName,
    pub(super) old: &'a Placement,
}

/// Whether bringing the instance up to date with its unit, which has a budget, takes it down.
pub(super) fn defers(unit: &Unit, instance: &UnitName, old: &Placement) -> bool {
    stays_launched(unit, old) && unit.takes_down(instance, old)
}

/// Whether an instance that fits its machine no longer waits for its unit's budget: where a new
/// text is what fits no longer.
pub(super) fn holds_up(seat: &UnitSeat, old: &Placement) -> bool {
    seat.budgeted && !seat.global && runs_older(seat, old)
}

/// Whether an instance runs, and with another text than its unit has.
pub(super) fn runs_older(seat: &UnitSeat, old: &Placement) -> bool {
    stays_launched(seat.unit, old) && old.hash != seat.unit.hash
}

/// Whether an instance runs a text that is being tried.
pub(super) fn is_on_trial(unit: &Unit, old: &Placement) -> bool {
    unit.trial.as_ref() == Some(&old.hash) && stays_launched(unit, old)
}

/// Whether an instance stays as it is, since its unit's rollout is paused: it runs the text that is
/// being tried, or waits for a restart or another configuration.
pub(super) fn is_held(unit: &Unit, old: &Placement) -> bool {
    let text = unit.trial.as_ref().unwrap_or(&unit.hash);
    unit.paused && *text == old.hash && stays_launched(unit, old)
}

fn stays_launched(unit: &Unit, old: &Placement) -> bool {
    old.state == DesiredState::Launched && unit.desired == DesiredState::Launched
}

/// How many instances of one unit may still be taken down by this plan.
#[derive(Default)]
pub(super) struct Allowance {
    /// None: as many as there are.
    left: Option<usize>,
}

impl Allowance {
    /// What the unit's budget leaves, with what this plan has taken down so far.
    pub(super) fn of(board: &Board, number: usize) -> Allowance {
        Allowance::among(board, number, board.wanted(number))
    }

    /// The same once everything is placed that has a place. By default, what fits nowhere does not
    /// count: else the text that would fit could never take the place of the one that does not.
    pub(super) fn of_the_placed(board: &Board, number: usize) -> Allowance {
        Allowance::among(board, number, counted(board, number))
    }

    fn among(board: &Board, number: usize, wanted: usize) -> Allowance {
        let unit = &board.units[number];
        if unit.starts_first {
            return Allowance { left: Some(available(board, number).saturating_sub(wanted)) };
        }
        let left = |max: &MaxUnavailable| {
            let most = max.limit(wanted)?;
            Some(most.saturating_sub(wanted.saturating_sub(available(board, number))))
        };
        Allowance { left: unit.unit.max_unavailable().and_then(left) }
    }

    /// Whether the instance may be taken down.
    pub(super) fn allows(&self, board: &Board, instance: &UnitName, machine: u32) -> bool {
        self.left != Some(0) || life(board, instance, machine) == Life::Down
    }

    /// Counts the instance as taken down, unless it is down already.
    pub(super) fn spend(&mut self, board: &Board, instance: &UnitName, machine: u32) {
        if let Some(left) = &mut self.left
            && life(board, instance, machine) != Life::Down
        {
            *left = left.saturating_sub(1);
        }
    }
}

/// How many instances count once everything is placed that has a place: none that waits for another
/// unit, which may be down for long, since nothing but a start waits for that.
pub(super) fn counted(board: &Board, number: usize) -> usize {
    let by_default = board.units[number].unit.constraints.max_unavailable.is_none();
    let placed = || board.placed(number).iter().filter(|machine| **machine != NOWHERE).count();
    if by_default { placed() - board.needing(number) } else { board.wanted(number) }
}

fn available(board: &Board, number: usize) -> usize {
    board
        .taken_seats(number)
        .filter(|(seat, instance)| life(board, instance, board.at(number, *seat)) == Life::Up)
        .count()
}

/// Whether a change of its configuration leaves an instance running.
fn reloads(board: &Board, placement: &Placement) -> bool {
    let unit = board.snapshot.units.get(&placement.unit);
    unit.is_some_and(|unit| unit.constraints.config_changed == Some(ConfigChanged::Reload))
}

/// Whether an instance has done its work there, and ended well.
pub(super) fn has_ended(board: &Board, instance: &UnitName, machine: u32) -> bool {
    let report = board.snapshot.reports.get(board.slots[machine as usize].id);
    report.and_then(|report| report.instances.get(instance)).is_some_and(|status| status.ended)
}

/// What is known of an instance on a machine, as it was last decided: by the last commit, not by
/// this plan.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Life {
    Up,
    Down,
    /// Nothing yet, of what was decided last.
    Unknown,
}

pub(super) fn life(board: &Board, instance: &UnitName, machine: u32) -> Life {
    let id = board.slots[machine as usize].id;
    let (Some(assignment), Some(report)) =
        (board.snapshot.assignments.get(id), board.snapshot.reports.get(id))
    else {
        return Life::Unknown;
    };
    let Some(placement) =
        assignment.instances.get(instance).filter(|_| report.generation >= assignment.generation)
    else {
        return Life::Unknown;
    };
    let Some(status) = report.instances.get(instance) else { return Life::Down };
    let as_decided = status.hash == placement.hash
        && (placement.restart == 0 || status.restart == placement.restart)
        && (status.config >= placement.config || reloads(board, placement));
    match status.active.as_str() {
        // Somebody stops, restarts or reloads it; it will be one or the other.
        "deactivating" => Life::Unknown,
        // Its agent has given its word: to replace it takes nothing away.
        _ if status.gave_up => Life::Down,
        // It does not do what it is there for, and its agent is about to restart it: to replace it
        // takes nothing away. So a text with which nothing works can be replaced at once.
        _ if status.health.as_ref().is_some_and(Health::is_unhealthy) => Life::Down,
        // It has just come up: a program that cannot run dies now.
        _ if status.settling => Life::Unknown,
        _ if !status.is_active() => Life::Down,
        // It ended and was started again lately: whether it stays up remains to be seen.
        _ if status.restarts > 0 => Life::Unknown,
        // It has yet to answer.
        _ if !status.is_well() => Life::Unknown,
        _ if status.launched && as_decided => Life::Up,
        _ => Life::Down,
    }
}
