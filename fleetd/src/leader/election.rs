//! The election: one lease, one key, and a term whose create revision fences every write of its
//! leader.

use std::time::Duration;

use fleet_core::model::{FORMAT, Leader};
use fleet_core::name::MachineId;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use crate::process::clock;
use crate::process::repeated::Repeated;
use crate::store::{LeaseId, Seat, Store, StoreError, Term};

/// Stand-bys try this long after the key went, at most, each at its own time, so that they do not
/// all try at once.
const SPREAD_MS: u64 = 30;

/// How long to wait before an unreachable store is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Returns when this machine has been elected. Until then it watches the leader key and nothing
/// else.
pub async fn campaign(store: &Store, machine: &MachineId, ttl: Duration) -> Term {
    let mut repeated = Repeated::default();
    loop {
        match try_campaign(store, machine, ttl).await {
            Ok(Some(term)) => return term,
            Ok(None) => {}
            // A store that is away is said by the session; one that refuses needs a person.
            Err(StoreError::Refused(problem)) => {
                if let Some(problem) = repeated.fresh(problem) {
                    error!("this machine cannot lead: the store refused: {problem}");
                }
                sleep(RETRY).await;
            }
            Err(error) => {
                debug!("the election waits: {error}");
                sleep(RETRY).await;
            }
        }
    }
}

/// One try: `None` when somebody leads and has gone since, so that it is time to try again.
async fn try_campaign(
    store: &Store,
    machine: &MachineId,
    ttl: Duration,
) -> Result<Option<Term>, StoreError> {
    let (seat, revision) = store.seat().await?;
    if let Seat::Usurped(written) = seat
        && store.vacate(written).await?
    {
        error!(
            "the key that says who leads was written at revision {written} by somebody who was \
                not elected; it is removed, and another leader is elected. Whoever can write \
                etcd's keys commands the cluster: see who can"
        );
        return Ok(None);
    }
    if seat != Seat::Vacant {
        wait_for_a_change(store, revision).await?;
        sleep(Duration::from_millis(pause_ms(machine, revision))).await;
        return Ok(None);
    }
    let lease = store.grant(ttl).await?;
    let leader = Leader { v: FORMAT, machine: machine.clone(), since_ms: clock::now_ms() };
    let term = store.campaign(&leader, lease).await;
    if !matches!(term, Ok(Some(_))) {
        // Lost, or maybe won without hearing of it: either way this lease must not hold the key.
        let _ = store.revoke(lease).await;
    }
    term
}

/// This machine's pause in the election after `revision`: another one each time and on each
/// machine, the same in each replay. FNV-1a.
fn pause_ms(machine: &MachineId, revision: i64) -> u64 {
    let bytes = machine.as_str().bytes().chain(revision.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 16) % SPREAD_MS
}

/// Of the leader key: it goes with its lease, and nobody who was elected writes it again.
async fn wait_for_a_change(store: &Store, revision: i64) -> Result<(), StoreError> {
    let mut changes = store.watch_leader(revision).await?;
    while let Some(batch) = changes.recv().await {
        if !batch?.events.is_empty() {
            return Ok(());
        }
    }
    Err(StoreError::Unavailable("the watch of the leader key ended".to_string()))
}

/// Keeps a term alive; returns when it is over: the store says so, or could not be asked for the
/// whole lease time.
pub async fn hold(store: &Store, lease: LeaseId, ttl: Duration) {
    let mut renewed = Instant::now();
    loop {
        sleep(ttl / 3).await;
        let sent = Instant::now();
        let left = ttl.saturating_sub(renewed.elapsed());
        match timeout(left, store.keep_alive(lease)).await {
            Ok(Ok(true)) => renewed = sent, // counted from the sending: the store's own count began no earlier
            Ok(Ok(false)) => return warn!("the leader's lease has expired"),
            Ok(Err(error)) => debug!("the leader's lease was not renewed: {error}"),
            Err(_) => {}
        }
        if renewed.elapsed() >= ttl {
            return warn!(
                "the leader's lease could not be renewed for {} s; another may lead now",
                ttl.as_secs()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::embedded::EmbeddedKv;
    use crate::store::kv::{Change, Kv};

    /// Far above what an election takes; far below the leases here, which nobody renews.
    const SOON: Duration = Duration::from_secs(10);

    const TTL: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_leader_that_nobody_elected_keeps_nobody_from_leading() {
        let folder = tempfile::tempdir().unwrap();
        let kv = Arc::new(EmbeddedKv::open(&folder.path().join("store")).await.unwrap());
        let store = Store::new(kv.clone(), "/fleet/");
        let forge = async |value: &str| {
            let (key, value) = ("/fleet/leader".to_string(), value.as_bytes().to_vec());
            kv.txn(&[], &[Change::Put { key, value, lease: None }]).await.unwrap();
        };
        let elected = async |id: &str| {
            let machine = MachineId::new(id);
            tokio::time::timeout(SOON, campaign(&store, &machine, TTL)).await.expect("in time")
        };
        for forged in [r#"{"v":1,"machine":"m","since_ms":0}"#, "no document"] {
            forge(forged).await;
            let term = elected("a").await;
            // Over the key of one that leads: it stands by as long as it must, and no longer.
            let (next, ()) = tokio::join!(elected("b"), forge(forged));
            assert!(next.create_revision > term.create_revision);
            store.revoke(next.lease).await.unwrap();
        }
    }
}
