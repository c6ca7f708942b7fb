//! Where each document lies. Nothing outside the store knows a key.

use fleet_core::app::{AppName, Checksum};
use fleet_core::name::{MachineId, UnitName};

/// What the key of a text's origin ends with, behind the text's own.
pub(super) const ORIGIN: &str = ".by";

/// The keys under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    root: String,
    texts: String,
    stage: String,
    events: String,
    blobs: String,
    staged_count: String,
    config_revisions: String,
    config_users: String,
}

/// A part of what is under the root, for those who need no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The units' records.
    Units,
    /// The machines, what was set for them, who left, who leads, and what the leader says.
    Machines,
    /// What each machine should run.
    Assignments,
    /// What each machine observed.
    Reports,
    /// The applications.
    Apps,
    /// The configurations.
    Configurations,
}

/// A key, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Unit(UnitName),
    App(AppName),
    Settings(MachineId),
    Config(AppName),
    Machine(MachineId),
    Assignment(MachineId),
    Report(MachineId),
    Left(MachineId),
    Rival(MachineId),
    Keeper(MachineId),
    Fence(MachineId),
    FencedCommits,
    Leader,
    Outlook,
    Move(UnitName),
    Rollout(UnitName),
    Reboots,
    /// By its id.
    Act(String),
    Import,
    /// A document of ours under a name that is none, or an id that is none: nobody reads it.
    Misnamed(&'static str, String),
}

impl Keys {
    /// `prefix` is `/fleet/` or what the configuration says; a missing slash at either end is
    /// added.
    pub(super) fn new(prefix: &str) -> Keys {
        let name = prefix.trim_matches('/');
        // Texts and what an import stages lie beside the root, not under it: whoever reads or
        // watches everything has no use for them. Events too: the leader's watch need not bring its
        // own words back to it.
        Keys {
            root: format!("/{name}/"),
            texts: format!("/{name}.revisions/"),
            stage: format!("/{name}.import"),
            events: format!("/{name}.events/"),
            blobs: format!("/{name}.blobs/"),
            staged_count: format!("/{name}.staged"),
            config_revisions: format!("/{name}.config/"),
            config_users: format!("/{name}.config-users/"),
        }
    }

    pub(super) fn root(&self) -> &str {
        &self.root
    }

    pub(super) fn unit(&self, name: &UnitName) -> String {
        format!("{}units/{name}", self.root)
    }

    pub(super) fn app(&self, name: &AppName) -> String {
        format!("{}apps/{name}", self.root)
    }

    pub(super) fn text(&self, name: &UnitName, revision: u64) -> String {
        // Zero-padded, so that a range lists them in order.
        format!("{}{revision:010}", self.texts_of(name))
    }

    /// Who gave the unit that text, and when. A version that does not know of it reads texts under
    /// numbers alone.
    pub(super) fn text_origin(&self, name: &UnitName, revision: u64) -> String {
        format!("{}{ORIGIN}", self.text(name, revision))
    }

    pub(super) fn texts_of(&self, name: &UnitName) -> String {
        format!("{}{name}/", self.texts)
    }

    /// The prefix of all texts.
    pub(super) fn texts(&self) -> &str {
        &self.texts
    }

    /// The prefix of all events.
    pub(super) fn events(&self) -> &str {
        &self.events
    }

    pub(super) fn event(&self, id: &str) -> String {
        format!("{}{id}", self.events)
    }

    /// The prefix of all that comes with applications.
    pub(super) fn blobs(&self) -> &str {
        &self.blobs
    }

    /// Where what comes with an application's units is kept, by checksum.
    pub(super) fn blobs_of(&self, app: &AppName) -> String {
        format!("{}{app}/", self.blobs)
    }

    pub(super) fn blob(&self, app: &AppName, sum: &Checksum) -> String {
        format!("{}{sum}", self.blobs_of(app))
    }

    /// How much was sent for applications that no apply has named yet.
    pub(super) fn staged_count(&self) -> String {
        self.staged_count.clone()
    }

    pub(super) fn config(&self, name: &AppName) -> String {
        format!("{}config/{name}", self.root)
    }

    pub(super) fn config_revision(&self, name: &AppName, revision: u64) -> String {
        // Zero-padded, so that a range lists them in order.
        format!("{}{revision:010}", self.config_revisions_of(name))
    }

    pub(super) fn config_revisions_of(&self, name: &AppName) -> String {
        format!("{}{name}/", self.config_revisions)
    }

    /// The prefix of all revisions of configurations.
    pub(super) fn config_revisions(&self) -> &str {
        &self.config_revisions
    }

    /// Is written with each text that begins to use the configuration.
    pub(super) fn config_users(&self, name: &AppName) -> String {
        format!("{}{name}", self.config_users)
    }

    pub(super) fn settings(&self, machine: &MachineId) -> String {
        format!("{}settings/{machine}", self.root)
    }

    pub(super) fn machine(&self, machine: &MachineId) -> String {
        format!("{}machines/{machine}", self.root)
    }

    pub(super) fn assignment(&self, machine: &MachineId) -> String {
        format!("{}assignments/{machine}", self.root)
    }

    pub(super) fn report(&self, machine: &MachineId) -> String {
        format!("{}reports/{machine}", self.root)
    }

