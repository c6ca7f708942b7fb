//! Everything but the workloads breaks: fleetd, D-Bus, journald, systemd's own state, etcd, the
//! network between them, the clock, a disk.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::wait_for;
use serde_json::Value;

use crate::lab;
use crate::trial::{COUNT, Trial};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// Longer than both leases.
const LONG: Duration = Duration::from_secs(15);

#[test]
fn no_workload_notices_what_happens_to_fleetd_the_bus_or_systemd() -> Result<()> {
    scenario(&lab("daemons"), |cluster| {
        let trial = Trial::begin(cluster)?;
        trial.unnoticed("kill -9 of every fleetd", |cluster| {
            everywhere(cluster, "systemctl kill --kill-whom=main -s KILL fleetd")
        })?;
        trial.unnoticed("a leader and an agent that hang", a_leader_and_an_agent_hang)?;
        trial.unnoticed("a restart of D-Bus", |cluster| {
            everywhere(cluster, "systemctl restart dbus.service")
        })?;
        trial.unnoticed("a restart of journald", |cluster| {
            everywhere(cluster, "systemctl restart systemd-journald.service")
        })?;
        trial.unnoticed("a re-execution of systemd", |cluster| {
            everywhere(cluster, "systemctl daemon-reexec")
        })?;
        trial.unnoticed("a restart of every keeper", |cluster| {
            everywhere(cluster, "systemctl restart fleet-keeper")
        })?;
        trial.unnoticed("kill -9 of every keeper", |cluster| {
            everywhere(cluster, "systemctl kill --kill-whom=main -s KILL fleet-keeper")
        })?;
        trial.unnoticed("keepers that hang", |cluster| all_hang(cluster, "fleet-keeper"))?;
        trial.unnoticed_by_the_unfenced("kill -9 of every guard", |cluster| {
            everywhere(cluster, "systemctl kill --kill-whom=main -s KILL fleet-guard")
        })?;
        trial.unnoticed_by_the_unfenced("guards that hang", |cluster| {
            all_hang(cluster, "fleet-guard")
        })?;
        goes_on(&trial)
    })
}

#[test]
fn no_workload_notices_what_happens_to_the_store_or_the_network_to_it() -> Result<()> {
    scenario(&lab("store"), |cluster| {
        let trial = Trial::begin(cluster)?;
        trial.unnoticed("a dead member of etcd", |cluster| {
            cluster.lab.sh("h2", "systemctl kill -s KILL etcd").map(drop) // systemd starts it again
        })?;
        trial.unnoticed("an etcd that is full", etcd_is_full)?;
        trial.unnoticed_by_the_unfenced("two dead members of etcd", two_members_are_away)?;
        trial.unnoticed("a cut one way", |cluster| {
            let leader = cluster.leader()?;
            let other = HOSTS.into_iter().find(|host| *host != leader).context("another host")?;
            cluster.lab.cut_one_way(&leader, other)?;
            std::thread::sleep(LONG);
            cluster.lab.heal(&leader)
        })?;
        goes_on(&trial)
    })
}

#[test]
fn no_workload_notices_a_full_disk_or_a_clock_that_jumps() -> Result<()> {
    scenario(&lab("host"), |cluster| {
        settable_clocks(cluster)?;
        let trial = Trial::begin(cluster)?;
        for hours in ["+1h", "-1h"] {
            trial.unnoticed("a clock that jumps", |cluster| the_clock_jumps(cluster, hours))?;
        }
        trial.unnoticed("a full disk", |cluster| everywhere(cluster, FILL))?;
        full_is_said(cluster)?;
        everywhere(cluster, "rm /run/filled /var/lib/fleet/filled")?;
        goes_on(&trial)
    })
}

/// Makes both places where fleetd writes small, and fills them.
const FILL: &str = "mount -o remount,size=$(($(df -k --output=used /run | tail -1) + 512))k /run; \
    head -c 100M /dev/zero > /run/filled 2>/dev/null; \
    mkdir -p /mnt/small; mount -t tmpfs -o size=1M tmpfs /mnt/small; cp -a /var/lib/fleet/. \
    /mnt/small/; \
    mount --move /mnt/small /var/lib/fleet 2>/dev/null || mount --bind /mnt/small /var/lib/fleet; \
    head -c 2M /dev/zero > /var/lib/fleet/filled 2>/dev/null; true";

/// With every disk full a new unit cannot be written, and that is what a user reads.
fn full_is_said(cluster: &Cluster) -> Result<()> {
    cluster.write("h1", "/root/extra.service", "[Service]\nExecStart=/bin/sleep infinity\n").ok();
    let said = cluster.fleetctl("h1", &["start", "--block-attempts=3", "/root/extra.service"])?;
    ensure!(said.code != 0 && said.err.contains("No space left on device"), "{said:?}");
    cluster.ctl(&["destroy", "extra.service"]).map(drop)
}

fn everywhere(cluster: &Cluster, script: &str) -> Result<()> {
    HOSTS.into_iter().try_for_each(|host| cluster.lab.sh(host, script).map(drop))
}

