//! Follows the cluster after a write until every unit is as asked, can never be, or time is up.

use std::time::Duration;

use clap::Args;
use fleet_core::wire::{Progress, UnitProgress};
use tokio::time::Instant;

use crate::client::{Client, innermost};
use crate::error::Error;
use crate::last_lines;
use crate::output::Output;
use crate::progress::{Live, lines};
use crate::retry::{FIRST_PAUSE, LONGEST_PAUSE, Retry};
use crate::settle::{Found, Settling, found};
use crate::target::Target;
use crate::watch::Watch;

/// How long one of fleet 1.0's attempts took, in seconds.
const ATTEMPT_SECONDS: u64 = 2;

/// How many bytes of unit names one request asks for: HTTP servers take URLs of some 64 KiB.
const MAX_QUERY_BYTES: usize = 30_000;

/// The longest line of progress, in bytes: one of 100,000 instances has some 40 MB.
const MAX_LINE: usize = 256 * 1024 * 1024;

/// How long one look at a unit may take; longer than a fleetd that restarts is away.
const LOOK: Duration = Duration::from_secs(10);

/// How long looks at what has just come up may take together; a machine that does not answer is no
/// reason to wait.
const LOOKS: Duration = Duration::from_secs(2);

/// systemctl's exit status for a unit that runs.
const UP: u8 = 0;

/// The same for one that does not run.
const DOWN: u8 = 3;

/// The options of all commands that wait.
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    /// Do not wait until the units are as asked
    #[arg(long)]
    pub(crate) no_block: bool,
    /// Stop waiting after N times 2 seconds; 0 means --timeout
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true,
        hide_default_value = true
    )]
    pub(crate) block_attempts: i64,
    /// Stop waiting after this many seconds; 0 waits forever
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0, value_parser = seconds)]
    pub(crate) timeout: f64,
}

impl WaitArgs {
    /// Whether to wait at all; fleet 1.0 took a negative number of attempts for no.
    pub(crate) fn blocks(&self) -> bool {
        !self.no_block && self.block_attempts >= 0
    }

