//! Old texts go when a unit has too many. Whoever writes a new one sees to that, so a cluster in
//! which nobody writes does nothing.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::kept::{KEPT_TEXTS, MAX_KEPT_TEXTS, Text, outdated};

use super::kv::{Change, Compare, KeyValue};
use super::{Mirror, Store, StoreError};

/// How many texts go at once: of a unit that an older version kept everything of, the others go
/// with its next texts. Each takes a compare and two deletions.
const GONE_AT_ONCE: usize = 50;

/// How many texts one request asks for: each may have a megabyte, and an answer four.
const TEXTS_A_REQUEST: usize = 3;

/// How many texts are read, from the newest, to find the one that a rollback goes back to; nearly
/// always it is the one before the present. If none of these differs, all stay.
const LOOKED_BACK: usize = 12;

/// What is known of a unit's texts without reading them.
pub(super) struct Kept {
    pub(super) number: u64,
    pub(super) key: String,
    pub(super) mod_revision: i64,
}

impl Store {
    /// Removes texts of units that have too many, see [`fleet_core::unit::kept`]. The `mirror` must
    /// show their present ones. Answers with how many went.
    ///
    /// What may still be needed stays: a text that the leader might assign, since it has yet to
    /// plan with the next one, that is assigned anywhere, or that a rollout or a rollback goes back
    /// to. A text that leaves between the look and the removal is another one then, and stays.
    pub async fn prune_texts(
        &self,
        units: &BTreeSet<UnitName>,
        mirror: &Mirror,
    ) -> Result<usize, StoreError> {
        let mut in_use = mirror.cluster().texts_in_use(units);
        let planned = mirror.cluster().outlook.as_ref().map_or(0, |outlook| outlook.planned);
        let mut gone = 0;
        for unit in units {
            let used = in_use.remove(unit).unwrap_or_default();
            gone += self.prune(unit, used, planned).await?;
        }
        Ok(gone)
    }

    async fn prune(
        &self,
        unit: &UnitName,
        mut used: BTreeSet<u64>,
        planned: i64,
    ) -> Result<usize, StoreError> {
        let kept = self.numbers_of(unit).await?;
        if kept.len() <= KEPT_TEXTS {
            return Ok(0);
        }
        let Some(back) = self.rollback_of(&kept).await? else { return Ok(0) };
        used.insert(back);
        let nexts = kept.iter().skip(1).map(|next| next.mod_revision);
        // It has planned with the next one, so it assigns the one before no more.
        let passed: BTreeMap<u64, bool> =
            kept.iter().zip(nexts).map(|(kept, next)| (kept.number, next <= planned)).collect();
        let spare = kept.len().saturating_sub(MAX_KEPT_TEXTS)..kept.len() - KEPT_TEXTS;
        let sizes = self.sizes(&kept[spare]).await?;
        let text = |kept: &Kept| Text {
            number: kept.number,
            bytes: sizes.get(&kept.number).copied().unwrap_or(0),
            needed: used.contains(&kept.number) || passed.get(&kept.number) != Some(&true),
        };
        let outdated = outdated(&kept.iter().map(text).collect::<Vec<_>>());
        let gone: BTreeSet<u64> = outdated.into_iter().take(GONE_AT_ONCE).collect();
        let (mut compares, mut changes) = (Vec::new(), Vec::new());
        for kept in kept.into_iter().filter(|kept| gone.contains(&kept.number)) {
            changes.push(Change::Delete { key: self.keys.text_origin(unit, kept.number) });
            changes.push(Change::Delete { key: kept.key.clone() });
            compares.push(Compare::ModRevision(kept.key, kept.mod_revision));
        }
        if changes.is_empty() {
            return Ok(0);
        }
        let applied = self.kv.txn(&compares, &changes).await?.applied;
        Ok(if applied { gone.len() } else { 0 })
    }

    /// The texts of a unit, in order.
    pub(super) async fn numbers_of(&self, unit: &UnitName) -> Result<Vec<Kept>, StoreError> {
        let prefix = self.keys.texts_of(unit);
        let kept = |kv: KeyValue| {
            let number = kv.key.strip_prefix(&prefix)?.parse().ok()?;
            Some(Kept { number, key: kv.key, mod_revision: kv.mod_revision })
        };
        Ok(self.kv.keys(&prefix).await?.kvs.into_iter().filter_map(kept).collect())
    }

    /// The number of the newest text that differs from the present one.
    async fn rollback_of(&self, kept: &[Kept]) -> Result<Option<u64>, StoreError> {
        let mut present = None;
        let newest: Vec<&Kept> = kept.iter().rev().take(LOOKED_BACK).collect();
        for chunk in newest.chunks(TEXTS_A_REQUEST) {
            let keys: Vec<String> = chunk.iter().map(|kept| kept.key.clone()).collect();
            for (kept, kv) in chunk.iter().zip(self.kv.get_many(&keys).await?.0) {
                let Some(kv) = kv else { return Ok(None) };
                let hash = UnitFile::parse_lenient(&String::from_utf8_lossy(&kv.value)).hash();
                if *present.get_or_insert_with(|| hash.clone()) != hash {
                    return Ok(Some(kept.number));
                }
            }
        }
        Ok(None)
    }

    /// What these texts weigh, by number, in bytes.
    async fn sizes(&self, kept: &[Kept]) -> Result<BTreeMap<u64, u64>, StoreError> {
        let mut sizes = BTreeMap::new();
        for chunk in kept.chunks(TEXTS_A_REQUEST) {
            let keys: Vec<String> = chunk.iter().map(|kept| kept.key.clone()).collect();
            let found = self.kv.get_many(&keys).await?.0;
            let size = |(kept, kv): (&Kept, Option<KeyValue>)| {
                (kept.number, kv.map_or(0, |kv| kv.value.len() as u64))
            };
            sizes.extend(chunk.iter().zip(found).map(size));
        }
        Ok(sizes)
    }
}
