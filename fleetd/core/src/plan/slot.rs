//! One machine on the board: what is on it so far, and the changes to its document.

use std::cell::Cell;

use crate::glob;
use crate::model::{Availability, Machine, Off, Placement};
use crate::name::{MachineId, UnitName};

/// One machine.
pub(super) struct Slot<'a> {
    pub(super) id: &'a MachineId,
    pub(super) machine: &'a Machine,
    pub(super) availability: Availability,
    /// Its instances so far, kept and placed.
    pub(super) load: u32,
    /// What its document takes at most, counted by
    /// [`UnitSeat::entry_bytes`](super::seat::UnitSeat::entry_bytes) or, once that exceeded the
    /// budget, measured.
    pub(super) bytes: Cell<usize>,
    /// What it took when it was measured last; 0 if it never was. Since then all that its present
    /// document holds is in `bytes`.
    pub(super) measured: Cell<usize>,
    /// What is here, in the order of unit numbers; kept only if any unit asks.
    pub(super) here: Vec<Here>,
    /// No unit here has a higher number. Asked before the list itself, which lies elsewhere in
    /// memory.
    highest: usize,
    /// Which of those units declare conflicts, with their patterns if those are the same for all
    /// their instances.
    pub(super) declaring: Vec<(usize, Option<&'a [String]>)>,
    /// How the names begin that those patterns may match: see [`beginning`]. Asked before the
    /// patterns, each of which lies elsewhere, too.
    declared: u64,
    /// Changes to the document, `None` = removed. Applied at the end, in order.
    pub(super) edits: Vec<(UnitName, Option<Placement>)>,
    /// Changes to what was taken off and may be alive, `None` = it is not.
    pub(super) off: Vec<(UnitName, Option<Off>)>,
}

/// The instances of one unit on one machine.
pub(super) struct Here {
    pub(super) number: usize,
    /// The replicas, if the unit is a template; what is no template has one instance, of its own
    /// name.
    pub(super) replicas: Vec<UnitName>,
}

impl<'a> Slot<'a> {
    pub(super) fn new(
        id: &'a MachineId,
        machine: &'a Machine,
        availability: Availability,
    ) -> Slot<'a> {
        Slot {
            id,
            machine,
            availability,
            load: 0,
            bytes: Cell::new(0),
            measured: Cell::new(0),
            here: Vec::new(),
            highest: 0,
            declaring: Vec::new(),
            declared: 0,
            edits: Vec::new(),
            off: Vec::new(),
        }
    }

    /// Where the unit stands among what is here, or would. Units are most often taken in their
    /// order.
    pub(super) fn find(&self, number: usize) -> Result<usize, usize> {
        match self.here.len() {
            0 => Err(0),
            all if self.highest < number => Err(all),
            _ => self.here.binary_search_by_key(&number, |here| here.number),
        }
    }

    pub(super) fn of_unit(&self, number: usize) -> Option<&Here> {
        self.find(number).ok().map(|at| &self.here[at])
    }

    /// Adds a unit to what is here, where [`Slot::find`] says; with the conflicts that it declares,
    /// if it does.
    pub(super) fn add(&mut self, at: usize, number: usize, declares: Option<Option<&'a [String]>>) {
        self.here.insert(at, Here { number, replicas: Vec::new() });
        self.highest = self.highest.max(number);
        if let Some(said) = declares {
            self.declaring.push((number, said));
            let patterns = said.map(|patterns| {
                patterns.iter().map(|pattern| beginning(glob::literal_head(pattern)))
            });
            self.declared |=
                patterns.map_or(u64::MAX, |patterns| patterns.fold(0, |all, one| all | one));
        }
    }

    /// Whether what a unit here declares may be against this name. If not, it surely is not.
    pub(super) fn may_refuse(&self, name: &str) -> bool {
        self.declared & beginning(name) != 0
    }
}

/// The first letter as a bit, which it shares with few others; all bits where there is none.
fn beginning(text: &str) -> u64 {
    text.bytes().next().map_or(u64::MAX, |first| 1 << (first % 64))
}
