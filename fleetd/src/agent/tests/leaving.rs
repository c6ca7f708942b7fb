//! A machine that leaves.

use super::*;

/// Registers the machine, runs one unit that takes `stop` to stop, leaves, and looks at the host in
/// the moment that the machine is gone from the store: whether the unit was still stopping, and
/// after how many seconds that was.
async fn leave_with_a_stop_of(stop: Duration) -> (bool, u64) {
    const TTL: Duration = Duration::from_secs(10);
    let mut host = Host::new().await;
    let (name, text) = (UnitName::trusted("web.service"), host.text("web.service", 1, OLD).await);
    host.sim.stops_slowly(&name, stop);
    host.run(&[("web.service", &text)]).await;
    let lease = host.store.grant(TTL).await.unwrap();
    let registration = host.store.register(&machine(), lease).await.unwrap();
    let begin = tokio::time::Instant::now();
    let clock: clock::Clock = Arc::new(move || 1_000_000 + begin.elapsed().as_millis() as u64);
    let (store, sim) = (host.store.clone(), host.sim.clone());
    let gone = async {
        let seen = store.read_all().await.unwrap().cluster().snapshot.revision;
        let mut changes = store.watch_all(seen).await.unwrap();
        while store
            .read_all()
            .await
            .unwrap()
            .cluster()
            .snapshot
            .machines
            .contains_key(&machine().id)
        {
            changes.recv().await.unwrap().unwrap();
        }
        (sim.loaded().contains_key(&UnitName::trusted("web.service")), begin.elapsed().as_secs())
    };
    let id = machine().id;
    let leaving = crate::leave::leave(&host.store, &id, Some(registration), TTL, &mut host.agent);
    let (gone, left) = tokio::join!(gone, clock::with_clock(clock, leaving));
    assert!(left);
    assert_eq!(
        (host.running(), host.files()),
        (String::new(), String::new()),
        "all has stopped in the end"
    );
    gone
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_leaves_is_gone_when_its_units_have_stopped_or_after_five_seconds() {
    assert_eq!(leave_with_a_stop_of(Duration::from_millis(10)).await, (false, 0));
    assert_eq!(leave_with_a_stop_of(Duration::from_secs(3)).await, (false, 3));
    assert_eq!(leave_with_a_stop_of(Duration::from_secs(20)).await, (true, 5));
}

#[tokio::test]
async fn a_machine_that_leaves_while_the_store_is_away_stops_nothing_and_ends_a_keeper_that_waits()
{
    let mut host = Host::new().await;
    let text = host.text("web.service", 1, OLD).await;
    host.run(&[("web.service", &text)]).await;
    let keeper = UnitName::trusted(crate::keeper::UNIT);
    let unit_file = include_str!("../../../dist/fleet-keeper.service");
    host.sim.define_on_host(&keeper, "/usr/lib/systemd/system/fleet-keeper.service", unit_file);
    host.sim.run_program(
        &keeper,
        Arc::new(|process| {
            Box::pin(async move {
                process.terminated().await;
                true
            })
        }),
    );
    host.sim.queue(&keeper, Job::Start).await.unwrap();
    host.agent =
        host.agent.with_keeper(host.folder.path().join("fleet-guard"), false, Arc::default());
    let nowhere = crate::store::etcd::EtcdOptions::new(vec!["http://127.0.0.1:1".to_string()]);
    let nowhere =
        Store::new(Arc::new(crate::store::etcd::EtcdKv::connect(nowhere).unwrap()), "/fleet/");
    let mut jobs = host.sim.changes();
    assert!(
        !crate::leave::leave(
            &nowhere,
            &machine().id,
            None,
            Duration::from_secs(10),
            &mut host.agent
        )
        .await
    );
    jobs.wait_for(|_| host.sim.jobs_in_flight() == 0).await.unwrap();
    assert_eq!((host.running().as_str(), host.sim.counters().stop), ("web.service", 1));
    assert!(!host.sim.loaded().contains_key(&keeper), "{:?}", host.sim.loaded());
}

#[tokio::test(start_paused = true)]
async fn a_machine_leaves_at_once_though_systemd_refuses_to_stop_a_unit() {
    let mut host = Host::new().await;
    let text = host.text("web.service", 1, &format!("[Unit]\nRefuseManualStop=yes\n{OLD}")).await;
    let other = host.text("other.service", 1, OLD).await;
    host.run(&[("web.service", &text), ("other.service", &other)]).await;
    let begin = tokio::time::Instant::now();
    let clock: clock::Clock = Arc::new(move || 1_000_000 + begin.elapsed().as_millis() as u64);
    clock::with_clock(clock, host.agent.stop_everything()).await;
    assert_eq!((host.running().as_str(), begin.elapsed().as_secs()), ("web.service", 0));
}
