//! One unit on the board: its wanted instances as seats, and the names that follow from a
//! template's count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::{Bound, Deref};

use super::board::{Board, NOWHERE, SETTLING};
use crate::gist::{Gist, Traits};
use crate::glob;
use crate::labels::Fingerprint;
use crate::model::{Snapshot, Unit};
use crate::name::UnitName;

/// One unit. Where its instances are stands in [`Board::placed`]: ten thousand seats are to be
/// small, and gone at once when planning is over.
pub(super) struct UnitSeat<'a> {
    pub(super) unit: &'a Unit,
    /// What planning asks of each unit again and again stands here: the unit itself lies elsewhere,
    /// and ten thousand of them in no cache.
    traits: Traits,
    /// Whether it is a scaled template, some of whose numbers have a record of their own: those
    /// win.
    own_records: bool,
    /// The labels that it asks for, as [`Labels::fingerprint`](crate::labels::Labels::fingerprint).
    pub(super) labels: Option<Fingerprint>,
    /// Where a replica's number stands in its name; the whole length for units that are no
    /// templates.
    number_at: u32,
    /// The size of an entry without the instance's name, as JSON.
    entry_bytes: u32,
    /// How many instances are wanted.
    pub(super) seats: u32,
    /// Where in [`Board::placed`] they begin.
    first_seat: usize,
}

impl Deref for UnitSeat<'_> {
    type Target = Traits;

    fn deref(&self) -> &Traits {
        &self.traits
    }
}

impl<'a> UnitSeat<'a> {
    pub(super) fn new(unit: &'a Unit, machines: usize, first_seat: usize) -> UnitSeat<'a> {
        let gist = &unit.gist;
        debug_assert_eq!(*gist, Gist::of(unit), "nobody changes a unit that was read");
        UnitSeat {
            unit,
            traits: gist.traits,
            own_records: false,
            labels: gist.labels,
            number_at: gist.number_at,
            entry_bytes: gist.entry_bytes,
            seats: if gist.traits.global { gist.wanted * machines as u32 } else { gist.wanted },
            first_seat,
        }
    }

    /// The replicas that have a record of their own, if any has.
    pub(super) fn find_own_records(&mut self, snapshot: &Snapshot) -> Option<BTreeSet<u32>> {
        if !self.template || self.seats == 0 {
            return None;
        }
        let (head, _) = self.split_name();
        let family = snapshot.units.range::<str, _>((Bound::Included(head), Bound::Unbounded));
        let family = family.take_while(|(other, _)| other.as_str().starts_with(head));
        let found: BTreeSet<u32> = family.filter_map(|(other, _)| self.number_of(other)).collect();
        self.own_records = !found.is_empty();
        self.own_records.then_some(found)
    }

    /// Its name before and after a replica's number; nothing stands after it where there are no
    /// replicas.
    fn split_name(&self) -> (&'a str, &'a str) {
        self.unit.name.as_str().split_at(self.number_at as usize)
    }

    /// The number of a replica of this template: the `3` of `web@3.service`.
    fn number_of(&self, instance: &UnitName) -> Option<u32> {
        let (head, tail) = self.split_name();
        let number = instance.as_str().strip_prefix(head)?.strip_suffix(tail)?;
        let canonical = !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
        if canonical { number.parse().ok() } else { None } // an empty number does not parse
    }

    /// Whether `pattern` may match any of its instances, judged by how both begin.
    pub(super) fn may_match(&self, pattern: &str) -> bool {
        let (head, wanted) = (self.split_name().0, glob::literal_head(pattern));
        head.starts_with(wanted) || wanted.starts_with(head)
    }

    /// Whether `pattern` matches each of its instances, whatever its number.
    pub(super) fn all_match(&self, pattern: &str) -> bool {
        let (head, tail) = self.split_name();
        if tail.is_empty() {
            glob::matches(pattern, head)
        } else {
            glob::matches_all(pattern, head, tail)
        }
    }

    /// What an instance's entry takes in its machine's document, in bytes.
    pub(super) fn entry_bytes(&self, instance: &UnitName) -> usize {
        self.entry_bytes as usize + instance.as_str().len()
    }
}

/// How far the wanted instances of each unit are placed.
impl Board<'_> {
    /// Where the unit's instances are, or [`NOWHERE`]: by replica number less one, by machine
    /// number for a global unit, one entry for others.
    pub(super) fn placed(&self, number: usize) -> &[u32] {
        let unit = &self.units[number];
        &self.placed[unit.first_seat..][..unit.seats as usize]
    }

