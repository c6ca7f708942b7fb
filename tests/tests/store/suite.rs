//! The contract's reads and transactions.

use std::collections::BTreeSet;

use fleetd::store::kv::{Compare, MAX_TXN_BYTES, MAX_TXN_OPS, Outcome, StoreError};
use tokio::task::JoinSet;

use crate::{Case, Store, apply, cases, delete, get, now, put};

pub(crate) const CASES: &[Case] = cases![
    a_range_is_ordered_and_tells_its_revision
    a_prefix_ends_where_it_ends
    the_empty_prefix_is_everything
    several_prefixes_come_in_the_order_asked_and_at_one_revision
    several_keys_come_in_the_order_asked
    absent_holds_only_for_an_absent_key
    a_mod_revision_holds_until_the_next_change
    a_create_revision_holds_until_the_key_is_deleted
    a_revision_of_zero_never_holds
    a_transaction_is_all_or_nothing
    a_transaction_without_changes_only_checks
    a_revision_is_one_higher_after_each_change_and_only_then
    a_put_tells_create_and_mod_revision
    a_key_changed_twice_in_one_transaction_is_refused
    concurrent_increments_lose_nothing
    a_value_over_the_limit_changes_nothing
    a_transaction_at_both_limits_works
    one_operation_over_the_limit_is_refused
    a_range_of_many_megabytes_works
];

async fn txn(store: &Store, compares: &[Compare], changes: &[fleetd::store::kv::Change]) -> bool {
    store.kv.txn(compares, changes).await.expect("a transaction").applied
}

async fn a_range_is_ordered_and_tells_its_revision(store: Store, p: String) {
    apply(&store, &[put(&format!("{p}b"), "2"), put(&format!("{p}c/d"), "3")]).await;
    let revision = apply(&store, &[put(&format!("{p}a"), "1")]).await;
    let range = store.kv.range(&p).await.unwrap();
    let keys: Vec<_> = range.kvs.iter().map(|kv| kv.key.strip_prefix(&p).unwrap()).collect();
    assert_eq!(keys, ["a", "b", "c/d"]);
    assert_eq!(range.kvs[2].value, b"3");
    assert_eq!(range.revision, revision);
}

async fn several_prefixes_come_in_the_order_asked_and_at_one_revision(store: Store, p: String) {
    let keys = ["a/1", "a/2", "b", "c/1", "d/1", "lock"].map(|key| format!("{p}{key}"));
    let revision = apply(&store, &keys.each_ref().map(|key| put(key, "x"))).await;
    let asked = ["d/", "a/", "nothing/", "lock"].map(|prefix| format!("{p}{prefix}"));
    let range = store.kv.ranges(&asked).await.unwrap();
    let found: Vec<_> = range.kvs.iter().map(|kv| kv.key.strip_prefix(&p).unwrap()).collect();
    assert_eq!((found, range.revision >= revision), (vec!["d/1", "a/1", "a/2", "lock"], true));
    assert!(store.kv.ranges(&[]).await.unwrap().kvs.is_empty());
}

async fn a_prefix_ends_where_it_ends(store: Store, p: String) {
    let keys = ["a", "a/", "a/b", "a/b/c", "a/b0", "a/bb", "a/c", "a0", "ä"]
        .map(|key| format!("{p}{key}"));
    apply(&store, &keys.each_ref().map(|key| put(key, ""))).await;
    for prefix in ["a/b", "a/b/", "a/", "a", "", "ä", "b"].map(|prefix| format!("{p}{prefix}")) {
        let found: Vec<_> =
            store.kv.range(&prefix).await.unwrap().kvs.into_iter().map(|kv| kv.key).collect();
        let expected: Vec<_> =
            keys.iter().filter(|key| key.starts_with(&prefix)).cloned().collect();
        assert_eq!(found, expected, "under {prefix}");
    }
}

async fn the_empty_prefix_is_everything(store: Store, p: String) {
    apply(&store, &[put(&p, "")]).await;
    assert!(store.kv.range("").await.unwrap().kvs.iter().any(|kv| kv.key == p));
}

