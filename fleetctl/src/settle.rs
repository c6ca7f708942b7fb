//! What came up while somebody waits for it, and whether it stays up: systemd counts a
//! `Type=simple` service as started as soon as it has a process, also one that fails at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleet_core::model::InstanceStatus;
use fleet_core::name::UnitName;
use fleet_core::wire::{InstanceProgress, UnitProgress};
use fleet_core::words;
use tokio::time::Instant;

use crate::error::Error;
use crate::output::machine_legend;
use crate::progress::reasons;
use crate::target::{Goal, Target};

/// How long after an instance was first seen up it is looked at once more: a program that cannot
/// start has failed by then.
const SETTLE: Duration = Duration::from_millis(200);

/// An instance that has been seen up for so long needs no look of its own: each machine reports a
/// failure within a second.
const REPORTED: Duration = Duration::from_secs(2);

/// How many instances of one unit are looked at: they run the same text, and each look is a
/// request.
const MOST_LOOKED_AT: usize = 5;

/// An instance and its machine.
type Place = (String, String);

/// The instances that came up.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// Of which unit, and when it was first seen up.
    up: BTreeMap<Place, (String, Instant)>,
    /// What was up before: since when, as its machine has it.
    before: BTreeMap<Place, u64>,
    /// The units of which a line was seen.
    seen: BTreeSet<String>,
}

impl Settling {
    /// Takes the newest of one unit; call it before what is news is told.
    pub(crate) fn observe(&mut self, target: &Target, unit: &UnitProgress, now: Instant) {
        if target.goal != Goal::Launched {
            return;
        }
        let first = self.seen.insert(unit.name.clone());
        let wanted: BTreeMap<Place, &InstanceProgress> =
            unit.instances.iter().filter(|i| i.wanted).map(|i| (place(i), i)).collect();
        let is_up = |instance: &InstanceProgress| {
            let status =
                instance.status.as_ref().filter(|status| instance.done && status.is_active());
            status.map(|status| status.since_ms)
        };
        self.up.retain(|place, (of, _)| {
            *of != unit.name || wanted.get(place).is_some_and(|instance| is_up(instance).is_some())
        });
        for (place, instance) in wanted {
            let Some(since_ms) = is_up(instance) else { continue };
            if first && !target.arriving.contains(&instance.name) && is_old(since_ms) {
                self.before.insert(place, since_ms);
            } else if self.before.get(&place) != Some(&since_ms) {
                self.up.entry(place).or_insert((unit.name.clone(), now));
            }
        }
    }

    /// When to look once more; `None` if there is nothing to look at.
    pub(crate) fn look_at(&self, now: Instant) -> Option<Instant> {
        self.young(now).map(|(_, _, first_seen)| first_seen + SETTLE).max()
    }

    /// When all that came up and is young will have been reported, had it failed at once; `None` if
    /// nothing is.
    pub(crate) fn reported_at(&self, now: Instant) -> Option<Instant> {
        self.young(now).map(|(_, _, first_seen)| first_seen + REPORTED).max()
    }

    /// What to look at then, a few of each unit.
    pub(crate) fn names(&self, now: Instant) -> Vec<String> {
        let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for ((name, _), unit, _) in self.young(now) {
            names.entry(unit).or_default().insert(name);
        }
        names
            .into_values()
            .flat_map(|names| names.into_iter().take(MOST_LOOKED_AT))
            .map(str::to_string)
            .collect()
    }

    /// It was found on its way up once more: looked at again later.
    pub(crate) fn again(&mut self, name: &str, now: Instant) {
        for (_, (_, first_seen)) in self.up.iter_mut().filter(|((of, _), _)| of == name) {
            *first_seen = now;
        }
    }

    /// The error for one that failed, by what `systemctl status` says of it.
    pub(crate) fn failed(&self, name: &str, text: &str) -> Error {
        let mut machines = self
            .up
            .keys()
            .filter(|(of, _)| of == name)
            .map(|(_, machine)| machine_legend(machine, "", false));
        let on = match (machines.next(), machines.next()) {
            (Some(machine), None) => format!(" on {machine}"),
            _ => String::new(),
        };
        let why = reasons(&outcome(name, text), true);
        Error::failed(format!("{name} failed{on}{why}")).hint(format!("fleetctl journal {name}"))
    }

