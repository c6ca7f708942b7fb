//! The volumes of podman that fleet made on this machine, and who uses them. The agent notes them,
//! the API lists them; they outlive reboots, as what is in them does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleet_core::app::AppName;
use fleet_core::name::{MachineId, UnitName};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::process::files::write_atomic;

/// The file in `data_dir`.
const FILE: &str = "volumes.json";

/// The most volumes that are kept: far more than a machine has.
const MOST: usize = 10_000;

/// How far the clock of a file system may be behind the one that notes are made by.
const CLOCK_STEPS: Duration = Duration::from_secs(1);

/// A volume that fleet made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The Quadlet file that it was made of: `data.volume`.
    pub unit: UnitName,
    /// The application that this is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// The service that makes it.
    service: UnitName,
    /// Other services that make it: `VolumeName=` may be the same in several files.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    others: BTreeSet<UnitName>,
    /// When this was noted first, before the volume was made, in milliseconds since 1970.
    #[serde(default)]
    since_ms: u64,
    /// The instance that used it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_user: Option<UnitName>,
    /// When that began or ended, in milliseconds since 1970.
    #[serde(default)]
    pub last_used_ms: u64,
}

/// What is kept on the disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    machine: Option<MachineId>,
    /// By podman's names.
    volumes: BTreeMap<String, Made>,
}

