//! One host: a systemd booted by nspawn in its own cgroups, its power switch, and commands in it.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::cgroup;
use super::files::{BOOT, DISKS, HANDED};
use super::network::BRIDGE;
use super::options::MAX_HOSTS;
use super::process::Process;
use super::signals;
use super::state::{Folder, HostSpec, Run, Spec};
use super::wait::wait_for;

/// A host boots in 0.5 to 3 s on two idle cores; a busy CI machine may need many times that.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// A killed pid namespace is gone within milliseconds, unless the machine hangs.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Boots the host and waits until its systemd has nothing left to start.
pub(crate) fn boot(folder: &Folder, spec: &Spec, host: &HostSpec) -> Result<()> {
    ensure!(folder.running(&host.name).is_none(), "{} runs already", host.name);
    clear(folder, &host.name)?;
    let run = launch(folder, spec, host)?;
    wait_until_up(&host.name, run).map_err(|error| {
        anyhow!(
            "boot {}: {error:#}\nThe end of its log:\n{}",
            host.name,
            log_tail(folder, &host.name, run)
        )
    })
}

/// Power loss: the host's init gets SIGKILL, and all in the host is gone at once.
pub(crate) fn kill(folder: &Folder, host: &str) -> Result<()> {
    let run = folder.running(host).with_context(|| format!("{host} does not run"))?;
    run.init.kill();
    clear(folder, host)
}

/// Ends and removes all that a boot of this host, or of all hosts, may have left.
pub(crate) fn clear_leftovers(lab: &str, host: Option<&str>) -> Result<()> {
    let mut polls = 0;
    wait_for("the hosts' processes to end", KILL_LIMIT, || {
        let left = cgroup::processes(lab, host)?;
        for process in &left {
            // The inits first: nspawn and commands from outside then end by themselves, given a
            // second.
            if process.is_host_init() || polls > 20 {
                process.kill();
            }
        }
        polls += 1;
        ensure!(left.is_empty(), "{} processes live, one is {}", left.len(), left[0].pid);
        Ok(())
    })?;
    cgroup::remove(lab, host)
}

/// Removes the folders that nspawn makes for itself and leaves, in particular when it is killed.
/// Only for a machine without labs; nothing else goes while another nspawn has a folder there.
pub(crate) fn tidy_nspawn() {
    let root = Path::new("/run/systemd/nspawn");
    for number in 1..=MAX_HOSTS {
        let _ = fs::remove_dir(root.join(format!("propagate/h{number}")));
    }
    if fs::remove_dir(root.join("propagate")).is_ok() {
        let _ = fs::remove_dir_all(root.join("locks"));
    }
    let _ = fs::remove_dir(root);
}

/// A command in the host, as root in its init's cgroups, with a clean environment.
pub(crate) fn command(folder: &Folder, host: &str, args: &[&str]) -> Result<Command> {
    let run = folder
        .running(host)
        .with_context(|| format!("{host} does not run; `cargo lab boot {host}` starts it"))?;
    in_host(run, args)
}

/// The exit status as a shell gives it: 128 + the signal's number for a command ended by a signal.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Clears one host, and forgets its run.
fn clear(folder: &Folder, host: &str) -> Result<()> {
    clear_leftovers(&folder.name, Some(host))?;
    folder.forget_run(host);
    Ok(())
}

fn launch(folder: &Folder, spec: &Spec, host: &HostSpec) -> Result<Run> {
    let name = &host.name;
    let console = File::create(folder.console(name)).context("open the host's console log")?;
    let mut command = launcher(folder, spec, host)?;
    command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
    let mut child = signals::spawn(&mut command).context("start systemd-nspawn")?;
    let nspawn = Process::of(child.id()).context("systemd-nspawn ended at once")?;
    // Collects the exit status when the host ends; if this program ends first, init does.
    std::thread::spawn(move || child.wait());

    let run = wait_for("the host's first process", BOOT_LIMIT, || {
        if !nspawn.is_alive() {
            return Ok(None);
        }
        let found = cgroup::processes(&folder.name, Some(name))?;
        let init = found.into_iter().find(|process| process.is_host_init());
        Ok(Some(Run { nspawn, init: init.context("none")? }))
    })?;
    let Some(run) = run else {
        bail!("systemd-nspawn ended; it said:\n{}", console_tail(folder, name));
    };
    folder.write_run(name, &run)?;
    Ok(run)
}

