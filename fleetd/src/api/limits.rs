//! How much of this machine the clients of the API may take, each limit with its reason.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::transfer::MAX_IMPORT_BYTES;
use fleet_core::wire::MAX_BODY_BYTES;

use super::budget::{self, Budget, Refusal, Share};
use super::guests::Source;

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

/// Bytes of imports that are in memory at once, of all clients: one of the largest is the half that
/// one client may take.
const IMPORTS_BYTES: usize = 2 * MAX_IMPORT_BYTES;

/// The same of all other bodies: 16 of the largest, 8 of one client.
const BODIES_BYTES: usize = 16 * MAX_BODY_BYTES;

/// The same of answers over [`SMALL_BODY`] that are being sent: who reads slowly keeps the whole
/// answer in memory. The largest export is some 64 MiB.
const ANSWERS_BYTES: usize = 256 * 1024 * 1024;

/// A large answer may take longer to be read: as long as it takes at this many bytes a second.
const SLOWEST_READER: usize = 32 * 1024;

/// How long a client may take nothing of what it is sent: one that was stopped while it followed
/// something would hold its place for ever.
const UNREAD: Duration = Duration::from_secs(120);

/// Requests that are being answered at once: nearly each reads a part of the cluster, some MB of a
/// large one. One more waits for its turn.
const REQUESTS: usize = 64;

/// The same of those that read and write out everything: exports, imports, checks of the store,
/// snapshots.
const WHOLE: usize = 4;

/// The same of those that wait for what other machines answer.
const ASKING: usize = 64;

/// How long a request waits for its turn. fleetctl asks another endpoint after 10 s of silence.
const TURN: Duration = Duration::from_secs(5);

/// Followers at once, of units or of events. They share one copy of the cluster; each has a
/// connection and what it was told last.
const FOLLOWERS: usize = 512;

/// Followers at once that read a copy of their own, as each does when it begins: 3 MB with a
/// thousand units. One more waits for its turn.
const BEGINNERS: usize = 8;

/// Requests for a journal at once; a followed one has a copy of the cluster, too.
const JOURNALS: usize = 64;

/// journalctl and systemctl processes at once that end by themselves, each with some MB of memory.
const PROCESSES: usize = 64;

/// journalctl processes at once that follow. They have places of their own, so that they never keep
/// a `status` waiting. Another machine that follows all instances of a template here, up to 200,
/// takes the half that one client may take.
const STREAMS: usize = 400;

/// Services at once in which podman is asked: it locks its store, and reads large folders or asks
/// registries.
const PODMANS: usize = 4;

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
    /// journalctl and systemctl processes at once that end by themselves.
    pub processes: usize,
    /// journalctl processes at once that follow.
    pub streams: usize,
    /// Requests that are being answered at once.
    pub requests: usize,
    /// How long a client may take nothing of what it is sent.
    pub unread: Duration,
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
            streams: STREAMS,
            requests: REQUESTS,
            unread: UNREAD,
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
            // The machine's own users have as many again, and each has two pipes.
            processes: PROCESSES.min(share / 8),
            streams: STREAMS.min(share / 4),
            ..Limits::default()
        }
    }

    /// How long a body of so many bytes may take.
    pub(super) fn body_time(&self, bytes: usize) -> Duration {
        self.body + Duration::from_secs((bytes / SLOWEST_BODY) as u64)
    }

    /// How long an answer of so many bytes may take to be read.
    pub(super) fn answer_time(&self, bytes: usize) -> Duration {
        self.body + Duration::from_secs((bytes / SLOWEST_READER) as u64)
    }
}

/// What answering a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A part of the cluster is read, or something is written.
    Usual,
    /// Everything is read and written out.
    Whole,
    /// Other machines are asked.
    Asking,
}

/// What of these is taken, and by whom.
pub(super) struct Budgets {
    imports: Arc<Budget>,
    bodies: Arc<Budget>,
    answers: Arc<Budget>,
    requests: Arc<Budget>,
    whole: Arc<Budget>,
    asking: Arc<Budget>,
    followers: Arc<Budget>,
    beginners: Arc<Budget>,
    journals: Arc<Budget>,
    processes: Arc<Budget>,
    streams: Arc<Budget>,
    podmans: Arc<Budget>,
}

impl Budgets {
    pub(super) fn new(limits: &Limits) -> Budgets {
        let of = Budget::new;
        Budgets {
            imports: of("imports", "bytes for imports", IMPORTS_BYTES),
            bodies: of("bodies", "bytes for large requests", BODIES_BYTES),
            answers: of("answers", "bytes for large answers", ANSWERS_BYTES),
            requests: of("requests", "places for requests under way", limits.requests),
            whole: of("whole", "places for exports, imports and checks of the store", WHOLE),
            asking: of("asking", "places for requests that ask other machines", ASKING),
            followers: of("followers", "places for followers", limits.followers),
            beginners: of("beginners", "places for followers that begin", BEGINNERS),
            journals: of("journals", "places for journals", limits.journals),
            processes: of("processes", "places for journalctl and systemctl", limits.processes),
            streams: of("streams", "places for journalctl --follow", limits.streams),
            podmans: of("podmans", "places for questions to podman", PODMANS),
        }
    }

