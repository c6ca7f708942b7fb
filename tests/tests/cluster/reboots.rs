//! Reboots by FleetLock, as Zincati asks for them: a real host is drained, reboots, and takes units
//! again.

use anyhow::{Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, replicas, scenario};
use fleet_tests::lab::wait_for;

use crate::{SLEEPER, lab};

/// Zincati's application id, see sd_id128_get_machine_app_specific(3).
const ZINCATI: &str = "de35106b6ec24688b63afddaa156679b";

#[test]
fn a_host_reboots_by_fleetlock_once_it_is_drained_and_then_takes_units_again() -> Result<()> {
    scenario(&lab("reboots", 3), |cluster| {
        cluster.submit("web@.service", SLEEPER)?;
        cluster.ctl(&["scale", "web=3"])?;
        cluster.start("log.service", &format!("{SLEEPER}\n[X-Fleet]\nGlobal=true\n"))?;
        let names = replicas("web", 3);
        cluster.wait_for_exactly(&["web@*.service"], &names, PATIENCE)?;
        // Neither the leader nor the first host, which is asked about the others.
        let leader = cluster.leader()?;
        let host = if leader == "h3" { "h2" } else { "h3" };
        let mut others = cluster.running(&["web@*.service", "log.service"])?;
        others.retain(|(_, on), _| on != host);

        wait_for("leave to reboot", PATIENCE, || {
            let said = ask(cluster, host, "pre-reboot")?;
            ensure!(said.ends_with("200"), "{said}");
            Ok(())
        })?;
        let left = cluster.running_on(host, &["web@*.service"])?;
        ensure!(left.is_empty(), "{left:?} on a machine that may reboot");
        cluster.wait_for_exactly(&["web@*.service"], &names, PATIENCE)?;
        let other = if host == "h3" { "h2" } else { "h3" };
        let said = ask(cluster, other, "pre-reboot")?;
        let full = said.contains("failed_lock_semaphore_full") && said.ends_with("409");
        ensure!(full, "{said}");

        cluster.lab.sh(host, "systemctl --no-block poweroff")?;
        wait_for("the host to be down", PATIENCE, || {
            let down = |name: &str| !cluster.hosts().iter().any(|up| up == name);
            ensure!(down(host), "{host} is up");
            Ok(())
        })?;
        wait_for("the lock of a machine that is away to be shown", PATIENCE, || {
            let shown = cluster.ctl(&["reboots", "--no-legend"])?;
            ensure!(shown.contains("away"), "{shown}");
            Ok(())
        })?;
        wait_for("the leader to count it", PATIENCE, || {
            let curl = "curl -s --unix-socket /run/fleet.sock http://localhost/metrics";
            let counted = cluster.lab.sh(&cluster.leader()?, curl)?;
            let line = "fleet_engine_reboot_locks{state=\"away\"} 1";
            ensure!(counted.lines().any(|said| said == line), "{counted}");
            Ok(())
        })?;
        cluster.lab.boot(host)?;
        wait_for("the machine to be steady", PATIENCE, || {
            let said = ask(cluster, host, "steady-state")?;
            ensure!(said.ends_with("200"), "{said}");
            Ok(())
        })?;
        let shown = cluster.ctl(&["reboots", "--no-legend"])?;
        ensure!(shown.is_empty(), "{shown}");
        let machines = cluster.ctl(&["list-machines", "--fields=availability", "--no-legend"])?;
        ensure!(machines == "active\nactive\nactive\n", "{machines}");
        cluster.wait_for_exactly(&["web@*.service"], &names, PATIENCE)?;
        let now = cluster.running(&["web@*.service", "log.service"])?;
        let kept = others.iter().all(|(unit, pid)| now.get(unit) == Some(pid));
        ensure!(kept, "{others:?} ran elsewhere before, and now {now:?}");
        cluster.ctl(&["scale", "web=4"])?;
        let took = cluster.running_on(host, &["web@*.service"])?;
        ensure!(took.contains_key("web@4.service"), "{took:?} on {host}, which has the fewest");
        Ok(())
    })
}

/// What fleetd on the host answers, and the status, to a request as Zincati there sends it.
fn ask(cluster: &Cluster, host: &str, what: &str) -> Result<String> {
    let ask = format!(
        "id=$(systemd-id128 machine-id --app-specific={ZINCATI}) && \
         curl -s --max-time 20 --unix-socket /run/fleet.sock -w '%{{http_code}}' \
            -H 'fleet-lock-protocol: true' \
            -d '{{\"client_params\":{{\"id\":\"'$id'\",\"group\":\"default\"}}}}' \
            http://localhost/v1/{what}"
    );
    cluster.lab.sh(host, &ask)
}
