//! One unit on the board: its wanted instances as seats, and the names that follow from a
//! template's count.

use std::collections::BTreeSet;
use std::ops::{Bound, Deref};

use crate::gist::{Gist, Traits};
use crate::glob;
use crate::model::{Snapshot, Unit};
use crate::name::UnitName;
use crate::unit::labels::Fingerprint;

/// One unit. Where its instances are is known to the board: ten thousand of these are to be small,
/// and gone at once when planning is over.
pub(super) struct UnitSeat<'a> {
    pub(super) unit: &'a Unit,
    /// What planning asks of each unit again and again stands here: the unit itself lies elsewhere,
    /// and ten thousand of them in no cache.
    traits: Traits,
    /// Whether it is a scaled template, some of whose numbers have a record of their own: those
    /// win.
    pub(super) own_records: bool,
    /// The [`Fingerprint`] of the labels that it asks for.
    pub(super) labels: Option<Fingerprint>,
    /// Where a replica's number stands in its name; the whole length for units that are no
    /// templates.
    number_at: u32,
    /// The size of an entry without the instance's name, as JSON.
    entry_bytes: u32,
    /// How many instances are wanted.
    pub(super) seats: u32,
    /// How many seats after those are for spare instances.
    pub(super) spares: u32,
    /// Where they begin among the seats of all units.
    pub(super) first_seat: usize,
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
            spares: 0,
            first_seat,
        }
    }

    /// Makes room for spare instances: as many as are wanted ones, and as many numbers again that
    /// what is leaving may have, beside those that have a record of their own.
    pub(super) fn allow_spares(&mut self, own_records: usize) {
        if self.starts_first {
            self.spares = 2 * self.seats + own_records as u32;
        }
    }

    /// Whether the seat is one for spare instances.
    pub(super) fn is_spare(&self, seat: usize) -> bool {
        seat >= self.seats as usize && !self.global
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
    pub(super) fn split_name(&self) -> (&'a str, &'a str) {
        self.unit.name.as_str().split_at(self.number_at as usize)
    }

    /// The number of a replica of this template: the `3` of `web@3.service`.
    pub(super) fn number_of(&self, instance: &UnitName) -> Option<u32> {
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
