//! A unit that fails again and again: what is said of it, how it is tried, and when it moves.

use anyhow::{Context, Result, ensure};
use fleet_core::wire::UnitState;
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::wait_for;

use crate::lab;

/// Notes when it was tried, and fails. A plain `Type=simple` would be active for the moment before
/// it exits, as for systemctl.
const BROKEN: &str = "[Service]\nType=notify\nExecStart=/bin/sh -c 'date +%%s.%%N >> /tmp/tries; \
    exit 7'\n";

#[test]
fn a_unit_that_always_fails_is_reported_retried_with_growing_pauses_and_moved() -> Result<()> {
    scenario(&lab("failures", 2), |cluster| {
        fleetctl_says_so_of_a_service_that_was_up_for_a_moment(cluster)?;
        fleetctl_says_why_it_failed_and_ends_with_1(cluster)?;
        let first = the_report_has_systemds_result_and_exit_code(cluster)?;
        after_its_limit_it_moves_to_the_other_machine(cluster, &first)?;
        the_pauses_between_its_tries_grew(cluster, &first)?;
        a_unit_killed_by_a_signal_says_so(cluster)?;
        what_gives_up_by_its_exit_status_stays_failed(cluster)
    })
}

/// systemd calls a `Type=simple` service started before its process has had time to fail.
fn fleetctl_says_so_of_a_service_that_was_up_for_a_moment(cluster: &Cluster) -> Result<()> {
    let path = cluster.write_unit("brief.service", "[Service]\nExecStart=/bin/sh -c 'exit 7'\n")?;
    let said = cluster.fleetctl("h1", &["start", &path])?;
    ensure!(said.code == 1, "{said:?}");
    ensure!(
        said.err.contains("brief.service failed on ") && said.err.contains("exit-code, status 7"),
        "{said:?}"
    );
    cluster.ctl(&["destroy", "brief.service"])?;
    Ok(())
}

fn fleetctl_says_why_it_failed_and_ends_with_1(cluster: &Cluster) -> Result<()> {
    let path = cluster.write_unit("broken.service", BROKEN)?;
    let said = cluster.fleetctl("h1", &["start", &path])?;
    ensure!(said.code == 1, "{said:?}");
    ensure!(
        said.err.contains("broken.service failed on ") && said.err.contains("exit-code, status 7"),
        "{said:?}"
    );
    ensure!(said.err.contains("fleetctl journal broken.service"), "{said:?}");
    Ok(())
}

fn the_report_has_systemds_result_and_exit_code(cluster: &Cluster) -> Result<String> {
    let state = wait_for("the failure in GET /state", PATIENCE, || {
        let state = state(cluster, "broken.service")?;
        ensure!(state.systemd_active_state == "failed", "{state:?}");
        Ok(state)
    })?;
    ensure!(state.result == "exit-code" && state.code == Some(7), "{state:?}");
    ensure!(
        state.systemd_sub_state == "failed" && state.systemd_load_state == "loaded",
        "{state:?}"
    );
    cluster.host_of(&state.machine_id)
}

fn after_its_limit_it_moves_to_the_other_machine(cluster: &Cluster, first: &str) -> Result<()> {
    wait_for("it to move to the other machine", PATIENCE, || {
        let state = state(cluster, "broken.service")?;
        let host = cluster.host_of(&state.machine_id)?;
        ensure!(host != first, "it is on {host}, {state:?}");
        Ok(())
    })?;
    let unit = cluster
        .units()?
        .into_iter()
        .find(|unit| unit.name == "broken.service")
        .context("the unit")?;
    let why = unit.why.map(|why| why.to_string()).unwrap_or_default();
    ensure!(why.starts_with("failed again and again on machine"), "it is there because: {why}");
    // The old machine forgets it.
    wait_for("the first machine to have no trace of it", PATIENCE, || {
        let load =
            cluster.lab.sh(first, "systemctl show --property=LoadState --value broken.service")?;
        ensure!(load == "not-found", "it is {load}");
        Ok(())
    })
}

