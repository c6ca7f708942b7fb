//! Programs that systemd runs for fleetd once, in a service that is there only meanwhile: podman
//! and what reads its files, which fleetd's own service may not run.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// How much longer than the service systemd-run may take.
const LONGER: Duration = Duration::from_secs(1);

/// The most that a program may print, in bytes.
const LONGEST_OUTPUT: u64 = 4 * 1024 * 1024;

/// The same of what it says on stderr.
const LONGEST_WORDS: u64 = 16 * 1024;

/// What a program printed, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// What it printed.
    pub stdout: String,
    /// Why it failed, in the last line of what it said on stderr; `None` if it ended well.
    pub failure: Option<String>,
}

/// Runs a program by the machine's systemd, or the user's. It ends after `limit`, and what it
/// printed by then is there. It yields to everything else that the machine does.
///
/// The error says that it could not be run at all.
pub async fn run(user: bool, limit: Duration, words: &[&str]) -> Result<Said, String> {
    let program = words.first().copied().unwrap_or_default();
    let mut command = Command::new("systemd-run");
    command
        .args(user.then_some("--user"))
        .args(["--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"])
        .arg(format!("--unit=fleet-asks-{}", uuid::Uuid::new_v4().simple()))
        .arg(format!("--description=fleetd asks {program}"))
        .arg(format!("--property=RuntimeMaxSec={}ms", limit.as_millis()))
        .args(["--property=TimeoutStopSec=1s", "--property=Nice=10"])
        .args(["--property=IOSchedulingClass=idle", "--"])
        .args(words);
    ended(command, program, limit).await
}

async fn ended(mut command: Command, program: &str, limit: Duration) -> Result<Said, String> {
    let cannot = |error: io::Error| format!("cannot have systemd run {program}: {error}");
    let begin = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(cannot)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let outputs = (child.stdout.take(), child.stderr.take());
    let all = async {
        tokio::try_join!(
            beginning(outputs.0, LONGEST_OUTPUT, &mut stdout),
            beginning(outputs.1, LONGEST_WORDS, &mut stderr),
        )?;
        child.wait().await
    };
    let status = match tokio::time::timeout(limit + LONGER, all).await {
        Ok(status) => Some(status.map_err(cannot)?),
        Err(_) => None,
    };
    let words = String::from_utf8_lossy(&stderr);
    let last = words.lines().map(str::trim).rfind(|line| !line.is_empty());
    let failure = match status {
        Some(status) if status.success() => None,
        _ if begin.elapsed() >= limit => Some(format!("it was not done within {limit:?}")),
        Some(status) => Some(last.map_or_else(|| status.to_string(), plain)),
        None => Some("systemd-run does not end".to_string()),
    };
    Ok(Said { stdout: String::from_utf8_lossy(&stdout).into_owned(), failure })
}

/// A line without podman's word before it.
fn plain(line: &str) -> String {
    line.strip_prefix("Error: ").unwrap_or(line).to_string()
}

/// Reads what comes, and no more than `limit` of it: what writes on breaks then.
async fn beginning(
    from: Option<impl AsyncRead + Unpin>,
    limit: u64,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    if let Some(from) = from {
        from.take(limit).read_to_end(into).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limit: Duration) -> Said {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        ended(command, "sh", limit).await.unwrap()
    }

    #[tokio::test]
    async fn a_program_that_fails_gives_its_last_line_and_what_it_printed() {
        let said = sh("echo a; echo x >&2; echo 'Error: no' >&2; exit 3", LONGER).await;
        assert_eq!((said.stdout.as_str(), said.failure.as_deref()), ("a\n", Some("no")));
        let said = sh("echo a; echo careful >&2", LONGER).await;
        assert_eq!((said.stdout.as_str(), said.failure), ("a\n", None));
        assert!(sh("exit 3", LONGER).await.failure.unwrap().contains('3'));
    }

    #[tokio::test]
    async fn a_program_that_hangs_or_prints_without_end_is_ended() {
        let limit = Duration::from_millis(20);
        let said = sh("echo a; exec sleep 60", limit).await;
        assert_eq!(
            (said.stdout.as_str(), said.failure.unwrap()),
            ("a\n", "it was not done within 20ms".into())
        );
        let said = sh("exec yes", Duration::from_secs(60)).await;
        assert_eq!(said.stdout.len() as u64, LONGEST_OUTPUT);
        assert!(said.failure.is_some());
    }
}
