//! What fleet wrote on this host: one small file a unit under `/run/fleet/units`, gone with a reboot like the units themselves.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fleet_core::converge::Marker;
use fleet_core::name::UnitName;
use tracing::warn;

/// The markers, in memory and on disk. A restarted fleetd adopts what runs by them.
#[derive(Debug)]
pub(super) struct Markers {
    folder: PathBuf,
    /// Is there while files were changed that systemd has not read again, so that a crash in between forgets nothing.
    reload_due: PathBuf,
    /// Is there while units were enabled whose targets do not know it yet; that can wait for a quiet time.
    links_due: PathBuf,
    markers: BTreeMap<UnitName, Marker>,
}

impl Markers {
    /// Reads what an earlier fleetd left. A file that cannot be read is said and passed over: its unit then is the host's.
    pub(super) fn open(folder: &Path) -> io::Result<Markers> {
        std::fs::create_dir_all(folder)?;
        let mut markers = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            let read = std::fs::read(&path)
                .map_err(|e| e.to_string())
                .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string()));
            match read {
                Ok(marker) => {
                    markers.insert(UnitName::trusted(name), marker);
                }
                Err(problem) => warn!("{}: {problem}; fleet will not touch this unit", path.display()),
            }
        }
        let (reload_due, links_due) = (folder.join("reload-due"), folder.join("links-due"));
        Ok(Markers { folder: folder.to_path_buf(), reload_due, links_due, markers })
    }

    pub(super) fn reload_is_due(&self) -> bool {
        self.reload_due.exists()
    }

    /// Notes that files were changed that systemd must read again before it starts anything.
    pub(super) fn note_reload_due(&self) {
        note(&self.reload_due, std::fs::write(&self.reload_due, ""));
    }

    /// Whether targets should learn of units that were enabled.
    pub(super) fn links_are_due(&self) -> bool {
        self.links_due.exists()
    }

    pub(super) fn note_links_due(&self) {
        note(&self.links_due, std::fs::write(&self.links_due, ""));
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

    pub(super) fn get(&self, name: &UnitName) -> Option<&Marker> {
        self.markers.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &UnitName> {
        self.markers.keys()
    }

    pub(super) fn set(&mut self, name: &UnitName, marker: Marker) -> io::Result<()> {
        if self.markers.get(name) == Some(&marker) {
            return Ok(());
        }
        // /run is memory: no sync; the rename keeps a crash of fleetd from leaving half a file.
        let path = self.path(name);
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(&marker)?)?;
        std::fs::rename(&temporary, &path)?;
        self.markers.insert(name.clone(), marker);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &UnitName) -> io::Result<()> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                self.markers.remove(name);
                Ok(())
            }
        }
    }

    fn path(&self, name: &UnitName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }
}

fn note(path: &Path, noted: io::Result<()>) {
    if let Err(error) = noted {
        warn!("{}: {error}", path.display());
    }
}
