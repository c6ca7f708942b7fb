//! A configuration changes together with the records of all that use it, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_core::app::AppName;
use fleet_core::configuration::{Asked, Configuration, KEPT_REVISIONS};
use fleet_core::model::{DesiredState, UnitRecord};
use fleet_core::name::UnitName;
use fleetd::store::Documents;
use fleetd::store::kv::{Kv, StoreError, WatchEvent};

use crate::imports::{dying, typed};
use crate::{Case, Store, cases, next};

pub(crate) const CASES: &[Case] = cases![
    a_change_and_its_users_are_one_revision
    who_comes_too_late_changes_nothing
    a_change_for_many_users_is_whole_wherever_its_writer_dies
    the_last_revisions_are_kept_and_go_with_the_configuration
    a_watch_brings_each_change
];

/// More records than one transaction takes.
const MANY: usize = 150;

fn shop() -> AppName {
    AppName::parse("shop").expect("a name")
}

/// The revision whose only value is its number.
fn revision(number: u64) -> Configuration {
    let values = BTreeMap::from([("n".to_string(), number.to_string())]);
    Configuration::new(shop(), values, number - 1)
}

fn user(n: usize) -> UnitRecord {
    let text = "[Service]\nExecStart=/usr/bin/web\nRestart=always\n[X-Fleet]\nConfig=shop\n";
    let desired = DesiredState::Launched;
    UnitRecord { desired, ..UnitRecord::new(UnitName::trusted(format!("u{n:04}.service")), text) }
}

async fn submit_users(store: &fleetd::store::Store, count: usize) {
    let records: Vec<(UnitRecord, bool)> = (0..count).map(|n| (user(n), true)).collect();
    let lock = store.lock_units().await.expect("the lock");
    let all = Documents { records: &records, ..Documents::default() };
    store.import(lock, &all).await.expect("an import");
}

/// Writes a revision and asks all users to take it, as the API does.
async fn change(store: &fleetd::store::Store, number: u64) -> Result<i64, StoreError> {
    let (old, _) = store.configuration(&shop()).await?;
    let mut users = store.configuration_users(&shop()).await?;
    for user in &mut users.records {
        user.value.config = Some(Asked { name: shop(), revision: number });
    }
    store.put_configuration(&revision(number), old.map(|old| old.revision), &users).await
}

/// The configuration's revision, 0 for none, and the one that each unit is asked to have.
async fn seen(store: &fleetd::store::Store) -> (u64, Vec<u64>) {
    let mirror = store.read_all().await.expect("a read");
    assert!(!mirror.importing() && mirror.corrupt().is_empty());
    let asked = |record: &Arc<UnitRecord>| record.config.as_ref().map_or(0, |it| it.revision);
    let asked = mirror.cluster().records.values().map(asked).collect();
    let (config, _) = store.configuration(&shop()).await.expect("a read");
    (config.map_or(0, |config| config.value.revision), asked)
}

async fn a_change_and_its_users_are_one_revision(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    submit_users(&typed, 20).await;
    let at = change(&typed, 1).await.expect("a change");
    assert_eq!(seen(&typed).await, (1, vec![1; 20]));
    let root = format!("/{}/", p.trim_matches('/'));
    let kvs = store.kv.range(&root).await.expect("a range").kvs;
    let others: Vec<&str> =
        kvs.iter().filter(|kv| kv.mod_revision != at).map(|kv| kv.key.as_str()).collect();
    assert!(others.is_empty() && kvs.len() == 20 + 1, "written otherwise: {others:?}");
}

