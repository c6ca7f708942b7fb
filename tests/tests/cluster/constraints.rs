//! `[X-Fleet]`: global units, pins, labels, companions and conflicts, on three machines of which
//! one comes late.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::{Options, wait_for};

use crate::{SLEEPER, lab};

#[test]
fn units_run_where_their_x_fleet_section_says() -> Result<()> {
    let mut options: Options = lab("constraints", 3);
    for (host, labels) in
        [("h1", "region=eu,disk=hdd"), ("h2", "region=eu,disk=ssd"), ("h3", "region=us,disk=ssd")]
    {
        options.host_config_extra.insert(host.to_owned(), format!("metadata = \"{labels}\""));
    }
    scenario(&options, |cluster| {
        a_global_unit_runs_everywhere_also_on_a_machine_that_joins_later(cluster)?;
        a_pinned_unit_runs_on_its_machine(cluster)?;
        labels_choose_the_machine(cluster)?;
        units_that_conflict_are_kept_apart(cluster)?;
        a_unit_makes_room_for_the_one_that_replaces_it_and_a_global_one_keeps_away(cluster)?;
        what_fits_no_machine_is_said_at_once(cluster)?;
        a_companion_follows_its_unit(cluster)
    })
}

fn with(section: &str) -> String {
    format!("{SLEEPER}\n[X-Fleet]\n{section}\n")
}

fn a_global_unit_runs_everywhere_also_on_a_machine_that_joins_later(
    cluster: &Cluster,
) -> Result<()> {
    cluster.lab.sh("h3", "systemctl stop fleetd")?;
    cluster.start("everywhere.service", &with("Global=true"))?;
    cluster.start("ssd-only.service", &with("Global=true\nMachineMetadata=disk=ssd"))?;
    ensure!(
        places(cluster, "everywhere.service")? == set(&["h1", "h2"]),
        "{:?}",
        places(cluster, "everywhere.service")?
    );
    ensure!(places(cluster, "ssd-only.service")? == set(&["h2"]));
    cluster.lab.sh("h3", "systemctl start fleetd")?;
    wait_for("the global units on the machine that joined", PATIENCE, || {
        let (all, some) =
            (places(cluster, "everywhere.service")?, places(cluster, "ssd-only.service")?);
        ensure!(all == set(&["h1", "h2", "h3"]) && some == set(&["h2", "h3"]), "{all:?} {some:?}");
        Ok(())
    })?;
    cluster.wait_until_ready()?;
    cluster.clean()
}

fn a_pinned_unit_runs_on_its_machine(cluster: &Cluster) -> Result<()> {
    for host in ["h3", "h1"] {
        let name = format!("pinned-{host}.service");
        let id = cluster.lab.machine_id(host)?;
        // fleet 1.0 takes the whole id; its short form, as list-machines prints it, does too.
        let id = if host == "h1" { &id[..8] } else { id };
        cluster.start(&name, &with(&format!("MachineID={id}")))?;
        ensure!(
            places(cluster, &name)? == set(&[host]),
            "{name} is on {:?}",
            places(cluster, &name)?
        );
    }
    Ok(())
}

fn labels_choose_the_machine(cluster: &Cluster) -> Result<()> {
    cluster.start("db.service", &with("MachineMetadata=disk=ssd\nMachineMetadata=region=eu"))?;
    ensure!(places(cluster, "db.service")? == set(&["h2"]));
    cluster.submit("eu@.service", &with("MachineMetadata=region=eu"))?;
    cluster.ctl(&["scale", "eu=4"])?;
    ensure!(places(cluster, "eu@*.service")? == set(&["h1", "h2"]));
    cluster.clean()
}

fn units_that_conflict_are_kept_apart(cluster: &Cluster) -> Result<()> {
    cluster.submit("alone@.service", &with("Conflicts=alone@*.service"))?;
    cluster.ctl(&["scale", "alone=3"])?;
    let running = cluster.running(&["alone@*.service"])?;
    ensure!(running.len() == 3 && places(cluster, "alone@*.service")?.len() == 3, "{running:?}");
    // A fourth has no machine left, and is said to have none.
    let said = cluster.fleetctl("h1", &["scale", "alone=4"])?;
    ensure!(
        said.code == 1
            && said.err.contains("no machine can run alone@4.service")
            && said.err.contains("conflicts with alone@"),
        "{said:?}"
    );
    cluster.clean()
}

fn a_unit_makes_room_for_the_one_that_replaces_it_and_a_global_one_keeps_away(
    cluster: &Cluster,
) -> Result<()> {
    cluster.start("old.service", &with("MachineMetadata=disk=ssd"))?;
    let first = places(cluster, "old.service")?;
    let (region, other) = if first == set(&["h2"]) { ("eu", "h3") } else { ("us", "h2") };
    cluster.start(
        "new.service",
        &with(&format!(
            "MachineMetadata=\"region={region}\"\nMachineMetadata=disk=ssd\nReplaces=old.*"
        )),
    )?;
    // Not to h1, which is empty and has no such disk.
    wait_for("the replaced unit on the other machine that fits", PATIENCE, || {
        let (old, new) = (places(cluster, "old.service")?, places(cluster, "new.service")?);
        ensure!(old == set(&[other]) && new == first, "{old:?} {new:?}");
        Ok(())
    })?;
    cluster.start("shy.service", &with("Global=true\nConflicts=old.service"))?;
    let mut away = set(&["h1", "h2", "h3"]);
    away.remove(other);
    ensure!(places(cluster, "shy.service")? == away, "{:?}", places(cluster, "shy.service")?);
    cluster.clean()
}

fn what_fits_no_machine_is_said_at_once(cluster: &Cluster) -> Result<()> {
    let path = cluster.write_unit("nowhere.service", &with("MachineMetadata=region=mars"))?;
    // Five minutes is what it would wait otherwise.
    let said = cluster.fleetctl("h1", &["start", "--timeout=300", &path])?;
    ensure!(said.code == 1, "{said:?}");
    ensure!(
        said.err.contains("no machine can run nowhere.service") && said.err.contains("region=mars"),
        "{said:?}"
    );
    cluster.ctl(&["destroy", "nowhere.service"]).map(drop)
}

fn a_companion_follows_its_unit(cluster: &Cluster) -> Result<()> {
    cluster.start("main.service", &with("MachineMetadata=disk=ssd"))?;
    cluster.start("sidekick.service", &with("MachineOf=main.service"))?;
    let first = places(cluster, "main.service")?;
    ensure!(
        places(cluster, "sidekick.service")? == first,
        "{first:?}, {:?}",
        places(cluster, "sidekick.service")?
    );
    let host = first.iter().next().context("a machine")?;
    // The machine leaves, its unit moves, and the companion with it.
    cluster.lab.sh(host, "systemctl stop fleetd")?;
    wait_for("both to run on another machine", PATIENCE, || {
        let (main, sidekick) =
            (places(cluster, "main.service")?, places(cluster, "sidekick.service")?);
        ensure!(main.len() == 1 && main != first && sidekick == main, "{main:?} {sidekick:?}");
        Ok(())
    })?;
    cluster.lab.sh(host, "systemctl start fleetd")?;
    cluster.wait_until_ready()
}

/// The hosts whose systemd runs it.
fn places(cluster: &Cluster, pattern: &str) -> Result<BTreeSet<String>> {
    Ok(cluster.running(&[pattern])?.into_keys().map(|(_, host)| host).collect())
}

fn set(hosts: &[&str]) -> BTreeSet<String> {
    hosts.iter().map(|host| (*host).to_owned()).collect()
}
