//! Applications: what a folder of unit files, Quadlet files and other files brings to the cluster
//! as one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{UnitRecord, Unknown};
use crate::name::UnitName;
use crate::unit::family::is_counted;
use crate::unit::file::UnitFile;
use crate::view::Cluster;

mod basis;
pub mod bundle;
mod changes;
mod forecast;
mod refs;
mod same;
mod whole;

pub use basis::Basis;
pub use bundle::{Bundle, BundleRef, Checksum, FileEntry};
pub use changes::{Applying, Request, changes, tell_files};
pub use forecast::forecast;
pub use refs::{FILES_DIR, pod_of};
pub use same::runs_the_same;
pub use whole::{files_named, without_bundle};

/// The largest file of an application, in bytes. etcd takes no more than 1.5 MiB in a request.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The most bytes of all files of an application.
pub const MAX_APP_BYTES: u64 = 16 * 1024 * 1024;

/// The most files of an application beside its units.
pub const MAX_APP_FILES: usize = 1_000;

/// The most units of an application, Quadlet files of all kinds included.
pub const MAX_APP_UNITS: usize = 500;

/// The longest name of an application, in bytes: as long as a DNS label.
pub const MAX_APP_NAME_BYTES: usize = 63;

/// The name of an application: `shop`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct AppName(Arc<str>);

impl AppName {
    /// Reads a name: lower-case letters, digits, `-` and `_`, a letter or digit first.
    pub fn parse(text: &str) -> Result<AppName, String> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = text.bytes().next().is_some_and(good)
            && text.len() <= MAX_APP_NAME_BYTES
            && text.bytes().all(|b| good(b) || b == b'-' || b == b'_');
        match fits {
            true => Ok(AppName(text.into())),
            false => Err(format!(
                "{text:?} is no name of an application: expect 1 to {MAX_APP_NAME_BYTES} lower-case \
                    letters, digits, \"-\" and \"_\", a letter or digit first"
            )),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for AppName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<AppName, D::Error> {
        AppName::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `apps/<name>`: what was applied last under this name. Written by the API, in one write with the
/// records of the application's units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Application {
    /// The format, [`FORMAT`](crate::model::FORMAT).
    pub v: u32,
    /// Its name.
    pub name: AppName,
    /// Counts the applies that changed anything, from 1.
    pub revision: u64,
    /// Its units, Quadlet files of all kinds included. No unit belongs to two applications.
    pub units: BTreeSet<UnitName>,
    /// What `Replicas=` said in the files of its templates: a count that was set by hand since
    /// holds until the file's number changes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replicas: BTreeMap<UnitName, u32>,
    /// Its other files, by their paths in the folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileEntry>,
    /// When it was applied last, in milliseconds since 1970.
    pub applied_ms: u64,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Application {
    /// The records of their own that instances of its templates have, because somebody stopped one
    /// by hand, say: they came with the application, and go with their template. What was submitted
    /// under such a name with a text of its own is its user's.
    pub fn replicas_of_their_own(&self, cluster: &Cluster) -> Vec<UnitName> {
        let came_with = |record: &UnitRecord| {
            let template = record.name.template().filter(|name| self.units.contains(name))?;
            let template = cluster.records.get(&template)?;
            let bundle = BundleRef::of(&UnitFile::parse_lenient(&record.text));
            let is_ours = is_counted(&record.name, template.replicas)
                || record.text == template.text
                || bundle.is_some_and(|bundle| bundle.app == self.name);
            is_ours.then(|| record.name.clone())
        };
        let elsewhere = |name: &UnitName| {
            let others = cluster.apps.values().filter(|app| app.name != self.name);
            others.into_iter().any(|app| app.units.contains(name))
        };
        let all = cluster.records.values().filter(|record| !self.units.contains(&record.name));
        all.filter_map(|record| came_with(record)).filter(|name| !elsewhere(name)).collect()
    }
}

/// Why a file of an application cannot be called `path`; `None` if it can. It becomes a file below
/// an instance's folder.
pub fn path_refusal(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let problem = match path {
        "" => "a path is empty".to_string(),
        _ if path.len() > 255 => format!("it has {} bytes; the limit is 255", path.len()),
        _ if path.chars().any(char::is_control) => "it has a control character".to_string(),
        _ if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") => {
            "it must be a path inside the folder, without \".\", \"..\" or \"//\"".to_string()
        }
        _ => return None,
    };
    Some(format!("{path:?} cannot be a file of an application: {problem}"))
}

/// Everything that is wrong with the paths of files that come together.
pub fn paths_refusals(paths: &BTreeSet<&str>) -> Vec<String> {
    let mut problems = Vec::new();
    for path in paths {
        problems.extend(path_refusal(path));
        let mut folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(both) = folders.find(|folder| paths.contains(folder)) {
            problems.push(format!("{both:?} is a file, and the folder of {path:?}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_care() {
        let longest = "a".repeat(MAX_APP_NAME_BYTES);
        for good in ["shop", "a", "0-shop_2", &longest] {
            assert_eq!(AppName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "Shop", "a.b", "a/b", "../a", "ä", &format!("a{longest}")] {
            assert!(AppName::parse(bad).unwrap_err().contains("is no name of an application"));
        }
    }

    #[test]
    fn a_path_that_leads_out_of_the_folder_is_refused() {
        for good in ["nginx.conf", "conf/nginx.conf", ".env", "a b.txt", "..a"] {
            assert_eq!(path_refusal(good), None);
        }
        for bad in ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", "./a", "a\nb"] {
            assert!(path_refusal(bad).is_some(), "{bad:?}");
        }
    }
}
