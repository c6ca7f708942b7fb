//! What systemd itself wrote to the journal about a unit: why its start failed, and how it came to
//! be at rest.
//!
//! systemd forgets a unit at rest at once, with all its properties, so the journal is all that is
//! left. A unit that was stopped by a job has a note that it is being stopped, whoever asked for
//! that, and for whatever other unit's sake; a process that ends by itself leaves only the note of
//! its end. A unit with `LogLevelMax=` below `info` leaves neither.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use fleet_core::name::UnitName;
use fleet_core::words;
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::{JobOutcome, Rest};

/// A journal that takes longer, as on a bad disk, is not waited for.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// The last try's lines are among so many.
const LINES: &str = "--lines=20";

/// A program's own words: an image of many layers is a line each.
const OUTPUT_LINES: &str = "--lines=60";

/// The notes that tell how a unit came to rest; the newest few are enough.
const NOTES: &str = "--lines=4";

/// journald may be a moment behind systemd: looked at so often, with a pause between.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(60);

/// systemd's ids of its notes, from `sd-messages.h`: `SD_MESSAGE_UNIT_STARTED`…
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
const STOPPING: &str = "de5b426a63be47a7b6ac3eaac82e2f6f";
const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";
/// "Deactivated successfully."
const SUCCESS: &str = "7ad2d189f7e94e70a38c781354912448";
/// "Failed with result '…'."
const FAILURE: &str = "d9b373ed55a64feb8242e02dbe79a49c";
/// "Main process exited, code=…, status=…"
const EXITED: &str = "98e322203f7a4ed290d09fe03c09fe15";

/// Whose journal it is.
pub(super) struct Journal<'a> {
    /// Where systemd's `/` is seen from here.
    pub(super) root: &'a Path,
    /// Whether it is a user's systemd.
    pub(super) user: bool,
}

impl Journal<'_> {
    /// Why one start of the unit failed, in systemd's words. `invocation` is systemd's id of that
    /// start: what an earlier text was refused for is no reason.
    pub(super) async fn reason(&self, name: &UnitName, invocation: &str) -> Option<String> {
        let of = if self.user { "USER_INVOCATION_ID" } else { "INVOCATION_ID" };
        let of = format!("{of}={invocation}");
        let look = async {
            for look in 0..LOOKS {
                if look > 0 {
                    sleep(PAUSE).await;
                }
                let lines = self.read(name, &["--output=cat", LINES, &of]).await.ok()?;
                if let Some(reason) = words::reason(name.as_str(), lines.lines()) {
                    return Some(reason);
                }
            }
            None
        };
        timeout(TIME_LIMIT, look).await.ok().flatten()
    }

    /// How the unit failed last, by the newest note of a failure and that of its process's end.
    pub(super) async fn last_failure(&self, name: &UnitName) -> Option<JobOutcome> {
        let notes = [FAILURE, EXITED].map(|id| format!("MESSAGE_ID={id}"));
        let fields = "--output-fields=MESSAGE_ID,UNIT_RESULT,EXIT_STATUS,COMMAND";
        let mut args = vec!["--reverse", NOTES, "--output=json", fields, self.writer()];
        args.extend(notes.iter().map(String::as_str));
        let lines = timeout(TIME_LIMIT, self.read(name, &args)).await;
        failure(&lines.ok()?.ok()?)
    }

    /// The newest lines that the unit's programs printed.
    pub(super) async fn output(&self, name: &UnitName) -> String {
        let from = if self.user { "_SYSTEMD_USER_UNIT" } else { "_SYSTEMD_UNIT" };
        let of = format!("{from}={name}");
        let lines = timeout(TIME_LIMIT, self.query(&["--output=cat", OUTPUT_LINES, &of])).await;
        lines.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// By the newest note of systemd's about the unit. The error is why there is no answer, which
    /// says nothing of the unit.
    pub(super) async fn rest(&self, name: &UnitName) -> Result<Rest, String> {
        let notes =
            [STARTED, STOPPING, STOPPED, SUCCESS, FAILURE].map(|id| format!("MESSAGE_ID={id}"));
        let mut args =
            vec!["--reverse", NOTES, "--output=json", "--output-fields=MESSAGE_ID", self.writer()];
        args.extend(notes.iter().map(String::as_str));
        let lines = timeout(TIME_LIMIT, self.read(name, &args)).await;
        lines
            .unwrap_or_else(|_| {
                Err(format!("it does not answer within {} s", TIME_LIMIT.as_secs()))
            })
            .map(|lines| read(&lines))
    }

    /// Takes only what systemd itself wrote: anybody may write these fields, but not those that
    /// begin with an underscore.
    fn writer(&self) -> &'static str {
        if self.user { "_SYSTEMD_USER_UNIT=init.scope" } else { "_PID=1" }
    }

    /// What journalctl prints of the unit's lines of this boot. By that field systemd names the
    /// unit that a line of its own is about; a program's lines do not have it.
    async fn read(&self, name: &UnitName, args: &[&str]) -> Result<String, String> {
        let about = if self.user { "USER_UNIT" } else { "UNIT" };
        let about = format!("{about}={name}");
        self.query(&[args, &[&about]].concat()).await
    }

    /// What journalctl prints of this boot.
    async fn query(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("journalctl");
        command.args(["--no-pager", "--quiet"]);
        if self.root == Path::new("/") {
            command.arg("--boot");
        } else {
            command.arg("--root").arg(self.root); // whose boot has an id of its own
        }
        command.args(args);
        let output =
            command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output().await;
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .map_err(|error| format!("journalctl: {error}"))
    }
}

