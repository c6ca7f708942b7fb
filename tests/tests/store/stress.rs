//! etcd at its limits: full, compacted under a reader, a request too large, slow, shared with
//! somebody who has a great many keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, CompactionOptions, DeleteOptions};
use fleet_core::model::{Assignment, FORMAT};
use fleet_core::name::MachineId;
use fleet_tests::etcd::{Etcd, binaries};
use fleet_tests::slow::Slow;
use fleetd::store::etcd::{EtcdKv, EtcdOptions};
use fleetd::store::kv::{Compare, Kv, StoreError};
use tokio::time::timeout;

use crate::{PATIENCE, next, put, put_leased};

/// etcd's smallest sensible quota, in bytes.
const QUOTA: &str = "4194304";

#[tokio::test]
async fn a_full_etcd_is_said_by_name_costs_no_lease_and_works_again_after_disarming() {
    const TTL: Duration = Duration::from_secs(2);
    for binary in binaries().unwrap() {
        let etcd = Etcd::start_with(&binary, &["--quota-backend-bytes", QUOTA]).await.unwrap();
        let kv = Arc::new(client(etcd.url()));
        let lease = kv.grant(TTL).await.unwrap();
        let mut last = kv.txn(&[], &[put_leased("machine", lease)]).await.unwrap().revision;
        let mut written = 0;
        let refused = loop {
            match kv.txn(&[], &[put(&format!("fill-{written}"), &"x".repeat(400_000))]).await {
                Ok(outcome) => (written, last) = (written + 1, outcome.revision),
                Err(error) => break error,
            }
            assert!(written < 100, "it never gets full");
        };
        assert!(matches!(refused, StoreError::Refused(_)), "{refused:?}");
        for part in ["alarm NOSPACE", "Compact", "defragment", "`etcdctl alarm disarm`"] {
            assert!(refused.to_string().contains(part), "{refused}");
        }
        // A machine that is there stays there, and everything that was acknowledged can be read and
        // followed.
        let full_since = Instant::now();
        while full_since.elapsed() < 2 * TTL {
            assert!(kv.keep_alive(lease).await.unwrap(), "the lease was lost");
            assert!(kv.get("machine").await.unwrap().0.is_some());
        }
        // etcd applies the one write that trips the quota, and refuses it all the same.
        let kept = kv.range("fill-").await.unwrap().kvs.len();
        assert!(
            (written..=written + 1).contains(&kept),
            "{written} were acknowledged and {kept} are there"
        );
        let mut watch = kv.watch("", last).await.unwrap();
        next(&mut watch).await.unwrap();
        assert!(
            matches!(kv.txn(&[], &[put("more", "1")]).await, Err(StoreError::Refused(_))),
            "it is full still"
        );

        // What the message asks of a person.
        let mut admin = Client::connect([etcd.url()], None).await.unwrap();
        admin.delete("fill-", Some(DeleteOptions::new().with_prefix())).await.unwrap();
        let revision = kv.get("machine").await.unwrap().1;
        admin.compact(revision, Some(CompactionOptions::new().with_physical())).await.unwrap();
        admin.defragment().await.unwrap();
        // `etcdctl alarm disarm` does so, too: an alarm is a member's.
        let raised = admin.alarm(AlarmAction::Get, AlarmType::Nospace, None).await.unwrap();
        for alarm in raised.alarms() {
            let mut member = AlarmOptions::new();
            member.with_member(alarm.member_id());
            admin.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(member)).await.unwrap();
        }
        let revision = kv.txn(&[], &[put("more", "1")]).await.unwrap().revision;
        while next(&mut watch).await.unwrap().revision < revision {}
        assert!(kv.keep_alive(lease).await.unwrap());
    }
}

#[tokio::test]
async fn a_request_over_this_etcds_limit_is_named_and_changes_nothing() {
    for binary in binaries().unwrap() {
        let etcd = Etcd::start_with(&binary, &["--max-request-bytes", "100000"]).await.unwrap();
        let kv = client(etcd.url());
        let before = kv.get("a").await.unwrap().1;
        let problem = kv
            .txn(&[], &[put("small", "1"), put("large", &"x".repeat(200_000))])
            .await
            .unwrap_err();
        assert!(matches!(problem, StoreError::TooLarge { bytes: 200_011.., .. }), "{problem:?}");
        assert!(problem.to_string().contains("--max-request-bytes"), "{problem}");
        assert_eq!(kv.get("small").await.unwrap(), (None, before));
        assert!(kv.txn(&[], &[put("small", "1")]).await.unwrap().applied);
    }
}

#[tokio::test]
async fn a_slow_leader_is_waited_for_and_a_late_answer_is_never_taken_for_a_failure() {
    for binary in binaries().unwrap() {
        let etcd = Etcd::start_with(&binary, &[]).await.unwrap();
        let slow = Slow::before(etcd.url().trim_start_matches("http://")).await.unwrap();
        let (kv, direct) = (client(slow.url()), client(etcd.url()));
        let lease = kv.grant(PATIENCE).await.unwrap();
        let mut revision = kv.txn(&[], &[put("a", "0")]).await.unwrap().revision;
        let mut watch = kv.watch("a", revision + 1).await.unwrap();
        slow.delay(Duration::from_millis(400));
        let outcome =
            kv.txn(&[Compare::ModRevision("a".into(), revision)], &[put("a", "1")]).await.unwrap();
        assert!(outcome.applied);
        revision = outcome.revision;
        assert_eq!(next(&mut watch).await.unwrap().revision, revision);
        assert!(kv.keep_alive(lease).await.unwrap());
        // Slower than a call may be: nobody knows whether it was applied, and so it must be said.
        slow.delay(Duration::from_secs(4));
        let asked = Instant::now();
        let unknown = kv.txn(&[Compare::ModRevision("a".into(), revision)], &[put("a", "2")]).await;
        assert!(matches!(unknown, Err(StoreError::Unavailable(_))), "{unknown:?}");
        assert!(asked.elapsed() < Duration::from_secs(4), "it waited {:?}", asked.elapsed());
        assert_eq!(
            direct.get("a").await.unwrap().0.unwrap().value,
            b"2",
            "it was applied all the same"
        );
        // Whoever looks again sees it, and the same write cannot be applied twice.
        slow.delay(Duration::ZERO);
        let again =
            kv.txn(&[Compare::ModRevision("a".into(), revision)], &[put("a", "2")]).await.unwrap();
        assert!(!again.applied);
        assert!(kv.keep_alive(lease).await.unwrap());
    }
}

