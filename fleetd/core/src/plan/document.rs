//! A machine's next document: the present one with the plan's edits.

use crate::model::{Assignment, FORMAT, Placement};
use crate::name::UnitName;

/// The document with `edits` applied in order.
pub(super) fn edited(
    old: Option<&Assignment>,
    edits: impl IntoIterator<Item = (UnitName, Option<Placement>)>,
) -> Assignment {
    let mut document =
        old.map_or_else(|| Assignment { v: FORMAT, ..Assignment::default() }, Assignment::clone);
    if document.instances.is_empty() {
        // Nothing can have been taken off, and a map built at once is cheaper than one built by
        // inserting.
        document.instances =
            edits.into_iter().filter_map(|(name, placement)| Some((name, placement?))).collect();
        return document;
    }
    for (instance, placement) in edits {
        match placement {
            Some(placement) => document.instances.insert(instance, placement),
            None => document.instances.remove(&instance),
        };
    }
    document
}

/// Its size in the store, in bytes.
pub(super) fn encoded_size(document: &Assignment) -> usize {
    serde_json::to_vec(document).map_or(usize::MAX, |text| text.len())
}
