//! What users may want of a rollout, and why it is refused.

use std::fmt;

use super::course::{Kind, Pause};
use super::{Rollout, State};
use crate::model::{RolloutAction, RolloutWish, Unit};
use crate::name::UnitName;

/// Why a wish for a rollout is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is as wished.
    Already,
    /// All instances have what was new.
    Over,
    /// No text of the unit was good before this one.
    First,
    /// It failed, and all instances get it all the same.
    Everywhere,
    /// What is new is no text.
    NoText(Kind),
    /// A later version may know what is wanted.
    Unknown,
}

impl Refused {
    /// The sentence for a user.
    pub fn told(self, unit: &UnitName) -> String {
        match self {
            Refused::Already => format!("the rollout of {unit} is so already"),
            Refused::Over => format!(
                "nothing of {unit} is being rolled out: all its instances have its present text; \
                    to return to an earlier one, roll it back"
            ),
            Refused::First => format!(
                "the present text of {unit} is its first: there is no good one to go back to, and \
                    nothing to hold back"
            ),
            Refused::Everywhere => format!(
                "the text of {unit} failed, and all its instances get it all the same: there is \
                    nothing to resume"
            ),
            Refused::NoText(Kind::Config) => format!(
                "a new configuration of {unit} is being rolled out, and values are no text: roll \
                    back the configuration, or pause"
            ),
            Refused::NoText(_) => format!(
                "a restart of {unit} is being rolled out, and there is no other text to go back \
                    to; pause leaves the others as they are"
            ),
            Refused::Unknown => format!("what is wanted of {unit} is not known"),
        }
    }
}

impl Rollout {
    /// The state that it enters when a user wants this, or why it does not.
    pub fn after(&self, action: RolloutAction) -> Result<State, Refused> {
        match (action, self.state) {
            (RolloutAction::Other, _) => Err(Refused::Unknown),
            (RolloutAction::Undo, State::Undone)
            | (RolloutAction::Resume, State::Rolling)
            | (RolloutAction::Pause, State::Undone) => Err(Refused::Already),
            (_, State::Done) => Err(Refused::Over),
            (RolloutAction::Undo, _) if self.kind() != Kind::Text => {
                Err(Refused::NoText(self.kind()))
            }
            (RolloutAction::Undo, _) if self.good.is_some() => Ok(State::Undone),
            (RolloutAction::Undo, _) => Err(Refused::First),
            (RolloutAction::Resume, State::Paused | State::Undone) => Ok(State::Rolling),
            (RolloutAction::Resume, State::Failed) => Err(Refused::Everywhere),
            (RolloutAction::Pause, State::Paused) if self.pause() != Some(Pause::Canary) => {
                Err(Refused::Already)
            }
            (RolloutAction::Pause, _) if self.good.is_none() && self.kind() == Kind::Text => {
                Err(Refused::First)
            }
            (RolloutAction::Pause, _) => Ok(State::Paused),
        }
    }

    /// A user's wish that is meant for what is being rolled out now, and was not seen yet.
    pub(super) fn open_wish<'a>(&self, unit: &'a Unit) -> Option<&'a RolloutWish> {
        let seen = self.course().map_or(0, |course| course.wish);
        unit.wish.as_deref().filter(|wish| wish.is_of(unit) && wish.id != seen)
    }
}

impl RolloutWish {
    /// Whether it is meant for what the unit asks now.
    pub fn is_of(&self, unit: &Unit) -> bool {
        (self.revision, self.restart, self.config) == (unit.revision, unit.restart, unit.config)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Text => "text",
            Kind::Restart => "restart",
            Kind::Config => "config",
            Kind::Other => "other",
        })
    }
}
