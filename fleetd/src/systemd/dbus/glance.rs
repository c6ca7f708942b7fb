//! States of units at little cost to systemd: a full listing now and then, in between only what is not active.
//!
//! A full listing costs PID 1 some 4 µs a loaded unit. A glance asks for two counters and for the units of ours that are not active.
//! Whatever else could have changed counts one of them up: a unit that is started or stopped is a job, one that ends by itself and that
//! systemd forgets is a name less. docs/decisions/0003-listing-not-signals.md has the measurements and what a glance does not see.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fleet_core::name::UnitName;
use zbus::zvariant::ObjectPath;

use super::link::Link;
use crate::systemd::{Listed, SystemdError};

/// How old a full listing may grow. Only the finer state of an active unit (`running`, `exited`) can be old by so much.
const FULL_EVERY: Duration = Duration::from_secs(10);

/// The states that a glance asks for. A unit in none of them is active, or not loaded.
const NOT_ACTIVE: [&str; 5] = ["inactive", "failed", "activating", "deactivating", "maintenance"];

/// With so many patterns at most has systemd pick ours from all that are not active; with more, we do.
const MAX_PATTERNS: usize = 8;

/// The last full listing.
#[derive(Default)]
pub(super) struct Glance(Mutex<Option<Full>>);

struct Full {
    at: Instant,
    counts: Counts,
    /// Every name that was asked for then; `None` if it was at rest.
    units: HashMap<UnitName, Option<Listed>>,
}

/// What systemd counts. Taken before a listing: what happens during it counts as news afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Jobs since the boot.
    jobs: u32,
    /// Units that systemd knows, by all their names.
    names: u32,
    /// Connections that we made: a new one may be to a new systemd.
    connections: u64,
}

type Line<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str, ObjectPath<'a>, u32, &'a str, ObjectPath<'a>);

impl Glance {
    /// The units of `wanted` that are not at rest.
    pub(super) async fn list(&self, link: &Link, wanted: &[UnitName]) -> Result<Vec<(UnitName, Listed)>, SystemdError> {
        if self.may_glance(wanted) {
            let states = &NOT_ACTIVE[..];
            let patterns = patterns(wanted);
            let (counts, listing) = tokio::join!(counts(link), async {
                match &patterns {
                    Some(patterns) => list(link, "ListUnitsByPatterns", &(states, patterns), wanted).await,
                    None => list(link, "ListUnitsFiltered", &(states,), wanted).await,
                }
            });
            if let Some(merged) = self.merge(wanted, counts?, listing?) {
                return Ok(merged);
            }
        }
        let counts = counts(link).await?;
        let listed = list(link, "ListUnits", &(), wanted).await?;
        let mut units: HashMap<UnitName, Option<Listed>> = wanted.iter().map(|name| (name.clone(), None)).collect();
        units.extend(listed.iter().map(|(name, unit)| (name.clone(), Some(unit.clone()))));
        *self.last() = Some(Full { at: Instant::now(), counts, units });
        Ok(listed)
    }

    /// Whether the last full listing is young, about all of `wanted`, and left nothing on the move.
    fn may_glance(&self, wanted: &[UnitName]) -> bool {
        let last = self.last();
        let Some(last) = &*last else { return false };
        last.at.elapsed() < FULL_EVERY
            && wanted.iter().all(|name| last.units.get(name).is_some_and(|unit| unit.as_ref().is_none_or(|unit| !unit.job)))
    }