#[derive(Debug, Default)]
struct Known {
    document: Document,
    /// Who uses what now, by the volumes' names; `None` before the agent has looked.
    users: Option<BTreeMap<String, BTreeSet<UnitName>>>,
    /// What went wrong last, so that it is said once.
    said: String,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Volumes {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

impl Volumes {
    /// Those that are kept in `data_dir`, if it is `machine`'s: it may be on a copied disk.
    pub fn open(data_dir: &Path, machine: &MachineId) -> Volumes {
        let file = data_dir.join(FILE);
        let mut document = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!("cannot read {}: {error}; it is begun again", file.display());
                Document::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!("cannot read {}: {error}", file.display());
                }
                Document::default()
            }
        };
        if document.machine.as_ref() != Some(machine) {
            document = Document { machine: Some(machine.clone()), ..Document::default() };
        }
        let known = Mutex::new(Known { document, ..Known::default() });
        Volumes { file: Some(file), known }
    }

    /// Notes that `service` makes the volume `name` for the Quadlet file `unit`, before it does.
    pub fn made(
        &self,
        name: &str,
        (unit, service): (&UnitName, &UnitName),
        app: Option<&AppName>,
        now_ms: u64,
    ) {
        self.change(|known| {
            let volumes = &mut known.document.volumes;
            let before = volumes.get(name);
            if before.is_none() && volumes.len() >= MOST {
                return false;
            }
            let mut others = before.map(|made| made.others.clone()).unwrap_or_default();
            others.extend(before.map(|made| made.service.clone()));
            others.remove(service);
            let made = Made {
                unit: unit.clone(),
                app: app.cloned(),
                service: service.clone(),
                others,
                since_ms: before.map_or(now_ms, |made| made.since_ms),
                last_user: before.and_then(|made| made.last_user.clone()),
                last_used_ms: before.map_or(0, |made| made.last_used_ms),
            };
            let differs = before != Some(&made);
            volumes.insert(name.to_string(), made);
            differs
        });
    }

    /// Whether a volume that came to be at `made` is older than what is noted of it: `podman volume
    /// create --ignore` takes what is there already, so the data in it may be somebody else's.
    pub fn was_there_before(&self, name: &str, made: SystemTime) -> bool {
        let known = self.known.lock().unwrap();
        let noted_ms = known.document.volumes.get(name).map_or(0, |volume| volume.since_ms);
        let noted = UNIX_EPOCH + Duration::from_millis(noted_ms);
        noted.duration_since(made).is_ok_and(|earlier| earlier > CLOCK_STEPS)
    }

    /// Notes which instances use what now, by the services that make it.
    pub fn used(&self, users: &BTreeMap<&UnitName, BTreeSet<&UnitName>>, now_ms: u64) {
        self.change(|known| {
            let mut changed = false;
            let mut now: BTreeMap<String, BTreeSet<UnitName>> = BTreeMap::new();
            for (name, made) in &mut known.document.volumes {
                let services = made.others.iter().chain([&made.service]);
                let of_it = services.filter_map(|service| users.get(service)).flatten();
                let of_it: BTreeSet<UnitName> = of_it.map(|user| (*user).clone()).collect();
                let before = known.users.as_ref().and_then(|users| users.get(name));
                let (came, left) = match before {
                    Some(before) => (
                        of_it.difference(before).next().cloned(),
                        before.difference(&of_it).next().cloned(),
                    ),
                    // Whoever uses it after a restart of fleetd may have done so before.
                    None => {
                        let last = made.last_user.as_ref();
                        let other = of_it.iter().find(|user| last != Some(*user));
                        (
                            other.filter(|_| !last.is_some_and(|it| of_it.contains(it))).cloned(),
                            None,
                        )
                    }
                };
                if let Some(user) = came.or(left) {
                    (made.last_user, made.last_used_ms) = (Some(user), now_ms);
                    changed = true;
                }
                if !of_it.is_empty() {
                    now.insert(name.clone(), of_it);
                }
            }
            known.users = Some(now);
            changed
        });
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.known.lock().unwrap().document.volumes.is_empty()
    }

    /// All of them by name, each with who uses it now.
    pub fn all(&self) -> Vec<(String, Made, BTreeSet<UnitName>)> {
        let known = self.known.lock().unwrap();
        let users = |name: &String| known.users.as_ref()?.get(name).cloned();
        let all = known.document.volumes.iter();
        all.map(|(name, made)| (name.clone(), made.clone(), users(name).unwrap_or_default()))
            .collect()
    }

    /// Who uses it now; `None` if that is not known yet.
    pub fn users_of(&self, name: &str) -> Option<BTreeSet<UnitName>> {
        let known = self.known.lock().unwrap();
        known.users.as_ref().map(|users| users.get(name).cloned().unwrap_or_default())
    }

    /// Forgets what podman no longer has.
    pub fn forget(&self, name: &str) {
        self.change(|known| known.document.volumes.remove(name).is_some());
    }

    fn change(&self, change: impl FnOnce(&mut Known) -> bool) {
        let mut known = self.known.lock().unwrap();
        let Some(file) = self.file.as_ref().filter(|_| change(&mut known)) else { return };
        let written = serde_json::to_vec(&known.document).map_err(io::Error::from);
        let said = match written.and_then(|bytes| write_atomic(file, &bytes)) {
            Ok(()) => String::new(),
            Err(error) => format!("cannot write {}: {error}", file.display()),
        };
        if !said.is_empty() && known.said != said {
            warn!("{said}; after a restart `fleetctl volumes` may not show every volume");
        }
        known.said = said;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    /// Each volume as `name of unit: users; last user at when`.
    fn said(volumes: &Volumes) -> String {
        let one = |(name, made, users): (String, Made, BTreeSet<UnitName>)| {
            let users: Vec<&str> = users.iter().map(UnitName::as_str).collect();
            let last = made.last_user.map_or("nobody".to_string(), |user| user.to_string());
            format!("{name} of {}: {users:?}; {last} at {}", made.unit, made.last_used_ms)
        };
        volumes.all().into_iter().map(one).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_volume_is_known_with_its_last_user_after_its_users_and_fleetd_have_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (MachineId::new("a"), MachineId::new("b"));
        let service = unit("data-volume.service");
        let (db, other) = (unit("db.container"), unit("x.container"));
        let users = |users: &[&'static str]| -> BTreeSet<UnitName> {
            users.iter().map(|name| unit(name)).collect()
        };
        let used = |volumes: &Volumes, by: &BTreeSet<UnitName>, now_ms| {
            volumes.used(&BTreeMap::from([(&service, by.iter().collect())]), now_ms);
        };
        let volumes = Volumes::open(folder.path(), &a);
        assert!(volumes.is_empty() && volumes.users_of("systemd-data").is_none());
        volumes.made("systemd-data", (&unit("data.volume"), &service), None, 4_000);
        used(&volumes, &users(&["db.container"]), 5);
        used(&volumes, &users(&["db.container"]), 6);
        assert_eq!(
            said(&volumes),
            "systemd-data of data.volume: [\"db.container\"]; db.container at 5"
        );
        let again = Volumes::open(folder.path(), &a);
        assert_eq!(said(&again), "systemd-data of data.volume: []; db.container at 5");
        used(&again, &BTreeSet::from([db.clone()]), 7);
        assert_eq!(
            said(&again),
            "systemd-data of data.volume: [\"db.container\"]; db.container at 5"
        );
        again.made("systemd-data", (&unit("data.volume"), &service), None, 8_000);
        let made_at = |ms| std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
        assert!(!again.was_there_before("systemd-data", made_at(4_001)));
        assert!(again.was_there_before("systemd-data", made_at(2_000)));
        used(&again, &BTreeSet::from([db, other]), 8);
        used(&again, &BTreeSet::new(), 9);
        let end = said(&again);
        assert!(
            end.starts_with("systemd-data of data.volume: []; ") && end.ends_with(" at 9"),
            "{end}"
        );
        assert_eq!(again.users_of("systemd-data"), Some(BTreeSet::new()));
        assert!(Volumes::open(folder.path(), &b).is_empty(), "another machine's");
        again.forget("systemd-data");
        assert!(Volumes::open(folder.path(), &a).is_empty());
    }

    #[test]
    fn who_uses_a_volume_by_another_file_of_its_name_is_a_user_too() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(folder.path(), &MachineId::new("a"));
        let (ours, theirs) = (unit("ours-volume.service"), unit("theirs-volume.service"));
        volumes.made("data", (&unit("ours.volume"), &ours), None, 1);
        volumes.made("data", (&unit("theirs.volume"), &theirs), None, 2);
        let db = unit("db.container");
        for service in [&ours, &theirs] {
            volumes.used(&BTreeMap::from([(service, BTreeSet::from([&db]))]), 5);
            assert_eq!(volumes.users_of("data"), Some(BTreeSet::from([db.clone()])), "{service}");
        }
    }
}
