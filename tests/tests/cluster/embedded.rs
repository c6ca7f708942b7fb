//! One machine with no configuration to speak of: the embedded store on its own disk.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Running, Said, replicas, scenario};
use fleet_tests::lab::{Options, Store};
use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::kv::{Change, Kv};

use crate::{SLEEPER, lab};

const ALL: &[&str] = &["web@*.service", "one.service"];

#[test]
fn a_machine_of_ones_own_keeps_its_state_over_restarts_and_reboots() -> Result<()> {
    let options = Options { store: Store::Embedded, ..lab("embedded", 1) };
    scenario(&options, |cluster| {
        cluster.submit("web@.service", SLEEPER)?;
        cluster.ctl(&["scale", "web=3"])?;
        cluster.start("one.service", SLEEPER)?;
        cluster.submit("idle.service", SLEEPER)?;
        let before = cluster.running(ALL)?;
        ensure!(before.len() == 4, "{before:?}");
        a_second_fleetd_is_refused(cluster, &before)?;
        a_restart_and_a_kill_change_nothing(cluster, &before)?;
        after_a_reboot_all_runs_again(cluster)?;
        it_still_takes_orders(cluster)
    })
}

#[test]
fn a_spoilt_store_says_what_is_wrong_what_runs_goes_on_and_the_remedy_that_it_names_works()
-> Result<()> {
    let options = Options { store: Store::Embedded, ..lab("spoilt", 1) };
    scenario(&options, |cluster| {
        cluster.start("one.service", SLEEPER)?;
        cluster.submit("two.service", SLEEPER)?;
        let before = cluster.running(ALL)?;
        ensure!(cluster.ctl(&["store", "check"])?.contains("The store is sound"));
        a_document_cannot_be_read(cluster, &before)?;
        the_file_is_damaged(cluster, &before)
    })
}

fn a_document_cannot_be_read(cluster: &Cluster, before: &Running) -> Result<()> {
    let file = without_fleetd(cluster)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let kv = EmbeddedKv::open(&file).await?;
        let half = Change::Put {
            key: "/fleet/units/two.service".into(),
            value: b"half a docu".into(),
            lease: None,
        };
        kv.txn(&[], &[half]).await?;
        kv.close().await;
        anyhow::Ok(())
    })?;
    let offline = Said::from(cluster.lab.exec("h1", &["fleetd", "--check-store"])?);
    with_fleetd(cluster)?;
    let said = cluster.fleetctl("h1", &["store", "check"])?;
    for said in [&offline, &said] {
        let bad = "BAD  /fleet/units/two.service: it cannot be read";
        ensure!(
            said.code == 1
                && said.out.contains(bad)
                && said.out.contains("1 document needs a person"),
            "{said:?}"
        );
    }
    ensure!(cluster.running(ALL)? == *before);
    let remedy = said.out.split('`').nth(1).context("a command")?;
    cluster.lab.sh("h1", &format!("{remedy} --fail -sS"))?;
    ensure!(cluster.ctl(&["store", "check"])?.contains("The store is sound"));
    cluster.start("two.service", SLEEPER)?;
    cluster.ctl(&["destroy", "two.service"]).map(drop)
}

fn the_file_is_damaged(cluster: &Cluster, before: &Running) -> Result<()> {
    let file = without_fleetd(cluster)?;
    let sound = std::fs::read(&file)?;
    std::fs::write(&file, &sound[..sound.len() / 2])?;
    // What is wrong, with what, and what to do: asked, and in the journal of a fleetd that does not
    // start.
    let parts =
        ["/var/lib/fleet/store.redb", "damaged", "restore a copy", "move it away to start empty"];
    let said = Said::from(cluster.lab.exec("h1", &["fleetd", "--check-store"])?);
    ensure!(said.code == 1 && parts.iter().all(|part| said.err.contains(part)), "{said:?}");
    cluster.lab.sh(
        "h1",
        "rm /run/systemd/system/fleetd.service; systemctl daemon-reload; ! systemctl start fleetd",
    )?;
    let journal = cluster.lab.sh("h1", "journalctl --no-pager --unit=fleetd --lines=20")?;
    ensure!(parts.iter().all(|part| journal.contains(part)), "{journal}");
    ensure!(cluster.running(ALL)? == *before);
    without_fleetd(cluster)?;
    std::fs::write(&file, &sound)?;
    with_fleetd(cluster)?;
    ensure!(cluster.ctl(&["store", "check"])?.contains("The store is sound"));
    ensure!(cluster.running(ALL)? == *before);
    Ok(())
}

