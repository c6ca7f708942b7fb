//! Images before instances: what podman units are to run is pulled, by systemd on their machine,
//! before anything of them is stopped or started. The registry is slow, asks for a login, is gone.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Running, scenario};
use fleet_tests::lab::wait_for;

use crate::lab;
use crate::registry::{self, LOGIN, REGISTRY, push};

/// The instances of the template, by the names that systemd has for them.
const WEB: &[&str] = &["web@*.service"];

#[test]
fn an_image_is_there_before_its_instance_is_touched() -> Result<()> {
    scenario(&lab("images", 2), |cluster| {
        registry::start(cluster)?;
        a_first_start_waits_for_its_image_and_a_host_pulls_it_once(cluster)?;
        an_image_that_nobody_has_leaves_what_runs_alone_until_it_is_there(cluster)?;
        a_registry_that_is_gone_leaves_what_runs_alone(cluster)?;
        a_rollback_ends_the_pull(cluster)?;
        a_restart_with_pull_always_waits_for_the_registry(cluster)?;
        a_registry_that_asks_for_a_login_gets_podmans(cluster)
    })
}

/// A container that ends at once when told to. A text that fails is tried on and on: by default it
/// would be undone, and its image never pulled again.
fn text(image: &str, more: &str) -> String {
    format!(
        "[Container]\nImage={REGISTRY}/{image}\nNetwork=host\nPodmanArgs=--stop-signal=KILL\n\
        Exec=sleep infinity\n{more}\n[Service]\nRestart=always\n\
        [X-Fleet]\nOnUpdateFailure=continue\nHealthyDeadline=10s\n"
    )
}

fn a_first_start_waits_for_its_image_and_a_host_pulls_it_once(cluster: &Cluster) -> Result<()> {
    push(cluster, "web:1")?;
    registry::told(cluster, "kill -s STOP")?;
    cluster.submit("web@.container", &text("web:1", ""))?;
    cluster.ctl(&["scale", "--no-block", "web@.container=4"])?;
    wait_for("four instances to be shown as pulling", PATIENCE, || {
        let said = said(cluster)?;
        let pulling = said
            .iter()
            .filter(|(state, message)| state == "activating pulling" && message.contains("web:1"))
            .count();
        ensure!(pulling == 4, "{said:?}");
        Ok(())
    })?;
    ensure!(cluster.running(WEB)?.is_empty(), "one was started before its image was there");
    registry::told(cluster, "kill -s CONT")?;
    running(cluster, 4)?;
    for host in cluster.hosts() {
        let pulls = "journalctl --no-pager -o cat -u 'fleet-pull-*' | grep -c '^Trying to pull'";
        ensure!(cluster.lab.sh(&host, pulls)? == "1", "{host} pulled it more than once");
        let left = cluster.lab.sh(&host, "ls /run/systemd/system | grep fleet-pull || true")?;
        ensure!(left.is_empty(), "{left}");
    }
    // One a host is enough from here on.
    cluster.ctl(&["scale", "web@.container=2"]).map(drop)
}

fn an_image_that_nobody_has_leaves_what_runs_alone_until_it_is_there(
    cluster: &Cluster,
) -> Result<()> {
    let before = running(cluster, 2)?;
    let one_by_one = text("web:2", "[X-Fleet]\nMaxUnavailable=1");
    let path = cluster.write_unit("web@.container", &one_by_one)?;
    let said = cluster.fleetctl("h1", &["start", "--replace", &path])?;
    let expected = format!("cannot pull the image {REGISTRY}/web:2: ");
    ensure!(said.code == 1 && said.err.contains(&expected), "{said:?}");
    ensure!(said.err.contains("manifest unknown"), "{said:?}");
    ensure!(running(cluster, 2)? == before, "what ran was touched");
    let listed = cluster.ctl(&["list-units", "--fields=unit,active,message"])?;
    ensure!(listed.matches(&expected).count() == 1, "more than the budget are tried: {listed}");
    let status = cluster.fleetctl("h1", &["status", "web@1.container"])?;
    ensure!(status.out.contains("active (running)"), "{status:?}");
    push(cluster, "web:2")?;
    all_run(cluster, "web:2", &before)
}

fn a_registry_that_is_gone_leaves_what_runs_alone(cluster: &Cluster) -> Result<()> {
    let before = running(cluster, 2)?;
    push(cluster, "web:3")?;
    registry::told(cluster, "stop")?;
    let path = cluster.write_unit("web@.container", &text("web:3", ""))?;
    let said = cluster.fleetctl("h1", &["start", "--replace", &path])?;
    ensure!(said.code == 1 && said.err.contains("connection refused"), "{said:?}");
    ensure!(running(cluster, 2)? == before, "what ran was touched");
    // What it waits with keeps nobody else: another replica of it dies, and comes back as it was.
    let (unit, host) = before.keys().next().context("one runs")?.clone();
    cluster.lab.sh(&host, &format!("systemctl kill -s KILL {unit}"))?;
    let back = wait_for("what died to come back with its old text", PATIENCE, || {
        let now = running(cluster, 2)?;
        ensure!(now[&(unit.clone(), host.clone())] != before[&(unit.clone(), host.clone())]);
        Ok(now)
    })?;
    registry::told(cluster, "start")?;
    all_run(cluster, "web:3", &back)
}

