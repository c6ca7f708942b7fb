//! The pen: every placement, removal and note of a plan is written here, on the board and in the
//! answer at once. Passes decide; nothing here does.

use std::collections::{BTreeMap, BTreeSet};

use super::answer::{
    Answered, Change, Held, Immovable, Needing, Plan, Retired, Rolling, Unplaced, Until,
};
use super::board::{Board, NOWHERE};
use super::budget::{self, Deferred};
use super::fit::Reasons;
use super::misfit::Misfit;
use super::missing::Missing;
use super::pending::{Displaced, Pending};
use super::{document, fencing};
use crate::model::{Assignment, Off, Placement, Unit, Why, Wish};
use crate::name::{MachineId, UnitName};

/// The board, and what is written so far.
pub(super) struct Pen<'a> {
    board: Board<'a>,
    plan: Plan,
    /// Changes of text and restarts that wait until all else is decided.
    deferred: Vec<Deferred<'a>>,
    /// What was placed by this plan while changes wait, by unit and seat: it starts as its unit is
    /// now.
    fresh: BTreeSet<(usize, usize)>,
    /// What waits for its unit's budget, by unit and seat, with its machine.
    waiting: Waiting,
    /// Why no machine runs a spare instance of a unit, by unit.
    no_spare: BTreeMap<usize, BTreeSet<Misfit>>,
}

/// Seats that wait, by unit and seat, with the machine that they are on.
pub(super) type Waiting = BTreeMap<(usize, usize), u32>;

impl<'a> Pen<'a> {
    pub(super) fn new(board: Board<'a>) -> Pen<'a> {
        Pen {
            board,
            plan: Plan::default(),
            deferred: Vec::new(),
            fresh: BTreeSet::new(),
            waiting: BTreeMap::new(),
            no_spare: BTreeMap::new(),
        }
    }

    /// Who is where so far.
    pub(super) fn board(&self) -> &Board<'a> {
        &self.board
    }

    /// Makes room for so many placements at once.
    pub(super) fn expect(&mut self, missing: usize) {
        self.plan.changes.reserve(missing);
        self.board.expect(missing);
    }

    /// Lets an instance stay on its machine: that changes nothing in the machine's document.
    pub(super) fn keep(&mut self, number: usize, seat: usize, instance: &UnitName, machine: u32) {
        self.board.take(number, seat, instance, machine);
    }

    /// Takes an instance up to decide on it again; what its machine's document says of it stays.
    pub(super) fn release(&mut self, number: usize, seat: usize, instance: &UnitName) {
        self.board.release(number, seat, instance);
    }

    /// Puts an instance on a machine and writes it down.
    pub(super) fn place(
        &mut self,
        number: usize,
        seat: usize,
        instance: UnitName,
        machine: u32,
        why: Why,
        moves: u32,
    ) {
        let slot = &self.board.slots[machine as usize];
        if slot.measured.get() > 0 {
            slot.bytes.set(slot.bytes.get() + self.board.units[number].entry_bytes(&instance));
        }
        self.board.take(number, seat, &instance, machine);
        if !self.deferred.is_empty() {
            self.fresh.insert((number, seat));
        }
        // A spare that moves is a spare still.
        let why = if self.board.units[number].is_spare(seat) { Why::Spare } else { why };
        let seat = &self.board.units[number];
        let unit = seat.unit;
        let terms = if seat.fenced { unit.fence() } else { None };
        let placement = Placement {
            unit: unit.name.clone(),
            revision: unit.revision,
            hash: unit.hash.clone(),
            state: unit.desired,
            why: why.clone(),
            since_ms: self.board.snapshot.now_ms,
            changed_ms: 0,
            moves,
            restart: if seat.restarts { unit.restarts_asked(&instance) } else { 0 },
            config: unit.config,
            fence: terms
                .map(|terms| fencing::fenced(terms, &instance, self.board.snapshot.revision)),
        };
        let slot = &mut self.board.slots[machine as usize];
        if placement.fence.is_some() {
            self.plan.fenced.insert(slot.id.clone());
        }
        self.plan.changes.push(Change::Place {
            instance: instance.clone(),
            machine: slot.id.clone(),
            why,
        });
        slot.edits.push((instance, Some(placement)));
    }

    /// Takes an instance off a machine that can be planned on, and writes it down. A fenced one is
    /// then placed nowhere in this plan.
    pub(super) fn retire(&mut self, instance: &UnitName, machine: u32, why: Retired) {
        self.take_off(instance, machine, &why);
        let slot = &mut self.board.slots[machine as usize];
        self.plan.changes.push(Change::Retire {
            instance: instance.clone(),
            machine: slot.id.clone(),
            why,
        });
        slot.edits.push((instance.clone(), None));
    }

