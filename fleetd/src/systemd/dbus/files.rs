//! Unit files on disk: fleet's own in the unit folder, and the look for the host's.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use fleet_core::name::UnitName;

use crate::process::files;
use crate::systemd::{DROP_IN, SystemdError};

/// The unit folder. Its calls block, but for microseconds: the folder is in memory, so nothing is
/// synced either.
pub(super) struct Files {
    root: PathBuf,
    /// Where systemd sees the folder that it finds units in.
    seen_at: PathBuf,
    dir: PathBuf,
    /// Where the texts lie, if that is another folder, as systemd sees it: `dir` then has links to
    /// them.
    texts_at: Option<PathBuf>,
}

/// Numbers temporary files, so that two writes never share one.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

impl Files {
    /// `runtime` is systemd's own folder for units of this boot, `unit_dir` the one to write to.
    pub(super) fn new(root: PathBuf, runtime: &Path, unit_dir: PathBuf) -> Files {
        // Compared by components, so that a slash at the end does not matter.
        let texts_at = (unit_dir != runtime).then_some(unit_dir);
        Files { dir: below(&root, runtime), root, seen_at: runtime.to_path_buf(), texts_at }
    }

    /// The drop-in comes first: once systemd finds the unit file, all of the unit is there.
    pub(super) fn write(
        &self,
        name: &UnitName,
        text: &str,
        drop_in: &str,
    ) -> Result<(), SystemdError> {
        let folder = self.drop_in_folder(name);
        files::public_folder(&folder).map_err(|source| failed(&folder, source))?;
        self.replace(&folder, DROP_IN, drop_in)?;
        match &self.texts_at {
            None => self.replace(&self.dir, name.as_str(), text)?,
            Some(texts_at) => {
                self.replace(&below(&self.root, texts_at), name.as_str(), text)?;
                self.link(name, &texts_at.join(name.as_str()))?;
            }
        }
        self.mark_changed()
    }

    fn link(&self, name: &UnitName, text: &Path) -> Result<(), SystemdError> {
        let link = self.dir.join(name.as_str());
        if fs::read_link(&link).is_ok_and(|target| target == text) {
            return Ok(());
        }
        let temporary = self.temporary(&self.dir);
        let linked = std::os::unix::fs::symlink(text, &temporary)
            .and_then(|()| fs::rename(&temporary, &link));
        linked.map_err(|source| failed(&link, source))
    }

    /// Leaves the instance to its template's file; whether anything had to be written or removed
    /// for that.
    ///
    /// A drop-in of the same name in the instance's own folder takes the place of the template's:
    /// all of it stands in either.
    pub(super) fn share(
        &self,
        name: &UnitName,
        drop_in: Option<&str>,
    ) -> Result<bool, SystemdError> {
        let folder = self.drop_in_folder(name);
        let mut changed = false;
        match drop_in {
            Some(text) => {
                files::public_folder(&folder).map_err(|source| failed(&folder, source))?;
                self.replace(&folder, DROP_IN, text)?;
                changed = true;
            }
            None => changed |= delete(&folder.join(DROP_IN))?,
        }
        changed |= self.delete_unit(name)?;
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
        let read =
            |path: PathBuf| fs::read_to_string(&path).map_err(|source| failed(&path, source));
        let text = read(self.dir.join(template.as_str()))?;
        let own = self.drop_in_folder(name).join(DROP_IN);
        let drop_in =
            read(if own.exists() { own } else { self.drop_in_folder(&template).join(DROP_IN) })?;
        self.write(name, &text, &drop_in)
    }

    pub(super) fn remove(&self, name: &UnitName) -> Result<(), SystemdError> {
        let folder = self.drop_in_folder(name);
        // The unit file first: a half-removed unit must not run without its drop-in.
        let changed = self.delete_unit(name)? | delete(&folder.join(DROP_IN))?;
        self.remove_folder(&folder)?;
        if changed { self.mark_changed() } else { Ok(()) }
    }

    /// The unit's file, and the text that it is a link to.
    fn delete_unit(&self, name: &UnitName) -> Result<bool, SystemdError> {
        let text =
            self.texts_at.as_ref().map(|texts_at| below(&self.root, texts_at).join(name.as_str()));
        Ok(delete(&self.dir.join(name.as_str()))? | text.map_or(Ok(false), |text| delete(&text))?)
    }