/// A shell that moves itself into the host's cgroups and becomes nspawn.
fn launcher(folder: &Folder, spec: &Spec, host: &HostSpec) -> Result<Command> {
    let name = &host.name;
    let base = folder.host(name);
    let cgroups = cgroup::create(&folder.name, name)?;
    let mut command = Command::new("sh");
    command.args(["-ec", JOIN, "sh"]).args(cgroups).arg("--");
    command.args(["setsid", "nsenter"]).arg(format!("--net={}", folder.net().display()));
    command.arg("systemd-nspawn").arg("-D").arg(spec.image.join("root"));
    command.args(["--quiet", "--register=no", "--keep-unit", "--volatile=overlay"]);
    command.args([
        "--console=read-only",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
    ]);
    command.arg(format!("--hostname={name}")).arg(format!("--machine={name}"));
    command.arg(format!("--uuid={}", host.machine_id));
    command.arg(format!("--network-bridge={BRIDGE}"));
    // runc makes a session keyring for each container.
    command.arg("--system-call-filter=@keyring");
    for (disk, place) in DISKS {
        command.arg(format!("--bind={}:{place}", base.join(disk).display()));
    }
    command.arg(format!("--bind-ro={}:{BOOT}", base.join("boot").display()));
    command.arg(format!("--bind-ro={}:{HANDED}", base.join("files").display()));
    // Without the animated list of jobs the console log is readable.
    let mut kernel_line = "systemd.show_status=no".to_owned();
    if !cgroup::is_pure_v2() {
        // systemd 257 refuses v1 without both.
        kernel_line += " systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1";
    }
    command.arg(format!("--setenv=SYSTEMD_PROC_CMDLINE={kernel_line}"));
    command.arg(format!("{BOOT}/init"));
    Ok(command)
}

/// Joins each cgroup named before `--`, then becomes the command after it.
const JOIN: &str = r#"
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done
shift
exec "$@"
"#;

fn in_host(run: Run, args: &[&str]) -> Result<Command> {
    let mut command = Command::new("sh");
    // In init's cgroups, so that what the command starts is limited, counted and ended with the
    // host.
    command.args(["-ec", JOIN, "sh"]).args(cgroup::of(run.init)?).arg("--");
    command.args(["nsenter", "--all", "--root", "--wd", "--target"]).arg(run.init.pid.to_string());
    command.args([
        "--",
        "env",
        "-i",
        "HOME=/root",
        "LANG=C.UTF-8",
        "PODMAN_IGNORE_CGROUPSV1_WARNING=1",
    ]);
    command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.arg(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "dumb".into())));
    command.args(args);
    Ok(command)
}

fn wait_until_up(name: &str, run: Run) -> Result<()> {
    let bus = format!("/proc/{}/root/run/dbus/system_bus_socket", run.init.pid);
    let what = format!("{name} to be running");
    let state = wait_for(&what, BOOT_LIMIT, || {
        if !run.init.is_alive() {
            return Ok("ended".to_owned());
        }
        // Looked at first, since it costs a system call and the next line costs three processes.
        ensure!(fs::exists(&bus)?, "no system bus yet");
        let wait = ["timeout", "10", "systemctl", "is-system-running", "--wait"];
        let output = in_host(run, &wait)?.output()?;
        let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if state == "running" || state == "degraded" {
            return Ok(state);
        }
        let jobs = in_host(run, &["systemctl", "list-jobs", "--no-legend"])?.output()?;
        let jobs = String::from_utf8_lossy(&jobs.stdout).trim().replace('\n', ";");
        bail!("systemd says {state:?}, with jobs: {jobs}")
    })?;
    ensure!(state != "ended", "{name} ended while it booted");
    Ok(())
}

/// The last lines of the host's journal or, if it is gone, of its console.
fn log_tail(folder: &Folder, host: &str, run: Run) -> String {
    let journal =
        ["timeout", "5", "journalctl", "--no-pager", "--lines=15", "--output=short-monotonic"];
    let output = in_host(run, &journal).and_then(|mut command| Ok(command.output()?));
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
        }
        _ => console_tail(folder, host),
    }
}

/// The last lines on the host's console, where nspawn and the init script speak too.
fn console_tail(folder: &Folder, host: &str) -> String {
    let text = fs::read(folder.console(host)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
