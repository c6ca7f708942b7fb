//! How much of this machine the clients of the API may take, each limit with its reason.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::transfer::MAX_IMPORT_BYTES;
use fleet_core::wire::MAX_BODY_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at once in all. Each costs a descriptor and 10 to 40 KiB; a large cluster's
/// machines, its operators and its monitoring together have some hundreds open.
const CONNECTIONS: usize = 2048;

/// Connections at once from one address. A machine that follows the journal of a template opens
/// one for each instance that runs here, up to 200, and several of its users may do so.
const CONNECTIONS_OF_ONE: usize = 512;

/// The share of the process's descriptors that connections may take. The rest is for what keeps
/// the machine alive (etcd, the bus, files), and for what requests open besides: journalctl's
/// pipes, connections to other machines.
const CONNECTIONS_SHARE: u64 = 4;

/// How long a TCP connection may stay without its first byte: a client sends at once.
const FIRST_BYTE: Duration = Duration::from_secs(2);

/// How long a TLS handshake may take; a healthy one needs milliseconds.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long the head of a request may take, and how long a connection may stay idle before it.
const HEAD: Duration = Duration::from_secs(30);

/// The longest head of a request; names and tokens of clients need less than 2 KiB.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How long any body may take.
const BODY: Duration = Duration::from_secs(20);

/// A large body may take longer: as long as it takes at this many bytes a second.
const SLOWEST_BODY: usize = 256 * 1024;

/// Bodies up to this size do not count: nearly all are smaller.
const SMALL_BODY: usize = 64 * 1024;

/// Bytes of imports that are in memory at once: one of the largest, or many of the usual size.
const IMPORTS_BYTES: usize = MAX_IMPORT_BYTES;

/// The same of all other bodies: 16 of the largest.
const BODIES_BYTES: usize = 16 * MAX_BODY_BYTES;

/// Followers at once, of units or of events. They share one copy of the cluster; each has a
/// connection and what it was told last.
const FOLLOWERS: usize = 512;

/// Followers at once that read a copy of their own, as each does when it begins: 3 MB with a
/// thousand units. More of them wait their turn.
const BEGINNERS: usize = 8;

/// Requests for a journal at once; a followed one has a copy of the cluster, too.
const JOURNALS: usize = 64;

/// journalctl and systemctl processes at once, each with some MB of memory.
const PROCESSES: usize = 256;

/// The longest line of a journal; journald itself cuts what a unit prints at 48 KiB.
pub(super) const MAX_LINE: usize = 256 * 1024;

/// The longest `systemctl status` of one instance.
pub(super) const MAX_STATUS: usize = 256 * 1024;

/// The longest document that another machine answers with.
pub(super) const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// The limits in force.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once in all.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_of_one: usize,
    /// How long a TCP connection may stay without its first byte.
    pub first_byte: Duration,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the head of a request may take, and how long a connection may stay idle before it.
    pub head: Duration,
    /// How long a small body may take.
    pub body: Duration,
    /// Followers at once.
    pub followers: usize,
    /// Requests for a journal at once.
    pub journals: usize,
    /// journalctl and systemctl processes at once.
    pub processes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: CONNECTIONS,
            connections_of_one: CONNECTIONS_OF_ONE,
            first_byte: FIRST_BYTE,
            handshake: HANDSHAKE,
            head: HEAD,
            body: BODY,
            followers: FOLLOWERS,
            journals: JOURNALS,
            processes: PROCESSES,
        }
    }
}

impl Limits {
    /// For a process that may have so many descriptors open.
    pub fn for_descriptors(descriptors: u64) -> Limits {
        let share = usize::try_from(descriptors / CONNECTIONS_SHARE).unwrap_or(usize::MAX);
        let connections = CONNECTIONS.min(share);
        Limits {
            connections,
            connections_of_one: CONNECTIONS_OF_ONE.min(connections / 2),
            processes: PROCESSES.min(share),
            ..Limits::default()
        }
    }

    /// How long a body of so many bytes may take.
    pub(super) fn body_time(&self, bytes: usize) -> Duration {
        self.body + Duration::from_secs((bytes / SLOWEST_BODY) as u64)
    }
}

/// What of these is taken.
pub(super) struct Budgets {
    imports: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    beginners: Arc<Semaphore>,
    journals: Arc<Semaphore>,
    processes: Arc<Semaphore>,
}

impl Budgets {
    pub(super) fn new(limits: &Limits) -> Budgets {
        let of = |places: usize| Arc::new(Semaphore::new(places));
        Budgets {
            imports: of(IMPORTS_BYTES),
            bodies: of(BODIES_BYTES),
            followers: of(limits.followers),
            beginners: of(BEGINNERS),
            journals: of(limits.journals),
            processes: of(limits.processes),
        }
    }

    /// Room for a body, if there is any: `Ok(None)` for one so small that it needs none.
    pub(super) fn body(
        &self,
        bytes: usize,
        is_import: bool,
    ) -> Result<Option<OwnedSemaphorePermit>, ()> {
        if bytes <= SMALL_BODY {
            return Ok(None);
        }
        let budget = if is_import { &self.imports } else { &self.bodies };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        budget.clone().try_acquire_many_owned(bytes).map(Some).map_err(|_| ())
    }

    /// A place for one more follower, if there is any.
    pub(super) fn follower(&self) -> Option<OwnedSemaphorePermit> {
        self.followers.clone().try_acquire_owned().ok()
    }

    /// A follower's turn to read a copy of its own.
    pub(super) async fn beginner(&self) -> Option<OwnedSemaphorePermit> {
        self.beginners.clone().acquire_owned().await.ok()
    }

    /// A place for one more request for a journal, if there is any.
    pub(super) fn journal(&self) -> Option<OwnedSemaphorePermit> {
        self.journals.clone().try_acquire_owned().ok()
    }

    /// A place for one more journalctl or systemctl, if there is any.
    pub(super) fn process(&self) -> Option<OwnedSemaphorePermit> {
        self.processes.clone().try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_a_quarter_of_the_descriptors_at_most() {
        let limits = Limits::for_descriptors(1024);
        assert_eq!(
            (limits.connections, limits.connections_of_one, limits.processes),
            (256, 128, 256)
        );
        let limits = Limits::for_descriptors(65_536);
        assert_eq!(
            (limits.connections, limits.connections_of_one),
            (CONNECTIONS, CONNECTIONS_OF_ONE)
        );
    }

    #[test]
    fn one_import_of_the_largest_size_fits_and_small_bodies_need_no_room() {
        let budgets = Budgets::new(&Limits::default());
        let largest = budgets.body(MAX_IMPORT_BYTES, true).unwrap();
        assert!(largest.is_some() && budgets.body(SMALL_BODY + 1, true).is_err());
        assert!(budgets.body(SMALL_BODY, true).unwrap().is_none());
        assert!(
            budgets.body(MAX_BODY_BYTES, false).unwrap().is_some(),
            "other bodies have room of their own"
        );
        drop(largest);
        assert!(budgets.body(SMALL_BODY + 1, true).is_ok());
    }
}
