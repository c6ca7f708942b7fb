//! What must go on while the leader plans, and what it says of what fits nowhere to those who wait.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleet_core::model::Snapshot;
use fleet_core::name::UnitName;
use fleet_core::plan::plan;
use fleet_tests::interposed::{Fate, Interposed, Request};
use fleetd::leader::engine::Engine;
use fleetd::leader::planner::Planner;
use fleetd::process::clock;
use fleetd::store::Store;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// The shortest that the store grants.
const LEASE: Duration = Duration::from_secs(2);

/// Renewals that take longer than the lease.
const RENEWALS: usize = 5;

const PATIENCE: Duration = Duration::from_secs(60);

/// A planner that waits for a word before each plan, and a way to give it.
fn held_up() -> (Planner, Sender<()>) {
    let (go, wait): (Sender<()>, Receiver<()>) = channel();
    let wait = Mutex::new(wait);
    let slow = move |snapshot: &Snapshot| {
        let _ = wait.lock().unwrap().recv();
        plan(snapshot)
    };
    (Planner::with(slow), go)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_plan_that_takes_longer_than_the_leaders_lease_loses_no_lease() {
    let mut cluster = Cluster::start().await;
    cluster.join(["a".to_string()]).await;
    cluster.submit("web.service", None, "[Service]\nExecStart=/bin/sleep 1d\n").await;
    let renewals = Arc::new(AtomicUsize::new(0));
    let counted = renewals.clone();
    let fate = Box::new(move |request| {
        counted.fetch_add(usize::from(request == Request::KeepAlive), SeqCst);
        Fate::Done
    });
    let store = Store::new(Arc::new(Interposed { inner: cluster.kv.clone(), fate }), "/fleet/");
    let (planner, go) = held_up();
    let engine = Engine { leader_ttl: LEASE, planner, ..cluster.engine("a", store) };
    let stop = CancellationToken::new();
    let running = tokio::spawn(engine.run(stop.clone()));
    until("somebody leads", async || cluster.mirror().await.cluster().leader.is_some()).await;
    let term = cluster.mirror().await.cluster().term;
    until("the lease is renewed while the plan takes long", async || {
        renewals.load(SeqCst) >= RENEWALS
    })
    .await;
    assert!(
        cluster.mirror().await.cluster().snapshot.assignments.is_empty(),
        "the plan was not held up"
    );
    drop(go);
    until("the unit is placed", async || {
        !cluster.mirror().await.cluster().snapshot.assignments.is_empty()
    })
    .await;
    assert_eq!(cluster.mirror().await.cluster().term, term, "the same leader in the same term");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn who_waits_is_told_that_no_machine_fits_when_machines_have_had_their_time_to_return() {
    let mut cluster = Cluster::start().await;
    cluster.join(["a".to_string(), "bb".to_string()]).await;
    let mut leader = cluster.elect("a").await;
    cluster.submit("web@.service", Some(2), "[Service]\nExecStart=/bin/sleep 1d\n").await;
    leader.tick(&cluster).await.unwrap();
    // An outage: machine bb is not back yet, and a unit that it alone can run is started.
    cluster.lose("bb").await;
    cluster
        .submit(
            "ssd.service",
            None,
            "[Service]\nExecStart=/bin/sleep 1d\n[X-Fleet]\nMachineMetadata=disk=ssd\n",
        )
        .await;
    let told = cluster.events().await.len();
    let instance = async || {
        let progress =
            cluster.mirror().await.cluster().progress(&[UnitName::trusted("ssd.service")]);
        let instance = progress.units[0].instances[0].clone();
        assert!(instance.wanted && !instance.done);
        instance
    };
    let said = async || {
        let misfits = instance().await.misfits.into_iter();
        misfits.map(|misfit| misfit.reason).collect::<Vec<_>>()
    };
    assert_eq!(said().await, [""; 0], "the leader has not looked");
    let settle = std::mem::replace(&mut leader.engine.settle, Duration::from_secs(3600));
    leader.tick_at(&cluster, clock::now_ms()).await.unwrap();
    assert_eq!(said().await, [""; 0], "machine bb may be about to return");
    let waits = instance().await.waits;
    assert!(waits.contains("absent and may be about to return"), "{waits}");
    assert!(!cluster.told(told).await.contains("no machine"), "{}", cluster.told(told).await);
    leader.engine.settle = settle;
    leader.tick(&cluster).await.unwrap();
    assert_eq!(said().await, ["lacks the metadata disk=ssd"]);
    assert!(
        cluster.told(told).await.contains("no machine can run ssd.service"),
        "{}",
        cluster.told(told).await
    );
    // It is written when it changes, not at each look.
    let revision = cluster.revision().await;
    leader.tick(&cluster).await.unwrap();
    leader.reopen(&cluster).await;
    leader.tick(&cluster).await.unwrap();
    assert_eq!(cluster.revision().await, revision);
    // The next leader says it again before anybody is told.
    leader.fall_silent().await;
    let mut leader = cluster.elect("a").await;
    assert_eq!(said().await, [""; 0], "the new leader has not looked");
    leader.tick(&cluster).await.unwrap();
    assert_eq!(said().await, ["lacks the metadata disk=ssd"]);
}
