//! Units: what they are, their states, texts and counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::model::Why;
use crate::name::UnitName;
use crate::unit::file::UnitOption;

/// A unit in `GET /units` and `GET /units/<name>`; also the body of `PUT /units/<name>`. Fields
/// below the line are ours.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Unit {
    /// What systemd was told so far: `inactive`, `loaded`, `launched`; empty for global units.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub current_state: String,
    /// What the user wants.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["inactive", "loaded", "launched"])))]
    pub desired_state: String,
    /// Where it was placed.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its options, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<UnitOption>,
    // ---- additions to fleet 1.0 ----
    /// The file as submitted, comments and all; on PUT it wins over `options`. In answers only for
    /// one unit, not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The wanted count of a scaled template. On PUT it sets the count, which stays as it is
    /// without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// SHA-1 of the normalised text, 40 hex digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Counts the unit's texts, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Set on a replica: the template that it follows from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// Why it was placed where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Whether it runs on every machine that fits: what its options say, also where a brief list
    /// leaves them out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub global: bool,
    /// How many instances of a scaled template or a global unit run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<u32>,
    /// How many of them should: the count, 0 while it is inactive; of a global unit the number of
    /// machines that it was put on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u32>,
}

impl Unit {
    /// All keys in it, those of its options too: fleet 1.0 took them in any case.
    pub const KEYS: &[&str] = &[
        "currentState",
        "desiredState",
        "machineID",
        "name",
        "options",
        "section",
        "value",
        "text",
        "replicas",
        "hash",
        "revision",
        "template",
        "why",
        "global",
        "running",
        "wanted",
    ];
}

/// `GET /units`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UnitPage {
    /// The token of the next page; empty on the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// The units, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
}

/// What systemd says of a unit on one machine, in `GET /state`. Fields below the line are ours.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UnitState {
    /// SHA-1 of the normalised text that it runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Where.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// The unit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `active`, `failed`…
    #[serde(skip_serializing_if = "String::is_empty")]
    pub systemd_active_state: String,
    /// `loaded`, `not-found`…
    #[serde(skip_serializing_if = "String::is_empty")]
    pub systemd_load_state: String,
    /// `running`, `dead`…
    #[serde(skip_serializing_if = "String::is_empty")]
    pub systemd_sub_state: String,
    // ---- additions to fleet 1.0 ----
    /// systemd's `Result` when it failed, `exit-code`, `oom-kill`…
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// The main process's exit status or signal, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Restarts since it last ran well, by the agent or systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// How it answers its health check; none if it has none or does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// When it is started again, in milliseconds since 1970, while it is down and waits for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_ms: Option<u64>,
    /// Since when it is in this active state, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Whether it stays failed, as its file says (`OnFailure.…=give-up`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stays_down: bool,
    /// What went wrong outside systemd's states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether it is a spare instance, beyond its template's count (`UpdateOrder=start-first`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
}

/// `GET /units/<name>/failures`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct FailurePage {
    /// The last failures, the newest first, also on machines that the instance has left.
    pub failures: Vec<UnitFailure>,
    /// How many failures of each kind are known: systemd's `Result`, or `other`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, u32>,
}

/// An instance failed on a machine, once or several times in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UnitFailure {
    /// The instance.
    pub name: String,
    /// Where.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// systemd's `Result`.
    pub result: String,
    /// The main process's exit status or signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// How often it was seen.
    pub count: u32,
    /// When it was seen last, in milliseconds since 1970.
    pub at_ms: u64,
    /// When it was seen first, in milliseconds since 1970.
    pub first_ms: u64,
}

/// `GET /state`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UnitStatePage {
    /// The token of the next page; empty on the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
    /// The states, by unit name, then machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<UnitState>,
}

/// A unit's texts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionPage {
    /// The texts that the unit has had since it was submitted, newest first. Of many, the newest
    /// are kept, and those that instances run or that an update may go back to.
    pub revisions: Vec<Revision>,
}

/// One text of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Revision {
    /// Its number; the first text has 1.
    pub revision: u64,
    /// The hash of its options, as lists show it.
    pub hash: String,
    /// Whether it is the present one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub current: bool,
    /// How many instances are assigned with this text.
    pub instances: u32,
    /// Who submitted it, as far as fleetd knows: `root@h1`, the name in a certificate, an address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When, in milliseconds since 1970; none if a version submitted it that did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// What is other in it than in the text before, which is kept: `ExecStart=, +Environment=; 3
    /// lines`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub change: String,
    /// The text. Lists leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A wish for an earlier text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Rollback {
    /// The number of the text; none for the last one that differs from the present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// A wish for a restart: `{}`, for there is nothing to say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Restart {}

/// A unit that has an earlier text again, as a new revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RolledBack {
    /// The unit.
    pub name: String,
    /// The revision before.
    pub from: u64,
    /// The revision whose text it has again.
    pub to: u64,
    /// The number that this text has now.
    pub revision: u64,
}

/// `PUT /units/<template>/replicas`: sets the wanted count, and launches the template if it was
/// inactive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scale {
    /// The count; with `relative`, what to add to it.
    pub replicas: i64,
    /// Whether `replicas` is added to the present count.
    #[serde(default)]
    pub relative: bool,
}

/// The answer to [`Scale`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Scaled {
    /// The template.
    pub name: UnitName,
    /// The count before.
    pub before: u32,
    /// The count now.
    pub replicas: u32,
}
