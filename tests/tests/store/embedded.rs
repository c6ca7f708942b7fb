//! The suite on the embedded store, and what becomes of its file.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::kv::{Kv, StoreError};

use crate::{PATIENCE, Store, next, put, put_leased, run_suite};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let kv = Arc::new(open(&folder.path().join("store")).await);
    let compacted = kv.clone();
    let compact = move |revision| {
        compacted.compact(revision);
        Box::pin(std::future::ready(())) as _
    };
    run_suite("the embedded store", Store { kv, compact: Arc::new(compact) }).await;
}

#[tokio::test]
async fn a_reopened_store_is_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let kv = open(&path).await;
    let lease = kv.grant(PATIENCE).await.unwrap();
    kv.txn(&[], &[put("a", "1"), put_leased("b", lease)]).await.unwrap();
    let revision = kv.txn(&[], &[put("a", "2")]).await.unwrap().revision;
    let before = kv.range("").await.unwrap();
    kv.close().await;

    let kv = open(&path).await;
    assert_eq!(kv.range("").await.unwrap(), before);
    let mut gone = kv.watch("", revision).await.unwrap();
    assert!(matches!(next(&mut gone).await, Err(StoreError::Compacted(_))));
    let mut watch = kv.watch("", revision + 1).await.unwrap();
    assert!(kv.keep_alive(lease).await.unwrap());
    kv.revoke(lease).await.unwrap();
    assert_eq!(crate::text(&next(&mut watch).await.unwrap()), format!("{}: -b", revision + 1));
}

#[tokio::test]
async fn a_lease_has_its_whole_time_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let kv = open(&path).await;
    let lease = kv.grant(Duration::from_secs(2)).await.unwrap();
    let revision = kv.txn(&[], &[put_leased("a", lease)]).await.unwrap().revision;
    kv.close().await;
    let opened = Instant::now();
    let kv = open(&path).await;
    let mut watch = kv.watch("", revision + 1).await.unwrap();
    next(&mut watch).await.unwrap();
    assert!(opened.elapsed() >= Duration::from_secs(2), "after {:?}", opened.elapsed());
}

#[tokio::test(start_paused = true)]
async fn leases_follow_paused_time_and_writing_does_not_let_it_pass() {
    const HOUR: Duration = Duration::from_secs(3600);
    let folder = tempfile::tempdir().unwrap();
    let kv = open(&folder.path().join("store")).await;
    let granted = tokio::time::Instant::now();
    let lease = kv.grant(HOUR).await.unwrap();
    for _ in 0..100 {
        kv.txn(&[], &[put_leased("a", lease)]).await.unwrap();
        kv.range("").await.unwrap();
    }
    assert_eq!(granted.elapsed(), Duration::ZERO);
    tokio::time::advance(HOUR / 2).await;
    assert!(kv.keep_alive(lease).await.unwrap());
    tokio::time::advance(HOUR - Duration::from_secs(1)).await;
    assert!(kv.get("a").await.unwrap().0.is_some());
    let mut watch = kv.watch("", 102).await.unwrap();
    assert_eq!(crate::text(&watch.recv().await.unwrap().unwrap()), "102: -a");
    assert!(granted.elapsed() >= HOUR / 2 + HOUR);
    assert!(granted.elapsed() < HOUR / 2 + HOUR + Duration::from_secs(1));
}

#[tokio::test]
async fn only_so_much_history_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(&folder.path().join("store")).await;
    let changes: Vec<_> = (0..100).map(|i| put(&format!("{i}"), "")).collect();
    let mut last = 0;
    for _ in 0..150 {
        last = kv.txn(&[], &changes).await.unwrap().revision;
    }
    // 10,000 events are 100 revisions here.
    assert!(next(&mut kv.watch("", last - 99).await.unwrap()).await.is_ok());
    let mut gone = kv.watch("", last - 100).await.unwrap();
    assert!(
        matches!(next(&mut gone).await, Err(StoreError::Compacted(oldest)) if oldest == last - 99)
    );
}

#[tokio::test]
async fn a_closed_store_ends_its_watches() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(&folder.path().join("store")).await;
    let mut watch = kv.watch("", 1 + 1).await.unwrap();
    kv.close().await;
    assert!(matches!(next(&mut watch).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let first = open(&path).await;
    let problem = EmbeddedKv::open(&path).await.err().unwrap().to_string();
    assert!(
        problem.contains(&format!("{} is in use by another fleetd", path.display())),
        "{problem}"
    );
    first.close().await;
    open(&path).await;
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    for garbage in [b"garbage".repeat(10_000), b"x".to_vec()] {
        std::fs::write(&path, &garbage).unwrap();
        let problem = EmbeddedKv::open(&path).await.err().unwrap().to_string();
        assert!(
            problem.contains(&format!("{} is not a fleet store, or is damaged", path.display())),
            "{problem}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), garbage);
    }
}

#[tokio::test]
async fn a_folder_that_is_missing_is_named() {
    let problem = EmbeddedKv::open("/nowhere/store").await.err().unwrap().to_string();
    assert!(problem.contains("/nowhere/store cannot be opened: No such file"), "{problem}");
}

#[tokio::test]
async fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    open(&path).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

async fn open(path: &Path) -> EmbeddedKv {
    EmbeddedKv::open(path).await.unwrap()
}
