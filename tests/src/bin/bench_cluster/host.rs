//! One host: fleet's rate of starts and stops against a bare client's, a trickle, growth with running units, 5,000 at once.

use std::time::Instant;

use anyhow::Result;
use fleet_tests::lab::{Lab, Options};

use super::bare::Bare;
use super::fleet::Fleet;
use super::{SLEEPS, median};

const ROUNDS: usize = 5;
const UNITS: usize = 300;

pub(crate) async fn run() -> Result<()> {
    let lab = Lab::up(&Options { name: "bench1".into(), hosts: 1, ..Options::default() })?;
    let (fleet, bare) = (Fleet::connect(&lab, "h1")?, Bare::connect(&lab, "h1").await?);
    rate(&fleet, &bare).await?;
    trickle(&fleet, &bare).await?;
    growth(&fleet, &bare).await?;
    at_once(&fleet, &bare).await?;
    lab.down()
}

async fn rate(fleet: &Fleet, bare: &Bare) -> Result<()> {
    fleet.put("bench@.service", SLEEPS, "").await?;
    bare.write("bare", UNITS, SLEEPS)?;
    let (mut ours, mut theirs, mut ours_down, mut theirs_down) = (vec![], vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        bare.settle().await;
        let begin = Instant::now();
        fleet.scale("bench@.service", UNITS).await?;
        bare.wait("bench", UNITS).await?;
        let up = begin.elapsed().as_secs_f64();
        bare.settle().await;
        let begin = Instant::now();
        fleet.scale("bench@.service", 0).await?;
        bare.wait("bench", 0).await?;
        let down = begin.elapsed().as_secs_f64();
        bare.settle().await;
        let bare_up = bare.all("StartUnit", "bare", UNITS, UNITS).await?;
        bare.settle().await;
        let bare_down = bare.all("StopUnit", "bare", UNITS, 0).await?;
        if round > 0 {
            // The first round warms both up.
            ours.push(up);
            theirs.push(bare_up);
            ours_down.push(down);
            theirs_down.push(bare_down);
        }
    }
    bare.remove("bare", UNITS);
    fleet.destroy("bench@.service").await?;
    let n = UNITS as f64;
    let (up, bare_up, down, bare_down) = (median(ours), median(theirs), median(ours_down), median(theirs_down));
    println!(
        "scale bench=300, accepted → active: {:.0}/s; bare client {:.0}/s; ratio {:.2} (bar 0.9)",
        n / up,
        n / bare_up,
        bare_up / up
    );
    println!(
        "scale bench=0, accepted → gone: {:.0}/s; bare client {:.0}/s; ratio {:.2} (bar 0.9)",
        n / down,
        n / bare_down,
        bare_down / down
    );
    Ok(())
}

/// 100 units that arrive one by one, against a client that reloads for each.
async fn trickle(fleet: &Fleet, bare: &Bare) -> Result<()> {
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..3 {
        bare.settle().await;
        let begin = Instant::now();
        for i in 1..=100 {
            fleet.put(&format!("trickle@{i}.service"), SLEEPS, "launched").await?;
        }
        bare.wait("trickle", 100).await?;
        ours.push(100.0 / begin.elapsed().as_secs_f64());
        for i in 1..=100 {
            fleet.destroy(&format!("trickle@{i}.service")).await?;
        }
        bare.wait("trickle", 0).await?;
        bare.settle().await;
        let begin = Instant::now();
        for i in 1..=100 {
            let dir = bare.root().join("run/systemd/system");
            std::fs::write(dir.join(format!("reload@{i}.service")), format!("{SLEEPS}Slice=fleet-reload.slice\n"))?;
            bare.reload().await?;
            bare.start(&format!("reload@{i}.service")).await?;
        }
        bare.wait("reload", 100).await?;
        theirs.push(100.0 / begin.elapsed().as_secs_f64());
        bare.all("StopUnit", "reload", 100, 0).await?;
        bare.remove("reload", 100);
        bare.reload().await?;
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("a trickle of 100 units: {ours:.0}/s; with a reload for each {theirs:.1}/s; ratio {:.0} (bar 15)", ours / theirs);
    Ok(())
}

/// What 50 more units cost beside 250 and beside 4,000.
async fn growth(fleet: &Fleet, bare: &Bare) -> Result<()> {
    fleet.put("crowd@.service", SLEEPS, "").await?;
    fleet.put("more@.service", SLEEPS, "").await?;
    let mut cost = Vec::new();
    for crowd in [250, 4000] {
        fleet.scale("crowd@.service", crowd).await?;
        bare.wait("crowd", crowd).await?;
        let (mut walls, mut cpus) = (vec![], vec![]);
        for _ in 0..5 {
            bare.settle().await;
            let (begin, cpu) = (Instant::now(), bare.pid1_ms());
            fleet.scale("more@.service", 50).await?;
            bare.wait("more", 50).await?;
            walls.push(begin.elapsed().as_secs_f64() * 1000.0 / 50.0);
            cpus.push((bare.pid1_ms() - cpu) / 50.0);
            fleet.scale("more@.service", 0).await?;
            bare.wait("more", 0).await?;
        }
        cost.push((median(walls), median(cpus)));
    }
    let [(wall, cpu), (late_wall, late_cpu)] = cost[..] else { return Ok(()) };
    println!(
        "a start beside 250 units: {wall:.2} ms, PID 1 {cpu:.2} ms; beside 4,000: {late_wall:.2} ms, PID 1 {late_cpu:.2} ms; ratio {:.2} (bar 1.5)",
        late_wall / wall
    );
    fleet.destroy("crowd@.service").await?;
    fleet.destroy("more@.service").await?;
    bare.wait("crowd", 0).await
}

async fn at_once(fleet: &Fleet, bare: &Bare) -> Result<()> {
    fleet.put("burst@.service", SLEEPS, "").await?;
    let begin = Instant::now();
    fleet.scale("burst@.service", 5000).await?;
    bare.wait("burst", 5000).await?;
    let took = begin.elapsed().as_secs_f64();
    let metrics = fleet.metrics().await?;
    let value = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(" ?").trim().to_string();
    println!(
        "5,000 starts at once: {took:.1} s; connections to the bus {}, most calls in flight {} (bar 100), most jobs {} (systemd's end: 512), reloads {}",
        value("fleet_systemd_connections_total"),
        value("fleet_systemd_calls_in_flight_max"),
        value("fleet_systemd_jobs_in_flight_max"),
        value("fleet_systemd_calls_total{kind=\"reload\"}")
    );
    fleet.destroy("burst@.service").await?;
    bare.wait("burst", 0).await
}
