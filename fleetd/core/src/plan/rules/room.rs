//! Room: the machine's documents hold one instance more.

use super::super::board::Board;
use super::super::candidate::Candidate;
use super::super::document;
use super::super::misfit::Misfit;
use super::super::slot::Slot;
use crate::model::MAX_DOCUMENT_BYTES;
use crate::name::UnitName;

/// What is left of a document's limit for entries: its frame, and fields that a later version may
/// add.
const BUDGET_BYTES: usize = MAX_DOCUMENT_BYTES - 16 * 1024;

/// The most instances on one machine: as many as its report, in which each may differ from all
/// others, can tell of.
const MAX_INSTANCES: usize = 10_000;

#[inline]
pub(super) fn check(board: &Board, candidate: &Candidate, machine: u32) -> Option<Misfit> {
    let slot = &board.slots[machine as usize];
    let bytes = board.units[candidate.number].entry_bytes(candidate.instance);
    (!has_room(board, slot, bytes, candidate.instance)).then_some(Misfit::Full)
}

/// Whether the machine's document can take one more entry. What it holds already stays.
fn has_room(board: &Board, slot: &Slot, bytes: usize, instance: &UnitName) -> bool {
    let has_room =
        || (slot.load as usize) < MAX_INSTANCES && slot.bytes.get() + bytes <= BUDGET_BYTES;
    if has_room() {
        return true;
    }
    let present = board.snapshot.assignments.get(slot.id);
    if present.is_some_and(|present| present.instances.contains_key(instance)) {
        return true;
    }
    // The count takes each entry for a group of its own; most stand in a row with others.
    // Measured whenever it grew, though that costs milliseconds: whoever plans the planned
    // state must find the same room. With each measurement less than half as much is left.
    if slot.bytes.get() > slot.measured.get() {
        let size = document::encoded_size(&document::edited(
            present.map(|present| &**present),
            slot.edits.iter().cloned(),
        ));
        slot.bytes.set(size);
        slot.measured.set(size);
    }
    has_room()
}
