//! Updates, rollbacks and drains of real machines, a few instances at a time: the units' own
//! records say how many lived.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Running, replicas, scenario};
use fleet_tests::lab::wait_for;
use fleet_tests::record::{self, Life, recorder};
use serde_json::Value;

use crate::lab;

/// Longer than what the judge of gaps passes over, so that two instances down at once are seen.
const SLOW_START: &str = "ExecStartPre=/bin/sleep 3\n";

/// Up for a moment each time, as systemd has it, which restarts it without end.
const DIES: &str = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/sh -c 'sleep 0.5; \
    exit 1'\nRestart=always\n\
                    [X-Fleet]\nMaxUnavailable=1\nOnUpdateFailure=pause\n";

/// What most people write: no budget, and nothing that says when the program is ready.
const FIVE: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

/// How many instances there are, and how many of them must live at any time.
const INSTANCES: u32 = 4;
const LIVING: usize = 3;

#[test]
fn updates_rollbacks_and_drains_keep_all_but_one_instance_running() -> Result<()> {
    scenario(&lab("rolling", 3), |cluster| {
        cluster.submit("roll@.service", &text("TEXT=1"))?;
        cluster.ctl(&["scale", &format!("roll={INSTANCES}")])?;
        an_update_goes_one_by_one(cluster)?;
        a_text_that_fails_stops_at_one_and_is_rolled_back(cluster)?;
        a_drain_goes_one_by_one_and_a_cordon_keeps_what_is_there(cluster)?;
        what_is_asked_wrongly_is_refused(cluster)
    })
}

#[test]
fn a_text_that_fails_is_undone_by_itself_also_when_the_leader_dies() -> Result<()> {
    scenario(&lab("undone", 3), |cluster| {
        cluster.submit("five@.service", FIVE)?;
        cluster.ctl(&["scale", "five=5"])?;
        let names = replicas("five", 5);
        let all =
            |cluster: &Cluster| cluster.wait_for_exactly(&["five@*.service"], &names, PATIENCE);
        // It waits until all are healthy: then there is a good text to go back to.
        cluster.write_unit("five@.service", &FIVE.replace("infinity", "2d"))?;
        cluster.ctl(&["start", "--replace", "/root/units/five@.service"])?;
        let before = all(cluster)?;
        let bad = FIVE.replace("/bin/sleep infinity", "/bin/false");
        let untouched = |now: &Running| {
            before.iter().filter(|(place, pid)| now.get(*place) == Some(*pid)).count()
        };
        cluster.write_unit("five@.service", &bad)?;
        let said = cluster.fleetctl("h1", &["start", "--replace", "/root/units/five@.service"])?;
        let why = "revision 3 of five@.service was undone: five@1.service failed on machine ";
        ensure!(said.code == 1 && said.err.contains(why), "{said:?}");
        ensure!(untouched(&all(cluster)?) == 4, "{before:?}");
        let events = cluster.ctl(&["events", "--unit=five@.service"])?;
        ensure!(events.contains("the new text of five@.service is undone"), "{events}");

        let worse = bad.replace("/bin/false", "/bin/false again");
        cluster.write_unit("five@.service", &worse)?;
        cluster.ctl(&["start", "--replace", "--no-block", "/root/units/five@.service"])?;
        let failing = || {
            let states = cluster.states()?;
            let fails = |state: &&fleet_core::wire::UnitState| {
                state.name.starts_with("five@") && state.restarts.is_some()
            };
            let failing = states.iter().filter(fails).count();
            ensure!(failing == 1, "{failing} fail: {states:?}");
            Ok(())
        };
        wait_for("one instance to fail with the new text", PATIENCE, failing)?;
        let leader = cluster.leader()?;
        cluster.lab.sh(&leader, "systemctl kill --signal=KILL fleetd.service")?;
        wait_for("the text to be undone under the next leader", PATIENCE, || {
            let now = all(cluster)?;
            ensure!(untouched(&now) == 4, "{before:?}, then {now:?}");
            Ok(())
        })?;

        let good = FIVE.replace("/bin/sleep infinity", "/bin/sleep 1d");
        cluster.write_unit("five@.service", &good)?;
        cluster.ctl(&["start", "--replace", "/root/units/five@.service"])?;
        ensure!(untouched(&all(cluster)?) == 0, "the good text has not reached all");
        cluster.ctl(&["destroy", "five@.service"])?;
        a_canary_waits_for_a_user_and_a_failure_is_undone_by_one(cluster)
    })
}