    /// Takes an instance off a machine that no longer fits, and leaves it to be placed elsewhere.
    pub(super) fn displace(
        &mut self,
        pending: &mut Pending,
        instance: &UnitName,
        machine: u32,
        placement: &Placement,
        misfit: Misfit,
    ) {
        let why = Why::Unfit(self.board.slots[machine as usize].id.clone());
        self.retire(instance, machine, Retired::Unfit(misfit));
        pending.displaced.insert(instance.clone(), Displaced { why, moves: placement.moves });
    }

    /// Takes an instance off its machine because `by` replaces it: undoes its placing by this very
    /// plan, else retires it. Answers with why it goes elsewhere, and how often it was moved
    /// because it failed.
    pub(super) fn push_off(
        &mut self,
        number: usize,
        seat: usize,
        instance: &UnitName,
        by: UnitName,
    ) -> (Why, u32) {
        let machine = self.board.at(number, seat);
        self.board.release(number, seat, instance);
        self.fresh.remove(&(number, seat));
        let slot = &mut self.board.slots[machine as usize];
        if let Some(at) =
            slot.edits.iter().rposition(|(name, placement)| name == instance && placement.is_some())
        {
            slot.edits.remove(at);
            let here = |change: &Change| match change {
                Change::Place { instance: name, machine, .. }
                | Change::Update { instance: name, machine } => {
                    name == instance && machine == slot.id
                }
                Change::Retire { .. } => false,
            };
            if let Some(at) = self.plan.changes.iter().rposition(here)
                && let Change::Place { why, .. } = self.plan.changes.remove(at)
            {
                return (why, 0);
            }
        }
        let placement = self
            .board
            .snapshot
            .assignments
            .get(slot.id)
            .and_then(|assignment| assignment.instances.get(instance));
        let moves = placement.map_or(0, |placement| placement.moves);
        let why = Why::Replaced(slot.id.clone());
        self.retire(instance, machine, Retired::Replaced(by));
        (why, moves)
    }

    /// Takes an instance off a machine that is gone.
    pub(super) fn lose(&mut self, instance: &UnitName, id: &MachineId, why: Retired) {
        self.plan.changes.push(Change::Retire {
            instance: instance.clone(),
            machine: id.clone(),
            why,
        });
    }

    /// Writes the next document of a machine that is gone.
    pub(super) fn document(&mut self, id: &MachineId, document: Assignment) {
        self.plan.documents.insert(id.clone(), document);
    }

    /// Notes that a fenced instance is taken off a machine that is there, and keeps it from being
    /// placed.
    fn take_off(&mut self, instance: &UnitName, machine: u32, why: &Retired) {
        let id: &'a MachineId = self.board.slots[machine as usize].id;
        let Some(assignment) = self.board.snapshot.assignments.get(id) else { return };
        let Some((placement, fence)) = assignment
            .instances
            .get(instance)
            .and_then(|p| Some((p, p.fence.as_deref().cloned()?)))
        else {
            return;
        };
        let (why, moves) = match why {
            Retired::Failed => (Some(Why::Failed(id.clone())), placement.moves.saturating_add(1)),
            Retired::Replaced(_) => (Some(Why::Replaced(id.clone())), placement.moves),
            Retired::Unfit(_) => (Some(Why::Unfit(id.clone())), placement.moves),
            Retired::Drained => (Some(Why::Drained(id.clone())), placement.moves),
            Retired::Moved => (Some(Why::Moved(id.clone())), placement.moves),
            Retired::Lost | Retired::Left | Retired::Unwanted | Retired::Twice => (None, 0),
        };
        self.note_off(
            instance,
            machine,
            Some(Off { generation: assignment.generation.saturating_add(1), fence, why, moves }),
        );
        self.wait(id, instance, Until::Report);
    }

    /// Notes in a machine's document that a fenced instance may be alive there, or, with `None`,
    /// that it surely is not.
    pub(super) fn note_off(&mut self, instance: &UnitName, machine: u32, off: Option<Off>) {
        self.board.slots[machine as usize].off.push((instance.clone(), off));
    }

    /// Notes that the machine's keeper must be away, in this life of its, when the plan is written.
    pub(super) fn guard(&mut self, id: &MachineId, life: i64) {
        self.plan.guards.insert(id.clone(), life);
    }

