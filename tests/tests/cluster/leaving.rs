//! `systemctl stop fleetd` is a leave: the machine hands its units over, and takes part again when
//! fleetd is started.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, replicas, scenario, within};
use fleet_tests::lab::wait_for;
use fleet_tests::record;

use crate::{LEADER_LEASE, NOISE, SLEEPER, lab};

const WEB: &[&str] = &["web@*.service"];

/// "At once", for a list that is asked for over the network.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn stopping_fleetd_hands_its_units_over_and_starting_it_brings_it_back() -> Result<()> {
    scenario(&lab("leave", 3), |cluster| {
        cluster.submit("web@.service", SLEEPER)?;
        cluster.ctl(&["scale", "web=6"])?;
        // Also right after the leader's own start, when it gives silent machines time: this one was
        // not silent.
        a_machine_leaves(cluster)?;
        it_comes_back(cluster)?;
        the_leader_leaves(cluster)?;
        a_host_that_shuts_down_leaves(cluster)
    })
}

#[test]
fn a_leave_starts_no_second_copy_of_what_stops_slowly_and_without_the_store_it_stops_nothing()
-> Result<()> {
    scenario(&lab("leave-slow", 3), |cluster| {
        let sections = "[X-Fleet]\nMachineMetadata=host=h2\nMachineMetadata=host=h3\n";
        // It goes on writing its record while its ExecStop= takes three seconds.
        cluster.start("slow.service", &record::recorder("ExecStop=/bin/sleep 3\n", sections))?;
        let host = the_host_of(cluster, "slow.service", &|_| true)?;
        let since = Instant::now();
        cluster.lab.sh(&host, "systemctl stop --no-block fleetd")?;
        let other = the_host_of(cluster, "slow.service", &|other| other != host)?;
        eprintln!(
            "a unit that takes 3 s to stop ran elsewhere {:.1} s after the leave began",
            since.elapsed().as_secs_f64()
        );
        let lives = record::lives(&cluster.lab)?;
        ensure!(record::overlaps(&lives).is_empty(), "{lives:?}");
        for host in cluster.hosts() {
            cluster.lab.sh(&host, "systemctl start fleetd")?;
        }
        cluster.wait_until_ready()?;
        a_leave_without_the_store(cluster, &other)
    })
}

/// The keeper's start waits for the store, which was asked for by fleetd itself: it must not hold
/// up the leave.
fn a_leave_without_the_store(cluster: &Cluster, host: &str) -> Result<()> {
    let id = cluster.lab.machine_id(host)?;
    cluster.start(
        "fenced.service",
        &record::recorder("", &format!("[X-Fleet]\nFence=yes\nMachineID={id}\n")),
    )?;
    let before = cluster.running_on(host, &["slow.service"])?;
    ensure!(before.len() == 1, "{before:?}");
    cluster.lab.sh("h1", "systemctl stop etcd")?;
    let state = || {
        cluster
            .lab
            .sh(host, "systemctl show --property=ActiveState --value fleet-keeper fleet-guard")
    };
    wait_for("the keeper to wait for the store", PATIENCE, || {
        let (state, fenced) = (state()?, cluster.running_on(host, &["fenced.service"])?);
        ensure!(
            state.split_whitespace().eq(["active", "active"]) && fenced.is_empty(),
            "{state}, {fenced:?}"
        );
        Ok(())
    })?;
    // It tried all the time, and said so once for each thing that was wrong.
    let warned =
        cluster.lab.sh(host, "journalctl -u fleet-keeper --output=cat --grep='runs on for'")?;
    ensure!((1..=3).contains(&warned.lines().count()), "{warned}");
    let since = Instant::now();
    cluster.lab.sh(host, "systemctl stop fleetd.socket fleetd")?;
    eprintln!("a leave without the store took {:.1} s", since.elapsed().as_secs_f64());
    ensure!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    ensure!(cluster.running_on(host, &["slow.service"])? == before, "it runs on");
    let said = cluster.lab.sh(host, "journalctl -u fleetd --output=cat")?;
    ensure!(said.contains("not leaving: the store cannot be reached"), "{said}");
    wait_for("the keeper to be gone", PATIENCE, || {
        let state = state()?;
        ensure!(state.split_whitespace().eq(["inactive", "inactive"]), "{state}");
        Ok(())
    })?;
    cluster.lab.sh("h1", "systemctl start etcd")?;
    cluster.lab.sh(host, "systemctl start fleetd.socket fleetd")?;
    cluster.wait_until_ready()?;
    // Where its lease had run out meanwhile, the machine stops what runs elsewhere by now.
    wait_for("one copy of each", PATIENCE, || {
        let running = cluster.running(&["slow.service", "fenced.service"])?;
        ensure!(
            running.len() == 2
                && running.keys().all(|(unit, at)| unit == "slow.service" || at == host),
            "{running:?}"
        );
        Ok(())
    })
}

