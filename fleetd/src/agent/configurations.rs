//! The values of configurations on this host: each instance that has one gets a folder of its own,
//! with a file a value and the env files for systemd and podman.
//!
//! The values are read from the store once a pass, and only where a step needs them. While the
//! store is away, an instance may start again with the revision that it had, and after a reboot
//! with the last one known; never with less than its placement asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleet_core::app::AppName;
use fleet_core::configuration::{Configuration, Uses};
use fleet_core::converge::{Configured, Marker, Step};
use fleet_core::name::UnitName;
use tracing::{debug, warn};

use super::Agent;
use super::instance::Instance;
use super::remembered::Remembered;
use crate::process::files;

/// The env file for systemd. No key is called so: they begin with a letter or `_`.
const FOR_SYSTEMD: &str = ".env";

/// The env file for podman, which reads another format.
const FOR_PODMAN: &str = ".container.env";

/// The env file of the service that runs podman.
const FOR_PODMAN_ITSELF: &str = ".podman.env";

/// All of them.
const FOR_ALL: [&str; 3] = [FOR_SYSTEMD, FOR_PODMAN, FOR_PODMAN_ITSELF];

/// The mode of a value's file.
const FILE: u32 = 0o640;

/// … and of the folder.
const FOLDER: u32 = 0o750;

/// What is known of configurations.
#[derive(Debug)]
pub(super) struct Configurations {
    /// Where the folders of instances lie.
    folder: PathBuf,
    /// What the store last said of each.
    known: BTreeMap<AppName, Arc<Configuration>>,
    /// Those that the present pass has read, whether there is one or not.
    read: BTreeSet<AppName>,
}

impl Configurations {
    pub(super) fn new(folder: PathBuf) -> Configurations {
        Configurations { folder, known: BTreeMap::new(), read: BTreeSet::new() }
    }

    /// The lines that have systemd put the values into a unit's environment.
    pub(super) fn drop_in(&self) -> String {
        format!("[Service]\nEnvironmentFile={}\n", self.path(FOR_SYSTEMD))
    }

    /// The text of a `.container` for podman's generator, with the values handed on into the
    /// container.
    pub(super) fn hand_on(&self, text: &str) -> String {
        match Uses::in_text(text) {
            Some(_) => format!(
                "{text}\n\n[Container]\nEnvironmentFile={}\n[Service]\nEnvironmentFile={}\n",
                self.path(FOR_PODMAN),
                self.path(FOR_PODMAN_ITSELF)
            ),
            None => text.to_string(),
        }
    }

    /// The path of such a file, as unit files write it.
    fn path(&self, file: &str) -> String {
        format!("{}/%N/{file}", self.folder.display().to_string().replace('%', "%%"))
    }

    fn folder_of(&self, instance: &UnitName) -> PathBuf {
        self.folder.join(instance.systemd_name().stem())
    }