async fn several_keys_come_in_the_order_asked(store: Store, p: String) {
    let [a, b, c] = ["a", "b", "c"].map(|key| format!("{p}{key}"));
    let revision = apply(&store, &[put(&a, "1"), put(&c, "3")]).await;
    let (found, at) = store.kv.get_many(&[c.clone(), b, a.clone(), c.clone()]).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|kv| kv.map(|kv| kv.key)).collect();
    assert_eq!(found, [Some(c.clone()), None, Some(a), Some(c)]);
    assert_eq!(at, revision);
    assert_eq!(store.kv.get_many(&[]).await.unwrap(), (vec![], revision));
}

async fn absent_holds_only_for_an_absent_key(store: Store, key: String) {
    let absent = [Compare::Absent(key.clone())];
    assert!(txn(&store, &absent, &[put(&key, "first")]).await);
    assert!(!txn(&store, &absent, &[put(&key, "second")]).await);
    assert_eq!(get(&store, &key).await.unwrap().value, b"first");
    apply(&store, &[delete(&key)]).await;
    assert!(txn(&store, &absent, &[put(&key, "third")]).await);
}

async fn a_mod_revision_holds_until_the_next_change(store: Store, key: String) {
    let first = apply(&store, &[put(&key, "1")]).await;
    let holds = |revision| [Compare::ModRevision(key.clone(), revision)];
    assert!(!txn(&store, &holds(first + 1), &[put(&key, "no")]).await);
    assert!(txn(&store, &holds(first), &[put(&key, "2")]).await);
    assert!(!txn(&store, &holds(first), &[put(&key, "no")]).await);
    apply(&store, &[delete(&key)]).await;
    assert!(!txn(&store, &holds(first), &[put(&key, "no")]).await);
    assert_eq!(get(&store, &key).await, None);
}

async fn a_create_revision_holds_until_the_key_is_deleted(store: Store, key: String) {
    let first = apply(&store, &[put(&key, "1")]).await;
    let created = [Compare::CreateRevision(key.clone(), first)];
    assert!(txn(&store, &created, &[put(&key, "2")]).await);
    assert!(txn(&store, &created, &[put(&key, "3")]).await);
    apply(&store, &[delete(&key)]).await;
    assert!(!txn(&store, &created, &[put(&key, "no")]).await);
    let again = apply(&store, &[put(&key, "4")]).await;
    assert!(!txn(&store, &created, &[put(&key, "no")]).await);
    assert_eq!(get(&store, &key).await.unwrap().create_revision, again);
}

async fn a_revision_of_zero_never_holds(store: Store, key: String) {
    for compare in [Compare::ModRevision(key.clone(), 0), Compare::CreateRevision(key.clone(), 0)] {
        assert!(!txn(&store, &[compare], &[put(&key, "no")]).await);
    }
}

async fn a_transaction_is_all_or_nothing(store: Store, p: String) {
    let [a, b, c] = ["a", "b", "c"].map(|key| format!("{p}{key}"));
    let revision = apply(&store, &[put(&a, "1")]).await;
    let compares =
        [Compare::ModRevision(a.clone(), revision), Compare::CreateRevision(b.clone(), revision)];
    let outcome = store.kv.txn(&compares, &[put(&c, "no"), delete(&a)]).await.unwrap();
    assert_eq!(outcome, Outcome { applied: false, revision });
    assert_eq!(store.kv.range(&p).await.unwrap().kvs.len(), 1);
    let outcome = store.kv.txn(&compares[..1], &[put(&c, "yes"), delete(&a)]).await.unwrap();
    assert_eq!(outcome, Outcome { applied: true, revision: revision + 1 });
    let left = store.kv.range(&p).await.unwrap().kvs;
    assert_eq!((left.len(), left[0].key.as_str()), (1, c.as_str()));
}

async fn a_transaction_without_changes_only_checks(store: Store, key: String) {
    let revision = now(&store).await;
    assert_eq!(
        store.kv.txn(&[Compare::Absent(key.clone())], &[]).await.unwrap(),
        Outcome { applied: true, revision }
    );
    let revision = apply(&store, &[put(&key, "")]).await;
    assert_eq!(
        store.kv.txn(&[Compare::Absent(key)], &[]).await.unwrap(),
        Outcome { applied: false, revision }
    );
}

