//! The figures of docs/reliability.md, on hosts of the lab: `bench_reliability
//! [container|machine|store|leader|both]… [--runs N]`.
//!
//! Seconds from a fault until the wanted count runs again, by the units' own records
//! (`fleet_tests::record`); how often a fenced unit had two copies, and how many workloads a fault
//! of the control plane stopped, over all runs.
#![allow(clippy::print_stdout, reason = "the figures are its output")]

mod faults;

use anyhow::{Context, Result, ensure};

/// How many runs each figure has, unless told otherwise.
const RUNS: usize = 20;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (mut runs, mut asked) = (RUNS, Vec::new());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--runs" => {
                runs = args
                    .next()
                    .context("--runs wants a number")?
                    .parse()
                    .context("--runs wants a number")?
            }
            name => {
                ensure!(
                    faults::FAULTS.iter().any(|(known, ..)| *known == name),
                    "{name:?} is none of {}",
                    faults::FAULTS.map(|(known, ..)| known).join(", ")
                );
                asked.push(name.to_owned());
            }
        }
    }
    println!(
        "load average {}",
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
    );
    let mut toll = faults::Toll::default();
    for (name, what, run) in faults::FAULTS {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            let took = run(runs, &mut toll)?;
            println!(
                "{what}: median {:.2} s, worst of {} {:.2} s",
                median(&took),
                took.len(),
                took.iter().copied().fold(0.0, f64::max)
            );
        }
    }
    println!(
        "fenced units with two copies at once, over {} lives: {}",
        toll.fenced_lives, toll.duplicates
    );
    println!(
        "workloads stopped by faults of the control plane, of {}: {}",
        toll.watched, toll.stopped
    );
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
