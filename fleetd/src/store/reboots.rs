//! The rules and locks of reboots. A lock and the drain that it begins are written together.

use fleet_core::model::{FORMAT, Reboots, Settings};
use fleet_core::name::MachineId;

use super::batch::{put, unchanged};
use super::{Store, StoreError, Versioned, acts};

impl Store {
    /// The rules and locks of reboots; those of a cluster in which nobody has asked yet, of no
    /// revision, if there are none.
    pub async fn reboots(&self) -> Result<(Reboots, Option<i64>), StoreError> {
        let found = self.document::<Reboots>(&self.keys.reboots()).await?.0;
        let none = || (Reboots { v: FORMAT, ..Reboots::default() }, None);
        Ok(found.map_or_else(none, |Versioned { value, revision }| (value, Some(revision))))
    }

    /// Rewrites them, if they still are as they were read.
    pub async fn put_reboots(&self, new: &Reboots, old: Option<i64>) -> Result<i64, StoreError> {
        let key = self.keys.reboots();
        let mut changes = vec![put(&key, new, None)?];
        changes.extend(acts::changes(self.told_act(old).await?));
        self.apply_unlocked(&[unchanged(&key, old)], &changes, &key).await
    }

    /// Rewrites them together with what is set for a machine, if both still are as they were read.
    pub async fn put_reboots_and_settings(
        &self,
        (new, old): (&Reboots, Option<i64>),
        machine: &MachineId,
        (settings, settings_old): (&Settings, Option<i64>),
    ) -> Result<i64, StoreError> {
        let (key, other) = (self.keys.reboots(), self.keys.settings(machine));
        let compares = [unchanged(&key, old), unchanged(&other, settings_old)];
        let mut changes = vec![put(&key, new, None)?, put(&other, settings, None)?];
        changes.extend(acts::changes(self.told_act(old).await?));
        self.apply_unlocked(&compares, &changes, &key).await
    }
}
