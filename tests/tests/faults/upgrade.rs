//! Two versions of fleetd at once, as while machines are upgraded one by one: nothing stops,
//! whichever version leads, and neither spoils what the other wrote.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::wait_for;
use fleet_tests::versions::{next_version, other_version};
use serde_json::Value;

use crate::lab;
use crate::trial::{COUNT, Trial};

/// The programs that run on every machine.
const PROGRAMS: [&str; 2] = ["fleetd", "fleet-keeper"];

/// How often the leader is restarted until one of the wanted version leads: with two machines of
/// it, each time is a toss.
const TURNS: usize = 20;

#[test]
fn while_machines_are_upgraded_one_by_one_nothing_stops_and_either_version_leads() -> Result<()> {
    scenario(&lab("upgrade"), |cluster| {
        let trial = Trial::begin(cluster)?;
        let (old, new) = (env!("CARGO_PKG_VERSION").to_owned(), next_version());
        let folder = tempfile::tempdir()?;
        let programs = other_version(folder.path(), &new)?;
        let before = trial.alive()?;
        for (host, count) in [("h1", COUNT + 1), ("h2", COUNT + 2)] {
            for program in PROGRAMS {
                let handed = cluster.lab.hand(host, program, &programs.join(program))?;
                cluster.lab.sh(
                    host,
                    &format!("cp {handed} /usr/bin/next && mv /usr/bin/next /usr/bin/{program}"),
                )?;
            }
            cluster.lab.sh(host, "systemctl restart fleetd fleet-keeper")?;
            for version in [&new, &old] {
                leads(cluster, version)?;
                if host == "h1" {
                    a_later_version_writes(
                        cluster,
                        if *version == new {
                            "while the new one leads"
                        } else {
                            "while the old one leads"
                        },
                    )?;
                }
                cluster.ctl(&["scale", &format!("web={count}")])?;
                cluster.ctl(&["scale", &format!("web={}", count - 1)])?;
                trial.live_on(&before).with_context(|| format!("{version} leads"))?;
            }
        }
        let h3 = cluster.lab.machine_id("h3")?.to_owned();
        let versions: Vec<(bool, String)> = cluster
            .machines_by("h1")?
            .into_iter()
            .map(|machine| (machine.id == h3, machine.version))
            .collect();
        ensure!(
            versions
                .iter()
                .all(|(is_h3, version)| *version == if *is_h3 { old.clone() } else { new.clone() }),
            "{versions:?}"
        );
        what_the_later_version_wrote_is_there(cluster)?;
        cluster.ctl(&["scale", &format!("web={COUNT}")])?;
        let after = trial.wait_for_count(PATIENCE)?;
        trial.live_on(&before)?;
        trial.quiet(&after)?;
        trial.judge("two versions at once")
    })
}

/// Has a fleetd of this version lead.
fn leads(cluster: &Cluster, version: &str) -> Result<()> {
    for _ in 0..TURNS {
        cluster.wait_until_ready()?;
        let leader = cluster.leader()?;
        let machines = cluster.machines_by("h1")?;
        if machines.iter().any(|machine| machine.leader && machine.version == version) {
            return Ok(());
        }
        cluster.lab.sh(&leader, "systemctl restart fleetd")?;
        // It stays registered with its old version for a moment.
        wait_for("another leader", PATIENCE, || {
            let now = cluster.leader()?;
            ensure!(now != leader, "{leader} leads still, or again");
            Ok(())
        })?;
    }
    anyhow::bail!("no fleetd of version {version} came to lead")
}

/// Adds to documents what only a later version knows: a field in each, and a reason of its own in
/// each assignment.
fn a_later_version_writes(cluster: &Cluster, what: &str) -> Result<()> {
    for key in documents(cluster)? {
        let text = etcdctl(cluster, &["get", "--print-value-only", &key], None)?;
        let mut document: Value =
            serde_json::from_str(&text.replace("\"fewest\"", "\"cheapest\""))?;
        document["mood"] = what.into();
        etcdctl(cluster, &["put", &key], Some(&document.to_string()))?;
    }
    Ok(())
}

/// Both versions have rewritten them since.
fn what_the_later_version_wrote_is_there(cluster: &Cluster) -> Result<()> {
    for key in documents(cluster)? {
        let document: Value =
            serde_json::from_str(&etcdctl(cluster, &["get", "--print-value-only", &key], None)?)?;
        ensure!(document["mood"] == "while the old one leads", "{key}: {document}");
    }
    Ok(())
}

/// The keys of the unit that is scaled, and of all assignments.
fn documents(cluster: &Cluster) -> Result<Vec<String>> {
    let mut keys = vec!["/fleet/units/web@.service".to_owned()];
    let listed =
        etcdctl(cluster, &["get", "--prefix", "--keys-only", "/fleet/assignments/"], None)?;
    keys.extend(listed.lines().filter(|line| !line.is_empty()).map(str::to_owned));
    ensure!(keys.len() == 4, "{keys:?}");
    Ok(keys)
}

/// etcdctl in h1, with a value on its standard input.
fn etcdctl(cluster: &Cluster, args: &[&str], value: Option<&str>) -> Result<String> {
    let all: Vec<&str> = ["env", "ETCDCTL_API=3", "etcdctl"].iter().chain(args).copied().collect();
    let mut command = cluster.lab.command("h1", &all)?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("its standard input")?;
    input.write_all(value.unwrap_or_default().as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "`{}` ended with {}", all.join(" "), output.status);
    Ok(String::from_utf8(output.stdout)?)
}
