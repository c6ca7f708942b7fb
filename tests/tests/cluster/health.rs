//! Health checks of real services and containers: what answers badly is restarted, a text that
//! does is undone, and a check that hangs or prints without end costs nobody anything.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet_core::health::Health;
use fleet_core::wire::UnitState;
use fleet_tests::cluster::{Cluster, PATIENCE, replicas, scenario};
use fleet_tests::lab::wait_for;

use crate::lab;

/// A web server that answers with a status, and with 500 while a file is there.
const SERVER: &str = r#"use IO::Socket::INET;
my ($port, $status, $sick) = @ARGV;
my $server = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 64, ReuseAddr => 1) or die $!;
while (my $client = $server->accept) {
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/ }
    my $code = -e $sick ? 500 : $status;
    print $client "HTTP/1.1 $code X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    close $client;
}
"#;

const WEB: &str = "[Service]\nType=simple\nRestart=always\n\
    ExecStart=/usr/bin/perl /root/server.pl 808%i 200 /run/sick-%i\n\
    [X-Fleet]\nHealthCheck=http://:808%i/healthz\nHealthInterval=1\nHealthRetries=2\n\
    HealthStartPeriod=2\nMinHealthy=1\nHealthyDeadline=8\n";

/// Only the unit itself sees its `/tmp`, and only its user owns it.
const INSIDE: &str = "[Service]\nPrivateTmp=yes\nUser=nobody\n\
    ExecStart=/bin/sh -c 'touch /tmp/mine; exec sleep infinity'\n\
    [X-Fleet]\nHealthCheck=exec:/bin/sh -c '[ -O /tmp/mine ]'\nHealthInterval=1\n";

const HANGS: &str = "[Service]\nExecStart=/bin/sleep infinity\n[X-Fleet]\n\
    HealthCheck=exec:/bin/sh -c 'trap \"\" TERM; yes; sleep infinity'\nHealthTimeout=500ms\n\
    HealthInterval=1\nHealthRetries=2\nHealthStartPeriod=0\n";

const BOX: &str = "[Container]\nImage=localhost/busybox:latest\nNetwork=none\nStopTimeout=1\n\
    Exec=sh -c 'touch /mine; exec sleep 86400'\n[Service]\nRestart=always\n\
    [X-Fleet]\nHealthCheck=exec:/bin/sh -c 'test -e /mine -a ! -e /root/units'\nHealthInterval=1\n";

#[test]
fn what_answers_badly_is_restarted_and_a_text_that_does_is_undone() -> Result<()> {
    scenario(&lab("health", 2), |cluster| {
        for host in cluster.hosts() {
            cluster.write(&host, "/root/server.pl", SERVER)?;
        }
        cluster.submit("web@.service", WEB)?;
        cluster.ctl(&["scale", "web=4"])?;
        all_are_healthy(cluster)?;
        a_text_that_answers_500_is_undone_by_itself(cluster)?;
        what_falls_sick_is_restarted(cluster)?;
        a_restart_of_fleetd_forgets_nothing(cluster)?;
        commands_run_inside_units(cluster)?;
        a_check_that_hangs_and_prints_is_killed(cluster)
    })
}

fn health(cluster: &Cluster, name: &str) -> Result<(UnitState, Health)> {
    let states = cluster.states()?;
    let state = states.into_iter().find(|state| state.name == name);
    let state = state.with_context(|| format!("{name} has no state"))?;
    let health = state.health.clone().with_context(|| format!("no health: {state:?}"))?;
    Ok((state, health))
}

fn is_healthy(cluster: &Cluster, name: &str) -> Result<()> {
    wait_for(&format!("{name} to be healthy"), PATIENCE, || {
        let (state, health) = health(cluster, name)?;
        ensure!(health == Health::Healthy, "{state:?}");
        Ok(())
    })
}

fn all_are_healthy(cluster: &Cluster) -> Result<()> {
    replicas("web", 4).iter().try_for_each(|name| is_healthy(cluster, name))
}

fn a_text_that_answers_500_is_undone_by_itself(cluster: &Cluster) -> Result<()> {
    // The first text is one to go back to once all have stayed healthy with it.
    cluster.ctl(&["rollout", "status", "web@"])?;
    let before = cluster.running(&["web@*.service"])?;
    let bad = WEB.replace("808%i 200 ", "808%i 500 ");
    cluster.write_unit("web@.service", &bad)?;
    let said = cluster.fleetctl("h1", &["start", "--replace", "/root/units/web@.service"])?;
    ensure!(said.code == 1 && said.err.contains("was undone"), "{said:?}");
    ensure!(said.err.contains("was not healthy within 8 s"), "{said:?}");
    all_are_healthy(cluster)?;
    let now = cluster.running(&["web@*.service"])?;
    let same = before.iter().filter(|(place, pid)| now.get(*place) == Some(*pid)).count();
    ensure!(same == 3, "one tried it, the others never noticed: {before:?}, then {now:?}");
    Ok(())
}

