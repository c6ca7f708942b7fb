//! The store away: all of it for a minute, hung, and one member of three.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Running, scenario};
use fleet_tests::lab::{Options, wait_for};

use crate::{AGENT_LEASE, SLEEPER, lab};

const ALL: &[&str] = &["web@*.service", "phoenix.service"];

const OUTAGE: Duration = Duration::from_secs(60);

/// Longer than both leases.
const HANG: Duration = Duration::from_secs(20);

/// How long after the store is back nothing may move: beyond the time that absent machines get to
/// return.
const AFTER: Duration = Duration::from_secs(AGENT_LEASE.as_secs() + 5);

#[test]
fn without_etcd_for_a_minute_nothing_stops_and_nothing_moves() -> Result<()> {
    scenario(&lab("outage", 3), |cluster| {
        let before = some_units(cluster)?;
        cluster.lab.sh("h1", "systemctl stop etcd")?;
        let start = Instant::now();
        without_a_store_commands_say_so(cluster)?;
        let before = what_dies_meanwhile_is_restarted(cluster, before)?;
        cluster.nothing_happens(ALL, &before, OUTAGE.saturating_sub(start.elapsed()))?;
        cluster.lab.sh("h1", "systemctl start etcd")?;
        cluster.nothing_happens(ALL, &before, AFTER)?;
        goes_on(cluster)
    })
}

#[test]
fn a_hung_etcd_and_a_dead_member_of_three_stop_nothing() -> Result<()> {
    let options = Options { etcd_members: 3, ..lab("members", 3) };
    scenario(&options, |cluster| {
        let before = some_units(cluster)?;
        one_member_may_die(cluster, &before)?;
        for host in ["h1", "h2", "h3"] {
            cluster.lab.sh(host, "systemctl kill --signal=STOP etcd")?;
        }
        cluster.nothing_happens(ALL, &before, HANG)?;
        for host in ["h1", "h2", "h3"] {
            cluster.lab.sh(host, "systemctl kill --signal=CONT etcd")?;
        }
        cluster.nothing_happens(ALL, &before, AFTER)?;
        goes_on(cluster)
    })
}

#[test]
fn after_a_soft_reboot_without_the_store_all_runs_again() -> Result<()> {
    scenario(&lab("softreboot", 2), |cluster| {
        // A host of the lab has this folder in memory, which no soft-reboot leaves mounted.
        cluster.lab.sh("h2", "systemctl stop fleetd; umount /var/lib/fleet")?;
        cluster.lab.sh("h2", "systemctl start fleetd")?;
        cluster.wait_until_ready()?;
        for name in ["single.service", "other.service"] {
            cluster.start(name, SLEEPER)?;
        }
        cluster.submit("web@.service", SLEEPER)?;
        cluster.ctl(&["scale", "web=4"])?;
        cluster.ctl(&["drain", &cluster.lab.machine_id("h1")?[..8]])?;
        let units = &["single.service", "other.service", "web@*.service"];
        let all = wait_for("all units to be on h2", PATIENCE, || {
            let on = cluster.running_on("h2", units)?;
            ensure!(on.len() == 6 && on.values().all(|pid| *pid != 0), "{on:?}");
            Ok(on)
        })?;
        cluster.lab.cut("h2")?;
        let user_space = "systemctl show --property=UserspaceTimestampMonotonic";
        let before = cluster.lab.sh("h2", user_space)?;
        cluster.lab.sh("h2", "systemctl soft-reboot --no-block")?;
        wait_for("everything to run again on h2, which cannot reach the store", PATIENCE, || {
            ensure!(cluster.lab.sh("h2", user_space)? != before, "not restarted yet");
            let on = cluster.running_on("h2", units)?;
            let again = all.keys().all(|unit| on.get(unit).is_some_and(|pid| *pid != 0));
            ensure!(again && on.len() == all.len(), "{all:?} became {on:?}");
            Ok(())
        })
    })
}

fn some_units(cluster: &Cluster) -> Result<Running> {
    cluster.submit("web@.service", SLEEPER)?;
    cluster.ctl(&["scale", "web=6"])?;
    cluster.start("phoenix.service", SLEEPER)?;
    cluster.running(ALL)
}

fn without_a_store_commands_say_so(cluster: &Cluster) -> Result<()> {
    for command in [&["list-machines"][..], &["scale", "web=3"]] {
        let said = cluster.fleetctl("h2", command)?;
        ensure!(said.code == 1 && said.err.contains("etcd"), "{command:?}: {said:?}");
    }
    Ok(())
}

/// The agent works from what it knows last.
fn what_dies_meanwhile_is_restarted(cluster: &Cluster, before: Running) -> Result<Running> {
    let Some(((_, host), pid)) = before.iter().find(|((unit, _), _)| unit == "phoenix.service")
    else {
        unreachable!("it runs")
    };
    cluster.lab.sh(host, &format!("kill -9 {pid}"))?;
    let key = ("phoenix.service".to_owned(), host.clone());
    let now = wait_for("the agent to restart phoenix.service without a store", PATIENCE, || {
        let now = cluster.running(ALL)?;
        ensure!(now.get(&key).is_some_and(|new| *new != 0 && new != pid), "{now:?}");
        Ok(now)
    })?;
    let rest = |running: &Running| {
        running
            .iter()
            .filter(|(k, _)| **k != key)
            .map(|(k, pid)| (k.clone(), *pid))
            .collect::<Running>()
    };
    ensure!(rest(&now) == rest(&before), "{before:?} became {now:?}");
    Ok(now)
}

fn one_member_may_die(cluster: &Cluster, before: &Running) -> Result<()> {
    for host in ["h1", "h2", "h3"] {
        cluster
            .lab
            .sh(host, "systemctl mask --runtime --quiet etcd; systemctl kill --signal=KILL etcd")?;
        // From the very machine whose own member is dead.
        wait_for("fleetctl to work with two of three members", PATIENCE, || {
            let said = cluster.fleetctl(host, &["list-machines", "--no-legend"])?;
            ensure!(said.code == 0 && said.out.lines().count() == 3, "{said:?}");
            Ok(())
        })?;
        cluster.write("h1", "/root/units/extra.service", SLEEPER)?;
        for command in [["start", "/root/units/extra.service"], ["destroy", "extra.service"]] {
            cluster.ctl(&command)?;
        }
        let now = cluster.running(ALL)?;
        ensure!(now == *before, "with {host}'s member dead: {before:?} became {now:?}");
        // Debian's etcd waits for the others to be there, so the next one dies only when this one
        // is back.
        cluster.lab.sh(
            host,
            "rm /run/systemd/system/etcd.service; systemctl daemon-reload; systemctl start etcd",
        )?;
        wait_for("the member to be back", PATIENCE, || {
            let health = cluster
                .lab
                .http_get(&format!("http://{}:2379/health", cluster.lab.address(host)?))?;
            ensure!(health.contains("true"), "{health}");
            Ok(())
        })?;
    }
    Ok(())
}

fn goes_on(cluster: &Cluster) -> Result<()> {
    cluster.wait_until_ready()?;
    cluster.ctl(&["scale", "web=7"])?;
    let running = cluster.running(ALL)?;
    ensure!(running.len() == 8, "{running:?}");
    Ok(())
}
