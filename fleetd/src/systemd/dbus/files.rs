//! Unit files on disk: fleet's own in the unit folder, and the look for the host's.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use fleet_core::name::UnitName;

use crate::systemd::{DROP_IN, SystemdError};

/// The unit folder. Its calls block, but for microseconds: the folder is in memory, so nothing is synced either.
pub(super) struct Files {
    root: PathBuf,
    /// Where systemd sees the folder.
    seen_at: PathBuf,
    dir: PathBuf,
}

/// Numbers temporary files, so that two writes never share one.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

impl Files {
    pub(super) fn new(root: PathBuf, unit_dir: PathBuf) -> Files {
        let dir = root.join(unit_dir.strip_prefix("/").unwrap_or(&unit_dir));
        Files { root, seen_at: unit_dir, dir }
    }

    /// The drop-in comes first: once systemd finds the unit file, all of the unit is there.
    pub(super) fn write(&self, name: &UnitName, text: &str, drop_in: &str) -> Result<(), SystemdError> {
        let folder = self.drop_in_folder(name);
        fs::create_dir_all(&folder).map_err(|source| failed(&folder, source))?;
        self.replace(&folder, DROP_IN, drop_in)?;
        self.replace(&self.dir, name.as_str(), text)?;
        self.mark_changed()
    }

    /// Leaves the instance to its template's file; whether anything had to be written or removed for that.
    ///
    /// A drop-in of the same name in the instance's own folder takes the place of the template's: all of it stands in either.
    pub(super) fn share(&self, name: &UnitName, drop_in: Option<&str>) -> Result<bool, SystemdError> {
        let (folder, own) = (self.drop_in_folder(name), self.dir.join(name.as_str()));
        let mut changed = false;
        match drop_in {
            Some(text) => {
                fs::create_dir_all(&folder).map_err(|source| failed(&folder, source))?;
                self.replace(&folder, DROP_IN, text)?;
                changed = true;
            }
            None => changed |= delete(&folder.join(DROP_IN))?,
        }
        changed |= delete(&own)?;
        if drop_in.is_none() && changed {
            self.remove_folder(&folder)?;
        }
        if changed {
            self.mark_changed()?;
        }
        Ok(changed)
    }

    /// Copies the template's file and drop-in for the instance.
    pub(super) fn unshare(&self, name: &UnitName) -> Result<(), SystemdError> {
        let template = name.template().unwrap_or_else(|| name.clone());
        let read = |path: PathBuf| fs::read_to_string(&path).map_err(|source| failed(&path, source));
        let text = read(self.dir.join(template.as_str()))?;
        let own = self.drop_in_folder(name).join(DROP_IN);
        let drop_in = read(if own.exists() { own } else { self.drop_in_folder(&template).join(DROP_IN) })?;
        self.write(name, &text, &drop_in)
    }

    pub(super) fn remove(&self, name: &UnitName) -> Result<(), SystemdError> {
        let folder = self.drop_in_folder(name);
        // The unit file first: a half-removed unit must not run without its drop-in.
        let changed = delete(&self.dir.join(name.as_str()))? | delete(&folder.join(DROP_IN))?;
        self.remove_folder(&folder)?;
        if changed { self.mark_changed() } else { Ok(()) }
    }

    fn remove_folder(&self, folder: &Path) -> Result<(), SystemdError> {
        match fs::remove_dir(folder) {
            // The host may keep drop-ins of its own there.
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Err(failed(folder, error))
            }
            _ => Ok(()),
        }
    }

    /// The first file of this name or its template's in `search`, systemd's search path, that fleet did not write.
    pub(super) fn host_defines(&self, name: &UnitName, search: &[String]) -> Option<String> {
        let names = [Some(name.clone()), name.template()];
        for dir in search {
            let ours = Path::new(dir) == self.seen_at;
            let dir = self.root.join(dir.strip_prefix('/').unwrap_or(dir));
            for name in names.iter().flatten() {
                let file = dir.join(name.as_str());
                // A link counts as it is: a mask points to /dev/null, and an enabled unit's link may point anywhere.
                if file.symlink_metadata().is_ok() && !(ours && self.drop_in_folder(name).join(DROP_IN).exists()) {
                    let seen = file.strip_prefix(&self.root).unwrap_or(&file);
                    return Some(Path::new("/").join(seen).display().to_string());
                }
            }
        }
        None
    }

    fn drop_in_folder(&self, name: &UnitName) -> PathBuf {
        self.dir.join(format!("{name}.d"))
    }

    /// Writes beside and renames. The temporary name has no unit suffix, so that systemd passes over it.
    fn replace(&self, folder: &Path, name: &str, text: &str) -> Result<(), SystemdError> {
        let target = folder.join(name);
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".fleet-{}-{number}.tmp", std::process::id()));
        let written = (|| {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
            // Whatever fleetd's umask is: users read unit files with `systemctl cat`.
            fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            fs::rename(&temporary, &target)
        })();
        written.map_err(|source| {
            let _ = fs::remove_file(&temporary);
            failed(&target, source)
        })
    }

    /// Gives the folder a modification time of its own.
    ///
    /// systemd reads the folder again only when that time changed (in µs). Linux before 6.13 takes it from a clock of 1–10 ms, so a
    /// file written right after another unit was started would stay unseen: "Unit … not found." until something else changes.
    fn mark_changed(&self) -> Result<(), SystemdError> {
        let mark = || fs::File::open(&self.dir)?.set_modified(SystemTime::now());
        mark().map_err(|source| failed(&self.dir, source))
    }
}

