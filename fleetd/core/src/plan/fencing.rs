//! Fenced instances: what is taken off waits until it has surely ended, and only then is placed
//! elsewhere.

use super::board::{Board, NOWHERE};
use super::keep::{Displaced, Pending};
use super::{Held, Retired, Until};
use crate::fence::{self, Ended, Fenced, Off, StopTerms};
use crate::gist::FENCE_BYTES;
use crate::model::{Report, Why};
use crate::name::{MachineId, UnitName};
use crate::xfleet;

/// How an instance is fenced that is placed now. The store's revision grows with every commit, so a
/// later placement has a higher one.
pub(super) fn fenced(terms: &StopTerms, instance: &UnitName, revision: i64) -> Box<Fenced> {
    let after = terms.after.iter().map(|name| xfleet::expand(name, instance)).collect();
    Box::new(Fenced { token: revision.max(0) as u64, stop_ms: terms.stop_ms, after })
}

/// How an instance is fenced that stays: its host may run an older text still, so what was true of
/// that goes on being true.
pub(super) fn refreshed(
    terms: &StopTerms,
    instance: &UnitName,
    revision: i64,
    old: Option<&Fenced>,
) -> Box<Fenced> {
    let mut now = fenced(terms, instance, revision);
    if let Some(old) = old {
        now.token = old.token;
        now.stop_ms = now.stop_ms.max(old.stop_ms);
        now.after.extend(old.after.iter().filter(|name| !terms.after.contains(name)).cloned());
        now.after.sort();
        now.after.dedup();
    }
    now
}

/// Notes that a fenced instance is taken off a machine that is there, and keeps it from being
/// placed.
pub(super) fn take_off(board: &mut Board, instance: &UnitName, machine: u32, why: &Retired) {
    let id = board.slots[machine as usize].id;
    let Some(assignment) = board.snapshot.assignments.get(id) else { return };
    let Some((placement, fence)) =
        assignment.instances.get(instance).and_then(|p| Some((p, p.fence.as_deref().cloned()?)))
    else {
        return;
    };
    let (why, moves) = match why {
        Retired::Failed => (Some(Why::Failed(id.clone())), placement.moves.saturating_add(1)),
        Retired::Replaced(_) => (Some(Why::Replaced(id.clone())), placement.moves),
        Retired::Unfit(_) => (Some(Why::Unfit(id.clone())), placement.moves),
        Retired::Drained => (Some(Why::Drained(id.clone())), placement.moves),
        Retired::Lost | Retired::Left | Retired::Unwanted | Retired::Twice => (None, 0),
    };
    board.note_off(
        instance,
        machine,
        Some(Off { generation: assignment.generation.saturating_add(1), fence, why, moves }),
    );
    wait(board, id, instance, Until::Report);
}

/// Looks at all that was taken off machines that are there: what has ended is free to go, all else
/// waits.
pub(super) fn hold(board: &mut Board, pending: &mut Pending) {
    let snapshot = board.snapshot;
    for machine in 0..board.slots.len() as u32 {
        let id = board.slots[machine as usize].id;
        let Some(assignment) =
            snapshot.assignments.get(id).filter(|assignment| !assignment.off.is_empty())
        else {
            continue;
        };
        let report = snapshot.reports.get(id).map(|report| &**report);
        for (instance, off) in &assignment.off {
            if is_reported_gone(report, instance, off)
                || ended_without_a_word(board, id, instance, off)
            {
                board.note_off(instance, machine, None);
                if let Some(why) = &off.why {
                    pending
                        .displaced
                        .insert(instance.clone(), Displaced { why: why.clone(), moves: off.moves });
                }
            } else {
                board.fill(machine, 2 * FENCE_BYTES + instance.as_str().len());
                wait(board, id, instance, Until::Report);
            }
        }
    }
}

/// An agent that has acted on the removal starts the instance no more, so its word holds for good.
/// A machine's report ends with its lease, so this one is of the present registration.
fn is_reported_gone(report: Option<&Report>, instance: &UnitName, off: &Off) -> bool {
    report.is_some_and(|report| {
        report.generation >= off.generation && !report.instances.contains_key(instance)
    })
}

/// The machine is there but its agent does not say; its keeper may have ended all the same.
fn ended_without_a_word(board: &mut Board, id: &MachineId, instance: &UnitName, off: &Off) -> bool {
    match fence::ended(board.snapshot, id, instance, &off.fence) {
        Ended::Surely(life) => {
            board.plan.guards.insert(id.clone(), life);
            true
        }
        Ended::In(ms) => {
            board.wake_at(board.snapshot.now_ms.saturating_add(ms));
            false
        }
        Ended::Held | Ended::Never => false,
    }
}

/// Whether a fenced instance of a lost machine has surely ended there; if not, it waits.
pub(super) fn has_ended(
    board: &mut Board,
    id: &MachineId,
    instance: &UnitName,
    fence: &Fenced,
) -> bool {
    let until = match fence::ended(board.snapshot, id, instance, fence) {
        Ended::Surely(life) => {
            board.plan.guards.insert(id.clone(), life);
            return true;
        }
        Ended::In(ms) => {
            let at_ms = board.snapshot.now_ms.saturating_add(ms);
            board.wake_at(at_ms);
            Until::Time(at_ms)
        }
        Ended::Held => Until::KeeperEnds,
        Ended::Never => Until::Ever,
    };
    wait(board, id, instance, until);
    false
}

/// Keeps an instance from being placed, and says so if anybody wants it.
fn wait(board: &mut Board, id: &MachineId, instance: &UnitName, until: Until) {
    board.block(instance);
    if board.owner(instance, NOWHERE).is_some() {
        board.plan.held.push(Held { instance: instance.clone(), machine: id.clone(), until });
    }
}
