//! The rules: what speaks against an instance on a machine. One file a rule, which holds one
//! function that says why not, or `None`; and one line in one of the lists here. The first rule
//! that says why not is the reason.
//!
//! The lists are chains of calls, no arrays of functions: a call through an array is not inlined,
//! and cost a plan up to 8 % more instructions.

use super::board::Board;
use super::candidate::Candidate;
use super::misfit::{Misfit, Unsuited};
use crate::model::Machine;
use crate::unit::xfleet::Constraints;

mod availability;
mod beside;
pub(super) mod conflicts;
mod labels;
mod machine_id;
mod per_machine;
pub(super) mod podman;
mod room;
pub(super) mod secrets;

/// The rules that ask the machine alone, the cheapest first. The same machine always gets the same
/// answer, so the fast way to place (`rank/classes.rs`) asks once for all units that want the same:
/// a rule that is added here is added there.
#[inline]
pub(super) fn of_the_machine<'w>(
    machine: &Machine,
    wants: &'w Constraints,
) -> Option<Unsuited<'w>> {
    machine_id::check(machine, wants)
        .or_else(|| podman::check(machine, wants))
        .or_else(|| labels::check(machine, wants))
        .or_else(|| secrets::check(machine, wants))
}

/// Those of them that also hold for an instance that runs there already: not what podman is only
/// asked for at a start. Its package may be away for a moment while it is upgraded, and a secret
/// while it is replaced.
#[inline]
pub(super) fn of_the_machine_held<'w>(
    machine: &Machine,
    wants: &'w Constraints,
) -> Option<Unsuited<'w>> {
    machine_id::check(machine, wants).or_else(|| labels::check(machine, wants))
}

/// The rules that ask what else is on the board, the cheapest first. Their answer may change with
/// each placement. Asked of every instance on every machine that passed those above, also of those
/// that are there already.
#[inline]
pub(super) fn of_the_board(board: &Board, it: &Candidate, machine: u32) -> Option<Misfit> {
    beside::check(board, it, machine)
        .or_else(|| room::check(board, it, machine))
        .or_else(|| per_machine::check(board, it, machine))
        .or_else(|| conflicts::check(board, it, machine))
}

/// The rules that are asked first of an instance that is not there yet.
#[inline]
pub(super) fn of_newcomers(board: &Board, _: &Candidate, machine: u32) -> Option<Misfit> {
    availability::check(board, machine)
}
