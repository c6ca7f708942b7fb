//! One unit on the board: its wanted instances as seats, and the names that follow from a template's count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Bound;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::board::{NOWHERE, SETTLING};
use crate::glob;
use crate::model::{DesiredState, MAX_REPLICAS, Snapshot, Unit};
use crate::name::UnitName;

/// What one entry of an assignment takes as JSON at most, in a group and a row of its own, beside its name, its unit's name and a
/// follower's reason, in bytes: 90 of field names and punctuation, 32 of a machine's id as the reason, 12 of hash, 13 of time, and 13
/// for the digits of revision, moves and restarts. Counts of more digits than that eat from the budget's reserve; the store checks the
/// true size.
const ENTRY_BYTES: usize = 160;

/// One unit, and how far its wanted instances are placed.
pub(super) struct UnitSeat<'a> {
    pub(super) unit: &'a Arc<Unit>,
    // What planning asks of each unit stands here: the unit itself lies elsewhere in memory, and ten thousand of them in no cache.
    pub(super) specifiers: bool,
    /// Whether it names a machine (`MachineID=`).
    pub(super) pinned: bool,
    /// Whether it goes where others are (`MachineOf=`).
    pub(super) follows: bool,
    /// Whether it declares conflicts.
    pub(super) declares: bool,
    /// Whether it pushes others off (`Replaces=`).
    pub(super) replaces: bool,
    /// The labels that it asks for, as [`Labels::as_str`](crate::labels::Labels::as_str).
    pub(super) labels: &'a str,
    /// Whether it runs on every machine that fits. A template never does: its count says how many run.
    pub(super) global: bool,
    /// Numbers of a scaled template that have a record of their own, which wins.
    own_records: BTreeSet<u32>,
    /// By replica number less one, by machine number for a global unit, one entry for others: the machine it is on, or [`NOWHERE`].
    pub(super) placed: SmallVec<[u32; 1]>,
    /// Where a replica's number stands in its name; the whole length for units that are no templates.
    number_at: usize,
    /// The size of an entry without the instance's name, as JSON.
    entry_bytes: usize,
}

impl<'a> UnitSeat<'a> {
    pub(super) fn new(unit: &'a Arc<Unit>, snapshot: &Snapshot, machines: usize) -> UnitSeat<'a> {
        let template = unit.name.as_str().as_bytes().contains(&b'@') && unit.name.is_template();
        let global = unit.constraints.global && !template;
        let seats = match unit.desired {
            DesiredState::Inactive => 0,
            _ if global => machines,
            _ if template => unit.replicas.unwrap_or(0).min(MAX_REPLICAS) as usize,
            _ => 1,
        };
        let name = unit.name.as_str();
        let number_at = if template { name.len() - unit.name.suffix().len() - 1 } else { name.len() };
        // A backslash takes two bytes in JSON, in the unit's name, the instance's and those that a follower's reason may name.
        let escapes = if name.contains('\\') { name.bytes().filter(|b| *b == b'\\').count() } else { 0 };
        let beside = unit.constraints.machine_of.first().map_or(0, |peer| 2 * peer.len() + name.len());
        let fence = if unit.fence().is_some() { super::fencing::FENCE_BYTES } else { 0 };
        let entry_bytes = ENTRY_BYTES + fence + name.len() + 2 * escapes + beside;
        let specifiers = unit.constraints.has_specifiers();
        let placed = smallvec![NOWHERE; seats];
        let constraints = &unit.constraints;
        let mut seat = UnitSeat {
            unit,
            specifiers,
            pinned: constraints.machine_id.is_some(),
            follows: !constraints.machine_of.is_empty(),
            declares: !constraints.conflicts.is_empty(),
            replaces: !constraints.replaces.is_empty(),
            labels: constraints.metadata.as_str(),
            global,
            own_records: BTreeSet::new(),
            placed,
            number_at,
            entry_bytes,
        };
        if template && seats > 0 {
            let family = snapshot.units.range::<str, _>((Bound::Included(&name[..number_at]), Bound::Unbounded));
            let family = family.take_while(|(other, _)| other.as_str().starts_with(&name[..number_at]));
            seat.own_records = family.filter_map(|(other, _)| seat.number_of(other)).collect();
        }
        seat
    }

    /// The seat of a replica, if it is wanted and has no record of its own.
    pub(super) fn seat_of_replica(&self, instance: &UnitName) -> Option<usize> {
        let number = self.number_of(instance)?;
        let free = number as usize <= self.placed.len() && !self.own_records.contains(&number);
        free.then_some(number as usize - 1)
    }

    /// The number of a replica of this template: the `3` of `web@3.service`.
    fn number_of(&self, instance: &UnitName) -> Option<u32> {
        let (head, tail) = self.unit.name.as_str().split_at(self.number_at);
        let number = instance.as_str().strip_prefix(head)?.strip_suffix(tail)?;
        let canonical = !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
        if canonical { number.parse().ok() } else { None } // an empty number does not parse
    }

    /// The seats that nobody sits on, with the instance's name.
    pub(super) fn empty_seats(&self) -> impl Iterator<Item = (usize, UnitName)> + '_ {
        let mut text = String::new();
        (0..self.placed.len()).filter_map(move |seat| Some((seat, self.empty_seat(seat, &mut text)?)))
    }