/// Waits until the unit runs on one host that fits, and nowhere else.
fn the_host_of(cluster: &Cluster, unit: &str, fits: &dyn Fn(&str) -> bool) -> Result<String> {
    wait_for(unit, PATIENCE, || {
        let running = cluster.running(&[unit])?;
        ensure!(running.len() == 1 && running.keys().all(|(_, host)| fits(host)), "{running:?}");
        Ok(running.into_keys().next().expect("one").1)
    })
}

fn a_machine_leaves(cluster: &Cluster) -> Result<()> {
    let leaving = follower(cluster)?;
    let asker = cluster.leader()?;
    let before = cluster.running(WEB)?;
    ensure!(before.keys().any(|(_, host)| *host == leaving), "{before:?}");
    let since = Instant::now();
    // Not waited for: the list must be right while units are still being stopped.
    cluster.lab.sh(&leaving, "systemctl stop --no-block fleetd")?;
    let id = cluster.lab.machine_id(&leaving)?;
    within("the machine to be gone from the list", AT_ONCE + NOISE / 2, since, || {
        let machines = cluster.machines_by(&asker)?;
        ensure!(
            machines.len() == 2 && machines.iter().all(|machine| machine.id != id),
            "{machines:?}"
        );
        Ok(())
    })?;
    // Not the lease: nobody waits for a machine that has said goodbye.
    let after = within("its units to run elsewhere", AT_ONCE + NOISE, since, || {
        let running = cluster.running(WEB)?;
        ensure!(
            running.len() == 6 && running.keys().all(|(_, host)| *host != leaving),
            "{running:?}"
        );
        Ok(running)
    })?;
    for (key, pid) in before.iter().filter(|((_, host), _)| *host != leaving) {
        ensure!(after.get(key) == Some(pid), "{key:?} had pid {pid}: {after:?}");
    }
    Ok(())
}

fn it_comes_back(cluster: &Cluster) -> Result<()> {
    let before = cluster.running(WEB)?;
    for host in cluster.hosts() {
        cluster.lab.sh(&host, "systemctl start fleetd")?;
    }
    cluster.wait_until_ready()?;
    cluster.nothing_happens(WEB, &before, Duration::from_secs(3))?;
    cluster.ctl(&["scale", "web=9"])?;
    let running = cluster.running(WEB)?;
    for host in cluster.hosts() {
        let here = running.keys().filter(|(_, at)| *at == host).count();
        ensure!(here == 3, "{host} has {here} of {running:?}");
    }
    Ok(())
}

fn the_leader_leaves(cluster: &Cluster) -> Result<()> {
    let leader = cluster.leader()?;
    let asker = follower(cluster)?;
    cluster.lab.sh(&leader, "systemctl stop --no-block fleetd")?;
    let since = Instant::now();
    // A leader that is only gone is replaced after its lease; one that hands over, sooner.
    let next = within("another leader", LEADER_LEASE, since, || {
        let next = cluster.leader_by(&asker)?;
        ensure!(next != leader, "{next} leads");
        Ok(next)
    })?;
    ensure!(next != leader);
    let said = cluster.fleetctl(&asker, &["--json", "scale", "web=10"])?;
    ensure!(said.code == 0, "{said:?}");
    let running = cluster.wait_for_exactly(WEB, &replicas("web", 10), PATIENCE)?;
    ensure!(running.keys().all(|(_, host)| *host != leader), "{running:?}");
    cluster.lab.sh(&leader, "systemctl start fleetd")?;
    cluster.wait_until_ready()
}

/// An orderly shutdown stops fleetd, so it is a leave, too; and it takes no longer than the units'
/// own stops.
fn a_host_that_shuts_down_leaves(cluster: &Cluster) -> Result<()> {
    let leaving = if cluster.leader()? == "h3" { "h2" } else { "h3" };
    let since = Instant::now();
    cluster.lab.sh(leaving, "systemctl --no-block poweroff")?;
    wait_for("the host to be off", PATIENCE, || {
        let hosts = cluster.hosts();
        ensure!(!hosts.iter().any(|host| host == leaving), "{hosts:?}");
        Ok(())
    })?;
    within("its units to run elsewhere", AT_ONCE + NOISE, since, || {
        let running = cluster.running(WEB)?;
        ensure!(running.len() == 10, "{running:?}");
        Ok(())
    })?;
    let moved = cluster.running(WEB)?;
    cluster.lab.boot(leaving)?;
    cluster.wait_until_ready()?;
    cluster.nothing_happens(WEB, &moved, Duration::from_secs(3))
}

fn follower(cluster: &Cluster) -> Result<String> {
    let leader = cluster.leader()?;
    // h1 has etcd, and is asked by the tests.
    Ok(if leader == "h3" { "h2" } else { "h3" }.to_owned())
}
