//! What is not done: reloads that nobody needs, writes when nothing happens, files that are not
//! fleet's.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fleet_core::unit::update::MIN_HEALTHY_MS;
use fleet_tests::cluster::{Cluster, scenario};

use crate::{AGENT_LEASE, NOISE, SLEEPER, lab};

/// Longer than any period of agent, engine and leases.
const IDLE: Duration = AGENT_LEASE;

#[test]
fn systemd_reloads_only_for_changed_texts_and_an_idle_cluster_writes_nothing() -> Result<()> {
    scenario(&lab("thrift", 2), |cluster| {
        new_names_need_no_reload(cluster)?;
        changed_texts_need_one_reload_for_all(cluster)?;
        removed_names_need_no_reload(cluster)?;
        an_idle_cluster_writes_nothing(cluster)
    })
}

fn new_names_need_no_reload(cluster: &Cluster) -> Result<()> {
    let before = reloads(cluster)?;
    cluster.submit("bench@.service", SLEEPER)?;
    cluster.ctl(&["scale", "bench=20"])?;
    cluster.start("single.service", SLEEPER)?;
    cluster.start(
        "tick.timer",
        "[Timer]\nOnActiveSec=1h\nUnit=single.service\n\n[X-Fleet]\nMachineOf=single.service\n",
    )?;
    ensure!(reloads(cluster)? == before, "{:?} reloads, before {before:?}", reloads(cluster)?);
    Ok(())
}

fn changed_texts_need_one_reload_for_all(cluster: &Cluster) -> Result<()> {
    let before = reloads(cluster)?;
    let pids = cluster.running(&["bench@*.service"])?;
    let text = SLEEPER.replace("infinity", "1000000") + "[X-Fleet]\nMaxUnavailable=100%\n";
    cluster.start("bench@.service", &text)?;
    let after = cluster.running(&["bench@*.service"])?;
    ensure!(
        after.len() == 20
            && after.iter().all(|(key, pid)| pids.get(key).is_some_and(|old| old != pid)),
        "{pids:?}, then {after:?}"
    );
    for (host, (before, after)) in cluster.hosts().iter().zip(before.iter().zip(&reloads(cluster)?))
    {
        // All of a machine's texts change in one document; a second reload is allowed for one that
        // came in two parts.
        ensure!(
            (1..=2).contains(&(after - before)),
            "{host} reloaded {} times for ten changed units",
            after - before
        );
    }
    Ok(())
}

fn removed_names_need_no_reload(cluster: &Cluster) -> Result<()> {
    let before = reloads(cluster)?;
    cluster.ctl(&["scale", "bench=15"])?;
    ensure!(reloads(cluster)? == before);
    cluster.ctl(&["scale", "bench=20"])?;
    ensure!(reloads(cluster)? == before, "names that were taken away and came back");
    Ok(())
}

fn an_idle_cluster_writes_nothing(cluster: &Cluster) -> Result<()> {
    // The last report of what just happened may still be on its way.
    let mut revision = cluster.store_revision()?;
    let mut since = Instant::now();
    // Reports change once more when what came up counts as healthy.
    let settled = Instant::now() + Duration::from_millis(MIN_HEALTHY_MS) + NOISE;
    while since.elapsed() < IDLE {
        std::thread::sleep(Duration::from_millis(250));
        let now = cluster.store_revision()?;
        if now != revision {
            ensure!(
                Instant::now() < settled,
                "etcd went from revision {revision} to {now} while nothing happened"
            );
            (revision, since) = (now, Instant::now());
        }
    }
    let running = cluster.running(&["bench@*.service"])?;
    ensure!(running.len() == 20, "{running:?}");
    Ok(())
}

/// How often each host's systemd has reloaded, by its own account.
fn reloads(cluster: &Cluster) -> Result<Vec<u64>> {
    let count = |host: &String| {
        let script = "journalctl --sync; journalctl --boot --quiet --output=cat _PID=1 | grep -c \
            '^Reloading finished' || true";
        Ok(cluster.lab.sh(host, script)?.parse()?)
    };
    cluster.hosts().iter().map(count).collect()
}