async fn who_comes_too_late_changes_nothing(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    submit_users(&typed, 1).await;
    change(&typed, 1).await.expect("a change");
    let conflict = |answer: Result<i64, StoreError>| matches!(answer, Err(StoreError::Conflict(_)));
    // Another change came first.
    let old = typed.configuration(&shop()).await.expect("a read").0.expect("one").revision;
    change(&typed, 2).await.expect("a change");
    let users = typed.configuration_users(&shop()).await.expect("a read");
    assert!(conflict(typed.put_configuration(&revision(3), Some(old), &users).await));
    assert!(conflict(typed.put_configuration(&revision(3), None, &users).await));
    // A unit began to use it, which the change would not ask; nor may the configuration go.
    let (old, _) = typed.configuration(&shop()).await.expect("a read");
    let old = old.map(|old| old.revision);
    typed.put_unit(&user(1), None, true).await.expect("a unit");
    assert!(conflict(typed.put_configuration(&revision(3), old, &users).await));
    let gone = typed.delete_configuration(&shop(), old.expect("one"), &users).await;
    assert!(conflict(gone));
    // A user got another text.
    let users = typed.configuration_users(&shop()).await.expect("a read");
    let (record, _) = typed.unit(&user(0).name).await.expect("a read");
    let record = record.expect("a record");
    let rewritten = UnitRecord { replicas: None, created_ms: 7, ..record.value };
    typed.put_unit(&rewritten, Some(record.revision), false).await.expect("a write");
    assert!(conflict(typed.put_configuration(&revision(3), old, &users).await));
    assert_eq!(seen(&typed).await, (2, vec![2, 0]));
}

async fn a_change_for_many_users_is_whole_wherever_its_writer_dies(store: Store, p: String) {
    for done in [false, true] {
        let mut outcomes = Vec::new();
        for deaths in 1.. {
            let prefix = format!("{p}{done}{deaths}");
            let after = typed(&store.kv, &prefix);
            submit_users(&after, MANY).await;
            let dying: Arc<dyn Kv> = Arc::new(dying(store.kv.clone(), deaths, done));
            let changed = change(&typed(&dying, &prefix), 1).await;
            let (now, asked) = seen(&after).await;
            assert_eq!(asked, vec![now; MANY], "after transaction {deaths}");
            outcomes.push(now);
            let lock = format!("/{}/import", prefix.trim_matches('/'));
            let lock = store.kv.get(&lock).await.expect("a read").0;
            if let Some(lease) = lock.and_then(|lock| lock.lease) {
                store.kv.revoke(lease).await.expect("the lease's end");
            }
            change(&after, 2).await.expect("a second change");
            assert_eq!(seen(&after).await, (2, vec![2; MANY]));
            if changed.is_ok() {
                break;
            }
        }
        assert!(outcomes.is_sorted() && outcomes[0] == 0 && outcomes.len() > 5, "{outcomes:?}");
    }
}

async fn the_last_revisions_are_kept_and_go_with_the_configuration(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    let last = KEPT_REVISIONS + 2;
    for number in 1..=last {
        change(&typed, number).await.expect("a change");
    }
    let kept = async || {
        let kept = typed.configuration_revisions(&shop()).await.expect("a read");
        kept.iter().map(|config| config.revision).collect::<Vec<u64>>()
    };
    assert_eq!(kept().await, (3..=last).collect::<Vec<u64>>());
    let old = typed.configuration(&shop()).await.expect("a read").0.expect("one").revision;
    let users = typed.configuration_users(&shop()).await.expect("a read");
    typed.delete_configuration(&shop(), old, &users).await.expect("a removal");
    assert!(kept().await.is_empty() && typed.all_configurations().await.unwrap().is_empty());
}

async fn a_watch_brings_each_change(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    let (_, at) = typed.configuration(&shop()).await.expect("a read");
    let mut watch = typed.watch_configuration(&shop(), at).await.expect("a watch");
    change(&typed, 1).await.expect("a change");
    change(&typed, 2).await.expect("a change");
    for number in 1..=2 {
        let batch = next(&mut watch).await.expect("a change");
        let [WatchEvent::Put(kv)] = &batch.events[..] else { panic!("{batch:?}") };
        assert!(typed.is_configuration(&kv.key, &shop()));
        let config = typed.read_configuration(kv).expect("a configuration");
        assert_eq!((config.revision, &config.values["n"]), (number, &number.to_string()));
    }
}
