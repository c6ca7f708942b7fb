//! The contract's leases. These cases run side by side, so none relies on being the only writer.

use std::time::Duration;

use fleetd::store::kv::{Compare, StoreError};
use tokio::time::Instant;

use crate::{Case, PATIENCE, Store, apply, cases, delete, get, next, put, put_leased, text};

pub(crate) const CASES: &[Case] = cases![
    a_lease_that_runs_out_deletes_its_keys_in_one_batch
    a_renewed_lease_lives_beyond_its_time
    a_lease_that_was_never_granted_cannot_be_renewed
    a_lease_tells_its_time_and_what_is_left_of_it
    a_revoked_lease_deletes_its_keys_at_once
    a_put_with_an_ended_lease_changes_nothing
    a_put_without_the_lease_detaches_the_key
    a_key_put_again_after_its_deletion_outlives_the_old_lease
];

/// The shortest that both stores grant.
const TTL: Duration = Duration::from_secs(2);

async fn a_lease_that_runs_out_deletes_its_keys_in_one_batch(store: Store, p: String) {
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    let granted = Instant::now();
    let lease = store.kv.grant(TTL).await.unwrap();
    let revision = apply(&store, &[put_leased(&b, lease), put_leased(&a, lease)]).await;
    let mut watch = store.kv.watch(&p, revision + 1).await.unwrap();
    let batch = next(&mut watch).await.unwrap();
    assert!(granted.elapsed() >= TTL, "after {:?}", granted.elapsed());
    assert_eq!(text(&batch), format!("{}: -{a} -{b}", batch.revision));
    assert!(store.kv.range(&p).await.unwrap().kvs.is_empty());
    assert!(!store.kv.keep_alive(lease).await.unwrap());
    store.kv.revoke(lease).await.unwrap();
}

async fn a_renewed_lease_lives_beyond_its_time(store: Store, key: String) {
    let lease = store.kv.grant(TTL).await.unwrap();
    let revision = apply(&store, &[put_leased(&key, lease)]).await;
    let mut watch = store.kv.watch(&key, revision + 1).await.unwrap();
    let until = Instant::now() + 2 * TTL;
    while Instant::now() < until {
        assert!(store.kv.keep_alive(lease).await.unwrap());
        tokio::select! {
            batch = watch.recv() => panic!("{batch:?} though it was renewed"),
            () = tokio::time::sleep(TTL / 4) => {} // the renewals' pace, as in production
        }
    }
    assert_eq!(get(&store, &key).await.unwrap().lease, Some(lease));
    assert_eq!(
        text(&next(&mut watch).await.unwrap()).split_once(": ").unwrap().1,
        format!("-{key}")
    );
    assert!(!store.kv.keep_alive(lease).await.unwrap());
}

async fn a_lease_that_was_never_granted_cannot_be_renewed(store: Store, _: String) {
    assert!(!store.kv.keep_alive(fleetd::store::kv::LeaseId(4711)).await.unwrap());
}

async fn a_lease_tells_its_time_and_what_is_left_of_it(store: Store, key: String) {
    let granted = Duration::from_secs(3);
    let lease = store.kv.grant(granted).await.unwrap();
    let revision = apply(&store, &[put_leased(&key, lease)]).await;
    let mut watch = store.kv.watch(&key, revision + 1).await.unwrap();
    let begin = Instant::now();
    assert!(store.kv.keep_alive(lease).await.unwrap());
    while begin.elapsed() < 2 * granted {
        let renewed = Instant::now();
        assert!(store.kv.keep_alive(lease).await.unwrap());
        let mut told = Vec::new();
        while told.last() != Some(&Duration::from_secs(2)) {
            let asked = renewed.elapsed();
            let time = store.kv.time_left(lease).await.unwrap().expect("it is renewed in time");
            assert_eq!(time.granted, granted);
            // At most: it ends no later than that after it was renewed. And no more than a second
            // too long.
            assert!(
                time.left >= granted.saturating_sub(renewed.elapsed()),
                "{time:?} after {:?}",
                renewed.elapsed()
            );
            assert!(
                time.left <= granted.saturating_sub(asked) + Duration::from_secs(1),
                "{time:?} after {asked:?}"
            );
            told.push(time.left);
            tokio::time::sleep(TTL / 20).await; // it is the passing of time that is told
        }
        assert!(told.is_sorted_by(|before, after| before >= after), "{told:?}");
    }
    assert!(next(&mut watch).await.is_ok(), "not renewed any more, it ends");
    assert_eq!(store.kv.time_left(lease).await.unwrap(), None);
    assert_eq!(store.kv.time_left(fleetd::store::kv::LeaseId(4711)).await.unwrap(), None);
}

async fn a_revoked_lease_deletes_its_keys_at_once(store: Store, p: String) {
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    let lease = store.kv.grant(PATIENCE).await.unwrap();
    let revision = apply(&store, &[put_leased(&a, lease), put_leased(&b, lease)]).await;
    let mut watch = store.kv.watch(&p, revision + 1).await.unwrap();
    store.kv.revoke(lease).await.unwrap();
    assert!(store.kv.range(&p).await.unwrap().kvs.is_empty());
    assert_eq!(next(&mut watch).await.unwrap().events.len(), 2);
    assert!(!store.kv.keep_alive(lease).await.unwrap());
    store.kv.revoke(lease).await.unwrap();
}

async fn a_put_with_an_ended_lease_changes_nothing(store: Store, p: String) {
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    let lease = store.kv.grant(PATIENCE).await.unwrap();
    store.kv.revoke(lease).await.unwrap();
    let changes = [put(&a, "1"), put_leased(&b, lease)];
    let result = store.kv.txn(&[Compare::Absent(a.clone())], &changes).await;
    assert!(matches!(result, Err(StoreError::LeaseExpired)), "{result:?}");
    assert!(store.kv.range(&p).await.unwrap().kvs.is_empty());
    // A compare that fails comes first.
    apply(&store, &[put(&a, "0")]).await;
    assert!(!store.kv.txn(&[Compare::Absent(a)], &changes).await.unwrap().applied);
}

async fn a_put_without_the_lease_detaches_the_key(store: Store, p: String) {
    let (kept, lost) = (format!("{p}kept"), format!("{p}lost"));
    let lease = store.kv.grant(PATIENCE).await.unwrap();
    apply(&store, &[put_leased(&kept, lease), put_leased(&lost, lease)]).await;
    apply(&store, &[put(&kept, "mine")]).await;
    store.kv.revoke(lease).await.unwrap();
    assert_eq!(get(&store, &kept).await.unwrap().lease, None);
    assert_eq!(get(&store, &lost).await, None);
}

async fn a_key_put_again_after_its_deletion_outlives_the_old_lease(store: Store, key: String) {
    let old = store.kv.grant(PATIENCE).await.unwrap();
    let new = store.kv.grant(PATIENCE).await.unwrap();
    apply(&store, &[put_leased(&key, old)]).await;
    apply(&store, &[delete(&key)]).await;
    apply(&store, &[put_leased(&key, new)]).await;
    store.kv.revoke(old).await.unwrap();
    assert_eq!(get(&store, &key).await.unwrap().lease, Some(new));
    store.kv.revoke(new).await.unwrap();
    assert_eq!(get(&store, &key).await, None);
}
