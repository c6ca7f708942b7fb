//! Imports are whole wherever their writer dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use fleet_core::app::{AppName, Application};
use fleet_core::model::{DesiredState, FORMAT, Settings, UnitRecord};
use fleet_core::name::{MachineId, UnitName};
use fleet_tests::interposed::{Fate, Interposed, Request};
use fleetd::store::kv::{Kv, StoreError};
use fleetd::store::{Documents, UnitsLock};

use crate::{Case, Store, cases};

pub(crate) const CASES: &[Case] = cases![
    an_import_is_whole_wherever_its_writer_dies
    what_fits_one_transaction_is_one_revision
    nobody_else_writes_units_while_an_import_has_the_lock
    an_import_whose_lock_ran_out_changes_nothing
    a_hundred_changed_units_are_one_revision
    what_goes_goes_with_what_comes_however_much_it_is
    what_is_removed_is_no_error_if_its_texts_stay_for_now
];

/// More than fit one transaction: two documents each.
const MANY: usize = 150;

/// A unit that the import removes.
const GOES: &str = "goes.service";

/// A store whose transactions stop after some number, as if the process had died: the last one not
/// done, or done and its answer lost.
pub(crate) fn dying(inner: Arc<dyn Kv>, deaths: usize, done: bool) -> Interposed {
    let left = AtomicUsize::new(deaths);
    let fate = move |request| {
        let dead = StoreError::Unavailable("the process died".to_string());
        match (request, left.load(SeqCst)) {
            (Request::Range | Request::KeepAlive, _) => Fate::Done,
            (_, 0) => Fate::Refused(dead),
            (Request::Revoke, _) => Fate::Done,
            (Request::Txn, now) => {
                left.store(now - 1, SeqCst);
                match (now, done) {
                    (1, false) => Fate::Refused(dead),
                    (1, true) => Fate::Unheard(dead),
                    _ => Fate::Done,
                }
            }
        }
    };
    Interposed { inner, fate: Box::new(fate) }
}

fn records(count: usize) -> Vec<(UnitRecord, bool)> {
    let record = |n: usize| UnitRecord {
        desired: DesiredState::Launched,
        created_ms: 1,
        ..UnitRecord::new(
            UnitName::trusted(format!("u{n:04}.service")),
            format!("[Service]\nExecStart=/bin/echo {n}\n"),
        )
    };
    (0..count).map(|n| (record(n), true)).collect()
}

fn settings() -> Vec<(MachineId, Settings)> {
    vec![(MachineId::new("m1"), Settings { v: FORMAT, ..Settings::default() })]
}

pub(crate) fn typed(kv: &Arc<dyn Kv>, prefix: &str) -> fleetd::store::Store {
    fleetd::store::Store::new(kv.clone(), prefix)
}

/// The application that an import brings.
fn app() -> Application {
    Application {
        v: FORMAT,
        name: AppName::parse("shop").expect("a name"),
        revision: 1,
        units: BTreeSet::new(),
        replicas: BTreeMap::new(),
        files: BTreeMap::new(),
        applied_ms: 1,
        unknown: BTreeMap::new(),
    }
}

/// Imports so many units, settings and an application, and removes others.
async fn import(
    store: &fleetd::store::Store,
    lock: UnitsLock,
    count: usize,
    removed: &[UnitName],
) -> Result<i64, StoreError> {
    let (records, settings, app) = (records(count), settings(), app());
    let all = Documents {
        records: &records,
        settings: &settings,
        apps: std::slice::from_ref(&app),
        removed,
        ..Documents::default()
    };
    store.import(lock, &all).await
}

