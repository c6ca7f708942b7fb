//! The events: read, watched, written and trimmed. They lie beside the root, under a prefix of
//! their own.

use fleet_core::event::Event;

use super::kv::{Change, Compare, KeyValue, MAX_TXN_OPS, WatchStream};
use super::{Store, StoreError, Term, mirror};

/// An event with its size; `event` is `None` if it cannot be read, which spoils nothing but itself.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    /// Its name.
    pub id: String,
    /// What it takes in the store, in bytes.
    pub bytes: usize,
    /// What it says.
    pub event: Option<Event>,
}

impl Store {
    /// All events, oldest first, and the store's revision to watch from.
    pub async fn events(&self) -> Result<(Vec<StoredEvent>, i64), StoreError> {
        let range = self.kv.range(self.keys.events()).await?;
        Ok((range.kvs.iter().map(|kv| self.stored_event(kv)).collect(), range.revision))
    }

    /// Every change of events after `revision`. Read them with [`Store::stored_event`].
    pub async fn watch_events(&self, revision: i64) -> Result<WatchStream, StoreError> {
        self.kv.watch(self.keys.events(), revision + 1).await
    }

    /// Reads an event that a range or a watch brought.
    pub fn stored_event(&self, kv: &KeyValue) -> StoredEvent {
        let id = kv.key.strip_prefix(self.keys.events()).unwrap_or(&kv.key).to_string();
        StoredEvent {
            id,
            bytes: kv.key.len() + kv.value.len(),
            event: mirror::parse(&kv.value).ok(),
        }
    }

    /// Removes events, if the term still leads.
    pub async fn delete_events(&self, term: Term, ids: &[String]) -> Result<(), StoreError> {
        let fence = Compare::CreateRevision(self.keys.leader(), term.create_revision);
        for chunk in ids.chunks(MAX_TXN_OPS) {
            let deletes: Vec<Change> =
                chunk.iter().map(|id| Change::Delete { key: self.keys.event(id) }).collect();
            self.apply(std::slice::from_ref(&fence), &deletes, "the leader key").await?;
        }
        Ok(())
    }
}
