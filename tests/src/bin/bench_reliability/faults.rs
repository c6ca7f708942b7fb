//! The four faults, each made again and again on one lab.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE};
use fleet_tests::lab::{Lab, Options, wait_for};
use fleet_tests::record::{self, Life, SILENCE, recorder};

/// How many replicas run: two a host.
const COUNT: usize = 6;

/// How many of the fenced units run: one a host.
const FENCED: usize = 3;

/// Longer than any fault may take to be mended.
const LIMIT: Duration = Duration::from_secs(120);

/// What the judge counted besides times.
#[derive(Default)]
pub(crate) struct Toll {
    pub(crate) fenced_lives: usize,
    pub(crate) duplicates: usize,
    pub(crate) watched: usize,
    pub(crate) stopped: usize,
}

/// How a fault is made `runs` times: the seconds of each.
pub(crate) type Fault = fn(usize, &mut Toll) -> Result<Vec<f64>>;

/// The name on the command line, what is measured, and how.
pub(crate) const FAULTS: [(&str, &str, Fault); 5] = [
    ("container", "container killed → runs again (by the agent, no Restart=)", container),
    ("machine", "machine lost → count restored", |runs, toll| {
        machine(runs, toll, Lost::Follower)
    }),
    ("store", "machine lost together with etcd's leader → count restored", |runs, toll| {
        machine(runs, toll, Lost::StoreLeader)
    }),
    ("leader", "leader lost → next unit runs", leader),
    ("both", "fleet's and etcd's leader lost with one machine → count restored", |runs, toll| {
        machine(runs, toll, Lost::BothLeaders)
    }),
];

/// Which machine loses power. Each has a member of etcd.
#[derive(Clone, Copy, PartialEq)]
enum Lost {
    /// One that leads nothing.
    Follower,
    /// etcd's leader, not fleet's.
    StoreLeader,
    /// Both.
    BothLeaders,
}

/// How long after etcd's leader was moved the fault is made: nothing that fleet does about the move
/// goes on then.
const MOVED: Duration = Duration::from_secs(15);

fn container(runs: usize, _: &mut Toll) -> Result<Vec<f64>> {
    with_cluster("container", |cluster| {
        // The same script in a container; its pid in there is another one, so lives are told apart
        // by their beginnings.
        let text = recorder("Delegate=yes\n", "").replace(
            "ExecStart=/bin/sh",
            "ExecStart=/usr/bin/podman run --rm --replace --name=%p-%i --cgroups=split \
            --network=host -v /var/lib/records:/var/lib/records localhost/busybox:latest /bin/sh",
        );
        cluster.submit("box@.service", &text)?;
        cluster.ctl(&["scale", &format!("box={COUNT}")])?;
        let mut took = Vec::new();
        for run in 0..runs {
            let unit = format!("box@{}.service", 1 + run % COUNT);
            let host = running_host(cluster, &unit)?;
            settle(cluster, "box", COUNT)?;
            // The container's own process, not podman's monitor.
            let name = unit.trim_end_matches(".service").replace('@', "-");
            let pid = cluster
                .lab
                .sh(&host, &format!("podman inspect --format '{{{{.State.Pid}}}}' {name}"))?;
            let at = record::now()?;
            cluster.lab.sh(&host, &format!("kill -9 {pid}"))?;
            took.push(next_start(cluster, &unit, at)? - at);
        }
        Ok(took)
    })
}

fn machine(runs: usize, toll: &mut Toll, which: Lost) -> Result<Vec<f64>> {
    let name = match which {
        Lost::Follower => "machine",
        Lost::StoreLeader => "store",
        Lost::BothLeaders => "both",
    };
    with_cluster(name, |cluster| {
        workloads(cluster)?;
        let mut took = Vec::new();
        for _ in 0..runs {
            let leader = cluster.leader()?;
            let follower =
                cluster.hosts().into_iter().find(|host| *host != leader).context("a follower")?;
            let lost = if which == Lost::BothLeaders { leader.clone() } else { follower };
            cluster.lead_store_from(if which == Lost::Follower { &leader } else { &lost })?;
            std::thread::sleep(MOVED);
            ensure!(
                cluster.leader()? == leader,
                "another machine leads since etcd's leader was moved"
            );
            let before = record::lives(&cluster.lab)?.len();
            let at = record::now()?;
            cluster.lab.kill(&lost)?;
            settle(cluster, "web", COUNT)?;
            let lives = record::lives(&cluster.lab)?;
            ensure!(lives.len() > before, "nothing was started anew");
            let last = lives
                .iter()
                .filter(|life| life.unit.starts_with("web@") && life.from > at)
                .map(|life| life.from);
            took.push(last.fold(0.0, f64::max) - at);
            settle(cluster, "only", FENCED)?;
            cluster.lab.boot(&lost)?;
            cluster.wait_until_ready()?;
            // Spread anew for the next run: nothing moves by itself.
            for unit in ["web", "only"] {
                cluster.ctl(&["scale", &format!("{unit}=0")])?;
            }
            workloads(cluster)?;
        }
        count_duplicates(&cluster.lab, toll)?;
        Ok(took)
    })
}