/// What a fleetd that comes after sees: how many units.
async fn seen(store: &fleetd::store::Store) -> usize {
    let mirror = store.read_all().await.expect("a read");
    assert!(!mirror.importing() && mirror.corrupt().is_empty());
    let cluster = mirror.cluster();
    let is_there = cluster.records.contains_key("u0000.service");
    assert_eq!(mirror.settings().len(), usize::from(is_there));
    assert_eq!(cluster.apps.len(), usize::from(is_there));
    assert!(!(is_there && cluster.records.contains_key(GOES)), "it goes with what comes");
    cluster.records.len() - usize::from(cluster.records.contains_key(GOES))
}

async fn an_import_is_whole_wherever_its_writer_dies(store: Store, p: String) {
    for done in [false, true] {
        let mut outcomes = Vec::new();
        for deaths in 1.. {
            let prefix = format!("{p}{done}{deaths}");
            let goes = UnitRecord::new(UnitName::trusted(GOES), "[Service]\nExecStart=/bin/true\n");
            typed(&store.kv, &prefix).put_unit(&goes, None, true).await.expect("a unit");
            let gone = [goes.name];
            let dying: Arc<dyn Kv> = Arc::new(dying(store.kv.clone(), deaths, done));
            let importer = typed(&dying, &prefix);
            let imported = match importer.lock_units().await {
                Ok(lock) => import(&importer, lock, MANY, &gone).await,
                Err(error) => Err(error),
            };
            // An earlier fleetd, which removes nothing, may be the one that finishes it.
            let root = format!("/{}/", prefix.trim_matches('/'));
            let raw = async |key: &str| store.kv.get(&format!("{root}{key}")).await.unwrap().0;
            let lock = raw("import").await.map(|lock| String::from_utf8(lock.value).unwrap());
            if lock.is_some_and(|lock| lock.contains("\"decided\":true")) {
                assert!(raw(&format!("units/{GOES}")).await.is_none(), "after {deaths}");
            }
            let after = typed(&store.kv, &prefix);
            let units = seen(&after).await;
            assert!(units == 0 || units == MANY, "{units} units after transaction {deaths}");
            outcomes.push(units);
            // The dead writer's lease runs out; then everybody can write again, and import.
            let lock = store
                .kv
                .get(&format!("/{}/import", prefix.trim_matches('/')))
                .await
                .expect("a read")
                .0;
            if let Some(lease) = lock.and_then(|lock| lock.lease) {
                store.kv.revoke(lease).await.expect("the lease's end");
            }
            let lock = after.lock_units().await.expect("the lock");
            import(&after, lock, MANY, &gone).await.expect("a second import");
            assert_eq!(seen(&after).await, MANY);
            let names: Vec<(UnitName, u64)> =
                records(MANY).into_iter().map(|(record, _)| (record.name, 1)).collect();
            assert!(after.texts(&names).await.expect("texts").iter().all(Option::is_some));
            if imported.is_ok() {
                break;
            }
        }
        // There is one moment before which nothing is there and after which everything is.
        assert!(outcomes.is_sorted() && outcomes[0] == 0 && outcomes.len() > 8, "{outcomes:?}");
    }
}

async fn what_fits_one_transaction_is_one_revision(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    let lock = typed.lock_units().await.expect("the lock");
    let before = crate::now(&store).await;
    let revision = import(&typed, lock, 20, &[]).await.expect("an import");
    let kvs = store.kv.range(&format!("/{}", p.trim_matches('/'))).await.expect("a range").kvs;
    assert_eq!(kvs.len(), 20 + 20 + 2, "records, texts, settings, the application, and no lock");
    assert!(revision > before && kvs.iter().all(|kv| kv.mod_revision == revision));
}

async fn nobody_else_writes_units_while_an_import_has_the_lock(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    let (record, _) = records(1).remove(0);
    let lock = typed.lock_units().await.expect("the lock");
    let conflict = |answer: Result<i64, StoreError>| matches!(answer, Err(StoreError::Conflict(_)));
    assert!(conflict(typed.put_unit(&record, None, true).await));
    assert!(conflict(typed.put_settings(&MachineId::new("m1"), &Settings::default(), None).await));
    assert!(
        matches!(typed.lock_units().await, Err(StoreError::Conflict(_))),
        "one import at a time"
    );
    typed.unlock_units(lock).await.expect("unlocked");
    let revision = typed.put_unit(&record, None, true).await.expect("a write");
    let lock = typed.lock_units().await.expect("the lock");
    assert!(conflict(typed.delete_unit(&record.name, revision).await));
    typed.unlock_units(lock).await.expect("unlocked");
    typed.delete_unit(&record.name, revision).await.expect("a removal");
}

