//! An exported cluster on disk: `units/<name>` as submitted, and `fleet.json` with the rest.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use fleet_core::name::UnitName;
use fleet_core::transfer::{Export, MAX_IMPORT_BYTES};
use fleet_core::unit::file::MAX_UNIT_BYTES;
use rustix::fs::OFlags;

use crate::error::Error;

/// Everything but the unit files.
const DOCUMENT: &str = "fleet.json";

/// The folder of the unit files.
const UNITS: &str = "units";

/// Writes the folder, which must be new or empty; it appears whole. Only its owner may read it:
/// unit files hold secrets at times.
pub(crate) fn write(folder: &Path, export: &Export) -> Result<(), Error> {
    // Whoever answered could name any file of this machine.
    for name in export.units.keys() {
        UnitName::parse(name).map_err(|problem| {
            Error::failed(format!("fleetd names a unit {name:?}: {problem}; nothing was written"))
                .hint("`fleetctl store check` lists everything wrong with its store")
        })?;
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Beside it, so that it can be renamed; it removes itself after an error.
    let partial = tempfile::Builder::new()
        .prefix(".fleet-export.")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(|problem| cannot_write(parent, &problem))?;
    let units = partial.path().join(UNITS);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&units)
        .map_err(|problem| cannot_write(&units, &problem))?;
    let mut document = export.clone();
    for (name, unit) in &mut document.units {
        let path = units.join(name);
        write_private(&path, std::mem::take(&mut unit.text).as_bytes())
            .map_err(|problem| cannot_write(&path, &problem))?;
    }
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    write_private(&partial.path().join(DOCUMENT), text.as_bytes())
        .map_err(|problem| cannot_write(folder, &problem))?;
    fs::rename(partial.path(), folder).map_err(|problem| {
        let error = cannot_write(folder, &problem);
        if folder.exists() { error.hint("name a new folder, or an empty one") } else { error }
    })?;
    // What the name pointed to is the export now.
    let _ = partial.keep();
    Ok(())
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

fn cannot_write(what: &Path, problem: &std::io::Error) -> Error {
    Error::failed(format!("cannot write {}: {problem}", what.display()))
}

/// Reads a folder; a unit without a file and a file without an entry are errors, since something
/// was lost.
pub(crate) fn read(folder: &Path) -> Result<Export, Error> {
    let path = folder.join(DOCUMENT);
    let text = read_plain(&path, MAX_IMPORT_BYTES)?;
    let mut export: Export = serde_json::from_str(&text).map_err(|problem| {
        Error::failed(format!("{}:{}: {problem}", path.display(), problem.line()))
            .hint("`fleetctl export` writes such folders")
    })?;
    let units = folder.join(UNITS);
    if units.is_symlink() {
        return Err(cannot_read(&units, "it is a symbolic link; an exported folder has none"));
    }
    for (name, unit) in &mut export.units {
        // A name that is none could be a path to anywhere.
        UnitName::parse(name)
            .map_err(|problem| Error::failed(format!("{}: {name:?}: {problem}", path.display())))?;
        unit.text = read_plain(&units.join(name), MAX_UNIT_BYTES)?;
    }
    let entries = fs::read_dir(&units).map_err(|problem| cannot_read(&units, problem))?;
    let names: BTreeSet<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    match names.iter().find(|name| !export.units.contains_key(*name)) {
        Some(name) => Err(Error::failed(format!(
            "{} has no entry for {UNITS}/{name}",
            path.display()
        ))
        .hint(format!(
            "add \"{name}\": {{\"desiredState\": \"inactive\"}} to its units, or remove the file"
        ))),
        None => Ok(export),
    }
}

/// Reads a plain file. A link may lead to what is none of the cluster's, a pipe or a device may
/// have no end.
fn read_plain(path: &Path, limit: usize) -> Result<String, Error> {
    // A pipe is not waited for, since it is not read.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file =
        fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = file.map_err(|problem| match path.is_symlink() {
        true => cannot_read(path, "it is a symbolic link; an exported folder has none"),
        false => cannot_read(path, problem),
    })?;
    let metadata = file.metadata().map_err(|problem| cannot_read(path, problem))?;
    if !metadata.is_file() {
        return Err(cannot_read(
            path,
            "it is not a regular file; an exported folder has only folders and regular files",
        ));
    }
    if metadata.len() > limit as u64 {
        return Err(cannot_read(
            path,
            format_args!("it has {} bytes; the limit is {limit}", metadata.len()),
        ));
    }
    let mut text = String::new();
    file.take(limit as u64)
        .read_to_string(&mut text)
        .map_err(|problem| cannot_read(path, problem))?;
    Ok(text)
}

fn cannot_read(what: &Path, problem: impl std::fmt::Display) -> Error {
    Error::failed(format!("cannot read {}: {problem}", what.display()))
}
