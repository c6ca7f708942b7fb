//! Contents that were sent for an application and that no apply has named yet: how much of them the
//! store takes, and when they go.
//!
//! One small document counts them. It is written with each content, in one transaction, so that
//! clients who send at once, from wherever, share one limit.

use std::collections::BTreeMap;

use fleet_core::app::{AppName, Checksum, MAX_APP_BYTES, MAX_APP_FILES};
use fleet_core::model::{FORMAT, MAX_DOCUMENT_BYTES};
use serde::{Deserialize, Serialize};

use super::batch::{encode, unchanged};
use super::kv::{Change, Compare};
use super::{Store, StoreError, Versioned};

/// How much of all applications may be there at once: etcd has 2 GiB by default, for everything.
const MAX_STAGED_BYTES: u64 = 4 * MAX_APP_BYTES;

/// The same in applications: each has a line in the document that counts.
const MAX_STAGING: usize = 64;

/// After so long without another content an apply is not coming any more: fleetctl sends all and
/// applies in one go.
pub const KEPT_STAGED_MS: u64 = 10 * 60 * 1000;

/// How often a content is tried that is overtaken each time; fleetctl sends four at once.
const ATTEMPTS: usize = 32;

/// No content was kept before this revision: a sweep before it removes none, and counts.
const NOTHING: i64 = 0;

/// What is staged.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Staged {
    v: u32,
    apps: BTreeMap<AppName, Count>,
}

/// How much of one application.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    /// In bytes.
    pub(super) bytes: u64,
    /// In contents.
    pub(super) files: u64,
    /// When the last one came, in milliseconds since 1970.
    last_ms: u64,
    /// The revision of the application's document that it is known to count for: what an apply
    /// since then has named still counts. 0 if nobody has looked.
    #[serde(default, skip_serializing_if = "is_zero")]
    as_of: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// What a sweep has found that nothing names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unnamed {
    /// In bytes.
    pub(super) bytes: u64,
    /// In contents.
    pub(super) files: u64,
    /// By the application's document of this revision.
    pub(super) as_of: i64,
}

impl Count {
    /// Whether more was sent since it counted `before`, and nobody has counted again.
    fn is_after(&self, before: &Count) -> bool {
        self.as_of == before.as_of && self.bytes >= before.bytes && self.files >= before.files
    }

    /// What counts if `left` was left of `before`.
    fn again(self, before: &Count, left: Unnamed) -> Count {
        let (bytes, files) = (self.bytes - before.bytes, self.files - before.files);
        // What was sent while the sweep looked may stand in both.
        let as_of = if files == 0 { left.as_of } else { self.as_of };
        let (bytes, files) = (bytes + left.bytes, files + left.files);
        Count { bytes, files, last_ms: self.last_ms, as_of }
    }
}

/// Why a content is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The application would be over its limit.
    #[error(
        "{files} contents of {app} with {bytes} bytes have been sent that no apply has named, and \
         an application has at most {MAX_APP_FILES} with {MAX_APP_BYTES} bytes (16 MiB); apply \
         them, or send no more for 10 minutes, after which they go"
    )]
    OfApp {
        /// The application.
        app: AppName,
        /// How many contents there would be.
        files: u64,
        /// How many bytes there would be.
        bytes: u64,
    },
    /// All applications together would.
    #[error(
        "contents of {apps} applications with {bytes} bytes have been sent that no apply has \
         named; the limit of all together is {MAX_STAGING} with {MAX_STAGED_BYTES} bytes (64 MiB). \
         They go 10 minutes after the last one came: try again then"
    )]
    OfAll {
        /// How many applications there would be.
        apps: usize,
        /// How many bytes there would be.
        bytes: u64,
    },
}

impl Staged {
    /// Counts one more content.
    fn add(&mut self, app: &AppName, size: u64, now_ms: u64) -> Result<(), NoRoom> {
        let old = self.apps.get(app).copied().unwrap_or_default();
        let (bytes, files) = (old.bytes + size, old.files + 1);
        let new = Count { bytes, files, last_ms: now_ms, ..old };
        if new.bytes > MAX_APP_BYTES || new.files > MAX_APP_FILES as u64 {
            return Err(NoRoom::OfApp { app: app.clone(), files: new.files, bytes: new.bytes });
        }
        self.apps.insert(app.clone(), new);
        let (apps, bytes) = (self.apps.len(), self.apps.values().map(|count| count.bytes).sum());
        match apps > MAX_STAGING || bytes > MAX_STAGED_BYTES {
            true => Err(NoRoom::OfAll { apps, bytes }),
            false => Ok(()),
        }
    }

    /// The applications for which nothing has come for long.
    fn stale(&self, now_ms: u64) -> Vec<AppName> {
        let stale = |count: &Count| count.last_ms + KEPT_STAGED_MS < now_ms;
        self.apps.iter().filter(|(_, count)| stale(count)).map(|(app, _)| app.clone()).collect()
    }
}

