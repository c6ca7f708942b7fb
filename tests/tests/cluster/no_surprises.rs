//! fleetd is killed and restarted: nothing that runs notices. Upgrades are in `packages`.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Running, scenario};
use fleet_tests::lab::wait_for;

use crate::{AGENT_LEASE, SLEEPER, lab};

const ALL: &[&str] = &["web@*.service", "everywhere.service", "once.service"];

/// How long it is watched that nothing happens: beyond a machine's lease and the margin that the
/// leader adds.
const WATCH: Duration = Duration::from_secs(AGENT_LEASE.as_secs() + 5);

#[test]
fn killing_or_restarting_fleetd_changes_no_pid_and_moves_nothing() -> Result<()> {
    scenario(&lab("calm", 3), |cluster| {
        cluster.submit("web@.service", SLEEPER)?;
        cluster.ctl(&["scale", "web=6"])?;
        cluster.start("everywhere.service", &format!("{SLEEPER}\n[X-Fleet]\nGlobal=true\n"))?;
        cluster.start(
            "once.service",
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
        )?;
        let before = cluster.running(ALL)?;
        ensure!(before.len() == 6 + 3 + 1, "{before:?}");
        kill_9(cluster, &before)?;
        restart(cluster, &before)?;
        fleet_still_works(cluster)
    })
}

/// On the leader and on another machine, at once.
fn kill_9(cluster: &Cluster, before: &Running) -> Result<()> {
    let leader = cluster.leader()?;
    let hosts = cluster.hosts();
    let other = hosts.iter().find(|host| **host != leader).map_or("h1", String::as_str);
    for host in [leader.as_str(), other] {
        let pid = fleetd_pid(cluster, host)?;
        cluster.lab.sh(host, "systemctl kill --kill-whom=main --signal=KILL fleetd")?;
        wait_for("systemd to start fleetd again", PATIENCE, || {
            let now = fleetd_pid(cluster, host)?;
            ensure!(now != "0" && now != pid, "fleetd in {host} has pid {now}");
            Ok(())
        })?;
    }
    cluster.nothing_happens(ALL, before, WATCH)?;
    cluster.wait_until_ready()
}

fn restart(cluster: &Cluster, before: &Running) -> Result<()> {
    for host in cluster.hosts() {
        cluster.lab.sh(&host, "systemctl restart fleetd")?;
        // It is no leave: the machine stays in the list.
        let machines = cluster.machines_by(&host)?;
        ensure!(machines.len() == 3, "after a restart in {host} there are {machines:?}");
    }
    cluster.nothing_happens(ALL, before, Duration::from_secs(3))?;
    cluster.wait_until_ready()
}

fn fleet_still_works(cluster: &Cluster) -> Result<()> {
    let before = cluster.running(ALL)?;
    cluster.ctl(&["scale", "web=7"])?;
    let after = cluster.running(ALL)?;
    ensure!(after.len() == before.len() + 1, "{after:?}");
    ensure!(
        before.iter().all(|(key, pid)| after.get(key) == Some(pid)),
        "{before:?} became {after:?}"
    );
    Ok(())
}

fn fleetd_pid(cluster: &Cluster, host: &str) -> Result<String> {
    cluster.lab.sh(host, "systemctl show --property=MainPID --value fleetd")
}
