//! Files and folders with a mode of their own, whatever the umask is; small files are written whole
//! or not at all.
//!
//! What fleet keeps for itself is its owner's only: unit files may carry secrets. What systemd
//! reads, others may read, too: `systemctl cat` reads it as the user who asks.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The mode of a file that its owner alone may read.
pub const PRIVATE: u32 = 0o600;

/// The mode of a file that everybody may read.
pub const PUBLIC: u32 = 0o644;

const PRIVATE_FOLDER: u32 = 0o700;
const PUBLIC_FOLDER: u32 = 0o755;

/// What fleet keeps in `data_dir`, and beside it while it is written. A name that is not here is
/// somebody else's.
const KEPT: [&str; 7] =
    ["assignment", "blobs", "configurations", "session", "store", "texts", "volumes"];

/// What a file system brings by itself.
const LOST_AND_FOUND: &str = "lost+found";

/// Replaces `path` by `bytes`, readable by its owner only: a reader, or a crash, sees the old file
/// or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |file| {
        file.write_all(bytes)?;
        file.sync_data()
    })
}

/// The same without a sync, for a folder in memory: the rename keeps a crash from leaving half a
/// file.
pub fn write_in_memory(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// What cannot be written leaves nothing.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let written = create(&temporary, PRIVATE)
        .and_then(|mut file| write(&mut file))
        .and_then(|()| fs::rename(&temporary, path));
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Opens an empty file of this mode for writing, a new one or what is there.
pub fn create(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    if file.metadata()?.mode() & 0o7777 != mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(file)
}

/// A folder that everybody may look into, with those above it. One of ours that was made under a
/// narrow umask is opened, too; one under a wide umask is closed to what others write.
pub fn public_folder(path: &Path) -> io::Result<()> {
    make(path, PUBLIC_FOLDER)?;
    let found = fs::metadata(path)?;
    if is_ours(&found) {
        set(path, &found, (found.mode() | PUBLIC_FOLDER) & !0o022)
    } else {
        Ok(())
    }
}

/// A folder for its owner alone. One of ours that others may look into is closed, with the files in
/// it.
pub fn private_folder(path: &Path) -> io::Result<()> {
    make(path, PRIVATE_FOLDER)?;
    close(path)?;
    fs::read_dir(path)?.try_for_each(|entry| close(&entry?.path()))
}

/// Makes `data_dir`, or closes what is in it to others. Something else than fleet's in it is left
/// alone, and then so is the folder itself; the answer is whether that lets others look into it.
pub fn data_folder(path: &Path) -> io::Result<bool> {
    make(path, PRIVATE_FOLDER)?;
    let mut shared = false;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let stem = name.to_str().and_then(|name| name.split('.').next()).unwrap_or_default();
        match KEPT.contains(&stem) {
            true if entry.file_type()?.is_dir() => private_folder(&entry.path())?,
            true => close(&entry.path())?,
            false => shared |= name != LOST_AND_FOUND,
        }
    }
    if !shared {
        close(&fs::canonicalize(path)?)?;
    }
    Ok(fs::metadata(path)?.mode() & 0o077 != 0)
}

/// Makes the folder, if there is none, and those above it, which are no secret.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make(parent, PUBLIC_FOLDER)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()), // just now, by another process
        made => made.and_then(|()| set(path, &fs::metadata(path)?, mode)),
    }
}

/// Takes from others what they may do with it, if it is ours. A link is left alone, and so is what
/// it leads to.
fn close(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()), // gone meanwhile
        found => found?,
    };
    if found.is_symlink() || !is_ours(&found) {
        Ok(())
    } else {
        set(path, &found, found.mode() & !0o077)
    }
}

fn set(path: &Path, found: &Metadata, mode: u32) -> io::Result<()> {
    let mode = mode & 0o7777;
    if found.mode() & 0o7777 == mode {
        Ok(())
    } else {
        fs::set_permissions(path, Permissions::from_mode(mode))
    }
}

fn is_ours(found: &Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn files_and_folders_have_their_own_mode_also_where_they_had_another() {
        let root = tempfile::tempdir().unwrap();
        let (public, private, file) =
            (root.path().join("a/b"), root.path().join("c/d"), root.path().join("c/d/f.json"));
        public_folder(&public).unwrap();
        private_folder(&private).unwrap();
        write_atomic(&file, b"x").unwrap();
        let modes = || [&public, &private, &file].map(|path| mode(path));
        assert_eq!(modes(), [0o755, 0o700, 0o600]);
        assert_eq!(mode(&root.path().join("c")), 0o755, "what lies above is no secret");
        chmod(&public, 0o777);
        public_folder(&public).unwrap();
        assert_eq!(mode(&public), 0o755, "what others write there would be root's");
        chmod(&public, 0o700);
        chmod(&private, 0o755);
        chmod(&file, 0o644);
        fs::write(file.with_extension("new"), "half").unwrap();
        chmod(&file.with_extension("new"), 0o644);
        public_folder(&public).unwrap();
        private_folder(&private).unwrap();
        assert_eq!(modes(), [0o755, 0o700, 0o600]);
        write_in_memory(&file, b"y").unwrap();
        assert_eq!((mode(&file), fs::read(&file).unwrap()), (0o600, b"y".to_vec()));
    }

    #[test]
    fn what_an_older_fleetd_kept_for_all_to_read_is_closed_and_what_is_not_fleets_is_left() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("fleet");
        fs::create_dir_all(data.join("texts")).unwrap();
        let old = ["assignment.json", "session.json", "store.redb", "texts/1253888", "texts", ""]
            .map(|name| data.join(name));
        for path in &old {
            if !path.is_dir() {
                fs::write(path, "x").unwrap();
            }
            chmod(path, if path.is_dir() { 0o755 } else { 0o644 });
        }
        assert!(!data_folder(&data).unwrap());
        assert_eq!(
            old.each_ref().map(|path| mode(path)),
            [0o600, 0o600, 0o600, 0o600, 0o700, 0o700]
        );
        // A folder that is not fleet's alone keeps its mode.
        fs::write(data.join("backup.tar"), "x").unwrap();
        chmod(&data.join("backup.tar"), 0o644);
        chmod(&data, 0o755);
        chmod(&old[0], 0o644);
        assert!(data_folder(&data).unwrap());
        assert_eq!(
            [&data, &data.join("backup.tar"), &old[0]].map(|path| mode(path)),
            [0o755, 0o644, 0o600]
        );
    }
}
