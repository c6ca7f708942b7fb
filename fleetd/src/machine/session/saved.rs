//! What of a machine's lease lies on its disks, and whose it is.
//!
//! Two files hold the same. The one in `run_dir`, which lies in memory, is there only in the boot
//! in which it was written, and no copy of a disk brings it along: it is a permission to go on with
//! the lease. The one in `data_dir` outlives a reboot, and may come from a copied disk, an image or
//! a backup: it says which lease this machine's last boot held, if the machine is the one that
//! wrote it, and is no permission.

use std::io;
use std::path::{Path, PathBuf};

use fleet_core::model::Machine;
use fleet_core::name::MachineId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::process::files::write_atomic;
use crate::store::LeaseId;

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The lease; 0 for none.
    pub(super) lease: i64,
    /// The time of that lease. 0: written by a version that did not note it.
    #[serde(default)]
    pub(super) ttl_ms: u64,
    /// The lease before it, while the machine's record may still be under that; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) before: i64,
    /// The machine that wrote it. `None`: written by a version that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<MachineId>,
    /// The boot in which it was written.
    #[serde(default)]
    boot_id: String,
}

/// Both files.
#[derive(Debug)]
pub(super) struct Files {
    data: PathBuf,
    run: PathBuf,
    machine: MachineId,
    boot_id: String,
}

/// What an earlier fleetd left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The leases that this very boot of this machine has held.
    pub(super) own: Vec<LeaseId>,
    /// Those that its last boot held, or the machine whose disk was copied.
    pub(super) claimed: Vec<LeaseId>,
    /// The last one, with its time in milliseconds.
    pub(super) ttl_ms: Option<(LeaseId, u64)>,
}

impl Files {
    /// Of `machine`, in this boot of it.
    pub(super) fn of(machine: &Machine, data_dir: &Path, run_dir: &Path) -> Files {
        let (data, run) = (data_dir.join("session.json"), run_dir.join("session.json"));
        Files { data, run, machine: machine.id.clone(), boot_id: machine.boot_id.clone() }
    }

    /// Reads what an earlier fleetd left, and notes that this one was here: what an agent leaves in
    /// `run_dir` is no proof from then on.
    pub(super) fn open(&self) -> Left {
        let (run, data) = (read(&self.run), read(&self.data));
        let of_another =
            data.as_ref().and_then(|data| data.machine.as_ref()).filter(|id| **id != self.machine);
        if let Some(other) = of_another {
            warn!(
                "{} was written by machine {other}, and this is machine {}: its lease is left \
                    alone. So it is on a copied disk, \
                 and after a new /etc/machine-id",
                self.data.display(),
                self.machine
            );
        }
        let claimed = data.as_ref().filter(|_| of_another.is_none());
        let own = match &run {
            Some(run) => Some(run).filter(|run| {
                run.machine.as_ref() == Some(&self.machine) && run.boot_id == self.boot_id
            }),
            // The version before wrote no file in `run_dir`, but always this folder: it ran in this
            // boot.
            None => claimed
                .filter(|data| data.machine.is_none() && self.run.with_file_name("units").exists()),
        };
        let left = Left {
            own: own.map(Saved::leases).unwrap_or_default(),
            claimed: claimed.map(Saved::leases).unwrap_or_default(),
            ttl_ms: own
                .or(claimed)
                .filter(|saved| saved.ttl_ms > 0)
                .map(|saved| (LeaseId(saved.lease), saved.ttl_ms)),
        };
        if run.is_none() || own.is_none() {
            let mut noted = Saved {
                machine: Some(self.machine.clone()),
                boot_id: self.boot_id.clone(),
                ..Saved::default()
            };
            if let Some(own) = own {
                noted = Saved { lease: own.lease, ttl_ms: own.ttl_ms, before: own.before, ..noted };
            }
            self.write(&self.run, &noted);
        }
        left
    }

    /// Notes which lease the machine holds from now on: what this boot may go on with.
    pub(super) fn keep_for_this_boot(
        &self,
        lease: LeaseId,
        ttl_ms: u64,
        before: Option<LeaseId>,
    ) -> Saved {
        let before = before.map_or(0, |before| before.0);
        let (machine, boot_id) = (Some(self.machine.clone()), self.boot_id.clone());
        let saved = Saved { lease: lease.0, ttl_ms, before, machine, boot_id };
        self.write(&self.run, &saved);
        saved
    }

