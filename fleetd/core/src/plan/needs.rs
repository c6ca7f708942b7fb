//! `Needs=`: may an instance start, by what must be up before it, on whatever machine.

use std::collections::{BTreeMap, BTreeSet};

use super::board::{Board, SETTLING};
use super::budget::{self, Life};
use crate::model::DesiredState;
use crate::name::UnitName;

/// Which units are known to be up or not: thousands may wait for one, that has thousands of
/// instances.
pub(super) type Known = BTreeMap<UnitName, bool>;

/// What the instance waits for before it is started: the first unit of its `Needs=` that is not
/// healthy anywhere. Who waits for itself in the end waits for nobody: such circles are refused
/// where they are submitted, and one that came together otherwise must not hold its units for ever.
pub(super) fn unmet(
    board: &Board,
    known: &mut Known,
    number: usize,
    instance: &UnitName,
) -> Option<UnitName> {
    let unit = &board.units[number];
    if !unit.needs || unit.unit.desired != DesiredState::Launched {
        return None;
    }
    let wants = board.wants(number, instance);
    let needed = wants.needs.iter().map(|name| UnitName::trusted(name.as_str()));
    let mut up = |name: &UnitName| match known.get(name) {
        Some(up) => *up,
        None => *known.entry(name.clone()).or_insert(is_up(board, name)),
    };
    let holds = |name: &UnitName| {
        !up(name) && !is_where_others_are(board, name) && !leads_to(board, name, number)
    };
    needed.into_iter().find(holds)
}

/// Whether the unit has no instances of its own, so that nobody would ever see it up: it is a part
/// of a pod, or comes with whoever names it.
fn is_where_others_are(board: &Board, name: &UnitName) -> bool {
    let is_member = |number: usize| board.units[number].unit.member;
    name.is_shared() || board.unit_number(name.as_str()).is_some_and(is_member)
}

/// Whether any instance of the unit is healthy, or has done its work and ended well.
fn is_up(board: &Board, name: &UnitName) -> bool {
    let up = |instance: &UnitName, machine: u32| {
        budget::life(board, instance, machine) == Life::Up
            || budget::has_ended(board, instance, machine)
    };
    match board.unit_number(name.as_str()) {
        Some(number) => {
            board.taken_seats(number).any(|(seat, instance)| up(&instance, board.at(number, seat)))
        }
        None => board.owner(name, 0).is_some_and(|(number, seat)| {
            let machine = board.at(number, seat);
            machine < SETTLING && up(name, machine)
        }),
    }
}

/// Whether the unit waits for the one of this number, through others or by itself: it needs it, or
/// goes where it is (`MachineOf=`).
fn leads_to(board: &Board, name: &UnitName, number: usize) -> bool {
    let mut open = vec![name.clone()];
    let mut seen: BTreeSet<usize> = BTreeSet::new();
    while let Some(name) = open.pop() {
        let own = board.unit_number(name.as_str());
        let Some(next) = own.or_else(|| Some(board.owner(&name, 0)?.0)) else { continue };
        if next == number {
            return true;
        }
        let unit = &board.units[next];
        if (unit.needs || unit.follows) && seen.insert(next) {
            let wants = board.wants(next, &name);
            let before = wants.needs.iter().chain(&wants.machine_of);
            open.extend(before.map(|name| UnitName::trusted(name.as_str())));
        }
    }
    false
}
