//! Leaders that die and leaders that hang: one is elected in time, and the old one writes nothing
//! any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet_core::model::Assignment;
use fleet_tests::cluster::{Cluster, PATIENCE, replicas, scenario, within};
use serde_json::Value;

use crate::{LEADER_LEASE, NOISE, SLEEPER, lab};

/// After a leader was killed the next placement comes within its lease and this.
const PLACED: Duration = Duration::from_millis(750);

const WEB: &[&str] = &["web@*.service"];

#[test]
fn a_leader_that_dies_is_replaced_and_one_that_hung_writes_nothing() -> Result<()> {
    scenario(&lab("leaders", 3), |cluster| {
        cluster.submit("web@.service", SLEEPER)?;
        cluster.ctl(&["scale", "web=3"])?;
        a_killed_leader_is_replaced_within_its_lease(cluster)?;
        a_hung_leader_that_wakes_up_is_fenced(cluster)
    })
}

fn a_killed_leader_is_replaced_within_its_lease(cluster: &Cluster) -> Result<()> {
    let leader = cluster.leader()?;
    // Masked, so that it does not come back at once; its units go on without it.
    cluster.lab.sh(
        &leader,
        "systemctl mask --runtime --quiet fleetd; systemctl kill --kill-whom=main --signal=KILL \
        fleetd",
    )?;
    let since = Instant::now();
    let asker = other_than(cluster, &leader);
    let said = cluster.fleetctl(&asker, &["scale", "--no-block", "web=4"])?;
    ensure!(said.code == 0, "{said:?}");
    within("the next placement", LEADER_LEASE + PLACED + NOISE, since, || {
        // It may be placed on the very machine whose fleetd is dead, so the decision counts, not
        // the start.
        let placed = placed(cluster)?;
        ensure!(placed == replicas("web", 4), "{placed:?}");
        Ok(())
    })?;
    ensure!(cluster.leader_by(&asker)? != leader);
    cluster.lab.sh(
        &leader,
        "rm /run/systemd/system/fleetd.service; systemctl daemon-reload; systemctl start fleetd",
    )?;
    cluster.wait_until_ready()
}

/// It is stopped with work at hand, another leads and does that work; when it wakes up it still
/// believes that it leads.
fn a_hung_leader_that_wakes_up_is_fenced(cluster: &Cluster) -> Result<()> {
    // Without systemd's watchdog, which would replace a hung fleetd before it wakes up.
    for host in cluster.hosts() {
        cluster.write(
            &host,
            "/run/systemd/system/fleetd.service.d/patient.conf",
            "[Service]\nWatchdogSec=0\n",
        )?;
        cluster.lab.sh(&host, "systemctl daemon-reload && systemctl restart fleetd")?;
    }
    cluster.wait_until_ready()?;
    for round in 0..3 {
        let leader = cluster.leader()?;
        let asker = other_than(cluster, &leader);
        let count = 5 + 3 * round;
        cluster.lab.sh(&leader, "systemctl kill --kill-whom=main --signal=STOP fleetd")?;
        let since = Instant::now();
        // Placed by the next leader; some on the hung machine, whose lease is longer, so those
        // start when it is back.
        let said = cluster.fleetctl(&asker, &["scale", "--no-block", &format!("web={count}")])?;
        ensure!(said.code == 0, "{said:?}");
        within("another leader that places", LEADER_LEASE + PLACED + NOISE, since, || {
            ensure!(cluster.leader_by(&asker)? != leader, "it is still {leader}");
            let placed = placed(cluster)?;
            ensure!(placed.len() == count, "{placed:?}");
            Ok(())
        })?;
        let decided = assignments(cluster)?;
        cluster.lab.sh(&leader, "systemctl kill --kill-whom=main --signal=CONT fleetd")?;
        // All is decided, so whoever writes an assignment now is the one that must not.
        cluster.wait_for_exactly(WEB, &replicas("web", u32::try_from(count)?), PATIENCE)?;
        let start = Instant::now();
        while start.elapsed() < LEADER_LEASE {
            ensure!(
                assignments(cluster)? == decided,
                "somebody rewrote an assignment: {decided:?}, then {:?}",
                assignments(cluster)?
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        cluster.wait_until_ready()?;
        let leads = cluster.leader_by(&asker)?;
        ensure!(leads != leader, "{leader} leads again without an election");
    }
    Ok(())
}

/// Each instance of web, as often as it is assigned; fails if any is assigned twice.
fn placed(cluster: &Cluster) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let text = cluster
        .lab
        .sh("h1", "ETCDCTL_API=3 etcdctl get --prefix /fleet/assignments/ --print-value-only")?;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let document: Assignment = serde_json::from_str(line)?;
        all.extend(document.instances.keys().map(ToString::to_string));
    }
    all.sort();
    let count = all.len();
    all.dedup();
    ensure!(all.len() == count, "an instance is assigned twice: {text}");
    Ok(all)
}

/// Each assignment's key and how often it was written.
fn assignments(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let text =
        cluster.lab.sh("h1", "ETCDCTL_API=3 etcdctl get --prefix /fleet/assignments/ -w json")?;
    let answer: Value = serde_json::from_str(&text)?;
    let all = answer["kvs"].as_array().context("kvs")?.iter();
    all.map(|kv| {
        Ok((
            kv["key"].as_str().context("key")?.to_owned(),
            kv["version"].as_u64().context("version")?,
        ))
    })
    .collect()
}

fn other_than(cluster: &Cluster, host: &str) -> String {
    cluster.hosts().into_iter().find(|other| other != host).unwrap_or_default()
}
