//! What comes with a unit of an application: its bundle, fetched from the store once and kept on
//! the disk, each content under its checksum.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fleet_core::app::{
    AppName, Bundle, BundleRef, Checksum, MAX_APP_BYTES, MAX_APP_FILES, MAX_APP_UNITS,
    MAX_FILE_BYTES, files_named,
};
use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Agent;
use super::files::File;
use crate::process::files::{private_folder, write_in_memory};
use crate::store::Store;

/// How long a pass fetches. What is not there by then is asked for in the next one.
const LONGEST_FETCH: Duration = Duration::from_secs(4);

/// How many blobs are asked for at once: the answer is checked and on the disk before the next.
const BLOBS_AT_ONCE: usize = 3;

/// The most bytes of contents that are kept on the disk, so that a reboot without the store starts
/// what was assigned: sixteen applications of the largest size.
const MAX_KEPT_BYTES: u64 = 16 * MAX_APP_BYTES;

/// How long a content is kept that no assigned text needs: a rollback may come.
const FORGET: Duration = Duration::from_secs(3600);

const TOO_MUCH: &str = "more comes with this text than an application may have";

/// Contents on the disk, each under its checksum. What a crash left half written is not what its
/// checksum says, and counts as absent.
#[derive(Debug, Clone)]
pub(super) struct Blobs(PathBuf);

impl Blobs {
    pub(super) fn open(folder: PathBuf) -> io::Result<Blobs> {
        private_folder(&folder)?;
        Ok(Blobs(folder))
    }

    fn get(&self, sum: &Checksum) -> Option<Vec<u8>> {
        let content = fs::read(self.0.join(sum.as_str())).ok()?;
        (Checksum::of(&content) == *sum).then_some(content)
    }

    fn has(&self, sum: &Checksum) -> bool {
        self.get(sum).is_some()
    }

    fn put(&self, sum: &Checksum, content: &[u8]) -> Result<(), String> {
        let path = self.0.join(sum.as_str());
        write_in_memory(&path, content)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// The contents that these texts need, as far as they are here.
    pub(super) fn needed_by<'t>(&self, texts: impl Iterator<Item = &'t str>) -> BTreeSet<Checksum> {
        let bundles = texts.filter_map(|text| BundleRef::of(&UnitFile::parse_lenient(text)));
        let mut needed = BTreeSet::new();
        for bundle in bundles {
            if needed.insert(bundle.sum.clone())
                && let Some(Ok(bundle)) = self.get(&bundle.sum).map(|bytes| read(&bytes))
            {
                needed.extend(sums(&bundle).cloned());
            }
        }
        needed
    }

    /// Forgets what is not `needed`, after a while, and what is too much for the disk.
    pub(super) fn forget_all_but(&self, needed: &BTreeSet<Checksum>) -> io::Result<()> {
        let mut all: Vec<(bool, SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let found = entry.metadata()?;
            let sum = entry.file_name().to_str().and_then(Checksum::parse);
            let is_needed = sum.is_some_and(|sum| needed.contains(&sum));
            all.push((is_needed, found.modified()?, found.len(), entry.path()));
        }
        // What is needed first, then the newest.
        all.sort_by_key(|(is_needed, modified, ..)| std::cmp::Reverse((*is_needed, *modified)));
        let mut kept = 0;
        for (is_needed, modified, size, path) in all {
            let old = !is_needed && modified.elapsed().unwrap_or_default() > FORGET;
            kept += size;
            if old || kept > MAX_KEPT_BYTES {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// A bundle with all that is in it.
#[derive(Debug)]
pub(super) struct Whole {
    bundle: Bundle,
    contents: BTreeMap<Checksum, Vec<u8>>,
    /// The texts of the Quadlet files.
    pub(super) quadlets: BTreeMap<UnitName, String>,
}

impl Whole {
    /// The files of an instance.
    pub(super) fn files(&self) -> Vec<File<'_>> {
        let files = self.bundle.files.iter().filter_map(|(path, entry)| {
            let content = self.contents.get(&entry.sum)?;
            Some(File { path, content, executable: entry.executable })
        });
        files.collect()
    }

    /// The files that one of the Quadlet files names.
    pub(super) fn files_of(&self, quadlet: &UnitName) -> Vec<File<'_>> {
        let text = [Some(quadlet.clone()), quadlet.template()];
        let text = text.iter().flatten().find_map(|name| self.quadlets.get(name));
        let named = files_named(quadlet, text.map_or("", String::as_str), &self.bundle.files);
        let mut files = self.files();
        files.retain(|file| named.contains(file.path));
        files
    }
}

/// What a pass knows of bundles.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    /// Why a bundle cannot be had.
    missing: BTreeMap<Checksum, String>,
    /// The one that was used last: most often a pass writes many replicas of one template.
    last: Option<(Checksum, Arc<Whole>)>,
}

impl Agent {
    /// Has at hand what comes with these texts, as far as the store has it and answers in time.
    pub(super) async fn fetch_bundles<'t>(&mut self, texts: impl Iterator<Item = &'t str>) {
        self.bundles.missing.clear();
        let wanted: BTreeSet<BundleRef> =
            texts.filter_map(|text| BundleRef::of(&UnitFile::parse_lenient(text))).collect();
        let deadline = Instant::now() + LONGEST_FETCH;
        let mut away: Option<String> = None;
        let at_hand = self.bundles.last.as_ref().map(|(sum, _)| sum.clone());
        for bundle in wanted.into_iter().filter(|bundle| Some(&bundle.sum) != at_hand.as_ref()) {
            let fetched = match &away {
                None => fetch(&self.store, &self.blobs, &bundle, deadline).await,
                // Where one call had no answer, no other waits for its own; it may be here.
                Some(problem) => {
                    let here = self.whole(&bundle).map(drop);
                    here.map_err(|_| Absent::Away(problem.clone()))
                }
            };
            let Err(absent) = fetched else { continue };
            let said = match absent {
                Absent::Away(problem) => {
                    debug!("the files of {}: {problem}", bundle.app);
                    let said = format!(
                        "the files of {} cannot be had from the store yet: {problem}",
                        bundle.app
                    );
                    away = Some(problem);
                    said
                }
                Absent::Wrong(problem) => problem,
            };
            self.bundles.missing.insert(bundle.sum, said);
        }
    }

