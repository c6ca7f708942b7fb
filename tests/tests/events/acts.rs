//! What users did is told once, with who, whoever leads, and costs no write of its own.

use fleet_core::event::{Event, Reason};
use fleet_core::model::{Act, DesiredState, Did, UnitRecord};
use fleet_core::name::UnitName;
use fleetd::store::{Origin, StoreError};

use crate::cluster::{Cluster, Elected, NOW_MS};

const SLEEPER: &str = "[Service]\nExecStart=/bin/sleep 1d\nRestart=always\n";

/// Anna does this to a unit, at a time that no other act has.
fn act(n: u64, did: Did) -> Act {
    Act::new("anna@h1", NOW_MS + n, did).of_unit(&web())
}

fn web() -> UnitName {
    UnitName::trusted("web@.service")
}

async fn start() -> (Cluster, Elected) {
    let mut cluster = Cluster::start().await;
    cluster.join(["a".to_string(), "b".to_string()]).await;
    let mut leader = cluster.elect("a").await;
    let did = Did::Submitted {
        revision: 1,
        change: "".into(),
        desired: DesiredState::Launched,
        replicas: None,
    };
    let record = UnitRecord {
        desired: DesiredState::Launched,
        replicas: Some(0),
        ..UnitRecord::new(web(), SLEEPER)
    };
    cluster.store.telling(act(0, did)).put_unit(&record, None, true).await.unwrap();
    leader.tick(&cluster).await.unwrap();
    (cluster, leader)
}

/// Anna scales the template.
async fn scale(cluster: &Cluster, n: u64, to: u32) -> Result<i64, StoreError> {
    let old = cluster.store.unit(&web()).await.unwrap().0.unwrap();
    let mut record = old.value;
    let from = record.replicas.replace(to).unwrap_or(0);
    let store = cluster.store.telling(act(n, Did::Scaled { from, to }));
    store.put_unit(&record, Some(old.revision), false).await
}

/// The lines of what users did.
async fn told(cluster: &Cluster) -> Vec<String> {
    let events = cluster.events().await;
    let items = events.iter().flat_map(|event| &event.items);
    let did = items.filter(|item| matches!(item.reason, Some(Reason::User { .. })));
    did.map(ToString::to_string).collect()
}

#[tokio::test]
async fn an_act_is_told_before_what_came_of_it_and_costs_no_write() {
    let (cluster, mut leader) = start().await;
    let (before, first) = (cluster.revision().await, cluster.events().await.len());
    scale(&cluster, 1, 2).await.unwrap();
    leader.tick(&cluster).await.unwrap();
    assert_eq!(cluster.revision().await - before, 2, "the user's write and the leader's");
    let events = cluster.events().await;
    let lines: Vec<String> = events[first].items.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "user anna@h1 scaled web@.service from 0 to 2",
            "placed web@1.service on a: fewest units of the machines that fit",
            "placed web@2.service on b: fewest units of the machines that fit",
        ]
    );
    assert!(cluster.mirror().await.acts().is_empty(), "nothing is left to tell");
    let about = |event: Event| event.about(Some(&web().replica(1)), None).map(|it| it.items.len());
    assert_eq!(about(events[first].clone()), Some(1), "of a replica: its own items alone");
}

#[tokio::test]
async fn an_act_is_told_once_whoever_leads_and_whatever_dies_in_between() {
    let (cluster, mut leader) = start().await;
    scale(&cluster, 1, 1).await.unwrap();
    // A look at a copy that is older than its own commit repeats nothing.
    let old = cluster.mirror().await;
    leader.tick_on(&old).await.unwrap();
    assert!(matches!(leader.tick_on(&old).await, Ok(None) | Err(StoreError::Conflict(_))));
    leader.reopen(&cluster).await;
    leader.tick(&cluster).await.unwrap();
    // Who leads no longer tells nothing, and its successor tells what it could not.
    leader.fall_silent().await;
    scale(&cluster, 2, 3).await.unwrap();
    assert!(matches!(leader.tick(&cluster).await, Err(StoreError::Conflict(_))));
    let destroyed = cluster.store.telling(act(3, Did::Destroyed));
    let revision = cluster.store.unit_revision(&web()).await.unwrap().unwrap();
    destroyed.delete_unit(&web(), revision).await.unwrap();
    let mut next = cluster.elect("b").await;
    next.tick(&cluster).await.unwrap();
    next.tick(&cluster).await.unwrap();
    assert_eq!(
        told(&cluster).await,
        [
            "user anna@h1 submitted web@.service, launched",
            "user anna@h1 scaled web@.service from 0 to 1",
            "user anna@h1 scaled web@.service from 1 to 3",
            "user anna@h1 destroyed web@.service",
        ]
    );
}

#[tokio::test]
async fn a_write_that_came_too_late_is_not_told() {
    let (cluster, mut leader) = start().await;
    let old = cluster.store.unit(&web()).await.unwrap().0.unwrap();
    scale(&cluster, 1, 1).await.unwrap();
    let late = cluster.store.telling(act(2, Did::Restarted));
    let answer = late.put_unit(&old.value, Some(old.revision), false).await;
    assert!(matches!(answer, Err(StoreError::Conflict(_))));
    leader.tick(&cluster).await.unwrap();
    assert_eq!(told(&cluster).await.len(), 2);
}

#[tokio::test]
async fn what_users_do_while_nobody_leads_is_bounded_and_told_later() {
    let (cluster, leader) = start().await;
    leader.fall_silent().await;
    for n in 0..1300 {
        scale(&cluster, n, u32::try_from(n % 2).unwrap()).await.unwrap();
    }
    let waiting = cluster.mirror().await.acts().len();
    assert!((1000..1200).contains(&waiting), "{waiting} wait to be told");
    let (before, already) = (cluster.revision().await, told(&cluster).await.len());
    let mut next = cluster.elect("b").await;
    next.tick(&cluster).await.unwrap();
    assert!(cluster.mirror().await.acts().is_empty());
    assert_eq!(told(&cluster).await.len(), already + waiting);
    let writes = cluster.revision().await - before;
    assert!(writes < 20, "{writes} writes for {waiting} acts");
    // There is room again.
    for n in 0..200 {
        scale(&cluster, 2_000 + n, u32::try_from(n % 2).unwrap()).await.unwrap();
    }
    assert_eq!(cluster.mirror().await.acts().len(), 200);
}

#[tokio::test]
async fn a_text_is_kept_with_where_it_comes_from() {
    let (cluster, _leader) = start().await;
    // An older version wrote the second.
    cluster.submit("web@.service", Some(0), "[Service]\nExecStart=/bin/true\n").await;
    let kept = cluster.store.kept_texts_of(&web()).await.unwrap();
    let origin = Origin { v: 1, by: "anna@h1".into(), at_ms: NOW_MS };
    assert_eq!(kept[0].origin, Some(origin));
    assert_eq!((kept[1].number, &kept[1].origin), (2, &None));
    let texts = cluster.store.texts_of(&web()).await.unwrap();
    assert_eq!(texts.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
    let check = cluster.store.check().await.unwrap();
    assert!(check.problems.iter().all(|problem| !problem.key.contains("revisions")));
    // It goes with the unit.
    let revision = cluster.store.unit_revision(&web()).await.unwrap().unwrap();
    cluster.store.delete_unit(&web(), revision).await.unwrap();
    assert_eq!(cluster.store.kept_texts_of(&web()).await.unwrap(), []);
}
