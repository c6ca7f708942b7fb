//! What must be there before a lab can start: packages, the hosts' image, fleet's binaries.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The programs that a host gets from this build.
const BINARIES: [&str; 2] = ["fleetd", "fleetctl"];

/// Installs missing packages, builds the image if its recipe is new, and returns the image's folder.
///
/// The work is in `tests/lab/setup.sh`, which a machine without Rust can run too.
pub fn setup() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/setup.sh");
    let output =
        Command::new("sh").arg(&script).stderr(Stdio::inherit()).output().with_context(|| format!("run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed; its last line says why", script.display());
    }
    let path = String::from_utf8(output.stdout).context("the image's path")?;
    Ok(PathBuf::from(path.trim()))
}

/// The unit files that a package of fleetd would install.
pub(crate) fn dist_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fleetd/dist")
}

/// The built fleetd and fleetctl: in `FLEET_BIN_DIR`, or beside the running program.
pub(crate) fn binaries() -> Result<Vec<(&'static str, PathBuf)>> {
    let folder = bin_folder()?;
    BINARIES
        .into_iter()
        .map(|name| {
            let path = folder.join(name);
            if !path.is_file() {
                let release = if profile(&folder) == "release" { " --release" } else { "" };
                bail!(
                    "{} is missing; run `cargo build{release} -p fleetd -p fleetctl`, \
                     or set FLEET_BIN_DIR to the folder that has it",
                    path.display()
                );
            }
            Ok((name, path))
        })
        .collect()
}

/// Builds fleetd and fleetctl as the running program was built, when cargo started it.
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
        .args(["build", "--quiet", "--package", "fleetd", "--package", "fleetctl", "--bins"])
        .args(["--profile", profile(&folder)])
        .arg("--target-dir")
        .arg(target)
        .stdout(Stdio::null())
        .status()
        .context("run cargo build for fleetd and fleetctl")?;
    if !status.success() {
        bail!("fleetd and fleetctl do not build; cargo's errors are above");
    }
    Ok(())
}

fn bin_folder() -> Result<PathBuf> {
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
