//! Machines that are absent: those that get time to return keep what they run, and what the others
//! ran is taken off them.

use std::collections::BTreeSet;

use super::super::answer::Retired;
use super::super::edit::Pen;
use super::super::missing::{SLOW_PAUSE_MS, missing};
use super::super::pending::{Displaced, Pending};
use super::hold;
use crate::model::{Assignment, FORMAT, Why};
use crate::name::MachineId;

/// Decides on all absent machines. They come after all living ones: a copy that runs wins over one
/// that may be gone.
pub(in crate::plan) fn lose_machines(pen: &mut Pen, pending: &mut Pending) {
    let snapshot = pen.board().snapshot;
    let waits = that_wait(pen);
    for (id, assignment) in
        snapshot.assignments.iter().filter(|(id, _)| !snapshot.machines.contains_key(*id))
    {
        if snapshot.settling.contains(id) || waits.contains(id) {
            keep_settling(pen, assignment);
        } else if !assignment.instances.is_empty() || !assignment.off.is_empty() {
            lose_machine(pen, pending, id, assignment);
        }
    }
}

/// The lost machines that are not given up yet. Notes when the next one will be.
fn that_wait(pen: &mut Pen) -> BTreeSet<MachineId> {
    let now_ms = pen.board().snapshot.now_ms;
    let Some(mut slowed) = missing(pen.board().snapshot, now_ms) else { return BTreeSet::new() };
    if slowed.next_ms <= now_ms && !slowed.waits.is_empty() {
        slowed.waits.remove(0);
        slowed.next_ms = now_ms.saturating_add(SLOW_PAUSE_MS);
    }
    if !slowed.waits.is_empty() {
        pen.wake_at(slowed.next_ms);
    }
    let waits = slowed.waits.iter().cloned().collect();
    pen.slowed(slowed);
    waits
}

/// The instances of a machine that gets time to return stay where they are, and what was taken off
/// it may be alive still; the document is left alone.
fn keep_settling(pen: &mut Pen, assignment: &Assignment) {
    for instance in assignment.instances.keys().chain(assignment.off.keys()) {
        pen.block(instance);
    }
}

/// What a machine ran that was lost or left is planned anew. A fenced instance stays in its
/// document until it has surely ended there.
fn lose_machine(pen: &mut Pen, pending: &mut Pending, id: &MachineId, assignment: &Assignment) {
    let mut left = Assignment {
        v: FORMAT,
        generation: assignment.generation.saturating_add(1),
        ..Assignment::default()
    };
    left.lost_ms = Some(pen.board().snapshot.now_ms);
    left.unknown.clone_from(&assignment.unknown);
    for (instance, placement) in &assignment.instances {
        if let Some(fence) = &placement.fence
            && !hold::has_ended(pen, id, instance, fence)
        {
            left.instances.insert(instance.clone(), placement.clone());
            continue;
        }
        let (why, retired) = match pen.board().snapshot.left.contains(id) {
            true => (Why::Left(id.clone()), Retired::Left),
            false => (Why::Lost(id.clone()), Retired::Lost),
        };
        pending.displaced.insert(instance.clone(), Displaced { why, moves: placement.moves });
        pen.lose(instance, id, retired);
    }
    for (instance, off) in &assignment.off {
        if !hold::has_ended(pen, id, instance, &off.fence) {
            left.off.insert(instance.clone(), off.clone());
        } else if let Some(why) = &off.why {
            pending
                .displaced
                .insert(instance.clone(), Displaced { why: why.clone(), moves: off.moves });
        }
    }
    if (left.instances.len(), left.off.len()) != (assignment.instances.len(), assignment.off.len())
    {
        pen.document(id, left);
    }
}
