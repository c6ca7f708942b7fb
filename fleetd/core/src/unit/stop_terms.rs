//! How long systemd may take to stop a unit, read from the unit's file.
//!
//! The times are those of systemd.service(5): one `TimeoutStopSec=` for each `ExecStop=`, one from
//! SIGTERM to SIGKILL, and for each `ExecStopPost=` one more.

use serde::{Deserialize, Serialize};

use super::file::UnitFile;
use crate::name::UnitName;

/// systemd's own `DefaultTimeoutStopSec=`, in milliseconds. fleet writes it beside units that set
/// none, so that a host's other default does not count.
const DEFAULT_STOP_MS: u64 = 90_000;

/// What is known of a unit's stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopTerms {
    /// How long it may take, in milliseconds; `u64::MAX` for ever.
    pub stop_ms: u64,
    /// The `TimeoutStopSec=` that this counts with, in milliseconds.
    pub timeout_ms: u64,
    /// What it starts after, targets left out, specifiers unexpanded.
    pub after: Vec<String>,
}

impl StopTerms {
    /// Reads them from a unit's file.
    pub fn from_file(name: &UnitName, file: &UnitFile) -> StopTerms {
        let (mut stop, mut abort, mut abort_mode) = (DEFAULT_STOP_MS, None, false);
        for option in file.options.iter().filter(|option| option.section == "Service") {
            match option.name.as_str() {
                "TimeoutStopSec" | "TimeoutSec" => {
                    stop = timeout_ms(&option.value).unwrap_or(u64::MAX)
                }
                "TimeoutAbortSec" => abort = Some(timeout_ms(&option.value).unwrap_or(u64::MAX)),
                "TimeoutStopFailureMode" => abort_mode = option.value.trim() == "abort",
                _ => {}
            }
        }
        // A core dump on the way costs a time of its own.
        let dump = abort.unwrap_or(if abort_mode { stop } else { 0 });
        let count =
            |option: &str| file.values("Service", option).flat_map(each_command).count() as u64;
        // Quadlet's generator adds one of each.
        let quadlet = u64::from(name.is_quadlet());
        let (before, behind) = (count("ExecStop") + quadlet, count("ExecStopPost") + quadlet);
        let end = stop.saturating_add(dump);
        let behind = if behind == 0 { 0 } else { stop.saturating_mul(behind).saturating_add(end) };
        let stop_ms = stop.saturating_mul(before).saturating_add(end).saturating_add(behind);
        StopTerms { stop_ms, timeout_ms: stop, after: names(file, "After") }
    }
}

/// The commands of one `Exec…=` line.
fn each_command(value: &str) -> impl Iterator<Item = &str> {
    value.split(" ; ").map(str::trim).filter(|command| !command.is_empty())
}

/// The unit names of a list option, without targets: nothing of fleet's is one that processes wait
/// for.
fn names(file: &UnitFile, option: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for value in file.values("Unit", option) {
        if value.trim().is_empty() {
            names.clear();
        }
        names.extend(
            value.split_whitespace().filter(|name| !name.ends_with(".target")).map(str::to_string),
        );
    }
    names
}

/// A time of systemd.time(7) in milliseconds, rounded up; `u64::MAX` for `infinity` and for 0,
/// which systemd takes for it here. `None` for what cannot be read.
pub(crate) fn timeout_ms(value: &str) -> Option<u64> {
    let text = value.trim();
    if text == "infinity" {
        return Some(u64::MAX);
    }
    if text.is_empty() {
        return Some(DEFAULT_STOP_MS); // an empty value sets the default again
    }
    let ms = (span_us(text)? / 1000.0).ceil();
    match ms {
        0.0 => Some(u64::MAX),
        ms if ms < 1e15 => Some(ms as u64),
        _ => Some(u64::MAX),
    }
}

/// A span of time of systemd.time(7) in microseconds; `None` for what cannot be read.
pub(super) fn span_us(text: &str) -> Option<f64> {
    let mut total_us = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        total_us += number * unit_us(&rest[..letters])?;
        rest = rest[letters..].trim_start();
    }
    Some(total_us)
}

fn unit_us(word: &str) -> Option<f64> {
    Some(match word {
        "us" | "usec" | "µs" | "μs" => 1.0,
        "ms" | "msec" => 1e3,
        "" | "s" | "sec" | "second" | "seconds" => 1e6,
        "m" | "min" | "minute" | "minutes" => 60e6,
        "h" | "hr" | "hour" | "hours" => 3600e6,
        "d" | "day" | "days" => 86_400e6,
        "w" | "week" | "weeks" => 604_800e6,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(lines: &str) -> UnitFile {
        UnitFile::parse(&format!("[Service]\n{lines}\n[X-Fleet]\nFence=yes\n")).unwrap()
    }

    fn stop_s(lines: &str) -> u64 {
        StopTerms::from_file(&UnitName::trusted("a.service"), &service(lines)).stop_ms / 1000
    }

    #[test]
    fn times_are_read_as_systemd_reads_them() {
        let read = ["90", "1min 30s", "1.5m", "500ms", "2h", "1 min", "10sec"]
            .map(|text| timeout_ms(text).unwrap());
        assert_eq!(read, [90_000, 90_000, 90_000, 500, 7_200_000, 60_000, 10_000]);
        assert_eq!(["infinity", "0"].map(timeout_ms), [Some(u64::MAX); 2]);
        assert_eq!(["soon", "5 parsecs", "-1", "%i"].map(timeout_ms), [None; 4]);
    }

    #[test]
    fn a_stop_takes_one_timeout_for_each_command_and_one_for_the_kill() {
        assert_eq!(stop_s("ExecStart=/bin/a"), 90);
        assert_eq!(stop_s("TimeoutStopSec=5\nExecStart=/bin/a"), 5);
        assert_eq!(stop_s("TimeoutSec=7\nTimeoutStopSec=5\nExecStop=/bin/b\nExecStop=/bin/c"), 15);
        assert_eq!(stop_s("TimeoutStopSec=5\nExecStopPost=/bin/b"), 15);
        assert_eq!(stop_s("TimeoutStopSec=5\nTimeoutAbortSec=20"), 25);
        let file = UnitFile::parse(
            "[Container]\nImage=a\n[Service]\nTimeoutStopSec=5\n[X-Fleet]\nFence=yes\n",
        )
        .unwrap();
        assert_eq!(StopTerms::from_file(&UnitName::trusted("a.container"), &file).stop_ms, 20_000);
    }
}
