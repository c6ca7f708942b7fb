//! Decisions as a user reads them: events on every machine, the leader's snapshot planned again,
//! the store's check.

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::wait_for;
use serde_json::Value;

use crate::{SLEEPER, lab};

#[test]
fn what_was_decided_is_told_on_every_machine_and_planned_again() -> Result<()> {
    scenario(&lab("decisions", 3), |cluster| {
        cluster.submit("web@.service", SLEEPER)?;
        cluster.ctl(&["scale", "web=4"])?;
        let told = cluster.ctl(&["events", "--unit", "web@1"])?;
        ensure!(
            told.contains("placed") && told.contains("fewest units of the machines that fit"),
            "{told}"
        );
        for host in cluster.hosts() {
            the_last_plan_is_planned_again(cluster, &host)?;
        }
        let leader = cluster.leader()?;
        let lost = cluster
            .hosts()
            .into_iter()
            .find(|host| *host != leader && host != "h1")
            .context("a third host")?;
        let lost_id = cluster.lab.machine_id(&lost)?;
        cluster.lab.kill(&lost)?;
        wait_for("the loss in the events", PATIENCE, || {
            let told = cluster.ctl(&["events", "--machine", lost_id])?;
            let short = &lost_id[..8];
            ensure!(told.contains(&format!("machine {short} was lost: it ran")), "{told}");
            ensure!(told.contains(&format!("off {short}: the machine was lost")), "{told}");
            Ok(())
        })?;
        the_last_plan_is_planned_again(cluster, "h1")?;
        let check = cluster.ctl(&["store", "check"])?;
        ensure!(check.contains("The store is sound"), "{check}");
        a_new_leader_is_told(cluster)
    })
}

/// Whichever machine is asked; also the plan that the last event names.
fn the_last_plan_is_planned_again(cluster: &Cluster, host: &str) -> Result<()> {
    let run = |args: &[&str]| {
        let said = cluster.fleetctl(host, args)?;
        ensure!(said.code == 0, "`fleetctl {}` on {host}: {said:?}", args.join(" "));
        Ok(said)
    };
    let events: Value = serde_json::from_str(&run(&["events", "--json"])?.out)?;
    let mut digests =
        events.as_array().context("a list")?.iter().filter_map(|event| event["plan"].as_str());
    let digest = digests.next_back().context("an event with a plan")?.to_string();
    run(&["debug", "snapshot", "/root/last.json"])?;
    run(&["debug", "replay", "/root/last.json"])?;
    run(&["debug", "snapshot", "--plan", &digest, "/root/named.json"])?;
    let said = run(&["debug", "replay", "/root/named.json"])?;
    ensure!(
        said.err.contains("The same plan as the leader's at revision")
            && said.err.contains(&digest),
        "{said:?}"
    );
    ensure!(said.out.contains("web@"), "{said:?}");
    Ok(())
}

fn a_new_leader_is_told(cluster: &Cluster) -> Result<()> {
    let old = cluster.leader()?;
    let old_id = cluster.lab.machine_id(&old)?;
    cluster.lab.sh(&old, "systemctl restart fleetd")?;
    let words = format!("machine {} leads no longer: it stops", &old_id[..8]);
    wait_for("the next leader in the events", PATIENCE, || {
        let told = cluster.ctl(&["events", "-n", "5"])?;
        let rest = told.split_once(&words).with_context(|| told.clone())?.1;
        ensure!(rest.contains("leads: after machine"), "{told}");
        Ok(())
    })
}
