//! `Conflicts=`: nothing on the machine is against the instance, nor the instance against anything
//! there.

use super::super::board::Board;
use super::super::candidate::Candidate;
use super::super::misfit::Misfit;
use super::super::slot::Here;
use crate::glob;
use crate::name::UnitName;

#[inline]
pub(super) fn check(board: &Board, candidate: &Candidate, machine: u32) -> Option<Misfit> {
    let slot = &board.slots[machine as usize];
    let instance = candidate.instance;
    // Without patterns of its own, only units that have some can be against it. What surely is not
    // against it is passed over by what the slot itself holds, since each unit that is looked at
    // costs some misses of the cache.
    let clash = if board.units[candidate.number].declares {
        slot.here.iter().find_map(|here| clash(board, here, candidate))
    } else if slot.may_refuse(instance.as_str()) {
        slot.declaring.iter().find_map(|(other, said)| match said {
            Some(patterns) if !hits(patterns, instance) => None,
            _ => clash(board, slot.of_unit(*other)?, candidate),
        })
    } else {
        None
    };
    clash.map(|name| Misfit::Conflict { unit: name.clone() })
}

/// The first of the unit's instances `here` that may not share a machine with `instance`,
/// whoever declares it.
fn clash<'b>(board: &'b Board, here: &'b Here, candidate: &Candidate) -> Option<&'b UnitName> {
    let Candidate { instance, wants, .. } = *candidate;
    let theirs = &board.units[here.number];
    let said_by_all =
        theirs.declares && !theirs.specifiers && hits(&theirs.unit.constraints.conflicts, instance);
    let said_by_some = theirs.specifiers && theirs.declares;
    // All names of a unit begin alike, so most patterns are done with a whole unit at once.
    let ours_may_hit = wants.conflicts.iter().any(|p| theirs.may_match(p));
    if !said_by_all && !said_by_some && !ours_may_hit {
        return None;
    }
    let names =
        if theirs.template { &*here.replicas } else { std::slice::from_ref(&theirs.unit.name) };
    names.iter().filter(|name| *name != instance).find(|name| {
        said_by_all
            || (ours_may_hit && hits(&wants.conflicts, name))
            || (said_by_some && hits(&theirs.unit.constraints.expanded(name).conflicts, instance))
    })
}

/// Whether the conflict with `other` stands for every instance of unit `number`: declared by
/// the unit itself, or by a pattern that matches all its instances. If not, it may be meant for
/// one name alone.
pub(in crate::plan) fn refuses_all(board: &Board, number: usize, other: &UnitName) -> bool {
    let unit = &board.units[number];
    let declared_here =
        unit.unit.constraints.conflicts.iter().any(|p| glob::matches(p, other.as_str()));
    let theirs = board.owner(other, 0).map(|(number, _)| &board.units[number]);
    declared_here
        || theirs.is_some_and(|theirs| {
            theirs.unit.constraints.conflicts.iter().any(|p| unit.all_match(p))
        })
}

fn hits(patterns: &[String], name: &UnitName) -> bool {
    patterns.iter().any(|pattern| glob::matches(pattern, name.as_str()))
}
