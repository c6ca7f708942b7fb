//! Fenced units on real hosts: whatever is broken, at most one copy lives, and it comes back. The
//! judge is their own record.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet_core::fence::wait_ms;
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::wait_for;
use fleet_tests::record::{self, Life, SILENCE};
use serde_json::Value;

use crate::{AGENT_LEASE, LEADER_LEASE, NOISE, lab};

/// On h2 or h3: h1 has the store.
const SECTIONS: &str = "[X-Fleet]\nFence=yes\nMachineMetadata=host=h2\nMachineMetadata=host=h3\n";

/// `WatchdogSec=` of the guard's unit, which is also how long the keeper's lease lasts.
const WATCHDOG: Duration = Duration::from_secs(8);

/// From the loss of a machine until its fenced unit, which stops at once, lives elsewhere: the
/// keeper's lease, the wait for one that takes the five seconds of its `TimeoutStopSec=`, and what
/// planning and starting take.
fn restored() -> Duration {
    WATCHDOG
        + Duration::from_millis(wait_ms(WATCHDOG.as_millis() as u64, 5_000))
        + LEADER_LEASE
        + 2 * NOISE
}

/// How long systemd may take to end what is bound to a guard that hangs, or whose keeper is cut
/// off.
const ENDED: Duration = Duration::from_secs(WATCHDOG.as_secs() + 2 + 2 * NOISE.as_secs());

#[test]
fn a_guard_that_dies_or_hangs_takes_its_units_along_and_neither_fleetd_nor_the_keeper_does()
-> Result<()> {
    scenario(&lab("keeper", 3), |cluster| {
        let first = begin(cluster, "")?;
        let host = first.host.as_str();
        ensure!(first.token.is_some(), "{first:?}");
        status_names_the_holder(cluster, &first)?;

        // What happens to fleetd is no matter.
        cluster.lab.sh(host, "systemctl kill --signal=KILL fleetd")?;
        lives_on(cluster, &first, AGENT_LEASE)?;
        cluster.wait_until_ready()?;
        cluster.lab.sh(host, "systemctl kill --signal=STOP fleetd")?;
        lives_on(cluster, &first, AGENT_LEASE + WATCHDOG)?;
        cluster.wait_until_ready()?;

        // Nor what happens to the keeper: the next one goes on with its lease.
        let upgrade = "cp /usr/bin/fleet-keeper /usr/bin/next && mv /usr/bin/next \
            /usr/bin/fleet-keeper && systemctl restart fleet-keeper";
        for fate in [
            upgrade,
            "systemctl kill --signal=KILL fleet-keeper",
            "systemctl kill --signal=STOP fleet-keeper",
        ] {
            let pid =
                || cluster.lab.sh(host, "systemctl show --property=MainPID --value fleet-keeper");
            let before = pid()?;
            cluster.lab.sh(host, fate)?;
            lives_on(cluster, &first, 2 * WATCHDOG).context(fate)?;
            let after = pid()?;
            ensure!(after != before && after.trim() != "0", "{fate}: the keeper's pid is {after}");
        }

        // systemd does not restart the guard by hand, and ends the unit at once when it is gone. It
        // comes back here, under the keeper's next life.
        let refused = cluster.lab.exec(host, &["systemctl", "restart", "fleet-guard"])?;
        ensure!(
            !refused.status.success()
                && String::from_utf8_lossy(&refused.stderr).contains("refused"),
            "{refused:?}"
        );
        cluster.lab.sh(host, "systemctl kill --signal=KILL fleet-guard")?;
        ends(cluster, &first, Duration::from_secs(1) + NOISE)?;
        let second = lives(cluster, "lone.service", PATIENCE)?;
        ensure!(second.host == host, "{first:?} became {second:?}");

        cluster.lab.sh(host, "systemctl kill --signal=STOP fleet-guard")?;
        ends(cluster, &second, ENDED)?;
        let third = lives(cluster, "lone.service", PATIENCE)?;

        // A stop of the keeper is the end of all that is fenced here, until fleetd wants it again.
        cluster.lab.sh(&third.host, "systemctl stop fleet-keeper")?;
        ends(cluster, &third, NOISE)?;
        lives(cluster, "lone.service", PATIENCE)?;
        judge(cluster)
    })
}

