//! The store: typed documents over a byte-level [`kv::Kv`] (etcd or embedded). Every write is a
//! compare-and-swap.
//!
//! **Architecture invariant:** nothing here knows what a good placement is, or what systemd is;
//! nothing outside knows a key.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::brief::{Brief, Briefs};
use fleet_core::model::Act;
use serde::de::DeserializeOwned;

mod acts;
mod batch;
mod blobs;
mod check;
mod commit;
mod configurations;
pub mod counted;
pub mod embedded;
pub mod etcd;
mod events;
mod fencing;
mod history;
mod import;
mod keys;
pub mod kv;
mod leader;
mod machines;
mod mirror;
mod moves;
mod reboots;
mod staged;
pub mod terms;
mod units;

pub use acts::{ACTS_AT_ONCE, Origin};
pub use batch::ACTS_A_COMMIT;
pub use commit::{Commit, CommitBatch};
pub use configurations::Users;
pub use events::StoredEvent;
pub use import::{Documents, UnitsLock};
pub use keys::Part;
use keys::{Key, Keys};
use kv::{Change, Compare, Kv, TimeLeft, WatchStream};
pub use kv::{LeaseId, StoreError};
pub use leader::{Seat, Term};
pub use machines::{Registered, Registration};
pub use mirror::Mirror;
pub use moves::MAX_MOVES;
pub use staged::{KEPT_STAGED_MS, NoRoom};
pub use units::{KeptText, UnitsStanding};

/// Typed access to the cluster's documents. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    kv: Arc<dyn Kv>,
    keys: Keys,
    /// What is told of what is written with this handle, see [`Store::telling`].
    act: Option<Arc<Act>>,
    acts_left: Arc<acts::Room>,
}

/// A document and the revision of its last change, which a rewrite compares.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The document.
    pub value: T,
    /// The revision of its last change.
    pub revision: i64,
}

impl Store {
    /// Everything under `prefix` (`/fleet/` by default) of a byte-level store.
    pub fn new(kv: Arc<dyn Kv>, prefix: &str) -> Store {
        Store { kv, keys: Keys::new(prefix), act: None, acts_left: Arc::default() }
    }

    /// Everything, at one revision. An import that is decided and was cut short is finished first.
    pub async fn read_all(&self) -> Result<Mirror, StoreError> {
        loop {
            let mirror = Mirror::load(&self.keys, self.kv.range(self.keys.root()).await?);
            if !mirror.importing() {
                return Ok(mirror);
            }
            self.finish_import().await?;
        }
    }

    /// Some parts of everything, at one revision; the others are empty. As for [`Store::read_all`],
    /// an import is finished first.
    pub async fn read(&self, parts: &[Part]) -> Result<Mirror, StoreError> {
        let mut prefixes: Vec<String> =
            parts.iter().flat_map(|part| self.keys.part(*part)).collect();
        prefixes.push(self.keys.import());
        loop {
            let mirror = Mirror::load(&self.keys, self.kv.ranges(&prefixes).await?);
            if !mirror.importing() {
                return Ok(mirror);
            }
            self.finish_import().await?;
        }
    }

    /// As [`Store::read`], with the units only as lists show them.
    pub async fn read_briefs(&self, parts: &[Part]) -> Result<(Briefs, Mirror), StoreError> {
        let mut prefixes: Vec<String> =
            parts.iter().flat_map(|part| self.keys.part(*part)).collect();
        prefixes.push(self.keys.import());
        loop {
            let mut range = self.kv.ranges(&prefixes).await?;
            let mut briefs = Briefs::default();
            range.kvs.retain(|kv| {
                let Some(Key::Unit(name)) = self.keys.read(&kv.key) else { return true };
                // One that cannot be read is in no list; the leader and `fleetctl store check` name
                // it.
                briefs.0.extend(Brief::read(&kv.value).ok().map(|brief| (name, brief)));
                false
            });
            let mirror = Mirror::load(&self.keys, range);
            if !mirror.importing() {
                return Ok((briefs, mirror));
            }
            self.finish_import().await?;
        }
    }

    /// Every change after `revision`, for a [`Mirror`].
    pub async fn watch_all(&self, revision: i64) -> Result<WatchStream, StoreError> {
        self.kv.watch(self.keys.root(), revision + 1).await
    }

    /// A new lease, see [`Kv::grant`].
    pub async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.kv.grant(ttl).await
    }

    /// Renews a lease; false if it has ended.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.kv.keep_alive(lease).await
    }

    /// How long a lease has, see [`Kv::time_left`].
    pub async fn time_left(&self, lease: LeaseId) -> Result<Option<TimeLeft>, StoreError> {
        self.kv.time_left(lease).await
    }

    /// When the store's own leader changed last, as far as heard, see [`Kv::led_anew`].
    pub fn led_anew(&self) -> Option<tokio::time::Instant> {
        self.kv.led_anew()
    }

    /// Ends a lease with all its keys.
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.kv.revoke(lease).await
    }

    async fn document<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<(Option<Versioned<T>>, i64), StoreError> {
        let (kv, revision) = self.kv.get(key).await?;
        let Some(kv) = kv else { return Ok((None, revision)) };
        let value = mirror::parse(&kv.value)
            .map_err(|problem| StoreError::Corrupt { key: key.to_string(), problem })?;
        Ok((Some(Versioned { value, revision: kv.mod_revision }), revision))
    }

    async fn apply(
        &self,
        compares: &[Compare],
        changes: &[Change],
        what: &str,
    ) -> Result<i64, StoreError> {
        let outcome = self.kv.txn(compares, changes).await?;
        if outcome.applied {
            Ok(outcome.revision)
        } else {
            Err(StoreError::Conflict(what.to_string()))
        }
    }
}
