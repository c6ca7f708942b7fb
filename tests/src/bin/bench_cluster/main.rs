//! The figures of docs/performance.md, on hosts of the lab: `bench_cluster
//! [host|growth|three|idle|leader|quadlet]…`; all of them without an argument.
//!
//! Each compares with a bare D-Bus client on the same hosts in the same run: these machines are
//! noisy, ratios are not.
#![allow(clippy::print_stdout, reason = "the figures are its output")]

mod bare;
mod fleet;
mod host;
mod idle;
mod leader;
mod quadlet;
mod three;

use anyhow::Result;

#[tokio::main]
async fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|a| a == name);
    println!(
        "load average {}",
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
    );
    if wanted("host") {
        host::run().await?;
    }
    if wanted("growth") {
        host::growth().await?;
    }
    if wanted("three") {
        three::run().await?;
    }
    if wanted("idle") {
        idle::run().await?;
    }
    if wanted("leader") {
        leader::run().await?;
    }
    if wanted("quadlet") {
        quadlet::run().await?;
    }
    Ok(())
}

/// A unit that does nothing, cheaply.
pub(crate) const SLEEPS: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