    /// The name of the instance that `seat` waits for, if nobody sits there; `text` is room to write it in.
    pub(super) fn empty_seat(&self, seat: usize, text: &mut String) -> Option<UnitName> {
        if self.placed[seat] != NOWHERE || self.own_records.contains(&(seat as u32 + 1)) {
            return None;
        }
        let (head, tail) = self.unit.name.as_str().split_at(self.number_at);
        if tail.is_empty() {
            return Some(self.unit.name.clone());
        }
        text.clear();
        let _ = write!(text, "{head}{}{tail}", seat + 1);
        Some(UnitName::trusted(text.as_str()))
    }

    /// The seats whose instance is on a machine, with its name.
    pub(super) fn taken_seats(&self) -> impl Iterator<Item = (usize, UnitName)> + '_ {
        let (head, tail) = self.unit.name.as_str().split_at(self.number_at);
        let taken = self.placed.iter().enumerate().filter(|(_, machine)| **machine < SETTLING);
        taken.map(move |(seat, _)| match tail {
            "" => (seat, self.unit.name.clone()),
            tail => (seat, UnitName::trusted(format!("{head}{}{tail}", seat + 1))),
        })
    }

    /// How many instances are wanted of it; of a global unit, those that have a machine.
    pub(super) fn wanted(&self) -> usize {
        match self.global {
            true => self.placed.iter().filter(|machine| **machine < SETTLING).count(),
            false => self.placed.len() - self.own_records.range(1..=self.placed.len() as u32).count(),
        }
    }

    /// How many of its instances are on each machine.
    pub(super) fn siblings(&self) -> BTreeMap<u32, u32> {
        let mut siblings = BTreeMap::new();
        for &machine in self.placed.iter().filter(|&&machine| machine < SETTLING) {
            *siblings.entry(machine).or_default() += 1;
        }
        siblings
    }

    /// Whether `pattern` may match any of its instances, judged by how both begin.
    pub(super) fn may_match(&self, pattern: &str) -> bool {
        let (head, wanted) = (&self.unit.name.as_str()[..self.number_at], glob::literal_head(pattern));
        head.starts_with(wanted) || wanted.starts_with(head)
    }

    /// Whether `pattern` matches each of its instances, whatever its number.
    pub(super) fn all_match(&self, pattern: &str) -> bool {
        let (head, tail) = self.unit.name.as_str().split_at(self.number_at);
        if tail.is_empty() { glob::matches(pattern, head) } else { glob::matches_all(pattern, head, tail) }
    }

    /// What an instance's entry takes in its machine's document, in bytes.
    pub(super) fn entry_bytes(&self, instance: &UnitName) -> usize {
        self.entry_bytes + instance.as_str().len()
    }
}
