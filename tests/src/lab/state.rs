//! What is remembered of a lab between two commands: the state folder and the files in it.
//!
//! ```text
//! /var/lib/fleet-lab/NAME/state.json         what the lab is; written once, by `up`
//! /var/lib/fleet-lab/NAME/net                the network namespace is mounted here
//! /var/lib/fleet-lab/NAME/hosts/h1/run.json  its processes; there while it runs
//! /var/lib/fleet-lab/NAME/hosts/h1/...       its disks, files handed to it, its console log
//! ```

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::options::Store;
use super::process::Process;

/// What the lab is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) image: PathBuf,
    pub(crate) store: Store,
    pub(crate) etcd_members: usize,
    pub(crate) hosts: Vec<HostSpec>,
    /// The process that cleans up when it ends; none for a lab that outlives its maker.
    pub(crate) owner: Option<Process>,
}

/// What a host is, over all its boots.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HostSpec {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) machine_id: String,
}

/// The processes of one boot.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) nspawn: Process,
    pub(crate) init: Process,
}

impl Spec {
    pub(crate) fn host(&self, name: &str) -> Result<&HostSpec> {
        let found = self.hosts.iter().find(|host| host.name == name);
        found.with_context(|| {
            let names: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
            format!("lab {} has no host {name:?}; it has {}", self.name, names.join(", "))
        })
    }

    /// The hosts that run etcd.
    pub(crate) fn members(&self) -> &[HostSpec] {
        match self.store {
            Store::Etcd => &self.hosts[..self.etcd_members],
            Store::Embedded => &[],
        }
    }
}

/// The state folder of one lab.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) name: String,
    path: PathBuf,
}

impl Folder {
    /// Names are short and plain: they become parts of file and cgroup names.
    pub(crate) fn new(name: &str) -> Result<Folder> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        ensure!(
            !name.is_empty() && name.len() <= 40 && name.chars().all(plain),
            "a lab's name is 1 to 40 of a-z, 0-9, - and _, not {name:?}"
        );
        let root = env::var_os("FLEET_LAB_STATE").unwrap_or_else(|| "/var/lib/fleet-lab".into());
        Ok(Folder { name: name.to_owned(), path: Path::new(&root).join(name) })
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Makes the folder; fails where there is one, so that two `up` cannot both succeed.
    pub(crate) fn create(&self) -> Result<()> {
        if let Some(root) = self.path.parent() {
            fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
        }
        fs::create_dir(&self.path).with_context(|| format!("make {}", self.path.display()))
    }

    pub(crate) fn write_spec(&self, spec: &Spec) -> Result<()> {
        write_json(&self.path.join("state.json"), spec)
    }

    pub(crate) fn read_spec(&self) -> Result<Spec> {
        match read_json(&self.path.join("state.json"))? {
            Some(spec) => Ok(spec),
            None if self.exists() => {
                bail!("lab {} did not come up; `cargo lab down` clears what is left", self.name)
            }
            None => bail!("no lab {} is up; `cargo lab up` starts one", self.name),
        }
    }

    /// The host's processes, if it was booted and its init still lives.
    ///
    /// A host that reboots itself stays down until `boot`: nspawn leaves the restart to a service
    /// manager.
    pub(crate) fn running(&self, host: &str) -> Option<Run> {
        let run: Option<Run> = read_json(&self.run_file(host)).ok()?;
        run.filter(|run| run.init.is_alive())
    }

    pub(crate) fn write_run(&self, host: &str, run: &Run) -> Result<()> {
        write_json(&self.run_file(host), run)
    }

    pub(crate) fn forget_run(&self, host: &str) {
        let _ = fs::remove_file(self.run_file(host));
    }

    pub(crate) fn net(&self) -> PathBuf {
        self.path.join("net")
    }

    pub(crate) fn host(&self, host: &str) -> PathBuf {
        self.path.join("hosts").join(host)
    }

    pub(crate) fn console(&self, host: &str) -> PathBuf {
        self.host(host).join("console.log")
    }

    /// Removes the folder, and the folder of all labs when this was the last; then it returns true.
    pub(crate) fn remove(&self) -> Result<bool> {
        if self.exists() {
            fs::remove_dir_all(&self.path)
                .with_context(|| format!("remove {}", self.path.display()))?;
        }
        let root = self.path.parent().unwrap_or(&self.path);
        let _ = fs::remove_dir(root);
        Ok(!root.exists())
    }

    fn run_file(&self, host: &str) -> PathBuf {
        self.host(host).join("run.json")
    }
}

/// Written beside and renamed, so that nobody reads half of it.
fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    let beside = path.with_extension("new");
    fs::write(&beside, text).with_context(|| format!("write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("write {}", path.display()))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
    };
    let value = serde_json::from_str(&text);
    value.with_context(|| format!("{} is not what this lab wrote", path.display())).map(Some)
}
