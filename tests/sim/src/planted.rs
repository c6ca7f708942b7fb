//! Planted bugs: what a run must find, so that we know that its checks can fail. Each is one line of fleetd taken away, at the seam
//! where the simulator can take it: in the store's client or in what a machine is configured with.

use std::fmt;

use fleetd::store::kv::{Compare, KeyValue, StoreError, WatchBatch};

use crate::network::deletes;

/// The answer of [`fleetd::store::kv::Kv::get`].
type Read = Result<(Option<KeyValue>, i64), StoreError>;

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Planted {
    /// A commit does not compare the leader key: a deposed leader still writes.
    UnfencedCommit,
    /// A write does not compare the revision of what it rewrites: the last one wins.
    LostUpdate,
    /// A store that does not answer is taken for an empty assignment.
    SilenceIsEmpty,
    /// An absent machine is lost at once, also right after an outage of the store.
    NoSettling,
    /// Deletions are lost on the watches.
    DeafToDeletions,
    /// A start of fleetd forgets the lease that the last one held.
    ForgetsItsLease,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 6] = [
        Planted::UnfencedCommit,
        Planted::LostUpdate,
        Planted::SilenceIsEmpty,
        Planted::NoSettling,
        Planted::DeafToDeletions,
        Planted::ForgetsItsLease,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Planted::UnfencedCommit => "unfenced-commit",
            Planted::LostUpdate => "lost-update",
            Planted::SilenceIsEmpty => "silence-is-empty",
            Planted::NoSettling => "no-settling",
            Planted::DeafToDeletions => "deaf-to-deletions",
            Planted::ForgetsItsLease => "forgets-its-lease",
        }
    }

    /// The bug of that name.
    pub fn parse(name: &str) -> Result<Planted, String> {
        let known = || Planted::ALL.map(Planted::name).join(", ");
        Planted::ALL
            .into_iter()
            .find(|bug| bug.name() == name)
            .ok_or_else(|| format!("no such planted bug; there are {}", known()))
    }

    pub(crate) fn compares(bug: Option<Planted>, compares: &[Compare]) -> Vec<Compare> {
        let kept = |compare: &&Compare| match (bug, compare) {
            (Some(Planted::UnfencedCommit), Compare::CreateRevision(key, _)) => !key.ends_with("/leader"),
            (Some(Planted::LostUpdate), Compare::ModRevision(key, _)) => !key.contains("/units/"),
            _ => true,
        };
        compares.iter().filter(kept).cloned().collect()
    }

    pub(crate) fn read(bug: Option<Planted>, key: &str, answer: Read) -> Read {
        match answer {
            Err(StoreError::Unavailable(_)) if bug == Some(Planted::SilenceIsEmpty) && key.contains("/assignments/") => {
                let value = br#"{"v":1,"generation":0,"instances":{}}"#.to_vec();
                Ok((Some(KeyValue { key: key.to_string(), value, create_revision: 0, mod_revision: 0, lease: None }), 0))
            }
            answer => answer,
        }
    }

    pub(crate) fn drops_batch(self, item: &Result<WatchBatch, StoreError>) -> bool {
        self == Planted::DeafToDeletions && deletes(item)
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
