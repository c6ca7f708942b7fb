//! The judge of faults: test units write their own lives to a disk outside the host, and what ran
//! when is read from that, not from what fleet or systemd report.
//!
//! All hosts of a lab share one kernel, so `/proc/uptime` is one clock for all of them, and no
//! clock step moves it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::lab::{Lab, RECORDS};

/// How often a unit says that it lives, in seconds.
pub const BEAT: f64 = 0.1;

/// How long a living unit may be silent on a busy machine before the judge calls that a gap, in
/// seconds.
pub const SILENCE: f64 = 2.0;

/// One life of one copy of a unit, by its own words. Times are seconds of the machine's uptime.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// The unit.
    pub unit: String,
    /// Where.
    pub host: String,
    /// Its process, as the host numbers it.
    pub pid: u32,
    /// The fencing token that it was started with, if it was.
    pub token: Option<u64>,
    /// Its first word.
    pub from: f64,
    /// Its last word: it lived until here, and not [`BEAT`] and a write longer, unless the machine
    /// was slow.
    pub until: f64,
    /// Whether it said goodbye, as it does on SIGTERM.
    pub stopped: bool,
    /// When it was silent for longer than [`SILENCE`], and spoke again.
    pub pauses: Vec<(f64, f64)>,
}

impl Life {
    /// Whether it is the same life, whatever was heard of it since. In a container every process is
    /// number 1.
    pub fn is(&self, other: &Life) -> bool {
        (&self.unit, &self.host, self.pid, self.from)
            == (&other.unit, &other.host, other.pid, other.from)
    }
}

/// The text of a unit that records its life. `sections` is added at the end, such as `[X-Fleet]`
/// and its lines.
pub fn recorder(service_lines: &str, sections: &str) -> String {
    format!(
        "[Unit]\nDescription=Writes down when it \
        lives\n\n[Service]\nTimeoutStopSec=5\n{service_lines}ExecStart=/bin/sh -c \
        '{}'\n\n{sections}",
        script()
    )
}

/// The same as a Quadlet unit. The token is the one that the process in the container has.
pub fn container_recorder(sections: &str) -> String {
    format!(
        "[Unit]\nDescription=Writes down when it \
            lives\n\n[Container]\nImage=localhost/busybox:latest\nNetwork=host\n\
         Volume={RECORDS}:{RECORDS}\nExec=sh -c '{}'\n\n[Service]\nTimeoutStopSec=3\n\n{sections}",
        script()
    )
}

/// For `sh -c '…'` in a unit: systemd puts the unit's name in, the shell all else.
fn script() -> String {
    // `sleep` in the background, so that the trap runs at once.
    format!(
        "say() {{ read up rest < /proc/uptime; echo \"$$up $$1 $$$$ \
            $${{FLEET_FENCING_TOKEN:--}}\" >> {RECORDS}/%n; }}; \
         trap \"say stop; exit 0\" TERM; say start; while :; do say beat; sleep {BEAT} & wait \
         $$!; done"
    )
}

/// Everything recorded on all hosts so far, by unit, then time.
pub fn lives(lab: &Lab) -> Result<Vec<Life>> {
    let mut lives = Vec::new();
    for host in lab.ls() {
        let folder = lab.records(&host.name)?;
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?
        {
            lives.extend(read(&entry?.path(), &host.name)?);
        }
    }
    lives.sort_by(|a, b| a.unit.cmp(&b.unit).then(a.from.total_cmp(&b.from)));
    Ok(lives)
}

/// Pairs of copies of one unit that lived at the same time.
pub fn overlaps(lives: &[Life]) -> Vec<(&Life, &Life)> {
    let mut found = Vec::new();
    for (number, first) in lives.iter().enumerate() {
        let rest = lives[number + 1..].iter().take_while(|life| life.unit == first.unit);
        found.extend(rest.filter(|second| second.from < first.until).map(|second| (first, second)));
    }
    found
}

/// Pairs of lives of one unit of which the later one had a lower token than the earlier one.
pub fn lower_tokens(lives: &[Life]) -> Vec<(&Life, &Life)> {
    let pairs =
        lives.iter().zip(lives.iter().skip(1)).filter(|(first, second)| first.unit == second.unit);
    pairs.filter(|(first, second)| second.token < first.token).collect()
}

/// Times from `from` to `until` in which fewer than `wanted` of `lives` lived, longer than
/// [`SILENCE`]: their beginnings and ends.
pub fn gaps(lives: &[Life], wanted: usize, from: f64, until: f64) -> Vec<(f64, f64)> {
    let mut changes: BTreeMap<u64, i64> = BTreeMap::new();
    let key = |at: f64| (at.clamp(from, until) * 1000.0) as u64;
    for life in lives.iter().filter(|life| life.until > from && life.from < until) {
        *changes.entry(key(life.from)).or_default() += 1;
        *changes.entry(key(life.until + BEAT)).or_default() -= 1;
    }
    changes.entry(key(until)).or_default();
    let end = key(until);
    let (mut alive, mut since, mut found) = (0, Some(key(from)), Vec::new());
    for (at, change) in changes {
        alive += change;
        let enough = alive >= wanted as i64;
        if let Some(begin) = since.filter(|_| enough || at == end)
            && (at - begin) as f64 / 1000.0 > SILENCE
        {
            found.push((begin as f64 / 1000.0, at as f64 / 1000.0));
        }
        since = if enough { None } else { since.or(Some(at)) };
    }
    found
}

