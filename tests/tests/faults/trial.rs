//! Workloads that record their lives, fenced and not, and what may be said of them after a fault.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet_core::fence::wait_ms;
use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::stop_terms::StopTerms;
use fleet_tests::cluster::{Cluster, PATIENCE};
use fleet_tests::lab::wait_for;
use fleet_tests::record::{self, Life, SILENCE};

use crate::{AGENT_LEASE, LEADER_LEASE, NOISE};

/// How many unfenced replicas there are: two a host.
pub(crate) const COUNT: usize = 6;

/// What is fenced: a Quadlet unit, replicas, a single unit, and two that stay together
/// (`MachineOf=`).
const FENCED: [&str; 7] = [
    "box.service",
    "guard@1.service",
    "guard@2.service",
    "guard@3.service",
    "lone.service",
    "pair-a.service",
    "pair-b.service",
];

/// How long after a fault of the control plane nothing may happen: beyond the time that absent
/// machines get to return.
const AFTER: Duration = Duration::from_secs(AGENT_LEASE.as_secs() + 4);

/// `WatchdogSec=` of the keeper's unit, which is also how long its lease lasts.
const WATCHDOG: Duration = Duration::from_secs(8);

/// How long systemd may take to end what is bound to a keeper that is cut off: the watchdog, the
/// answer that may come late, the unit's stop.
const ENDED: Duration = Duration::from_secs(WATCHDOG.as_secs() + 2 + 5 + NOISE.as_secs());

/// One cluster with its workloads.
pub(crate) struct Trial<'a> {
    pub(crate) cluster: &'a Cluster,
}

