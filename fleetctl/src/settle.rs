//! What came up while somebody waits for it, and whether it stays up: systemd counts a `Type=simple` service as started as soon as it has a
//! process, also one that fails at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleet_core::wire::{InstanceProgress, UnitProgress};
use tokio::time::Instant;

use crate::error::Error;
use crate::output::machine_legend;
use crate::watch::{Goal, Target, reasons};

/// How long after an instance was first seen up it is looked at once more: a program that cannot start has failed by then.
const SETTLE: Duration = Duration::from_millis(200);

/// An instance that has been seen up for so long needs no look of its own: each machine reports a failure within a second.
const REPORTED: Duration = Duration::from_secs(2);

/// How many instances of one unit are looked at: they run the same text, and each look is a request.
const MOST_LOOKED_AT: usize = 5;

/// An instance and its machine.
type Place = (String, String);

/// The instances that came up.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    up: BTreeMap<Place, Up>,
    /// The units of which a line was seen.
    seen: BTreeSet<String>,
}

/// One that is up, or was.
#[derive(Debug)]
struct Up {
    unit: String,
    first_seen: Instant,
    /// Its restarts then.
    restarts: u32,
    /// As reported last.
    since_ms: u64,
    is_up: bool,
    /// The error, once it has been restarted: by then its machine may no longer know why.
    restarted: Option<String>,
    /// It was found down, or was restarted: its machine has yet to say why. What it said until then.
    expects: Option<u64>,
}

impl Settling {
    /// Takes the newest of one unit; call it before what is news is told. The error is what failed and runs again.
    pub(crate) fn observe(&mut self, target: &Target, unit: &UnitProgress, now: Instant) -> Result<(), Error> {
        if target.goal != Goal::Launched {
            return Ok(());
        }
        let first = self.seen.insert(unit.name.clone());
        let present: BTreeSet<Place> = unit.instances.iter().filter(|i| i.wanted).map(place).collect();
        self.up.retain(|place, up| up.unit != unit.name || present.contains(place));
        for instance in unit.instances.iter().filter(|instance| instance.wanted) {
            let Some(status) = &instance.status else { continue };
            let is_up = instance.done && status.is_active();
            let place = place(instance);
            match self.up.get_mut(&place) {
                Some(up) => {
                    (up.is_up, up.since_ms) = (is_up, status.since_ms);
                    if status.restarts > up.restarts {
                        up.restarted = Some(failed(instance));
                        up.expects.get_or_insert(status.since_ms);
                        if !status.result.is_empty() {
                            return self.restarted();
                        }
                    } else if up.expects.is_some_and(|said| said != status.since_ms) && (is_up || instance.done) {
                        up.expects = None;
                    }
                }
                None if !is_up || (first && !target.arriving.contains(&instance.name) && is_old(status.since_ms)) => {}
                None => {
                    let (unit, restarts, since_ms) = (unit.name.clone(), status.restarts, status.since_ms);
                    self.up
                        .insert(place, Up { unit, first_seen: now, restarts, since_ms, is_up, restarted: None, expects: None });
                }
            }
        }
        Ok(())
    }

    /// When to look once more; `None` if there is nothing to look at.
    pub(crate) fn look_at(&self, now: Instant) -> Option<Instant> {
        self.young(now).map(|up| up.1.first_seen + SETTLE).max()
    }

    /// What to look at then, a few of each unit.
    pub(crate) fn names(&self, now: Instant) -> Vec<String> {
        let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for ((name, _), up) in self.young(now) {
            names.entry(&up.unit).or_default().insert(name);
        }
        names.into_values().flat_map(|names| names.into_iter().take(MOST_LOOKED_AT)).map(str::to_string).collect()
    }

    fn young(&self, now: Instant) -> impl Iterator<Item = (&Place, &Up)> {
        self.up.iter().filter(move |(_, up)| up.is_up && (now < up.first_seen + REPORTED || up.expects.is_some()))
    }

    /// They were found down: their machines are about to say why.
    pub(crate) fn expect_news_of(&mut self, names: &[String]) {
        for ((name, _), up) in self.up.iter_mut().filter(|(_, up)| up.is_up) {
            if names.contains(name) {
                up.expects.get_or_insert(up.since_ms);
            }
        }
    }

    /// The instances of which news is expected.
    pub(crate) fn expected(&self) -> Vec<String> {
        self.up.iter().filter(|(_, up)| up.expects.is_some()).map(|((name, _), _)| name.clone()).collect()
    }

    /// The error for what has been restarted since it came up.
    pub(crate) fn restarted(&self) -> Result<(), Error> {
        let restarted = self.up.iter().find_map(|((name, _), up)| Some((name, up.restarted.as_ref()?)));
        restarted.map_or(Ok(()), |(name, problem)| Err(Error::failed(problem).hint(format!("fleetctl journal {name}"))))
    }

    /// Whether news of an instance of this unit is expected.
    pub(crate) fn expects(&self, unit: &str) -> bool {
        self.up.values().any(|up| up.unit == unit && up.expects.is_some())
    }
}

fn place(instance: &InstanceProgress) -> Place {
    (instance.name.clone(), instance.machine.as_ref().map_or_else(String::new, ToString::to_string))
}

/// Whether it has been up for longer than the look waits, by the clocks of its machine and of this one.
fn is_old(since_ms: u64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(since_ms)) >= SETTLE
}

fn failed(instance: &InstanceProgress) -> String {
    let machine = instance.machine.as_ref().map_or_else(String::new, |id| machine_legend(id.as_str(), "", false));
    let why = instance.status.as_ref().map_or_else(String::new, |status| reasons(status, true));
    format!("{} failed on {machine} and was started again{why}", instance.name)
}
