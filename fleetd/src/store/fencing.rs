//! The keepers' documents: a machine's keeper is alive (`keepers/`, under its lease), and which
//! life it is (`fences/`, kept).

use fleet_core::model::{Fence, Keeper};
use fleet_core::name::MachineId;

use super::batch::put;
use super::kv::{Change, Compare};
use super::mirror::parse;
use super::{LeaseId, Store, StoreError};

impl Store {
    /// Registers a machine's keeper under its lease and answers with the revision that names this
    /// life of it. A key under another lease is that of an earlier life whose lease has not ended,
    /// or of another machine with this id: [`StoreError::Conflict`].
    pub async fn register_keeper(
        &self,
        id: &MachineId,
        keeper: &Keeper,
        fence: &Fence,
        lease: LeaseId,
    ) -> Result<i64, StoreError> {
        let key = self.keys.keeper(id);
        match self.kv.get(&key).await?.0 {
            // An answer that got lost.
            Some(kv) if kv.lease == Some(lease) => return Ok(kv.create_revision),
            Some(_) => return Err(StoreError::Conflict(key)),
            None => {}
        }
        let changes = [put(&key, keeper, Some(lease))?, put(&self.keys.fence(id), fence, None)?];
        self.apply(&[Compare::Absent(key.clone())], &changes, &key).await
    }

    /// Renews a keeper's lease, and asks a majority whether this life of it is registered still: a
    /// store member that was cut off may renew what the others have ended.
    pub async fn keeper_lives(
        &self,
        id: &MachineId,
        life: i64,
        lease: LeaseId,
    ) -> Result<bool, StoreError> {
        if !self.kv.keep_alive(lease).await? {
            return Ok(false);
        }
        Ok(self.kv.get(&self.keys.keeper(id)).await?.0.is_some_and(|kv| kv.create_revision == life))
    }

    /// Whether a machine never had a keeper, or its last one ended after systemd had stopped all
    /// that was bound to it.
    pub(super) async fn keeper_has_ended(&self, id: &MachineId) -> Result<bool, StoreError> {
        if self.kv.get(&self.keys.keeper(id)).await?.0.is_some() {
            return Ok(false);
        }
        let Some(fence) = self.kv.get(&self.keys.fence(id)).await?.0 else { return Ok(true) };
        Ok(parse::<Fence>(&fence.value).is_ok_and(|fence| fence.released))
    }

    /// Ends a life of a machine's keeper in good order: everything that was bound to it has been
    /// stopped.
    pub async fn release_keeper(
        &self,
        id: &MachineId,
        life: i64,
        fence: &Fence,
        lease: LeaseId,
    ) -> Result<(), StoreError> {
        let key = self.keys.keeper(id);
        let released = Fence { released: true, ..fence.clone() };
        let changes =
            [Change::Delete { key: key.clone() }, put(&self.keys.fence(id), &released, None)?];
        self.apply(&[Compare::CreateRevision(key.clone(), life)], &changes, &key).await?;
        self.kv.revoke(lease).await
    }
}
