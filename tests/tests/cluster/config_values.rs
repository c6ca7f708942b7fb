//! Values that operators change, under real systemd and podman: who gets them, when, and whether
//! they arrive to the byte.

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Running, replicas, scenario};
use fleet_tests::lab::wait_for;

use crate::lab;

/// What people write. The wait before each start makes two that are down at once overlap for sure.
const WEB: &str = "[Service]\nType=simple\nExecStartPre=/bin/sleep 0.5\n\
    ExecStart=/bin/sh -c 'echo log=$LOG of revision $FLEET_CONFIG_REVISION; exec sleep infinity'\n\
    Restart=always\nRestartSec=1\n[X-Fleet]\nConfig=shop\nMaxUnavailable=1\nMinHealthy=1\n";

/// Says the value that its file has each time it is reloaded.
const RELOADS: &str = "[Service]\nType=simple\nExecStart=/bin/sh -c 'say() { echo read $$(cat \
    /run/fleet/config/%N/LOG); }; trap say HUP; while :; do sleep infinity & wait $$!; done'\n\
    ExecReload=/bin/kill -HUP $MAINPID\nRestart=always\nKillMode=mixed\n\
    [X-Fleet]\nConfig=hot\nConfigChanged=reload\n";

/// Refuses to read its values again, after a while.
const BAD: &str = "[Service]\nExecStart=/bin/sleep infinity\nRestart=always\n\
    ExecReload=/bin/sh -c 'sleep 1; exit 1'\n[X-Fleet]\nConfig=bad\nConfigChanged=reload\n";

/// Runs only with the right value; fleet starts it again, after ever longer pauses.
const SICK: &str = "[Service]\nExecStart=/bin/sh -c '[ $EXIT = 0 ] || exit 1; exec sleep infinity'\n\
    [X-Fleet]\nConfig=sick\n";

/// A container that runs what its environment says.
const CONTAINER: &str = "[Container]\nImage=localhost/busybox:latest\nNetwork=none\nStopTimeout=1\n\
    Volume=/run/fleet/config/%N:/config:ro\nExec=httpd -f -p 80\n[Service]\nRestart=always\n\
    [X-Fleet]\nConfig=odd\n";

/// The same values for a plain service.
const PLAIN: &str = "[Service]\nExecStart=/bin/sleep infinity\nRestart=always\n\
    [X-Fleet]\nConfig=odd\n";

const INSTANCES: u32 = 4;

/// What files and shells, systemd and podman take for something of their own.
const ODD: &str =
    "  two  words \"quoted\" 'single' $HOME ${LOG} $$ %n %% # no comment \\ \\n `id` ; ";

const LINES: &str = "-----BEGIN-----\n a=\"b\" $HOME %i\n\n# third\\\n-----END-----\n";

#[test]
fn values_arrive_as_they_are_and_changes_roll_reload_and_come_back() -> Result<()> {
    scenario(&lab("values", 2), |cluster| {
        what_has_no_configuration_waits_until_there_is_one(cluster)?;
        a_change_reaches_all_and_takes_down_one_at_a_time(cluster)?;
        a_reload_keeps_the_process_and_brings_the_files(cluster)?;
        a_reload_that_fails_is_an_error(cluster)?;
        values_that_work_bring_back_what_failed_without_a_pause(cluster)?;
        a_rollback_and_a_restart_of_fleetd(cluster)?;
        odd_values_arrive_to_the_byte(cluster)
    })
}

fn what_has_no_configuration_waits_until_there_is_one(cluster: &Cluster) -> Result<()> {
    let path = cluster.write_unit("web@.service", WEB)?;
    cluster.ctl(&["submit", &path])?;
    cluster.ctl(&["scale", "--no-block", &format!("web={INSTANCES}")])?;
    wait_for("all to say what they wait for", PATIENCE, || {
        let states = cluster.states()?;
        let said = |message: &Option<String>| {
            message.as_ref().is_some_and(|it| it.contains("there is no configuration shop"))
        };
        let waiting = states.iter().filter(|state| said(&state.message)).count();
        ensure!(waiting == INSTANCES as usize, "{states:?}");
        Ok(())
    })?;
    ensure!(cluster.running(&["web@*.service"])?.is_empty(), "one runs without its values");
    cluster.ctl(&["config", "set", "shop", "LOG=info"])?;
    all_have(cluster, "info", 1).map(drop)
}

