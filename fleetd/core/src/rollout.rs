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

use crate::event::{Item, Numbers, Reason, What, reason};
use crate::model::{Canary, DesiredState, FORMAT, Snapshot, Unit, Unknown};
use crate::name::{MachineId, UnitName};

mod course;
mod next;
mod tally;
#[cfg(test)]
mod tests;
mod wish;

pub use course::{Course, Kind, Pause};
pub use wish::Refused;

use tally::Tally;
pub(crate) use tally::{Standing, is_asked_all, standing};

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
    /// What is new, and what users wanted of it. Older leaders do not know it; see
    /// [`Rollout::course`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub course: Option<Course>,
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
    /// Nobody else gets it, and what runs it stays as it is: it failed, or a user has yet to say
    /// how it goes on.
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
    /// systemd's words for it. What a later version says of it must not make the document
    /// unreadable: without it, a text that is undone would be given to all again.
    #[serde(deserialize_with = "reason::read_known")]
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

    /// Whether it is of all that is asked of this unit: its text, restarts and configuration.
    pub fn is_of_all(&self, unit: &Unit) -> bool {
        let restart = self.course().map(|course| course.restart);
        self.is_of(unit)
            && self.text.revision == unit.revision
            && (restart, self.text.config) == (Some(unit.restart), unit.config)
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

    /// How it goes on, if the leader that wrote the document knew.
    pub fn course(&self) -> Option<&Course> {
        self.course.as_ref().filter(|course| course.is_of(&self.text))
    }

    /// What is new.
    pub fn kind(&self) -> Kind {
        self.course().map_or(Kind::Text, |course| course.kind)
    }

    /// Why it is paused, if nothing failed.
    pub fn pause(&self) -> Option<Pause> {
        self.course()?.pause
    }

    /// Whether it is paused until a user says how it goes on: few instances have the new text, a
    /// user paused it, or there is no text to go back to.
    pub fn waits_for_a_user(&self) -> bool {
        let is_held = self.pause().is_some() || self.kind() != Kind::Text;
        self.state == State::Paused && is_held
    }

    /// What an event tells of it when it has changed from `before`, if that is worth a word.
    pub fn told(&self, unit: &UnitName, before: Option<&Rollout>) -> Option<Item> {
        let was = before.filter(|before| before.text.hash == self.text.hash);
        let is_new = was.is_none_or(|was| was.state != self.state);
        let course = self.course();
        let asked = course.filter(|course| {
            course.wish > 0
                && was.and_then(Rollout::course).is_none_or(|was| was.wish != course.wish)
        });
        let by = || Reason::AskedFor { by: asked.map_or("", |course| &course.by).to_string() };
        let is_ready = course.is_some_and(|course| course.ready)
            && !was.and_then(Rollout::course).is_some_and(|was| was.ready);
        let (what, machine, reason) = match (self.state, &self.failure) {
            (State::Rolling, _) if asked.is_some() && is_new => (What::Resumed, None, by()),
            (State::Undone | State::Paused, _) if asked.is_some() && is_new => {
                let undone = self.state == State::Undone;
                (if undone { What::Undone } else { What::Paused }, None, by())
            }
            (State::Paused, None) if is_ready => (What::Paused, None, Reason::Canary),
            (State::Undone | State::Paused | State::Failed, Some(failure)) if is_new => {
                let what = match self.state {
                    State::Undone => What::Undone,
                    State::Paused => What::Paused,
                    _ => What::TextFailed,
                };
                (what, Some(failure.machine.clone()), failure.reason.clone())
            }
            _ => return None,
        };
        let units = BTreeMap::from([(unit.clone(), Numbers::default())]);
        Some(Item { what, machine, units, reason: Some(reason) })
    }

    pub(crate) fn new(unit: &Unit, state: State, since_ms: u64) -> Rollout {
        Rollout {
            v: FORMAT,
            state,
            text: text_of(unit),
            good: None,
            since_ms,
            failure: None,
            course: Some(Course::of(unit)),
            unknown: Unknown::new(),
        }
    }
}

/// The unit without what the user wants of it: that is in the record.
fn text_of(unit: &Unit) -> Box<Unit> {
    let wishes = (DesiredState::Inactive, None, 0, BTreeMap::new());
    let (desired, replicas, restart, restart_of) = wishes;
    Box::new(
        Unit { desired, replicas, restart, restart_of, trial: None, wish: None, ..unit.clone() }
            .with_gist(),
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
            rollout.is_of_all(unit)
                && rollout.open_wish(unit).is_none()
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
            tally::count_machine(asked, rollouts, &mut open, (id, assignment, report));
        }
    }
    for (name, tally) in open {
        let (unit, rollout) = (&asked.units[name], rollouts.get(name).map(|rollout| &**rollout));
        if let Some(late_ms) = tally.late_ms {
            advanced.wake_at_ms = Some(advanced.wake_at_ms.map_or(late_ms, |at| at.min(late_ms)));
        }
        if let Some(next) = next::next(unit, rollout, tally, asked.now_ms) {
            advanced.documents.insert(name.clone(), next);
        }
    }
    advanced
}

/// Puts the text that holds for each unit into what is planned.
pub fn put_in_force(snapshot: &mut Snapshot, rollouts: &Rollouts) {
    for (name, rollout) in rollouts {
        let Some(unit) = snapshot.units.get_mut(name).filter(|unit| rollout.is_of(unit)) else {
            continue;
        };
        let is_paused = rollout.state == State::Paused;
        let is_tried = match rollout.state {
            State::Done | State::Failed => false,
            State::Rolling => rollout.good.is_some(),
            State::Undone | State::Paused => true,
        };
        if rollout.kind() != Kind::Text {
            if is_paused {
                *unit = Arc::new(Unit { paused: true, ..(**unit).clone() }.with_gist());
            }
            continue;
        }
        if !is_tried {
            continue;
        }
        let text = rollout.in_force().unwrap_or(unit);
        // What is asked for is asked of the configuration that the unit's own text names.
        let same = text.constraints.config == unit.constraints.config;
        let most = unit.constraints.canary.as_ref();
        let most = most.filter(|_| is_paused && rollout.pause() == Some(Pause::Canary));
        let canary = most.zip(rollout.good.as_ref()).map(|(most, _)| {
            Box::new(Canary { unit: Unit { wish: None, ..(**unit).clone() }, most: most.clone() })
        });
        let held = Unit {
            name: unit.name.clone(),
            desired: unit.desired,
            replicas: unit.replicas,
            restart: unit.restart,
            restart_of: unit.restart_of.clone(),
            created_ms: unit.created_ms,
            config: if same { unit.config } else { text.config },
            trial: Some(unit.hash.clone()),
            paused: is_paused,
            canary,
            wish: None,
            ..text.clone()
        };
        *unit = Arc::new(held.with_gist());
    }
}
