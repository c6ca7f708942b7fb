//! Documents on their way into a transaction, within etcd's limits.

use fleet_core::model::MAX_DOCUMENT_BYTES;
use serde::Serialize;

use super::kv::{Change, Compare, MAX_TXN_OPS};
use super::{LeaseId, StoreError};

/// How many acts one commit transaction tells of at most: what users did a moment ago. More have
/// transactions of their own.
pub const ACTS_A_COMMIT: usize = 4;

/// How many documents one commit transaction holds at most; each takes a compare and a put. The
/// others are for the fence's document, the event, the outlook and the acts.
pub(super) const COMMIT_DOCUMENTS: usize = MAX_TXN_OPS - 4 - ACTS_A_COMMIT;

/// … and how many compares: one more for the leader, and three for a document that is guarded.
const COMMIT_COMPARES: usize = MAX_TXN_OPS - 4;

/// How many bytes one commit transaction holds at most: etcd refuses requests over 1.5 MiB.
pub(super) const COMMIT_BYTES: usize = 1_300_000;

/// One transaction of several.
pub(super) struct Batch {
    pub(super) compares: Vec<Compare>,
    pub(super) changes: Vec<Change>,
    pub(super) bytes: usize,
    /// Whether it places anything fenced.
    pub(super) fenced: bool,
}

impl Batch {
    pub(super) fn new(fence: &Compare) -> Batch {
        Batch { compares: vec![fence.clone()], changes: Vec::new(), bytes: 0, fenced: false }
    }

    pub(super) fn is_full(&self, next_bytes: usize) -> bool {
        let full = self.changes.len() >= COMMIT_DOCUMENTS || self.compares.len() >= COMMIT_COMPARES;
        !self.changes.is_empty() && (full || self.bytes + next_bytes > COMMIT_BYTES)
    }
}

pub(super) fn unchanged(key: &str, revision: Option<i64>) -> Compare {
    match revision {
        Some(revision) => Compare::ModRevision(key.to_string(), revision),
        None => Compare::Absent(key.to_string()),
    }
}

pub(super) fn put(
    key: &str,
    document: &impl Serialize,
    lease: Option<LeaseId>,
) -> Result<Change, StoreError> {
    Ok(Change::Put {
        key: key.to_string(),
        value: encode(key, document, MAX_DOCUMENT_BYTES)?,
        lease,
    })
}

/// JSON, below the limit.
pub(super) fn encode(
    key: &str,
    document: &impl Serialize,
    limit: usize,
) -> Result<Vec<u8>, StoreError> {
    within(key, serde_json::to_vec(document), limit)
}

pub(super) fn within(
    key: &str,
    encoded: serde_json::Result<Vec<u8>>,
    limit: usize,
) -> Result<Vec<u8>, StoreError> {
    let value = encoded.map_err(|error| StoreError::Corrupt {
        key: key.to_string(),
        problem: error.to_string(),
    })?;
    if value.len() > limit {
        return Err(StoreError::TooLarge {
            what: format!("the document {key}"),
            bytes: value.len(),
            limit,
        });
    }
    Ok(value)
}
