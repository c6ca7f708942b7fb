//! What systemd itself wrote to the journal about a unit.

use std::process::Stdio;
use std::time::Duration;

use fleet_core::name::UnitName;
use fleet_core::words;
use tokio::process::Command;

/// A journal that takes longer is not waited for: the reason is a courtesy.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// The last try's lines are among so many.
const LINES: &str = "20";

/// journald may be a moment behind systemd: looked at so often, with a pause between.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(60);

/// Why one start of the unit failed, in systemd's words. `invocation` is systemd's id of that start: what an earlier text was refused
/// for is no reason. `user` where it is a user's systemd.
pub(super) async fn reason(name: &UnitName, invocation: &str, user: bool) -> Option<String> {
    let look = async {
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let lines = lines(name, invocation, user).await?;
            if let Some(reason) = words::reason(name.as_str(), lines.lines()) {
                return Some(reason);
            }
        }
        None
    };
    tokio::time::timeout(TIME_LIMIT, look).await.ok().flatten()
}

/// By this field systemd names the unit that a line of its own is about; a program's lines do not have it.
async fn lines(name: &UnitName, invocation: &str, user: bool) -> Option<String> {
    let (about, of) = if user { ("USER_UNIT", "USER_INVOCATION_ID") } else { ("UNIT", "INVOCATION_ID") };
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--quiet", "--boot", "--output=cat", "--lines", LINES]);
    command.arg(format!("{about}={name}")).arg(format!("{of}={invocation}"));
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output().await.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
