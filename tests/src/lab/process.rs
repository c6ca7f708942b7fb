//! Processes of this machine: who they are, whether they still live, and commands that must
//! succeed.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)).
    start: u64,
}

impl Process {
    /// The living process with this pid, if there is one. A zombie is not alive.
    pub(crate) fn of(pid: u32) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in brackets that may hold anything, also brackets.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Process { pid, start })
    }

    pub(crate) fn is_alive(self) -> bool {
        Process::of(self.pid) == Some(self)
    }

    /// SIGKILL; a process that is gone already is no error.
    pub(crate) fn kill(self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // The pidfd is opened before the identity is checked, so the signal cannot reach a
        // stranger.
        let Some(fd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return;
        };
        if self.is_alive() {
            let _ = pidfd_send_signal(&fd, Signal::KILL);
        }
    }

    /// Whether it is the init of a host: pid 1 in a pid namespace exactly one below ours.
    /// (The first process of a container in a host is two below.)
    pub(crate) fn is_host_init(self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        let pids = status.as_deref().ok().and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("NSpid:"))
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
        });
        matches!(pids.as_deref(), Some([_, "1"]))
    }
}

/// Runs a command that must succeed; its output is part of the error when it does not.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Output> {
    let mut command = Command::new(program);
    // In a group of its own: the terminal's Ctrl-C must not end the commands that clean up after
    // it.
    command.args(args).process_group(0);
    let shown = show(&command);
    let output = command.output().with_context(|| format!("run `{shown}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, said.trim());
    }
    Ok(output)
}

/// The command line as one would type it.
pub(crate) fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
