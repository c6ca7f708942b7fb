//! Bundles: what comes with one unit of an application, named by its checksum.
//!
//! A unit's text names its bundle (`[X-Fleet] Bundle=shop/<sha256>`), so a unit whose files changed
//! has another text, and all that holds for texts holds for files: a rolling change, a rollback,
//! an instance that runs on with the old ones.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::AppName;
use crate::name::UnitName;
use crate::unit::file::UnitFile;
use crate::unit::xfleet::Constraints;

/// The SHA-256 of some content, as 64 hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Checksum(Arc<str>);

impl Checksum {
    /// That of `content`.
    pub fn of(content: &[u8]) -> Checksum {
        let digits: String =
            Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        Checksum(digits.into())
    }

    /// Reads one; `None` for anything but 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Checksum> {
        let good = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == 64 && text.bytes().all(good)).then(|| Checksum(text.into()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Checksum, D::Error> {
        let text = String::deserialize(from)?;
        Checksum::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no SHA-256")))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file that comes with an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileEntry {
    /// The checksum of its content.
    pub sum: Checksum,
    /// Its size in bytes.
    pub size: u64,
    /// Whether its owner may run it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// What comes with one unit: the files of its application that it names, and the Quadlet files that
/// podman needs to translate it. Kept as a blob of the application, named by its checksum.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bundle {
    /// The files, by their paths in the folder: an instance finds each at that path below
    /// `/run/fleet/files/%N/`.
    #[serde(default)]
    pub files: BTreeMap<String, FileEntry>,
    /// The other Quadlet files, by name, each with the checksum of its text: those that it names
    /// (`Network=app.network`), those that they name, and the containers of a pod.
    #[serde(default)]
    pub quadlets: BTreeMap<UnitName, Checksum>,
}

impl Bundle {
    /// The bundle as it is kept: the same bundle gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and sums can be JSON")
    }

    /// Whether nothing comes with the unit.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.quadlets.is_empty()
    }
}

/// What `Bundle=` says: an application, and the checksum of a bundle among its blobs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleRef {
    /// The application.
    pub app: AppName,
    /// The checksum of the encoded [`Bundle`].
    pub sum: Checksum,
}

impl BundleRef {
    /// Reads `shop/<sha256>`.
    pub fn parse(text: &str) -> Option<BundleRef> {
        let (app, sum) = text.split_once('/')?;
        Some(BundleRef { app: AppName::parse(app).ok()?, sum: Checksum::parse(sum)? })
    }

    /// That of a unit file, if it names one.
    pub fn of(file: &UnitFile) -> Option<BundleRef> {
        BundleRef::parse(Constraints::from_file(file).bundle.as_deref()?)
    }
}

impl fmt::Display for BundleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_from_the_text_as_it_is_written() {
        let sum = Checksum::of(b"abc");
        assert_eq!(
            sum.as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let text = format!("[Service]\nExecStart=/a\n[X-Fleet]\nBundle=shop/{sum}\n");
        let found = BundleRef::of(&UnitFile::parse(&text).unwrap()).unwrap();
        assert_eq!((found.app.as_str(), &found.sum), ("shop", &sum));
        assert_eq!(BundleRef::parse(&found.to_string()), Some(found));
        for bad in ["", "shop", "shop/", "/0", "Shop/0", &format!("../{sum}"), &format!("a/{sum}0")]
        {
            assert_eq!(BundleRef::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_same_bundle_gives_the_same_bytes_and_reads_back() {
        let entry = FileEntry { sum: Checksum::of(b""), size: 0, executable: true };
        let bundle = Bundle {
            files: [("b".to_string(), entry.clone()), ("a/c".to_string(), entry)].into(),
            quadlets: [(UnitName::trusted("app.network"), Checksum::of(b"x"))].into(),
        };
        let bytes = bundle.encode();
        assert_eq!(serde_json::from_slice::<Bundle>(&bytes).unwrap(), bundle);
        assert_eq!(bundle.clone().encode(), bytes);
    }
}