/// Takes fleetd away without a goodbye, and answers with its store's file on this machine.
fn without_fleetd(cluster: &Cluster) -> Result<PathBuf> {
    cluster.lab.sh(
        "h1",
        "systemctl mask --runtime --quiet fleetd; systemctl kill --signal=KILL fleetd; \
            systemctl stop fleetd",
    )?;
    Ok(cluster.lab.host_folder("h1")?.join("fleet/store.redb"))
}

fn with_fleetd(cluster: &Cluster) -> Result<()> {
    cluster.lab.sh(
        "h1",
        "rm /run/systemd/system/fleetd.service; systemctl daemon-reload; systemctl start fleetd",
    )?;
    cluster.wait_until_ready()
}

fn a_second_fleetd_is_refused(cluster: &Cluster, before: &Running) -> Result<()> {
    let script = "FLEET_SOCKET=/tmp/second.sock FLEET_LISTEN= timeout 10 fleetd";
    let second = cluster.lab.exec("h1", &["sh", "-c", script])?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned()
        + &String::from_utf8_lossy(&second.stdout);
    ensure!(second.status.code() == Some(1), "{}: {said}", second.status);
    ensure!(
        said.contains("/var/lib/fleet") && said.to_lowercase().contains("another"),
        "it does not say why: {said}"
    );
    // With a store of its own it still must not take the first one's socket.
    let script = "mkdir -p /tmp/second && FLEET_DATA_DIR=/tmp/second FLEET_RUN_DIR=/tmp/second \
        FLEET_LISTEN= timeout 10 fleetd";
    let second = cluster.lab.exec("h1", &["sh", "-c", script])?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned()
        + &String::from_utf8_lossy(&second.stdout);
    ensure!(
        second.status.code() == Some(1) && said.contains("/run/fleet.sock"),
        "{}: {said}",
        second.status
    );
    ensure!(cluster.ctl(&["list-machines", "--no-legend"])?.lines().count() == 1);
    ensure!(cluster.running(ALL)? == *before);
    Ok(())
}

fn a_restart_and_a_kill_change_nothing(cluster: &Cluster, before: &Running) -> Result<()> {
    cluster.lab.sh("h1", "systemctl restart fleetd")?;
    ensure!(cluster.ctl(&["list-unit-files", "--no-legend"])?.contains("idle.service"));
    cluster.lab.sh("h1", "systemctl kill --kill-whom=main --signal=KILL fleetd")?;
    cluster.nothing_happens(ALL, before, crate::LEADER_LEASE * 2)?;
    cluster.wait_until_ready()
}

fn after_a_reboot_all_runs_again(cluster: &Cluster) -> Result<()> {
    cluster.lab.kill("h1")?;
    cluster.lab.boot("h1")?;
    let names = [replicas("web", 3), vec!["one.service".to_owned()]].concat();
    cluster.wait_for_exactly(ALL, &names, PATIENCE)?;
    cluster.wait_until_ready()?;
    let listed = cluster.ctl(&["list-unit-files", "--no-legend", "--fields=unit,dstate"])?;
    let idle = listed.lines().find(|line| line.starts_with("idle.service"));
    ensure!(idle.is_some_and(|line| line.ends_with("inactive")), "{listed}");
    Ok(())
}

fn it_still_takes_orders(cluster: &Cluster) -> Result<()> {
    let before = cluster.running(ALL)?;
    cluster.ctl(&["scale", "web=4"])?;
    let after = cluster.running(ALL)?;
    ensure!(
        after.len() == 5 && before.iter().all(|(key, pid)| after.get(key) == Some(pid)),
        "{before:?} became {after:?}"
    );
    cluster.clean()?;
    ensure!(cluster.running(ALL)?.is_empty());
    Ok(())
}