async fn an_import_whose_lock_ran_out_changes_nothing(store: Store, p: String) {
    for count in [3, MANY] {
        let typed = typed(&store.kv, &format!("{p}{count}"));
        let lock = typed.lock_units().await.expect("the lock");
        let key = format!("/{}{count}/import", p.trim_start_matches('/'));
        let lease = store
            .kv
            .get(&key)
            .await
            .expect("a read")
            .0
            .and_then(|lock| lock.lease)
            .expect("the lock's lease");
        store.kv.revoke(lease).await.expect("the lease's end");
        let late = import(&typed, lock, count, &[]).await;
        assert!(matches!(late, Err(StoreError::Conflict(_))), "{late:?}");
        assert_eq!(seen(&typed).await, 0);
    }
}

async fn a_hundred_changed_units_are_one_revision(store: Store, p: String) {
    let typed = typed(&store.kv, &p);
    let lock = typed.lock_units().await.expect("the lock");
    let revision = import(&typed, lock, 100, &[]).await.expect("an import");
    let units = format!("/{}/units/", p.trim_matches('/'));
    let kvs = store.kv.range(&units).await.expect("a range").kvs;
    assert_eq!(kvs.len(), 100);
    assert!(kvs.iter().all(|kv| kv.mod_revision == revision));
}

async fn what_goes_goes_with_what_comes_however_much_it_is(store: Store, p: String) {
    for (there, goes) in [(20, 10), (MANY, 140)] {
        let typed = typed(&store.kv, &format!("{p}{there}"));
        let lock = typed.lock_units().await.expect("the lock");
        import(&typed, lock, there, &[]).await.expect("an import");
        let all = records(there);
        let gone: Vec<UnitName> =
            all[there - goes..].iter().map(|(record, _)| record.name.clone()).collect();
        let lock = typed.lock_units().await.expect("the lock");
        let documents = Documents {
            records: &all[..1],
            removed: &gone,
            removed_apps: &[app().name],
            ..Documents::default()
        };
        typed.import(lock, &documents).await.expect("a removal");
        let mirror = typed.read_all().await.expect("a read");
        assert_eq!(mirror.cluster().records.len(), there - goes);
        assert!(mirror.cluster().apps.is_empty());
        let texts: Vec<(UnitName, u64)> =
            all.into_iter().map(|(record, _)| (record.name, 1)).collect();
        let found = typed.texts(&texts).await.expect("texts");
        assert_eq!(found.iter().flatten().count(), there - goes, "their texts are gone, too");
        assert!(typed.app(&app().name).await.expect("a read").is_none());
    }
}

async fn what_is_removed_is_no_error_if_its_texts_stay_for_now(store: Store, p: String) {
    let whole = typed(&store.kv, &p);
    let unit = UnitRecord::new(UnitName::trusted(GOES), "[Service]\nExecStart=/bin/true\n");
    let revision = whole.put_unit(&unit, None, true).await.expect("a unit");
    // The removal is done, and the store is away for what comes after it.
    let dying: Arc<dyn Kv> = Arc::new(dying(store.kv.clone(), 2, false));
    typed(&dying, &p).delete_unit(&unit.name, revision).await.expect("it is removed");
    assert_eq!(whole.unit(&unit.name).await.expect("a read").0, None);
    let texts = [(unit.name, 1)];
    assert_eq!(whole.texts(&texts).await.expect("texts").iter().flatten().count(), 1);
}
