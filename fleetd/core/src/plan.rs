//! `plan`: one snapshot in, the next version of every assignment that must change out, each
//! decision with its reason.
//!
//! Rules, in order: what fits stays; what no longer fits, was lost or gave up moves; what is
//! missing goes to the fitting machine with the fewest instances of the same template, then the
//! fewest instances at all, then the lowest id. Planning the planned state changes nothing. A
//! fenced instance moves in two plans: off its machine, and when it has surely ended there, onto
//! another.
//!
//! The planner has floors. A file reads those below it and never one above
//! (`plan/tests/floors.rs` checks it):
//!
//! | floor | files | what it does |
//! |---|---|---|
//! | conductor | this file | calls the passes in their order |
//! | passes | `passes/*` | one file a pass: what happens to whom, and in which order |
//! | pen | `edit.rs` | writes down every placement, removal and note |
//! | rank | `rank.rs`, `rank/*` | which machine is best: nothing else scores machines |
//! | judgement | `fit.rs`, `rules/*`, `budget.rs`, `needs.rs` | may it run there, start, stop |
//! | facts | `board.rs`, `seat.rs`, `slot.rs` | who is where |
//! | words | `answer.rs`, `misfit.rs`, `pending.rs` and others | what is asked and answered |

use crate::model::Snapshot;

mod answer;
mod board;
mod budget;
mod candidate;
mod document;
mod edit;
mod fencing;
mod fit;
mod misfit;
mod missing;
mod needs;
mod passes;
mod pending;
#[cfg(test)]
mod properties;
mod rank;
mod rules;
#[cfg(test)]
pub(crate) mod script;
mod seat;
mod slot;
#[cfg(test)]
mod tests;

pub use answer::{
    Answered, Change, Held, Immovable, Needing, Plan, Retired, Rolling, Spares, Unplaced, Until,
};
pub use misfit::Misfit;
pub use missing::{Missing, missing};

use board::Board;
use edit::Pen;
use passes::{
    canary, evict, follow, hold, keep, leave, lose, need, place, replace, spare, update, wish,
};
use pending::{Kept, Pending};
use rank::Way;

/// Decides for the whole cluster. Moves come before placing, and followers last: so nothing that
/// was decided loses its ground.
pub fn plan(snapshot: &Snapshot) -> Plan {
    conduct(snapshot, Way::Fast)
}

/// The passes, in their order.
fn conduct(snapshot: &Snapshot, way: Way) -> Plan {
    let mut pen = Pen::new(Board::new(snapshot));
    let (mut pending, mut kept) = (Pending::default(), Kept::new());
    keep::keep_what_fits(&mut pen, &mut pending);
    lose::lose_machines(&mut pen, &mut pending);
    hold::hold_what_may_be_alive(&mut pen, &mut pending);
    follow::keep_followers(&mut pen, &mut pending, &mut kept);
    need::hold_what_needs(&mut pen, &pending);
    wish::move_as_asked(&mut pen, &mut pending);
    leave::move_leaving(&mut pen, &mut pending, &mut kept);
    place::place_what_is_missing(&mut pen, &mut pending, way);
    if spare::stand_by(&mut pen, &mut pending) {
        pen.forget_unplaced();
        place::place_what_is_missing(&mut pen, &mut pending, way);
    }
    while replace::push_replaced(&mut pen, &mut pending, &mut kept) {
        // What was pushed off made room.
        leave::move_leaving(&mut pen, &mut pending, &mut kept);
        pen.forget_unplaced();
        place::place_what_is_missing(&mut pen, &mut pending, way);
    }
    if evict::evict(&mut pen, &mut pending, &mut kept) {
        pen.forget_unplaced();
        place::place_what_is_missing(&mut pen, &mut pending, way);
    }
    wish::answer_what_stays(&mut pen, &pending);
    leave::say_what_fits_nowhere(&mut pen, &pending);
    follow::place_followers(&mut pen, pending);
    canary::give_to_canaries(&mut pen);
    update::carry_out_deferred(&mut pen);
    pen.into_plan()
}
