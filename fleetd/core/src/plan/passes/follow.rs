//! Followers (`MachineOf=`): they stay with the units that they name, and go where those go. One
//! that fails moves only with them.

use std::collections::BTreeSet;

use super::super::answer::Retired;
use super::super::board::{Board, SETTLING};
use super::super::candidate::Candidate;
use super::super::edit::Pen;
use super::super::fit::{self, Reasons};
use super::super::misfit::Misfit;
use super::super::pending::{Follower, Kept, Pending};
use super::super::rank;
use crate::model::{Availability, Why};
use crate::name::UnitName;

/// Keeps the followers whose units stay where they are, before anything new takes their place. A
/// follower may be followed in turn, so this goes round until nobody else can be kept.
pub(in crate::plan) fn keep_followers<'a>(
    pen: &mut Pen<'a>,
    pending: &mut Pending<'a>,
    kept: &mut Kept<'a>,
) {
    loop {
        let before = kept.len();
        for (instance, follower) in std::mem::take(&mut pending.followers) {
            if !may_leave(pen.board(), &instance, &follower) && keep_one(pen, &instance, &follower)
            {
                kept.push((instance, follower));
            } else {
                pending.followers.insert(instance, follower);
            }
        }
        if kept.len() == before {
            return;
        }
    }
}

/// Whether a follower on a drained machine runs beside a global unit: that may be placed on another
/// machine yet.
fn may_leave(board: &Board, instance: &UnitName, follower: &Follower) -> bool {
    let drained =
        |machine: u32| board.slots[machine as usize].availability == Availability::Draining;
    let global =
        |name: &String| board.unit_number(name).is_some_and(|number| board.units[number].global);
    follower.old.iter().any(|(machine, _)| drained(*machine))
        && board.wants(follower.number, instance).machine_of.iter().all(global)
}

/// Keeps a follower in the first of its places that fits, and takes it off all others. Not on a
/// machine that is drained, if what it runs beside is on another one, too.
fn keep_one<'a>(pen: &mut Pen<'a>, instance: &UnitName, follower: &Follower<'a>) -> bool {
    let (board, Follower { number, seat, old }) = (pen.board(), follower);
    let wants = board.wants(*number, instance);
    let candidate = Candidate { number: *number, instance, wants: &wants };
    let fits = |machine: u32| fit::misfit(board, &candidate, machine).is_none();
    let drained =
        |machine: u32| board.slots[machine as usize].availability == Availability::Draining;
    let better =
        |machine: &u32| board.slots[*machine as usize].availability.is_active() && fits(*machine);
    let elsewhere = || board.machines_of(&wants.machine_of[0]).iter().any(better);
    let stays = |(machine, placement): &(u32, &_)| {
        fit::misfit_of_held(board, &candidate, *machine, placement).is_none()
            && !(drained(*machine) && elsewhere())
    };
    let Some(stays) = old.iter().position(stays) else { return false };
    for (index, (machine, placement)) in old.iter().enumerate() {
        if index == stays {
            pen.keep(*number, *seat, instance, *machine);
            pen.refresh(*number, *seat, instance, *machine, placement);
        } else {
            pen.retire(instance, *machine, Retired::Twice);
        }
    }
    true
}

/// After a move: followers that stand beside nobody any more are to be decided anew.
pub(in crate::plan) fn release_followers<'a>(
    pen: &mut Pen<'a>,
    pending: &mut Pending<'a>,
    kept: &mut Kept<'a>,
) {
    loop {
        let before = kept.len();
        for (instance, mut follower) in std::mem::take(kept) {
            let (number, seat) = (follower.number, follower.seat);
            let board = pen.board();
            let machine = board.at(number, seat);
            let wants = board.wants(number, &instance);
            if wants.machine_of.iter().all(|name| board.is_on(name, machine)) {
                kept.push((instance, follower));
            } else {
                pen.release(number, seat, &instance);
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
pub(in crate::plan) fn place_followers<'a>(pen: &mut Pen<'a>, mut pending: Pending<'a>) {
    let mut open = std::mem::take(&mut pending.followers);
    while !open.is_empty() {
        let waiting: BTreeSet<UnitName> = open.keys().cloned().collect();
        for (instance, follower) in std::mem::take(&mut open) {
            let wants = pen.board().wants(follower.number, &instance);
            if wants.machine_of.iter().any(|name| waiting.contains(name.as_str())) {
                open.insert(instance, follower);
            } else if !keep_one(pen, &instance, &follower) {
                place_one(pen, &mut pending, instance, &follower);
            }
        }
        if open.len() == waiting.len() {
            for (instance, follower) in std::mem::take(&mut open) {
                for (machine, _) in follower.old {
                    pen.retire(&instance, machine, Retired::Unfit(Misfit::Circle));
                }
                let all = Reasons::from([(Misfit::Circle, pen.board().slots.len())]);
                let reasons = fit::with_crowded(pen.board(), all, std::iter::empty());
                pen.unplaced(follower.number, vec![instance], reasons);
            }
        }
    }
}

fn place_one(pen: &mut Pen, pending: &mut Pending, instance: UnitName, follower: &Follower) {
    let (number, seat) = (follower.number, follower.seat);
    let wants = pen.board().wants(number, &instance);
    let candidate = Candidate { number, instance: &instance, wants: &wants };
    for (machine, placement) in &follower.old {
        match fit::misfit_of_held(pen.board(), &candidate, *machine, placement) {
            Some(misfit) => pen.displace(pending, &instance, *machine, placement, misfit),
            None => pen.retire(&instance, *machine, Retired::Drained), // or it would have been kept
        }
    }
    let board = pen.board();
    if board.at(number, seat) == SETTLING {
        return;
    }
    let mut fitting = board.machines_of(&wants.machine_of[0]);
    fitting.retain(|&machine| fit::misfit(board, &candidate, machine).is_none());
    match rank::best_beside(board, fitting.into_iter()) {
        Some(machine) => {
            let target = UnitName::trusted(wants.machine_of[0].as_str());
            let moves = pending.displaced.get(&instance).map_or(0, |displaced| displaced.moves);
            pen.place(number, seat, instance, machine, Why::Beside(target), moves);
        }
        None => {
            let reasons = fit::reasons(board, &candidate, true);
            pen.unplaced(number, vec![instance], reasons);
        }
    }
}
