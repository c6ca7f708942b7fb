//! What is written in the end: the next version of each machine's document.

use std::collections::BTreeMap;

use super::Plan;
use super::board::Board;
use crate::model::{Assignment, FORMAT, Placement};
use crate::name::{MachineId, UnitName};

impl Board<'_> {
    /// Applies the edits to the documents.
    pub(super) fn into_plan(self) -> Plan {
        let Board { snapshot, slots, mut plan, .. } = self;
        let changed =
            slots.into_iter().filter(|slot| !slot.edits.is_empty() || !slot.off.is_empty());
        // In the order of ids, so that the map is built at once.
        let mut documents: BTreeMap<MachineId, Assignment> = changed
            .map(|slot| {
                let old = snapshot.assignments.get(slot.id);
                let mut document = edited(old.map(|old| &**old), slot.edits);
                document.generation = document.generation.saturating_add(1);
                document.lost_ms = None;
                for (instance, off) in slot.off {
                    match off {
                        Some(off) => document.off.insert(instance, off),
                        None => document.off.remove(&instance),
                    };
                }
                (slot.id.clone(), document)
            })
            .collect();
        plan.documents.append(&mut documents);
        plan
    }
}

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

pub(super) fn encoded_size(document: &Assignment) -> usize {
    serde_json::to_vec(document).map_or(usize::MAX, |text| text.len())
}
