//! Machines go and come back: power loss, the leader's machine with its member of etcd, two of three, a cut, a hand-over.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{PATIENCE, scenario};
use fleet_tests::record::{self, Life};

use crate::trial::Trial;
use crate::{AGENT_LEASE, lab};

/// From a power loss until the count is back: the lease and 2 s; a leader's lease more if it was the leader's; and what a busy
/// machine of two cores adds.
const RESTORED: Duration = Duration::from_secs(10 + 2 + 3 + 5);

#[test]
fn the_count_is_back_after_any_machine_is_lost_and_nothing_runs_twice_when_it_returns() -> Result<()> {
    scenario(&lab("power"), |cluster| {
        let trial = Trial::begin(cluster)?;
        let leader = cluster.leader()?;
        let follower = cluster.hosts().into_iter().find(|host| *host != leader).context("a follower")?;
        for lost in [follower, leader] {
            let before = trial.alive()?;
            let begin = Instant::now();
            cluster.lab.kill(&lost)?;
            let after = trial.wait_for_count(RESTORED)?;
            eprintln!("{lost} lost: the count was back after {:.1} s", begin.elapsed().as_secs_f64());
            stayed(&before, &after, &lost)?;
            cluster.lab.boot(&lost)?;
            cluster.wait_until_ready()?;
            quiet(&trial, &after)?;
            rebalanced(&trial)?;
        }
        no_copy_beside_another(&trial)
    })
}

#[test]
fn two_machines_lost_with_the_stores_majority_stop_nothing_on_the_third() -> Result<()> {
    scenario(&lab("majority"), |cluster| {
        let trial = Trial::begin(cluster)?;
        let before = trial.alive()?;
        for host in ["h1", "h2"] {
            cluster.lab.kill(host)?;
        }
        let third = |lives: &[Life]| lives.iter().filter(|life| life.host == "h3").cloned().collect::<Vec<_>>();
        let begin = Instant::now();
        while begin.elapsed() < AGENT_LEASE + Duration::from_secs(5) {
            ensure!(same(&third(&trial.alive()?), &third(&before)), "{before:?} became {:?}", trial.alive()?);
            std::thread::sleep(Duration::from_millis(500));
        }
        for host in ["h1", "h2"] {
            cluster.lab.boot(host)?;
        }
        cluster.wait_until_ready()?;
        let after = trial.wait_for_count(PATIENCE)?;
        ensure!(same(&third(&after), &third(&before)), "h3 had {before:?} and has {after:?}");
        no_copy_beside_another(&trial)
    })
}

/// What ran on the other machines runs on as it did.
fn stayed(before: &[Life], after: &[Life], lost: &str) -> Result<()> {
    for life in before.iter().filter(|life| life.host != lost) {
        ensure!(
            after.iter().any(|other| same(std::slice::from_ref(life), std::slice::from_ref(other))),
            "{life:?} is gone: {after:?}"
        );
    }
    Ok(())
}

/// Whether they are the same lives, whatever was heard of them since.
fn same(some: &[Life], others: &[Life]) -> bool {
    let key = |life: &Life| (life.unit.clone(), life.host.clone(), life.pid);
    some.iter().map(key).eq(others.iter().map(key))
}

/// A machine that returns changes nothing.
fn quiet(trial: &Trial, before: &[Life]) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        let now = trial.alive()?;
        ensure!(same(&now, before), "{before:?} became {now:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// Spreads the workloads over all machines again, for the next fault: nothing moves by itself.
fn rebalanced(trial: &Trial) -> Result<()> {
    trial.cluster.ctl(&["scale", "web=0"])?;
    trial.cluster.ctl(&["scale", &format!("web={}", crate::trial::COUNT)])?;
    trial.wait_for_count(PATIENCE).map(drop)
}

/// Power loss ends a copy before its successor starts, so here even unfenced units never overlap.
fn no_copy_beside_another(trial: &Trial) -> Result<()> {
    let all = record::lives(&trial.cluster.lab)?;
    ensure!(record::overlaps(&all).is_empty(), "{:?}", record::overlaps(&all));
    Ok(())
}
