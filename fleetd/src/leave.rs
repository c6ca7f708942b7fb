//! Leaving the cluster: this machine's units are stopped here, then it is gone from the list, and
//! they are started elsewhere.

use std::time::Duration;

use fleet_core::name::MachineId;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::agent::Agent;
use crate::machine::session;
use crate::store::{Registration, Store, StoreError};

/// How long the machine waits for its units to stop before it goes; what is slower stops here while
/// it runs elsewhere already. Long for most services, short for those who wait for the units of a
/// machine that shuts down.
const STOPPED_FIRST: Duration = Duration::from_secs(5);

/// How long the store may take to answer at all.
const ANSWER: Duration = Duration::from_secs(5);

/// Hands this machine's units over; `ttl` is its lease's time. The session must have ended. False
/// if the store does not answer: then nobody could start them elsewhere, and what is not fenced
/// runs on.
pub async fn leave(
    store: &Store,
    machine: &MachineId,
    registration: Option<Registration>,
    ttl: Duration,
    agent: &mut Agent,
) -> bool {
    if let Err(error) = ask(store, machine, registration).await {
        warn!(
            "not leaving: {error}. Nobody could take the units of this machine over, so they run \
                on, as at a restart, \
             but for fenced ones. Its lease runs out {} s after the last renewal; whoever reaches \
             the store then starts them elsewhere, too. \
             Start fleetd when the store is back, and stop it again to leave",
            ttl.as_secs()
        );
        // One that still waits for the store would hold a lease later, and nobody would be here to
        // use it.
        agent.end_keeper().await;
        return false;
    }
    let mut stopping = std::pin::pin!(agent.stop_everything());
    // The lease, which was renewed just now, lasts longer than this.
    let stopped = timeout(STOPPED_FIRST.min(ttl / 2), &mut stopping).await.is_ok();
    let goodbye = async {
        if let Some(registration) = registration {
            session::leave(store, machine, registration).await;
        }
    };
    if stopped {
        goodbye.await;
    } else {
        info!("some units are still stopping; they are started elsewhere meanwhile");
        tokio::join!(goodbye, stopping);
    }
    true
}

/// Whether the store answers; renews the lease.
async fn ask(
    store: &Store,
    machine: &MachineId,
    registration: Option<Registration>,
) -> Result<(), StoreError> {
    let asked = async {
        match registration {
            Some(registration) => store.keep_alive(registration.lease).await.map(drop),
            None => store.report_revision(machine).await.map(drop),
        }
    };
    match timeout(ANSWER, asked).await {
        Ok(Err(error @ StoreError::Unavailable(_))) => Err(error),
        Ok(_) => Ok(()), // another problem is said where it stands in the way
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {} s", ANSWER.as_secs()))),
    }
}
