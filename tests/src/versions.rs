//! Programs of another version, for tests of upgrades.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::lab::{bin_folder, programs};

/// This version with another last digit: of the same length, see [`other_version`].
pub fn next_version() -> String {
    let (last, rest) = (
        env!("CARGO_PKG_VERSION").chars().last(),
        &env!("CARGO_PKG_VERSION")[..env!("CARGO_PKG_VERSION").len() - 1],
    );
    let digit = last.and_then(|last| last.to_digit(10)).map_or(1, |digit| (digit + 1) % 10);
    format!("{rest}{digit}")
}

/// The built programs, saying that they are of another version: a second build of everything would
/// take minutes.
pub fn other_version(folder: &Path, version: &str) -> Result<PathBuf> {
    let (others, here) = (folder.join("bin"), env!("CARGO_PKG_VERSION").as_bytes());
    std::fs::create_dir(&others)?;
    for name in programs()? {
        let from = bin_folder()?.join(&name);
        let mut bytes = std::fs::read(&from)?;
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(here.len()).position(|window| window == here) {
            at += found;
            bytes[at..at + here.len()].copy_from_slice(version.as_bytes());
        }
        ensure!(at > 0 || name != "fleetd", "{} does not say its version", from.display());
        let to = others.join(name);
        std::fs::write(&to, bytes)?;
        std::fs::set_permissions(&to, std::fs::metadata(&from)?.permissions())?;
    }
    Ok(others)
}