/// The machine's uptime now, in seconds: the clock of all records.
pub fn now() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    text.split_whitespace()
        .next()
        .context("no number in /proc/uptime")?
        .parse()
        .context("read /proc/uptime")
}

fn read(path: &Path, host: &str) -> Result<Vec<Life>> {
    let text = std::fs::read_to_string(path)?;
    let unit = path.file_name().and_then(|name| name.to_str()).context("a unit's name")?;
    Ok(parse(&text, unit, host))
}

/// A line cut off by a power loss is passed over.
fn parse(text: &str, unit: &str, host: &str) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [at, what, pid, token] = words[..] else { continue };
        let (Ok(at), Ok(pid)) = (at.parse(), pid.parse()) else { continue };
        let known = lives.iter_mut().rev().find(|life| life.pid == pid && !life.stopped);
        match (what, known) {
            ("beat" | "stop", Some(life)) => {
                if at - life.until > SILENCE {
                    life.pauses.push((life.until, at));
                }
                (life.until, life.stopped) = (at, what == "stop");
            }
            ("start", _) => lives.push(Life {
                unit: unit.to_owned(),
                host: host.to_owned(),
                pid,
                token: token.parse().ok(),
                from: at,
                until: at,
                stopped: false,
                pauses: Vec::new(),
            }),
            _ => {}
        }
    }
    lives
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "10.00 start 7 5\n10.10 beat 7 5\n10.20 stop 7 5\n11.00 start 9 -\n11.10 beat 9 -\n11.2";

    #[test]
    fn lives_are_read_from_a_record_with_a_torn_end() {
        let lives = parse(TEXT, "a.service", "h1");
        let short: Vec<_> =
            lives.iter().map(|l| (l.pid, l.token, l.from, l.until, l.stopped)).collect();
        assert_eq!(short, [(7, Some(5), 10.0, 10.2, true), (9, None, 11.0, 11.1, false)]);
    }

    #[test]
    fn a_life_that_stood_still_has_a_pause() {
        let text = "10.00 start 7 -\n11.90 beat 7 -\n14.10 beat 7 -\n14.20 stop 7 -\n";
        assert_eq!(parse(text, "a.service", "h1")[0].pauses, [(11.9, 14.1)]);
    }

    #[test]
    fn two_copies_at_once_are_an_overlap_and_two_in_turn_are_none() {
        let mut lives = parse(TEXT, "a.service", "h1");
        assert!(overlaps(&lives).is_empty());
        lives.push(Life { from: 11.05, until: 12.0, host: "h2".into(), ..lives[1].clone() });
        assert_eq!(overlaps(&lives).len(), 1);
        lives[2].unit = "b.service".into();
        assert!(overlaps(&lives).is_empty());
    }

    #[test]
    fn a_token_that_goes_down_is_found_within_one_unit() {
        let life = |unit: &str, from, token| Life {
            unit: unit.into(),
            from,
            token,
            ..parse(TEXT, "", "h1")[0].clone()
        };
        assert!(
            lower_tokens(&[
                life("a", 1.0, Some(5)),
                life("a", 2.0, Some(5)),
                life("b", 1.0, Some(3))
            ])
            .is_empty()
        );
        assert_eq!(lower_tokens(&[life("a", 1.0, Some(5)), life("a", 2.0, Some(4))]).len(), 1);
        assert_eq!(lower_tokens(&[life("a", 1.0, Some(5)), life("a", 2.0, None)]).len(), 1);
    }

    #[test]
    fn a_time_with_too_few_copies_is_a_gap() {
        let life = |from, until| Life { from, until, ..parse(TEXT, "a.service", "h1")[0].clone() };
        assert!(gaps(&[life(0.0, 10.0), life(0.0, 10.0)], 2, 1.0, 9.0).is_empty());
        assert_eq!(gaps(&[life(0.0, 4.0), life(7.0, 10.0)], 1, 1.0, 9.0), [(4.1, 7.0)]);
        assert_eq!(
            gaps(&[life(0.0, 4.0), life(7.0, 10.0), life(0.0, 10.0)], 2, 1.0, 9.0),
            [(4.1, 7.0)]
        );
        assert_eq!(
            gaps(&[life(0.0, 4.0), life(3.0, 4.0), life(8.0, 9.5)], 2, 1.0, 9.0),
            [(4.1, 9.0)]
        );
        assert_eq!(gaps(&[life(0.0, 4.0)], 1, 1.0, 9.0), [(4.1, 9.0)]);
        assert_eq!(gaps(&[], 1, 1.0, 9.0), [(1.0, 9.0)]);
    }
}