    /// Takes away what was written for an instance.
    pub(super) fn remove(&self, instance: &UnitName) -> io::Result<()> {
        match fs::remove_dir_all(self.folder_of(instance)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

impl Agent {
    /// Reads the configurations that these steps need.
    pub(super) async fn fetch_configurations(&mut self, steps: &[Step]) {
        self.configurations.read.clear();
        let of_marker = |name: &UnitName| self.instances.marker(name)?.config.as_ref();
        let needed = steps.iter().filter_map(|step| match step {
            Step::Start { instance, .. }
            | Step::Restart { instance, .. }
            | Step::Revive { instance, .. }
            | Step::Configure { instance, .. } => {
                of_marker(instance).map(|config| config.uses.name.clone())
            }
            Step::Write { unit, revision, hash, .. } => {
                let text = self.texts.0.get(&(unit.clone(), *revision, hash.clone()))?;
                Uses::in_text(text).map(|uses| uses.name)
            }
            _ => None,
        });
        let needed: Vec<AppName> = needed.collect::<BTreeSet<_>>().into_iter().collect();
        if needed.is_empty() {
            return;
        }
        let found = match self.store.configurations(&needed).await {
            Ok(found) => found,
            Err(error) => return debug!("configurations as they were last known: {error}"),
        };
        for (name, config) in needed.into_iter().zip(found) {
            self.configurations.read.insert(name.clone());
            match config {
                Some(config) => {
                    if let Some(remembered) = &self.remembered {
                        remembered.keep_configuration(&config);
                    }
                    self.configurations.known.insert(name, Arc::new(config));
                }
                None => drop(self.configurations.known.remove(&name)),
            }
        }
    }

    /// Writes the values for an instance that is about to start, or to read them again. The error
    /// says why there are none. What it then has is noted when systemd has taken the job.
    pub(super) fn configure(&mut self, instance: &UnitName) -> Result<(), String> {
        let marker = self.instances.marker(instance);
        let Some(config) = marker.and_then(|marker| marker.config.as_ref()) else { return Ok(()) };
        let least = self
            .assignment
            .as_ref()
            .and_then(|assignment| assignment.instances.get(instance))
            .map_or(0, |placement| placement.config);
        let values = self.values_for(config, least)?;
        let folder = self.configurations.folder_of(instance);
        if config.revision != values.revision || !folder.is_dir() {
            write_all(&folder, &values).map_err(|error| {
                format!("cannot write the values of {}: {error}", folder.display())
            })?;
        }
        self.instances.of(instance).values = Some(values.revision);
        Ok(())
    }

    /// What is to be noted of the configuration of a unit that is written anew.
    pub(super) fn configured(old: Option<&Marker>, text: &str) -> Option<Configured> {
        let uses = Uses::in_text(text)?;
        let old = old.and_then(|old| old.config.as_ref()).filter(|old| old.uses.name == uses.name);
        Some(Configured { revision: old.map_or(0, |old| old.revision), uses })
    }

    /// The marker of an instance that has the values which were written for it.
    pub(super) fn with_values(&self, instance: &UnitName, marker: Marker) -> Marker {
        let written = self.instances.get(instance).and_then(|instance| instance.values);
        match (marker.config, written) {
            (Some(config), Some(revision)) => {
                Marker { config: Some(Configured { revision, ..config }), ..marker }
            }
            (config, _) => Marker { config, ..marker },
        }
    }

    /// The same for a start, which changes nothing where it runs already.
    pub(super) fn with_values_if_down(&self, instance: &UnitName, marker: Marker) -> Marker {
        match self.instances.get(instance).is_some_and(Instance::is_up) {
            true => marker,
            false => self.with_values(instance, marker),
        }
    }

    /// Notes that an instance waits for its values.
    pub(super) fn wait_for_values(&mut self, instance: &UnitName, problem: String, now_ms: u64) {
        let trouble = &mut self.instances.of(instance).trouble;
        if trouble.message.as_deref() != Some(&problem) {
            warn!(unit = %instance, "{instance}: {problem}");
        }
        trouble.awaits_values(now_ms, problem);
    }

    /// Notes which reloads have failed since this was last asked.
    pub(super) fn take_failed_reloads(&mut self) {
        let failed = self.systemd.take_failed_reloads();
        if failed.is_empty() {
            return;
        }
        let written: Vec<UnitName> = self.instances.written().cloned().collect();
        for name in written {
            if let Some(word) = failed.get(&name.systemd_name()) {
                self.instances.of(&name).reload_failed = Some(word.clone());
            }
        }
    }

    /// The values as the store has them, or, while it is away, those that will do.
    fn values_for(&self, config: &Configured, least: u64) -> Result<Arc<Configuration>, String> {
        let name = &config.uses.name;
        let known = self.configurations.known.get(name);
        if self.configurations.read.contains(name) {
            let known = known.ok_or_else(|| {
                format!(
                    "there is no configuration {name}; make it with `fleetctl config set {name} \
                        KEY=VALUE`"
                )
            })?;
            return match known.revision >= least {
                true => Ok(Arc::clone(known)),
                false => Err(format!(
                    "the configuration {name} has revision {}, and revision {least} is asked for; \
                        `fleetctl config set` makes one",
                    known.revision
                )),
            };
        }
        let remembered = || {
            let remembered = self.remembered.as_ref().filter(|_| self.from_disk)?;
            remembered.configuration(name).map(Arc::new)
        };
        let least = least.max(config.revision);
        let will_do = |known: &Arc<Configuration>| {
            known.revision >= least && (self.from_disk || config.revision > 0)
        };
        known
            .cloned()
            .or_else(remembered)
            .filter(will_do)
            .ok_or_else(|| format!("the configuration {name} cannot be had from the store yet"))
    }

    /// Forgets what was written for an instance, and what is remembered for nobody else.
    pub(super) fn forget_configuration(&self, instance: &UnitName) -> Result<(), String> {
        let Some(config) = self.instances.marker(instance).and_then(|old| old.config.as_ref())
        else {
            return Ok(());
        };
        let folder = self.configurations.folder_of(instance);
        self.configurations
            .remove(instance)
            .map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
        let name = &config.uses.name;
        let uses = |other: &UnitName| {
            let marker = self.instances.marker(other);
            marker.and_then(|marker| marker.config.as_ref()).is_some_and(|it| it.uses.name == *name)
        };
        let needed = self.instances.written().any(|other| other != instance && uses(other));
        if let Some(remembered) = self.remembered.as_ref().filter(|_| !needed) {
            remembered.forget_configuration(name);
        }
        Ok(())
    }
}

impl Remembered {
    /// Keeps the values of a configuration over a reboot.
    fn keep_configuration(&self, config: &Configuration) {
        let path = self.configurations.join(config.name.as_str());
        let Ok(bytes) = serde_json::to_vec(config) else { return };
        if fs::read(&path).is_ok_and(|kept| kept == bytes) {
            return;
        }
        if let Err(error) = files::write_atomic(&path, &bytes) {
            warn!("cannot write {}: {error}", path.display());
        }
    }

    fn configuration(&self, name: &AppName) -> Option<Configuration> {
        let bytes = fs::read(self.configurations.join(name.as_str())).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn forget_configuration(&self, name: &AppName) {
        let _ = fs::remove_file(self.configurations.join(name.as_str()));
    }
}

/// Makes the folder hold these values and nothing else. A file whose value is the same is left
/// alone; the env files come last.
fn write_all(folder: &Path, config: &Configuration) -> io::Result<()> {
    if !folder.is_dir() {
        if let Some(parent) = folder.parent() {
            files::public_folder(parent)?;
        }
        DirBuilder::new().mode(FOLDER).create(folder)?;
    }
    for (key, value) in &config.values {
        replace(&folder.join(key), value)?;
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let stays = name
            .to_str()
            .is_some_and(|name| FOR_ALL.contains(&name) || config.values.contains_key(name));
        if !stays {
            fs::remove_file(entry.path())?;
        }
    }
    replace(&folder.join(FOR_SYSTEMD), &config.for_systemd())?;
    replace(&folder.join(FOR_PODMAN_ITSELF), &config.for_podman_itself())?;
    replace(&folder.join(FOR_PODMAN), &config.for_podman())
}

/// A reader sees the old value or the new one, never half of it.
fn replace(path: &Path, value: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == value.as_bytes()) {
        return Ok(());
    }
    // No key begins with a dot.
    let temporary = path.with_file_name(".new");
    let written = files::create(&temporary, FILE)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .and_then(|()| fs::rename(&temporary, path));
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn config(revision: u64, pairs: &[(&str, &str)]) -> Configuration {
        let values = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        Configuration::new(AppName::parse("shop").unwrap(), values.collect(), revision - 1)
    }

    #[test]
    fn a_folder_holds_the_values_of_one_revision_and_what_is_the_same_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("config/web@1");
        write_all(&folder, &config(1, &[("log", "info"), ("gone", "x"), ("db-host", "a")]))
            .unwrap();
        let inode = |name: &str| fs::metadata(folder.join(name)).unwrap().ino();
        let (log, db_host) = (inode("log"), inode("db-host"));
        write_all(&folder, &config(2, &[("log", "debug"), ("db-host", "a")])).unwrap();
        let mut names: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [FOR_PODMAN, FOR_SYSTEMD, FOR_PODMAN_ITSELF, "db-host", "log"]);
        assert_eq!(fs::read_to_string(folder.join("log")).unwrap(), "debug");
        assert!(inode("log") != log && inode("db-host") == db_host);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("log"))), (0o750, 0o640));
        assert_eq!(mode(&folder.join(FOR_SYSTEMD)), 0o640);
    }
}