/// The watchdog ends each process that hangs.
fn all_hang(cluster: &Cluster, service: &str) -> Result<()> {
    let mut before = Vec::new();
    for host in HOSTS {
        before.push((host, pid(cluster, host, service)?));
        cluster.lab.sh(host, &format!("systemctl kill --kill-whom=main -s STOP {service}"))?;
    }
    before.into_iter().try_for_each(|(host, hung)| is_replaced(cluster, host, service, &hung))
}

/// The watchdog ends a hung fleetd before its machine's lease does.
fn a_leader_and_an_agent_hang(cluster: &Cluster) -> Result<()> {
    let leader = cluster.leader()?;
    let other = HOSTS.into_iter().find(|host| *host != leader).context("another host")?;
    let mut before = Vec::new();
    for host in [leader.as_str(), other] {
        before.push((host, pid(cluster, host, "fleetd")?));
        cluster.lab.sh(host, "systemctl kill --kill-whom=main -s STOP fleetd")?;
    }
    before.into_iter().try_for_each(|(host, hung)| is_replaced(cluster, host, "fleetd", &hung))
}

fn is_replaced(cluster: &Cluster, host: &str, service: &str, hung: &str) -> Result<()> {
    wait_for("systemd to replace what hangs", PATIENCE, || {
        let now = pid(cluster, host, service)?;
        ensure!(now != hung && now != "0", "{service} in {host} still has pid {now}");
        Ok(())
    })
}

fn pid(cluster: &Cluster, host: &str, service: &str) -> Result<String> {
    cluster.lab.sh(host, &format!("systemctl show --property=MainPID --value {service}"))
}

/// Nobody waits for a real etcd to fill up: the alarm is what counts, and any member may raise it.
fn etcd_is_full(cluster: &Cluster) -> Result<()> {
    let status: Value = serde_json::from_str(
        &cluster.lab.sh("h1", "ETCDCTL_API=3 etcdctl endpoint status -w json")?,
    )?;
    let member = status[0]["Status"]["header"]["member_id"].as_u64().context("the member's id")?;
    let raise =
        format!("{{\"action\":\"ACTIVATE\",\"memberID\":\"{member}\",\"alarm\":\"NOSPACE\"}}");
    cluster.lab.sh(
        "h1",
        &format!("curl -sS --fail -d '{raise}' http://127.0.0.1:2379/v3/maintenance/alarm"),
    )?;
    let said = cluster.fleetctl("h1", &["scale", "--no-block", "web=1"])?;
    ensure!(said.code == 1 && said.err.contains("NOSPACE"), "{said:?}");
    std::thread::sleep(LONG);
    cluster.lab.sh("h1", "ETCDCTL_API=3 etcdctl alarm disarm").map(drop)
}

fn two_members_are_away(cluster: &Cluster) -> Result<()> {
    for host in ["h1", "h2"] {
        cluster.lab.sh(host, "systemctl stop etcd")?;
    }
    std::thread::sleep(outage()?);
    for host in ["h1", "h2"] {
        cluster.lab.sh(host, "systemctl start etcd")?;
    }
    Ok(())
}

/// How long the store is away: `FLEET_TEST_OUTAGE_S`, by default longer than all leases.
fn outage() -> Result<Duration> {
    match std::env::var("FLEET_TEST_OUTAGE_S") {
        Ok(seconds) => {
            Ok(Duration::from_secs(seconds.parse().context("FLEET_TEST_OUTAGE_S, in seconds")?))
        }
        Err(_) => Ok(LONG),
    }
}

/// Has fleetd, the keeper and the guard on each host go by a wall clock of its own.
fn settable_clocks(cluster: &Cluster) -> Result<()> {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    for host in HOSTS {
        let library = cluster.lab.hand(host, "libfaketime.so.1", library.as_ref())?;
        for service in ["fleetd", "fleet-keeper", "fleet-guard"] {
            cluster.write(
                host,
                &format!("/run/systemd/system/{service}.service.d/clock.conf"),
                &format!(
                    "[Service]\nEnvironment=LD_PRELOAD={library} FAKETIME_DONT_FAKE_MONOTONIC=1\n\
                     Environment=FAKETIME_TIMESTAMP_FILE=/etc/faketime FAKETIME_NO_CACHE=1\n"
                ),
            )?;
        }
        cluster.write(host, "/etc/faketime", "+0s\n")?;
        cluster.lab.sh(host, "systemctl daemon-reload && systemctl restart fleetd")?;
    }
    cluster.wait_until_ready()
}

fn the_clock_jumps(cluster: &Cluster, by: &str) -> Result<()> {
    // One after the other, so that for a while they differ by an hour.
    for host in HOSTS {
        cluster.write(host, "/etc/faketime", &format!("{by}\n"))?;
        std::thread::sleep(Duration::from_secs(4));
    }
    std::thread::sleep(LONG);
    Ok(())
}

/// After all that fleet still does what it is told.
fn goes_on(trial: &Trial) -> Result<()> {
    trial.cluster.wait_until_ready()?;
    trial.cluster.ctl(&["scale", &format!("web={}", COUNT + 1)])?;
    trial.cluster.ctl(&["scale", &format!("web={COUNT}")])?;
    trial.wait_for_count(PATIENCE).map(drop)
}