    /// The place of one of the unit's instances, to be changed.
    pub(super) fn place_of(&mut self, number: usize, seat: usize) -> &mut u32 {
        let unit = &self.units[number];
        &mut self.placed[unit.first_seat..][..unit.seats as usize][seat]
    }

    /// Whether the replica has a record of its own, so that the template's count does not stand for
    /// it.
    fn has_own_record(&self, number: usize, replica: u32) -> bool {
        self.units[number].own_records
            && self.own_records.get(&number).is_some_and(|replicas| replicas.contains(&replica))
    }

    /// The seat of a replica, if it is wanted and has no record of its own.
    pub(super) fn seat_of_replica(&self, number: usize, instance: &UnitName) -> Option<usize> {
        let unit = &self.units[number];
        let replica = unit.number_of(instance)?;
        let free = replica <= unit.seats && !self.has_own_record(number, replica);
        free.then_some(replica as usize - 1)
    }

    /// The seats that nobody sits on, with the instance's name.
    pub(super) fn empty_seats(
        &self,
        number: usize,
    ) -> impl Iterator<Item = (usize, UnitName)> + '_ {
        let mut text = String::new();
        let seats = self.units[number].seats as usize;
        (0..seats).filter_map(move |seat| Some((seat, self.empty_seat(number, seat, &mut text)?)))
    }

    /// The name of the instance that `seat` waits for, if nobody sits there; `text` is room to
    /// write it in.
    pub(super) fn empty_seat(
        &self,
        number: usize,
        seat: usize,
        text: &mut String,
    ) -> Option<UnitName> {
        if self.placed(number)[seat] != NOWHERE || self.has_own_record(number, seat as u32 + 1) {
            return None;
        }
        let unit = &self.units[number];
        if !unit.template {
            return Some(unit.unit.name.clone());
        }
        let (head, tail) = unit.split_name();
        text.clear();
        // Each part that the formatter is given costs as much as the whole name.
        text.push_str(head);
        let _ = write!(text, "{}", seat + 1);
        text.push_str(tail);
        Some(UnitName::trusted(text.as_str()))
    }

    /// The seats whose instance is on a machine, with its name.
    pub(super) fn taken_seats(
        &self,
        number: usize,
    ) -> impl Iterator<Item = (usize, UnitName)> + '_ {
        let unit = &self.units[number];
        let (head, tail) = unit.split_name();
        let taken =
            self.placed(number).iter().enumerate().filter(|(_, machine)| **machine < SETTLING);
        taken.map(move |(seat, _)| match tail {
            "" => (seat, unit.unit.name.clone()),
            tail => (seat, UnitName::trusted(format!("{head}{}{tail}", seat + 1))),
        })
    }

    /// How many instances are wanted of the unit; of a global unit, those that have a machine, be
    /// it one that gets time to return.
    pub(super) fn wanted(&self, number: usize) -> usize {
        let seats = self.units[number].seats;
        match self.units[number].global {
            true => {
                let settling = self
                    .snapshot
                    .settling
                    .iter()
                    .filter_map(|id| self.snapshot.assignments.get(id));
                let absent = settling
                    .filter(|assignment| {
                        assignment.instances.contains_key(&self.units[number].unit.name)
                    })
                    .count();
                self.placed(number).iter().filter(|machine| **machine < SETTLING).count() + absent
            }
            false if seats == 0 => 0,
            false => {
                seats as usize
                    - self.own_records.get(&number).map_or(0, |own| own.range(1..=seats).count())
            }
        }
    }

    /// How many of the unit's instances are on each machine.
    pub(super) fn siblings(&self, number: usize) -> BTreeMap<u32, u32> {
        let mut siblings = BTreeMap::new();
        for &machine in self.placed(number).iter().filter(|&&machine| machine < SETTLING) {
            *siblings.entry(machine).or_default() += 1;
        }
        siblings
    }
}
