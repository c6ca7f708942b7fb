//! How a unit came to be at rest: systemd forgets such a unit at once, with all its properties, so the journal is asked for what
//! systemd itself noted. One look a unit, and only when a unit that should run is found at rest.
//!
//! A unit that was stopped by a job has a note that it is being stopped, whoever asked for that, and for whatever other unit's sake;
//! a process that ends by itself leaves only the note of its end. A unit with `LogLevelMax=` below `info` leaves neither.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use fleet_core::name::UnitName;
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;
use tracing::debug;

use crate::systemd::Rest;

/// systemd's ids of its notes, from `sd-messages.h`: `SD_MESSAGE_UNIT_STARTED`…
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
const STOPPING: &str = "de5b426a63be47a7b6ac3eaac82e2f6f";
const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";
/// "Deactivated successfully."
const SUCCESS: &str = "7ad2d189f7e94e70a38c781354912448";

/// The notes that tell; the newest few are enough.
const MOST_NOTES: &str = "--lines=4";

/// A journal on a bad disk must not hold up the agent.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// Whose journal it is.
pub(super) struct Journal<'a> {
    /// Where systemd's `/` is seen from here.
    pub(super) root: &'a Path,
    /// Whether it is a user's systemd.
    pub(super) user: bool,
}

impl Journal<'_> {
    /// By the newest note of systemd's about the unit. A journal that cannot be read says nothing.
    pub(super) async fn rest(&self, name: &UnitName) -> Rest {
        let mut command = Command::new("journalctl");
        command.args(["--no-pager", "--quiet", "--reverse", MOST_NOTES, "--output=json", "--output-fields=MESSAGE_ID"]);
        if self.root == Path::new("/") {
            command.arg("--boot"); // and not the archives of all boots, for a unit of which there are few notes
        } else {
            command.arg("--root").arg(self.root);
        }
        // Only what systemd itself wrote: anybody may write these fields, but not those that begin with an underscore.
        let (unit, writer) = if self.user { ("USER_UNIT", "_SYSTEMD_USER_UNIT=init.scope") } else { ("UNIT", "_PID=1") };
        command.arg(format!("{unit}={name}")).arg(writer);
        command.args([STARTED, STOPPING, STOPPED, SUCCESS].map(|id| format!("MESSAGE_ID={id}")));
        command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        match timeout(LONGEST_LOOK, command.output()).await {
            Ok(Ok(output)) => read(&String::from_utf8_lossy(&output.stdout)),
            Ok(Err(error)) => {
                debug!("cannot run journalctl: {error}");
                Rest::Unknown
            }
            Err(_) => Rest::Unknown,
        }
    }
}

#[derive(Deserialize)]
struct Note {
    #[serde(rename = "MESSAGE_ID")]
    id: String,
}

/// One note a line, the newest first.
fn read(lines: &str) -> Rest {
    let notes = lines.lines().filter_map(|line| serde_json::from_str::<Note>(line).ok());
    let mut rest = Rest::Unknown;
    for Note { id } in notes {
        match id.as_str() {
            STOPPING | STOPPED => return Rest::Stopped,
            // It ended, by itself if no stop is noted before that.
            SUCCESS => rest = Rest::Ended,
            _ => break,
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(ids: &[&str]) -> String {
        ids.iter().rev().map(|id| format!("{{\"MESSAGE_ID\":\"{id}\",\"__CURSOR\":\"s=1\"}}\n")).collect()
    }

    #[test]
    fn a_stop_is_told_from_an_end_by_what_systemd_noted_since_the_last_start() {
        assert_eq!(read(&notes(&[STARTED, SUCCESS])), Rest::Ended);
        assert_eq!(read(&notes(&[STARTED, STOPPING, SUCCESS, STOPPED])), Rest::Stopped);
        // The last note may still be on its way.
        assert_eq!(read(&notes(&[STARTED, STOPPING, SUCCESS])), Rest::Stopped);
        assert_eq!(read(&notes(&[STOPPING, STOPPED, STARTED, SUCCESS])), Rest::Ended);
        assert_eq!(read(&notes(&[STOPPING, STOPPED, STARTED])), Rest::Unknown);
        // A oneshot's start is done when its process has ended.
        assert_eq!(read(&notes(&[SUCCESS, STARTED])), Rest::Unknown);
        assert_eq!(read("not json\n"), Rest::Unknown);
    }
}
