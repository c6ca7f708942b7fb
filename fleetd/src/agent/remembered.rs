//! What the agent remembers over a reboot: its last assignment, the unit files and
//! configurations in it, and what comes with those. Without the store it starts from that, unless
//! it is another machine's: the folder may be on a copied disk, of an image or a backup.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::model::Assignment;
use fleet_core::name::MachineId;
use tracing::warn;

use super::bundles::Blobs;
use crate::process::files::{private_folder, write_atomic};

/// How long a unit file is kept that no assignment names.
const FORGET: Duration = Duration::from_secs(3600);

/// The field of the file that names the machine. It lies beside the assignment's own, where an
/// earlier version passes over it.
const MACHINE: &str = "machine";

/// The folder that survives a reboot.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    machine: MachineId,
    assignment: PathBuf,
    texts: PathBuf,
    blobs: Blobs,
    pub(super) configurations: PathBuf,
}

impl Remembered {
    /// Creates the folder. What lies in it counts if it is `machine`'s.
    pub(super) fn open(data_dir: &Path, machine: &MachineId) -> io::Result<Remembered> {
        let (assignment, texts) = (data_dir.join("assignment.json"), data_dir.join("texts"));
        let blobs = Blobs::open(data_dir.join("blobs"))?;
        let configurations = data_dir.join("configurations");
        let machine = machine.clone();
        let remembered = Remembered { machine, assignment, texts, blobs, configurations };
        private_folder(&remembered.texts)?;
        private_folder(&remembered.configurations)?;
        Ok(remembered)
    }

    /// The last assignment; `None` if there was none, it is another machine's, or it cannot be
    /// read, which is said.
    pub(super) fn assignment(&self) -> Option<Assignment> {
        let bytes = match std::fs::read(&self.assignment) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!("cannot read {}: {error}", self.assignment.display());
                return None;
            }
        };
        let read = serde_json::from_slice(&bytes).and_then(|mut assignment: Assignment| {
            let owner = assignment
                .unknown
                .remove(MACHINE)
                .map(serde_json::from_value::<MachineId>)
                .transpose()?;
            Ok((owner, assignment))
        });
        match read {
            Ok((Some(owner), assignment)) if owner == self.machine => Some(assignment),
            Ok((owner, _)) => {
                let whose = owner.map_or("does not say which machine it is of".to_string(), |id| {
                    format!("is of machine {id}")
                });
                warn!(
                    "{} {whose}, and this is machine {}: nothing is started from it; waiting for \
                        the store",
                    self.assignment.display(),
                    self.machine
                );
                None
            }
            Err(error) => {
                warn!("cannot read {}: {error}; waiting for the store", self.assignment.display());
                None
            }
        }
    }

    /// Keeps an assignment, on the disk before this returns, and forgets the texts that it does not
    /// name.
    pub(super) fn keep(&self, assignment: &Assignment) {
        let mut owned = assignment.clone();
        owned.unknown.insert(MACHINE.to_string(), self.machine.as_str().into());
        let written = serde_json::to_vec(&owned).map_err(io::Error::from);
        let written = written.and_then(|bytes| write_atomic(&self.assignment, &bytes));
        if let Err(error) = written.and_then(|()| self.forget_all_but(assignment)) {
            warn!(
                "cannot keep the assignment in {}: {error}; after a reboot nothing starts before \
                    the store answers",
                self.assignment.display()
            );
        }
    }

    /// What comes with the unit files.
    pub(super) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Keeps a unit file under its hash.
    pub(super) fn keep_text(&self, hash: &str, text: &str) {
        let path = self.texts.join(hash);
        if !path.exists()
            && let Err(error) = write_atomic(&path, text.as_bytes())
        {
            warn!("cannot write {}: {error}", path.display());
        }
    }

    /// The unit file with this hash.
    pub(super) fn text(&self, hash: &str) -> Option<Arc<str>> {
        std::fs::read_to_string(self.texts.join(hash)).ok().map(Arc::from)
    }

    /// A text that is new may be of an assignment that comes only now, so it is left.
    fn forget_all_but(&self, assignment: &Assignment) -> io::Result<()> {
        let wanted: BTreeSet<&str> =
            assignment.instances.values().map(|placement| &*placement.hash).collect();
        for entry in std::fs::read_dir(&self.texts)? {
            let entry = entry?;
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > FORGET && !entry.file_name().to_str().is_some_and(|name| wanted.contains(name))
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        let texts: Vec<Arc<str>> = wanted.iter().filter_map(|hash| self.text(hash)).collect();
        let needed = self.blobs.needed_by(texts.iter().map(|text| &**text));
        self.blobs.forget_all_but(&needed)
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::name::UnitName;

    use super::*;

    #[test]
    fn an_assignment_and_its_texts_outlive_the_agent_and_damage_is_no_assignment() {
        let folder = tempfile::tempdir().unwrap();
        let remembered = Remembered::open(folder.path(), &MachineId::new("m")).unwrap();
        assert_eq!(remembered.assignment(), None);
        let assignment = Assignment { generation: 3, ..Assignment::default() };
        remembered.keep(&assignment);
        remembered.keep_text("abc", "[Service]");
        let again = Remembered::open(folder.path(), &MachineId::new("m")).unwrap();
        assert_eq!(
            (again.assignment(), again.text("abc").as_deref()),
            (Some(assignment), Some("[Service]"))
        );
        std::fs::write(folder.path().join("assignment.json"), "{").unwrap();
        assert_eq!(again.assignment(), None);
    }

    #[test]
    fn an_assignment_of_another_machine_or_of_one_that_is_not_named_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let open = |id: &str| Remembered::open(folder.path(), &MachineId::new(id)).unwrap();
        let assignment = Assignment { generation: 3, ..Assignment::default() };
        open("m").keep(&assignment);
        assert_eq!(
            (open("m").assignment(), open("other").assignment()),
            (Some(assignment.clone()), None)
        );
        let path = folder.path().join("assignment.json");
        let text = std::fs::read(&path).unwrap();
        let before: Assignment = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            (before.generation, before.instances.len()),
            (3, 0),
            "an earlier version reads it"
        );
        std::fs::write(&path, serde_json::to_vec(&assignment).unwrap()).unwrap();
        assert_eq!(open("m").assignment(), None, "an earlier version's");
    }

    #[test]
    fn a_text_that_nothing_names_is_forgotten_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let remembered = Remembered::open(folder.path(), &MachineId::new("m")).unwrap();
        let mut assignment = Assignment::default();
        let placement = r#"{"unit":"a.service","revision":1,"hash":"used","state":"launched","why":"fewest","since_ms":0}"#;
        assignment
            .instances
            .insert(UnitName::trusted("a.service"), serde_json::from_str(placement).unwrap());
        for hash in ["used", "unused", "new"] {
            remembered.keep_text(hash, "x");
        }
        for hash in ["used", "unused"] {
            let file = std::fs::File::open(folder.path().join("texts").join(hash)).unwrap();
            file.set_modified(std::time::SystemTime::now() - 2 * FORGET).unwrap();
        }
        remembered.keep(&assignment);
        assert_eq!(
            ["used", "unused", "new"].map(|hash| remembered.text(hash).is_some()),
            [true, false, true]
        );
    }
}
