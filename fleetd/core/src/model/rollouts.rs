//! What users want of rollouts.

use serde::{Deserialize, Serialize};

use super::is_zero;

/// What a user wants of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RolloutAction {
    /// Nobody else is changed for now.
    Pause,
    /// It goes on, or is tried again.
    Resume,
    /// All instances get the last good text again.
    Undo,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

impl RolloutAction {
    /// The word, as the API and fleetctl use it.
    pub fn as_str(self) -> &'static str {
        match self {
            RolloutAction::Pause => "pause",
            RolloutAction::Resume => "resume",
            RolloutAction::Undo => "undo",
            RolloutAction::Other => "other",
        }
    }
}

/// A user's wish for a unit's rollout, in the unit's record. It is meant for what the user saw: a
/// newer text, restart or configuration makes it void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutWish {
    /// What is wanted.
    pub action: RolloutAction,
    /// Tells one wish from the next; the leader notes the last one that it has seen.
    pub id: u64,
    /// The number of the text.
    pub revision: u64,
    /// How often a restart of all instances had been asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restart: u64,
    /// The revision of the configuration that was asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub config: u64,
    /// Who asked for it, as far as fleetd knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}
