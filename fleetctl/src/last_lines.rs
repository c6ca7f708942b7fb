//! The last lines that a failed instance wrote into its machine's journal.

use std::time::Duration;

use crate::client::Client;
use crate::error::Error;

/// How many of them are shown.
const SHOWN: usize = 10;

/// How many lines are asked for: those of the text that all returned to come after them.
const ASKED: &str = "100";

/// How long they are waited for: a machine that does not answer holds up no error.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far two machines' clocks may differ, in seconds.
const SLACK_S: f64 = 1.0;

/// The error with what the instance said before it was found to have failed, at a time in
/// milliseconds since 1970; without, if nobody can tell.
pub(crate) async fn quoted(client: &Client, error: Error, instance: &str, failed_ms: u64) -> Error {
    let query = [("lines", ASKED), ("output", "short-unix")];
    let read = async { client.journal(instance, &query).await.ok()?.text().await.ok() };
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Some(text)) => {
            error.quote(&format!("The last lines of {instance}:"), last(&text, failed_ms))
        }
        _ => error,
    }
}

/// The last lines that were written until then, without their times and hosts.
fn last(text: &str, failed_ms: u64) -> Vec<String> {
    let until_s = failed_ms as f64 / 1_000.0 + SLACK_S;
    let said = |line: &str| {
        let (time, rest) = line.split_once(' ')?;
        let (_host, said) = rest.split_once(' ')?;
        (time.parse::<f64>().ok()? <= until_s).then(|| said.to_string())
    };
    let mut lines: Vec<String> = text.lines().filter_map(said).collect();
    lines.drain(..lines.len().saturating_sub(SHOWN));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_after_the_failure_is_another_texts() {
        let mut text: String = (0..20).map(|n| format!("{n}.5 h1 web[7]: line {n}\n")).collect();
        text.push_str("-- no line --\n\n99.0 h1 web[9]: the good text\n");
        let lines = last(&text, 19_000);
        assert_eq!(
            (lines.len(), &*lines[0], &*lines[9]),
            (10, "web[7]: line 10", "web[7]: line 19")
        );
        assert_eq!(last(&text, 0), ["web[7]: line 0"]);
    }
}
