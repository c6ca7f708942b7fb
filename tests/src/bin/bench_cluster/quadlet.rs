//! Containers: what starting and stopping a Quadlet instance costs beside podman alone, on one host
//! and on three; and docker's Swarm on the same three.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet_tests::lab::{Lab, Options, wait_for};
use futures_util::future::try_join_all;

use super::bare::Bare;
use super::fleet::Fleet;
use super::median;

const ROUNDS: usize = 5;

/// How many containers one host gets, and each of three.
const COUNT: usize = 30;

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// What both run: the same container, by the same podman.
const CONTAINER: &str = "[Container]\nImage=localhost/busybox:latest\nNetwork=host\n\
    Exec=sleep infinity\nStopTimeout=1\n[Service]\nTimeoutStartSec=120\n";

pub(crate) async fn run() -> Result<()> {
    let lab = Lab::up(&Options { name: "benchq".into(), hosts: 3, ..Options::default() })?;
    let fleet = Fleet::connect(&lab, "h1")?;
    let mut bares = Vec::new();
    for host in HOSTS {
        // The agents of the two others must not see what podman alone runs as theirs.
        lab.sh(host, "mkdir -p /etc/containers/systemd")?;
        let bare = Bare::connect(&lab, host).await?;
        let text = CONTAINER.replace("[Service]\n", "[Service]\nSlice=fleet-bare-1.slice\n");
        std::fs::write(bare.root().join("etc/containers/systemd/bare@.container"), text)?;
        bare.reload().await?;
        bares.push(bare);
    }
    fleet.put("bench@.container", CONTAINER, "").await?;
    compare("three hosts", &fleet, &bares).await?;
    for host in &HOSTS[1..] {
        lab.sh("h1", &format!("fleetctl drain {}", lab.machine_id(host)?))?;
    }
    compare("one host", &fleet, &bares[..1]).await?;
    swarm(&lab)?;
    lab.down()
}

/// All of them up and down again, by fleet and by StartUnit and StopUnit.
async fn compare(what: &str, fleet: &Fleet, bares: &[Bare]) -> Result<()> {
    let all = COUNT * bares.len();
    let (mut ups, mut downs, mut bare_ups, mut bare_downs) = (vec![], vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        settle(bares).await;
        let begin = Instant::now();
        fleet.scale("bench@.container", all).await?;
        try_join_all(bares.iter().map(|bare| bare.wait("bench", COUNT))).await?;
        let up = begin.elapsed().as_secs_f64();
        settle(bares).await;
        let begin = Instant::now();
        fleet.scale("bench@.container", 0).await?;
        try_join_all(bares.iter().map(|bare| bare.wait("bench", 0))).await?;
        let down = begin.elapsed().as_secs_f64();
        settle(bares).await;
        let begin = Instant::now();
        try_join_all(bares.iter().map(|bare| bare.all("StartUnit", "bare", COUNT, COUNT))).await?;
        let bare_up = begin.elapsed().as_secs_f64();
        settle(bares).await;
        let begin = Instant::now();
        try_join_all(bares.iter().map(|bare| bare.all("StopUnit", "bare", COUNT, 0))).await?;
        let bare_down = begin.elapsed().as_secs_f64();
        if round > 0 {
            ups.push(up);
            downs.push(down);
            bare_ups.push(bare_up);
            bare_downs.push(bare_down);
        }
    }
    let (up, down) = (median(ups), median(downs));
    let (bare_up, bare_down) = (median(bare_ups), median(bare_downs));
    println!(
        "{what}, 0 → {all} Quadlet containers: fleet {up:.2} s, podman alone {bare_up:.2} s, \
            {:.2} times as long; {all} → 0: {down:.2} s, {bare_down:.2} s, {:.2} times (bar 1.1)",
        up / bare_up,
        down / bare_down
    );
    Ok(())
}

async fn settle(bares: &[Bare]) {
    for bare in bares {
        bare.settle().await;
    }
}

/// The same containers as tasks of a service.
fn swarm(lab: &Lab) -> Result<()> {
    let all = COUNT * HOSTS.len();
    for host in HOSTS {
        lab.sh(host, "systemctl stop fleetd.socket fleetd; systemctl start docker")?;
        lab.sh(host, "docker import /usr/share/fleet-lab/busybox.tar busybox:lab")?;
    }
    lab.sh("h1", &format!("docker swarm init --advertise-addr {}", lab.address("h1")?))?;
    let token = lab.sh("h1", "docker swarm join-token --quiet worker")?;
    for host in &HOSTS[1..] {
        let join = format!("docker swarm join --token {token} {}:2377", lab.address("h1")?);
        lab.sh(host, &join)?;
    }
    lab.sh(
        "h1",
        "docker service create --detach --quiet --name bench --replicas 0 --network host \
            --no-resolve-image --stop-grace-period 1s busybox:lab /bin/sleep infinity",
    )?;
    let (mut ups, mut downs) = (vec![], vec![]);
    for round in 0..=ROUNDS {
        let up = scaled(lab, all)?;
        let down = scaled(lab, 0)?;
        if round > 0 {
            ups.push(up);
            downs.push(down);
        }
    }
    println!(
        "three hosts, docker's Swarm: 0 → {all}: {:.2} s; {all} → 0: {:.2} s",
        median(ups),
        median(downs)
    );
    Ok(())
}

/// How long it takes until as many containers run.
fn scaled(lab: &Lab, wanted: usize) -> Result<f64> {
    let begin = Instant::now();
    lab.sh("h1", &format!("docker service scale --detach bench={wanted}"))?;
    wait_for("docker's containers", Duration::from_secs(180), || {
        let mut running = 0;
        for host in HOSTS {
            running += lab.sh(host, "docker ps --quiet | wc -l")?.trim().parse::<usize>()?;
        }
        ensure!(running == wanted, "{running} of {wanted}");
        Ok(())
    })
    .context("scaling a service")?;
    Ok(begin.elapsed().as_secs_f64())
}
