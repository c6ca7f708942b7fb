//! Acts: what users did, written in the transaction that does it, and deleted by the leader in the
//! transaction with the event that tells of it.
//!
//! Nobody reads the store to write one. A store whose acts nobody tells, since nobody leads or an
//! older version does, must not fill up all the same: each process looks now and then how many
//! there are, and writes none while they are too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use fleet_core::model::{Act, MAX_DOCUMENT_BYTES, UnitRecord};
use serde::{Deserialize, Serialize};

use super::batch::encode;
use super::kv::Change;
use super::{Store, StoreError};

/// How many acts the leader tells of in a transaction that does nothing else.
pub const ACTS_AT_ONCE: usize = 100;

/// With so many that nobody has told, no more are written: what users do then is told nowhere.
const MOST: usize = 1000;

/// After how many acts a process looks how many there are.
const LOOKED_AFTER: u32 = 100;

/// How many acts may be written before the next look.
#[derive(Debug)]
pub(super) struct Room(AtomicU32);

impl Default for Room {
    /// The first look comes early: a process may be started again and again.
    fn default() -> Room {
        Room(AtomicU32::new(LOOKED_AFTER / 4))
    }
}

/// `/fleet.revisions/<unit>/<n>.by`: where a text comes from. Written by the API, with the text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The format, [`FORMAT`](fleet_core::model::FORMAT).
    pub v: u32,
    /// Who submitted it, as far as fleetd knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When, in milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
}

/// A key with its value.
pub(super) type Put = (String, Vec<u8>);

/// Puts, as a transaction takes them.
pub(super) fn changes(puts: impl IntoIterator<Item = Put>) -> impl Iterator<Item = Change> {
    puts.into_iter().map(|(key, value)| Change::Put { key, value, lease: None })
}

impl Store {
    /// A handle whose next write of a user's says what the user did with it, and where a text comes
    /// from.
    pub fn telling(&self, act: Act) -> Store {
        Store { act: Some(Arc::new(act)), ..self.clone() }
    }

    /// Says what a user did that is no write of the store's.
    pub async fn put_act(&self, act: Act) -> Result<(), StoreError> {
        let Some(told) = self.telling(act).told_act(None).await? else { return Ok(()) };
        let key = told.0.clone();
        let told: Vec<Change> = changes([told]).collect();
        self.apply(&[], &told, &key).await.map(drop)
    }

    /// What tells of a write that replaces the revision `old`, or that a lock of this revision
    /// protects: no other act of the same moment has the same id.
    pub(super) async fn told_act(&self, old: Option<i64>) -> Result<Option<Put>, StoreError> {
        let Some(act) = &self.act else { return Ok(None) };
        if !self.has_room().await? {
            return Ok(None);
        }
        let subject = act.units.iter().next().map(|unit| unit.as_str());
        let subject = subject.or(act.machine.as_ref().map(|machine| machine.as_str()));
        let (at_ms, old, subject) = (act.at_ms, old.unwrap_or(0), subject.unwrap_or("-"));
        let key = self.keys.act(&format!("{at_ms:013}-{old}-{subject}"));
        let value = encode(&key, &**act, MAX_DOCUMENT_BYTES)?;
        Ok(Some((key, value)))
    }

    /// Where a new text comes from, if that is known.
    pub(super) fn origin_of(&self, record: &UnitRecord) -> Option<Put> {
        let act = self.act.as_ref()?;
        let origin = Origin { v: act.v, by: act.by.clone(), at_ms: act.at_ms };
        let key = self.keys.text_origin(&record.name, record.revision);
        Some((key, serde_json::to_vec(&origin).ok()?))
    }

    async fn has_room(&self) -> Result<bool, StoreError> {
        let Room(left) = &*self.acts_left;
        if left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Ok(true);
        }
        let there = self.kv.keys(&self.keys.acts()).await?.kvs.len();
        let has_room = there < MOST;
        if has_room {
            left.store(LOOKED_AFTER, Relaxed);
        }
        Ok(has_room)
    }
}
