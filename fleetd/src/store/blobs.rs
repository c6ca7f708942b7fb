//! Applications, and blobs: what comes with the units of an application, each kept once under its
//! checksum. Beside the root: nobody who reads or watches the cluster has a use for them.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::app::{AppName, Application, Bundle, BundleRef, Checksum};
use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::kept::{Comes, kept_contents};

use super::batch::{Batch, COMMIT_DOCUMENTS, unchanged};
use super::kv::{Change, Compare};
use super::staged::Unnamed;
use super::{Mirror, Store, StoreError, UnitsLock, Versioned, mirror};

/// How many blobs one request asks for: each has up to 1 MiB, and an answer may have 4.
pub(super) const BLOBS_A_REQUEST: usize = 3;

/// How many texts are read to find out which blobs are in use. With more, blobs stay until units
/// of the application go.
const TEXTS_READ: usize = 5_000;

/// What a Quadlet file counts as, in bytes: nearly all have less, and none is worth a look.
const QUADLET_BYTES: u64 = 16 * 1024;

/// How many texts one request asks for.
const TEXTS_A_REQUEST: usize = 16;

impl Store {
    /// An application's document, with the revision of its last change.
    pub async fn app(&self, name: &AppName) -> Result<Option<Versioned<Application>>, StoreError> {
        Ok(self.document(&self.keys.app(name)).await?.0)
    }

