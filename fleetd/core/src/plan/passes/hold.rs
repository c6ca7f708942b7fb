//! Fenced instances: what was taken off its machine waits until it has surely ended, and only then
//! is placed elsewhere.

use super::super::answer::Until;
use super::super::edit::Pen;
use super::super::pending::{Displaced, Pending};
use crate::fence::{self, Ended};
use crate::gist::FENCE_BYTES;
use crate::model::{Fenced, Off, Report};
use crate::name::{MachineId, UnitName};

/// Looks at all that was taken off machines that are there: what has ended is free to go, all else
/// waits.
pub(in crate::plan) fn hold_what_may_be_alive(pen: &mut Pen, pending: &mut Pending) {
    let snapshot = pen.board().snapshot;
    for machine in 0..pen.board().slots.len() as u32 {
        let id = pen.board().slots[machine as usize].id;
        let Some(assignment) =
            snapshot.assignments.get(id).filter(|assignment| !assignment.off.is_empty())
        else {
            continue;
        };
        // Whoever reports for the machine may not be who runs its fenced units.
        let speaks_for_another =
            snapshot.keepers.get(id).is_some_and(|keeper| keeper.of_another_boot);
        let report = snapshot.reports.get(id).filter(|_| !speaks_for_another);
        let report = report.map(|report| &**report);
        let until = || if speaks_for_another { Until::KeeperEnds } else { Until::Report };
        for (instance, off) in &assignment.off {
            if is_reported_gone(report, instance, off)
                || ended_without_a_word(pen, id, instance, off)
            {
                pen.note_off(instance, machine, None);
                if let Some(why) = &off.why {
                    pending
                        .displaced
                        .insert(instance.clone(), Displaced { why: why.clone(), moves: off.moves });
                }
            } else {
                pen.board().fill(machine, 2 * FENCE_BYTES + instance.as_str().len());
                pen.wait(id, instance, until());
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
fn ended_without_a_word(pen: &mut Pen, id: &MachineId, instance: &UnitName, off: &Off) -> bool {
    match fence::ended(pen.board().snapshot, id, instance, &off.fence) {
        Ended::Surely(life) => {
            pen.guard(id, life);
            true
        }
        Ended::In(ms) => {
            pen.wake_at(pen.board().snapshot.now_ms.saturating_add(ms));
            false
        }
        Ended::Held | Ended::Never => false,
    }
}

/// Whether a fenced instance of a lost machine has surely ended there; if not, it waits.
pub(super) fn has_ended(
    pen: &mut Pen,
    id: &MachineId,
    instance: &UnitName,
    fence: &Fenced,
) -> bool {
    let until = match fence::ended(pen.board().snapshot, id, instance, fence) {
        Ended::Surely(life) => {
            pen.guard(id, life);
            return true;
        }
        Ended::In(ms) => {
            let at_ms = pen.board().snapshot.now_ms.saturating_add(ms);
            pen.wake_at(at_ms);
            Until::Time(at_ms)
        }
        Ended::Held => Until::KeeperEnds,
        Ended::Never => Until::Ever,
    };
    pen.wait(id, instance, until);
    false
}
