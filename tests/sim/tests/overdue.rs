//! Whose lease fleet's leader ends after an election inside etcd, and when.

use std::sync::Arc;
use std::time::Duration;

use fleet_sim::etcd::{Etcd, Origin};
use fleet_sim::link::Link;
use fleet_sim::network::RemoteKv;
use fleetd::health::Health;
use fleetd::overdue::end_overdue;
use fleetd::store::Store;
use fleetd::store::kv::{Change, Kv, LeaseId};
use tokio::time::{Instant, sleep, sleep_until};

const KEY: &str = "/fleet/machines/0123456789abcdef0123456789abcdef";

/// How many seconds after an election the machine is gone that renews its lease of `ttl_s` so many milliseconds after it, and no more.
async fn gone_after(ttl_s: u64, renewals_ms: &[u64], settled: bool) -> f64 {
    let etcd = Etcd::new();
    let origin = Origin { machine: 0, life: 1, keeper: false };
    let kv = RemoteKv::new(etcd.asked_by(origin), Arc::new(Link::new(1)), 0, None);
    let store = Store::new(Arc::new(kv), "/fleet/");
    let health = Health::default();
    if settled {
        health.reachable(None, Duration::ZERO);
    }
    let lease = etcd.grant(Duration::from_secs(ttl_s)).await.unwrap();
    let put = Change::Put { key: KEY.to_string(), value: b"{}".to_vec(), lease: Some(lease) };
    assert!(etcd.txn(&[], &[put]).await.unwrap().applied);
    store.leader().await.unwrap();
    etcd.change_leader();
    let elected = Instant::now();
    tokio::select! {
        () = end_overdue(&store, &health, Duration::ZERO) => unreachable!("it looks for ever"),
        // As the leader renews its own lease.
        () = async { loop { sleep(Duration::from_secs(1)).await; store.leader().await.unwrap(); } } => unreachable!(),
        () = renewed(&etcd, lease, elected, renewals_ms) => unreachable!("the machine is never gone"),
        gone = gone(&etcd) => (gone - elected).as_secs_f64(),
    }
}

async fn renewed(etcd: &Etcd, lease: LeaseId, elected: Instant, renewals_ms: &[u64]) {
    for ms in renewals_ms {
        sleep_until(elected + Duration::from_millis(*ms)).await;
        assert!(etcd.keep_alive(lease).await.unwrap(), "at {ms} ms");
    }
    sleep(Duration::from_secs(60)).await;
}

async fn gone(etcd: &Etcd) -> Instant {
    while etcd.peek(KEY).is_some() {
        sleep(Duration::from_millis(10)).await;
    }
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_silent_since_the_election_is_gone_after_four_fifths_of_its_lease() {
    let gone = gone_after(10, &[], true).await;
    assert!((8.0..8.5).contains(&gone), "{gone}");
    let gone = gone_after(60, &[], true).await;
    assert!((48.0..48.5).contains(&gone), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_renews_after_the_election_has_its_whole_lease() {
    for first in (2_100..8_000).step_by(700) {
        let gone = gone_after(10, &[first], true).await - first as f64 / 1e3;
        assert!((10.0..10.6).contains(&gone), "{gone} s after {first} ms");
    }
    let gone = gone_after(10, &[500, 3_800, 7_100, 10_400, 13_700], true).await;
    assert!((23.7..24.3).contains(&gone), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_ended_while_machines_get_time_to_return_nor_where_a_fifth_is_no_second() {
    // etcd adds a second on top.
    let gone = gone_after(10, &[], false).await;
    assert!((11.0..11.6).contains(&gone), "{gone}");
    let gone = gone_after(4, &[], true).await;
    assert!((5.0..5.6).contains(&gone), "{gone}");
}