impl Store {
    /// Keeps `content` for an application whose next apply is to name it. The inner error says why
    /// it is not taken. What was sent long ago and never named goes first. Before anything is
    /// refused, what applies have named since counts no more: the sweep after an apply, which
    /// looks for it too, may not have come to it yet.
    pub async fn stage_blob(
        &self,
        app: &AppName,
        content: Vec<u8>,
        now_ms: u64,
    ) -> Result<Result<Checksum, NoRoom>, StoreError> {
        let sum = Checksum::of(&content);
        let (blob, count) = (self.keys.blob(app, &sum), self.keys.staged_count());
        for app in self.staged().await?.0.stale(now_ms) {
            self.sweep_blobs(&app, i64::MAX).await?;
        }
        for _ in 0..ATTEMPTS {
            let (mut staged, revision) = self.staged().await?;
            let put = Change::Put { key: blob.clone(), value: content.clone(), lease: None };
            let room = staged.add(app, content.len() as u64, now_ms);
            let counted = [Compare::Absent(blob.clone()), unchanged(&count, revision)];
            if room.is_ok() {
                let counts = self.put_count(&staged)?;
                if self.kv.txn(&counted, &[put.clone(), counts]).await?.applied {
                    return Ok(Ok(sum));
                }
            }
            // What is there counts already. It is written again, so that no sweep that has begun
            // takes it for one that nobody wants.
            if let Some(present) = self.kv.get(&blob).await?.0 {
                let there = [Compare::ModRevision(blob.clone(), present.mod_revision)];
                if self.kv.txn(&there, &[put]).await?.applied {
                    return Ok(Ok(sum));
                }
            } else if let Err(no_room) = room
                && !self.count_again(&no_room).await?
            {
                return Ok(Err(no_room));
            }
        }
        Err(StoreError::Conflict(format!("what was sent of {app}")))
    }

    /// Counts again for the applications in the way of a content, where an apply may have named
    /// what still counts. False if there is none.
    async fn count_again(&self, no_room: &NoRoom) -> Result<bool, StoreError> {
        let staged = self.staged().await?.0;
        let mut again = false;
        for (app, count) in &staged.apps {
            if matches!(no_room, NoRoom::OfApp { app: full, .. } if full != app) {
                continue;
            }
            let document = match self.app(app).await {
                Err(StoreError::Corrupt { .. }) => continue, // no apply gets past it
                document => document?,
            };
            if document.is_some_and(|document| document.revision > count.as_of) {
                self.sweep_blobs(app, NOTHING).await?;
                again = true;
            }
        }
        Ok(again)
    }

    /// What counts as sent for an application.
    pub(super) async fn count(&self, app: &AppName) -> Result<Option<Count>, StoreError> {
        Ok(self.staged().await?.0.apps.get(app).copied())
    }

    /// Notes how much of an application's contents is still unnamed, where it counted `before`:
    /// only a sweep knows. What was sent since counts in full, until the next sweep.
    pub(super) async fn recount(
        &self,
        app: &AppName,
        before: Option<Count>,
        left: Unnamed,
    ) -> Result<(), StoreError> {
        let key = self.keys.staged_count();
        let Some(before) = before else { return Ok(()) };
        for _ in 0..ATTEMPTS {
            let (mut staged, revision) = self.staged().await?;
            let Some(now) = staged.apps.remove(app).filter(|now| now.is_after(&before)) else {
                return Ok(());
            };
            let new = now.again(&before, left);
            if new.files > 0 {
                staged.apps.insert(app.clone(), new);
            }
            let change = match staged.apps.is_empty() {
                true => Change::Delete { key: key.clone() },
                false => self.put_count(&staged)?,
            };
            if self.kv.txn(&[unchanged(&key, revision)], &[change]).await?.applied {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn staged(&self) -> Result<(Staged, Option<i64>), StoreError> {
        let found = self.document::<Staged>(&self.keys.staged_count()).await?.0;
        Ok(found
            .map_or_else(Default::default, |Versioned { value, revision }| (value, Some(revision))))
    }

    fn put_count(&self, staged: &Staged) -> Result<Change, StoreError> {
        let key = self.keys.staged_count();
        let staged = Staged { v: FORMAT, apps: staged.apps.clone() };
        let value = encode(&key, &staged, MAX_DOCUMENT_BYTES)?;
        Ok(Change::Put { key, value, lease: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppName {
        AppName::parse(name).unwrap()
    }

    #[test]
    fn an_application_and_all_together_have_a_limit() {
        let mut staged = Staged::default();
        staged.add(&app("a"), MAX_APP_BYTES, 5).unwrap();
        let said = staged.add(&app("a"), 1, 5).unwrap_err().to_string();
        assert!(said.starts_with("2 contents of a with 16777217 bytes have been sent"), "{said}");
        for name in ["b", "c", "d"] {
            staged.add(&app(name), MAX_APP_BYTES, 5).unwrap();
        }
        let said = staged.add(&app("e"), 1, 5).unwrap_err().to_string();
        assert!(said.starts_with("contents of 5 applications with 67108865 bytes"), "{said}");
        let mut many = Staged::default();
        for n in 0..MAX_STAGING {
            many.add(&app(&n.to_string()), 0, 5).unwrap();
        }
        assert!(many.add(&app("x"), 0, 5).is_err());
        let mut small = Staged::default();
        for _ in 0..MAX_APP_FILES {
            small.add(&app("a"), 0, 5).unwrap();
        }
        assert!(small.add(&app("a"), 0, 5).is_err());
    }

    #[test]
    fn what_nobody_applies_is_stale_after_a_while() {
        let mut staged = Staged::default();
        staged.add(&app("a"), 1, 5).unwrap();
        staged.add(&app("b"), 1, 5 + KEPT_STAGED_MS).unwrap();
        assert_eq!(staged.stale(5 + KEPT_STAGED_MS), [] as [AppName; 0]);
        assert_eq!(staged.stale(6 + KEPT_STAGED_MS), [app("a")]);
    }
}
