//! What this machine says of its podman: its version, and the names of its secrets. Both are looked
//! at again when their files change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_core::model::Machine;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::info;

use crate::config::Settings;
use crate::machine::session::Presence;
use crate::systemd::quadlet;

/// Where root's podman keeps everything, unless its configuration says otherwise.
const STORAGE: &str = "/var/lib/containers/storage";

/// Where that is said; the first that says it counts.
const STORAGE_CONFS: &[&str] =
    &["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"];

/// The longest file of either kind that is read, in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;

/// How often the files are looked at: four calls to the kernel.
const LOOK: Duration = Duration::from_secs(5);

/// What a machine says of its podman.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Podman {
    /// See [`Machine::podman`].
    pub version: Option<String>,
    /// See [`Machine::secrets`].
    pub secrets: Option<BTreeSet<String>>,
}

/// Asks this host.
pub fn of_host(settings: &Settings) -> Podman {
    let version = quadlet::version_of_host();
    let has_podman = version.as_deref() != Some("");
    let file = secrets_file(settings).filter(|_| has_podman);
    Podman { secrets: file.and_then(|file| secrets(&file).ok().flatten()), version }
}

/// Where the host's podman lists its secrets; `None` if that cannot be told: a user's podman may
/// keep them anywhere.
fn secrets_file(settings: &Settings) -> Option<PathBuf> {
    if settings.systemd_user {
        return None;
    }
    let named = STORAGE_CONFS.iter().find_map(|path| graphroot(&read(Path::new(path)).ok()?));
    let storage = named.unwrap_or_else(|| STORAGE.to_string());
    Some(Path::new(&storage).join("secrets/secrets.json"))
}

/// The folder that a storage.conf names.
fn graphroot(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    let named = table.get("storage")?.get("graphroot")?.as_str()?;
    (!named.is_empty()).then(|| named.to_string())
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    secrets: BTreeMap<String, Secret>,
}

#[derive(Deserialize)]
struct Secret {
    name: String,
}

/// The names in podman's list of secrets; none if there is no list, and `None` if there are more
/// than a machine may name. The error is a list that cannot be read: podman may be writing it.
fn secrets(list: &Path) -> io::Result<Option<BTreeSet<String>>> {
    let text = match read(list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(BTreeSet::new())),
        text => text?,
    };
    let listed: Listed = serde_json::from_str(&text)?;
    let names: BTreeSet<String> = listed.secrets.into_values().map(|secret| secret.name).collect();
    let bytes: usize = names.iter().map(String::len).sum();
    let few = names.len() <= Machine::MAX_SECRETS && bytes <= Machine::MAX_SECRETS_BYTES;
    Ok(few.then_some(names))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Follows this host's podman while fleetd runs: an upgrade of its package, and secrets that are
/// made and removed. Ends when it is dropped.
pub struct PodmanWatch(AbortHandle);

impl PodmanWatch {
    /// What changes is said in `presence`.
    pub fn of(settings: &Settings, presence: &watch::Sender<Presence>) -> PodmanWatch {
        let files = Files {
            programs: quadlet::GENERATORS.iter().map(PathBuf::from).collect(),
            secrets: secrets_file(settings),
            version: quadlet::version_of_host,
        };
        PodmanWatch(tokio::spawn(files.follow(presence.clone())).abort_handle())
    }
}

impl Drop for PodmanWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What tells that a file was replaced or written.
type Mark = Option<(u64, u64, i64, i64)>;

