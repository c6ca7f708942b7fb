//! States of units at little cost to systemd: a full listing now and then, in between only what is
//! not active.
//!
//! A full listing costs PID 1 some 4 µs a loaded unit. A glance asks for two counters and for the
//! units of ours that are not active. Whatever else could have changed counts one of them up: a
//! unit that is started or stopped is a job, one that ends by itself and that systemd forgets is a
//! name less. While starts of ours are under way they count, too; then a glance asks for what is
//! not active and, by name, for what we start, and takes the rest as it was for a moment.
//! docs/decisions/0003-listing-not-signals.md has the measurements and what a glance does not see.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fleet_core::name::UnitName;
use zbus::zvariant::ObjectPath;

use super::link::Link;
use crate::systemd::{Job, Listed, SystemdError};

/// How old a full listing may grow. Only the finer state of an active unit (`running`, `exited`)
/// can be old by so much.
const FULL_EVERY: Duration = Duration::from_secs(10);

/// How old a full listing may grow while starts are under way, when the counters tell nothing of
/// the other units.
const FULL_EVERY_BUSY: Duration = Duration::from_millis(800);

/// With more starts under way a full listing is not dear beside them.
const MAX_STARTING: usize = 256;

/// The states that a glance asks for. A unit in none of them is active, or not loaded.
const NOT_ACTIVE: [&str; 5] = ["inactive", "failed", "activating", "deactivating", "maintenance"];

/// With so many patterns at most has systemd pick ours from all that are not active; with more, we
/// do.
const MAX_PATTERNS: usize = 8;

/// What is known of all units.
#[derive(Default)]
pub(super) struct Glance(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The last full listing; none if it tells nothing of what is now.
    full: Option<Full>,
    /// What we started since then, or before and it was still under way then.
    starting: HashSet<UnitName>,
    /// How many jobs of ours ended the life of a unit.
    stops: u64,
    /// How many jobs we queued.
    queued: u32,
    /// How many of systemd's jobs were not ours, when its count was last asked for.
    jobs_of_others: u32,
}

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

type Line<'a> = (
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    ObjectPath<'a>,
    u32,
    &'a str,
    ObjectPath<'a>,
);

impl Glance {
    /// Notes that `job` is about to be queued for `name`.
    pub(super) fn queues(&self, name: &UnitName, job: Job) {
        let mut known = self.known();
        known.queued = known.queued.wrapping_add(1);
        if job == Job::Start {
            known.starting.insert(name.clone());
        } else if job != Job::Reload {
            // What stops is soon not loaded: asking for it by name would load it again.
            known.full = None;
            known.stops += 1;
        }
    }

    /// Notes that a health check is about to be run, a job that is no instance's.
    pub(super) fn queues_check(&self) {
        let mut known = self.known();
        known.queued = known.queued.wrapping_add(1);
    }

    /// See [`crate::systemd::Systemd::jobs_of_others`].
    pub(super) fn jobs_of_others(&self) -> u64 {
        u64::from(self.known().jobs_of_others)
    }

    /// The units of `wanted` that are not at rest.
    pub(super) async fn list(
        &self,
        link: &Link,
        wanted: &[UnitName],
    ) -> Result<Vec<(UnitName, Listed)>, SystemdError> {
        let starting = self.known().starting.clone();
        let glanced = if starting.is_empty() {
            self.glance(link, wanted).await?
        } else {
            self.glance_at_starts(link, wanted, &starting).await?
        };
        match glanced {
            Some(listed) => Ok(listed),
            None => self.list_all(link, wanted, &starting).await,
        }
    }

