//! How fast a rolling restart of many instances is, beside a restart of all at once.

use std::time::Instant;

use anyhow::Result;
use fleet_tests::cluster::{Cluster, scenario};
use fleet_tests::lab::Options;

/// How many instances, over three hosts.
const INSTANCES: usize = 1000;

const PAIRS: usize = 3;

pub(crate) fn run() -> Result<()> {
    let options = Options { name: "bench-rate".into(), hosts: 3, ..Options::default() };
    scenario(&options, |cluster| {
        submit(cluster, "100%")?;
        cluster.ctl(&["scale", &format!("web={INSTANCES}")])?;
        let mut ratios = Vec::new();
        for _ in 0..PAIRS {
            submit(cluster, "100%")?;
            let plain = restart(cluster)?;
            submit(cluster, "25%")?;
            let rolling = restart(cluster)?;
            println!(
                "{INSTANCES} restarted at once: {plain:.1} s; 25 % at a time: {rolling:.1} s; \
                    {:.2} of the rate",
                plain / rolling
            );
            ratios.push(plain / rolling);
        }
        ratios.sort_by(f64::total_cmp);
        println!("median {:.2} of the rate of a plain restart (bar: 0.6)", ratios[PAIRS / 2]);
        Ok(())
    })
}

fn submit(cluster: &Cluster, max_unavailable: &str) -> Result<()> {
    let text = format!(
        "[Service]\nExecStart=/bin/sleep infinity\n[X-Fleet]\nMaxUnavailable={max_unavailable}\n\
        MinHealthy=0\n"
    );
    cluster.submit("web@.service", &text)
}

fn restart(cluster: &Cluster) -> Result<f64> {
    let from = Instant::now();
    cluster.ctl(&["restart", "web@"])?;
    Ok(from.elapsed().as_secs_f64())
}