fn a_change_reaches_all_and_takes_down_one_at_a_time(cluster: &Cluster) -> Result<()> {
    let before = all_have(cluster, "info", 1)?;
    cluster.ctl(&["config", "set", "shop", "LOG=debug"])?;
    // It has waited until all have it.
    let after = all_have(cluster, "debug", 2)?;
    ensure!(after.iter().all(|(at, pid)| before.get(at) != Some(pid)), "{before:?}, {after:?}");
    let mut down = Vec::new();
    for (unit, host) in after.keys() {
        let said = cluster.lab.sh(host, &format!("journalctl --output=cat --unit={unit}"))?;
        ensure!(
            said.contains("log=info of revision 1") && said.contains("log=debug of revision 2"),
            "{unit}: {said}"
        );
        let time = |property: &str| -> Result<u64> {
            let show = format!("systemctl show --value --property={property} {unit}");
            Ok(cluster.lab.sh(host, &show)?.parse()?)
        };
        // One clock for all hosts of a lab.
        let times = (time("ActiveExitTimestampMonotonic")?, time("ActiveEnterTimestampMonotonic")?);
        ensure!(0 < times.0 && times.0 < times.1, "{unit} was not restarted: {times:?}");
        down.push(times);
    }
    down.sort_unstable();
    let apart = |pair: &[(u64, u64)]| pair[0].1 <= pair[1].0;
    ensure!(down.windows(2).all(apart), "two were down at once: {down:?}");
    Ok(())
}

fn a_reload_keeps_the_process_and_brings_the_files(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["config", "set", "hot", "LOG=info"])?;
    cluster.start("hup.service", RELOADS)?;
    let before = cluster.running(&["hup.service"])?;
    let host = before.keys().next().context("it does not run")?.1.clone();
    cluster.ctl(&["config", "set", "hot", "LOG=trace"])?;
    let file = cluster.lab.sh(&host, "cat /run/fleet/config/hup/LOG")?;
    ensure!(file == "trace", "{file:?}");
    wait_for("the program to have read it", PATIENCE, || {
        let said = cluster.lab.sh(&host, "journalctl --output=cat --unit=hup.service")?;
        ensure!(said.contains("read trace"), "{said}");
        Ok(())
    })?;
    let after = cluster.running(&["hup.service"])?;
    ensure!(before == after, "{before:?}, then {after:?}");
    Ok(())
}

fn a_reload_that_fails_is_an_error(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["config", "set", "bad", "LOG=info"])?;
    cluster.start("bad.service", BAD)?;
    let before = cluster.running(&["bad.service"])?;
    for word in ["debug", "trace"] {
        let said = cluster.fleetctl("h1", &["config", "set", "bad", &format!("LOG={word}")])?;
        ensure!(
            said.code == 1 && said.err.contains("its reload failed (failed)"),
            "{word}: {said:?}"
        );
    }
    let after = cluster.running(&["bad.service"])?;
    ensure!(before == after, "{before:?}, then {after:?}");
    Ok(())
}

fn values_that_work_bring_back_what_failed_without_a_pause(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["config", "set", "sick", "EXIT=1"])?;
    let path = cluster.write_unit("sick.service", SICK)?;
    cluster.ctl(&["start", "--no-block", &path])?;
    wait_for("a pause that is longer than a moment", PATIENCE, || {
        let states = cluster.states()?;
        let sick = states.iter().find(|state| state.name == "sick.service");
        ensure!(sick.is_some_and(|it| it.restarts >= Some(3)), "{sick:?}");
        Ok(())
    })?;
    cluster.ctl(&["config", "set", "sick", "EXIT=0"]).map(drop)
}

