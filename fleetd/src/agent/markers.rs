//! What fleet wrote on this host: one small file a unit under `/run/fleet/units`, and one a
//! template whose file is shared; gone with a reboot like the units themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use fleet_core::converge::Marker;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::unit::file::ShortHash;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::process::files;

/// Beside the folder: names the machine that all in it was assigned to.
const OWNER: &str = "units.machine-id";

/// Beside the folder: names the start of user space that all in it is of.
const USER_SPACE: &str = "user-space";

/// Whose text the file of a template has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Template {
    pub(super) unit: UnitName,
    pub(super) hash: ShortHash,
    /// Whether it was about to be written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) writing: bool,
    /// The text that it had before, if this one runs the same: what shares the file and has not
    /// followed yet is to be written, and not restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) alike: Option<ShortHash>,
}

/// A service that is here for the sake of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beside {
    /// The Quadlet file that it is made of.
    pub(super) quadlet: UnitName,
    /// The short hash of all that was written for it.
    pub(super) hash: ShortHash,
    /// Whether it was about to be written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) writing: bool,
}

/// The markers on the disk, and what is noted beside them. A restarted fleetd adopts what runs by
/// them.
#[derive(Debug)]
pub(super) struct Markers {
    folder: PathBuf,
    /// Is there while files were changed that systemd has not read again, so that a crash in
    /// between forgets nothing.
    reload_due: PathBuf,
    /// Is there while units were enabled whose targets do not know it yet; that can wait for a
    /// quiet time.
    links_due: PathBuf,
    /// Whether all this was assigned to the id that this machine had before.
    of_another: bool,
    /// By the name that systemd knows the template by.
    templates: BTreeMap<UnitName, Template>,
    /// By the name that systemd knows it by. Who needs it, the markers say.
    beside: BTreeMap<UnitName, Beside>,
    /// Whether a file could not be read: what it is about may need what nobody else does.
    incomplete: bool,
}

/// The markers that an earlier fleetd left, each with the text that it runs, where that is another.
pub(super) type Found = BTreeMap<UnitName, (Marker, Option<ShortHash>)>;

impl Markers {
    /// Reads what an earlier fleetd left, and notes that it is `machine`'s if there is nothing.
    pub(super) fn open(folder: &Path, machine: &MachineId) -> io::Result<(Markers, Found)> {
        files::public_folder(folder)?; // `units_directory` may be this one, too
        let mut incomplete = false;
        let markers: BTreeMap<UnitName, Marker> = read_all(folder, ".json", &mut incomplete)?;
        let templates: BTreeMap<UnitName, Template> =
            read_all(folder, ".template", &mut incomplete)?;
        let beside: BTreeMap<UnitName, Beside> = read_all(folder, ".beside", &mut incomplete)?;
        let with_file = |(name, mut marker): (UnitName, Marker)| {
            // An earlier fleetd died while it wrote the template anew: whoever had not followed yet
            // is to be written again.
            let template =
                name.systemd_name().template().and_then(|template| templates.get(&template));
            let lost =
                marker.shared && template.is_none_or(|template| template.hash != marker.hash);
            let runs = lost.then(|| marker.lose_file(template)).flatten();
            (name, (marker, runs))
        };
        let markers: Found = markers.into_iter().map(with_file).collect();
        let [reload_due, links_due] = ["reload-due", "links-due"].map(|name| folder.join(name));
        let owner = folder.with_file_name(OWNER);
        // Without a word an earlier version wrote it.
        let of_another =
            std::fs::read_to_string(&owner).is_ok_and(|owner| owner.trim() != machine.as_str());
        let of_another = of_another && !markers.is_empty();
        let folder = folder.to_path_buf();
        let mut notes =
            Markers { folder, reload_due, links_due, of_another, templates, beside, incomplete };
        if !of_another {
            notes.belong_to(machine);
        }
        Ok((notes, markers))
    }

    /// Whether it is known what all that fleet wrote here needs. If not, nothing is taken away for
    /// being needed by nobody.
    pub(super) fn are_complete(&self) -> bool {
        !self.incomplete
    }

    /// Whether the host's `/etc/machine-id` was another one when all this was assigned.
    pub(super) fn are_of_another(&self) -> bool {
        self.of_another
    }

    /// Notes that from now on `machine`'s assignment says what of this stays.
    pub(super) fn belong_to(&mut self, machine: &MachineId) {
        let owner = self.folder.with_file_name(OWNER);
        note(&owner, files::write_in_memory(&owner, format!("{machine}\n").as_bytes()));
        self.of_another = false;
    }