    fn young(&self, now: Instant) -> impl Iterator<Item = (&Place, &str, Instant)> {
        let all =
            self.up.iter().map(|(place, (unit, first_seen))| (place, unit.as_str(), *first_seen));
        all.filter(move |(_, _, first_seen)| now < *first_seen + REPORTED)
    }
}

/// What `systemctl status` says of a service that was started just now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It runs, has ended well, or is something else.
    Well,
    /// systemd is starting it, perhaps once more.
    Starts,
    Failed,
}

/// Reads it in the text of one machine, or of several.
pub(crate) fn found(text: &str) -> Found {
    let of = |what| text.lines().filter_map(move |line| line.trim_start().strip_prefix(what));
    let states = || of("Active: ");
    // Of a busy machine: systemd's own process, `9 ((x))`, which becomes the program later.
    let is_no_program_yet = |pid: &str| {
        let name = pid.split_once(' ').map_or("", |(_, name)| name);
        name.starts_with("((") || name.starts_with("(systemd-executo")
    };
    match () {
        () if states().any(|state| state.starts_with("failed")) => Found::Failed,
        () if states().any(|state| state.starts_with("activating")) => Found::Starts,
        () if of("Main PID: ").any(is_no_program_yet) => Found::Starts,
        () => Found::Well,
    }
}

/// `Active: failed (Result: exit-code) since …`, `Main PID: 12 (code=exited, status=7)`.
/// And below, among the last lines of its journal, systemd's own words.
fn outcome(name: &str, text: &str) -> InstanceStatus {
    let part = |from: &str, end: fn(char) -> bool| {
        let rest = &text[text.find(from)? + from.len()..];
        Some(&rest[..rest.find(end)?])
    };
    let result = part("Active: failed (Result: ", |c| c == ')').unwrap_or_default().to_string();
    let code = part(", status=", |c| !c.is_ascii_digit()).and_then(|code| code.parse().ok());
    let reason = words::reason(UnitName::trusted(name).systemd_name().as_str(), text.lines());
    InstanceStatus { result, code, reason, ..InstanceStatus::default() }
}

fn place(instance: &InstanceProgress) -> Place {
    (instance.name.clone(), instance.machine.as_ref().map_or_else(String::new, ToString::to_string))
}

/// Whether it has been up for longer than the look waits, by the clocks of its machine and of this
/// one.
fn is_old(since_ms: u64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(since_ms)) >= SETTLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_of_systemctl_status_are_told_apart() {
        let of = |state: &str| {
            found(&format!(
                "● a.service - A\n     Loaded: loaded\n     Active: {state} since Wed\n"
            ))
        };
        assert_eq!(of("active (running)"), Found::Well);
        assert_eq!(of("inactive (dead)"), Found::Well);
        assert_eq!(of("activating (auto-restart) (Result: exit-code)"), Found::Starts);
        assert_eq!(of("failed (Result: exit-code)"), Found::Failed);
        assert_eq!(found("  Active: active\n\n  Active: failed (Result: signal)\n"), Found::Failed);
        assert_eq!(found(""), Found::Well);
        let runs = "Active: active (running) since Wed; 9ms ago\n Main PID: 9 ";
        for (process, expected) in [
            ("(sleep)", Found::Well),
            ("((sleep))", Found::Starts),
            ("(systemd-executo)", Found::Starts),
            ("(code=exited, status=0/SUCCESS)", Found::Well),
        ] {
            assert_eq!(found(&format!("{runs}{process}\n")), expected, "{process}");
        }
    }

    #[test]
    fn the_reason_is_read_from_the_same_text() {
        let text = "× a.service\n     Active: failed (Result: exit-code) since Wed; 1s ago\n   \
            Main PID: 9 (code=exited, status=203/EXEC)\n\n\
                    Nov 30 07:54:42 h1 (x)[9]: a.service: Failed to locate executable /bin/x: No \
                    such file or directory\n";
        let why = ": exit-code, status 203, Failed to locate executable /bin/x: No such file or \
            directory";
        assert_eq!(reasons(&outcome("a.container", text), true), why);
        assert_eq!(reasons(&outcome("a.service", "Active: failed"), true), "");
    }
}
