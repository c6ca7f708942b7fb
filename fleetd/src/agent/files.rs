//! The files that come with instances: `/run/fleet/files/<stem>/`, one folder a service, replaced
//! as a whole, so that no instance ever finds old and new files in one.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fleet_core::app::path_refusal;
use fleet_core::name::UnitName;

use crate::process::files::public_folder;

/// What only its owner and its group may look into.
const FOLDER: u32 = 0o750;

/// The modes of a file, and of one that may be run.
const FILE: u32 = 0o640;
const PROGRAM: u32 = 0o750;

/// Beside the folders: those that are being filled, and those that a running instance may still
/// have mounted. No service's stem begins with a dot.
const NEW: &str = ".new";
const BEFORE: &str = ".before";

/// What stays free of the file system, which is memory that systemd, podman and fleetd need, too:
/// so many bytes, or a quarter of it where that is less.
const KEPT_FREE: u64 = 64 * 1024 * 1024;

/// What a file or folder takes at least.
const BLOCK: u64 = 4096;

/// A file of an instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct File<'a> {
    /// Its path in the instance's folder.
    pub(super) path: &'a str,
    pub(super) content: &'a [u8],
    pub(super) executable: bool,
}

/// The folder of all the folders.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// The stems of the services that have files set aside for what still runs with them.
    aside: BTreeSet<String>,
    /// How much room there is.
    room: fn(&Path) -> io::Result<Room>,
}

/// The size of a file system and what is free of it, in bytes.
#[derive(Debug, Clone, Copy)]
struct Room {
    size: u64,
    free: u64,
}

impl Room {
    fn of(path: &Path) -> io::Result<Room> {
        let found = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Room { size: bytes(found.f_blocks), free: bytes(found.f_bavail) })
    }

    /// Why these files are too many.
    fn refusal(self, files: &[File<'_>]) -> Option<String> {
        let size = |file: &File| (file.content.len() as u64).next_multiple_of(BLOCK) + BLOCK;
        let needed: u64 = files.iter().map(size).sum();
        let kept = KEPT_FREE.min(self.size / 4);
        let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
        (needed > self.free.saturating_sub(kept)).then(|| {
            format!(
                "its files take {} MiB, {} MiB are free, and {} MiB stay free for the system; make \
                 it larger (`mount -o remount,size=…`), or run fewer instances with files here",
                mib(needed),
                self.free / 1024 / 1024,
                mib(kept)
            )
        })
    }
}

impl Files {
    /// Takes away what an earlier fleetd was about to write. What it set aside stays: something
    /// may run with it, for as long as the store is away.
    pub(super) fn open(root: PathBuf) -> io::Result<Files> {
        public_folder(&root)?;
        let mut files = Files { root, aside: BTreeSet::new(), room: Room::of };
        files.empty(NEW)?;
        let before = files.root.join(BEFORE);
        if !before.is_dir() {
            DirBuilder::new().mode(0o700).create(&before)?;
        }
        for entry in fs::read_dir(before)? {
            files.aside.extend(entry?.file_name().into_string());
        }
        Ok(files)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Puts these files where the service finds them. What was there stays mounted in what runs
    /// until [`Files::forget_old`].
    pub(super) fn put(&mut self, service: &UnitName, files: &[File<'_>]) -> Result<(), String> {
        if !files.is_empty()
            && let Some(problem) = (self.room)(&self.root).ok().and_then(|room| room.refusal(files))
        {
            return Err(format!("{}: {problem}", self.root.display()));
        }
        let new = self.root.join(NEW).join(service.stem());
        let filled = remove_all(&new)
            .and_then(|()| folder(&new))
            .map_err(|error| format!("cannot make the folder {}: {error}", new.display()));
        filled?;
        for file in files {
            // A path becomes a file: the last place where a bad one is found.
            if let Some(problem) = path_refusal(file.path) {
                return Err(problem);
            }
            let path = new.join(file.path);
            write(&path, file)
                .map_err(|error| format!("cannot write {} for {service}: {error}", file.path))?;
        }
        let place = self.place(service);
        let moved = self.set_aside(service).and_then(|()| fs::rename(&new, &place));
        moved.map_err(|error| format!("cannot put files into {}: {error}", place.display()))
    }

    /// Takes the service's files away, also those that it had before.
    pub(super) fn remove(&mut self, service: &UnitName) -> Result<(), String> {
        let place = self.place(service);
        remove_all(&place)
            .map_err(|error| format!("cannot remove {}: {error}", place.display()))?;
        self.forget_old(service);
        Ok(())
    }

    /// Whether any service has files set aside.
    pub(super) fn has_aside(&self) -> bool {
        !self.aside.is_empty()
    }

    /// The service runs with its present files, or not at all.
    pub(super) fn forget_old(&mut self, service: &UnitName) {
        // If it cannot be removed now, it is at the next start of fleetd.
        if self.aside.remove(service.stem()) {
            let _ = remove_all(&self.root.join(BEFORE).join(service.stem()));
        }
    }

    /// Takes away the folders that belong to none of these services.
    pub(super) fn retain(&mut self, services: &BTreeSet<UnitName>) -> io::Result<()> {
        let stems: BTreeSet<&str> = services.iter().map(UnitName::stem).collect();
        let gone = |stem: &String| !stems.contains(stem.as_str());
        for stem in self.aside.extract_if(.., gone) {
            remove_all(&self.root.join(BEFORE).join(stem))?;
        }
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let kept = name
                .to_str()
                .is_some_and(|name| stems.contains(name) || [NEW, BEFORE].contains(&name));
            if !kept {
                remove_all(&entry.path())?;
            }
        }
        Ok(())
    }

    fn place(&self, service: &UnitName) -> PathBuf {
        self.root.join(service.stem())
    }

    fn set_aside(&mut self, service: &UnitName) -> io::Result<()> {
        let (place, before) = (self.place(service), self.root.join(BEFORE).join(service.stem()));
        if !place.exists() {
            return Ok(());
        }
        // What is set aside already is what runs: a text in between was never started.
        if before.exists() {
            return remove_all(&place);
        }
        fs::rename(place, before)?;
        self.aside.insert(service.stem().to_string());
        Ok(())
    }

    fn empty(&self, name: &str) -> io::Result<()> {
        let path = self.root.join(name);
        remove_all(&path)?;
        DirBuilder::new().mode(0o700).create(path)
    }
}

/// With the folders above it, up to the service's own.
fn write(path: &Path, file: &File<'_>) -> io::Result<()> {
    if let Some(above) = path.parent() {
        folder(above)?;
    }
    let mode = if file.executable { PROGRAM } else { FILE };
    let mut written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // Whatever the umask takes away.
    written.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    written.write_all(file.content)
}

fn folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        folder(above)?;
    }
    DirBuilder::new().mode(FOLDER).create(path)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(FOLDER))
}