    fn remove_folder(&self, folder: &Path) -> Result<(), SystemdError> {
        match fs::remove_dir(folder) {
            // The host may keep drop-ins of its own there.
            Err(error)
                if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) =>
            {
                Err(failed(folder, error))
            }
            _ => Ok(()),
        }
    }

    /// The first file of this name or its template's in `search`, systemd's search path, that fleet
    /// did not write.
    pub(super) fn host_defines(&self, name: &UnitName, search: &[String]) -> Option<String> {
        let names = [Some(name.clone()), name.template()];
        for dir in search {
            let ours =
                Path::new(dir) == self.seen_at || Some(Path::new(dir)) == self.texts_at.as_deref();
            let dir = below(&self.root, Path::new(dir));
            for name in names.iter().flatten() {
                let file = dir.join(name.as_str());
                // A link counts as it is: a mask points to /dev/null, and an enabled unit's link
                // may point anywhere.
                if file.symlink_metadata().is_ok() && !(ours && self.is_ours(name)) {
                    let seen = file.strip_prefix(&self.root).unwrap_or(&file);
                    return Some(Path::new("/").join(seen).display().to_string());
                }
            }
        }
        None
    }

    /// The first file of the host's own in `search` that systemd prefers to what fleet wrote under
    /// this name.
    ///
    /// systemd takes the first file of an instance's own name, and only without one the template's.
    /// A mask is no unit.
    pub(super) fn host_takes_over(&self, name: &UnitName, search: &[String]) -> Option<String> {
        let before = &search[..self.place_of_fleets(search)];
        let is_written = |name: &UnitName| self.dir.join(name.as_str()).symlink_metadata().is_ok();
        let places = match name.template() {
            _ if is_written(name) => vec![(name.clone(), before)],
            Some(template) if is_written(&template) => {
                vec![(name.clone(), search), (template, before)]
            }
            template => [Some(name.clone()), template]
                .into_iter()
                .flatten()
                .map(|name| (name, search))
                .collect(),
        };
        for (name, dirs) in places {
            for dir in dirs {
                let file = below(&self.root, Path::new(dir)).join(name.as_str());
                if file.symlink_metadata().is_ok()
                    && Some(Path::new(dir)) != self.texts_at.as_deref()
                {
                    let masks =
                        fs::read_link(&file).is_ok_and(|target| target == Path::new("/dev/null"));
                    return (!masks)
                        .then(|| Path::new(dir).join(name.as_str()).display().to_string());
                }
            }
        }
        None
    }

    /// Where systemd finds fleet's files on its search path.
    fn place_of_fleets(&self, search: &[String]) -> usize {
        search.iter().position(|dir| Path::new(dir) == self.seen_at).unwrap_or(search.len())
    }

    /// Whether this is where systemd reads fleet's own unit of this name, or of its template.
    pub(super) fn is_fleets(&self, name: &UnitName, fragment: &str) -> bool {
        let names = [Some(name.clone()), name.template()];
        let folders = [Some(self.seen_at.as_path()), self.texts_at.as_deref()];
        let at = |name: &UnitName| {
            folders.iter().flatten().any(|folder| Path::new(fragment) == folder.join(name.as_str()))
        };
        names.iter().flatten().any(at)
    }

    /// Whether fleet wrote the unit of this name.
    pub(super) fn is_ours(&self, name: &UnitName) -> bool {
        self.drop_in_folder(name).join(DROP_IN).exists()
    }

    fn drop_in_folder(&self, name: &UnitName) -> PathBuf {
        self.dir.join(format!("{name}.d"))
    }

    /// Writes beside and renames. The temporary name has no unit suffix, so that systemd passes
    /// over it.
    fn replace(&self, folder: &Path, name: &str, text: &str) -> Result<(), SystemdError> {
        let target = folder.join(name);
        let temporary = self.temporary(folder);
        let written = (|| {
            io::Write::write_all(&mut files::create(&temporary, files::PUBLIC)?, text.as_bytes())?;
            fs::rename(&temporary, &target)
        })();
        written.map_err(|source| {
            let _ = fs::remove_file(&temporary);
            failed(&target, source)
        })
    }

    fn temporary(&self, folder: &Path) -> PathBuf {
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        folder.join(format!(".fleet-{}-{number}.tmp", std::process::id()))
    }

    /// Gives the folder a modification time of its own.
    ///
    /// systemd reads the folder again only when that time changed (in µs). Linux before 6.13 takes
    /// it from a clock of 1–10 ms, so a file written right after another unit was started would
    /// stay unseen: "Unit … not found." until something else changes.
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