#[tokio::test]
async fn ten_thousand_keys_of_somebody_else_are_neither_read_nor_watched_and_slow_nothing() {
    const KEYS: usize = 10_000;
    for binary in binaries().unwrap() {
        let etcd = Etcd::start_with(&binary, &[]).await.unwrap();
        let kv = Arc::new(client(etcd.url()));
        let store = fleetd::store::Store::new(kv.clone(), "/fleet/");
        let leader =
            fleet_core::model::Leader { v: FORMAT, machine: MachineId::new("a"), since_ms: 0 };
        let term =
            store.campaign(&leader, store.grant(PATIENCE).await.unwrap()).await.unwrap().unwrap();
        let documents = (0..50)
            .map(|i| {
                (MachineId::new(format!("m{i}")), Assignment { v: FORMAT, ..Assignment::default() })
            })
            .collect();
        let plan = fleet_core::plan::Plan { documents, ..Default::default() };
        store.commit(term, &store.read_all().await.unwrap(), &plan).await.unwrap();
        let before = store.read_all().await.unwrap();
        let quickest = quickest_read(&store).await;
        let mut watch = store.watch_all(before.cluster().snapshot.revision).await.unwrap();
        // Beside ours, in front and behind; one of them is what ours begins with.
        for chunk in (0..KEYS).collect::<Vec<_>>().chunks(100) {
            let key = |i: usize| {
                format!(
                    "{}{i}",
                    ["/other/", "/fleetx/", "/fleet", "zzz/", "/fleet-2/units/"][i % 5]
                )
            };
            kv.txn(
                &[],
                &chunk.iter().map(|i| put(&key(*i), &"x".repeat(1000))).collect::<Vec<_>>(),
            )
            .await
            .unwrap();
        }
        let after = store.read_all().await.unwrap();
        assert_eq!(after.cluster().snapshot.assignments, before.cluster().snapshot.assignments);
        assert!(after.corrupt().is_empty());
        assert!(
            timeout(Duration::from_millis(200), watch.recv()).await.is_err(),
            "a stranger's key came from the watch"
        );
        assert!(store.check().await.unwrap().problems.is_empty());
        let with_strangers = quickest_read(&store).await;
        assert!(
            with_strangers < 3 * quickest + Duration::from_millis(5),
            "{quickest:?} before, {with_strangers:?} now"
        );
    }
}

/// The quickest of many reads of everything: what it takes when nothing else disturbs.
async fn quickest_read(store: &fleetd::store::Store) -> Duration {
    let mut quickest = Duration::MAX;
    for _ in 0..50 {
        let asked = Instant::now();
        store.read_all().await.unwrap();
        quickest = quickest.min(asked.elapsed());
    }
    quickest
}

fn client(url: String) -> EtcdKv {
    EtcdKv::connect(EtcdOptions::new([url])).unwrap()
}

#[tokio::test]
async fn a_token_that_ran_out_is_renewed_without_a_failed_call() {
    const TTL: Duration = Duration::from_secs(1);
    for binary in binaries().unwrap() {
        let etcd = Etcd::start_with(&binary, &["--auth-token-ttl", &TTL.as_secs().to_string()])
            .await
            .unwrap();
        let mut admin = Client::connect([etcd.url()], None).await.unwrap();
        admin.user_add("root", "secret", None).await.unwrap();
        admin.role_add("root").await.unwrap();
        admin.user_grant_role("root", "root").await.unwrap();
        admin.auth_enable().await.unwrap();
        let credentials = Some(("root".to_string(), "secret".to_string()));
        let kv =
            EtcdKv::connect(EtcdOptions { credentials, ..EtcdOptions::new([etcd.url()]) }).unwrap();
        let lease = kv.grant(PATIENCE).await.unwrap();
        let revision = kv.txn(&[], &[put_leased("a", lease)]).await.unwrap().revision;
        let mut watch = kv.watch("", revision + 1).await.unwrap();
        // Each first call after a silence that outlives the token is another one.
        for call in 0..5 {
            assert!(
                timeout(3 * TTL, watch.recv()).await.is_err(),
                "the watch ended, or somebody wrote"
            );
            match call {
                0 => assert!(kv.keep_alive(lease).await.unwrap()),
                1 => assert!(kv.get("a").await.unwrap().0.is_some()),
                2 => drop(kv.watch("", 1).await.unwrap()),
                3 => drop(kv.grant(PATIENCE).await.unwrap()),
                _ => assert!(kv.txn(&[], &[put("b", "1")]).await.unwrap().applied),
            }
        }
        assert_eq!(next(&mut watch).await.unwrap().revision, revision + 1);
    }
}
