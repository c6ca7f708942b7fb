//! Units that ask for the same labels share a class: the machines that have them, found once.

use std::collections::{BTreeMap, BTreeSet};

use super::super::board::Board;
use super::super::fit::{self, Reasons};
use super::super::rules::{podman, secrets};
use super::loads::{Loads, Machines, Start};
use crate::unit::labels::Fingerprint;
use crate::unit::xfleet::Constraints;

/// One class for each set of labels asked for, by
/// [`Labels::fingerprint`](crate::unit::labels::Labels::fingerprint).
#[derive(Default)]
pub(in crate::plan) struct Classes<'a> {
    labelled: BTreeMap<Fingerprint, Class>,
    /// That of the units that ask for none.
    anywhere: Option<Class>,
    index: Option<Index<'a>>,
}

/// The machines that have a set of labels and take new instances.
pub(in crate::plan) struct Class {
    pub(super) machines: Machines,
    pub(super) start: Start,
    /// Why the others have not: counted when the first unit finds no machine.
    unsuited: Option<Reasons>,
}

impl<'a> Classes<'a> {
    /// The class of a unit whose instances are alike and that names no machine.
    #[inline]
    pub(in crate::plan) fn of(&mut self, board: &Board<'a>, number: usize) -> &mut Class {
        let unit = &board.units[number];
        let index = &mut self.index;
        let new = || {
            let index = index.get_or_insert_with(|| index_labels(board));
            Class::new(board, index, &unit.unit.constraints)
        };
        match unit.labels {
            None => self.anywhere.get_or_insert_with(new),
            Some(labels) => self.labelled.entry(labels).or_insert_with(new),
        }
    }
}

impl Class {
    fn new(board: &Board, index: &Index, wants: &Constraints) -> Class {
        let mut machines = Machines::none_of(board.slots.len());
        let active = board.slots.iter().zip(0..).filter(|(slot, _)| slot.availability.is_active());
        active.for_each(|(_, machine)| machines.insert(machine));
        if wants.podman.is_some() {
            let slots = board.slots.iter().zip(0..);
            let lacking = slots.filter(|(slot, _)| {
                podman::check(slot.machine, wants)
                    .or_else(|| secrets::check(slot.machine, wants))
                    .is_some()
            });
            lacking.for_each(|(_, machine)| machines.remove(machine));
        }
        for (key, values) in wants.metadata.iter() {
            machines.retain(&labelled(board, index, key, values));
        }
        Class { machines, start: Start::default(), unsuited: None }
    }

    /// The best of its machines for a unit of one instance: see [`Loads::lowest`].
    pub(in crate::plan) fn least_loaded(
        &mut self,
        loads: &Loads,
        fits: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        loads.lowest(&self.machines, &mut self.start, fits)
    }

    /// The machines, by number.
    pub(in crate::plan) fn machines(&self) -> impl Iterator<Item = u32> + '_ {
        self.machines.iter()
    }

    /// Why the other machines are not in it.
    pub(in crate::plan) fn unsuited(&mut self, board: &Board, wants: &Constraints) -> &Reasons {
        self.unsuited.get_or_insert_with(|| fit::suiting(board, wants, false).1)
    }
}

/// The machines that have a label, by key, then by value.
type Index<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<u32>>>;

fn index_labels<'a>(board: &Board<'a>) -> Index<'a> {
    let mut index = Index::new();
    for (slot, machine) in board.slots.iter().zip(0..) {
        for (key, value) in &slot.machine.metadata {
            index.entry(key).or_default().entry(value).or_default().push(machine);
        }
    }
    index
}

/// The machines that have one of these values of a label, from the index: no machine itself needs
/// to be looked at.
fn labelled(board: &Board, index: &Index, key: &str, values: &BTreeSet<String>) -> Machines {
    let mut having = Machines::none_of(board.slots.len());
    let lists = index
        .get(key)
        .into_iter()
        .flat_map(|lists| values.iter().filter_map(|value| lists.get(value.as_str())));
    lists.flatten().for_each(|&machine| having.insert(machine));
    having
}