    /// The bundle, from the disk.
    pub(super) fn whole(&mut self, bundle: &BundleRef) -> Result<Arc<Whole>, String> {
        if let Some((sum, whole)) = &self.bundles.last
            && *sum == bundle.sum
        {
            return Ok(Arc::clone(whole));
        }
        let absent = || {
            let noted = self.bundles.missing.get(&bundle.sum).cloned();
            noted.unwrap_or_else(|| format!("the files of {} are not here yet", bundle.app))
        };
        let bytes = self.blobs.get(&bundle.sum).ok_or_else(absent)?;
        let read = read(&bytes)?;
        let mut contents = BTreeMap::new();
        for sum in sums(&read) {
            contents.insert(sum.clone(), self.blobs.get(sum).ok_or_else(absent)?);
        }
        let text = |sum: &Checksum| String::from_utf8_lossy(&contents[sum]).into_owned();
        let quadlets = read.quadlets.iter().map(|(name, sum)| (name.clone(), text(sum))).collect();
        let whole = Arc::new(Whole { bundle: read, contents, quadlets });
        self.bundles.last = Some((bundle.sum.clone(), Arc::clone(&whole)));
        Ok(whole)
    }

    /// A pass is over: its files need no memory.
    pub(super) fn forget_bundles(&mut self) {
        self.bundles = Bundles::default();
    }
}

/// Why a bundle is not here.
enum Absent {
    /// The store does not answer, or not in time.
    Away(String),
    /// The store does not have it, or it is not what it should be.
    Wrong(String),
}

/// Brings a bundle with all that is in it onto the disk.
async fn fetch(
    store: &Store,
    blobs: &Blobs,
    BundleRef { app, sum }: &BundleRef,
    deadline: Instant,
) -> Result<(), Absent> {
    fetch_all(store, blobs, app, std::slice::from_ref(sum), deadline).await?;
    let bytes = blobs.get(sum).ok_or_else(|| gone(app, sum))?;
    let bundle = read(&bytes).map_err(Absent::Wrong)?;
    let wanted: BTreeSet<Checksum> = sums(&bundle).cloned().collect();
    let wanted: Vec<Checksum> = wanted.into_iter().collect();
    fetch_all(store, blobs, app, &wanted, deadline).await
}

async fn fetch_all(
    store: &Store,
    blobs: &Blobs,
    app: &AppName,
    wanted: &[Checksum],
    deadline: Instant,
) -> Result<(), Absent> {
    let missing: Vec<Checksum> = wanted.iter().filter(|sum| !blobs.has(sum)).cloned().collect();
    for chunk in missing.chunks(BLOBS_AT_ONCE) {
        let answer = tokio::time::timeout_at(deadline, store.blobs(app, chunk)).await;
        let found = match answer {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(Absent::Away(error.to_string())),
            Err(_) => {
                let limit = LONGEST_FETCH.as_secs();
                return Err(Absent::Away(format!("not all came within {limit} s; more follows")));
            }
        };
        for (sum, content) in chunk.iter().zip(found) {
            let content = content.ok_or_else(|| gone(app, sum))?;
            if content.len() as u64 > MAX_FILE_BYTES {
                return Err(Absent::Wrong(TOO_MUCH.to_string()));
            }
            blobs.put(sum, &content).map_err(Absent::Wrong)?;
        }
    }
    Ok(())
}

fn gone(app: &AppName, sum: &Checksum) -> Absent {
    let digits = &sum.as_str()[..12];
    warn!("the store has no content {digits}… of {app}");
    Absent::Wrong(format!(
        "the store has no content {digits}… of {app}, which comes with this text; apply {app} again"
    ))
}

/// Reads a bundle, unless it is larger than one can be.
fn read(bytes: &[u8]) -> Result<Bundle, String> {
    let bundle: Bundle = serde_json::from_slice(bytes)
        .map_err(|error| format!("what comes with this text cannot be read: {error}"))?;
    let bytes: u64 = bundle.files.values().map(|entry| entry.size.min(MAX_APP_BYTES)).sum();
    let largest = bundle.files.values().map(|entry| entry.size).max().unwrap_or_default();
    let too_much = bundle.files.len() > MAX_APP_FILES
        || bundle.quadlets.len() > MAX_APP_UNITS
        || bytes > MAX_APP_BYTES
        || largest > MAX_FILE_BYTES;
    match too_much {
        true => Err(TOO_MUCH.to_string()),
        false => Ok(bundle),
    }
}

/// The checksums of all that is in a bundle.
fn sums(bundle: &Bundle) -> impl Iterator<Item = &Checksum> {
    bundle.files.values().map(|entry| &entry.sum).chain(bundle.quadlets.values())
}
