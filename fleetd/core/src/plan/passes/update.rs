//! Carries out what was deferred: changes that take an instance down where it stays, as many as
//! the budget of its unit allows.

use std::collections::BTreeSet;

use super::super::answer::{Rolling, Spares};
use super::super::budget::{Allowance, Life, counted, life};
use super::super::edit::Pen;
use crate::name::UnitName;

/// What is taken down where it is, by unit and seat.
type Updating = BTreeSet<(usize, usize)>;

/// Carries out as many of the deferred changes as the budgets allow; the rest keeps running as it
/// is.
pub(in crate::plan) fn carry_out_deferred(pen: &mut Pen) {
    let mut updating = Updating::new();
    let mut deferred = pen.take_deferred();
    // Spare instances first: the others wait until those are up as they are to be.
    deferred.sort_by_key(|change| {
        let spare = pen.board().units[change.number].is_spare(change.seat);
        (change.number, !spare, change.seat)
    });
    for changes in deferred.chunk_by(|one, next| one.number == next.number) {
        let number = changes[0].number;
        let mut allowance = Allowance::of_the_placed(pen.board(), number);
        for change in changes {
            let board = pen.board();
            if board.at(number, change.seat) != change.machine || pen.is_fresh(number, change.seat)
            {
                continue; // it moves, and starts with the new text
            }
            if allowance.allows(board, &change.instance, change.machine) {
                allowance.spend(board, &change.instance, change.machine);
                pen.bring_up_to_date(number, &change.instance, change.machine, change.old);
                updating.insert((number, change.seat));
            } else {
                pen.waits_for_budget(number, change.seat);
            }
        }
    }
    say(pen, &updating);
}

/// Says which units' budgets are spent.
fn say(pen: &mut Pen, updating: &Updating) {
    let (waiting, mut no_spare) = (pen.take_waiting(), pen.take_no_spare());
    for waiting in waiting
        .into_iter()
        .collect::<Vec<_>>()
        .chunk_by(|((one, _), _), ((next, _), _)| one == next)
    {
        let board = pen.board();
        let number = waiting[0].0.0;
        let unit = &board.units[number];
        let waits = |(seat, _): &(usize, UnitName)| {
            let at = waiting.binary_search_by_key(seat, |((_, seat), _)| *seat);
            at.is_ok_and(|at| waiting[at].1 == board.at(number, *seat))
                && !updating.contains(&(number, *seat))
        };
        let up = |(seat, instance): &(usize, UnitName)| {
            !updating.contains(&(number, *seat))
                && life(board, instance, board.at(number, *seat)) == Life::Up
        };
        let wanted = if unit.starts_first { counted(board, number) } else { board.wanted(number) };
        let rolling = Rolling {
            unit: unit.unit.name.clone(),
            waiting: board
                .taken_seats(number)
                .filter(|(seat, _)| !unit.is_spare(*seat))
                .filter(waits)
                .map(|(_, instance)| instance)
                .collect(),
            unavailable: wanted.saturating_sub(board.taken_seats(number).filter(up).count()),
            wanted,
            most: unit.unit.max_unavailable().and_then(|max| max.limit(wanted)),
            spares: unit.starts_first.then(|| Spares {
                up: board.taken_seats(number).filter(up).count(),
                misfits: no_spare.remove(&number).unwrap_or_default(),
            }),
        };
        if !rolling.waiting.is_empty() {
            pen.rolling(rolling);
        }
    }
}