#[test]
fn a_machine_that_is_cut_off_or_lost_has_ended_its_copy_before_another_begins() -> Result<()> {
    scenario(&lab("fence-lost", 3), |cluster| {
        // Deaf to its stop signal, so that systemd must kill it: the latest end that there is.
        let first = begin(cluster, "KillSignal=SIGCONT\n")?;
        cluster.lab.cut(&first.host)?;
        let cut = Instant::now();
        ends(cluster, &first, ENDED + Duration::from_secs(5))?; // the recorder's TimeoutStopSec=
        status_names_who_is_waited_for(cluster, &first)?;
        let second = lives(cluster, "lone.service", restored())?;
        eprintln!(
            "cut off: the fenced unit lived elsewhere after {:.1} s",
            cut.elapsed().as_secs_f64()
        );
        ensure!(
            second.host != first.host && second.token > first.token,
            "{first:?} became {second:?}"
        );
        cluster.lab.heal(&first.host)?;
        cluster.wait_until_ready()?;
        lives_on(cluster, &second, AGENT_LEASE)?;
        judge(cluster)?;

        cluster.lab.kill(&second.host)?;
        let lost = Instant::now();
        let third = lives(cluster, "lone.service", restored())?;
        eprintln!(
            "power loss: the fenced unit lived elsewhere after {:.1} s",
            lost.elapsed().as_secs_f64()
        );
        ensure!(
            third.host == first.host && third.token > second.token,
            "{second:?} became {third:?}"
        );
        cluster.lab.boot(&second.host)?;
        cluster.wait_until_ready()?;
        lives_on(cluster, &third, AGENT_LEASE)?;
        judge(cluster)
    })
}

#[test]
fn a_fenced_unit_leaves_a_living_machine_for_another_one_after_the_other() -> Result<()> {
    scenario(&lab("fence-move", 3), |cluster| {
        // It takes its time to stop, so that the next one would be seen beside it.
        let first = begin(cluster, "ExecStop=/bin/sleep 2\n")?;
        let other = if first.host == "h2" { "h3" } else { "h2" };
        let sections = format!("[X-Fleet]\nFence=yes\nMachineMetadata=host={other}\n");
        cluster.start("lone.service", &record::recorder("ExecStop=/bin/sleep 2\n", &sections))?;
        let second = lives(cluster, "lone.service", PATIENCE)?;
        ensure!(second.host == other && second.token > first.token, "{first:?} became {second:?}");

        // A leave says when all is stopped, so nobody waits for a lease.
        cluster.start("lone.service", &record::recorder("ExecStop=/bin/sleep 2\n", SECTIONS))?;
        let third = lives(cluster, "lone.service", PATIENCE)?;
        cluster.lab.sh(&third.host, "systemctl stop fleetd.socket fleetd")?;
        let left = Instant::now();
        let fourth = lives(cluster, "lone.service", PATIENCE)?;
        ensure!(fourth.host != third.host, "{third:?} became {fourth:?}");
        ensure!(left.elapsed() < WATCHDOG, "it took {:?}", left.elapsed());
        judge(cluster)
    })
}

#[test]
fn a_machine_that_boots_without_the_store_starts_what_is_not_fenced_and_nothing_else() -> Result<()>
{
    scenario(&lab("fence-boot", 3), |cluster| {
        let fenced = begin(cluster, "")?;
        let sections = format!("[X-Fleet]\nMachineMetadata=host={}\n", fenced.host);
        cluster.start("free.service", &record::recorder("", &sections))?;
        let free = lives(cluster, "free.service", PATIENCE)?;
        cluster.lab.sh("h1", "systemctl stop etcd")?;
        cluster.lab.kill(&fenced.host)?;
        cluster.lab.boot(&fenced.host)?;
        let again = wait_for("free.service to start without a store", PATIENCE, || {
            let life = lives(cluster, "free.service", PATIENCE)?;
            ensure!(life.from > free.from, "{life:?}");
            Ok(life)
        })?;
        ensure!(again.host == free.host, "{free:?} became {again:?}");
        let alive = alive(cluster)?;
        ensure!(alive.iter().all(|life| life.unit != "lone.service"), "{alive:?}");
        cluster.lab.sh("h1", "systemctl start etcd")?;
        lives(cluster, "lone.service", PATIENCE)?;
        lives_on(cluster, &again, AGENT_LEASE)?;
        judge(cluster)
    })
}

