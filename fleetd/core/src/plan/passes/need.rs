//! Keeps back what is to start after something that is not up yet (`Needs=`). What runs is left
//! alone, and so is what only goes to another machine: this is about the order of starts.

use super::super::edit::Pen;
use super::super::needs;
use super::super::pending::Pending;
use crate::model::Why;
use crate::name::UnitName;

/// Holds each instance that has no machine and waits for another unit.
pub(in crate::plan) fn hold_what_needs(pen: &mut Pen, pending: &Pending) {
    let mut known = needs::Known::new();
    for number in 0..pen.board().units.len() {
        if !pen.board().units[number].needs {
            continue;
        }
        let empty: Vec<(usize, UnitName)> = pen.board().empty_seats(number).collect();
        for (seat, instance) in empty {
            if !is_moved(pending, &instance)
                && let Some(unit) = needs::unmet(pen.board(), &mut known, number, &instance)
            {
                pen.hold_for(number, seat, instance, unit);
            }
        }
    }
}

/// Whether the instance runs and has just been taken up, to go elsewhere or to be decided anew. One
/// whose machine was lost starts like a new one.
fn is_moved(pending: &Pending, instance: &UnitName) -> bool {
    let is_on_purpose = |why: &Why| !matches!(why, Why::Lost(_) | Why::Left(_));
    pending.displaced.get(instance).is_some_and(|displaced| is_on_purpose(&displaced.why))
        || pending.followers.get(instance).is_some_and(|follower| !follower.old.is_empty())
}