    /// `starting` is what we had started when the listing was asked for.
    async fn list_all(
        &self,
        link: &Link,
        wanted: &[UnitName],
        starting: &HashSet<UnitName>,
    ) -> Result<Vec<(UnitName, Listed)>, SystemdError> {
        let at = Instant::now();
        let (stops, queued) = {
            let known = self.known();
            (known.stops, known.queued)
        };
        let counts = counts(link).await?;
        self.known().jobs_of_others = counts.jobs.wrapping_sub(queued);
        let listed = list(link, "ListUnits", &(), wanted).await?;
        let mut units: HashMap<UnitName, Option<Listed>> =
            wanted.iter().map(|name| (name.clone(), None)).collect();
        units.extend(listed.iter().map(|(name, unit)| (name.clone(), Some(unit.clone()))));
        let mut known = self.known();
        known.starting.retain(|name| {
            !starting.contains(name) || units.get(name).is_some_and(|unit| has_job(unit.as_ref()))
        });
        known.full = (known.stops == stops).then_some(Full { at, counts, units });
        Ok(listed)
    }

    async fn glance(
        &self,
        link: &Link,
        wanted: &[UnitName],
    ) -> Result<Option<Vec<(UnitName, Listed)>>, SystemdError> {
        if !self.known().may_glance(wanted) {
            return Ok(None);
        }
        let (counts, listing) = tokio::join!(counts(link), not_active(link, wanted));
        Ok(self.known().merge(wanted, counts?, listing?))
    }

    async fn glance_at_starts(
        &self,
        link: &Link,
        wanted: &[UnitName],
        starting: &HashSet<UnitName>,
    ) -> Result<Option<Vec<(UnitName, Listed)>>, SystemdError> {
        if !self.known().may_glance_at_starts(wanted, starting, link.connections()) {
            return Ok(None);
        }
        let names: Vec<&UnitName> = starting.iter().collect();
        let by_name: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        let listed = async { list(link, "ListUnitsByNames", &(by_name,), starting).await };
        let (not_active, started) = tokio::join!(not_active(link, wanted), listed);
        Ok(self.known().merge_starts(wanted, starting, not_active?, started?, link.connections()))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().expect("no panic while a listing is kept")
    }
}

impl Known {
    /// Whether the last full listing is young, about all of `wanted`, and left nothing on the move.
    fn may_glance(&self, wanted: &[UnitName]) -> bool {
        let Some(last) = &self.full else { return false };
        last.at.elapsed() < FULL_EVERY
            && wanted
                .iter()
                .all(|name| last.units.get(name).is_some_and(|unit| !has_job(unit.as_ref())))
    }

    /// What is not active as systemd says now, the rest as it was; `None` if anything else may have
    /// changed.
    fn merge(
        &self,
        wanted: &[UnitName],
        counts: Counts,
        listing: Vec<(UnitName, Listed)>,
    ) -> Option<Vec<(UnitName, Listed)>> {
        let last = self.full.as_ref().filter(|last| last.counts == counts)?;
        let mut now: HashMap<UnitName, Listed> = listing.into_iter().collect();
        let mut merged = Vec::with_capacity(wanted.len());
        for name in wanted {
            merged.extend(last.merge(name, now.remove(name))?.map(|unit| (name.clone(), unit)));
        }
        Some(merged)
    }

    /// Whether the last full listing is very young, and about all of `wanted` but what we started
    /// since.
    fn may_glance_at_starts(
        &self,
        wanted: &[UnitName],
        starting: &HashSet<UnitName>,
        connections: u64,
    ) -> bool {
        let Some(last) = &self.full else { return false };
        let known = |name| last.units.get(name).is_some_and(|unit| !has_job(unit.as_ref()));
        starting.len() <= MAX_STARTING
            && last.at.elapsed() < FULL_EVERY_BUSY
            && last.counts.connections == connections
            && wanted.iter().all(|name| starting.contains(name) || known(name))
    }

