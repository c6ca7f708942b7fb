//! May an instance run on a machine? Each question here asks the lists of [`rules`].

use std::collections::BTreeMap;

use super::board::Board;
use super::candidate::Candidate;
use super::misfit::{Misfit, Unsuited};
use super::rules;
use crate::model::{Machine, Placement};
use crate::unit::xfleet::Constraints;

/// Why the machine cannot have the instance: by what the machine is, by what must run with it, or
/// by what it runs.
#[inline]
pub(super) fn misfit(board: &Board, candidate: &Candidate, machine: u32) -> Option<Misfit> {
    match unsuited(board.slots[machine as usize].machine, candidate.wants) {
        Some(unsuited) => Some(unsuited.into()),
        None => crowded(board, candidate, machine),
    }
}

/// The same of an instance that is there by this placement. What podman is only asked for
/// at a start does not count while its text stays.
#[inline]
pub(super) fn misfit_of_held(
    board: &Board,
    candidate: &Candidate,
    machine: u32,
    placement: &Placement,
) -> Option<Misfit> {
    if placement.hash != board.units[candidate.number].unit.hash {
        return misfit(board, candidate, machine);
    }
    let host = board.slots[machine as usize].machine;
    match rules::of_the_machine_held(host, candidate.wants) {
        Some(unsuited) => Some(unsuited.into()),
        None => crowded(board, candidate, machine),
    }
}

/// The same of an instance that is not there yet.
pub(super) fn misfit_of_new(board: &Board, candidate: &Candidate, machine: u32) -> Option<Misfit> {
    rules::of_newcomers(board, candidate, machine).or_else(|| misfit(board, candidate, machine))
}

/// Why the machine itself will not do, whatever runs there.
#[inline]
pub(super) fn unsuited<'w>(machine: &Machine, wants: &'w Constraints) -> Option<Unsuited<'w>> {
    rules::of_the_machine(machine, wants)
}

/// What runs on the machine, or does not, that speaks against the instance there. The machine
/// itself was judged.
#[inline]
pub(super) fn crowded(board: &Board, candidate: &Candidate, machine: u32) -> Option<Misfit> {
    rules::of_the_board(board, candidate, machine)
}

/// Whether a misfit of one instance is one of all instances of its unit, now and after more of them
/// were placed.
pub(super) fn is_of_all(board: &Board, number: usize, misfit: &Misfit) -> bool {
    match misfit {
        Misfit::Conflict { unit } => rules::conflicts::refuses_all(board, number, unit),
        _ => true,
    }
}

/// Why an instance fits nowhere: each reason with the number of machines that it holds for.
pub(super) type Reasons = BTreeMap<Misfit, usize>;

/// Why no machine takes the instance. `closed` says whether machines that take nothing new are
/// asked, too.
pub(super) fn reasons(board: &Board, candidate: &Candidate, closed: bool) -> Reasons {
    let (suiting, unsuited) = suiting(board, candidate.wants, closed);
    let crowded = suiting.into_iter().filter_map(|machine| crowded(board, candidate, machine));
    with_crowded(board, unsuited, crowded)
}

/// The machines that suit what is wanted, by number, and the reasons of the others.
pub(super) fn suiting(board: &Board, wants: &Constraints, closed: bool) -> (Vec<u32>, Reasons) {
    let (mut suiting, mut cordoned) = (Vec::new(), 0);
    // Counted before it is put into words, since the words of a label are copies.
    let mut unsuiting: BTreeMap<Unsuited, usize> = BTreeMap::new();
    for (slot, machine) in board.slots.iter().zip(0..) {
        match unsuited(slot.machine, wants) {
            Some(found) => *unsuiting.entry(found).or_default() += 1,
            None if closed || slot.availability.is_active() => suiting.push(machine),
            None => cordoned += 1,
        }
    }
    let mut reasons: Reasons =
        unsuiting.into_iter().map(|(found, machines)| (found.into(), machines)).collect();
    if cordoned > 0 {
        reasons.insert(Misfit::Cordoned, cordoned);
    }
    (suiting, reasons)
}

/// Those reasons with what speaks against the instance on each machine that suits.
pub(super) fn with_crowded(
    board: &Board,
    mut reasons: Reasons,
    crowded: impl Iterator<Item = Misfit>,
) -> Reasons {
    for found in crowded {
        // A hundred machines, each with another replica in the way, are one reason.
        let found = match found {
            Misfit::Conflict { unit } => Misfit::Conflict { unit: board.unit_of(unit) },
            found => found,
        };
        *reasons.entry(found).or_default() += 1;
    }
    if board.slots.is_empty() {
        reasons.insert(Misfit::NoMachines, 0);
    }
    reasons
}
