//! Moves that users asked for: written by the API, deleted by the leader.

use std::collections::BTreeMap;

use fleet_core::model::Move;
use fleet_core::name::UnitName;
use fleet_core::plan::Answered;

use super::acts;
use super::batch::put;
use super::kv::{Change, Compare, MAX_TXN_OPS};
use super::leader::Term;
use super::{Store, StoreError};

/// The most moves that are wished for at once.
pub const MAX_MOVES: usize = 1000;

impl Store {
    /// Asks for a move, in the place of an older wish for the same instance. Answers with the
    /// revision; `None` if there are too many wishes already.
    pub async fn put_move(&self, name: &UnitName, wish: &Move) -> Result<Option<i64>, StoreError> {
        let key = self.keys.a_move(name);
        let wishes = self.kv.range(&self.keys.moves()).await?;
        if wishes.kvs.len() >= MAX_MOVES {
            return Ok(None);
        }
        let mut changes = vec![put(&key, wish, None)?];
        changes.extend(acts::changes(self.told_act(Some(wishes.revision)).await?));
        self.apply_unlocked(&[], &changes, &key).await.map(Some)
    }

    /// Deletes wishes that are answered, if the term still leads. One that was written again since
    /// stays: it is another one.
    pub async fn delete_moves(
        &self,
        term: Term,
        answered: &BTreeMap<UnitName, Answered>,
    ) -> Result<(), StoreError> {
        let answered: Vec<_> = answered.iter().collect();
        for some in answered.chunks(MAX_TXN_OPS / 2) {
            let mut compares =
                vec![Compare::CreateRevision(self.keys.leader(), term.create_revision)];
            let mut deletes = Vec::new();
            for (instance, answered) in some {
                let key = self.keys.a_move(instance);
                compares.push(Compare::ModRevision(key.clone(), answered.wish));
                deletes.push(Change::Delete { key });
            }
            self.apply(&compares, &deletes, "the leader key or a wish for a move").await?;
        }
        Ok(())
    }
}