fn what_falls_sick_is_restarted(cluster: &Cluster) -> Result<()> {
    let running = cluster.running(&["web@2.service"])?;
    let ((_, host), pid) = running.into_iter().next().context("web@2.service runs nowhere")?;
    cluster.lab.sh(&host, "touch /run/sick-2")?;
    wait_for("web@2.service to be restarted for its health", PATIENCE, || {
        let (state, _) = health(cluster, "web@2.service")?;
        ensure!(state.result == "unhealthy" && state.restarts.is_some(), "{state:?}");
        ensure!(state.message.as_deref() == Some("health check: 500"), "{state:?}");
        Ok(())
    })?;
    let listed = cluster.ctl(&["list-units", "--fields=unit,health,result"])?;
    ensure!(listed.contains("unhealthy"), "{listed}");
    cluster.lab.sh(&host, "rm /run/sick-2")?;
    is_healthy(cluster, "web@2.service")?;
    let now = cluster.running(&["web@2.service"])?;
    ensure!(now.values().all(|now| *now != pid), "{now:?}");
    let status = cluster.ctl(&["status", "web@2.service"])?;
    ensure!(status.contains("Health: healthy"), "{status}");
    Ok(())
}

fn a_restart_of_fleetd_forgets_nothing(cluster: &Cluster) -> Result<()> {
    let before = cluster.running(&["web@*.service"])?;
    for host in cluster.hosts() {
        cluster.lab.sh(&host, "systemctl restart fleetd.service")?;
    }
    let (begin, mut looks) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(4) {
        let Ok(states) = cluster.states() else { continue }; // its API starts, too
        let webs = states.iter().filter(|state| state.name.starts_with("web@"));
        for state in webs {
            ensure!(state.health == Some(Health::Healthy), "{state:?}");
            looks += 1;
        }
    }
    ensure!(looks > 4, "{looks}");
    let now = cluster.running(&["web@*.service"])?;
    ensure!(now == before, "{before:?}, then {now:?}");
    Ok(())
}

fn commands_run_inside_units(cluster: &Cluster) -> Result<()> {
    cluster.start("inside.service", INSIDE)?;
    cluster.start("box.container", BOX)?;
    is_healthy(cluster, "inside.service")?;
    is_healthy(cluster, "box.container")
}

fn a_check_that_hangs_and_prints_is_killed(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["start", "--no-block", &cluster.write_unit("hangs.service", HANGS)?])?;
    let boxed = HANGS.replace("[Service]\nExecStart=/bin/sleep infinity\n", "");
    let boxed = format!("{}{boxed}", BOX.split("[X-Fleet]").next().unwrap_or_default());
    let boxed = boxed.replace("trap \"\" TERM; ", "");
    cluster.ctl(&["start", "--no-block", &cluster.write_unit("stuck.container", &boxed)?])?;
    for name in ["hangs.service", "stuck.container"] {
        wait_for(&format!("{name} to be unhealthy"), PATIENCE, || {
            let (state, _) = health(cluster, name)?;
            let why = "health check: no answer within 500 ms";
            ensure!(state.result == "unhealthy", "{state:?}");
            ensure!(state.message.as_deref() == Some(why), "{state:?}");
            Ok(())
        })?;
    }
    cluster.ctl(&["destroy", "hangs.service", "stuck.container"])?;
    for host in cluster.hosts() {
        wait_for("nothing of the checks to be left", PATIENCE, || {
            let left = cluster.lab.sh(&host, "pgrep -xl yes || true")?;
            let failed = cluster.lab.sh(
                &host,
                "systemctl list-units --all --plain --no-legend 'fleet-check-*' \
                    | grep -v running || true",
            )?;
            ensure!(left.is_empty() && failed.is_empty(), "{host}: {left} {failed}");
            Ok(())
        })?;
        let logged = cluster.lab.sh(&host, "journalctl -b -o cat -u 'fleet-check-*' | wc -l")?;
        ensure!(logged.trim() == "0", "{host}: {logged} lines in the journal");
    }
    cluster.clean()
}
