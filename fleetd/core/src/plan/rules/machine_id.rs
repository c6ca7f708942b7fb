//! `MachineID=`: one machine alone will do.

use super::super::misfit::Unsuited;
use crate::model::Machine;
use crate::unit::xfleet::Constraints;

#[inline]
pub(super) fn check<'w>(machine: &Machine, wants: &'w Constraints) -> Option<Unsuited<'w>> {
    let id = wants.machine_id.as_deref()?;
    (!machine.id.matches(id)).then_some(Unsuited::OtherMachine(id))
}