    /// The same, and for the next boot, too.
    pub(super) fn keep(&self, lease: LeaseId, ttl_ms: u64, before: Option<LeaseId>) {
        let saved = self.keep_for_this_boot(lease, ttl_ms, before);
        self.write(&self.data, &saved);
    }

    /// What is there already is not written again.
    fn write(&self, path: &Path, saved: &Saved) {
        if read(path).as_ref() == Some(saved) {
            return;
        }
        let text = serde_json::to_string(saved).unwrap_or_default() + "\n";
        if let Err(error) = write_atomic(path, text.as_bytes()) {
            warn!(
                "cannot write {}: {error}; a restart of fleetd will wait for the old lease to end",
                path.display()
            );
        }
    }
}

impl Saved {
    fn leases(&self) -> Vec<LeaseId> {
        [self.lease, self.before].into_iter().filter(|id| *id != 0).map(LeaseId).collect()
    }
}

fn read(path: &Path) -> Option<Saved> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .inspect_err(|error| {
                warn!("cannot read {}: {error}; going on without it", path.display())
            })
            .ok(),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                warn!("cannot read {}: {error}; going on without it", path.display());
            }
            None
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde asks for it
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    /// A host's disk and memory.
    struct Host {
        data: tempfile::TempDir,
        run: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Host {
            Host { data: tempfile::tempdir().unwrap(), run: tempfile::tempdir().unwrap() }
        }

        fn files(&self, id: &str, boot_id: &str) -> Files {
            let machine =
                Machine { boot_id: boot_id.to_string(), ..Machine::new(MachineId::new(id), "") };
            Files::of(&machine, self.data.path(), self.run.path())
        }

        /// What fleetd finds as its own, and what it finds of somebody's last boot.
        fn finds(&self, id: &str, boot_id: &str) -> (Vec<i64>, Vec<i64>) {
            let left = self.files(id, boot_id).open();
            let numbers = |leases: Vec<LeaseId>| leases.iter().map(|lease| lease.0).collect();
            (numbers(left.own), numbers(left.claimed))
        }
    }

    #[test]
    fn a_restart_goes_on_a_reboot_claims_and_another_machine_does_neither() {
        let host = Host::new();
        assert_eq!(host.finds(ID, "boot"), (vec![], vec![]));
        host.files(ID, "boot").keep(LeaseId(7), 10_000, Some(LeaseId(6)));
        assert_eq!(host.finds(ID, "boot"), (vec![7, 6], vec![7, 6]));
        let rebooted = Host { data: host.data, run: tempfile::tempdir().unwrap() };
        assert_eq!(rebooted.finds(ID, "later"), (vec![], vec![7, 6]));
        assert_eq!(
            rebooted.finds(ID, "later"),
            (vec![], vec![7, 6]),
            "a restart makes no permission of it"
        );
        assert_eq!(rebooted.finds(OTHER, "later"), (vec![], vec![]));
        // `run_dir` on a disk: it came along, and does not count.
        host.run.path().join("session.json").exists().then_some(()).unwrap();
        assert_eq!(Host { run: host.run, ..rebooted }.finds(ID, "later").0, Vec::<i64>::new());
    }

    #[test]
    fn what_the_version_before_left_is_a_permission_only_where_it_ran_in_this_boot() {
        let old = r#"{"lease":5,"ttl_ms":10000}"#;
        let host = Host::new();
        std::fs::write(host.data.path().join("session.json"), old).unwrap();
        std::fs::create_dir(host.run.path().join("units")).unwrap();
        assert_eq!(host.finds(ID, "boot"), (vec![5], vec![5]));
        assert_eq!(host.finds(ID, "boot"), (vec![5], vec![5]), "and so after a restart");
        let copy = Host::new();
        std::fs::write(copy.data.path().join("session.json"), old).unwrap();
        assert_eq!(copy.finds(ID, "boot"), (vec![], vec![5]));
        std::fs::create_dir(copy.run.path().join("units")).unwrap(); // as the agent does
        assert_eq!(copy.finds(ID, "boot"), (vec![], vec![5]), "a refused copy that is restarted");
    }

    #[test]
    fn the_version_before_reads_what_is_written_and_damage_is_nothing() {
        let host = Host::new();
        host.files(ID, "boot").keep(LeaseId(7), 10_000, None);
        let path = host.data.path().join("session.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(r#"{"lease":7,"ttl_ms":10000,"#), "{text}");
        std::fs::write(&path, "{").unwrap();
        std::fs::remove_file(host.run.path().join("session.json")).unwrap();
        assert_eq!(host.finds(ID, "boot"), (vec![], vec![]));
    }
}
