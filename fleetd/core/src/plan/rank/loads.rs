//! Sets of machines as bits, and the machines by load: so the least loaded machine of any set is
//! found in a few words of memory.

/// A set of machines, by number.
#[derive(Clone, Default)]
pub(in crate::plan) struct Machines {
    words: Vec<u64>,
}

impl Machines {
    /// The empty set, with room for so many machines.
    pub(in crate::plan) fn none_of(machines: usize) -> Machines {
        Machines { words: vec![0; machines.div_ceil(64)] }
    }

    pub(in crate::plan) fn insert(&mut self, machine: u32) {
        self.words[machine as usize / 64] |= 1 << (machine % 64);
    }

    pub(in crate::plan) fn remove(&mut self, machine: u32) {
        self.words[machine as usize / 64] &= !(1 << (machine % 64));
    }

    pub(in crate::plan) fn contains(&self, machine: u32) -> bool {
        self.words[machine as usize / 64] >> (machine % 64) & 1 == 1
    }

    /// Leaves only what is in `other`, too.
    pub(in crate::plan) fn retain(&mut self, other: &Machines) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    pub(in crate::plan) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().zip(0..).flat_map(|(word, at)| bits(*word).map(move |bit| 64 * at + bit))
    }
}

fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros());
        word &= word.wrapping_sub(1);
        bit
    })
}

/// The machines by load: how many instances they hold. While instances are placed, loads only grow.
pub(in crate::plan) struct Loads {
    machines: usize,
    /// By load. Where no machine ever was, a set has no room for any.
    levels: Vec<Machines>,
}

impl Loads {
    /// `loads` are those of all machines, by number.
    pub(in crate::plan) fn new(loads: impl ExactSizeIterator<Item = u32>) -> Loads {
        let mut all = Loads { machines: loads.len(), levels: Vec::new() };
        for (load, machine) in loads.zip(0..) {
            all.level(load).insert(machine);
        }
        all
    }

    /// Notes that a machine with this load gets one more instance.
    pub(in crate::plan) fn grow(&mut self, machine: u32, load: u32) {
        self.levels[load as usize].remove(machine);
        self.level(load + 1).insert(machine);
    }

    fn level(&mut self, load: u32) -> &mut Machines {
        let load = load as usize;
        if load >= self.levels.len() {
            self.levels.resize_with(load + 1, Machines::default);
        }
        if self.levels[load].words.is_empty() {
            self.levels[load] = Machines::none_of(self.machines);
        }
        &mut self.levels[load]
    }

    /// The machine with the lowest load, of several that with the lowest number, among those of a
    /// set that `takes` says yes to. Nothing of the set comes before `start`, which is brought up
    /// to date: so a set is gone through once, not once for each instance.
    pub(in crate::plan) fn lowest(
        &self,
        among: &Machines,
        start: &mut Start,
        mut takes: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let (mut first, mut seen) = (start.word, false);
        for (level, load) in self.levels[start.load..].iter().zip(start.load..) {
            for (at, (word, other)) in level.words.iter().zip(&among.words).enumerate().skip(first)
            {
                let mut both = word & other;
                if both != 0 && !seen {
                    (*start, seen) = (Start { load, word: at }, true);
                }
                while both != 0 {
                    let machine = 64 * at as u32 + both.trailing_zeros();
                    if takes(machine) {
                        return Some(machine);
                    }
                    both &= both - 1;
                }
            }
            first = 0;
        }
        if !seen {
            *start = Start { load: self.levels.len(), word: 0 };
        }
        None
    }
}

/// Where the search for a set's least loaded machine begins.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::plan) struct Start {
    load: usize,
    word: usize,
}

impl Start {
    /// Before all machines with this load.
    pub(in crate::plan) fn at(load: u32) -> Start {
        Start { load: load as usize, word: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_loaded_machine_comes_first_and_one_that_was_refused_is_asked_again() {
        let mut loads = Loads::new(
            (0..100u32).map(|machine| [2, 0, 1, 0].get(machine as usize).copied().unwrap_or(1)),
        );
        let mut all = Machines::none_of(100);
        (0..100).filter(|machine| *machine != 3).for_each(|machine| all.insert(machine));
        assert_eq!(all.iter().take(4).collect::<Vec<_>>(), [0, 1, 2, 4]);
        let mut start = Start::default();
        let mut next = |loads: &Loads, refused: &[u32]| {
            loads.lowest(&all, &mut start, |machine| !refused.contains(&machine))
        };
        assert_eq!(next(&loads, &[]), Some(1));
        assert_eq!(next(&loads, &[1]), Some(2));
        loads.grow(1, 0);
        assert_eq!(next(&loads, &[1, 2]), Some(4));
        (1..99).filter(|machine| *machine != 3).for_each(|machine| loads.grow(machine, 1));
        assert_eq!(next(&loads, &[99]), Some(0));
        assert_eq!(next(&loads, &[]), Some(99));
        assert_eq!(next(&loads, &(0..100).collect::<Vec<_>>()), None);
        assert_eq!(next(&loads, &[]), Some(99));
        loads.grow(99, 1);
        assert_eq!(next(&loads, &[]), Some(0));
    }

    #[test]
    fn of_an_empty_set_nothing_is_found() {
        let loads = Loads::new([0, 3].into_iter());
        let (none, mut start) = (Machines::none_of(2), Start::default());
        assert_eq!(loads.lowest(&none, &mut start, |_| true), None);
        assert_eq!(loads.lowest(&none, &mut start, |_| true), None);
    }
}
