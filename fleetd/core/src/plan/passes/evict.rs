//! What is still on a drained machine at its operator's deadline is taken off: past the budgets of
//! its units, and also where no other machine can take it.

use super::super::answer::Retired;
use super::super::board::SETTLING;
use super::super::edit::Pen;
use super::super::pending::{Displaced, Kept, Leaving, Pending};
use super::follow;
use crate::model::Why;

/// Takes off what is left where the deadline has passed, for the placing that follows. Answers with
/// whether anything was, and notes the next deadline.
pub(in crate::plan) fn evict<'a>(
    pen: &mut Pen<'a>,
    pending: &mut Pending<'a>,
    kept: &mut Kept<'a>,
) -> bool {
    let snapshot = pen.board().snapshot;
    if snapshot.evictions.is_empty() {
        return false;
    }
    let (now_ms, evictions) = (snapshot.now_ms, &snapshot.evictions);
    for at_ms in evictions.values().filter(|at_ms| **at_ms > now_ms) {
        pen.wake_at(*at_ms);
    }
    let before = pending.leaving.len();
    for leaving in std::mem::take(&mut pending.leaving) {
        let Leaving { number, seat, instance, moves, .. } = &leaving;
        let machine = pen.board().at(*number, *seat);
        let goes = machine < SETTLING && !pen.board().units[*number].global;
        let id = goes.then(|| pen.board().slots[machine as usize].id);
        let due = |id| evictions.get(id).is_some_and(|at_ms| *at_ms <= now_ms);
        // Also what should leave for another reason, and can no more: a new text that fits nowhere,
        // a move that waits for its budget.
        let Some(id) = id.filter(|id| due(*id)) else {
            pending.leaving.push(leaving);
            continue;
        };
        pen.release(*number, *seat, instance);
        pen.retire(instance, machine, Retired::Drained);
        let (why, moves) = (Why::Drained(id.clone()), *moves);
        pending.displaced.insert(instance.clone(), Displaced { why, moves });
    }
    let evicted = pending.leaving.len() < before;
    if evicted {
        follow::release_followers(pen, pending, kept);
    }
    evicted
}