/// What users steer, as they write it in scripts: no terminal is there.
fn a_canary_waits_for_a_user_and_a_failure_is_undone_by_one(cluster: &Cluster) -> Result<()> {
    let text = |program: &str| {
        format!(
            "[Service]\nType=simple\nExecStart={program}\nRestart=always\n\
            [X-Fleet]\nCanary=1\nMinHealthy=1\nOnUpdateFailure=pause\n"
        )
    };
    let replace = |program: &str| {
        let path = cluster.write_unit("four@.service", &text(program))?;
        cluster.ctl(&["start", "--replace", "--no-block", &path])
    };
    let all = || cluster.wait_for_exactly(&["four@*.service"], &replicas("four", 4), PATIENCE);
    let same = |now: &Running, before: &Running| {
        before.iter().filter(|(place, pid)| now.get(*place) == Some(*pid)).count()
    };
    let rollout = |args: &[&str]| cluster.fleetctl("h2", &[&["rollout"][..], args].concat());
    let status = |words: &str| {
        wait_for(words, PATIENCE, || {
            let said = rollout(&["status", "four@", "--no-block"])?;
            ensure!(said.out.contains(words), "{said:?}");
            Ok(said)
        })
    };
    cluster.submit("four@.service", &text("/bin/sleep 1d"))?;
    cluster.ctl(&["scale", "four=4"])?;
    status("revision 1: done, 4 of 4 new, 4 healthy")?;

    let before = all()?;
    replace("/bin/sleep 2d")?;
    let waits =
        "four@.service: revision 2 after 1: paused, 1 of 4 new, 1 healthy; waits for a user";
    status(waits)?;
    let said = rollout(&["status", "four@", "--timeout=2"])?;
    ensure!(said.code == 3 && said.out.contains(waits), "{said:?}");
    ensure!(said.err.contains("`fleetctl rollout resume four@.service` goes on"), "{said:?}");
    ensure!(same(&all()?, &before) == 3, "{before:?}, then {:?}", all()?);
    let said = rollout(&["resume", "four@"])?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(said.out.ends_with("revision 2: done, 4 of 4 new, 4 healthy\n"), "{said:?}");
    let good = all()?;
    ensure!(same(&good, &before) == 0, "{before:?}, then {good:?}");

    replace("/bin/sh -c 'echo no such database; exit 7'")?;
    let said = rollout(&["status", "four@"])?;
    ensure!(said.code == 1, "{said:?}");
    for words in [
        "revision 3 of four@.service goes no further: four@1.service failed on machine ",
        "exit-code (7)",
        "The last lines of four@1.service:",
        "no such database",
        "`fleetctl rollout undo four@.service` returns all to the last good text",
    ] {
        ensure!(said.err.contains(words), "{words}: {said:?}");
    }
    let said = rollout(&["undo", "four@"])?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(said.out.contains("revision 3 after 2: undone, 0 of 4 new, 4 healthy"), "{said:?}");
    let after = all()?;
    ensure!(same(&after, &good) == 3, "{good:?}, then {after:?}");
    let events = cluster.ctl(&["events", "--unit=four@.service"])?;
    for did in ["resumed", "undid"] {
        let told = format!("user root@h2 {did} the rollout of four@.service");
        ensure!(events.matches(&told).count() == 1, "{events}");
    }
    Ok(())
}

fn text(line: &str) -> String {
    recorder(&format!("{SLOW_START}Environment={line}\n"), "[X-Fleet]\nMaxUnavailable=1\n")
}

