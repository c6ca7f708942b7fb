//! Each host's own cgroup in every hierarchy: what it may use, and the proof of what belongs to the
//! lab.
//!
//! Without one, hosts share nspawn's `payload` folder and two systemds manage the same cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::process::Process;
use super::wait::wait_for;

const ROOT: &str = "/sys/fs/cgroup";

/// Whether this machine has cgroup v2 alone, rather than v1 controllers with or without v2 beside
/// them.
pub(crate) fn is_pure_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    if is_pure_v2() {
        return Ok(vec![PathBuf::from(ROOT)]);
    }
    let mut found: Vec<PathBuf> = fs::read_dir(ROOT)
        .with_context(|| format!("list {ROOT}; is the cgroup file system mounted?"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        // cpu and cpuacct are often symbolic links to one hierarchy.
        .filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists())
        .collect();
    found.sort();
    Ok(found)
}

/// Makes the host's cgroups and returns their folders.
pub(crate) fn create(lab: &str, host: &str) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(folder_name(lab, host));
        if is_pure_v2() {
            // Best effort: a machine that gives no controllers gives no accounting, but it boots
            // hosts.
            let _ = fs::write(hierarchy.join("cgroup.subtree_control"), "+cpu +memory +pids +io");
        }
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        if folder.join("cpuset.cpus").exists() && !is_pure_v2() {
            // A v1 cpuset starts empty, and an empty one accepts no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = fs::read_to_string(hierarchy.join(file))?;
                fs::write(folder.join(file), value.trim())?;
            }
            fs::write(folder.join("cgroup.clone_children"), "1")?;
        }
        made.push(folder);
    }
    Ok(made)
}

/// The cgroups that `process` is in, one folder a hierarchy.
pub(crate) fn of(process: Process) -> Result<Vec<PathBuf>> {
    let path = format!("/proc/{}/cgroup", process.pid);
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.lines().filter_map(folder_of_line).collect())
}

/// `4:memory:/lab-lab-h1/payload` is `/sys/fs/cgroup/memory/lab-lab-h1/payload`.
fn folder_of_line(line: &str) -> Option<PathBuf> {
    let mut fields = line.splitn(3, ':').skip(1);
    let controllers = fields.next()?;
    let path = fields.next()?.trim_start_matches('/');
    let hierarchy = match controllers.strip_prefix("name=").unwrap_or(controllers) {
        "" if is_pure_v2() => Path::new(ROOT).to_path_buf(),
        "" => Path::new(ROOT).join("unified"),
        name => Path::new(ROOT).join(name),
    };
    let folder = hierarchy.join(path);
    folder.is_dir().then_some(folder)
}

/// All processes of one host, or of all hosts of the lab.
pub(crate) fn processes(lab: &str, host: Option<&str>) -> Result<Vec<Process>> {
    let mut pids = Vec::new();
    for folder in folders(lab, host)? {
        visit(&folder, &mut |folder| {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        });
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids.into_iter().filter_map(Process::of).collect())
}

/// Removes the cgroups of one host, or of all hosts of the lab, depth first.
pub(crate) fn remove(lab: &str, host: Option<&str>) -> Result<()> {
    // A cgroup stays busy for a moment after its last process died.
    wait_for("the lab's cgroups to be free", Duration::from_secs(5), || {
        for folder in folders(lab, host)? {
            visit(&folder, &mut |folder| {
                let _ = fs::remove_dir(folder);
            });
        }
        match folders(lab, host)?.first() {
            Some(left) => bail!("{} is busy", left.display()),
            None => Ok(()),
        }
    })
}

fn folders(lab: &str, host: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        for entry in fs::read_dir(&hierarchy)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = match host {
                Some(host) => name == folder_name(lab, host),
                None => is_of_lab(&name, lab),
            };
            if ours {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn folder_name(lab: &str, host: &str) -> String {
    format!("lab-{lab}-{host}")
}

/// `lab-NAME-h1`, and not a cgroup of a lab whose name merely begins with NAME.
fn is_of_lab(folder: &str, lab: &str) -> bool {
    folder
        .strip_prefix(&format!("lab-{lab}-h"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Children before their parents.
fn visit(folder: &Path, act: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path(), act);
        }
    }
    act(folder);
}

#[cfg(test)]
mod tests {
    use super::is_of_lab;

    #[test]
    fn a_lab_owns_its_hosts_and_not_those_of_a_lab_with_a_longer_name() {
        assert!(is_of_lab("lab-a-h1", "a"));
        assert!(is_of_lab("lab-a-h12", "a"));
        assert!(!is_of_lab("lab-a-h1-h1", "a"));
        assert!(!is_of_lab("lab-a-b-h1", "a"));
        assert!(!is_of_lab("lab-a-h", "a"));
    }
}