/// Whether there was such a file.
fn delete(file: &Path) -> Result<bool, SystemdError> {
    match fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed(file, source)),
    }
}

fn failed(path: &Path, source: io::Error) -> SystemdError {
    SystemdError::File { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Host {
        root: tempfile::TempDir,
        files: Files,
    }

    fn host() -> Host {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/units")).unwrap();
        fs::create_dir_all(root.path().join("etc/units")).unwrap();
        let files = Files::new(root.path().to_path_buf(), PathBuf::from("/run/units"));
        Host { root, files }
    }

    fn name(text: &str) -> UnitName {
        UnitName::parse(text).unwrap()
    }

    #[test]
    fn a_write_leaves_two_files_that_all_may_read_and_a_removal_leaves_nothing() {
        let Host { root, files } = host();
        let web = name("web@1.service");
        files.write(&web, "old", "old").unwrap();
        files.write(&web, "[Service]\n", "[Unit]\n").unwrap();
        let dir = root.path().join("run/units");
        assert_eq!(fs::read_to_string(dir.join("web@1.service")).unwrap(), "[Service]\n");
        assert_eq!(fs::read_to_string(dir.join("web@1.service.d/10-fleet.conf")).unwrap(), "[Unit]\n");
        assert_eq!(fs::metadata(dir.join("web@1.service")).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        files.remove(&web).unwrap();
        files.remove(&web).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn an_instance_that_shares_its_templates_file_writes_nothing_and_a_copy_of_its_own_is_the_same() {
        let Host { root, files } = host();
        let dir = root.path().join("run/units");
        let read = |path: &str| fs::read_to_string(dir.join(path)).unwrap();
        let (template, one, two) = (name("web@.service"), name("web@1.service"), name("web@2.service"));
        files.write(&template, "text", "first slice").unwrap();
        files.write(&one, "older text", "older").unwrap();
        assert!(files.share(&one, None).unwrap(), "its own file goes");
        assert!(!files.share(&one, None).unwrap());
        assert!(files.share(&two, Some("second slice")).unwrap());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "the template, its drop-in, and a drop-in of the second");
        for (instance, slice) in [(&one, "first slice"), (&two, "second slice")] {
            files.unshare(instance).unwrap();
            assert_eq!(read(instance.as_str()), "text");
            assert_eq!(read(&format!("{instance}.d/{DROP_IN}")), slice);
            files.remove(instance).unwrap();
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn every_write_gives_the_folder_a_new_time() {
        let Host { root, files } = host();
        let time = || fs::metadata(root.path().join("run/units")).unwrap().modified().unwrap();
        let times: Vec<SystemTime> = (0..100)
            .map(|i| {
                files.write(&name(&format!("u{i}.service")), "", "").unwrap();
                time()
            })
            .collect();
        let micros = |t: &SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
        assert!(times.windows(2).all(|pair| micros(&pair[0]) != micros(&pair[1])), "{times:?}");
    }

    #[test]
    fn the_hosts_own_units_are_found_and_fleets_are_not() {
        let Host { root, files } = host();
        let search = ["/etc/units".to_string(), "/run/units".to_string(), "/nowhere".to_string()];
        let defined = |text: &str| files.host_defines(&name(text), &search);
        files.write(&name("web@1.service"), "", "").unwrap();
        assert_eq!(defined("web@1.service"), None);
        fs::write(root.path().join("run/units/db.service"), "").unwrap();
        assert_eq!(defined("db.service").as_deref(), Some("/run/units/db.service"));
        std::os::unix::fs::symlink("/dev/null", root.path().join("etc/units/web@.service")).unwrap();
        assert_eq!(defined("web@1.service").as_deref(), Some("/etc/units/web@.service"));
        assert_eq!(defined("web.service"), None);
    }
}