    /// Keeps a fenced instance from being placed, and says so if anybody wants it.
    pub(super) fn wait(&mut self, id: &MachineId, instance: &UnitName, until: Until) {
        self.board.block(instance);
        if self.board.owner(instance, NOWHERE).is_some() {
            self.plan.held.push(Held { instance: instance.clone(), machine: id.clone(), until });
        }
    }

    /// Keeps an instance from being placed: a copy of it may be alive somewhere.
    pub(super) fn block(&mut self, instance: &UnitName) {
        self.board.block(instance);
    }

    /// Keeps an instance from being placed until the other unit is healthy, and says so.
    pub(super) fn hold_for(
        &mut self,
        number: usize,
        seat: usize,
        instance: UnitName,
        needs: UnitName,
    ) {
        self.board.keep_off(number, seat);
        let unit = &self.board.units[number].unit.name;
        match self.plan.needing.last_mut() {
            Some(last) if last.unit == *unit && last.needs == needs => {
                // A global unit waits on each machine under the same name.
                if last.instances.last() != Some(&instance) {
                    last.instances.push(instance);
                }
            }
            _ => {
                let (unit, instances) = (unit.clone(), vec![instance]);
                self.plan.needing.push(Needing { unit, instances, needs });
            }
        }
    }

    /// Brings the document's entry of an instance that stays up to date with its unit; at the end
    /// of the plan, if that takes it down and its unit has a budget for that.
    pub(super) fn refresh(
        &mut self,
        number: usize,
        seat: usize,
        instance: &UnitName,
        machine: u32,
        old: &'a Placement,
    ) {
        let unit = &self.board.units[number];
        if unit.tried && budget::is_held(unit.unit, old) {
            return self.count_spare(unit.unit, instance, machine, old);
        }
        if unit.budgeted && budget::defers(unit.unit, instance, old) {
            self.deferred.push(Deferred { number, seat, machine, instance: instance.clone(), old });
        } else {
            self.bring_up_to_date(number, instance, machine, old);
        }
    }

    /// Notes of a spare that stays as it is that it is an ordinary instance by now, if so.
    fn count_spare(&mut self, unit: &Unit, instance: &UnitName, machine: u32, old: &Placement) {
        if is_scaled_up(unit, instance, old) {
            let (placement, name) =
                (Placement { why: Why::Fewest, ..old.clone() }, instance.clone());
            let slot = &mut self.board.slots[machine as usize];
            self.plan
                .changes
                .push(Change::Update { instance: name.clone(), machine: slot.id.clone() });
            slot.edits.push((name, Some(placement)));
        }
    }

    /// See [`Pen::refresh`].
    pub(super) fn bring_up_to_date(
        &mut self,
        number: usize,
        instance: &UnitName,
        machine: u32,
        old: &Placement,
    ) {
        let unit = self.board.units[number].unit;
        self.bring_to(unit, instance, machine, old);
    }

    /// Gives an instance that stays where it is what `unit` asks for: its unit as it is planned, or
    /// with the text that its canaries get.
    pub(super) fn bring_to(
        &mut self,
        unit: &Unit,
        instance: &UnitName,
        machine: u32,
        old: &Placement,
    ) {
        let terms = if unit.gist.traits.fenced { unit.fence() } else { None };
        let restart = if unit.gist.traits.restarts { unit.restarts_asked(instance) } else { 0 };
        let fence = terms.map(|terms| {
            fencing::refreshed(terms, instance, self.board.snapshot.revision, old.fence.as_deref())
        });
        let same = old.revision == unit.revision
            && old.hash == unit.hash
            && old.state == unit.desired
            && old.restart == restart
            && old.config == unit.config
            && old.fence == fence
            && old.unit == unit.name;
        let counts = is_scaled_up(unit, instance, old);
        if same && !counts {
            return;
        }
        let placement = Placement {
            unit: unit.name.clone(),
            revision: unit.revision,
            hash: unit.hash.clone(),
            state: unit.desired,
            restart,
            config: unit.config,
            fence,
            changed_ms: match (&old.hash, old.restart, old.config)
                == (&unit.hash, restart, unit.config)
            {
                true => old.changed_ms,
                false => self.board.snapshot.now_ms,
            },
            // How often another text failed says nothing of this one.
            moves: if old.hash == unit.hash { old.moves } else { 0 },
            why: if counts { Why::Fewest } else { old.why.clone() },
            ..old.clone()
        };
        let slot = &mut self.board.slots[machine as usize];
        self.plan
            .changes
            .push(Change::Update { instance: instance.clone(), machine: slot.id.clone() });
        slot.edits.push((instance.clone(), Some(placement)));
    }