/// A path as this process sees it.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
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
        let files = Files::new(
            root.path().to_path_buf(),
            Path::new("/run/units"),
            PathBuf::from("/run/units/"),
        );
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
        assert_eq!(
            fs::read_to_string(dir.join("web@1.service.d/10-fleet.conf")).unwrap(),
            "[Unit]\n"
        );
        let mode = |path: &str| fs::metadata(dir.join(path)).unwrap().permissions().mode() & 0o777;
        let modes =
            || ["web@1.service", "web@1.service.d", "web@1.service.d/10-fleet.conf"].map(mode);
        assert_eq!(modes(), [0o644, 0o755, 0o644]);
        // One that was made under a umask of 0077.
        fs::set_permissions(dir.join("web@1.service.d"), fs::Permissions::from_mode(0o700))
            .unwrap();
        files.write(&web, "[Service]\n", "[Unit]\n").unwrap();
        assert_eq!(modes(), [0o644, 0o755, 0o644]);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        files.remove(&web).unwrap();
        files.remove(&web).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn an_instance_that_shares_its_templates_file_writes_nothing_and_a_copy_of_its_own_is_the_same()
    {
        let Host { root, files } = host();
        let dir = root.path().join("run/units");
        let read = |path: &str| fs::read_to_string(dir.join(path)).unwrap();
        let (template, one, two) =
            (name("web@.service"), name("web@1.service"), name("web@2.service"));
        files.write(&template, "text", "first slice").unwrap();
        files.write(&one, "older text", "older").unwrap();
        assert!(files.share(&one, None).unwrap(), "its own file goes");
        assert!(!files.share(&one, None).unwrap());
        assert!(files.share(&two, Some("second slice")).unwrap());
        assert_eq!(
            fs::read_dir(&dir).unwrap().count(),
            3,
            "the template, its drop-in, and a drop-in of the second"
        );
        for (instance, slice) in [(&one, "first slice"), (&two, "second slice")] {
            files.unshare(instance).unwrap();
            assert_eq!(read(instance.as_str()), "text");
            assert_eq!(read(&format!("{instance}.d/{DROP_IN}")), slice);
            files.remove(instance).unwrap();
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn another_folder_than_systemd_s_has_the_texts_and_systemd_s_has_links() {
        let Host { root, .. } = host();
        let count = |dir: &Path| fs::read_dir(dir).unwrap().count();
        fs::create_dir_all(root.path().join("run/fleet/units")).unwrap();
        let files = Files::new(
            root.path().to_path_buf(),
            Path::new("/run/units"),
            PathBuf::from("/run/fleet/units/"),
        );
        let web = name("web@1.service");
        files.write(&web, "old", "old").unwrap();
        files.write(&web, "new", "[Unit]\n").unwrap();
        let (dir, texts) = (root.path().join("run/units"), root.path().join("run/fleet/units"));
        assert_eq!(fs::read_to_string(texts.join("web@1.service")).unwrap(), "new");
        assert_eq!(
            fs::read_link(dir.join("web@1.service")).unwrap().to_str(),
            Some("/run/fleet/units/web@1.service")
        );
        assert!(dir.join("web@1.service.d/10-fleet.conf").exists());
        assert_eq!(
            files.host_defines(&web, &["/run/units".to_string(), "/run/fleet/units".to_string()]),
            None
        );
        files.remove(&web).unwrap();
        assert_eq!((count(&dir), count(&texts)), (0, 0));
    }

    #[test]
    fn a_file_of_the_hosts_takes_a_name_over_where_systemd_prefers_it_to_fleets() {
        let Host { root, files } = host();
        let search = ["/etc/units", "/run/units", "/lib/units"].map(str::to_string);
        fs::create_dir_all(root.path().join("lib/units")).unwrap();
        let by = |text: &str| files.host_takes_over(&name(text), &search);
        let put = |path: &str| fs::write(root.path().join(path), "").unwrap();
        let (one, template) = (name("one.service"), name("web@.service"));
        put("etc/units/one.service");
        files.write(&one, "", "").unwrap();
        files.write(&template, "", "").unwrap();
        assert_eq!(by("one.service").as_deref(), Some("/etc/units/one.service"));
        fs::remove_file(root.path().join("etc/units/one.service")).unwrap();
        put("lib/units/one.service");
        assert_eq!(by("one.service"), None, "fleet's goes before what a package brings");
        std::os::unix::fs::symlink("/dev/null", root.path().join("etc/units/one.service")).unwrap();
        assert_eq!(by("one.service"), None, "a mask is no unit");
        assert_eq!(by("web@1.service"), None);
        put("lib/units/web@1.service");
        assert_eq!(
            by("web@1.service").as_deref(),
            Some("/lib/units/web@1.service"),
            "its own name goes before the template's"
        );
        put("etc/units/web@.service");
        assert_eq!(by("web@2.service").as_deref(), Some("/etc/units/web@.service"));
        assert!(files.is_fleets(&name("web@2.service"), "/run/units/web@.service"));
        assert!(!files.is_fleets(&name("web@2.service"), "/etc/units/web@.service"));
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
        std::os::unix::fs::symlink("/dev/null", root.path().join("etc/units/web@.service"))
            .unwrap();
        assert_eq!(defined("web@1.service").as_deref(), Some("/etc/units/web@.service"));
        assert_eq!(defined("web.service"), None);
    }
}