/// There may be no such folder.
fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(path),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file<'a>(path: &'a str, content: &'a str) -> File<'a> {
        File { path, content: content.as_bytes(), executable: false }
    }

    fn name(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    #[test]
    fn files_are_replaced_as_a_whole_and_what_runs_keeps_the_old_ones() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("files");
        let mut files = Files::open(root.clone()).unwrap();
        let web = name("web@1.service");
        let program = File { executable: true, ..file("bin/run", "#!/bin/sh\n") };
        files.put(&web, &[file("nginx.conf", "old"), program]).unwrap();
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            ["web@1", "web@1/nginx.conf", "web@1/bin", "web@1/bin/run"].map(mode),
            [0o750, 0o640, 0o750, 0o750]
        );
        // As a bind mount does it: by the folder, not by its name.
        let mounted = fs::File::open(root.join("web@1")).unwrap();
        let seen = || {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&mounted));
            let mut names: Vec<String> = fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names.join(" ")
        };
        files.put(&web, &[file("never-started.conf", "")]).unwrap();
        files.put(&web, &[file("nginx.conf", "new")]).unwrap();
        assert_eq!(seen(), "bin nginx.conf");
        assert_eq!(fs::read_to_string(root.join("web@1/nginx.conf")).unwrap(), "new");
        assert!(!root.join("web@1/bin").exists());
        files.forget_old(&web);
        assert_eq!(seen(), "");
        files.remove(&web).unwrap();
        assert!(!root.join("web@1").exists());
    }

    #[test]
    fn files_leave_room_for_the_system() {
        const MIB: u64 = 1024 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::open(folder.path().join("files")).unwrap();
        let content = "x".repeat(3 * MIB as usize);
        let large = [file("a", &content)];
        files.room = |_| Ok(Room { size: 400 * MIB, free: 66 * MIB });
        let web = name("web.service");
        let said = files.put(&web, &large).unwrap_err();
        let expected = "its files take 4 MiB, 66 MiB are free, and 64 MiB stay free";
        assert!(said.contains(expected), "{said}");
        assert!(!folder.path().join("files/web").exists());
        files.put(&web, &[file("a", "x")]).unwrap();
        files.room = |_| Ok(Room { size: 40 * MIB, free: 14 * MIB });
        files.put(&web, &large).unwrap();
        files.room = |_| Ok(Room { size: 40 * MIB, free: 0 });
        files.put(&web, &[]).unwrap();
    }

    #[test]
    fn what_a_killed_fleetd_left_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("files");
        let mut files = Files::open(root.clone()).unwrap();
        for service in ["web@1.service", "gone.service"] {
            files.put(&name(service), &[file("a", "")]).unwrap();
            files.put(&name(service), &[file("a", "")]).unwrap();
        }
        fs::create_dir_all(root.join(NEW).join("half")).unwrap();
        let mut files = Files::open(root.clone()).unwrap();
        files.retain(&[name("web@1.service")].into()).unwrap();
        let left = |path: &Path| fs::read_dir(path).unwrap().count();
        assert_eq!((left(&root.join(NEW)), left(&root.join(BEFORE))), (0, 1));
        assert!(root.join(BEFORE).join("web@1/a").exists(), "something may run with it");
        files.forget_old(&name("web@1.service"));
        assert_eq!(left(&root.join(BEFORE)), 0);
        assert_eq!((left(&root), root.join("web@1/a").exists()), (3, true));
    }

    #[test]
    fn a_path_out_of_the_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::open(folder.path().join("files")).unwrap();
        let said = files.put(&name("a.service"), &[file("../../x", "")]).unwrap_err();
        assert!(said.contains("cannot be a file of an application"), "{said}");
        assert!(!folder.path().join("files/a").exists());
    }
}
