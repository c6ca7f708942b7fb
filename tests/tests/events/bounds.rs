//! What telling costs, and that it stays within its bounds.

use fleet_core::event::{Event, Item, MAX_EVENT_BYTES, What};
use fleet_core::name::MachineId;
use fleetd::leader::event_log::{MAX_BYTES, MAX_EVENTS};

use crate::cluster::{Cluster, Elected};

const SLEEPER: &str = "[Service]\nExecStart=/bin/sleep 1d\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_of_100_000_instances_is_a_few_dozen_transactions_and_all_of_it_is_told() {
    let mut cluster = Cluster::start().await;
    cluster.join((0..1000).map(|i| format!("{i:032x}"))).await;
    let mut leader = cluster.elect(&format!("{:032x}", 0)).await;
    leader.tick(&cluster).await.unwrap();
    cluster.submit("web@.service", Some(100_000), SLEEPER).await;
    let (before, told) = (cluster.revision().await, cluster.events().await.len());
    leader.tick(&cluster).await.unwrap();
    let transactions = cluster.revision().await - before;
    assert!(transactions <= 36, "{transactions} transactions");
    let events = cluster.events().await.split_off(told);
    assert_eq!(events.len() as i64, transactions, "each transaction has its event");
    let placed =
        events.iter().flat_map(|event| &event.items).filter(|item| item.what == What::Placed);
    assert_eq!(placed.map(Item::instances).sum::<usize>(), 100_000);
}

#[tokio::test]
async fn old_events_go_when_there_are_too_many() {
    let mut cluster = Cluster::start().await;
    cluster.join(["a".to_string()]).await;
    let mut leader = cluster.elect("a").await;
    fill(&cluster, &leader, MAX_EVENTS - 2, 10).await;
    leader.reopen(&cluster).await;
    for count in 0..50 {
        cluster.submit("web@.service", Some(count % 2), SLEEPER).await;
        leader.tick(&cluster).await.unwrap();
        let events = cluster.events().await;
        assert!(events.len() <= MAX_EVENTS, "{}", events.len());
    }
    let told = cluster.told(0).await;
    assert!(
        told.ends_with("placed web@1.service on a: fewest units of the machines that fit"),
        "{told}"
    );
    assert!(cluster.events().await.len() > MAX_EVENTS / 2);
}

#[tokio::test]
async fn old_events_go_when_they_are_too_large() {
    let mut cluster = Cluster::start().await;
    cluster.join(["a".to_string()]).await;
    let mut leader = cluster.elect("a").await;
    fill(&cluster, &leader, MAX_BYTES / (MAX_EVENT_BYTES - 3000) - 1, MAX_EVENT_BYTES - 4000).await;
    leader.reopen(&cluster).await;
    for count in 0..20 {
        cluster.submit(&format!("{}.service", "x".repeat(100 + count)), None, SLEEPER).await;
        leader.tick(&cluster).await.unwrap();
        let stored = cluster.store.events().await.unwrap().0;
        let bytes: usize = stored.iter().map(|event| event.bytes).sum();
        assert!(bytes <= MAX_BYTES, "{bytes} bytes in {} events", stored.len());
    }
    // What is not gone is still most of what fits.
    let bytes: usize =
        cluster.store.events().await.unwrap().0.iter().map(|event| event.bytes).sum();
    assert!(bytes > MAX_BYTES / 2, "{bytes}");
}

/// Writes events of an earlier term, each with `bytes` of reason.
async fn fill(cluster: &Cluster, leader: &Elected, count: usize, bytes: usize) {
    for number in 0..count {
        let item = Item::of_machine(What::Other, MachineId::new("a"), "x".repeat(bytes));
        let event = Event {
            id: format!("{:016}-{number:09}", 0),
            leader: leader.engine.machine.clone(),
            ..Event::new(vec![item])
        };
        assert_eq!(event.left_out, 0);
        cluster.put_event(leader.term, &event).await;
    }
}
