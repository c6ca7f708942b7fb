//! docker's units as people published them for fleet 1.0: what was there of that name is killed and
//! removed, the image is pulled, and `docker run` is the service. docker's daemon keeps the
//! containers, so what runs is asked of it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, replicas, scenario};
use fleet_tests::lab::wait_for;

use crate::lab;
use crate::registry::{self, REGISTRY, push};

const UNITS: &[&str] = &["web@*.service"];

#[test]
fn units_of_docker_run_as_they_were_published() -> Result<()> {
    scenario(&lab("docker", 2), |cluster| {
        registry::start(cluster)?;
        push(cluster, "web:1")?;
        they_start_and_scale(cluster)?;
        a_container_that_is_killed_and_a_client_that_is_killed_come_back(cluster)?;
        they_stop_with_their_daemon_and_come_back_with_it(cluster)?;
        a_new_image_is_a_new_text(cluster)?;
        they_move(cluster)
    })
}

fn text() -> String {
    format!(
        "[Unit]\nDescription=Web server %i\nAfter=docker.service\nRequires=docker.service\n\n\
        [Service]\nTimeoutStartSec=0\n\
        ExecStartPre=-/usr/bin/docker kill %p-%i\n\
        ExecStartPre=-/usr/bin/docker rm %p-%i\n\
        ExecStartPre=/usr/bin/docker pull {REGISTRY}/web:1\n\
        ExecStart=/usr/bin/docker run --name %p-%i --net=host \\\n  {REGISTRY}/web:1 sh -c \
        \"echo instance %i > /www/index.html; exec httpd -f -p 808%i -h /www\"\n\
        ExecStop=/usr/bin/docker stop -t 1 %p-%i\n"
    )
}

fn they_start_and_scale(cluster: &Cluster) -> Result<()> {
    cluster.submit("web@.service", &text())?;
    cluster.ctl(&["scale", "web=2"])?;
    all_serve(cluster, 2)?;
    cluster.ctl(&["scale", "web=4"])?;
    all_serve(cluster, 4)?;
    cluster.ctl(&["scale", "web=3"])?;
    all_serve(cluster, 3)
}

fn a_container_that_is_killed_and_a_client_that_is_killed_come_back(
    cluster: &Cluster,
) -> Result<()> {
    for kill in ["docker kill web-1", "systemctl kill -s KILL --kill-whom=main web@1.service"] {
        let host = host_of(cluster, "web@1.service")?;
        let before = cluster.running_on(&host, &["web@1.service"])?;
        cluster.lab.sh(&host, kill)?;
        wait_for(&format!("web-1 to come back after `{kill}`"), PATIENCE, || {
            let now = cluster.running_on(&host, &["web@1.service"])?;
            ensure!(!now.is_empty() && now != before, "it is {now:?}, before {before:?}");
            Ok(())
        })?;
        all_serve(cluster, 3)?;
    }
    Ok(())
}

/// `Requires=`: who stops the daemon stops them, and fleet does not start it again for them.
fn they_stop_with_their_daemon_and_come_back_with_it(cluster: &Cluster) -> Result<()> {
    let host = host_of(cluster, "web@1.service")?;
    cluster.lab.sh(&host, "systemctl stop docker.socket docker.service")?;
    wait_for("the lists to say what they wait for", PATIENCE, || {
        let states = cluster.states()?;
        let state =
            states.iter().find(|state| state.name == "web@1.service").context("no state")?;
        let message = state.message.as_deref().unwrap_or_default();
        ensure!(message.contains("it is started again when docker."), "{state:?}");
        Ok(())
    })?;
    let daemon = cluster.running_on(&host, &["docker.service"])?;
    ensure!(daemon.is_empty(), "fleet started what somebody stopped");
    cluster.lab.sh(&host, "systemctl start docker.service")?;
    all_serve(cluster, 3)
}

fn a_new_image_is_a_new_text(cluster: &Cluster) -> Result<()> {
    push(cluster, "web:2")?;
    cluster.ctl(&["update", "web@", "--image", &format!("{REGISTRY}/web:2")])?;
    let text = cluster.ctl(&["cat", "web@"])?;
    ensure!(text == self::text().replace("web:1", "web:2"), "{text}");
    all_serve(cluster, 3)?;
    for host in cluster.hosts() {
        let images = cluster.lab.sh(&host, "docker ps --format '{{.Image}}' | sort -u")?;
        ensure!(images == format!("{REGISTRY}/web:2"), "{host} runs {images}");
    }
    Ok(())
}

fn they_move(cluster: &Cluster) -> Result<()> {
    let id = cluster.lab.machine_id("h2")?.to_string();
    cluster.ctl(&["drain", &id])?;
    all_serve(cluster, 3)?;
    let left = containers(cluster, "h2")?;
    ensure!(left.is_empty(), "h2 still has {left:?}");
    cluster.clean()?;
    let left = containers(cluster, "h1")?;
    ensure!(left.is_empty(), "h1 still has {left:?}");
    Ok(())
}

/// Each instance answers, and each host's daemon runs the containers of its instances and no other.
fn all_serve(cluster: &Cluster, count: u32) -> Result<()> {
    cluster.wait_for_exactly(UNITS, &replicas("web", count), PATIENCE)?;
    for number in 1..=count {
        wait_for(&format!("web-{number} to answer"), PATIENCE, || {
            let host = host_of(cluster, &format!("web@{number}.service"))?;
            let address = cluster.lab.address(&host)?;
            let body = cluster.lab.http_get(&format!("http://{address}:808{number}/"))?;
            ensure!(body == format!("instance {number}\n"), "it said {body:?}");
            Ok(())
        })?;
    }
    for host in cluster.hosts() {
        let units = cluster.running_on(&host, UNITS)?.into_keys();
        let wanted: BTreeSet<String> =
            units.map(|unit| unit.replace('@', "-").replace(".service", "")).collect();
        wait_for(&format!("{host}'s daemon to run {wanted:?}"), PATIENCE, || {
            let running = containers(cluster, &host)?;
            ensure!(running == wanted, "it runs {running:?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn containers(cluster: &Cluster, host: &str) -> Result<BTreeSet<String>> {
    let listed = cluster.lab.sh(host, "docker ps --format '{{.Names}}'")?;
    Ok(listed.lines().map(str::to_string).collect())
}

fn host_of(cluster: &Cluster, unit: &str) -> Result<String> {
    let running = cluster.running(&[unit])?;
    running.into_keys().next().map(|(_, host)| host).with_context(|| format!("{unit} runs nowhere"))
}