    /// Whether the markers are known to be of another start of user space than `stamp` names.
    pub(super) fn is_of_another_user_space(&self, stamp: u64) -> io::Result<bool> {
        match std::fs::read_to_string(self.folder.with_file_name(USER_SPACE)) {
            Ok(noted) => Ok(noted != stamp.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Notes that from now on they are of this one.
    pub(super) fn enter_user_space(&self, stamp: u64) -> io::Result<()> {
        let path = self.folder.with_file_name(USER_SPACE);
        files::write_in_memory(&path, stamp.to_string().as_bytes())
    }

    pub(super) fn reload_is_due(&self) -> bool {
        self.reload_due.exists()
    }

    /// Notes that files were changed that systemd must read again before it starts anything.
    pub(super) fn note_reload_due(&self) {
        note(&self.reload_due, files::create(&self.reload_due, files::PRIVATE).map(drop));
    }

    /// Whether targets should learn of units that were enabled.
    pub(super) fn links_are_due(&self) -> bool {
        self.links_due.exists()
    }

    pub(super) fn note_links_due(&self) {
        note(&self.links_due, files::create(&self.links_due, files::PRIVATE).map(drop));
    }

    /// systemd has read all its files.
    pub(super) fn note_reloaded(&self) {
        for due in [&self.reload_due, &self.links_due] {
            match std::fs::remove_file(due) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => note(due, Err(error)),
                _ => {}
            }
        }
    }

    pub(super) fn write(&self, name: &UnitName, marker: &Marker) -> io::Result<()> {
        write(&self.path(name), marker)
    }

    pub(super) fn remove(&self, name: &UnitName) -> io::Result<()> {
        remove(&self.path(name))
    }

    /// Whose text the file of this template has, if it is fleet's.
    pub(super) fn template(&self, name: &UnitName) -> Option<&Template> {
        self.templates.get(name)
    }

    /// The templates whose file is fleet's, by the names that systemd knows them by.
    pub(super) fn templates(&self) -> impl Iterator<Item = &UnitName> {
        self.templates.keys()
    }

    /// Notes whose text it has from now on.
    pub(super) fn set_template(&mut self, name: &UnitName, template: Template) -> io::Result<()> {
        write(&self.template_path(name), &template)?;
        self.templates.insert(name.clone(), template);
        Ok(())
    }

    pub(super) fn remove_template(&mut self, name: &UnitName) -> io::Result<()> {
        remove(&self.template_path(name))?;
        self.templates.remove(name);
        Ok(())
    }

    /// What is noted of this service, if it is here for the sake of others.
    pub(super) fn beside(&self, service: &UnitName) -> Option<&Beside> {
        self.beside.get(service)
    }

    /// All services that are here for the sake of others.
    pub(super) fn all_beside(&self) -> impl Iterator<Item = &UnitName> {
        self.beside.keys()
    }

    pub(super) fn set_beside(&mut self, service: &UnitName, beside: Beside) -> io::Result<()> {
        write(&self.beside_path(service), &beside)?;
        self.beside.insert(service.clone(), beside);
        Ok(())
    }

    pub(super) fn remove_beside(&mut self, service: &UnitName) -> io::Result<()> {
        remove(&self.beside_path(service))?;
        self.beside.remove(service);
        Ok(())
    }

    /// Notes a service that pulls an image, before it is written.
    pub(super) fn note_pull(&self, service: &UnitName) -> io::Result<()> {
        files::create(&self.pull_path(service), files::PRIVATE).map(drop)
    }

    pub(super) fn forget_pull(&self, service: &UnitName) -> io::Result<()> {
        remove(&self.pull_path(service))
    }

    /// The services that pull images, or did when an earlier fleetd ended.
    pub(super) fn pulls(&self) -> io::Result<BTreeSet<UnitName>> {
        let mut pulls = BTreeSet::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let service = name.to_str().and_then(|name| name.strip_suffix(".pull"));
            pulls.extend(service.and_then(|service| UnitName::parse(service).ok()));
        }
        Ok(pulls)
    }

    fn pull_path(&self, service: &UnitName) -> PathBuf {
        self.folder.join(format!("{service}.pull"))
    }

    fn beside_path(&self, service: &UnitName) -> PathBuf {
        self.folder.join(format!("{service}.beside"))
    }

    fn path(&self, name: &UnitName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    fn template_path(&self, name: &UnitName) -> PathBuf {
        self.folder.join(format!("{name}.template"))
    }
}

/// What happens to a marker when the file that its unit shares gets another text.
pub(super) trait LoseFile {
    /// It counts as not written. Answers with the text that it runs, as far as the new one runs the
    /// same.
    fn lose_file(&mut self, template: Option<&Template>) -> Option<ShortHash>;
}

impl LoseFile for Marker {
    fn lose_file(&mut self, template: Option<&Template>) -> Option<ShortHash> {
        let before = std::mem::take(&mut self.hash);
        template.and_then(|template| template.alike.clone()).filter(|alike| *alike == before)
    }
}

/// Reads what an earlier fleetd left. A file that cannot be read is said, noted and passed over:
/// its unit then is the host's.
fn read_all<T: DeserializeOwned>(
    folder: &Path,
    ending: &str,
    incomplete: &mut bool,
) -> io::Result<BTreeMap<UnitName, T>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(ending))
        else {
            continue;
        };
        let parsed = UnitName::parse(name).map_err(|e| e.to_string());
        let bytes =
            parsed.and_then(|name| Ok((name, std::fs::read(&path).map_err(|e| e.to_string())?)));
        let value = bytes.and_then(|(name, bytes)| {
            Ok((name, serde_json::from_slice(&bytes).map_err(|e| e.to_string())?))
        });
        match value {
            Ok((name, value)) => drop(all.insert(name, value)),
            Err(problem) => {
                *incomplete = true;
                warn!("{}: {problem}; fleet will not touch this unit", path.display());
            }
        }
    }
    Ok(all)
}

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    files::write_in_memory(path, &serde_json::to_vec(value)?)
}

/// There may be no such file.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn note(path: &Path, noted: io::Result<()>) {
    if let Err(error) = noted {
        warn!("{}: {error}", path.display());
    }
}
