//! An idle cluster: three machines, 300 units, nothing to do. What it costs etcd, each fleetd and
//! each PID 1.

use std::time::Duration;

use anyhow::{Context, Result};
use fleet_tests::lab::{Lab, Options};

use super::SLEEPS;
use super::bare::Bare;
use super::fleet::Fleet;

const SECONDS: u64 = 30;

pub(crate) async fn run() -> Result<()> {
    let lab = Lab::up(&Options { name: "benchi".into(), hosts: 3, ..Options::default() })?;
    let fleet = Fleet::connect(&lab, "h1")?;
    let mut bares = Vec::new();
    for host in ["h1", "h2", "h3"] {
        bares.push(Bare::connect(&lab, host).await?);
    }
    fleet.put("idle@.service", SLEEPS, "").await?;
    fleet.scale("idle@.service", 300).await?;
    for bare in &bares {
        bare.wait("idle", 100).await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let etcd = etcd(&lab)?;
    let pid1: Vec<f64> = bares.iter().map(Bare::pid1_ms).collect();
    let cpu: Vec<f64> = ["h1", "h2", "h3"]
        .iter()
        .map(|host| fleetd(&lab, host).map(|(ms, _)| ms))
        .collect::<Result<_>>()?;
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let seconds = SECONDS as f64;
    let after = self::etcd(&lab)?;
    println!(
        "idle, 3 machines, 300 units, over {SECONDS} s: etcd revisions {}, bytes sent by etcd \
            {:.0}/s, received {:.0}/s",
        after.revision - etcd.revision,
        (after.sent - etcd.sent) / seconds,
        (after.received - etcd.received) / seconds
    );
    for (i, host) in ["h1", "h2", "h3"].iter().enumerate() {
        let (ms, rss) = fleetd(&lab, host)?;
        println!(
            "  {host}: fleetd {:.2} % of a core (bar 0.5), {rss:.1} MB (bar 30); PID 1 {:.2} ms \
                of CPU a second (bar 1)",
            (ms - cpu[i]) / seconds / 10.0,
            (bares[i].pid1_ms() - pid1[i]) / seconds
        );
    }
    lab.down()
}

struct Etcd {
    revision: i64,
    sent: f64,
    received: f64,
}

fn etcd(lab: &Lab) -> Result<Etcd> {
    let text = lab.http_get(&format!("{}/metrics", lab.etcd_urls()[0]))?;
    let value = |name: &str| -> f64 {
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    Ok(Etcd {
        revision: value("etcd_debugging_mvcc_current_revision") as i64,
        sent: value("etcd_network_client_grpc_sent_bytes_total"),
        received: value("etcd_network_client_grpc_received_bytes_total"),
    })
}

/// The CPU time (ms) and resident memory (MB) of a host's fleetd.
fn fleetd(lab: &Lab, host: &str) -> Result<(f64, f64)> {
    let pid = lab.sh(host, "systemctl show -P MainPID fleetd")?;
    let sched = lab.sh(host, &format!("cat /proc/{pid}/task/*/schedstat"))?;
    let ms: f64 =
        sched.lines().filter_map(|line| line.split(' ').next()?.parse::<f64>().ok()).sum::<f64>()
            / 1e6;
    let status = lab.sh(host, &format!("cat /proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
    });
    Ok((ms, kib.context("no VmRSS")? / 1024.0))
}
