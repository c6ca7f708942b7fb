//! An exported cluster on disk: `units/<name>` as submitted, and `fleet.json` with the rest.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fleet_core::name::UnitName;
use fleet_core::transfer::Export;

use crate::error::Error;

/// Everything but the unit files.
const DOCUMENT: &str = "fleet.json";

/// The folder of the unit files.
const UNITS: &str = "units";

/// Writes the folder, which must be new or empty; it appears whole. Only its owner may read it: unit files hold secrets at times.
pub(crate) fn write(folder: &Path, export: &Export) -> Result<(), Error> {
    let cannot = |what: &Path, problem: std::io::Error| Error::failed(format!("cannot write {}: {problem}", what.display()));
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Beside it, so that it can be renamed; it removes itself after an error.
    let partial =
        tempfile::Builder::new().prefix(".fleet-export.").tempdir_in(parent).map_err(|problem| cannot(parent, problem))?;
    let units = partial.path().join(UNITS);
    fs::create_dir(&units).map_err(|problem| cannot(&units, problem))?;
    let mut document = export.clone();
    for (name, unit) in &mut document.units {
        let path = units.join(name);
        fs::write(&path, std::mem::take(&mut unit.text)).map_err(|problem| cannot(&path, problem))?;
    }
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    fs::write(partial.path().join(DOCUMENT), text).map_err(|problem| cannot(folder, problem))?;
    fs::rename(partial.path(), folder).map_err(|problem| {
        let error = cannot(folder, problem);
        if folder.exists() { error.hint("name a new folder, or an empty one") } else { error }
    })?;
    // What the name pointed to is the export now.
    let _ = partial.keep();
    Ok(())
}

/// Reads a folder; a unit without a file and a file without an entry are errors, since something was lost.
pub(crate) fn read(folder: &Path) -> Result<Export, Error> {
    let cannot = |what: &Path, problem: std::io::Error| Error::failed(format!("cannot read {}: {problem}", what.display()));
    let path = folder.join(DOCUMENT);
    let text = fs::read_to_string(&path).map_err(|problem| cannot(&path, problem))?;
    let mut export: Export = serde_json::from_str(&text).map_err(|problem| {
        Error::failed(format!("{}:{}: {problem}", path.display(), problem.line())).hint("`fleetctl export` writes such folders")
    })?;
    let units = folder.join(UNITS);
    for (name, unit) in &mut export.units {
        // A name that is none could be a path to anywhere.
        UnitName::parse(name).map_err(|problem| Error::failed(format!("{}: {name:?}: {problem}", path.display())))?;
        let file = units.join(name);
        unit.text = fs::read_to_string(&file).map_err(|problem| cannot(&file, problem))?;
    }
    let entries = fs::read_dir(&units).map_err(|problem| cannot(&units, problem))?;
    let names: BTreeSet<String> =
        entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match names.iter().find(|name| !export.units.contains_key(*name)) {
        Some(name) => Err(Error::failed(format!("{} has no entry for {UNITS}/{name}", path.display()))
            .hint(format!("add \"{name}\": {{\"desiredState\": \"inactive\"}} to its units, or remove the file"))),
        None => Ok(export),
    }
}
