//! What a rollout's document says beside its text and its state: what is new, what users wanted of
//! it, and why it waits.

use serde::{Deserialize, Serialize};

use crate::model::{Unit, is_zero};
use crate::unit::file::ShortHash;

/// How a rollout goes on. It stands in the document beside what older leaders know, and is void
/// where one of those has written another text there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// The hash of the text that it is of.
    of: ShortHash,
    /// What is new.
    #[serde(default, skip_serializing_if = "Kind::is_text")]
    pub kind: Kind,
    /// How often a restart of all instances had been asked for.
    #[serde(default)]
    pub restart: u64,
    /// The last wish of a user's that it has taken in.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wish: u64,
    /// Who had that wish, if it led to the present state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Why it is paused though nothing failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Whether the canaries are healthy, so that it waits for a user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
    /// When a user resumed it, in milliseconds since 1970: what was changed before that has its
    /// whole time again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resumed_ms: u64,
}

/// What a rollout brings to the instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Another text.
    #[default]
    Text,
    /// A restart.
    Restart,
    /// Another revision of the configuration.
    Config,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

/// Why a rollout is paused though nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Pause {
    /// Few instances have the new text, as `Canary=` says.
    Canary,
    /// A user said so.
    User,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

impl Kind {
    fn is_text(&self) -> bool {
        *self == Kind::Text
    }
}

impl Course {
    /// The course of a unit's present text, of which nothing else is known.
    pub(super) fn of(unit: &Unit) -> Course {
        Course {
            of: unit.hash.clone(),
            kind: Kind::Text,
            restart: unit.restart,
            wish: 0,
            by: String::new(),
            pause: None,
            ready: false,
            resumed_ms: 0,
        }
    }

    /// Whether it is of that text.
    pub(super) fn is_of(&self, text: &Unit) -> bool {
        self.of == text.hash
    }

    /// Forgets why it waited.
    pub(super) fn go_on(&mut self) {
        (self.pause, self.ready, self.by) = (None, false, String::new());
    }
}