fn mark(path: &Path) -> Mark {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

/// The files that are looked at.
struct Files<V> {
    /// Where podman's generator may be.
    programs: Vec<PathBuf>,
    /// podman's list of secrets.
    secrets: Option<PathBuf>,
    /// Asks the generator for its version, which takes a moment.
    version: V,
}

impl<V: Fn() -> Option<String> + Clone + Send + 'static> Files<V> {
    async fn follow(self, presence: watch::Sender<Presence>) {
        let (mut programs, mut list): (Vec<Mark>, Mark) = (Vec::new(), None);
        let mut first = true;
        loop {
            let now: Vec<Mark> = self.programs.iter().map(|path| mark(path)).collect();
            // What is there at the first look may have changed since the machine was described.
            if first || now != programs {
                programs = now;
                let version = tokio::task::spawn_blocking(self.version.clone());
                if let Ok(Some(version)) = version.await {
                    say_version(&presence, version);
                }
            }
            if let Some(path) = &self.secrets {
                let now = mark(path);
                if (first || now != list)
                    && presence.borrow().machine.podman.as_deref() != Some("")
                    && let Ok(names) = secrets(path)
                {
                    list = now;
                    say_secrets(&presence, names);
                }
            }
            first = false;
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn say_version(presence: &watch::Sender<Presence>, version: String) {
    presence.send_if_modified(|presence| {
        let known = &mut presence.machine.podman;
        if known.as_ref() == Some(&version) {
            return false;
        }
        let word = |version: &str| match version {
            "" => "none".to_string(),
            version => version.to_string(),
        };
        let before = known.as_deref().map_or("unknown".to_string(), word);
        info!("this machine's podman is {} now, and was {before}", word(&version));
        *known = Some(version);
        true
    });
}

fn say_secrets(presence: &watch::Sender<Presence>, names: Option<BTreeSet<String>>) {
    presence.send_if_modified(|presence| {
        let known = &mut presence.machine.secrets;
        let differs = *known != names;
        *known = names;
        differs
    });
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use fleet_core::name::MachineId;

    use super::*;

    const LIST: &str = r#"{"secrets":{"1":{"name":"db","id":"1"},"2":{"name":"key","id":"2"}},
        "nameToID":{"db":"1","key":"2"},"idToName":{"1":"db","2":"key"}}"#;

    #[test]
    fn the_names_of_secrets_are_those_that_podman_lists() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("secrets.json");
        let names = |words: &[&str]| Some(words.iter().map(|word| word.to_string()).collect());
        assert_eq!(secrets(&list).unwrap(), names(&[]), "no list is no secret");
        fs::write(&list, LIST).unwrap();
        assert_eq!(secrets(&list).unwrap(), names(&["db", "key"]));
        fs::write(&list, &LIST[..LIST.len() / 2]).unwrap();
        assert!(secrets(&list).is_err(), "half a list says nothing");
        let many: Vec<String> =
            (0..=Machine::MAX_SECRETS).map(|n| format!(r#""{n}":{{"name":"{n}"}}"#)).collect();
        fs::write(&list, format!(r#"{{"secrets":{{{}}}}}"#, many.join(","))).unwrap();
        assert_eq!(secrets(&list).unwrap(), None);
    }

    #[test]
    fn another_folder_for_podmans_storage_is_heeded() {
        let text = "[storage]\ndriver = \"overlay\"\n# graphroot = \"/a\"\n";
        assert_eq!(graphroot(text), None);
        let text = format!("{text}graphroot = \"/srv/podman\"\n[storage.options]\n");
        assert_eq!(graphroot(&text).as_deref(), Some("/srv/podman"));
        assert_eq!(graphroot("graphroot = ["), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upgrade_and_a_new_secret_are_told_without_a_reload() {
        let folder = tempfile::tempdir().unwrap();
        let (program, list) = (folder.path().join("quadlet"), folder.path().join("secrets.json"));
        fs::write(&program, "one").unwrap();
        let machine =
            Machine { podman: Some("5.0.0".into()), ..Machine::new(MachineId::new("m"), "") };
        let presence = watch::Sender::new(Presence { machine, ttl: Duration::from_secs(10) });
        let asked = Arc::new(Mutex::new(0));
        let files = Files {
            programs: vec![program.clone()],
            secrets: Some(list.clone()),
            version: {
                let (asked, program) = (asked.clone(), program.clone());
                move || {
                    *asked.lock().unwrap() += 1;
                    let text = fs::read_to_string(&program).unwrap();
                    Some(if text == "one" { "5.0.0" } else { "5.4.2" }.to_string())
                }
            },
        };
        let mut told = presence.subscribe();
        let following = tokio::spawn(files.follow(presence.clone()));
        let next = async |told: &mut watch::Receiver<Presence>| {
            told.changed().await.unwrap();
            let machine = told.borrow_and_update().machine.clone();
            (machine.podman.unwrap(), machine.secrets.map(|names| names.len()))
        };
        assert_eq!(next(&mut told).await, ("5.0.0".to_string(), Some(0)));
        tokio::time::sleep(10 * LOOK).await;
        assert!(!told.has_changed().unwrap(), "what stays is not told again");
        assert_eq!(*asked.lock().unwrap(), 1, "nor asked for");
        fs::write(&program, "two, longer").unwrap();
        assert_eq!(next(&mut told).await, ("5.4.2".to_string(), Some(0)));
        fs::write(&list, &LIST[..40]).unwrap();
        tokio::time::sleep(3 * LOOK).await;
        fs::write(&list, LIST).unwrap();
        assert_eq!(next(&mut told).await, ("5.4.2".to_string(), Some(2)));
        following.abort();
    }
}