fn names() -> Vec<String> {
    replicas("roll", INSTANCES)
}

fn running(cluster: &Cluster) -> Result<Running> {
    cluster.wait_for_exactly(&["roll@*.service"], &names(), PATIENCE)
}

/// Does `body`, and makes sure that enough instances lived all the while.
fn while_enough_live(cluster: &Cluster, body: impl FnOnce() -> Result<()>) -> Result<()> {
    wait_for("all instances to write down that they live", PATIENCE, || {
        let (lives, now) = (of_unit(cluster)?, record::now()?);
        let beating = lives.iter().filter(|life| now - life.until < 1.0).count();
        ensure!(beating == INSTANCES as usize, "{beating} of {INSTANCES}");
        Ok(())
    })?;
    let from = record::now()?;
    body()?;
    let gaps = record::gaps(&of_unit(cluster)?, LIVING, from, record::now()?);
    ensure!(gaps.is_empty(), "fewer than {LIVING} lived in {gaps:?}, from {from}");
    Ok(())
}

fn of_unit(cluster: &Cluster) -> Result<Vec<Life>> {
    let mut lives = record::lives(&cluster.lab)?;
    lives.retain(|life| life.unit.starts_with("roll@"));
    Ok(lives)
}

fn revisions(cluster: &Cluster) -> Result<Vec<(u64, u64)>> {
    let listed: Value =
        serde_json::from_str(&cluster.ctl(&["list-revisions", "roll@", "--json"])?)?;
    let one = |entry: &Value| Some((entry["revision"].as_u64()?, entry["instances"].as_u64()?));
    listed
        .as_array()
        .context("an array")?
        .iter()
        .map(|entry| one(entry).context("two numbers"))
        .collect()
}

fn an_update_goes_one_by_one(cluster: &Cluster) -> Result<()> {
    let before = running(cluster)?;
    while_enough_live(cluster, || {
        cluster.write_unit("roll@.service", &text("TEXT=2"))?;
        // It waits until all have the new text.
        cluster.ctl(&["start", "--replace", "/root/units/roll@.service"])?;
        let now = cluster.running(&["roll@*.service"])?;
        ensure!(
            now.len() == names().len() && now.iter().all(|(at, pid)| before.get(at) != Some(pid)),
            "{now:?} after {before:?}"
        );
        ensure!(
            revisions(cluster)? == [(2, u64::from(INSTANCES)), (1, 0)],
            "{:?}",
            revisions(cluster)?
        );
        Ok(())
    })?;
    let events = cluster.ctl(&["events", "--unit=roll@.service"])?;
    ensure!(events.contains("changes a few instances at a time"), "{events}");
    Ok(())
}

fn a_text_that_fails_stops_at_one_and_is_rolled_back(cluster: &Cluster) -> Result<()> {
    let before = running(cluster)?;
    while_enough_live(cluster, || {
        cluster.write_unit("roll@.service", DIES)?;
        cluster.ctl(&["start", "--replace", "--no-block", "/root/units/roll@.service"])?;
        wait_for("one instance to be restarted again and again", PATIENCE, || {
            let states = cluster.states()?;
            let failing = states
                .iter()
                .filter(|state| state.name.starts_with("roll@") && state.restarts.is_some());
            ensure!(failing.count() == 1, "{states:?}");
            Ok(())
        })?;
        let others: Running = cluster
            .running(&["roll@*.service"])?
            .into_iter()
            .filter(|(at, pid)| before.get(at) == Some(pid))
            .collect();
        ensure!(others.len() == LIVING, "{others:?} of {before:?}");
        let names: Vec<&str> = others.keys().map(|(unit, _)| unit.as_str()).collect();
        // Longer than they would take, had they begun.
        cluster.nothing_happens(&names, &others, Duration::from_secs(8))?;
        ensure!(revisions(cluster)? == [(3, 1), (2, 3), (1, 0)], "{:?}", revisions(cluster)?);
        let said = cluster.ctl(&["rollback", "roll@.service"])?;
        ensure!(said.contains("has the text of revision 2 again, as revision 4"), "{said}");
        let after = running(cluster)?;
        let untouched =
            after.iter().filter(|(place, pid)| before.get(*place) == Some(*pid)).count();
        ensure!(untouched == LIVING, "{before:?} then {after:?}");
        ensure!(cluster.ctl(&["cat", "roll@"])? == text("TEXT=2"), "another text");
        Ok(())
    })
}

