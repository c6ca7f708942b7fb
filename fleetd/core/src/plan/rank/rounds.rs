//! The fast way to spread one unit over machines, round by round.

use super::super::board::Board;
use super::super::candidate::Candidate;
use super::super::fit;
use super::Siblings;
use super::classes::Class;
use super::loads::{Loads, Machines, Start};

/// The rounds of spreading one unit: in round `level`, machines that hold more than `level`
/// siblings wait aside.
pub(in crate::plan) struct Rounds {
    siblings: Siblings,
    level: u32,
    /// The machines that are left for this round, and those that wait for a later one. What speaks
    /// against the whole unit is in neither: nothing that its placing does will change that.
    open: Machines,
    aside: Machines,
    /// Where `open` begins.
    start: Start,
}

impl Rounds {
    pub(in crate::plan) fn new(
        board: &Board,
        loads: &Loads,
        class: &mut Class,
        number: usize,
    ) -> Rounds {
        // Only to bring the class's start up to date: or many small templates would each begin at
        // its beginning.
        loads.lowest(&class.machines, &mut class.start, |_| true);
        let (siblings, aside) = (board.siblings(number), Machines::none_of(board.slots.len()));
        let mut round =
            Rounds { siblings, level: 0, open: class.machines.clone(), aside, start: class.start };
        for &machine in round.siblings.keys().filter(|machine| class.machines.contains(**machine)) {
            round.open.remove(machine);
            round.aside.insert(machine);
        }
        round
    }

    fn let_in(&mut self, board: &Board, machine: u32) {
        self.open.insert(machine);
        self.start = self.start.min(Start::at(board.slots[machine as usize].load));
    }

    /// The next machine for `instance`, which then waits aside; or whether no machine will take any
    /// further instance of this unit.
    pub(in crate::plan) fn next(
        &mut self,
        board: &Board,
        loads: &Loads,
        candidate: &Candidate,
    ) -> Result<u32, bool> {
        let mut refused = Vec::new();
        // A machine refused for this instance's own name may take the next one, so it comes back
        // after this search.
        let mut refused_once = Vec::new();
        let found = loop {
            let found = loads.lowest(&self.open, &mut self.start, |machine| {
                let Some(misfit) = fit::crowded(board, candidate, machine) else { return true };
                if !fit::is_of_all(board, candidate.number, &misfit) {
                    refused_once.push(machine);
                }
                refused.push(machine);
                false
            });
            refused.drain(..).chain(found).for_each(|machine| self.open.remove(machine));
            if let Some(machine) = found {
                self.aside.insert(machine);
                *self.siblings.entry(machine).or_default() += 1;
                break Ok(machine);
            }
            if !self.advance(board) {
                break Err(refused_once.is_empty());
            }
        };
        let on = |machine: &u32| self.siblings.get(machine).copied().unwrap_or(0);
        if let Some(fewest) = refused_once.iter().map(on).min() {
            self.go_back(fewest);
        }
        for machine in refused_once {
            match self.siblings.get(&machine) {
                Some(siblings) if *siblings > self.level => self.aside.insert(machine),
                _ => self.let_in(board, machine),
            }
        }
        found
    }

    /// Returns to an earlier round: a machine that holds fewer siblings was refused for one name
    /// only, and comes before all that hold more.
    fn go_back(&mut self, level: u32) {
        if level >= self.level {
            return;
        }
        self.level = level;
        let later = self.siblings.iter().filter(|(_, siblings)| **siblings > level);
        let open: Vec<u32> =
            later.map(|(machine, _)| *machine).filter(|m| self.open.contains(*m)).collect();
        for machine in open {
            self.open.remove(machine);
            self.aside.insert(machine);
        }
    }

    /// Begins the next round, with those machines that wait aside and hold the fewest siblings;
    /// false if none waits.
    fn advance(&mut self, board: &Board) -> bool {
        // All that wait aside hold siblings, and a map is gone through faster than it is asked for
        // each.
        let waiting = || self.siblings.iter().filter(|(machine, _)| self.aside.contains(**machine));
        let Some(fewest) = waiting().map(|(_, siblings)| *siblings).min() else { return false };
        let next: Vec<u32> = waiting()
            .filter(|(_, siblings)| **siblings == fewest)
            .map(|(machine, _)| *machine)
            .collect();
        self.level = fewest;
        for machine in next {
            self.aside.remove(machine);
            self.let_in(board, machine);
        }
        true
    }
}
