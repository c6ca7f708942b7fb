//! `fleetctl cordon` and `drain`: the machine takes nothing new.

use super::super::board::Board;
use super::super::misfit::Misfit;

#[inline]
pub(super) fn check(board: &Board, machine: u32) -> Option<Misfit> {
    (!board.slots[machine as usize].availability.is_active()).then_some(Misfit::Cordoned)
}