    /// Notes an instance that would be taken down if its unit's budget were not spent.
    pub(super) fn waits_for_budget(&mut self, number: usize, seat: usize) {
        let machine = self.board.at(number, seat);
        self.waiting.insert((number, seat), machine);
    }

    /// Whether it was noted as waiting for its unit's budget.
    pub(super) fn is_waiting(&self, number: usize, seat: usize) -> bool {
        self.waiting.contains_key(&(number, seat))
    }

    /// Whether changes of the unit's instances wait until all else is decided.
    pub(super) fn defers(&self, number: usize) -> bool {
        self.deferred.iter().any(|change| change.number == number)
    }

    /// What is noted to be decided at the end.
    pub(super) fn deferred(&self) -> &[Deferred<'a>] {
        &self.deferred
    }

    /// Notes why a unit gets no spare instance.
    pub(super) fn no_spare(&mut self, number: usize, reasons: Reasons) {
        self.no_spare.insert(number, reasons.into_keys().collect());
    }

    /// What was noted so.
    pub(super) fn take_no_spare(&mut self) -> BTreeMap<usize, BTreeSet<Misfit>> {
        std::mem::take(&mut self.no_spare)
    }

    /// What was noted to be decided at the end.
    pub(super) fn take_deferred(&mut self) -> Vec<Deferred<'a>> {
        std::mem::take(&mut self.deferred)
    }

    /// Whether it was placed by this plan.
    pub(super) fn is_fresh(&self, number: usize, seat: usize) -> bool {
        self.fresh.contains(&(number, seat))
    }

    /// What was noted as waiting for a budget.
    pub(super) fn take_waiting(&mut self) -> Waiting {
        std::mem::take(&mut self.waiting)
    }

    /// Says that a unit's budget is spent.
    pub(super) fn rolling(&mut self, rolling: Rolling) {
        self.plan.rolling.push(rolling);
    }

    /// Says what became of a wish for a move.
    pub(super) fn answer(&mut self, instance: &UnitName, wish: &Wish, refused: Option<Immovable>) {
        let answered = Answered { wish: wish.revision, to: wish.to.clone(), refused };
        self.plan.answered.insert(instance.clone(), answered);
    }

    /// Says that so many machines are missing that their instances are moved slowly.
    pub(super) fn slowed(&mut self, slowed: Missing) {
        self.plan.slowed = Some(slowed);
    }

    /// Notes a time at which a pause ends.
    pub(super) fn wake_at(&mut self, at_ms: u64) {
        self.plan.wake_at_ms =
            Some(self.plan.wake_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }

    /// Says that instances fit nowhere, and why: each reason with the number of machines that it
    /// holds for.
    pub(super) fn unplaced(
        &mut self,
        number: usize,
        instances: Vec<UnitName>,
        reasons: BTreeMap<Misfit, usize>,
    ) {
        let mut misfits: Vec<(Misfit, usize)> = reasons.into_iter().collect();
        misfits.sort_by_key(|(_, machines)| std::cmp::Reverse(*machines));
        let unit = self.board.units[number].unit.name.clone();
        self.plan.unplaced.push(Unplaced { unit, instances, misfits });
    }

    /// Takes back what was said to fit nowhere: there is more room now.
    pub(super) fn forget_unplaced(&mut self) {
        self.plan.unplaced.clear();
    }

    /// Applies the edits to the documents.
    pub(super) fn into_plan(self) -> Plan {
        let Pen { board: Board { snapshot, slots, .. }, mut plan, .. } = self;
        let changed =
            slots.into_iter().filter(|slot| !slot.edits.is_empty() || !slot.off.is_empty());
        // In the order of ids, so that the map is built at once.
        let mut documents: BTreeMap<MachineId, Assignment> = changed
            .map(|slot| {
                let old = snapshot.assignments.get(slot.id);
                let mut next = document::edited(old.map(|old| &**old), slot.edits);
                next.generation = next.generation.saturating_add(1);
                next.lost_ms = None;
                for (instance, off) in slot.off {
                    match off {
                        Some(off) => next.off.insert(instance, off),
                        None => next.off.remove(&instance),
                    };
                }
                (slot.id.clone(), next)
            })
            .collect();
        plan.documents.append(&mut documents);
        plan
    }
}

/// Whether a user scaled the unit beyond the number of a spare.
fn is_scaled_up(unit: &Unit, instance: &UnitName, old: &Placement) -> bool {
    old.is_spare() && instance.replica_number().is_some_and(|number| number <= unit.gist.wanted)
}