    /// Keeps these contents, which an import that has the lock is about to name.
    pub async fn put_blobs(
        &self,
        lock: &UnitsLock,
        app: &AppName,
        contents: impl IntoIterator<Item = (Checksum, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let puts = contents.into_iter().map(|(sum, content)| (self.keys.blob(app, &sum), content));
        self.put_all(&lock.ours(&self.keys), puts.collect(), "the files of an application").await
    }

    /// The blobs of an application, in the order asked. One that is absent, or is not what its
    /// checksum says, is `None`.
    pub async fn blobs(
        &self,
        app: &AppName,
        wanted: &[Checksum],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut blobs = Vec::with_capacity(wanted.len());
        for chunk in wanted.chunks(BLOBS_A_REQUEST) {
            let keys: Vec<String> = chunk.iter().map(|sum| self.keys.blob(app, sum)).collect();
            let (found, _) = self.kv.get_many(&keys).await?;
            let checked = found.into_iter().zip(chunk).map(|(kv, sum)| {
                kv.map(|kv| kv.value).filter(|content| Checksum::of(content) == *sum)
            });
            blobs.extend(checked);
        }
        Ok(blobs)
    }

    /// The checksums of all blobs of an application, each with the revision at which it was kept.
    pub async fn blob_sums(&self, app: &AppName) -> Result<BTreeMap<Checksum, i64>, StoreError> {
        let prefix = self.keys.blobs_of(app);
        let found = self.kv.keys(&prefix).await?.kvs;
        let sum = |key: &str| Checksum::parse(key.strip_prefix(&prefix)?);
        Ok(found.iter().filter_map(|kv| Some((sum(&kv.key)?, kv.mod_revision))).collect())
    }

    /// Removes the blobs of an application that were kept before the revision `before`, and that
    /// neither its document nor any text of its units names, or of units that have a text of
    /// theirs: a replica that was stopped by hand has a record of its own, which may outlive the
    /// application. Those of the oldest texts go, too, where all weigh too much, see
    /// [`kept_contents`]. Whoever applies it at the same time keeps them all. What stays although
    /// nothing names it counts as sent for the next apply.
    pub async fn sweep_blobs(&self, app: &AppName, before: i64) -> Result<(), StoreError> {
        let document = self.app(app).await?;
        let counted = self.count(app).await?;
        let sums = self.blob_sums(app).await?;
        if sums.is_empty() && counted.is_none() {
            return Ok(()); // nothing came with it, nor was anything sent
        }
        let mirror = self.read_all().await?;
        let named = mirror.cluster().records.values().filter(|record| {
            record.text.contains("Bundle=")
                && BundleRef::of(&UnitFile::parse_lenient(&record.text))
                    .is_some_and(|named| named.app == *app)
        });
        let mut units: BTreeSet<UnitName> = named.map(|record| record.name.clone()).collect();
        units.extend(document.iter().flat_map(|document| document.value.units.iter().cloned()));
        let comes = self.what_comes(app, &units, &mirror).await?;
        mirror.drop_later();
        let as_of = document.as_ref().map_or(0, |document| document.revision);
        let mut left = Unnamed { as_of, ..Unnamed::default() };
        let Some((comes, bundles)) = comes else {
            return self.recount(app, counted, left).await;
        };
        let named: BTreeSet<Checksum> =
            comes.iter().flat_map(|comes| comes.contents.keys().cloned()).collect();
        let used = kept_contents(comes);
        let files = document.iter().flat_map(|document| document.value.files.values());
        let files: BTreeSet<&Checksum> = files.map(|file| &file.sum).collect();
        let unnamed =
            sums.into_iter().filter(|(sum, _)| !used.contains(sum) && !files.contains(sum));
        let (mut gone, stays): (Vec<_>, Vec<_>) = unnamed.partition(|(_, kept)| *kept < before);
        gone.sort_by_key(|(sum, _)| !bundles.contains(sum)); // see `hold_bundle`
        let as_it_was = unchanged(&self.keys.app(app), document.map(|document| document.revision));
        let unlocked = Compare::Absent(self.keys.import());
        for chunk in gone.chunks(COMMIT_DOCUMENTS) {
            let mut batch = Batch::new(&as_it_was);
            batch.compares.push(unlocked.clone());
            for (sum, kept) in chunk {
                let key = self.keys.blob(app, sum);
                batch.compares.push(Compare::ModRevision(key.clone(), *kept));
                batch.changes.push(Change::Delete { key });
            }
            if !self.kv.txn(&batch.compares, &batch.changes).await?.applied {
                return Ok(()); // somebody applies it, and sweeps after that
            }
        }
        if counted.is_none() {
            return Ok(());
        }
        // What weighs too much was named, and goes with the next sweep after an apply.
        let stays = stays.into_iter().map(|(sum, _)| sum).filter(|sum| !named.contains(sum));
        let stays: Vec<Checksum> = stays.collect();
        for chunk in stays.chunks(BLOBS_A_REQUEST) {
            for content in self.blobs(app, chunk).await?.into_iter().flatten() {
                left.bytes += content.len() as u64;
                left.files += 1;
            }
        }
        self.recount(app, counted, left).await
    }

    /// What comes with each text of these units, and which of that are bundles; `None` if those are
    /// too many texts to read, or one went meanwhile: a rollback may have made it the present one,
    /// under another number.
    async fn what_comes(
        &self,
        app: &AppName,
        units: &BTreeSet<UnitName>,
        mirror: &Mirror,
    ) -> Result<Option<(Vec<Comes>, BTreeSet<Checksum>)>, StoreError> {
        let mut in_use = mirror.cluster().texts_in_use(units);
        let planned = mirror.cluster().outlook.as_ref().map_or(0, |outlook| outlook.planned);
        let mut named: Vec<(Checksum, i64, bool)> = Vec::new();
        let mut left = TEXTS_READ;
        for unit in units {
            let texts = self.numbers_of(unit).await?;
            let Some(fewer) = left.checked_sub(texts.len()) else { return Ok(None) };
            left = fewer;
            let used = in_use.remove(unit).unwrap_or_default();
            let (mut present, mut back, mut next) = (None, None, i64::MAX);
            for chunk in texts.rchunks(TEXTS_A_REQUEST) {
                let keys: Vec<String> = chunk.iter().map(|kept| kept.key.clone()).collect();
                let (found, _) = self.kv.get_many(&keys).await?;
                for (kept, kv) in chunk.iter().zip(found).rev() {
                    let Some(kv) = kv else { return Ok(None) };
                    let file = UnitFile::parse_lenient(&String::from_utf8_lossy(&kv.value));
                    let hash = file.hash();
                    if back.is_none() && *present.get_or_insert_with(|| hash.clone()) != hash {
                        back = Some(kept.number);
                    }
                    // The leader may assign it until it has planned with the next one.
                    let needed =
                        used.contains(&kept.number) || back == Some(kept.number) || next > planned;
                    next = kept.mod_revision;
                    let bundle = BundleRef::of(&file).filter(|named| named.app == *app);
                    named.extend(bundle.map(|named| (named.sum, kept.mod_revision, needed)));
                }
            }
        }
        let bundles: BTreeSet<Checksum> = named.iter().map(|(sum, ..)| sum.clone()).collect();
        let wanted: Vec<Checksum> = bundles.iter().cloned().collect();
        let mut contents: BTreeMap<Checksum, BTreeMap<Checksum, u64>> = BTreeMap::new();
        for (sum, encoded) in wanted.iter().zip(self.blobs(app, &wanted).await?) {
            let Some(encoded) = encoded else { continue };
            let Ok(Bundle { files, quadlets }) = mirror::parse(&encoded) else { return Ok(None) };
            let all = contents.entry(sum.clone()).or_default();
            all.insert(sum.clone(), encoded.len() as u64);
            all.extend(files.into_values().map(|file| (file.sum, file.size)));
            all.extend(quadlets.into_values().map(|sum| (sum, QUADLET_BYTES)));
        }
        let comes = named.into_iter().map(|(sum, written, needed)| Comes {
            written,
            needed,
            contents: contents.get(&sum).cloned().unwrap_or_default(),
        });
        Ok(Some((comes.collect(), bundles)))
    }

    /// Sees to it that no sweep that has begun takes what comes with a text, which a unit is about
    /// to have again. False if any of it is gone already.
    pub async fn hold_bundle(&self, named: &BundleRef) -> Result<bool, StoreError> {
        let key = self.keys.blob(&named.app, &named.sum);
        let Some(there) = self.kv.get(&key).await?.0 else { return Ok(false) };
        let Ok(Bundle { files, quadlets }) = mirror::parse(&there.value) else { return Ok(false) };
        // A sweep compares it, and removes bundles before what they name.
        let as_read = [Compare::ModRevision(key.clone(), there.mod_revision)];
        let again = [Change::Put { key, value: there.value, lease: None }];
        if !self.kv.txn(&as_read, &again).await?.applied {
            return Ok(false);
        }
        let kept = self.blob_sums(&named.app).await?;
        let mut names = files.values().map(|file| &file.sum).chain(quadlets.values());
        Ok(names.all(|sum| kept.contains_key(sum)))
    }
}
