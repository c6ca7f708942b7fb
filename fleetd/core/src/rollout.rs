//! Rollouts: a new text reaches a unit's instances a few at a time, and is undone if it fails.
//!
//! The leader keeps one document a unit beside the unit's record, whose text stays the user's. The
//! document holds what planning needs of the text that is being tried and of the last good one.
//! [`advance`] says how the documents change, and the leader writes them before any instance is
//! changed by them. So a leader may be lost at any step: its successor reads where the rollout is.
//! [`put_in_force`] puts the text that holds into what is planned; the planner knows nothing else
//! of rollouts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Item, Numbers, Reason, What};
use crate::model::{
    Assignment, DesiredState, FORMAT, InstanceStatus, Placement, Report, Snapshot, Unit, Unknown,
};
use crate::name::{MachineId, UnitName};
use crate::unit::update::{self, OnUpdateFailure};

#[cfg(test)]
mod tests;

/// The documents, by unit.
pub type Rollouts = BTreeMap<UnitName, Arc<Rollout>>;

/// `rollouts/<unit>`: how far a unit's text is, and what it goes back to. Written by the leader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The format, [`FORMAT`].
    pub v: u32,
    /// How it is.
    pub state: State,
    /// The unit's text, without what the user wants of it.
    pub text: Box<Unit>,
    /// The last good text, if it is another: all get it again when this one fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<Box<Unit>>,
    /// When it entered this state, in milliseconds since 1970.
    pub since_ms: u64,
    /// What failed, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// How a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The text is being tried.
    Rolling,
    /// All instances were healthy with it.
    Done,
    /// It failed, and all get the last good text.
    Undone,
    /// It failed, nobody else gets it, and what runs it stays as it is.
    Paused,
    /// It failed and is used all the same: there is nothing to go back to, or the unit says
    /// `OnUpdateFailure=continue`.
    Failed,
}

/// Why a text counts as failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Failure {
    /// The instance that failed first.
    pub instance: UnitName,
    /// Where.
    pub machine: MachineId,
    /// How long it had to become healthy, in milliseconds, if it took longer; none if it was
    /// restarted in vain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// systemd's words for it.
    pub reason: Reason,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { instance, machine, deadline_ms, reason } = self;
        let machine = machine.short();
        match deadline_ms {
            Some(ms) => {
                write!(f, "{instance} on machine {machine} was not healthy within {} s", ms / 1000)
            }
            None => write!(f, "{instance} failed on machine {machine}: {reason}"),
        }
    }
}

impl Rollout {
    /// Whether it is of this unit's present text.
    pub fn is_of(&self, unit: &Unit) -> bool {
        self.continues(unit) && self.text.hash == unit.hash
    }

    /// Whether it is of this unit, be it of an earlier text: not of another one that had its name
    /// before, nor of a later state of it than the one that was restored.
    fn continues(&self, unit: &Unit) -> bool {
        self.text.created_ms == unit.created_ms && self.text.revision <= unit.revision
    }

    /// The text that holds in place of the unit's own.
    pub fn in_force(&self) -> Option<&Unit> {
        let goes_back = matches!(self.state, State::Undone | State::Paused);
        self.good.as_deref().filter(|_| goes_back)
    }

    /// What an event tells of it when it has entered its state, if that is worth a word.
    pub fn told(&self, unit: &UnitName) -> Option<Item> {
        let what = match self.state {
            State::Rolling | State::Done => return None,
            State::Undone => What::Undone,
            State::Paused => What::Paused,
            State::Failed => What::TextFailed,
        };
        let failure = self.failure.as_ref()?;
        let units = BTreeMap::from([(unit.clone(), Numbers::default())]);
        let (machine, reason) = (Some(failure.machine.clone()), Some(failure.reason.clone()));
        Some(Item { what, machine, units, reason })
    }

    fn new(unit: &Unit, state: State, since_ms: u64) -> Rollout {
        Rollout {
            v: FORMAT,
            state,
            text: text_of(unit),
            good: None,
            since_ms,
            failure: None,
            unknown: Unknown::new(),
        }
    }
}

/// The unit without what the user wants of it: that is in the record.
fn text_of(unit: &Unit) -> Box<Unit> {
    let wishes = (DesiredState::Inactive, None, 0, BTreeMap::new());
    let (desired, replicas, restart, restart_of) = wishes;
    Box::new(
        Unit { desired, replicas, restart, restart_of, trial: None, ..unit.clone() }.with_gist(),
    )
}