    /// What they came to, in Prometheus' text form.
    pub(super) fn metrics(&self) -> String {
        budget::metrics(&[
            &self.imports,
            &self.bodies,
            &self.answers,
            &self.requests,
            &self.whole,
            &self.asking,
            &self.followers,
            &self.beginners,
            &self.journals,
            &self.processes,
            &self.streams,
            &self.podmans,
        ])
    }

    /// Room for a body, which a small one does not need.
    pub(super) fn body(
        &self,
        source: Source,
        bytes: usize,
        is_import: bool,
    ) -> Result<Option<Share>, Refusal> {
        let budget = if is_import { &self.imports } else { &self.bodies };
        (bytes > SMALL_BODY).then(|| budget.take(source, bytes)).transpose()
    }

    /// Room for an answer until it is sent, which a small one does not need.
    pub(super) fn answer(&self, source: Source, bytes: usize) -> Result<Option<Share>, Refusal> {
        (bytes > SMALL_BODY).then(|| self.answers.take(source, bytes)).transpose()
    }

    /// A request's turn.
    pub(super) async fn turn(&self, source: Source, kind: Kind) -> Result<Share, Refusal> {
        let budget = match kind {
            Kind::Usual => &self.requests,
            Kind::Whole => &self.whole,
            Kind::Asking => &self.asking,
        };
        budget.wait(source, 1, TURN).await
    }

    /// A place for one more follower.
    pub(super) fn follower(&self, source: Source) -> Result<Share, Refusal> {
        self.followers.take(source, 1)
    }

    /// A follower's turn to read a copy of its own.
    pub(super) async fn beginner(&self, source: Source) -> Result<Share, Refusal> {
        self.beginners.wait(source, 1, TURN).await
    }

    /// A place for one more request for a journal.
    pub(super) fn journal(&self, source: Source) -> Result<Share, Refusal> {
        self.journals.take(source, 1)
    }

    /// The turn of a journalctl or systemctl that ends by itself.
    pub(super) async fn process(&self, source: Source) -> Result<Share, Refusal> {
        self.processes.wait(source, 1, TURN).await
    }

    /// The turn of a question to podman.
    pub(super) async fn podman(&self, source: Source) -> Result<Share, Refusal> {
        self.podmans.wait(source, 1, TURN).await
    }

    /// A place for one more journalctl that follows.
    pub(super) fn stream(&self, source: Source) -> Result<Share, Refusal> {
        self.streams.take(source, 1)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn connections_take_a_quarter_of_the_descriptors_at_most() {
        let limits = Limits::for_descriptors(1024);
        assert_eq!((limits.connections, limits.connections_of_one), (256, 128));
        // A connection each, two pipes each of these, and as many for the machine's own users.
        let taken = limits.connections + 2 * 2 * (limits.processes + limits.streams);
        assert!(taken < 1024 - 256, "{limits:?}");
        let limits = Limits::for_descriptors(65_536);
        assert_eq!(
            (limits.connections, limits.connections_of_one),
            (CONNECTIONS, CONNECTIONS_OF_ONE)
        );
        assert_eq!((limits.processes, limits.streams), (PROCESSES, STREAMS));
    }

    #[test]
    fn one_import_of_the_largest_size_fits_for_each_of_two_and_small_bodies_need_no_room() {
        let budgets = Budgets::new(&Limits::default());
        let (one, two) = (IpAddr::from([10, 0, 0, 1]).into(), IpAddr::from([10, 0, 0, 2]).into());
        let largest = budgets.body(one, MAX_IMPORT_BYTES, true).unwrap();
        assert!(largest.is_some() && budgets.body(one, SMALL_BODY + 1, true).is_err());
        assert!(budgets.body(two, MAX_IMPORT_BYTES, true).is_ok());
        assert!(budgets.body(one, SMALL_BODY, true).unwrap().is_none());
        let other = budgets.body(one, MAX_BODY_BYTES, false);
        assert!(other.unwrap().is_some(), "other bodies have room of their own");
        drop(largest);
        assert!(budgets.body(one, SMALL_BODY + 1, true).is_ok());
    }

    #[tokio::test]
    async fn followed_journals_leave_the_processes_that_status_needs() {
        let budgets = Budgets::new(&Limits::default());
        let streams = std::iter::from_fn(|| budgets.stream(Source::Local).ok());
        let streams: Vec<_> = streams.collect();
        assert_eq!(streams.len(), STREAMS);
        assert!(budgets.process(Source::Local).await.is_ok());
        let metrics = budgets.metrics();
        assert!(metrics.contains("refused_total{budget=\"streams\"} 1\n"), "{metrics}");
    }
}
