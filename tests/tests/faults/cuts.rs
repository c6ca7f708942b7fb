//! A machine that is cut off, both ways or one way: what is fenced there ends before it begins
//! elsewhere, all else there goes on.

use anyhow::{Context, Result};
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::wait_for;
use fleet_tests::record::Life;

use crate::lab;
use crate::trial::{Trial, is_fenced, restored};

#[test]
fn a_machine_that_is_cut_off_both_ways_or_one_way_ends_what_is_fenced_and_nothing_else()
-> Result<()> {
    scenario(&lab("cuts"), |cluster| {
        let trial = Trial::begin(cluster)?;
        // Each time another one: the machine before runs nothing that is fenced any more.
        is_cut(&trial, "cut both ways", "h2", |cluster| cluster.lab.cut("h2"))?;
        is_cut(&trial, "what it sends is lost", "h3", |cluster| {
            ["h1", "h2"].into_iter().try_for_each(|other| cluster.lab.cut_one_way("h3", other))
        })?;
        is_cut(&trial, "what is sent to it is lost", "h1", |cluster| {
            ["h2", "h3"].into_iter().try_for_each(|other| cluster.lab.cut_one_way(other, "h1"))
        })
    })
}

fn is_cut(
    trial: &Trial,
    what: &str,
    host: &str,
    cut: impl FnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    let before = trial.wait_for_count(PATIENCE)?;
    let (here, there): (Vec<&Life>, Vec<&Life>) = before.iter().partition(|life| life.host == host);
    let (fenced, unfenced): (Vec<&Life>, Vec<&Life>) =
        here.into_iter().partition(|life| is_fenced(life));
    anyhow::ensure!(
        !fenced.is_empty() && !unfenced.is_empty(),
        "nothing to see on {host}: {before:?}"
    );
    cut(trial.cluster)?;
    trial.wait_for_end(fenced.iter().copied()).context(what.to_owned())?;
    wait_for_store_of_the_others(trial.cluster, host).context(what.to_owned())?;
    trial.wait_for_fenced(restored()).context(what.to_owned())?;
    // Whoever is alone knows nothing better than to go on, and nobody else's unfenced units notice.
    // What is fenced elsewhere may: an etcd with a member that is cut one way answers nobody for
    // half a minute at times, and no keeper lives that long.
    let (fenced, others): (Vec<&Life>, Vec<&Life>) =
        there.into_iter().partition(|life| is_fenced(life));
    trial.live_on(unfenced.into_iter().chain(others)).context(what.to_owned())?;
    let now = trial.alive()?;
    let stopped = fenced.iter().filter(|life| !now.iter().any(|other| other.is(life))).count();
    eprintln!(
        "{what}: of {} fenced units elsewhere {stopped} were stopped with the store",
        fenced.len()
    );
    trial.judge(what)?;
    trial.cluster.lab.heal(host)?;
    trial.cluster.wait_until_ready()?;
    let after = trial.wait_for_count(PATIENCE).with_context(|| format!("{what}, and mended"))?;
    trial.quiet(&after).with_context(|| format!("{what}, and mended"))?;
    trial.judge(what)
}

/// Waits until etcd answers a read that a leader must confirm, on each host but `cut`. Where a
/// leader of etcd still sends its heartbeats but hears nobody, that took 31 s once.
fn wait_for_store_of_the_others(cluster: &Cluster, cut: &str) -> Result<()> {
    cluster.hosts().iter().filter(|host| *host != cut).try_for_each(|host| {
        wait_for(&format!("etcd to answer on {host}"), 2 * PATIENCE, || {
            let read = "ETCDCTL_API=3 etcdctl --command-timeout=1s get /none";
            cluster.lab.sh(host, read).map(drop)
        })
    })
}
