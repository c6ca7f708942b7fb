//! The instance that looks for a machine.

use crate::name::UnitName;
use crate::unit::xfleet::Constraints;

/// An instance that a machine is judged for.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'c> {
    /// Its unit's number on the board.
    pub(super) number: usize,
    pub(super) instance: &'c UnitName,
    /// Its unit's constraints, with specifiers put in.
    pub(super) wants: &'c Constraints,
}