impl Trial<'_> {
    /// Starts the workloads.
    pub(crate) fn begin(cluster: &Cluster) -> Result<Trial<'_>> {
        let fenced =
            |constraint: &str| record::recorder("", &format!("[X-Fleet]\nFence=yes\n{constraint}"));
        cluster.submit("web@.service", &record::recorder("", ""))?;
        cluster.submit("guard@.service", &fenced(""))?;
        let mut paths = vec![cluster.write_unit("box.container", &boxed())?];
        for (name, constraint) in
            [("lone", ""), ("pair-a", ""), ("pair-b", "MachineOf=pair-a.service\n")]
        {
            paths.push(cluster.write_unit(&format!("{name}.service"), &fenced(constraint))?);
        }
        cluster.ctl(&["scale", "guard=3", &format!("web={COUNT}")])?;
        cluster.ctl(
            &["start"].into_iter().chain(paths.iter().map(String::as_str)).collect::<Vec<_>>(),
        )?;
        let trial = Trial { cluster };
        let alive = trial.wait_for_count(PATIENCE)?;
        ensure!(
            alive.iter().all(|life| life.token.is_some() == is_fenced(life)),
            "who has a token? {alive:?}"
        );
        Ok(trial)
    }

    /// Makes a fault, and waits until it is mended. Gives what lived before, and when it began, by
    /// this clock and by that of the records.
    fn struck(
        &self,
        what: &str,
        fault: impl FnOnce(&Cluster) -> Result<()>,
    ) -> Result<(Vec<Life>, Instant, f64)> {
        let before = self.wait_for_count(PATIENCE).with_context(|| format!("before {what}"))?;
        let (begin, start) = (Instant::now(), record::now()?);
        fault(self.cluster).with_context(|| what.to_owned())?;
        self.cluster.wait_until_ready()?;
        Ok((before, begin, start))
    }

    /// Makes a fault of the control plane, mends it, and watches: every workload that lived before
    /// lives on, and no other came up.
    pub(crate) fn unnoticed(
        &self,
        what: &str,
        fault: impl FnOnce(&Cluster) -> Result<()>,
    ) -> Result<()> {
        let (before, begin, start) = self.struck(what, fault)?;
        self.quiet(&before).with_context(|| {
            format!("{what}, which began {:.1} s ago", begin.elapsed().as_secs_f64())
        })?;
        self.none_paused(&before, start).with_context(|| what.to_owned())?;
        self.judge(what)
    }

    /// The same for a fault that lasts too long for keepers: what is fenced may stop, and must be
    /// back in the end.
    pub(crate) fn unnoticed_by_the_unfenced(
        &self,
        what: &str,
        fault: impl FnOnce(&Cluster) -> Result<()>,
    ) -> Result<()> {
        let (before, begin, start) = self.struck(what, fault)?;
        let mended = Instant::now();
        let unfenced: Vec<&Life> = before.iter().filter(|life| !is_fenced(life)).collect();
        let after = self.wait_for_count(restored()).with_context(|| format!("after {what}"))?;
        eprintln!(
            "{what}: lasted {:.1} s, {} fenced units were stopped by it; all live {:.1} s after it",
            (mended - begin).as_secs_f64(),
            before.iter().filter(|life| is_fenced(life) && !has(&after, life)).count(),
            mended.elapsed().as_secs_f64()
        );
        while mended.elapsed() < AFTER {
            self.live_on(unfenced.iter().copied()).with_context(|| what.to_owned())?;
            std::thread::sleep(Duration::from_millis(500));
        }
        self.none_paused(unfenced, start).with_context(|| what.to_owned())?;
        self.judge(what)
    }

    /// Watches for a while that every workload of `before` lives on, and no other comes up.
    pub(crate) fn quiet(&self, before: &[Life]) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < AFTER {
            let now = self.alive()?;
            ensure!(
                now.len() == before.len() && before.iter().all(|life| has(&now, life)),
                "{}",
                difference(before, &now)
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// None of these stood still for a while since `start`, not even in the middle of a fault, when
    /// nobody looked.
    fn none_paused<'l>(&self, lives: impl IntoIterator<Item = &'l Life>, start: f64) -> Result<()> {
        let recorded = record::lives(&self.cluster.lab)?;
        let recorded =
            lives.into_iter().filter_map(|life| recorded.iter().find(|other| other.is(life)));
        let paused: Vec<&Life> =
            recorded.filter(|life| life.pauses.iter().any(|(_, until)| *until > start)).collect();
        ensure!(paused.is_empty(), "these stood still: {paused:?}");
        Ok(())
    }

    /// These live on, whatever else does.
    pub(crate) fn live_on<'l>(&self, lives: impl IntoIterator<Item = &'l Life>) -> Result<()> {
        let now = self.alive()?;
        let ended: Vec<&Life> = lives.into_iter().filter(|life| !has(&now, life)).collect();
        ensure!(ended.is_empty(), "these ended: {ended:?}");
        Ok(())
    }

    /// Waits until these fenced lives have ended, as systemd alone promises.
    pub(crate) fn wait_for_end<'l>(
        &self,
        lives: impl IntoIterator<Item = &'l Life> + Clone,
    ) -> Result<()> {
        wait_for("systemd to end what is fenced there", ENDED, || {
            let now = self.alive()?;
            let alive: Vec<&Life> =
                lives.clone().into_iter().filter(|life| has(&now, life)).collect();
            ensure!(alive.is_empty(), "{alive:?}");
            Ok(())
        })
    }

    /// Waits until every workload lives, each once, and says where.
    pub(crate) fn wait_for_count(&self, limit: Duration) -> Result<Vec<Life>> {
        self.wait_for("every workload", limit, |_| true)
    }

    /// The same for those that are not fenced alone, on any host.
    pub(crate) fn wait_for_unfenced(&self, limit: Duration) -> Result<Vec<Life>> {
        self.wait_for("every unfenced workload", limit, |unit| !FENCED.contains(&unit))
    }

    /// The same for those that are fenced.
    pub(crate) fn wait_for_fenced(&self, limit: Duration) -> Result<Vec<Life>> {
        self.wait_for("every fenced workload", limit, |unit| FENCED.contains(&unit))
    }

    fn wait_for(&self, what: &str, limit: Duration, wanted: fn(&str) -> bool) -> Result<Vec<Life>> {
        let mut names: Vec<String> =
            (1..=COUNT).map(|number| format!("web@{number}.service")).collect();
        names.extend(FENCED.map(str::to_owned));
        names.retain(|name| wanted(name));
        wait_for(&format!("{what} to live, each once"), limit, || {
            let mut alive = self.alive()?;
            alive.retain(|life| wanted(&life.unit));
            let mut copies: BTreeMap<&str, Vec<&str>> =
                names.iter().map(|name| (name.as_str(), Vec::new())).collect();
            alive.iter().for_each(|life| copies.entry(&life.unit).or_default().push(&life.host));
            copies.retain(|_, hosts| hosts.len() != 1);
            ensure!(copies.is_empty(), "not once: {copies:?}");
            Ok(alive)
        })
    }

    /// The lives that have been heard of within the last [`SILENCE`], on hosts that have power.
    pub(crate) fn alive(&self) -> Result<Vec<Life>> {
        let mut lives = record::lives(&self.cluster.lab)?;
        let (now, hosts) = (record::now()?, self.cluster.hosts());
        lives.retain(|life| {
            !life.stopped && life.until > now - SILENCE && hosts.contains(&life.host)
        });
        Ok(lives)
    }

    /// In all that was recorded no fenced unit lived twice at once, and no token went down.
    pub(crate) fn judge(&self, what: &str) -> Result<()> {
        let mut lives = record::lives(&self.cluster.lab)?;
        lives.retain(is_fenced);
        ensure!(
            record::overlaps(&lives).is_empty(),
            "{what}: two copies at once: {:?}",
            record::overlaps(&lives)
        );
        ensure!(
            record::lower_tokens(&lives).is_empty(),
            "{what}: {:?}",
            record::lower_tokens(&lives)
        );
        eprintln!("{what}: {} lives of fenced units so far, none beside another", lives.len());
        Ok(())
    }
}

/// Whether the unit of this life has `Fence=yes`.
pub(crate) fn is_fenced(life: &Life) -> bool {
    FENCED.contains(&life.unit.as_str())
}

/// From the loss of a machine until all that is fenced lives elsewhere: the keeper's lease, the
/// wait for the one that takes longest to stop, and what planning and starting take.
pub(crate) fn restored() -> Duration {
    let stop = StopTerms::from_file(
        &UnitName::trusted("box.container"),
        &UnitFile::parse_lenient(&boxed()),
    );
    WATCHDOG
        + Duration::from_millis(wait_ms(WATCHDOG.as_millis() as u64, stop.stop_ms))
        + LEADER_LEASE
        + 2 * NOISE
}

fn boxed() -> String {
    record::container_recorder("[X-Fleet]\nFence=yes\n")
}

fn has(lives: &[Life], life: &Life) -> bool {
    lives.iter().any(|other| other.is(life))
}

/// What ended and what came up, in words.
fn difference(before: &[Life], now: &[Life]) -> String {
    let ended: Vec<&Life> = before.iter().filter(|life| !has(now, life)).collect();
    let new: Vec<&Life> = now.iter().filter(|life| !has(before, life)).collect();
    format!("these ended: {ended:?}; these came up: {new:?}")
}