fn leader(runs: usize, toll: &mut Toll) -> Result<Vec<f64>> {
    with_cluster("leader", |cluster| {
        workloads(cluster)?;
        let watched = alive(cluster, "")?;
        let mut took = Vec::new();
        for run in 0..runs {
            let leader = cluster.leader()?;
            let asker =
                cluster.hosts().into_iter().find(|host| *host != leader).context("another host")?;
            let unit = format!("next{run}.service");
            cluster.write(&asker, &format!("/root/{unit}"), &recorder("", ""))?;
            cluster.lab.sh(&leader, "systemctl kill --kill-whom=main --signal=KILL fleetd")?;
            let at = record::now()?;
            let said =
                cluster.fleetctl(&asker, &["start", "--no-block", &format!("/root/{unit}")])?;
            ensure!(said.code == 0, "{said:?}");
            took.push(next_start(cluster, &unit, at)? - at);
            cluster.wait_until_ready()?;
        }
        let now = alive(cluster, "")?;
        let lives_on = |life: &&Life| {
            now.iter().any(|other| {
                (&other.unit, &other.host, other.pid) == (&life.unit, &life.host, life.pid)
            })
        };
        toll.watched += watched.len() * runs;
        toll.stopped += watched.len() - watched.iter().filter(lives_on).count();
        count_duplicates(&cluster.lab, toll)?;
        Ok(took)
    })
}

fn with_cluster(name: &str, body: impl FnOnce(&Cluster) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    let options = Options { name: format!("rel-{name}"), etcd_members: 3, ..Options::default() };
    let cluster = Cluster { lab: Lab::up(&options)? };
    cluster.wait_until_ready()?;
    let took = body(&cluster)?;
    cluster.lab.down()?;
    Ok(took)
}

fn workloads(cluster: &Cluster) -> Result<()> {
    cluster.submit("web@.service", &recorder("", ""))?;
    cluster.submit("only@.service", &recorder("", "[X-Fleet]\nFence=yes\n"))?;
    cluster.ctl(&["scale", &format!("web={COUNT}"), &format!("only={FENCED}")])?;
    settle(cluster, "web", COUNT)?;
    settle(cluster, "only", FENCED)
}

/// Waits until `count` instances of a template live, each once.
fn settle(cluster: &Cluster, template: &str, count: usize) -> Result<()> {
    wait_for(&format!("{count} of {template}"), LIMIT, || {
        let alive = alive(cluster, &format!("{template}@"))?;
        ensure!(alive.len() == count, "there are {alive:?}");
        Ok(())
    })
}

fn alive(cluster: &Cluster, prefix: &str) -> Result<Vec<Life>> {
    let mut lives = record::lives(&cluster.lab)?;
    let (now, hosts) = (record::now()?, cluster.hosts());
    lives.retain(|life| {
        life.unit.starts_with(prefix)
            && !life.stopped
            && life.until > now - SILENCE
            && hosts.contains(&life.host)
    });
    Ok(lives)
}

/// When the first life of `unit` after `at` began.
fn next_start(cluster: &Cluster, unit: &str, at: f64) -> Result<f64> {
    wait_for(&format!("{unit} to start"), LIMIT, || {
        let lives = record::lives(&cluster.lab)?;
        lives
            .iter()
            .find(|life| life.unit == unit && life.from > at)
            .map(|life| life.from)
            .context("not yet")
    })
}

fn running_host(cluster: &Cluster, unit: &str) -> Result<String> {
    wait_for(&format!("{unit} to run"), PATIENCE, || {
        let running = cluster.running(&[unit])?;
        match running.keys().next() {
            Some((_, host)) if running.len() == 1 => Ok(host.clone()),
            _ => bail!("it runs on {running:?}"),
        }
    })
}

fn count_duplicates(lab: &Lab, toll: &mut Toll) -> Result<()> {
    let fenced: Vec<Life> =
        record::lives(lab)?.into_iter().filter(|life| life.unit.starts_with("only@")).collect();
    toll.fenced_lives += fenced.len();
    toll.duplicates += record::overlaps(&fenced).len();
    Ok(())
}