fn a_rollback_ends_the_pull(cluster: &Cluster) -> Result<()> {
    let before = running(cluster, 2)?;
    registry::told(cluster, "kill -s STOP")?;
    let path = cluster.write_unit("web@.container", &text("web:4", ""))?;
    cluster.ctl(&["start", "--replace", "--no-block", &path])?;
    wait_for("one to be shown as pulling, and up", PATIENCE, || {
        let said = said(cluster)?;
        ensure!(said.iter().any(|(state, _)| state == "active pulling"), "{said:?}");
        Ok(())
    })?;
    cluster.ctl(&["rollback", "web@.container"])?;
    wait_for("no pull", PATIENCE, || {
        for host in cluster.hosts() {
            let pulls = cluster.running_on(&host, &["fleet-pull-*.service"])?;
            ensure!(pulls.is_empty(), "{pulls:?}");
        }
        Ok(())
    })?;
    registry::told(cluster, "kill -s CONT")?;
    ensure!(running(cluster, 2)? == before, "what ran was touched");
    Ok(())
}

fn a_restart_with_pull_always_waits_for_the_registry(cluster: &Cluster) -> Result<()> {
    cluster.start("web@.container", &text("web:3", "Pull=always"))?;
    let before = running(cluster, 2)?;
    registry::told(cluster, "stop")?;
    let said = cluster.fleetctl("h1", &["restart", "web@1.container"])?;
    ensure!(said.code == 1 && said.err.contains("cannot pull the image"), "{said:?}");
    ensure!(running(cluster, 2)? == before, "what ran was touched");
    registry::told(cluster, "start")?;
    wait_for("the restart", PATIENCE, || {
        let now = running(cluster, 2)?;
        let changed = before.iter().filter(|(place, pid)| now.get(*place) != Some(pid)).count();
        ensure!(changed == 1, "{changed} were restarted");
        Ok(())
    })
}

fn a_registry_that_asks_for_a_login_gets_podmans(cluster: &Cluster) -> Result<()> {
    push(cluster, "web:5")?;
    registry::asks_for_login(cluster, true)?;
    let before = running(cluster, 2)?;
    let image = format!("{REGISTRY}/web:5");
    let said = cluster.fleetctl("h1", &["update", "web@.container", "--image", &image])?;
    let refused = ["unauthorized", "authentication required"];
    ensure!(said.code == 1 && refused.iter().any(|word| said.err.contains(word)), "{said:?}");
    ensure!(running(cluster, 2)? == before, "what ran was touched");
    let (user, password) = LOGIN;
    for host in cluster.hosts() {
        let login = format!("podman login -u {user} -p {password} {REGISTRY}");
        cluster.lab.sh(&host, &login)?;
    }
    all_run(cluster, "web:5", &before)?;
    // The same by a file that the unit names, once podman itself knows no login.
    for host in cluster.hosts() {
        let move_it = "mv /run/containers/0/auth.json /etc/containers/auth.json";
        cluster.lab.sh(&host, move_it)?;
    }
    push(cluster, "web:6")?;
    let before = running(cluster, 2)?;
    let named = "PodmanArgs=--authfile=/etc/containers/auth.json";
    cluster.start("web@.container", &text("web:6", named))?;
    all_run(cluster, "web:6", &before)
}

fn running(cluster: &Cluster, count: u32) -> Result<Running> {
    let names: Vec<String> = (1..=count).map(|number| format!("web@{number}.service")).collect();
    wait_for("the containers", PATIENCE, || {
        let running = cluster.wait_for_exactly(WEB, &names, PATIENCE)?;
        ensure!(running.values().all(|pid| *pid != 0), "one has no process: {running:?}");
        Ok(running)
    })
}

/// Waits until every container has that image, and none is as it was.
fn all_run(cluster: &Cluster, image: &str, before: &Running) -> Result<()> {
    wait_for(&format!("all to run {image}"), PATIENCE, || {
        let now = running(cluster, 2)?;
        let old = before.iter().filter(|(place, pid)| now.get(*place) == Some(pid)).count();
        ensure!(old == 0, "{old} run as before");
        let mut images = BTreeSet::new();
        for host in cluster.hosts() {
            let listed = cluster.lab.sh(&host, "podman ps --format '{{.Image}}'")?;
            images.extend(listed.lines().map(str::to_string));
        }
        ensure!(images.iter().eq([&format!("{REGISTRY}/{image}")]), "they run {images:?}");
        let said = said(cluster)?;
        ensure!(said.iter().all(|(state, _)| state == "active running"), "{said:?}");
        Ok(())
    })
}

/// What the lists show of each instance: its states, and what is said besides.
fn said(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let states = cluster.states()?.into_iter().map(|state| {
        let states = format!("{} {}", state.systemd_active_state, state.systemd_sub_state);
        (states, state.message.unwrap_or_default())
    });
    Ok(states.collect())
}
