//! What a lab is asked to be, and what follows from it: addresses and machine ids.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::process::Process;
use super::state::{HostSpec, Spec};

/// The lab that `cargo lab` means when it is given no name.
pub const DEFAULT_NAME: &str = "lab";

/// More than a machine of today carries; also the last part of an address must stay below 255.
pub(crate) const MAX_HOSTS: usize = 64;

/// Where fleet keeps its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// One etcd cluster for all hosts.
    #[default]
    Etcd,
    /// Each host its own, so each host is a cluster of one.
    Embedded,
}

/// What to bring up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tells labs on one machine apart: 1 to 40 of a-z, 0-9, - and _.
    pub name: String,
    /// How many hosts: h1, h2, …
    pub hosts: usize,
    /// The store that fleetd is configured with.
    pub store: Store,
    /// On how many hosts etcd runs, from h1 on: 1 or 3.
    pub etcd_members: usize,
    /// Lines for each host's fleetd configuration (TOML).
    pub config_extra: String,
    /// Lines for one host's fleetd configuration, by host name. A `metadata` line replaces the
    /// lab's own.
    pub host_config_extra: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: DEFAULT_NAME.to_owned(),
            hosts: 3,
            store: Store::Etcd,
            etcd_members: 1,
            config_extra: String::new(),
            host_config_extra: BTreeMap::new(),
        }
    }
}

impl Options {
    /// Refuses what cannot be, before anything is started.
    pub(crate) fn check(&self) -> Result<()> {
        let (hosts, members) = (self.hosts, self.etcd_members);
        ensure!((1..=MAX_HOSTS).contains(&hosts), "a lab has 1 to {MAX_HOSTS} hosts, not {hosts}");
        if self.store == Store::Etcd {
            ensure!(members == 1 || members == 3, "etcd has 1 or 3 members, not {members}");
            ensure!(
                members <= hosts,
                "{members} etcd members need {members} hosts; there are {hosts}"
            );
        }
        for host in self.host_config_extra.keys() {
            let known = (1..=hosts).any(|number| *host == format!("h{number}"));
            ensure!(known, "configuration for {host:?}, which is no host of this lab");
        }
        Ok(())
    }

    /// The lab that this asks for, owned by this process.
    pub(crate) fn spec(&self, image: PathBuf) -> Spec {
        let hosts = (1..=self.hosts).map(|number| HostSpec {
            name: format!("h{number}"),
            address: address(&self.name, number),
            machine_id: machine_id(&self.name, number),
        });
        Spec {
            name: self.name.clone(),
            image,
            store: self.store,
            etcd_members: self.etcd_members,
            hosts: hosts.collect(),
            owner: Process::of(std::process::id()),
        }
    }
}

/// Labs are in network namespaces of their own, so two that get the same subnet do not meet.
pub(crate) fn subnet(lab: &str) -> String {
    let slot = if lab == DEFAULT_NAME { 0 } else { 1 + hash(lab, 0) % 250 };
    format!("10.77.{slot}")
}

/// The IPv4 address of a lab's host h1, h2, … by its number.
pub fn address(lab: &str, number: usize) -> String {
    format!("{}.{}", subnet(lab), 10 + number)
}

/// The machine id of a lab's host h1, h2, … by its number.
pub fn machine_id(lab: &str, number: usize) -> String {
    let text = format!("{lab}/h{number}");
    format!("{:016x}{:016x}", hash(&text, 1), hash(&text, 2))
}

/// FNV-1a with an avalanche at the end: std's hashes may change from release to release.
fn hash(text: &str, seed: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = text
        .bytes()
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::{machine_id, subnet};

    #[test]
    fn a_machine_id_is_32_digits_and_differs_by_host_and_lab() {
        let id = machine_id("lab", 1);
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(id, machine_id("lab", 2));
        assert_ne!(id, machine_id("other", 1));
    }

    #[test]
    fn the_default_lab_has_the_first_subnet_to_itself() {
        assert_eq!(subnet("lab"), "10.77.0");
        assert_ne!(subnet("test-agent"), "10.77.0");
    }
}
