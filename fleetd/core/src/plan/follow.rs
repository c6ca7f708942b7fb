//! Followers (`MachineOf=`): they stay beside the units that they name, and go where those go. One
//! that fails moves only with them.

use std::collections::BTreeSet;

use super::Retired;
use super::board::{Board, SETTLING};
use super::keep::{self, Follower, Pending};
use crate::constraint::Misfit;
use crate::model::{Availability, Why};
use crate::name::UnitName;

/// Followers that stay; they are looked at again if anything moves.
pub(super) type Kept<'a> = Vec<(UnitName, Follower<'a>)>;

/// Keeps the followers whose units stay where they are, before anything new takes their place. A
/// follower may be followed in turn, so this goes round until nobody else can be kept.
pub(super) fn keep_followers<'a>(board: &mut Board<'a>, pending: &mut Pending<'a>) -> Kept<'a> {
    let mut kept = Kept::new();
    loop {
        let before = kept.len();
        for (instance, follower) in std::mem::take(&mut pending.followers) {
            if !may_leave(board, &instance, &follower) && keep_one(board, &instance, &follower) {
                kept.push((instance, follower));
            } else {
                pending.followers.insert(instance, follower);
            }
        }
        if kept.len() == before {
            break;
        }
    }
    kept
}

/// Whether a follower on a drained machine runs beside a global unit: that may be placed on another
/// machine yet.
fn may_leave(board: &Board, instance: &UnitName, follower: &Follower) -> bool {
    let drained =
        |machine: u32| board.slots[machine as usize].availability == Availability::Draining;
    let global =
        |name: &String| board.unit_number(name).is_some_and(|number| board.units[number].global);
    follower.old.iter().any(|(machine, _)| drained(*machine))
        && board.units[follower.number]
            .unit
            .constraints
            .expanded(instance)
            .machine_of
            .iter()
            .all(global)
}

/// Keeps a follower in the first of its places that fits, and takes it off all others. Not on a
/// machine that is drained, if what it runs beside is on another one, too.
fn keep_one<'a>(board: &mut Board<'a>, instance: &UnitName, follower: &Follower<'a>) -> bool {
    let Follower { number, seat, old } = follower;
    let wants = board.units[*number].unit.constraints.expanded(instance);
    let fits = |machine: u32| board.misfit(*number, instance, &wants, machine).is_none();
    let drained =
        |machine: u32| board.slots[machine as usize].availability == Availability::Draining;
    let better =
        |machine: &u32| board.slots[*machine as usize].availability.is_active() && fits(*machine);
    let elsewhere = || board.machines_of(&wants.machine_of[0]).iter().any(better);
    let Some(stays) =
        old.iter().position(|(machine, _)| fits(*machine) && !(drained(*machine) && elsewhere()))
    else {
        return false;
    };
    for (index, (machine, placement)) in old.iter().enumerate() {
        if index == stays {
            board.take(*number, *seat, instance, *machine);
            board.refresh(*number, *seat, instance, *machine, placement);
        } else {
            board.retire(instance, *machine, Retired::Twice);
        }
    }
    true
}

/// After a move: followers that stand beside nobody any more are to be decided anew.
pub(super) fn release_followers<'a>(
    board: &mut Board<'a>,
    pending: &mut Pending<'a>,
    kept: &mut Kept<'a>,
) {
    loop {
        let before = kept.len();
        for (instance, mut follower) in std::mem::take(kept) {
            let (number, seat) = (follower.number, follower.seat);
            let machine = board.placed(number)[seat];
            let wants = board.units[number].unit.constraints.expanded(&instance);
            if wants.machine_of.iter().all(|name| board.is_on(name, machine)) {
                kept.push((instance, follower));
            } else {
                board.release(number, seat, &instance);
                follower.old.retain(|(old, _)| *old == machine);
                pending.followers.insert(instance, follower);
            }
        }
        if kept.len() == before {
            return;
        }
    }
}

/// Followers go where the units that they name are, now that all others are placed; again round by
/// round.
pub(super) fn place_followers<'a>(board: &mut Board<'a>, mut pending: Pending<'a>) {
    let mut open = std::mem::take(&mut pending.followers);
    while !open.is_empty() {
        let waiting: BTreeSet<UnitName> = open.keys().cloned().collect();
        for (instance, follower) in std::mem::take(&mut open) {
            let wants = board.units[follower.number].unit.constraints.expanded(&instance);
            if wants.machine_of.iter().any(|name| waiting.contains(name.as_str())) {
                open.insert(instance, follower);
            } else if !keep_one(board, &instance, &follower) {
                place_one(board, &mut pending, instance, &follower);
            }
        }
        if open.len() == waiting.len() {
            for (instance, follower) in std::mem::take(&mut open) {
                for (machine, _) in follower.old {
                    board.retire(&instance, machine, Retired::Unfit(Misfit::Circle));
                }
                board.unplaced(
                    follower.number,
                    vec![instance],
                    &[(Misfit::Circle, board.slots.len())],
                    std::iter::empty(),
                );
            }
        }
    }
}

fn place_one(board: &mut Board, pending: &mut Pending, instance: UnitName, follower: &Follower) {
    let (number, seat) = (follower.number, follower.seat);
    let wants = board.units[number].unit.constraints.expanded(&instance);
    for (machine, placement) in &follower.old {
        match board.misfit(number, &instance, &wants, *machine) {
            Some(misfit) => keep::displace(board, pending, &instance, *machine, placement, misfit),
            None => board.retire(&instance, *machine, Retired::Drained), // or it would have been kept
        }
    }
    if board.placed(number)[seat] == SETTLING {
        return;
    }
    let candidates = board.machines_of(&wants.machine_of[0]).into_iter();
    let fitting =
        candidates.filter(|&machine| board.misfit(number, &instance, &wants, machine).is_none());
    let order = |machine: u32| {
        let slot = &board.slots[machine as usize];
        (!slot.availability.is_active(), slot.load, machine)
    };
    match fitting.min_by_key(|&machine| order(machine)) {
        Some(machine) => {
            let target = UnitName::trusted(wants.machine_of[0].as_str());
            let moves = pending.displaced.get(&instance).map_or(0, |displaced| displaced.moves);
            board.place(number, seat, instance, machine, Why::Beside(target), moves);
        }
        None => {
            let (suiting, unsuited) = board.suiting(&wants, true);
            let against = |machine| board.misfit(number, &instance, &wants, machine);
            let crowded: Vec<Misfit> = suiting.into_iter().filter_map(against).collect();
            board.unplaced(number, vec![instance], &unsuited, crowded.into_iter());
        }
    }
}
