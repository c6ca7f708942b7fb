//! Registration, election, submitting and scaling on three healthy machines.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Running, replicas, scenario};

use crate::{SLEEPER, lab};

#[test]
fn a_template_is_spread_over_three_machines_and_its_count_is_kept() -> Result<()> {
    scenario(&lab("placement", 3), |cluster| {
        three_machines_register_and_exactly_one_leads(cluster)?;
        five_instances_spread_2_2_1(cluster)?;
        asking_for_the_same_count_changes_nothing(cluster)?;
        fewer_instances_retire_the_highest_numbers(cluster)?;
        more_instances_fill_the_gaps_and_leave_the_others_alone(cluster)?;
        counts_can_be_relative_and_several(cluster)?;
        each_template_has_a_slice_of_its_own(cluster)?;
        a_count_of_zero_leaves_nothing(cluster)
    })
}

fn three_machines_register_and_exactly_one_leads(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        let machines = cluster.machines_by(&host)?;
        ensure!(machines.len() == 3, "{host} sees {machines:?}");
        ensure!(
            machines.iter().filter(|machine| machine.leader).count() == 1,
            "{host} sees {machines:?}"
        );
    }
    let table = cluster.ctl(&["list-machines", "--full"])?;
    let lines: Vec<&str> = table.lines().collect();
    ensure!(lines.len() == 4 && lines[0].starts_with("MACHINE"), "{table}");
    for host in ["h1", "h2", "h3"] {
        let (id, address) = (cluster.lab.machine_id(host)?, cluster.lab.address(host)?);
        let line = lines.iter().find(|line| line.starts_with(id));
        ensure!(
            line.is_some_and(
                |line| line.contains(address) && line.ends_with(&format!("host={host}"))
            ),
            "{host}: {table}"
        );
    }
    Ok(())
}

fn five_instances_spread_2_2_1(cluster: &Cluster) -> Result<()> {
    cluster.submit("web@.service", SLEEPER)?;
    let listed = cluster.ctl(&["list-unit-files", "--no-legend", "--fields=unit,dstate,state"])?;
    ensure!(listed.split_whitespace().eq(["web@.service", "inactive", "inactive"]), "{listed}");
    let said = cluster.ctl(&["scale", "web=5"])?;
    ensure!(
        said.lines()
            .filter(|line| line.starts_with("Unit web@") && line.contains(" launched on "))
            .count()
            == 5,
        "{said}"
    );
    // It waited, so everything is there already.
    let running = cluster.running(&["web@*.service"])?;
    ensure!(units(&running) == replicas("web", 5), "{running:?}");
    ensure!(spread(&running) == [1, 2, 2], "{running:?}");
    let active =
        cluster.states()?.iter().filter(|state| state.systemd_active_state == "active").count();
    ensure!(active == 5, "fleet reports {active} active");
    Ok(())
}

fn asking_for_the_same_count_changes_nothing(cluster: &Cluster) -> Result<()> {
    let before = cluster.running(&["web@*.service"])?;
    cluster.ctl(&["scale", "web@.service=5"])?;
    cluster.ctl(&["start", "web@.service"])?;
    ensure!(cluster.running(&["web@*.service"])? == before);
    Ok(())
}

fn fewer_instances_retire_the_highest_numbers(cluster: &Cluster) -> Result<()> {
    let before = cluster.running(&["web@*.service"])?;
    cluster.ctl(&["scale", "web=2"])?;
    let after = cluster.running(&["web@*.service"])?;
    ensure!(units(&after) == replicas("web", 2), "{after:?}");
    ensure!(unchanged(&before, &after), "{before:?} became {after:?}");
    Ok(())
}

fn more_instances_fill_the_gaps_and_leave_the_others_alone(cluster: &Cluster) -> Result<()> {
    let before = cluster.running(&["web@*.service"])?;
    cluster.ctl(&["scale", "web=6"])?;
    let after = cluster.running(&["web@*.service"])?;
    ensure!(units(&after) == replicas("web", 6), "{after:?}");
    ensure!(spread(&after) == [2, 2, 2], "{after:?}");
    ensure!(
        before.iter().all(|(key, pid)| after.get(key) == Some(pid)),
        "{before:?} became {after:?}"
    );
    Ok(())
}

fn counts_can_be_relative_and_several(cluster: &Cluster) -> Result<()> {
    cluster.submit("api@.service", SLEEPER)?;
    let said = cluster.ctl(&["scale", "web=-3", "api=+4"])?;
    ensure!(
        said.contains("Unit web@.service scaled from 6 to 3")
            && said.contains("Unit api@.service scaled from 0 to 4"),
        "{said}"
    );
    cluster.wait_for_exactly(
        &["web@*.service", "api@*.service"],
        &[replicas("web", 3), replicas("api", 4)].concat(),
        PATIENCE,
    )?;
    let refused = cluster.fleetctl("h1", &["scale", "web=-4"])?;
    ensure!(refused.code == 1 && refused.err.contains("-1"), "{refused:?}");
    Ok(())
}

fn each_template_has_a_slice_of_its_own(cluster: &Cluster) -> Result<()> {
    for ((unit, host), _) in cluster.running(&["web@*.service", "api@*.service"])? {
        let slice =
            cluster.lab.sh(&host, &format!("systemctl show --property=Slice --value {unit}"))?;
        let expected = format!("fleet-{}.slice", unit.split('@').next().unwrap_or_default());
        ensure!(slice == expected, "{unit} is in {slice}");
    }
    Ok(())
}

fn a_count_of_zero_leaves_nothing(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["scale", "web=0", "api=0"])?;
    ensure!(cluster.running(&["web@*.service", "api@*.service"])?.is_empty());
    let left = cluster
        .lab
        .sh("h1", "ls /run/systemd/system /run/fleet/units | grep -E 'web@|api@' || true")?;
    ensure!(left.is_empty(), "left on h1: {left}");
    Ok(())
}

fn units(running: &Running) -> Vec<String> {
    let mut units: Vec<String> = running.keys().map(|(unit, _)| unit.clone()).collect();
    units.sort();
    units
}

fn spread(running: &Running) -> Vec<usize> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, host) in running.keys() {
        *counts.entry(host).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

/// Whether all that is left runs where and as it did.
fn unchanged(before: &Running, after: &Running) -> bool {
    after.iter().all(|(key, pid)| before.get(key) == Some(pid))
}
