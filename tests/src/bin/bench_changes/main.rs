//! What a change on purpose costs those who use the units, on hosts of the lab: `bench_changes
//! [update|start-first|crash|answers-500|drain|reboot|rate]…`; all of them without an argument.
//!
//! A client asks 200 times a second over all instances that answer, as a load balancer would which
//! checks its servers ten times a second and goes to the next one where a connection is refused.
//! Counted are the requests that failed all the same, and the fewest instances that answered.
#![allow(clippy::print_stdout, reason = "the figures are its output")]

mod changes;
mod load;
mod rate;
mod serve;

use anyhow::{Context, Result, ensure};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", port, status] => serve::run(port.parse()?, status.parse()?),
        ["load", ref addresses @ ..] => load::run(addresses),
        ref asked => measure(asked),
    }
}

fn measure(asked: &[&str]) -> Result<()> {
    let known = || changes::CHANGES.iter().map(|(name, ..)| *name).chain(["rate"]);
    for name in asked {
        let names: Vec<&str> = known().collect();
        ensure!(names.contains(name), "{name:?} is none of {}", names.join(", "));
    }
    let load = std::fs::read_to_string("/proc/loadavg").context("the load average")?;
    println!("load average {}", load.trim());
    let wanted = |name: &str| asked.is_empty() || asked.contains(&name);
    if changes::CHANGES.iter().any(|(name, ..)| wanted(name)) {
        changes::run(wanted)?;
    }
    if wanted("rate") {
        rate::run()?;
    }
    Ok(())
}
