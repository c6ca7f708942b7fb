//! The contract's watches.

use fleetd::store::kv::{StoreError, WatchEvent};

use crate::{Case, PATIENCE, Store, apply, cases, delete, get, next, now, put, text};

pub(crate) const CASES: &[Case] = cases![
    a_watch_sees_each_revision_in_one_batch
    a_watch_sees_only_its_prefix
    a_watch_resumes_without_a_gap
    a_watch_may_start_ahead
    a_watch_sees_the_same_as_a_read
    a_slow_reader_misses_nothing
    a_dropped_watch_disturbs_nobody
    compaction_under_a_slow_reader_loses_nothing
    a_watch_from_a_compacted_revision_says_so
];

async fn a_watch_sees_each_revision_in_one_batch(store: Store, p: String) {
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    let start = now(&store).await + 1;
    let mut watch = store.kv.watch(&p, start).await.unwrap();
    apply(&store, &[put(&a, "1"), put(&b, "1")]).await;
    apply(&store, &[put(&a, "2"), delete(&b)]).await;
    apply(&store, &[delete(&b)]).await; // changes nothing
    apply(&store, &[delete(&a)]).await;
    for expected in [
        format!("{start}: +{a}=1 +{b}=1"),
        format!("{}: +{a}=2 -{b}", start + 1),
        format!("{}: -{a}", start + 2),
    ] {
        assert_eq!(text(&next(&mut watch).await.unwrap()), expected);
    }
}

async fn a_watch_sees_only_its_prefix(store: Store, p: String) {
    let [inside, beside, outside] = ["a/b", "a0", "b"].map(|key| format!("{p}{key}"));
    let start = now(&store).await + 1;
    let mut watch = store.kv.watch(&format!("{p}a/"), start).await.unwrap();
    let mut all = store.kv.watch("", start).await.unwrap();
    apply(&store, &[put(&outside, "")]).await;
    let revision = apply(&store, &[put(&beside, ""), put(&inside, "")]).await;
    assert_eq!(text(&next(&mut watch).await.unwrap()), format!("{revision}: +{inside}="));
    assert_eq!(text(&next(&mut all).await.unwrap()), format!("{start}: +{outside}="));
    assert_eq!(next(&mut all).await.unwrap().events.len(), 2);
}

async fn a_watch_resumes_without_a_gap(store: Store, key: String) {
    let start = now(&store).await + 1;
    let mut watch = store.kv.watch(&key, start).await.unwrap();
    for i in 0..10 {
        apply(&store, &[put(&key, &i.to_string())]).await;
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(next(&mut watch).await.unwrap().revision);
    }
    drop(watch);
    for i in 10..20 {
        apply(&store, &[put(&key, &i.to_string())]).await;
    }
    let mut watch = store.kv.watch(&key, seen.last().unwrap() + 1).await.unwrap();
    while seen.len() < 20 {
        seen.push(next(&mut watch).await.unwrap().revision);
    }
    assert_eq!(seen, (start..start + 20).collect::<Vec<_>>());
}

async fn a_watch_may_start_ahead(store: Store, key: String) {
    let start = now(&store).await + 1;
    let mut watch = store.kv.watch(&key, start + 2).await.unwrap();
    for i in 0..4 {
        apply(&store, &[put(&key, &i.to_string())]).await;
    }
    assert_eq!(text(&next(&mut watch).await.unwrap()), format!("{}: +{key}=2", start + 2));
    assert_eq!(next(&mut watch).await.unwrap().revision, start + 3);
}

async fn a_watch_sees_the_same_as_a_read(store: Store, key: String) {
    let lease = store.kv.grant(PATIENCE).await.unwrap();
    let mut watch = store.kv.watch(&key, now(&store).await + 1).await.unwrap();
    apply(&store, &[put(&key, "1")]).await;
    next(&mut watch).await.unwrap();
    apply(&store, &[crate::put_leased(&key, lease)]).await;
    let read = get(&store, &key).await.unwrap();
    assert_eq!(read.lease, Some(lease));
    assert_eq!(next(&mut watch).await.unwrap().events, [WatchEvent::Put(read)]);
}

async fn a_slow_reader_misses_nothing(store: Store, key: String) {
    const CHANGES: i64 = 500; // several times any queue
    let start = now(&store).await + 1;
    let mut watch = store.kv.watch(&key, start).await.unwrap();
    for i in 0..CHANGES {
        apply(&store, &[put(&key, &i.to_string())]).await;
    }
    for revision in start..start + CHANGES {
        assert_eq!(next(&mut watch).await.unwrap().revision, revision);
    }
}

async fn a_dropped_watch_disturbs_nobody(store: Store, key: String) {
    let start = now(&store).await + 1;
    let mut kept = store.kv.watch(&key, start).await.unwrap();
    for _ in 0..100 {
        drop(store.kv.watch(&key, start).await.unwrap());
    }
    apply(&store, &[put(&key, "1")]).await;
    assert_eq!(next(&mut kept).await.unwrap().revision, start);
}

async fn compaction_under_a_slow_reader_loses_nothing(store: Store, p: String) {
    const CHANGES: i64 = 200; // of 100 kB, several times what any queue and socket holds
    let start = now(&store).await + 1;
    let mut watch = store.kv.watch(&p, start).await.unwrap();
    for i in 0..CHANGES {
        apply(&store, &[put(&format!("{p}{}", i % 7), &format!("{i} {}", "x".repeat(100_000)))])
            .await;
    }
    let last = start + CHANGES - 1;
    (store.compact)(last).await;
    let mut seen = std::collections::BTreeMap::new();
    let mut revision = start - 1;
    while revision < last {
        match next(&mut watch).await {
            Ok(batch) => {
                assert!(
                    batch.revision == revision + 1,
                    "a gap after {revision}: {}",
                    batch.revision
                );
                revision = batch.revision;
                for event in batch.events {
                    let WatchEvent::Put(kv) = event else { panic!("nothing was deleted") };
                    seen.insert(kv.key, kv.value);
                }
            }
            // As whoever follows does it: list again, go on from there.
            Err(StoreError::Compacted(_)) => {
                let range = store.kv.range(&p).await.unwrap();
                revision = range.revision;
                seen = range.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
                watch = store.kv.watch(&p, revision + 1).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    let stored =
        store.kv.range(&p).await.unwrap().kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
    assert!(seen == stored, "what was followed is not what is there");
}

async fn a_watch_from_a_compacted_revision_says_so(store: Store, key: String) {
    let first = apply(&store, &[put(&key, "1")]).await;
    let last = apply(&store, &[put(&key, "2")]).await;
    (store.compact)(last).await;
    let mut watch = store.kv.watch(&key, first).await.unwrap();
    let end = next(&mut watch).await;
    assert!(matches!(end, Err(StoreError::Compacted(revision)) if revision == last), "{end:?}");
    assert!(watch.recv().await.is_none(), "the error is the last item");
    let mut watch = store.kv.watch(&key, last).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, last);
}
