//! What lists show of a unit, kept in its record beside the text: a list of 10,000 units parses no
//! unit file.
//!
//! What is kept names the sum of the text that it was made from, and is written by [`encode`]
//! alone. Where the sum is not that of the text beside it (an operator edited the record, an older
//! fleetd replaced its text) or nothing is kept, the text is parsed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use sha1::{Digest, Sha1};

use crate::model::{DesiredState, UnitRecord, Unknown};
use crate::name::UnitName;
use crate::unit::file::UnitFile;
use crate::unit::{family, xfleet};

/// The field of a record that holds what is kept. If what is kept, or how it is made from the text,
/// ever changes, it needs another name.
const FIELD: &str = "brief";

/// A unit as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brief {
    /// The number of its text.
    pub revision: u64,
    /// What the user wants of it.
    pub desired: DesiredState,
    /// The wanted count, for a scaled template.
    pub replicas: Option<u32>,
    /// The whole hash of its text.
    pub hash: Arc<str>,
    /// Whether it runs on every machine that fits.
    pub global: bool,
}

/// All units as lists show them, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Briefs(pub BTreeMap<UnitName, Brief>);

/// What a record keeps.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    /// The sum of the text, see [`sum`].
    of: Cow<'a, str>,
    hash: Cow<'a, str>,
    global: bool,
}

/// A record as it is stored, with what lists show of it.
pub fn encode(record: &UnitRecord) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Stored<'a> {
        #[serde(flatten)]
        record: &'a UnitRecord,
        brief: Kept<'a>,
    }
    let mut record = Cow::Borrowed(record);
    if record.unknown.contains_key(FIELD) {
        record.to_mut().unknown.remove(FIELD); // an older fleetd exported it
    }
    let file = UnitFile::parse_lenient(&record.text);
    let of = sum(&to_raw_value(&record.text)?).into();
    let brief = Kept { of, hash: file.hash().into(), global: xfleet::is_global(&file.options) };
    serde_json::to_vec(&Stored { record: &record, brief })
}

impl Brief {
    /// Reads a record as far as lists need it.
    pub fn read(document: &[u8]) -> serde_json::Result<Brief> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            text: &'a RawValue,
            revision: u64,
            desired: DesiredState,
            #[serde(default)]
            replicas: Option<u32>,
            #[serde(borrow)]
            brief: Kept<'a>,
        }
        match serde_json::from_slice(document) {
            Ok(Fields { text, revision, desired, replicas, brief: Kept { of, hash, global } })
                if sum(text) == of =>
            {
                Ok(Brief { revision, desired, replicas, hash: hash.into(), global })
            }
            _ => serde_json::from_slice(document).map(|record| Brief::parse(&record)),
        }
    }

    fn parse(record: &UnitRecord) -> Brief {
        let file = UnitFile::parse_lenient(&record.text);
        Brief {
            revision: record.revision,
            desired: record.desired,
            replicas: record.replicas,
            hash: file.hash().into(),
            global: xfleet::is_global(&file.options),
        }
    }
}

impl Briefs {
    /// All names that lists show: every record, and the replicas of scaled templates.
    pub fn names(&self) -> BTreeSet<UnitName> {
        family::names(&self.0, |brief| brief.replicas)
    }

    /// The unit that `name` follows from: itself, or the template whose replica it is.
    pub fn owner(&self, name: &UnitName) -> Option<(&UnitName, &Brief)> {
        family::owner(&self.0, name, |brief| brief.replicas)
    }
}

/// A record's unknown fields are not those of this page: nothing takes them for true but
/// [`Brief::read`].
pub(crate) fn unknown<'de, D: Deserializer<'de>>(fields: D) -> Result<Unknown, D::Error> {
    let mut unknown = Unknown::deserialize(fields)?;
    unknown.remove(FIELD);
    Ok(unknown)
}

/// SHA-1 of a text as it stands in a document, quotes and escapes included, so that reading it need
/// not undo them: 16 hex digits. Whoever escapes otherwise has another sum, and their text is
/// parsed.
fn sum(text: &RawValue) -> String {
    let digest = Sha1::digest(text.get().as_bytes());
    let digit = |four_bits: u8| char::from(b"0123456789abcdef"[usize::from(four_bits)]);
    digest.iter().take(8).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# why\n[Service]\nExecStart=/bin/echo \"a\\b\"\n";
    const GLOBAL: &str = "[Service]\nExecStart=/bin/true\n[X-Fleet]\nGlobal=yes\n";

    fn record(text: &str) -> UnitRecord {
        UnitRecord {
            revision: 3,
            desired: DesiredState::Launched,
            created_ms: 1,
            unknown: Unknown::from([("later".to_string(), 1.into())]),
            ..UnitRecord::new(UnitName::trusted("a.service"), text)
        }
    }

    fn stored(record: &UnitRecord) -> serde_json::Value {
        serde_json::from_slice(&encode(record).unwrap()).unwrap()
    }

    fn read(document: &serde_json::Value) -> Brief {
        Brief::read(&serde_json::to_vec(document).unwrap()).unwrap()
    }

    #[test]
    fn what_is_kept_is_what_the_text_says() {
        for text in [TEXT, GLOBAL] {
            let record = record(text);
            assert_eq!(Brief::read(&encode(&record).unwrap()).unwrap(), Brief::parse(&record));
            assert_eq!(Brief::parse(&record).global, text == GLOBAL);
        }
    }

    #[test]
    fn what_is_kept_is_read_and_the_text_is_not() {
        let mut document = stored(&record(TEXT));
        document[FIELD]["hash"] = "kept".into();
        assert_eq!(&*read(&document).hash, "kept");
    }

    #[test]
    fn a_text_that_somebody_else_wrote_is_parsed() {
        let mut document = stored(&record(TEXT));
        document["text"] = GLOBAL.into();
        assert_eq!(read(&document), Brief::parse(&record(GLOBAL)));
    }

    #[test]
    fn a_record_of_an_older_fleetd_or_a_later_one_is_parsed() {
        let mut document = stored(&record(TEXT));
        document[FIELD] = "another form".into();
        assert_eq!(read(&document), Brief::parse(&record(TEXT)));
        document.as_object_mut().unwrap().remove(FIELD);
        assert_eq!(read(&document), Brief::parse(&record(TEXT)));
        assert!(Brief::read(b"half a docu").is_err());
    }

    #[test]
    fn unknown_fields_survive_and_what_is_kept_is_none_of_them() {
        let mut record = record(TEXT);
        assert_eq!(
            serde_json::from_slice::<UnitRecord>(&encode(&record).unwrap()).unwrap(),
            record
        );
        // As an older fleetd exports it, for which it is a field like any other.
        record.unknown.insert(FIELD.to_string(), stored(&record)[FIELD].clone());
        record.text = GLOBAL.to_string();
        let document = encode(&record).unwrap();
        assert_eq!(String::from_utf8_lossy(&document).matches("\"brief\"").count(), 1);
        assert_eq!(Brief::read(&document).unwrap(), Brief::parse(&record));
    }
}