    /// What was started and what is not active as systemd says now, the rest as it was.
    fn merge_starts(
        &self,
        wanted: &[UnitName],
        starting: &HashSet<UnitName>,
        not_active: Vec<(UnitName, Listed)>,
        started: Vec<(UnitName, Listed)>,
        connections: u64,
    ) -> Option<Vec<(UnitName, Listed)>> {
        let last = self.full.as_ref().filter(|last| last.counts.connections == connections)?;
        let mut started: HashMap<UnitName, Listed> = started.into_iter().collect();
        let mut not_active: HashMap<UnitName, Listed> = not_active.into_iter().collect();
        let mut merged = Vec::with_capacity(wanted.len());
        for name in wanted {
            let unit = if starting.contains(name) {
                started.remove(name)
            } else {
                last.merge(name, not_active.remove(name))?
            };
            merged.extend(unit.map(|unit| (name.clone(), unit)));
        }
        Some(merged)
    }
}

impl Full {
    /// A unit as a listing of what is `not_active` shows it now, as it was if it is not in that;
    /// `None` if it must have changed.
    #[expect(clippy::option_option, reason = "at rest is something else than unknown")]
    fn merge(&self, name: &UnitName, not_active: Option<Listed>) -> Option<Option<Listed>> {
        match (not_active, self.units.get(name)?) {
            (Some(unit), _) => Some(Some(unit)),
            (None, Some(unit)) if NOT_ACTIVE.contains(&unit.active.as_str()) => None, // it was listed as such, and is not any more
            (None, unit) => Some(unit.clone()),
        }
    }
}

fn has_job(unit: Option<&Listed>) -> bool {
    unit.is_some_and(|unit| unit.job)
}

/// The units of `wanted` that are in none of the active states.
async fn not_active(
    link: &Link,
    wanted: &[UnitName],
) -> Result<Vec<(UnitName, Listed)>, SystemdError> {
    let states = &NOT_ACTIVE[..];
    match patterns(wanted) {
        Some(patterns) => list(link, "ListUnitsByPatterns", &(states, patterns), wanted).await,
        None => list(link, "ListUnitsFiltered", &(states,), wanted).await,
    }
}

async fn counts(link: &Link) -> Result<Counts, SystemdError> {
    let connections = link.connections();
    let jobs = link.manager_count("NInstalledJobs");
    let (jobs, names) = tokio::try_join!(jobs, link.manager_count("NNames"))?;
    Ok(Counts { jobs, names, connections })
}