async fn a_revision_is_one_higher_after_each_change_and_only_then(store: Store, key: String) {
    let before = now(&store).await;
    assert_eq!(apply(&store, &[put(&key, "1")]).await, before + 1);
    assert_eq!(apply(&store, &[put(&key, "1")]).await, before + 2);
    assert_eq!(apply(&store, &[delete(&key)]).await, before + 3);
    assert_eq!(apply(&store, &[delete(&key)]).await, before + 3);
    assert_eq!(apply(&store, &[]).await, before + 3);
    assert_eq!(now(&store).await, before + 3);
}

async fn a_put_tells_create_and_mod_revision(store: Store, key: String) {
    let created = apply(&store, &[put(&key, "1")]).await;
    let changed = apply(&store, &[put(&key, "2")]).await;
    let kv = get(&store, &key).await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.lease), (created, changed, None));
}

async fn a_key_changed_twice_in_one_transaction_is_refused(store: Store, key: String) {
    let refused = store.kv.txn(&[], &[put(&key, "1"), delete(&key)]).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
}

async fn concurrent_increments_lose_nothing(store: Store, key: String) {
    const TASKS: usize = 8;
    const EACH: usize = 25;
    apply(&store, &[put(&key, "0")]).await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (store, key) = (store.clone(), key.clone());
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            while revisions.len() < EACH {
                let kv = get(&store, &key).await.unwrap();
                let count: usize = String::from_utf8(kv.value).unwrap().parse().unwrap();
                let unchanged = [Compare::ModRevision(key.clone(), kv.mod_revision)];
                let outcome =
                    store.kv.txn(&unchanged, &[put(&key, &(count + 1).to_string())]).await.unwrap();
                revisions.extend(outcome.applied.then_some(outcome.revision));
            }
            revisions
        });
    }
    let revisions: BTreeSet<i64> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(revisions.len(), TASKS * EACH, "each has a revision of its own");
    assert_eq!(get(&store, &key).await.unwrap().value, (TASKS * EACH).to_string().into_bytes());
}

async fn a_value_over_the_limit_changes_nothing(store: Store, p: String) {
    let (small, large) = (format!("{p}small"), format!("{p}large"));
    let before = now(&store).await;
    let result =
        store.kv.txn(&[], &[put(&small, "1"), put(&large, &"x".repeat(MAX_TXN_BYTES + 1))]).await;
    assert!(matches!(result, Err(StoreError::TooLarge { .. })), "{result:?}");
    assert!(store.kv.range(&p).await.unwrap().kvs.is_empty());
    assert_eq!(now(&store).await, before);
}

async fn a_transaction_at_both_limits_works(store: Store, p: String) {
    let keys: Vec<_> = (0..MAX_TXN_OPS).map(|i| format!("{p}{i:03}")).collect();
    let value = "x".repeat(MAX_TXN_BYTES / MAX_TXN_OPS - 2 * keys[0].len());
    let compares: Vec<_> = keys.iter().cloned().map(Compare::Absent).collect();
    let changes: Vec<_> = keys.iter().map(|key| put(key, &value)).collect();
    assert!(txn(&store, &compares, &changes).await);
    let (found, _) = store.kv.get_many(&keys).await.unwrap();
    assert_eq!(found.into_iter().flatten().count(), MAX_TXN_OPS);
}

async fn one_operation_over_the_limit_is_refused(store: Store, p: String) {
    let keys: Vec<_> = (0..=MAX_TXN_OPS).map(|i| format!("{p}{i}")).collect();
    let changes: Vec<_> = keys.iter().map(|key| put(key, "")).collect();
    assert!(matches!(store.kv.txn(&[], &changes).await, Err(StoreError::Refused(_))));
    assert!(matches!(store.kv.get_many(&keys).await, Err(StoreError::Refused(_))));
}

async fn a_range_of_many_megabytes_works(store: Store, p: String) {
    let value = "x".repeat(1 << 20);
    let start = now(&store).await + 1;
    for i in 0..6 {
        apply(&store, &[put(&format!("{p}{i}"), &value)]).await;
    }
    assert_eq!(store.kv.range(&p).await.unwrap().kvs.len(), 6);
    // And a watch that catches up with it all at once.
    let mut watch = store.kv.watch(&p, start).await.unwrap();
    for revision in start..start + 6 {
        assert_eq!(crate::next(&mut watch).await.unwrap().revision, revision);
    }
}
