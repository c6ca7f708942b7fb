//! Which machine is best: the only place that scores machines.
//!
//! The plain way scores every machine that fits. The fast way (`rank/`) finds the same machine
//! without looking at all of them; `properties.rs` holds the two against each other.

use std::collections::BTreeMap;

use super::board::Board;

pub(super) mod classes;
pub(super) mod loads;
pub(super) mod rounds;

/// How machines are found for what is missing. Both ways choose the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By classes of machines and their loads.
    Fast,
    /// By the score of every machine that fits.
    Plain,
}

/// How many instances of one unit are on each machine.
pub(super) type Siblings = BTreeMap<u32, u32>;

/// The best of the machines that fit: the one with the fewest instances of the same unit, then with
/// the fewest instances at all, then with the lowest id.
pub(super) fn best(
    board: &Board,
    siblings: &Siblings,
    fitting: impl Iterator<Item = u32>,
) -> Option<u32> {
    let on = |machine: &u32| siblings.get(machine).copied().unwrap_or(0);
    fitting.min_by_key(|machine| (on(machine), board.slots[*machine as usize].load, *machine))
}

/// The best of the machines that fit for what must run where others run: one that is open to new
/// instances, then the one with the fewest instances, then with the lowest id.
pub(super) fn best_beside(board: &Board, fitting: impl Iterator<Item = u32>) -> Option<u32> {
    fitting.min_by_key(|machine| {
        let slot = &board.slots[*machine as usize];
        (!slot.availability.is_active(), slot.load, *machine)
    })
}
