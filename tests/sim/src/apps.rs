//! An application with files: whether it is applied whole or not at all, and whether each instance
//! starts with the files of one version, which is that of its text once all is at rest.

use std::collections::BTreeMap;
use std::path::Path;

use fleet_core::app::{AppName, Application, Bundle, BundleRef, Checksum, FileEntry};
use fleet_core::model::UnitRecord;
use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use fleetd::store::kv::{WatchBatch, WatchEvent};
use serde_json::json;

use crate::etcd::key;
use crate::script::{APP_UNIT, APP_VERSIONS};

/// The application's name.
pub(crate) const APP: &str = "shop";

/// Its files: in each version both have contents of that version.
pub(crate) const FILES: [&str; 2] = ["first.conf", "second.conf"];

/// What stands in a file of a version.
pub(crate) fn content(path: &str, version: usize) -> String {
    format!("{path} {version}\n")
}

/// The body of an apply of a version. Of two versions in a row only the files differ.
pub(crate) fn body(version: usize) -> serde_json::Value {
    let (folder, sleeps) = ("/run/fleet/files/%N", 100 + version / 2);
    let text = format!(
        "[Service]\nExecStart=/usr/bin/sleep {sleeps} {folder}/{} {folder}/{}\nRestart=always\n\n\
         [X-Fleet]\nReplicas=3\n",
        FILES[0], FILES[1]
    );
    json!({"units": {APP_UNIT: text}, "files": files(version)})
}

fn files(version: usize) -> BTreeMap<String, FileEntry> {
    let entry = |path: &str| {
        let content = content(path, version);
        let (sum, size) = (Checksum::of(content.as_bytes()), content.len() as u64);
        (path.to_string(), FileEntry { sum, size, executable: false })
    };
    FILES.iter().map(|path| entry(path)).collect()
}

/// The version whose files a text of the application names.
pub(crate) fn version_of(text: &str) -> Option<usize> {
    let named = BundleRef::of(&UnitFile::parse_lenient(text))?;
    let bundle = |version| Bundle { files: files(version), ..Bundle::default() };
    (0..APP_VERSIONS).find(|version| named == bundle_ref(&bundle(*version)))
}

fn bundle_ref(bundle: &Bundle) -> BundleRef {
    let app = AppName::parse(APP).expect("a name");
    BundleRef { app, sum: Checksum::of(&bundle.encode()) }
}

pub(crate) fn is_of_app(name: &UnitName) -> bool {
    name.template().is_some_and(|template| template.as_str() == APP_UNIT)
}

/// The version of the files that an instance finds below `root`. The error says what is wrong with
/// them.
pub(crate) fn found(root: &Path, name: &UnitName) -> Result<usize, String> {
    let folder = root.join(name.stem());
    let read = |path: &str| {
        let content = std::fs::read_to_string(folder.join(path)).unwrap_or_default();
        (0..APP_VERSIONS).find(|version| content == self::content(path, *version))
    };
    match FILES.map(read) {
        [Some(first), Some(second)] if first == second => Ok(first),
        versions => Err(format!("finds {FILES:?} of the versions {versions:?}")),
    }
}

/// What the store says of the application.
#[derive(Default)]
pub(crate) struct Apps {
    /// The version of the application's document, and that of its unit's record.
    document: Option<Option<usize>>,
    record: Option<Option<usize>>,
}

impl Apps {
    /// A revision was written. The error is how it is applied in part.
    pub(crate) fn wrote(&mut self, batch: &WatchBatch) -> Result<(), String> {
        for event in &batch.events {
            let value = if let WatchEvent::Put(kv) = event { Some(&*kv.value) } else { None };
            if key(event).strip_prefix("/fleet/apps/") == Some(APP) {
                self.document = value.map(|value| {
                    let app = serde_json::from_slice::<Application>(value).ok()?;
                    (0..APP_VERSIONS).find(|version| app.files == files(*version))
                });
            } else if key(event).strip_prefix("/fleet/units/") == Some(APP_UNIT) {
                self.record = value.map(|value| {
                    let record = serde_json::from_slice::<UnitRecord>(value).ok()?;
                    version_of(&record.text)
                });
            }
        }
        match self.document == self.record && self.document != Some(None) {
            true => Ok(()),
            false => Err(format!(
                "the application is of version {:?}, and its unit of {:?}",
                self.document, self.record
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_two_versions_are_told_from_those_of_one() {
        let root = tempfile::tempdir().unwrap();
        let name = UnitName::trusted(APP_UNIT).replica(1);
        let put = |path: &str, version| {
            let folder = root.path().join(name.stem());
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(path), content(path, version)).unwrap();
        };
        assert!(found(root.path(), &name).is_err(), "none are there");
        put(FILES[0], 1);
        put(FILES[1], 1);
        assert_eq!(found(root.path(), &name), Ok(1));
        put(FILES[1], 2);
        let said = found(root.path(), &name).unwrap_err();
        assert!(said.ends_with("of the versions [Some(1), Some(2)]"), "{said}");
    }
}
