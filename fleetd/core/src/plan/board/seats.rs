//! How far the wanted instances of each unit are placed: the board's facts by unit and seat.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Board, NOWHERE, SETTLING};
use crate::name::UnitName;

impl Board<'_> {
    /// Where the unit's instances are, or [`NOWHERE`]: by replica number less one, by machine
    /// number for a global unit, one entry for others; without spare instances.
    pub(in crate::plan) fn placed(&self, number: usize) -> &[u32] {
        let unit = &self.units[number];
        &self.placed[unit.first_seat..][..unit.seats as usize]
    }

    /// The same with spare instances, which come last.
    fn all_placed(&self, number: usize) -> &[u32] {
        let unit = &self.units[number];
        &self.placed[unit.first_seat..][..(unit.seats + unit.spares) as usize]
    }

    /// Where one of the unit's instances is, or [`NOWHERE`].
    pub(in crate::plan) fn at(&self, number: usize, seat: usize) -> u32 {
        self.all_placed(number)[seat]
    }

    /// The place of one of the unit's instances, to be changed.
    pub(super) fn place_of(&mut self, number: usize, seat: usize) -> &mut u32 {
        let unit = &self.units[number];
        &mut self.placed[unit.first_seat..][..(unit.seats + unit.spares) as usize][seat]
    }

    /// Whether the replica has a record of its own, so that the template's count does not stand for
    /// it.
    fn has_own_record(&self, number: usize, replica: u32) -> bool {
        self.units[number].own_records
            && self.own_records.get(&number).is_some_and(|replicas| replicas.contains(&replica))
    }

    /// The seat of a replica, if it is wanted, or may be a spare, and has no record of its own.
    pub(in crate::plan) fn seat_of_replica(
        &self,
        number: usize,
        instance: &UnitName,
    ) -> Option<usize> {
        let unit = &self.units[number];
        let replica = unit.number_of(instance)?;
        let free = replica <= unit.seats + unit.spares && !self.has_own_record(number, replica);
        free.then_some(replica as usize - 1)
    }

    /// The seats of wanted instances that nobody sits on, with the instance's name.
    pub(in crate::plan) fn empty_seats(
        &self,
        number: usize,
    ) -> impl Iterator<Item = (usize, UnitName)> + '_ {
        let mut text = String::new();
        let seats = self.units[number].seats as usize;
        (0..seats).filter_map(move |seat| Some((seat, self.empty_seat(number, seat, &mut text)?)))
    }

    /// The seats for spare instances that nobody sits on, with the instance's name.
    pub(in crate::plan) fn empty_spares(
        &self,
        number: usize,
    ) -> impl Iterator<Item = (usize, UnitName)> + '_ {
        let mut text = String::new();
        let unit = &self.units[number];
        let seats = unit.seats as usize..(unit.seats + unit.spares) as usize;
        seats.filter_map(move |seat| Some((seat, self.empty_seat(number, seat, &mut text)?)))
    }

    /// The name of the instance that `seat` waits for, if nobody sits there; `text` is room to
    /// write it in.
    pub(in crate::plan) fn empty_seat(
        &self,
        number: usize,
        seat: usize,
        text: &mut String,
    ) -> Option<UnitName> {
        if self.at(number, seat) != NOWHERE || self.has_own_record(number, seat as u32 + 1) {
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

    /// The seats whose instance is on a machine, with its name; spare ones last.
    pub(in crate::plan) fn taken_seats(
        &self,
        number: usize,
    ) -> impl Iterator<Item = (usize, UnitName)> + '_ {
        let unit = &self.units[number];
        let (head, tail) = unit.split_name();
        let taken =
            self.all_placed(number).iter().enumerate().filter(|(_, machine)| **machine < SETTLING);
        taken.map(move |(seat, _)| match tail {
            "" => (seat, unit.unit.name.clone()),
            tail => (seat, UnitName::trusted(format!("{head}{}{tail}", seat + 1))),
        })
    }

    /// The seats whose spare instance is on a machine, with its name; most units have none.
    pub(in crate::plan) fn taken_spares(&self, number: usize) -> Vec<(usize, UnitName)> {
        let unit = &self.units[number];
        let spares = &self.all_placed(number)[unit.seats as usize..];
        match spares.iter().any(|machine| *machine < SETTLING) {
            true => self.taken_seats(number).filter(|(seat, _)| unit.is_spare(*seat)).collect(),
            false => Vec::new(),
        }
    }

    /// How many instances are wanted of the unit; of a global unit, those that have a machine, be
    /// it one that gets time to return.
    pub(in crate::plan) fn wanted(&self, number: usize) -> usize {
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
    pub(in crate::plan) fn siblings(&self, number: usize) -> BTreeMap<u32, u32> {
        let mut siblings = BTreeMap::new();
        for &machine in self.all_placed(number).iter().filter(|&&machine| machine < SETTLING) {
            *siblings.entry(machine).or_default() += 1;
        }
        siblings
    }
}
