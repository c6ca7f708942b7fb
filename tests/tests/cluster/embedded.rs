//! One machine with no configuration to speak of: the embedded store on its own disk.

use anyhow::{Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Running, replicas, scenario};
use fleet_tests::lab::{Options, Store};

use crate::{SLEEPER, lab};

const ALL: &[&str] = &["web@*.service", "one.service"];

#[test]
fn a_machine_of_ones_own_keeps_its_state_over_restarts_and_reboots() -> Result<()> {
    let options = Options { store: Store::Embedded, ..lab("embedded", 1) };
    scenario(&options, |cluster| {
        cluster.submit("web@.service", SLEEPER)?;
        cluster.ctl(&["scale", "web=3"])?;
        cluster.start("one.service", SLEEPER)?;
        cluster.submit("idle.service", SLEEPER)?;
        let before = cluster.running(ALL)?;
        ensure!(before.len() == 4, "{before:?}");
        a_second_fleetd_is_refused(cluster, &before)?;
        a_restart_and_a_kill_change_nothing(cluster, &before)?;
        after_a_reboot_all_runs_again(cluster)?;
        it_still_takes_orders(cluster)
    })
}

fn a_second_fleetd_is_refused(cluster: &Cluster, before: &Running) -> Result<()> {
    let second = cluster.lab.exec("h1", &["timeout", "10", "fleetd"])?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned() + &String::from_utf8_lossy(&second.stdout);
    ensure!(second.status.code() == Some(1), "{}: {said}", second.status);
    ensure!(said.contains("/var/lib/fleet") && said.to_lowercase().contains("another"), "it does not say why: {said}");
    // With a store of its own it still must not take the first one's socket.
    let script = "mkdir -p /tmp/second && FLEET_DATA_DIR=/tmp/second FLEET_RUN_DIR=/tmp/second FLEET_LISTEN= timeout 10 fleetd";
    let second = cluster.lab.exec("h1", &["sh", "-c", script])?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned() + &String::from_utf8_lossy(&second.stdout);
    ensure!(second.status.code() == Some(1) && said.contains("/run/fleet.sock"), "{}: {said}", second.status);
    ensure!(cluster.ctl(&["list-machines", "--no-legend"])?.lines().count() == 1);
    ensure!(cluster.running(ALL)? == *before);
    Ok(())
}

fn a_restart_and_a_kill_change_nothing(cluster: &Cluster, before: &Running) -> Result<()> {
    cluster.lab.sh("h1", "systemctl restart fleetd")?;
    ensure!(cluster.ctl(&["list-unit-files", "--no-legend"])?.contains("idle.service"));
    cluster.lab.sh("h1", "systemctl kill --kill-whom=main --signal=KILL fleetd")?;
    cluster.nothing_happens(ALL, before, crate::LEADER_LEASE * 2)?;
    cluster.wait_until_ready()
}

fn after_a_reboot_all_runs_again(cluster: &Cluster) -> Result<()> {
    cluster.lab.kill("h1")?;
    cluster.lab.boot("h1")?;
    let names = [replicas("web", 3), vec!["one.service".to_owned()]].concat();
    cluster.wait_for_exactly(ALL, &names, PATIENCE)?;
    cluster.wait_until_ready()?;
    let listed = cluster.ctl(&["list-unit-files", "--no-legend", "--fields=unit,dstate"])?;
    let idle = listed.lines().find(|line| line.starts_with("idle.service"));
    ensure!(idle.is_some_and(|line| line.ends_with("inactive")), "{listed}");
    Ok(())
}

fn it_still_takes_orders(cluster: &Cluster) -> Result<()> {
    let before = cluster.running(ALL)?;
    cluster.ctl(&["scale", "web=4"])?;
    let after = cluster.running(ALL)?;
    ensure!(after.len() == 5 && before.iter().all(|(key, pid)| after.get(key) == Some(pid)), "{before:?} became {after:?}");
    cluster.clean()?;
    ensure!(cluster.running(ALL)?.is_empty());
    Ok(())
}