    /// How long to wait; `None` is for ever.
    pub(crate) fn limit(&self) -> Option<Duration> {
        match u64::try_from(self.block_attempts) {
            Ok(attempts) if attempts > 0 => {
                Some(Duration::from_secs(attempts.saturating_mul(ATTEMPT_SECONDS)))
            }
            _ if self.timeout > 0.0 => Some(Duration::from_secs_f64(self.timeout)),
            _ => None,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    // A longer wait than a year is "for ever", and would not fit a Duration at some point.
    const YEAR: f64 = 365.0 * 86_400.0;
    match text.parse::<f64>() {
        Ok(value) if value > YEAR => Ok(0.0),
        Ok(value) if value >= 0.0 => Ok(value),
        _ => Err("give a number of seconds, 0 for no limit".to_string()),
    }
}

/// Waits until all of `targets` are as asked.
pub(crate) async fn until_done(
    client: &Client,
    output: &Output,
    targets: Vec<Target>,
    args: &WaitArgs,
) -> Result<(), Error> {
    if targets.is_empty() {
        return Ok(());
    }
    let deadline = args.limit().map(|limit| Instant::now() + limit);
    let mut live = Live::new();
    for batch in batches(targets) {
        let mut watch = Watch::new(batch);
        let ended = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err(watch.interrupted()),
            () = at(deadline) => if watch.is_done() { Ok(()) } else { Err(watch.timed_out()) },
            ended = follow_until_settled(client, output, &mut watch, &mut live) => ended,
        };
        live.clear();
        if ended.is_err() {
            watch.tell_rest(output)?;
        }
        let Err(error) = ended else { continue };
        return Err(match watch.failed() {
            Some((failure, at_ms)) => {
                let instance = failure.instance.as_str();
                last_lines::quoted(client, error, instance, at_ms).await
            }
            None => error,
        });
    }
    Ok(())
}

/// Follows until all is done, and looks once more at what has just come up: what failed at once was
/// up for a moment, and a machine's own report of that may take a second. So systemd is asked.
async fn follow_until_settled(
    client: &Client,
    output: &Output,
    watch: &mut Watch,
    live: &mut Live,
) -> Result<(), Error> {
    let mut pause = FIRST_PAUSE;
    loop {
        follow(client, output, watch, live).await?;
        let Some(due) = watch.settling.look_at(Instant::now()) else { return Ok(()) };
        live.clear();
        tokio::time::sleep_until(due).await;
        let Looked { starting, unseen } = look_once_more(client, &watch.settling).await?;
        if starting.is_empty() {
            if !unseen {
                return Ok(());
            }
            // Its machine's own report says so by then, and what is followed shows it.
            if let Some(reported) = watch.settling.reported_at(Instant::now()) {
                tokio::time::sleep_until(reported).await;
            }
            continue;
        }
        // The lines say so within a second.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        starting.iter().for_each(|name| watch.settling.again(name, Instant::now()));
    }
}

/// What a look at what has just come up found.
#[derive(Default)]
struct Looked {
    /// What is on its way up once more.
    starting: Vec<String>,
    /// Whether systemd could not be asked about some of it: a machine that does not answer in time
    /// or has too much to do, or one whose API other machines cannot reach.
    unseen: bool,
}

/// Asks systemd how what has just come up is doing; the error is one that failed.
async fn look_once_more(client: &Client, settling: &Settling) -> Result<Looked, Error> {
    let mut looked = Looked::default();
    let looks = async {
        for name in settling.names(Instant::now()) {
            let Ok((answer, code, problems)) = client.status(&name).await else {
                looked.unseen = true;
                continue;
            };
            looked.unseen |= !problems.is_empty();
            if code != UP && code != DOWN {
                continue;
            }
            let text = answer.text().await.unwrap_or_default();
            match found(&text) {
                Found::Failed => return Err(settling.failed(&name, &text)),
                Found::Starts => looked.starting.push(name),
                Found::Well => {}
            }
        }
        Ok(())
    };
    match tokio::time::timeout(LOOKS, looks).await {
        Ok(outcome) => outcome?,
        Err(_) => looked.unseen = true,
    }
    Ok(looked)
}

/// Feeds `watch` with the lines of a follow.
async fn follow(
    client: &Client,
    output: &Output,
    watch: &mut Watch,
    live: &mut Live,
) -> Result<(), Error> {
    let units = watch.units();
    let observe = |progress: Option<Progress>| {
        live.clear();
        let Some(progress) = progress else { return Ok(None) };
        if watch.observe(progress, output)? {
            return Ok(Some(()));
        }
        live.draw(&lines(watch.last()));
        Ok(None)
    };
    read_lines(client, &units, observe).await
}

/// How far a unit is now.
pub(crate) async fn look(client: &Client, unit: &str) -> Result<UnitProgress, Error> {
    let first = |progress: Option<Progress>| {
        Ok(progress.and_then(|progress| progress.units.into_iter().next()))
    };
    let units = [unit.to_string()];
    tokio::select! {
        found = read_lines(client, &units, first) => found,
        () = tokio::time::sleep(LOOK) => Err(Error::failed(format!("fleetd does not report the \
            state of {unit}"))),
    }
}

/// Gives `take` each newest line of a follow until it has what it wants, and follows again when the
/// connection breaks. `None` says that it broke.
async fn read_lines<T>(
    client: &Client,
    units: &[String],
    mut take: impl FnMut(Option<Progress>) -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let mut retry = Retry::new();
    loop {
        let broken = match client.follow(units).await {
            Ok(mut answer) => {
                let mut buffer = Vec::new();
                loop {
                    let chunk = match answer.chunk().await {
                        Ok(Some(chunk)) => chunk,
                        Ok(None) => break "fleetd closed the connection".to_string(),
                        Err(problem) => break innermost(&problem),
                    };
                    retry.works();
                    buffer.extend_from_slice(&chunk);
                    if let Some(progress) = newest(&mut buffer)? {
                        if let Some(taken) = take(Some(progress))? {
                            return Ok(taken);
                        }
                    } else if buffer.len() > MAX_LINE {
                        return Err(Error::failed(format!(
                            "fleetd sent a line of progress without an end: {MAX_LINE} bytes so far"
                        )));
                    }
                }
            }
            Err(error) if error.is_passing() => error.to_string(),
            Err(error) => return Err(Error::request("Error waiting for units", error)),
        };
        if retry.is_news() {
            take(None)?;
        }
        retry.pause(&broken).await;
    }
}

/// Takes all whole lines off `buffer` and gives the last: each line is complete, so older ones say
/// nothing more.
fn newest(buffer: &mut Vec<u8>) -> Result<Option<Progress>, Error> {
    let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    let rest = buffer.split_off(end + 1);
    let whole = std::mem::replace(buffer, rest);
    match whole.split(|byte| *byte == b'\n').rfind(|line| !line.trim_ascii().is_empty()) {
        Some(line) => serde_json::from_slice(line).map(Some).map_err(|problem| {
            Error::failed(format!("fleetd sent progress that cannot be read: {problem}"))
        }),
        None => Ok(None),
    }
}

/// Cuts a long list into requests that a server takes. One after the other is enough: later ones
/// are often done already.
fn batches(targets: Vec<Target>) -> Vec<Vec<Target>> {
    let mut all: Vec<Vec<Target>> = vec![Vec::new()];
    let mut bytes = 0;
    for target in targets {
        bytes += target.unit.len() + "&unit=".len();
        if bytes > MAX_QUERY_BYTES {
            all.push(Vec::new());
            bytes = target.unit.len();
        }
        all.last_mut().expect("never empty").push(target);
    }
    all
}

/// Comes at the deadline; never without one.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Goal;

    fn args(no_block: bool, block_attempts: i64, timeout: f64) -> WaitArgs {
        WaitArgs { no_block, block_attempts, timeout }
    }

    #[test]
    fn attempts_of_two_seconds_go_before_the_timeout() {
        assert_eq!(args(false, 3, 300.0).limit(), Some(Duration::from_secs(6)));
        assert_eq!(args(false, 0, 1.5).limit(), Some(Duration::from_millis(1500)));
        assert_eq!(args(false, 0, 0.0).limit(), None);
        assert!(!args(false, -1, 0.0).blocks());
        assert!(!args(true, 0, 0.0).blocks());
    }

    #[test]
    fn seconds_are_a_number_that_is_not_negative() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert_eq!(seconds("1e300"), Ok(0.0));
        for bad in ["-1", "NaN", "x", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_newest_whole_line_counts() {
        let mut buffer = b"{\"revision\":1}\n{\"revision\":2}\n{\"revi".to_vec();
        assert_eq!(newest(&mut buffer).unwrap().unwrap().revision, 2);
        assert_eq!(buffer, b"{\"revi");
        assert_eq!(newest(&mut buffer).unwrap(), None);
    }

    #[test]
    fn a_long_list_of_units_is_cut_into_requests() {
        let targets = (0..3000)
            .map(|n| Target::quiet(format!("bench@{n}.service"), Goal::Launched))
            .collect();
        let sizes: Vec<usize> = batches(targets).iter().map(Vec::len).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 3000);
        assert!(sizes.len() == 3, "{sizes:?}");
    }
}
