//! `MachineOf=`: all that it names run on the machine.

use super::super::board::Board;
use super::super::candidate::Candidate;
use super::super::misfit::Misfit;

#[inline]
pub(super) fn check(board: &Board, candidate: &Candidate, machine: u32) -> Option<Misfit> {
    // Said on the board itself, since the constraints of most units lie in no cache.
    if !board.units[candidate.number].follows {
        return None;
    }
    let absent = candidate.wants.machine_of.iter().find(|name| !board.is_on(name, machine))?;
    Some(Misfit::NotBeside { unit: absent.clone() })
}