/// How the documents change.
#[derive(Debug, Default, PartialEq)]
pub struct Advanced {
    /// The next version of each that changes; `None` removes it.
    pub documents: BTreeMap<UnitName, Option<Rollout>>,
    /// When an instance has been unhealthy for too long, in milliseconds since 1970.
    pub wake_at_ms: Option<u64>,
}

/// How a unit's instances are with its text.
#[derive(Debug, Default)]
struct Tally {
    /// They are healthy.
    healthy: usize,
    /// They are not, or it is not known, or they run another text.
    open: usize,
    /// Healthy instances of the text that the document has.
    healthy_before: usize,
    /// The first that failed.
    failure: Option<Failure>,
    /// When the first of the others is late.
    late_ms: Option<u64>,
}

/// How the documents change by what the machines report. What is here is what was asked for:
/// without [`put_in_force`].
pub fn advance(asked: &Snapshot, rollouts: &Rollouts) -> Advanced {
    let mut advanced = Advanced::default();
    let gone = rollouts.keys().filter(|name| {
        asked.units.get(*name).is_none_or(|unit| unit.on_update_failure().is_none())
    });
    advanced.documents.extend(gone.map(|name| (name.clone(), None)));
    let mut open: BTreeMap<&UnitName, Tally> = BTreeMap::new();
    for (name, unit) in asked.units.iter().filter(|(_, unit)| unit.on_update_failure().is_some()) {
        let rollout = rollouts.get(name);
        let rests = |rollout: &Arc<Rollout>| {
            rollout.is_of(unit)
                && rollout.text.revision == unit.revision
                && matches!(rollout.state, State::Done | State::Undone)
        };
        if !rollout.is_some_and(rests) {
            open.insert(name, Tally::default());
        }
    }
    if open.is_empty() {
        return advanced;
    }
    for (id, assignment) in &asked.assignments {
        // What a machine that is not there runs says nothing of a text.
        if asked.machines.contains_key(id) {
            let report = asked.reports.get(id).map(|report| &**report);
            count_machine(asked, rollouts, &mut open, (id, assignment, report));
        }
    }
    for (name, tally) in open {
        let (unit, rollout) = (&asked.units[name], rollouts.get(name).map(|rollout| &**rollout));
        if let Some(late_ms) = tally.late_ms {
            advanced.wake_at_ms = Some(advanced.wake_at_ms.map_or(late_ms, |at| at.min(late_ms)));
        }
        if let Some(next) = next(unit, rollout, tally, asked.now_ms) {
            advanced.documents.insert(name.clone(), next);
        }
    }
    advanced
}

fn count_machine(
    asked: &Snapshot,
    rollouts: &Rollouts,
    open: &mut BTreeMap<&UnitName, Tally>,
    (id, assignment, report): (&MachineId, &Assignment, Option<&Report>),
) {
    let known = report.is_some_and(|report| report.generation >= assignment.generation);
    for (instance, placement) in &assignment.instances {
        let Some(tally) = open.get_mut(&placement.unit) else { continue };
        if placement.state != DesiredState::Launched {
            continue;
        }
        let unit = &asked.units[&placement.unit];
        let status = report.filter(|_| known).and_then(|report| report.instances.get(instance));
        let standing = status.map_or(Standing::Unknown, |status| standing(placement, status));
        if placement.hash != unit.hash {
            tally.open += 1;
            let before = rollouts.get(&placement.unit).map(|rollout| &rollout.text.hash);
            let healthy = standing == Standing::Healthy && before == Some(&placement.hash);
            tally.healthy_before += usize::from(healthy);
            continue;
        }
        if standing == Standing::Healthy {
            tally.healthy += 1;
            continue;
        }
        tally.open += 1;
        let named = unit.constraints.healthy_deadline_ms.filter(|ms| *ms != u64::MAX);
        let deadline_ms = named.unwrap_or(update::HEALTHY_DEADLINE_MS);
        let late_ms = placement.since_ms.max(placement.changed_ms).saturating_add(deadline_ms);
        let late = asked.now_ms >= late_ms;
        let Some(status) = status.filter(|_| tally.failure.is_none()) else { continue };
        let failed = |deadline_ms| Failure {
            instance: instance.clone(),
            machine: id.clone(),
            deadline_ms,
            reason: Reason::failed(status),
        };
        match standing {
            Standing::Failed => tally.failure = Some(failed(None)),
            Standing::Open if late => tally.failure = Some(failed(Some(deadline_ms))),
            Standing::Open => {
                tally.late_ms = Some(tally.late_ms.map_or(late_ms, |at| at.min(late_ms)));
            }
            Standing::Healthy | Standing::Unknown => {}
        }
    }
}

