//! One host: fleet's rate of starts and stops against a bare client's, a trickle, 5,000 at once,
//! and growth with running units.

use std::time::Instant;

use anyhow::Result;
use fleet_tests::lab::{Lab, Options};

use super::bare::Bare;
use super::fleet::Fleet;
use super::{SLEEPS, median};

const ROUNDS: usize = 5;
const UNITS: usize = 300;
/// How many are started beside a crowd.
const MORE: usize = 50;

pub(crate) async fn run() -> Result<()> {
    let lab = Lab::up(&Options { name: "bench1".into(), hosts: 1, ..Options::default() })?;
    let (fleet, bare) = (Fleet::connect(&lab, "h1")?, Bare::connect(&lab, "h1").await?);
    rate(&fleet, &bare).await?;
    trickle(&fleet, &bare).await?;
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
    let (up, bare_up, down, bare_down) =
        (median(ours), median(theirs), median(ours_down), median(theirs_down));
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
            std::fs::write(
                dir.join(format!("reload@{i}.service")),
                format!("{SLEEPS}Slice=fleet-reload.slice\n"),
            )?;
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
    println!(
        "a trickle of 100 units: {ours:.0}/s; with a reload for each {theirs:.1}/s; ratio {:.0} \
            (bar 15)",
        ours / theirs
    );
    Ok(())
}

/// What 50 more units cost beside 250 and beside 4,000, with a journal stream each and without.
pub(crate) async fn growth() -> Result<()> {
    let lab = Lab::up(&Options { name: "bench1".into(), hosts: 1, ..Options::default() })?;
    let (fleet, bare) = (Fleet::connect(&lab, "h1")?, Bare::connect(&lab, "h1").await?);
    for (what, text) in [
        ("units that log", SLEEPS.to_owned()),
        ("silent units", format!("{SLEEPS}StandardOutput=null\nStandardError=null\n")),
    ] {
        fleet.put("crowd@.service", &text, "").await?;
        fleet.put("more@.service", &text, "").await?;
        bare.write("bare", MORE, &text)?;
        let mut costs = Vec::new();
        for crowd in [250, 4000] {
            fleet.scale("crowd@.service", crowd).await?;
            bare.wait("crowd", crowd).await?;
            costs.push(beside(&fleet, &bare).await?);
        }
        bare.remove("bare", MORE);
        for unit in ["crowd", "more"] {
            fleet.destroy(&format!("{unit}@.service")).await?;
            bare.wait(unit, 0).await?;
        }
        let [few, many] = &costs[..] else { continue };
        for (who, (wall, cpu), (late_wall, late_cpu)) in
            [("fleet", few[0], many[0]), ("bare client", few[1], many[1])]
        {
            println!(
                "{what}, {who}: a start beside 250: {wall:.2} ms, PID 1 {cpu:.2} ms; beside \
                    4,000: {late_wall:.2} ms, PID 1 {late_cpu:.2} ms; ratio {:.2} (bar 1.5)",
                late_wall / wall
            );
        }
    }
    lab.down()
}

/// Milliseconds a start, and of PID 1's CPU: by fleet, and by the bare client.
async fn beside(fleet: &Fleet, bare: &Bare) -> Result<[(f64, f64); 2]> {
    let mut costs = [(vec![], vec![]), (vec![], vec![])];
    let (each, more) = (1000.0 / MORE as f64, MORE as f64);
    for _ in 0..7 {
        bare.settle().await;
        let (begin, cpu) = (Instant::now(), bare.pid1_ms());
        fleet.scale("more@.service", MORE).await?;
        bare.wait("more", MORE).await?;
        costs[0].0.push(begin.elapsed().as_secs_f64() * each);
        costs[0].1.push((bare.pid1_ms() - cpu) / more);
        fleet.scale("more@.service", 0).await?;
        bare.wait("more", 0).await?;
        bare.settle().await;
        let cpu = bare.pid1_ms();
        costs[1].0.push(bare.all("StartUnit", "bare", MORE, MORE).await? * each);
        costs[1].1.push((bare.pid1_ms() - cpu) / more);
        bare.all("StopUnit", "bare", MORE, 0).await?;
    }
    Ok(costs.map(|(walls, cpus)| (median(walls), median(cpus))))
}

async fn at_once(fleet: &Fleet, bare: &Bare) -> Result<()> {
    fleet.put("burst@.service", SLEEPS, "").await?;
    let begin = Instant::now();
    fleet.scale("burst@.service", 5000).await?;
    bare.wait("burst", 5000).await?;
    let took = begin.elapsed().as_secs_f64();
    let metrics = fleet.metrics().await?;
    let value = |name: &str| {
        metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(" ?").trim().to_string()
    };
    println!(
        "5,000 starts at once: {took:.1} s; connections to the bus {}, most calls in flight {} \
            (bar 100), most jobs {} (systemd's end: 512), reloads {}",
        value("fleet_systemd_connections_total"),
        value("fleet_systemd_calls_in_flight_max"),
        value("fleet_systemd_jobs_in_flight_max"),
        value("fleet_systemd_calls_total{kind=\"reload\"}")
    );
    fleet.destroy("burst@.service").await?;
    bare.wait("burst", 0).await
}