#[derive(Deserialize)]
struct Note {
    #[serde(rename = "MESSAGE_ID")]
    id: String,
    /// systemd's `Result`, of a failure.
    #[serde(rename = "UNIT_RESULT")]
    result: Option<String>,
    /// The exit status or the signal, of a process's end.
    #[serde(rename = "EXIT_STATUS")]
    status: Option<String>,
    /// Which of the unit's commands the process ran.
    #[serde(rename = "COMMAND")]
    command: Option<String>,
}

/// One note a line, the newest first.
fn read(lines: &str) -> Rest {
    let notes = lines.lines().filter_map(|line| serde_json::from_str::<Note>(line).ok());
    let mut rest = Rest::Unknown;
    for Note { id, .. } in notes {
        match id.as_str() {
            STOPPING | STOPPED => return Rest::Stopped,
            // It ended, by itself if no stop is noted before that.
            SUCCESS | FAILURE => rest = Rest::Ended,
            _ => break,
        }
    }
    rest
}

/// One note a line, the newest first. A failure is noted after the end of the process that caused
/// it.
fn failure(lines: &str) -> Option<JobOutcome> {
    let mut notes = lines.lines().filter_map(|line| serde_json::from_str::<Note>(line).ok());
    let result = notes.find(|note| note.id == FAILURE)?.result?;
    let end = notes.next().filter(|note| note.id == EXITED);
    let end = end.filter(|note| note.command.as_ref().is_none_or(|command| command == "ExecStart"));
    let code = end.and_then(|note| note.status?.parse().ok());
    Some(JobOutcome { result, code, restarts: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_read_with_the_end_of_its_process() {
        let failed = |result: &str| {
            format!("{{\"MESSAGE_ID\":\"{FAILURE}\",\"UNIT_RESULT\":\"{result}\"}}\n")
        };
        let exited = |status: &str, command: &str| {
            format!(
                "{{\"MESSAGE_ID\":\"{EXITED}\",\"EXIT_STATUS\":\"{status}\",\
                    \"COMMAND\":\"{command}\"}}\n"
            )
        };
        let read = |lines: String| failure(&lines).map(|found| (found.result, found.code));
        let older = failed("exit-code") + &exited("1", "ExecStart");
        let newer = failed("oom-kill") + &exited("9", "ExecStart");
        assert_eq!(read(newer + &older), Some(("oom-kill".into(), Some(9))));
        let of_stop = failed("exit-code") + &exited("5", "ExecStopPost");
        assert_eq!(read(of_stop), Some(("exit-code".into(), None)));
        assert_eq!(read(exited("7", "ExecStart") + &older), Some(("exit-code".into(), Some(1))));
        assert_eq!(read(String::new()), None);
    }

    fn notes(ids: &[&str]) -> String {
        ids.iter()
            .rev()
            .map(|id| format!("{{\"MESSAGE_ID\":\"{id}\",\"__CURSOR\":\"s=1\"}}\n"))
            .collect()
    }

    #[test]
    fn a_stop_is_told_from_an_end_by_what_systemd_noted_since_the_last_start() {
        assert_eq!(read(&notes(&[STARTED, SUCCESS])), Rest::Ended);
        assert_eq!(read(&notes(&[STARTED, STOPPING, SUCCESS, STOPPED])), Rest::Stopped);
        assert_eq!(read(&notes(&[STARTED, FAILURE])), Rest::Ended);
        assert_eq!(read(&notes(&[STARTED, STOPPING, FAILURE, STOPPED])), Rest::Stopped);
        // The last note may still be on its way.
        assert_eq!(read(&notes(&[STARTED, STOPPING, SUCCESS])), Rest::Stopped);
        assert_eq!(read(&notes(&[STOPPING, STOPPED, STARTED, SUCCESS])), Rest::Ended);
        assert_eq!(read(&notes(&[STOPPING, STOPPED, STARTED])), Rest::Unknown);
        // A oneshot's start is done when its process has ended.
        assert_eq!(read(&notes(&[SUCCESS, STARTED])), Rest::Unknown);
        assert_eq!(read("not json\n"), Rest::Unknown);
    }
}