/// Asks and picks those of `wanted` that are not at rest.
async fn list<'a, B>(
    link: &Link,
    method: &'static str,
    body: &B,
    wanted: impl IntoIterator<Item = &'a UnitName>,
) -> Result<Vec<(UnitName, Listed)>, SystemdError>
where
    B: serde::Serialize + zbus::zvariant::DynamicType + Sync,
{
    let reply = link.manager(method, body, |c| c.list += 1).await.map_err(SystemdError::from)?;
    let body = reply.body();
    let lines: Vec<Line<'_>> =
        body.deserialize().map_err(|error| SystemdError::Unavailable(error.to_string()))?;
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let by_name: HashMap<&str, &Line<'_>> = lines.iter().map(|line| (line.0, line)).collect();
    let listed = wanted.into_iter().filter_map(|name| {
        let (_, _, load, active, sub, _, _, job, _, _) = by_name.get(name.as_str())?;
        let listed = Listed {
            load: load.to_string(),
            active: active.to_string(),
            sub: sub.to_string(),
            job: *job != 0,
        };
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

    fn known(units: &[(&str, Option<Listed>)]) -> Known {
        let units =
            units.iter().map(|(name, unit)| (UnitName::trusted(*name), unit.clone())).collect();
        Known { full: Some(Full { at: Instant::now(), counts: COUNTS, units }), ..Known::default() }
    }

    fn listing(units: &[(&str, &Listed)]) -> Vec<(UnitName, Listed)> {
        units.iter().map(|(name, unit)| (UnitName::trusted(*name), (*unit).clone())).collect()
    }

    fn shown(units: Option<Vec<(UnitName, Listed)>>) -> Option<String> {
        Some(
            units?
                .iter()
                .map(|(name, unit)| format!("{name} {}", unit.active))
                .collect::<Vec<_>>()
                .join(", "),
        )
    }

    const COUNTS: Counts = Counts { jobs: 7, names: 300, connections: 1 };

    #[test]
    fn one_pattern_stands_for_all_instances_and_many_units_need_none() {
        assert_eq!(
            patterns(&names("web@1.service web@2.service a\\x2db.service")).unwrap(),
            ["web@*", "a?x2db.service"]
        );
        let many: Vec<UnitName> =
            (0..=MAX_PATTERNS).map(|i| UnitName::trusted(format!("u{i}.service"))).collect();
        assert_eq!(patterns(&many), None);
    }

    #[test]
    fn a_glance_is_believed_only_while_nothing_was_on_the_move_and_the_counts_stand() {
        let (active, failed) = (unit("active", false), unit("failed", false));
        let last = known(&[
            ("a.service", Some(active.clone())),
            ("b.service", Some(failed.clone())),
            ("c.service", None),
        ]);
        let wanted = names("a.service b.service c.service");
        let merge =
            |counts, now: &[(&str, &Listed)]| shown(last.merge(&wanted, counts, listing(now)));
        assert!(last.may_glance(&wanted));
        assert_eq!(
            merge(COUNTS, &[("b.service", &failed)]).unwrap(),
            "a.service active, b.service failed"
        );
        assert_eq!(
            merge(COUNTS, &[("a.service", &failed), ("b.service", &failed)]).unwrap(),
            "a.service failed, b.service failed"
        );
        assert_eq!(merge(COUNTS, &[]), None, "b came up without a job");
        assert_eq!(
            merge(Counts { names: 299, ..COUNTS }, &[("b.service", &failed)]),
            None,
            "a may have ended and be forgotten"
        );
        assert_eq!(merge(Counts { jobs: 8, ..COUNTS }, &[("b.service", &failed)]), None);
        assert!(!last.may_glance(&names("new.service")));
        assert!(
            !known(&[("a.service", Some(unit("active", true)))]).may_glance(&names("a.service")),
            "its job may have ended"
        );
    }

    #[test]
    fn while_units_start_they_are_asked_for_by_name_and_failures_of_others_are_seen() {
        let (active, failed) = (unit("active", false), unit("failed", false));
        let last = known(&[("a.service", Some(active.clone())), ("c.service", None)]);
        let (wanted, starting) = (
            names("a.service b.service c.service"),
            HashSet::from([UnitName::trusted("b.service")]),
        );
        let merge = |not_active: &[(&str, &Listed)], started: &[(&str, &Listed)]| {
            shown(last.merge_starts(&wanted, &starting, listing(not_active), listing(started), 1))
        };
        assert!(last.may_glance_at_starts(&wanted, &starting, 1));
        assert_eq!(
            merge(&[], &[("b.service", &active)]).unwrap(),
            "a.service active, b.service active"
        );
        assert_eq!(
            merge(&[("a.service", &failed)], &[]).unwrap(),
            "a.service failed",
            "b ended at once and is forgotten"
        );
        assert_eq!(
            shown(last.merge_starts(&wanted, &starting, vec![], vec![], 2)),
            None,
            "another systemd may answer"
        );
        assert!(!last.may_glance_at_starts(&wanted, &starting, 2));
        assert!(!last.may_glance_at_starts(&wanted, &HashSet::new(), 1), "b is not known");
    }

    #[test]
    fn a_stop_or_restart_of_ours_and_a_listing_that_grew_old_make_the_next_listing_a_full_one() {
        let (a, starting) = (names("a.service"), HashSet::new());
        for job in [Job::Stop, Job::Restart] {
            let glance = Glance(Mutex::new(known(&[("a.service", None)])));
            glance.queues(&a[0], job);
            assert!(glance.known().full.is_none());
        }
        let mut old = known(&[("a.service", None)]);
        old.full.as_mut().unwrap().at = Instant::now().checked_sub(FULL_EVERY_BUSY).unwrap();
        assert!(old.may_glance(&a) && !old.may_glance_at_starts(&a, &starting, 1));
    }
}
