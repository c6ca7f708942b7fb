//! Real containers: a replicated web server under podman, and what comes back when its processes
//! are killed.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, replicas, scenario, within};
use fleet_tests::lab::wait_for;

use crate::{NOISE, SLEEPER, lab};

/// One port an instance, since the containers share their host's network.
const WEB: &str = r#"[Unit]
Description=Web server %i in a container

[Service]
Type=notify
NotifyAccess=all
Delegate=yes
Restart=always
RestartSec=0
TimeoutStopSec=10
ExecStart=/usr/bin/podman run --rm --replace --name=web-%i --cgroups=split --sdnotify=conmon --network=host --stop-timeout=1 \
  localhost/busybox:latest sh -c 'echo "instance %i" > /www/index.html; exec httpd -f -p 808%i -h /www'
"#;

#[test]
fn containers_serve_http_and_come_back_when_killed() -> Result<()> {
    scenario(&lab("containers", 2), |cluster| {
        every_instance_answers(cluster)?;
        each_host_has_its_own_containers(cluster)?;
        a_container_whose_process_is_killed_is_back_at_once(cluster)?;
        a_unit_that_systemd_does_not_restart_is_restarted_by_the_agent(cluster)
    })
}

fn every_instance_answers(cluster: &Cluster) -> Result<()> {
    cluster.submit("web@.service", WEB)?;
    cluster.ctl(&["scale", "web=4"])?;
    let running = cluster.running(&["web@*.service"])?;
    ensure!(running.len() == 4, "{running:?}");
    for number in 1..=4 {
        answers(cluster, number)?;
    }
    Ok(())
}

/// The hosts of a lab are machines of their own: none sees, replaces or removes another's
/// containers.
fn each_host_has_its_own_containers(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        let here = cluster.running_on(&host, &["web@*.service"])?;
        let expected: Vec<String> =
            here.keys().map(|unit| unit.replace("web@", "web-").replace(".service", "")).collect();
        let listed = cluster.lab.sh(&host, "podman ps --all --format '{{.Names}}' | sort")?;
        ensure!(
            listed.lines().eq(expected.iter().map(String::as_str)),
            "{host} runs {expected:?} and lists {listed:?}"
        );
    }
    Ok(())
}

fn a_container_whose_process_is_killed_is_back_at_once(cluster: &Cluster) -> Result<()> {
    for (number, victim) in
        [(1, "the container's own process"), (2, "podman's monitor, the unit's MainPID")]
    {
        let unit = format!("web@{number}.service");
        let host = host_of(cluster, &unit)?;
        let before = cluster.running_on(&host, &[&unit])?[&unit];
        let pid = match number {
            1 => cluster.lab.sh(&host, "podman inspect --format '{{.State.Pid}}' web-1")?,
            _ => before.to_string(),
        };
        let since = Instant::now();
        cluster.lab.sh(&host, &format!("kill -9 {pid}"))?;
        // systemd's own Restart= does it; a container takes about a second to start.
        within(&format!("{unit} to run anew after {victim} was killed"), NOISE * 3, since, || {
            let state = cluster.lab.sh(&host, &format!("systemctl is-active {unit} || true"))?;
            let now = cluster
                .running_on(&host, &[&unit])?
                .get(&unit)
                .copied()
                .context("it is not active")?;
            ensure!(
                state == "active" && now != 0 && now != before,
                "it is {state} with pid {now}, before {before}"
            );
            Ok(())
        })?;
        answers(cluster, number)?;
    }
    cluster.wait_for_exactly(&["web@*.service"], &replicas("web", 4), PATIENCE)?;
    cluster.clean()
}

fn a_unit_that_systemd_does_not_restart_is_restarted_by_the_agent(cluster: &Cluster) -> Result<()> {
    cluster.start("plain.service", SLEEPER)?;
    let host = host_of(cluster, "plain.service")?;
    let before = cluster.running_on(&host, &["plain.service"])?["plain.service"];
    let since = Instant::now();
    cluster.lab.sh(&host, &format!("kill -9 {before}"))?;
    within("the agent to restart plain.service", NOISE, since, || {
        let now = cluster.running_on(&host, &["plain.service"])?.get("plain.service").copied();
        ensure!(now.is_some_and(|pid| pid != 0 && pid != before), "its pid is {now:?}");
        Ok(())
    })?;
    wait_for("the report to say so", PATIENCE, || {
        let states = cluster.states()?;
        let state =
            states.iter().find(|state| state.name == "plain.service").context("no state")?;
        ensure!(state.systemd_active_state == "active" && state.restarts == Some(1), "{state:?}");
        Ok(())
    })
}

fn answers(cluster: &Cluster, number: u32) -> Result<()> {
    wait_for(&format!("web@{number}.service to answer"), PATIENCE, || {
        let host = host_of(cluster, &format!("web@{number}.service"))?;
        let body = cluster
            .lab
            .http_get(&format!("http://{}:808{number}/", cluster.lab.address(&host)?))?;
        ensure!(body == format!("instance {number}\n"), "it said {body:?}");
        Ok(())
    })
}

fn host_of(cluster: &Cluster, unit: &str) -> Result<String> {
    let running = cluster.running(&[unit])?;
    running.into_keys().next().map(|(_, host)| host).with_context(|| format!("{unit} runs nowhere"))
}