fn a_drain_goes_one_by_one_and_a_cordon_keeps_what_is_there(cluster: &Cluster) -> Result<()> {
    cluster.start("log.service", &format!("{}\n[X-Fleet]\nGlobal=true\n", crate::SLEEPER))?;
    let pinned = cluster.lab.machine_id("h1")?;
    cluster
        .start("pin.service", &format!("{}\n[X-Fleet]\nMachineID={pinned}\n", crate::SLEEPER))?;
    while_enough_live(cluster, || {
        cluster.ctl(&["drain", "--no-block", &pinned[..8]])?;
        wait_for("nothing on h1 but what must be there", PATIENCE, || {
            let left =
                cluster.running_on("h1", &["roll@*.service", "log.service", "pin.service"])?;
            ensure!(left.keys().eq(["log.service", "pin.service"]), "{left:?}");
            Ok(())
        })?;
        let said = cluster.fleetctl("h2", &["drain", "--timeout=1", &pinned[..8]])?;
        ensure!(
            said.code == 3 && said.err.contains("pin.service: no other machine can take it"),
            "{said:?}"
        );
        cluster.ctl(&["unload", "pin.service"])?;
        let said = cluster.fleetctl("h2", &["drain", &pinned[..8]])?;
        ensure!(said.code == 0 && said.out.contains("drained"), "{said:?}");
        running(cluster).map(drop)
    })?;
    let said = cluster.fleetctl("h2", &["list-machines"])?;
    ensure!(
        said.out.lines().count() == 4
            && said.err.contains("Drained, so nothing new is placed there: "),
        "{said:?}"
    );
    cluster.submit("more@.service", crate::SLEEPER)?;
    cluster.ctl(&["scale", "more=6"])?;
    ensure!(
        cluster.running_on("h1", &["more@*.service"])?.is_empty(),
        "placed on a drained machine"
    );
    cluster.ctl(&["uncordon", pinned])?;
    cluster.ctl(&["scale", "more=9"])?;
    let there = cluster.running_on("h1", &["more@*.service"])?;
    ensure!(there.len() == 3, "{there:?}");
    cluster.ctl(&["cordon", pinned])?;
    cluster.ctl(&["scale", "more=12"])?;
    ensure!(
        cluster.running_on("h1", &["more@*.service"])? == there,
        "a cordon moved something, or kept nothing off"
    );
    cluster.ctl(&["uncordon", pinned]).map(drop)
}

fn what_is_asked_wrongly_is_refused(cluster: &Cluster) -> Result<()> {
    cluster.write_unit(
        "wrong@.service",
        "[Service]\nExecStart=/bin/true\n[X-Fleet]\nMaxUnavailable=none\n",
    )?;
    for (args, words) in [
        (&["submit", "/root/units/wrong@.service"][..], "invalid MaxUnavailable \"none\""),
        (&["rollback", "roll@", "--to=9"], "has no revision 9; its present one is 4"),
        (&["rollback", "roll@", "--to=4"], "revision 4 of roll@.service is its present one"),
        (&["rollback", "more@"], "has had no other text"),
        (&["rollback", "nosuch"], "not found"),
        (&["list-revisions", "nosuch"], "not found"),
        (&["drain", "zz"], "No machine starts with"),
        (&["cordon", "0123456789abcdef0123456789abcdef"], "does not exist"),
    ] {
        let said = cluster.fleetctl("h1", args)?;
        ensure!(said.code == 1 && said.err.contains(words), "{args:?}: {said:?}");
    }
    Ok(())
}