fn the_pauses_between_its_tries_grew(cluster: &Cluster, first: &str) -> Result<()> {
    let text = cluster.lab.sh(first, "cat /tmp/tries")?;
    let tries: Vec<f64> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(tries.len() >= 5, "only {} tries before it moved", tries.len());
    let pauses: Vec<f64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The first is at once, and later ones double from a second; each is late by up to a listing of
    // 0.8 s.
    ensure!(
        pauses[1..].windows(2).all(|pair| pair[1] > pair[0]),
        "the pauses in seconds: {pauses:?}"
    );
    Ok(())
}

fn a_unit_killed_by_a_signal_says_so(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["destroy", "broken.service"])?;
    let path = cluster.write_unit(
        "killed.service",
        "[Service]\nType=notify\nExecStart=/bin/sh -c 'kill -SEGV $$$$'\n",
    )?;
    let said = cluster.fleetctl("h1", &["start", &path])?;
    ensure!(said.code == 1, "{said:?}");
    ensure!(said.err.contains("killed.service failed") && said.err.contains("signal"), "{said:?}");
    let state = wait_for("the failure in GET /state", PATIENCE, || {
        let state = state(cluster, "killed.service")?;
        ensure!(!state.result.is_empty(), "{state:?}");
        Ok(state)
    })?;
    // SIGSEGV is 11; systemd tells a core dump from a plain signal.
    ensure!(
        ["signal", "core-dump"].contains(&state.result.as_str()) && state.code == Some(11),
        "{state:?}"
    );
    Ok(())
}

/// systemd would restart it (`Restart=always`), and does not.
fn what_gives_up_by_its_exit_status_stays_failed(cluster: &Cluster) -> Result<()> {
    let text = "[Service]\nType=simple\nRestart=always\nExecStart=/bin/sh -c 'sleep 0.3; \
        echo once >> /tmp/wrong; exit 78'\n[X-Fleet]\nOnFailure.exit-78=give-up\n";
    let path = cluster.write_unit("wrong.service", text)?;
    cluster.ctl(&["start", "--no-block", &path])?;
    let failed = wait_for("it to stay failed", PATIENCE, || {
        let state = state(cluster, "wrong.service")?;
        ensure!(state.systemd_active_state == "failed" && state.stays_down, "{state:?}");
        Ok(state)
    })?;
    ensure!(failed.code == Some(78) && failed.next_try_ms.is_none(), "{failed:?}");
    let said = cluster.ctl(&["list-units", "--fields=unit,result,message"])?;
    ensure!(said.contains("it stays failed (OnFailure.exit-78=give-up)"), "{said}");
    let host = cluster.host_of(&failed.machine_id)?;
    // An agent that starts anew does not forget.
    cluster.lab.sh(&host, "systemctl restart fleetd")?;
    cluster.wait_until_ready()?;
    let again = wait_for("the new fleetd's word", PATIENCE, || {
        let state = state(cluster, "wrong.service")?;
        ensure!(state.stays_down, "{state:?}");
        Ok(state)
    })?;
    ensure!(again.machine_id == failed.machine_id, "{again:?}");
    let tries = cluster.lab.sh(&host, "cat /tmp/wrong")?;
    ensure!(tries.lines().count() == 1, "it was tried again:\n{tries}");
    cluster.ctl(&["restart", "--no-block", "wrong.service"])?;
    wait_for("a restart on purpose", PATIENCE, || {
        let tries = cluster.lab.sh(&host, "cat /tmp/wrong")?;
        ensure!(tries.lines().count() == 2, "{tries}");
        Ok(())
    })?;
    cluster.ctl(&["destroy", "wrong.service"])?;
    Ok(())
}

fn state(cluster: &Cluster, name: &str) -> Result<UnitState> {
    cluster
        .states()?
        .into_iter()
        .find(|state| state.name == name)
        .with_context(|| format!("no state of {name}"))
}
