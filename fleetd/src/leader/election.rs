//! The election: one lease, one key, and a term whose create revision fences every write of its
//! leader.

use std::time::Duration;

use fleet_core::model::{FORMAT, Leader};
use fleet_core::name::MachineId;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use crate::process::clock;
use crate::process::repeated::Repeated;
use crate::store::kv::WatchEvent;
use crate::store::{LeaseId, Store, StoreError, Term};

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
    let (present, revision) = store.leader().await?;
    if present.is_some() {
        wait_until_vacant(store, revision).await?;
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

async fn wait_until_vacant(store: &Store, revision: i64) -> Result<(), StoreError> {
    let mut changes = store.watch_leader(revision).await?;
    while let Some(batch) = changes.recv().await {
        if batch?.events.iter().any(|event| matches!(event, WatchEvent::Delete(_))) {
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
