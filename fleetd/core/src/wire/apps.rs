//! Applications: what `fleetctl plan` and `apply` send, and what comes back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::app::{AppName, Checksum, FileEntry};
use crate::name::{MachineId, UnitName};

/// The body of `POST /apps/<name>`: all that the application is to consist of. With `dryRun=true`
/// nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppFiles {
    /// The unit files and Quadlet files of all kinds, by name.
    #[serde(default)]
    pub units: BTreeMap<String, String>,
    /// The other files, by their paths in the folder. Their content is sent before, each by
    /// `PUT /apps/<name>/blobs/<sum>`; a dry run does not need it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileEntry>,
}

/// The answer to `POST /apps/<name>`: what it changes, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AppPlan {
    /// Whether it was done. All of it was then, else nothing.
    pub applied: bool,
    /// The application's revision that this was planned on, or, when it was applied, the new one;
    /// 0 for one that is not there.
    pub revision: u64,
    /// The state of the units that this was planned on: what `ifUnits` takes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub basis: String,
    /// Whether anything changes.
    pub changes: bool,
    /// The units, by name, also those that stay as they are.
    pub units: Vec<UnitPlan>,
    /// The files that change, by path.
    pub files: Vec<FilePlan>,
    /// The contents that the cluster lacks; a real apply is refused until they are sent.
    pub missing: BTreeSet<Checksum>,
    /// What the user should know, as `web.container: line 3: …`.
    pub warnings: Vec<String>,
}

/// What happens to one unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UnitPlan {
    /// Its name.
    pub name: String,
    /// `create`, `change`, `remove`, `keep`; `stray` for what an earlier apply brought, the files
    /// no longer have, and stays because pruning was not asked for.
    pub kind: String,
    /// What changes beside the text: `2 → 3 replicas`, `inactive → launched`, `files: nginx.conf`;
    /// for `keep` what differs and stays: `5 replicas, set by hand; Replicas=3`.
    pub details: Vec<String>,
    /// The text that the cluster has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_text: Option<String>,
    /// The text that it gets, if that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_text: Option<String>,
    /// How many running instances restart.
    pub restarts: usize,
    /// How many of its instances are down at most at any time because of the change.
    pub down_at_most: usize,
    /// Instances that get a machine, with its id.
    pub starts: Vec<InstanceOn>,
    /// Instances that leave a machine.
    pub stops: Vec<InstanceOn>,
    /// Instances that no machine takes, each with the reasons.
    pub unplaced: Vec<Unplaced>,
}

/// An instance and a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InstanceOn {
    /// The instance.
    pub instance: UnitName,
    /// The machine.
    pub machine: MachineId,
}

/// Instances that fit nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Unplaced {
    /// The instances.
    pub instances: Vec<UnitName>,
    /// Why, each with the number of machines: `3 × lacks the metadata disk=ssd`.
    pub reasons: Vec<String>,
}

/// What happens to one file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct FilePlan {
    /// Its path in the folder.
    pub path: String,
    /// `create`, `change`, `remove`.
    pub kind: String,
    /// The units whose instances get it.
    pub units: Vec<String>,
}

/// `GET /apps`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AppPage {
    /// The applications, by name.
    pub apps: Vec<App>,
}

/// One application, and `GET /apps/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Its name.
    pub name: AppName,
    /// Counts the applies that changed anything.
    pub revision: u64,
    /// When it was applied last, in milliseconds since 1970.
    pub applied_ms: u64,
    /// How many instances are wanted.
    pub wanted: usize,
    /// How many of them run as they should.
    pub running: usize,
    /// Its units.
    pub units: Vec<UnitName>,
    /// Instances of its templates that have records of their own, because somebody stopped one by
    /// hand, say. They are destroyed with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<UnitName>,
    /// Its other files, by path.
    #[serde(default)]
    pub files: BTreeMap<String, FileEntry>,
}

/// The answer to `DELETE /apps/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AppRemoved {
    /// The units that are gone.
    pub units: Vec<UnitName>,
    /// Those whose data stays on the machines: `.volume` files.
    pub volumes: Vec<UnitName>,
}

/// The body of `POST /quadlets/check`: Quadlet files that come together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct QuadletCheck {
    /// Their texts, by name.
    pub quadlets: BTreeMap<String, String>,
    /// The paths of the other files that come along.
    pub paths: Vec<String>,
}

/// The answer to `POST /quadlets/check`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct QuadletsChecked {
    /// The files of which the machine's podman makes no services.
    pub refused: BTreeMap<UnitName, QuadletRefusal>,
    /// Those whose kind it does not know.
    pub unknown: BTreeSet<UnitName>,
}

/// Why podman refuses a Quadlet file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct QuadletRefusal {
    /// The line of the option that it does not take, if it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Its words.
    pub problem: String,
}