    pub(super) fn left(&self, machine: &MachineId) -> String {
        format!("{}left/{machine}", self.root)
    }

    pub(super) fn rival(&self, machine: &MachineId) -> String {
        format!("{}rivals/{machine}", self.root)
    }

    pub(super) fn keeper(&self, machine: &MachineId) -> String {
        format!("{}keepers/{machine}", self.root)
    }

    pub(super) fn fence(&self, machine: &MachineId) -> String {
        format!("{}fences/{machine}", self.root)
    }

    pub(super) fn fenced_commits(&self) -> String {
        format!("{}fenced-commits", self.root)
    }

    pub(super) fn leader(&self) -> String {
        format!("{}leader", self.root)
    }

    /// What the leader's last plan says.
    pub(super) fn outlook(&self) -> String {
        format!("{}outlook", self.root)
    }

    /// A move that a user asked for.
    pub(super) fn a_move(&self, instance: &UnitName) -> String {
        format!("{}{instance}", self.moves())
    }

    /// The prefix of all moves that users asked for.
    pub(super) fn moves(&self) -> String {
        format!("{}moves/", self.root)
    }

    /// What a user did. Ids are of the store's making, and sort by time.
    pub(super) fn act(&self, id: &str) -> String {
        format!("{}{id}", self.acts())
    }

    /// The prefix of all that users did and nobody has told.
    pub(super) fn acts(&self) -> String {
        format!("{}acts/", self.root)
    }

    /// How far a unit's text is.
    pub(super) fn rollout(&self, unit: &UnitName) -> String {
        format!("{}rollouts/{unit}", self.root)
    }

    /// The rules and locks of reboots.
    pub(super) fn reboots(&self) -> String {
        format!("{}reboots", self.root)
    }

    /// The lock of an import.
    pub(super) fn import(&self) -> String {
        format!("{}import", self.root)
    }

    /// Where an import stages its documents, each under its whole key.
    pub(super) fn stage(&self) -> &str {
        &self.stage
    }

    pub(super) fn staged(&self, key: &str) -> String {
        format!("{}{key}", self.stage)
    }

    pub(super) fn unstaged<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.stage)
    }

    /// Where the documents of a part lie.
    pub(super) fn part(&self, part: Part) -> Vec<String> {
        let folders: &[&str] = match part {
            Part::Units => &["units/"],
            Part::Machines => &["machines/", "settings/", "left/", "leader", "outlook"],
            Part::Assignments => &["assignments/"],
            Part::Reports => &["reports/"],
            Part::Apps => &["apps/"],
            Part::Configurations => &["config/"],
        };
        folders.iter().map(|folder| format!("{}{folder}", self.root)).collect()
    }

    /// What a key under the root is; `None` for keys of a later version, which are left alone.
    pub(super) fn read(&self, key: &str) -> Option<Key> {
        let path = key.strip_prefix(&self.root)?;
        // What somebody wrote by hand becomes no unit and no machine, and so no file.
        let of =
            |kind: &'static str, id: &str, key: fn(MachineId) -> Key| match MachineId::parse(id) {
                Some(id) => Some(key(id)),
                None => Some(Key::Misnamed(kind, format!("{id:?} is no machine's id"))),
            };
        match path.split_once('/') {
            Some(("units", name)) => Some(match UnitName::read(name) {
                Some(name) => Key::Unit(name),
                None => {
                    let problem = UnitName::parse(name)
                        .err()
                        .map_or(String::new(), |problem| format!(": {problem}"));
                    Key::Misnamed("units", format!("{name:?} is no unit's name{problem}"))
                }
            }),
            Some(("apps", name)) => Some(match AppName::parse(name) {
                Ok(name) => Key::App(name),
                Err(problem) => Key::Misnamed("apps", problem),
            }),
            Some(("config", name)) => Some(match AppName::parse(name) {
                Ok(name) => Key::Config(name),
                Err(problem) => Key::Misnamed("config", problem),
            }),
            Some(("moves", name)) => Some(match UnitName::read(name) {
                Some(name) => Key::Move(name),
                None => Key::Misnamed("moves", format!("{name:?} is no unit's name")),
            }),
            Some(("settings", id)) => of("settings", id, Key::Settings),
            Some(("machines", id)) => of("machines", id, Key::Machine),
            Some(("assignments", id)) => of("assignments", id, Key::Assignment),
            Some(("reports", id)) => of("reports", id, Key::Report),
            Some(("left", id)) => of("left", id, Key::Left),
            Some(("rivals", id)) => of("rivals", id, Key::Rival),
            Some(("keepers", id)) => of("keepers", id, Key::Keeper),
            Some(("fences", id)) => of("fences", id, Key::Fence),
            Some(("acts", id)) => Some(Key::Act(id.to_string())),
            Some(("rollouts", name)) => UnitName::read(name).map(Key::Rollout),
            None if path == "fenced-commits" => Some(Key::FencedCommits),
            None if path == "leader" => Some(Key::Leader),
            None if path == "outlook" => Some(Key::Outlook),
            None if path == "reboots" => Some(Key::Reboots),
            None if path == "import" => Some(Key::Import),
            _ => None,
        }
    }
}
