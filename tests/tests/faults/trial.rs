//! Workloads that record their lives, and what may be said of them after a fault.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE};
use fleet_tests::lab::wait_for;
use fleet_tests::record::{self, Life, SILENCE};

use crate::AGENT_LEASE;

/// How many replicas there are: two a host.
pub(crate) const COUNT: usize = 6;

/// How long after a fault of the control plane nothing may happen: beyond the time that absent machines get to return.
const AFTER: Duration = Duration::from_secs(AGENT_LEASE.as_secs() + 4);

/// One cluster with its workloads.
pub(crate) struct Trial<'a> {
    pub(crate) cluster: &'a Cluster,
}

impl Trial<'_> {
    /// Starts the workloads.
    pub(crate) fn begin(cluster: &Cluster) -> Result<Trial<'_>> {
        cluster.submit("web@.service", &record::recorder("", ""))?;
        cluster.ctl(&["scale", &format!("web={COUNT}")])?;
        let trial = Trial { cluster };
        trial.wait_for_count(PATIENCE)?;
        Ok(trial)
    }

    /// Makes a fault of the control plane, mends it, and watches: every workload that lived before lives on, and no other came up.
    pub(crate) fn unnoticed(&self, what: &str, fault: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
        let before = self.alive()?;
        ensure!(before.len() == COUNT, "before {what} there are {before:?}");
        let begin = Instant::now();
        fault(self.cluster)?;
        self.cluster.wait_until_ready()?;
        let mended = Instant::now();
        while mended.elapsed() < AFTER {
            let now = self.alive()?;
            ensure!(
                identities(&now) == identities(&before),
                "{what}, {:.1} s after it began: {before:?} became {now:?}",
                begin.elapsed().as_secs_f64()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        let all = record::lives(&self.cluster.lab)?;
        ensure!(record::overlaps(&all).is_empty(), "{what}: {:?}", record::overlaps(&all));
        Ok(())
    }

    /// Waits until [`COUNT`] workloads live, each once, and says where.
    pub(crate) fn wait_for_count(&self, limit: Duration) -> Result<Vec<Life>> {
        wait_for("every workload to live, each once", limit, || {
            let alive = self.alive()?;
            let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
            alive.iter().for_each(|life| *copies.entry(&life.unit).or_default() += 1);
            ensure!(copies.len() == COUNT && alive.len() == COUNT, "there are {alive:?}");
            Ok(alive)
        })
    }

    /// The lives that have been heard of within the last [`SILENCE`], on hosts that have power.
    pub(crate) fn alive(&self) -> Result<Vec<Life>> {
        let mut lives = record::lives(&self.cluster.lab)?;
        let (now, hosts) = (record::now()?, self.cluster.hosts());
        lives.retain(|life| !life.stopped && life.until > now - SILENCE && hosts.contains(&life.host));
        Ok(lives)
    }
}

/// What makes two looks at a life the same life.
fn identities(lives: &[Life]) -> Vec<(&str, &str, u32)> {
    lives.iter().map(|life| (life.unit.as_str(), life.host.as_str(), life.pid)).collect()
}