/// How an instance is with the text that it was assigned.
#[derive(Debug, PartialEq)]
enum Standing {
    Healthy,
    /// Restarted in vain.
    Failed,
    /// It has yet to show.
    Open,
    /// Its machine has not said.
    Unknown,
}

fn standing(placement: &Placement, status: &InstanceStatus) -> Standing {
    if status.gave_up {
        return Standing::Failed;
    }
    // Its machine knows the text and has not started it: its image may not be there.
    if status.hash != placement.hash {
        return Standing::Open;
    }
    let as_decided = status.launched
        && !status.settling
        && status.is_well()
        && (placement.restart == 0 || status.restart == placement.restart);
    // What ended well, and is to be started again by its own file, waits for that.
    let pauses = status.sub == "auto-restart" && status.restarts == 0;
    if as_decided && (status.is_active() || status.ended || pauses) {
        Standing::Healthy
    } else {
        Standing::Open
    }
}

/// The unit's next document, `Some(None)` for none any more, `None` if it stays as it is.
fn next(
    unit: &Unit,
    rollout: Option<&Rollout>,
    tally: Tally,
    now_ms: u64,
) -> Option<Option<Rollout>> {
    let all_healthy = tally.healthy > 0 && tally.open == 0;
    let Some(rollout) = rollout.filter(|rollout| rollout.continues(unit)) else {
        // Its first text: what is known of it stands there as soon as it is worth going back to.
        let first = |state| Rollout::new(unit, state, now_ms);
        return match tally.failure {
            _ if all_healthy => Some(Some(first(State::Done))),
            Some(failure) => Some(Some(Rollout { failure: Some(failure), ..first(State::Failed) })),
            None if tally.healthy > 0 => Some(Some(first(State::Rolling))),
            None => rollout.map(|_| None),
        };
    };
    if rollout.text.hash != unit.hash {
        let was_good = rollout.state == State::Done;
        // A first text that had yet to show is better than none.
        let is_best = rollout.good.is_none() && tally.healthy_before > 0;
        let good = match was_good || is_best {
            true => Some(rollout.text.clone()),
            false => rollout.good.clone(),
        };
        let good = good.filter(|good| good.hash != unit.hash);
        return Some(Some(Rollout {
            good,
            unknown: rollout.unknown.clone(),
            ..Rollout::new(unit, State::Rolling, now_ms)
        }));
    }
    let mut next = rollout.clone();
    if rollout.text.revision != unit.revision {
        next.text = text_of(unit); // the same text again
    }
    let enter = |next: &mut Rollout, state| (next.state, next.since_ms) = (state, now_ms);
    match (rollout.state, tally.failure) {
        (State::Rolling | State::Paused | State::Failed, _) if all_healthy => {
            enter(&mut next, State::Done);
            (next.good, next.failure) = (None, None);
        }
        (State::Rolling, Some(failure)) => {
            let state = match unit.on_update_failure() {
                Some(OnUpdateFailure::Rollback) if next.good.is_some() => State::Undone,
                Some(OnUpdateFailure::Pause) if next.good.is_some() => State::Paused,
                _ => State::Failed,
            };
            enter(&mut next, state);
            next.failure = Some(failure);
        }
        _ => {}
    }
    (next != *rollout).then_some(Some(next))
}

/// Puts the text that holds for each unit into what is planned.
pub fn put_in_force(snapshot: &mut Snapshot, rollouts: &Rollouts) {
    for (name, rollout) in rollouts {
        let Some(unit) = snapshot.units.get_mut(name).filter(|unit| rollout.is_of(unit)) else {
            continue;
        };
        let is_tried = match rollout.state {
            State::Done | State::Failed => false,
            State::Rolling => rollout.good.is_some(),
            State::Undone | State::Paused => true,
        };
        if !is_tried {
            continue;
        }
        let text = rollout.in_force().unwrap_or(unit);
        // What is asked for is asked of the configuration that the unit's own text names.
        let same = text.constraints.config == unit.constraints.config;
        let held = Unit {
            name: unit.name.clone(),
            desired: unit.desired,
            replicas: unit.replicas,
            restart: unit.restart,
            restart_of: unit.restart_of.clone(),
            created_ms: unit.created_ms,
            config: if same { unit.config } else { text.config },
            trial: Some(unit.hash.clone()),
            paused: rollout.state == State::Paused,
            ..text.clone()
        };
        *unit = Arc::new(held.with_gist());
    }
}
