//! `MachineMetadata=`: the machine has all keys, each with one of the values.

use super::super::misfit::Unsuited;
use crate::model::Machine;
use crate::unit::xfleet::Constraints;

#[inline]
pub(super) fn check<'w>(machine: &Machine, wants: &'w Constraints) -> Option<Unsuited<'w>> {
    for (key, values) in wants.metadata.iter() {
        if !machine.metadata.get(key).is_some_and(|value| values.contains(value)) {
            return Some(Unsuited::Lacks(key, values));
        }
    }
    None
}
