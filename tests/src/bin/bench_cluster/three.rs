//! Three hosts: 0 → 1,000 units against the bare rate of the same hosts side by side; one unit on
//! an idle cluster.

use std::time::{Duration, Instant};

use anyhow::Result;
use fleet_tests::lab::{Lab, Options};
use futures_util::future::try_join_all;

use super::bare::Bare;
use super::fleet::Fleet;
use super::{SLEEPS, median};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// How the planner spreads 1,000 units over three machines.
const SHARES: [usize; 3] = [334, 333, 333];

pub(crate) async fn run() -> Result<()> {
    let lab = Lab::up(&Options { name: "bench3".into(), hosts: 3, ..Options::default() })?;
    let fleet = Fleet::connect(&lab, "h1")?;
    let mut bares = Vec::new();
    for host in HOSTS {
        bares.push(Bare::connect(&lab, host).await?);
    }
    thousand(&fleet, &bares).await?;
    one(&fleet).await?;
    lab.down()
}

async fn thousand(fleet: &Fleet, bares: &[Bare]) -> Result<()> {
    fleet.put("bench@.service", SLEEPS, "").await?;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for round in 0..=3 {
        settle(bares).await;
        let begin = Instant::now();
        fleet.scale("bench@.service", 1000).await?;
        loop {
            let mut active = 0;
            for bare in bares {
                active += bare.active("bench").await?;
            }
            if active == 1000 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let up = begin.elapsed().as_secs_f64();
        fleet.scale("bench@.service", 0).await?;
        try_join_all(bares.iter().map(|bare| bare.wait("bench", 0))).await?;
        settle(bares).await;
        for (bare, share) in bares.iter().zip(SHARES) {
            bare.write("bare", share, SLEEPS)?;
        }
        let begin = Instant::now();
        try_join_all(
            bares
                .iter()
                .zip(SHARES)
                .map(|(bare, share)| bare.all("StartUnit", "bare", share, share)),
        )
        .await?;
        let bare_up = begin.elapsed().as_secs_f64();
        try_join_all(
            bares.iter().zip(SHARES).map(|(bare, share)| bare.all("StopUnit", "bare", share, 0)),
        )
        .await?;
        for (bare, share) in bares.iter().zip(SHARES) {
            bare.remove("bare", share);
        }
        if round > 0 {
            ours.push(up);
            theirs.push(bare_up);
        }
    }
    fleet.destroy("bench@.service").await?;
    let (up, bare_up) = (median(ours), median(theirs));
    println!(
        "three hosts, 0 → 1,000: {:.0}/s; bare, side by side {:.0}/s; ratio {:.2} (bar 0.7)",
        1000.0 / up,
        1000.0 / bare_up,
        bare_up / up
    );
    Ok(())
}

/// From the sending of a unit to the line that says it is active; the cluster is idle in between,
/// so that reports are not held back.
async fn one(fleet: &Fleet) -> Result<()> {
    let mut took = Vec::new();
    for i in 0..30 {
        let name = format!("one{i}.service");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let sent = std::cell::Cell::new(Instant::now());
        let submit = async || {
            sent.set(Instant::now());
            fleet.put(&name, SLEEPS, "launched").await
        };
        let done = fleet
            .follow(&name, submit, |unit| {
                unit.exists && unit.done && unit.instances.iter().any(|i| i.done)
            })
            .await?;
        took.push((done - sent.get()).as_secs_f64() * 1000.0);
    }
    for i in 0..30 {
        fleet.destroy(&format!("one{i}.service")).await?;
    }
    let worst = took.iter().copied().fold(0.0, f64::max);
    println!(
        "one unit on an idle cluster, submit → reported active: median {:.1} ms, worst of 30 \
            {worst:.1} ms (bar 20 ms)",
        median(took)
    );
    Ok(())
}

async fn settle(bares: &[Bare]) {
    for bare in bares {
        bare.settle().await;
    }
}