    /// What is not active as systemd says now, the rest as it was; `None` if anything else may have changed.
    fn merge(&self, wanted: &[UnitName], counts: Counts, listing: Vec<(UnitName, Listed)>) -> Option<Vec<(UnitName, Listed)>> {
        let last = self.last();
        let last = last.as_ref().filter(|last| last.counts == counts)?;
        let mut now: HashMap<UnitName, Listed> = listing.into_iter().collect();
        let mut merged = Vec::with_capacity(wanted.len());
        for name in wanted {
            match (now.remove(name), last.units.get(name)?) {
                (Some(unit), _) => merged.push((name.clone(), unit)),
                (None, Some(unit)) if !NOT_ACTIVE.contains(&unit.active.as_str()) => merged.push((name.clone(), unit.clone())),
                (None, Some(_)) => return None, // it was not active, and is not listed as such any more
                (None, None) => {}
            }
        }
        Some(merged)
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Full>> {
        self.0.lock().expect("no panic while a listing is kept")
    }
}

async fn counts(link: &Link) -> Result<Counts, SystemdError> {
    let connections = link.connections();
    let jobs = link.manager_count("NInstalledJobs");
    let (jobs, names) = tokio::try_join!(jobs, link.manager_count("NNames"))?;
    Ok(Counts { jobs, names, connections })
}

/// Asks and picks those of `wanted` that are not at rest.
async fn list<B>(
    link: &Link,
    method: &'static str,
    body: &B,
    wanted: &[UnitName],
) -> Result<Vec<(UnitName, Listed)>, SystemdError>
where
    B: serde::Serialize + zbus::zvariant::DynamicType + Sync,
{
    let reply = link.manager(method, body, |c| c.list += 1).await.map_err(SystemdError::from)?;
    let body = reply.body();
    let lines: Vec<Line<'_>> = body.deserialize().map_err(|error| SystemdError::Unavailable(error.to_string()))?;
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let by_name: HashMap<&str, &Line<'_>> = lines.iter().map(|line| (line.0, line)).collect();
    let listed = wanted.iter().filter_map(|name| {
        let (_, _, load, active, sub, _, _, job, _, _) = by_name.get(name.as_str())?;
        let listed = Listed { load: load.to_string(), active: active.to_string(), sub: sub.to_string(), job: *job != 0 };
        Some((name.clone(), listed))
    });
    Ok(listed.collect())
}

/// Shell patterns that match all of `wanted`, one a template; none if that takes too many.
fn patterns(wanted: &[UnitName]) -> Option<Vec<String>> {
    let mut patterns: Vec<String> = Vec::new();
    for name in wanted {
        // A backslash in a name would escape in a pattern.
        let pattern = match name.instance() {
            Some(_) => format!("{}@*", name.prefix()),
            None => name.to_string(),
        };
        let pattern = pattern.replace('\\', "?");
        if !patterns.contains(&pattern) {
            if patterns.len() == MAX_PATTERNS {
                return None;
            }
            patterns.push(pattern);
        }
    }
    Some(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<UnitName> {
        text.split(' ').map(UnitName::trusted).collect()
    }

    fn unit(active: &str, job: bool) -> Listed {
        Listed { load: "loaded".into(), active: active.into(), sub: "x".into(), job }
    }

    fn glance(units: &[(&str, Option<Listed>)]) -> Glance {
        let units = units.iter().map(|(name, unit)| (UnitName::trusted(*name), unit.clone())).collect();
        Glance(Mutex::new(Some(Full { at: Instant::now(), counts: COUNTS, units })))
    }

    const COUNTS: Counts = Counts { jobs: 7, names: 300, connections: 1 };

    #[test]
    fn one_pattern_stands_for_all_instances_and_many_units_need_none() {
        assert_eq!(patterns(&names("web@1.service web@2.service a\\x2db.service")).unwrap(), ["web@*", "a?x2db.service"]);
        let many: Vec<UnitName> = (0..=MAX_PATTERNS).map(|i| UnitName::trusted(format!("u{i}.service"))).collect();
        assert_eq!(patterns(&many), None);
    }

    #[test]
    fn a_glance_is_believed_only_while_nothing_was_on_the_move_and_the_counts_stand() {
        let (active, failed) = (unit("active", false), unit("failed", false));
        let known = glance(&[("a.service", Some(active.clone())), ("b.service", Some(failed.clone())), ("c.service", None)]);
        let wanted = names("a.service b.service c.service");
        let merge = |counts, now: &[(&str, &Listed)]| {
            let now = now.iter().map(|(name, unit)| (UnitName::trusted(*name), (*unit).clone())).collect();
            known
                .merge(&wanted, counts, now)
                .map(|all| all.into_iter().map(|(name, unit)| format!("{name} {}", unit.active)).collect())
        };
        assert!(known.may_glance(&wanted));
        assert_eq!(
            merge(COUNTS, &[("b.service", &failed)]),
            Some(vec!["a.service active".to_string(), "b.service failed".to_string()])
        );
        assert_eq!(merge(COUNTS, &[("a.service", &failed), ("b.service", &failed)]).unwrap()[0], "a.service failed");
        assert_eq!(merge(COUNTS, &[]), None, "b came up without a job");
        assert_eq!(merge(Counts { names: 299, ..COUNTS }, &[("b.service", &failed)]), None, "a may have ended and be forgotten");
        assert_eq!(merge(Counts { jobs: 8, ..COUNTS }, &[("b.service", &failed)]), None);
        assert!(!known.may_glance(&names("new.service")));
        assert!(!glance(&[("a.service", Some(unit("active", true)))]).may_glance(&names("a.service")), "its job may have ended");
    }
}
