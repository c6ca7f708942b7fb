//! What must be there before a lab can start: Debian packages, the hosts' image, fleet's own
//! packages in it.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Installs missing packages, builds the image if its recipe is new, and returns the image's
/// folder.
///
/// The work is in `tests/lab/setup.sh`, which a machine without Rust can run too.
pub fn setup() -> Result<PathBuf> {
    folder_from("setup.sh", &[])
}

/// Where images are kept, as `tests/lab/setup.sh` has it.
pub fn cache() -> PathBuf {
    env::var_os("FLEET_LAB_CACHE")
        .map_or_else(|| PathBuf::from("/var/cache/fleet-lab"), PathBuf::from)
}

/// The image with fleet's packages installed in it, built from the programs in `FLEET_BIN_DIR`, or
/// beside the running program.
pub(crate) fn install(image: &Path) -> Result<PathBuf> {
    let folder = bin_folder()?;
    for name in programs()? {
        let path = folder.join(name);
        if !path.is_file() {
            let release = if profile(&folder) == "release" { " --release" } else { "" };
            bail!(
                "{} is missing; run `cargo build{release} --workspace --bins`, or set \
                    FLEET_BIN_DIR to the folder that has it",
                path.display()
            );
        }
    }
    folder_from("install.sh", &[image, &folder])
}

/// Builds the packages in `folder` as the hosts have them, of the programs in `from`, as if they
/// were of `version`.
pub fn packages(from: &Path, version: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    let args = ["--fast", "--version", version].map(OsStr::new);
    let said = deb(&[&args[..], &[from.as_os_str(), folder.as_os_str()]].concat())?;
    Ok(said.lines().map(PathBuf::from).collect())
}

/// The programs that the packages are built from.
pub fn programs() -> Result<Vec<String>> {
    Ok(deb(&[OsStr::new("--programs")])?.split_whitespace().map(str::to_owned).collect())
}

/// Runs the script that makes the packages, and answers with what it prints.
fn deb(args: &[&OsStr]) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/deb.sh");
    let output = Command::new("sh")
        .arg(&script)
        .args(args)
        .output()
        .with_context(|| format!("run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a script of the lab that prints a folder, and talks on stderr.
fn folder_from(script: &str, args: &[&Path]) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab").join(script);
    let output = Command::new("sh").arg(&script).args(args).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed; its last line says why", script.display());
    }
    let path = String::from_utf8(output.stdout).context("the folder's path")?;
    Ok(PathBuf::from(path.trim()))
}

/// Builds the programs of fleet's packages as the running program was built, when cargo started it.
pub fn build() -> Result<()> {
    if env::var_os("FLEET_BIN_DIR").is_some() {
        return Ok(());
    }
    let Some(cargo) = env::var_os("CARGO") else {
        return Ok(());
    };
    let folder = bin_folder()?;
    let target = folder.parent().context("the build's target folder")?;
    let status = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // The whole workspace, for the same features as in every other build of it.
        .args(["build", "--quiet", "--workspace"])
        .args(programs()?.iter().flat_map(|name| ["--bin", name]))
        .args(["--profile", profile(&folder)])
        .arg("--target-dir")
        .arg(target)
        .stdout(Stdio::null())
        .status()
        .context("run cargo build")?;
    if !status.success() {
        bail!("fleet does not build; cargo's errors are above");
    }
    Ok(())
}

/// Where the built programs are.
pub fn bin_folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("FLEET_BIN_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let exe = env::current_exe().context("find the running program")?;
    let folder = exe.parent().context("the running program's folder")?;
    // Test binaries lie one folder deeper than the programs.
    let up = folder.file_name().is_some_and(|name| name == "deps" || name == "examples");
    Ok(if up { folder.parent().unwrap_or(folder) } else { folder }.to_path_buf())
}

/// Cargo's name of the profile whose output is in this folder.
fn profile(folder: &Path) -> &str {
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    }
}