fn a_rollback_and_a_restart_of_fleetd(cluster: &Cluster) -> Result<()> {
    let said = cluster.fleetctl("h1", &["config", "rollback", "shop", "--to=1"])?;
    ensure!(said.code == 0 && said.err.contains("has revision 3"), "{said:?}");
    let before = all_have(cluster, "info", 3)?;
    for host in cluster.hosts() {
        cluster.lab.sh(&host, "systemctl kill --signal=KILL --kill-whom=main fleetd")?;
    }
    wait_for("every fleetd to be back", PATIENCE, || cluster.wait_until_ready())?;
    ensure!(all_have(cluster, "info", 3)? == before, "one was restarted");
    // What systemd starts again by itself finds the same values.
    let ((unit, host), pid) = before.iter().next().context("nothing runs")?;
    cluster.lab.sh(host, &format!("kill -9 {pid}"))?;
    wait_for("it to be back", PATIENCE, || {
        let now = cluster.running(&[unit])?;
        ensure!(now.values().all(|now| now != pid && *now > 0), "{now:?}");
        all_have(cluster, "info", 3).map(drop)
    })
}

fn odd_values_arrive_to_the_byte(cluster: &Cluster) -> Result<()> {
    cluster.write("h1", "/root/lines", LINES)?;
    cluster.ctl(&["config", "set", "odd", &format!("ODD={ODD}"), "LINES@/root/lines", "a.b=x"])?;
    ensure!(cluster.ctl(&["config", "get", "odd", "LINES"])? == LINES, "another value");
    cluster.start("plain.service", PLAIN)?;
    cluster.start("box.container", CONTAINER)?;
    for unit in ["plain", "box"] {
        let running = cluster.running(&[&format!("{unit}.service")])?;
        let ((_, host), pid) = running.iter().next().context("it does not run")?;
        let (environment, folder) = match unit {
            "plain" => (format!("cat /proc/{pid}/environ"), format!("cd /run/fleet/config/{unit}")),
            _ => (
                format!("podman exec systemd-{unit} cat /proc/1/environ"),
                format!("podman exec -w /config systemd-{unit}"),
            ),
        };
        let environment = cluster.lab.sh(host, &environment)?;
        let value = |key: &str| {
            environment.split('\0').find_map(|it| it.strip_prefix(key)?.strip_prefix('='))
        };
        ensure!(value("ODD") == Some(ODD), "{unit} has {environment:?}");
        ensure!(value("LINES") == Some(LINES), "{unit} has {environment:?}");
        ensure!(value("FLEET_CONFIG_REVISION") == Some("1"), "{unit}: {environment:?}");
        for (key, wanted) in [("ODD", ODD), ("LINES", LINES), ("a.b", "x")] {
            let join = if unit == "plain" { " &&" } else { "" };
            // The end keeps what the lab would trim.
            let file = cluster.lab.sh(host, &format!("{folder}{join} cat {key}; echo ."))?;
            ensure!(file.strip_suffix('.') == Some(wanted), "{unit}: {key} is {file:?}");
        }
    }
    cluster.clean()?;
    for host in cluster.hosts() {
        wait_for("the values to be gone", PATIENCE, || {
            let left = cluster.lab.sh(&host, "ls -A /run/fleet/config")?;
            ensure!(left.is_empty(), "{host} has {left:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// All instances of `web@`, each with this value of `LOG` and revision in its environment.
fn all_have(cluster: &Cluster, log: &str, revision: u64) -> Result<Running> {
    let names = replicas("web", INSTANCES);
    let running = cluster.wait_for_exactly(&["web@*.service"], &names, PATIENCE)?;
    for ((unit, host), pid) in &running {
        let environment = cluster.lab.sh(host, &format!("cat /proc/{pid}/environ"))?;
        let wanted = [format!("LOG={log}"), format!("FLEET_CONFIG_REVISION={revision}")];
        let has = |wanted: &String| environment.split('\0').any(|it| it == wanted);
        ensure!(wanted.iter().all(has), "{unit} on {host} has {environment:?}");
    }
    Ok(running)
}