/// Whichever machine is asked, `status` says by whose lease the unit lives, and until when.
fn status_names_the_holder(cluster: &Cluster, life: &Life) -> Result<()> {
    let id = cluster.lab.machine_id(&life.host)?;
    let line = format!(
        "    Fencing: token {}; machine {} holds its lease until ",
        life.token.context("a token")?,
        &id[..8]
    );
    for host in cluster.hosts() {
        let said = cluster.fleetctl(&host, &["status", "lone.service"])?;
        ensure!(
            said.code == 0 && said.out.contains(&line) && said.out.contains(" s), and renews it\n"),
            "{said:?}"
        );
    }
    let all: Value = serde_json::from_str(&cluster.ctl(&["status", "--json", "lone.service"])?)?;
    let fencing = &all[0]["fencing"];
    let left_ms = fencing["lease"]["leftMs"].as_u64().context("how long it holds")?;
    ensure!(
        fencing["machineID"] == id && left_ms <= WATCHDOG.as_millis() as u64 && left_ms > 0,
        "{all}"
    );
    Ok(())
}

/// While the leader waits, `status` says for whom and until when.
fn status_names_who_is_waited_for(cluster: &Cluster, life: &Life) -> Result<()> {
    let id = cluster.lab.machine_id(&life.host)?;
    let waits = format!(
        "fenced: waits until its copy on the lost machine {} has surely ended, about 20",
        &id[..8]
    );
    wait_for("the wait in the status", AGENT_LEASE + LEADER_LEASE + NOISE, || {
        let said = cluster.fleetctl("h1", &["status", "lone.service"])?;
        ensure!(said.code == 1 && said.err.contains(&waits), "{said:?}");
        Ok(())
    })?;
    let all: Value = serde_json::from_str(&cluster.ctl(&["status", "--json", "lone.service"])?)?;
    let wait = &all[0]["fencing"]["waits"];
    ensure!(
        wait["machineID"] == id && wait["leftMs"].as_u64().is_some_and(|left| left <= 25_000),
        "{all}"
    );
    Ok(())
}

/// Starts the fenced unit and answers with its first life.
fn begin(cluster: &Cluster, lines: &str) -> Result<Life> {
    cluster.start("lone.service", &record::recorder(lines, SECTIONS))?;
    lives(cluster, "lone.service", PATIENCE)
}

/// Waits until one copy of the unit lives.
fn lives(cluster: &Cluster, unit: &str, limit: Duration) -> Result<Life> {
    wait_for(&format!("one life of {unit}"), limit, || {
        let mut alive = alive(cluster)?;
        alive.retain(|life| life.unit == unit);
        ensure!(alive.len() == 1, "{alive:?}");
        alive.pop().context("one")
    })
}

/// Waits until the life has ended.
fn ends(cluster: &Cluster, life: &Life, limit: Duration) -> Result<()> {
    wait_for("the end of its life", limit, || {
        let now = record::lives(&cluster.lab)?
            .into_iter()
            .find(|other| same(other, life))
            .context("it is recorded")?;
        ensure!(now.stopped || now.until < record::now()? - SILENCE, "{now:?}");
        Ok(())
    })
}

/// Watches that the life goes on for `time`.
fn lives_on(cluster: &Cluster, life: &Life, time: Duration) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < time {
        let alive = alive(cluster)?;
        ensure!(alive.iter().any(|other| same(other, life)), "{life:?} ended: {alive:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

fn same(one: &Life, other: &Life) -> bool {
    (&one.unit, &one.host, one.pid, one.from) == (&other.unit, &other.host, other.pid, other.from)
}

/// The lives that were heard of lately, on hosts that have power.
fn alive(cluster: &Cluster) -> Result<Vec<Life>> {
    let (mut lives, now, hosts) = (record::lives(&cluster.lab)?, record::now()?, cluster.hosts());
    lives.retain(|life| !life.stopped && life.until > now - SILENCE && hosts.contains(&life.host));
    Ok(lives)
}

/// In all that was recorded no two copies lived at once, and no later life has a lower token.
fn judge(cluster: &Cluster) -> Result<()> {
    let lives = record::lives(&cluster.lab)?;
    ensure!(record::overlaps(&lives).is_empty(), "{:?}", record::overlaps(&lives));
    let fenced: Vec<&Life> = lives.iter().filter(|life| life.unit == "lone.service").collect();
    ensure!(fenced.windows(2).all(|pair| pair[0].token <= pair[1].token), "{fenced:?}");
    eprintln!("{} lives of the fenced unit, none beside another", fenced.len());
    Ok(())
}
