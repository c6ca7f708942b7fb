//! A leader that is killed, one that leaves, and a plain placement: seconds until a unit submitted
//! at that moment is placed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fleet_tests::lab::{Lab, Options, wait_for};

use super::fleet::Fleet;
use super::{SLEEPS, median};

const ROUNDS: usize = 5;

pub(crate) async fn run() -> Result<()> {
    let lab = Lab::up(&Options { name: "benchl".into(), hosts: 3, ..Options::default() })?;
    let (mut plain, mut left, mut killed) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        for (what, took) in [
            ("true", &mut plain),
            ("systemctl restart --no-block fleetd", &mut left),
            ("systemctl kill -s KILL fleetd", &mut killed),
        ] {
            let leader = leader(&lab)?;
            let other = ["h1", "h2", "h3"]
                .into_iter()
                .find(|host| *host != leader)
                .context("no other host")?;
            let fleet = Fleet::connect(&lab, other)?;
            let name = format!("u{round}-{}.service", took.len() * 3 + what.len());
            tokio::time::sleep(Duration::from_secs(2)).await;
            lab.sh(&leader, what)?;
            let begin = Instant::now();
            let placed = fleet.follow(
                &name,
                async || fleet.put(&name, SLEEPS, "launched").await,
                |unit| unit.instances.iter().any(|i| i.machine.is_some()),
            );
            took.push((placed.await? - begin).as_secs_f64());
            fleet.destroy(&name).await?;
        }
    }
    let worst = killed.iter().copied().fold(0.0, f64::max);
    let (plain, left, killed) = (median(plain), median(left), median(killed));
    println!(
        "a plain placement: {:.0} ms; while the leader leaves: {:.0} ms (bar: 100 ms more)",
        plain * 1000.0,
        left * 1000.0
    );
    println!(
        "leader killed → next placement: median {killed:.2} s, worst of {ROUNDS} {worst:.2} s \
            (bar 3.75 s)"
    );
    lab.down()
}

/// The host that leads.
fn leader(lab: &Lab) -> Result<String> {
    wait_for("a leader", Duration::from_secs(15), || {
        let text =
            lab.sh("h1", "curl -s --unix-socket /run/fleet.sock http://f/fleet/v1/machines")?;
        let page: fleet_core::wire::MachinePage = serde_json::from_str(&text)?;
        let leader = page
            .machines
            .iter()
            .find(|machine| machine.leader && page.machines.len() == 3)
            .context("no leader among three")?;
        leader.metadata.get("host").cloned().context("no host label")
    })
}
