//! How the instances of an assignment and of a report stand in JSON: what many have in common once,
//! replicas as ranges of numbers.
//!
//! ```json
//! [{"as": {"state": "launched", "why": "fewest"},
//!   "of": [["db.service", [1, "9f86d081884c", 1700000000000]],
//!          ["web@.service", [3, "2c26b46b68ff", 1700000000000], "1-300 305"]]}]
//! ```
//!
//! A row is a unit, what seldom is common (revision, hash and time), and the replicas that it
//! stands for; without those it is the unit itself. So 10,000 instances take some 600 KB at most,
//! and a thousand replicas that came together a hundred bytes. Both documents once were an object
//! from name to entry; that form is still read.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{DesiredState, Fenced, InstanceStatus, Placement, Why, is_zero, is_zero_u32};
use crate::name::UnitName;
use crate::unit::file::ShortHash;

/// The most instances that one document may stand for: a slip in a range of numbers must not fill
/// the memory.
const MAX_INSTANCES: usize = 1_000_000;

/// The rows of one group: the instances of each.
type Rows<'a, O> = BTreeMap<(UnitName, O), Members<'a>>;

/// An entry of a document, told apart in what many entries have in common and what they seldom
/// have.
pub(crate) trait Entry: Sized + DeserializeOwned {
    /// What stands once for many.
    type Common: Ord + Serialize + DeserializeOwned;
    /// What stands in each row.
    type Own: Ord + Serialize + DeserializeOwned;
    /// The entry of `name`, taken apart; first the unit whose row it is in, the template for a
    /// replica.
    fn split(&self, name: &UnitName) -> (UnitName, Self::Common, Self::Own);
    /// The same put together again.
    fn join(unit: &UnitName, common: &Self::Common, own: &Self::Own) -> Self;
}

/// For `#[serde(with)]`: groups.
pub(crate) fn serialize<T: Entry, S: Serializer>(
    entries: &BTreeMap<UnitName, T>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut groups: BTreeMap<T::Common, Rows<T::Own>> = BTreeMap::new();
    for (name, entry) in entries {
        let (unit, common, own) = entry.split(name);
        let number = name.replica_number().filter(|_| is_replica(name, &unit));
        let members = groups.entry(common).or_default().entry((unit, own)).or_default();
        match number {
            Some(number) => members.numbers.push(number),
            None => members.names.push(name),
        }
    }
    let mut seq = to.serialize_seq(Some(groups.len()))?;
    for (common, rows) in groups {
        let of: Vec<Row<T::Own>> = rows
            .into_iter()
            .map(|((unit, own), members)| Row { members: members.text(&unit), unit, own })
            .collect();
        seq.serialize_element(&Group { common, of })?;
    }
    seq.end()
}

/// For `#[serde(with)]`: groups, or the object of old.
pub(crate) fn deserialize<'de, T: Entry, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<UnitName, T>, D::Error> {
    from.deserialize_any(Entries(PhantomData))
}

struct Entries<T>(PhantomData<T>);

impl<'de, T: Entry> Visitor<'de> for Entries<T> {
    type Value = BTreeMap<UnitName, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("groups of instances, or an object from name to instance")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((name, entry)) = map.next_entry()? {
            entries.insert(name, entry);
        }
        Ok(entries)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut groups: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(Group { common, of }) = groups.next_element::<Group<T::Common, T::Own>>()? {
            for row in of {
                let entry = |name| (name, T::join(&row.unit, &common, &row.own));
                match &row.members {
                    None => entries.push(entry(row.unit.clone())),
                    Some(members) => expand(&row.unit, members, |name| {
                        entries.push(entry(name));
                        entries.len() <= MAX_INSTANCES
                    })
                    .map_err(A::Error::custom)?,
                }
            }
        }
        Ok(entries.into_iter().collect())
    }
}

#[derive(Serialize, Deserialize)]
struct Group<C, O> {
    #[serde(rename = "as")]
    common: C,
    #[serde(bound(deserialize = "O: DeserializeOwned"))]
    of: Vec<Row<O>>,
}

struct Row<O> {
    unit: UnitName,
    own: O,
    members: Option<String>,
}

impl<O: Serialize> Serialize for Row<O> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seq = to.serialize_seq(None)?;
        seq.serialize_element(&self.unit)?;
        seq.serialize_element(&self.own)?;
        if let Some(members) = &self.members {
            seq.serialize_element(members)?;
        }
        seq.end()
    }
}

impl<'de, O: DeserializeOwned> Deserialize<'de> for Row<O> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Row<O>, D::Error> {
        struct Parts<O>(PhantomData<O>);
        impl<'de, O: DeserializeOwned> Visitor<'de> for Parts<O> {
            type Value = Row<O>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an array of a unit, what is its own, and the replicas that it stands for",
                )
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Row<O>, A::Error> {
                let unit = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let own = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
                Ok(Row { unit, own, members: seq.next_element()? })
            }
        }
        from.deserialize_seq(Parts(PhantomData))
    }
}

/// The instances of one row.
#[derive(Default)]
struct Members<'a> {
    numbers: Vec<u32>,
    names: Vec<&'a UnitName>,
}

impl Members<'_> {
    /// `1-300 305 web@x.service`; nothing for the unit itself.
    fn text(mut self, unit: &UnitName) -> Option<String> {
        if self.numbers.is_empty() && self.names == [unit] {
            return None;
        }
        self.numbers.sort_unstable();
        let mut text = String::new();
        for run in self.numbers.chunk_by(|a, b| a + 1 == *b) {
            let space = if text.is_empty() { "" } else { " " };
            let _ = match run {
                [first, .., last] => write!(text, "{space}{first}-{last}"),
                _ => write!(text, "{space}{}", run[0]),
            };
        }
        for name in self.names {
            let _ = write!(text, "{}{name}", if text.is_empty() { "" } else { " " });
        }
        Some(text)
    }
}

/// Calls `found` with each name of `members`, until it says that there are too many.
fn expand(
    unit: &UnitName,
    members: &str,
    mut found: impl FnMut(UnitName) -> bool,
) -> Result<(), String> {
    let mut found = |name| {
        if found(name) {
            Ok(())
        } else {
            Err(format!("a document holds {MAX_INSTANCES} instances at most"))
        }
    };
    let (head, tail) = unit.as_str().split_at(unit.stem().len());
    let mut text = String::new();
    for token in members.split(' ') {
        if token.contains('.') {
            found(UnitName::read(token).ok_or_else(|| format!("{token:?} is no unit's name"))?)?;
            continue;
        }
        let (first, last) = token.split_once('-').unwrap_or((token, token));
        let number = |digits: &str| {
            digits
                .parse::<u32>()
                .map_err(|_| format!("\"{token}\" is no range of replicas of {unit}"))
        };
        for number in number(first)?..=number(last)? {
            text.clear();
            let _ = write!(text, "{head}{number}{tail}");
            found(UnitName::trusted(text.as_str()))?;
        }
    }
    Ok(())
}

/// Whether `name` is `unit` with a number: what a range can say.
fn is_replica(name: &UnitName, unit: &UnitName) -> bool {
    unit.is_template() && name.as_str().starts_with(unit.stem()) && name.suffix() == unit.suffix()
}

/// A placement's part that many have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Placed {
    state: DesiredState,
    why: Why,
    #[serde(default, skip_serializing_if = "is_zero")]
    changed_ms: u64,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    moves: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    restart: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    config: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fence: Option<Box<Fenced>>,
}

impl Entry for Placement {
    type Common = Placed;
    /// Revision, hash, since when.
    type Own = (u64, ShortHash, u64);

    fn split(&self, _: &UnitName) -> (UnitName, Placed, (u64, ShortHash, u64)) {
        let Placement {
            unit,
            revision,
            hash,
            state,
            why,
            since_ms,
            changed_ms,
            moves,
            restart,
            config,
            fence,
        } = self.clone();
        let common = Placed { state, why, changed_ms, moves, restart, config, fence };
        (unit, common, (revision, hash, since_ms))
    }

    fn join(
        unit: &UnitName,
        common: &Placed,
        (revision, hash, since_ms): &(u64, ShortHash, u64),
    ) -> Placement {
        let Placed { state, why, changed_ms, moves, restart, config, fence } = common.clone();
        let (unit, revision, hash, since_ms) = (unit.clone(), *revision, hash.clone(), *since_ms);
        Placement {
            unit,
            revision,
            hash,
            state,
            why,
            since_ms,
            changed_ms,
            moves,
            restart,
            config,
            fence,
        }
    }
}

impl Entry for InstanceStatus {
    /// All but hash and time, which are empty here.
    type Common = InstanceStatus;
    /// Hash, since when.
    type Own = (ShortHash, u64);

    fn split(&self, name: &UnitName) -> (UnitName, InstanceStatus, (ShortHash, u64)) {
        let unit = name.template().filter(|_| name.replica_number().is_some());
        let common = InstanceStatus { hash: ShortHash::default(), since_ms: 0, ..self.clone() };
        (unit.unwrap_or_else(|| name.clone()), common, (self.hash.clone(), self.since_ms))
    }

    fn join(
        _: &UnitName,
        common: &InstanceStatus,
        (hash, since_ms): &(ShortHash, u64),
    ) -> InstanceStatus {
        InstanceStatus { hash: hash.clone(), since_ms: *since_ms, ..common.clone() }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Assignment, MAX_DOCUMENT_BYTES, Report};
    use crate::name::MachineId;

    fn placement(unit: &str) -> Placement {
        Placement {
            unit: UnitName::trusted(unit),
            revision: 1,
            hash: "9f86d081884c".into(),
            state: DesiredState::Launched,
            why: Why::Fewest,
            since_ms: 1_700_000_000_000,
            changed_ms: 0,
            moves: 0,
            restart: 0,
            config: 0,
            fence: None,
        }
    }

    fn assignment(instances: impl IntoIterator<Item = (String, Placement)>) -> Assignment {
        let instances = instances
            .into_iter()
            .map(|(name, placement)| (UnitName::trusted(name), placement))
            .collect();
        Assignment { v: 1, generation: 7, instances, ..Assignment::default() }
    }

    fn status(active: &str, since_ms: u64) -> InstanceStatus {
        let [load, active, sub] = ["loaded", active, "running"].map(String::from);
        InstanceStatus {
            load,
            active,
            sub,
            hash: "9f86d081884c".into(),
            launched: true,
            since_ms,
            ..InstanceStatus::default()
        }
    }

    #[test]
    fn what_is_common_stands_once_and_replicas_are_ranges() {
        let mut all: Vec<_> =
            (1..=12).map(|n| (format!("web@{n}.service"), placement("web@.service"))).collect();
        all.push((
            "web@30.service".into(),
            Placement {
                why: Why::Lost(MachineId::new("m")),
                moves: 2,
                ..placement("web@.service")
            },
        ));
        all.push(("web@x.service".into(), placement("web@.service")));
        all.push(("db.service".into(), placement("db.service")));
        all.remove(3);
        let text = serde_json::to_string_pretty(&assignment(all)).unwrap();
        let short: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        expect![[r#"{ "v": 1, "generation": 7, "instances": [ { "as": { "state": "launched", "why": "fewest" }, "of": [ [ "db.service", [ 1, "9f86d081884c", 1700000000000 ] ], [ "web@.service", [ 1, "9f86d081884c", 1700000000000 ], "1-3 5-12 web@x.service" ] ] }, { "as": { "state": "launched", "why": { "lost": "m" }, "moves": 2 }, "of": [ [ "web@.service", [ 1, "9f86d081884c", 1700000000000 ], "30" ] ] } ] }"#]].assert_eq(&short);
    }

    #[test]
    fn the_object_of_old_is_read_and_unknown_fields_survive() {
        let old = r#"{"v":1,"generation":2,"instances":{"web@1.service":{"unit":"web@.service","revision":3,"hash":"h",
            "state":"loaded","why":{"beside":"db.service"},"since_ms":5,"moves":1}},"later":[1]}"#;
        let read: Assignment = serde_json::from_str(old).unwrap();
        let again: Assignment =
            serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!((&again, again.unknown["later"].to_string()), (&read, "[1]".to_string()));
        assert_eq!(again.instances["web@1.service"].moves, 1);
        let old = r#"{"v":1,"generation":2,"instances":{"a.service":{"load":"loaded","active":"failed","sub":"failed","result":"signal",
            "code":9,"since_ms":5}}}"#;
        let read: Report = serde_json::from_str(old).unwrap();
        assert_eq!(read.instances["a.service"].code, Some(9));
    }

    #[test]
    fn a_range_that_is_none_or_too_large_is_refused() {
        let read = |members: &str| {
            let text = format!(
                r#"{{"v":1,"generation":1,"instances":[{{"as":{{"state":"loaded","why":"fewest"}},"of":[["w@.service",[1,"h",0],"{members}"]]}}]}}"#
            );
            serde_json::from_str::<Assignment>(&text)
                .map(|read| read.instances.len())
                .map_err(|error| error.to_string())
        };
        assert_eq!(read("1-3 7"), Ok(4));
        assert!(
            read("1 ../../x.service")
                .unwrap_err()
                .contains("\"../../x.service\" is no unit's name")
        );
        assert!(read("1-x").unwrap_err().contains("\"1-x\" is no range of replicas of w@.service"));
        assert!(read("1-4294967295").unwrap_err().contains("1000000 instances at most"));
    }

    /// The promise of a document's size, for what is dearest: units of their own, each with a time
    /// of its own.
    #[test]
    fn ten_thousand_instances_take_less_than_a_mebibyte() {
        let time = |n: u64| 1_700_000_000_000 + n;
        let single = |n: u64| (format!("a-unit-with-some-name-{n}.service"), n);
        let placed = |n| Placement { since_ms: time(n), ..placement(&single(n).0) };
        let assigned = assignment((0..10_000).map(|n| (single(n).0, placed(n))));
        let seen = (0..10_000)
            .map(|n| (UnitName::trusted(single(n).0), status("active", time(n))))
            .collect();
        let report = Report { v: 1, generation: 7, instances: seen, ..Report::default() };
        let replicas = assignment(
            (1..=10_000).map(|n| (format!("web@{n}.service"), placement("web@.service"))),
        );
        let size = |json: serde_json::Result<Vec<u8>>| json.unwrap().len();
        assert!(size(serde_json::to_vec(&assigned)) < MAX_DOCUMENT_BYTES * 8 / 10);
        assert!(size(serde_json::to_vec(&report)) < MAX_DOCUMENT_BYTES * 8 / 10);
        assert!(size(serde_json::to_vec(&replicas)) < 200);
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            (0u32..40).prop_map(|n| format!("web@{n}.service")),
            Just("web@4294967295.service".to_string()),
            Just("web@4294967296.service".to_string()),
            Just("web@01.service".to_string()),
            Just("web@a-3.service".to_string()),
            (1u32..40).prop_map(|n| format!("web@{n}.container")),
            (0u32..9).prop_map(|n| format!("u{n}.service")),
            Just("web@.service".to_string()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_assignment_comes_back_as_it_was(
            entries in proptest::collection::vec((name(), name(), 0u64..3, 0u32..2, 0u64..2, any::<bool>()), 0..60)
        ) {
            let entry = |(name, unit, since_ms, moves, restart, own): (String, String, u64, u32, u64, bool)| {
                let name = UnitName::trusted(name);
                let unit = if own { name.template().unwrap_or(name.clone()) } else { UnitName::trusted(unit) };
                (name.to_string(), Placement { unit, since_ms, moves, restart, ..placement("x.service") })
            };
            let before = assignment(entries.into_iter().map(entry));
            let text = serde_json::to_string(&before).unwrap();
            prop_assert_eq!(serde_json::from_str::<Assignment>(&text).unwrap(), before);
        }

        #[test]
        fn a_report_comes_back_as_it_was(entries in proptest::collection::vec((name(), 0u64..3, any::<bool>(), any::<bool>()), 0..60)) {
            let entry = |(name, since_ms, failed, message): (String, u64, bool, bool)| {
                let status = status(if failed { "failed" } else { "active" }, since_ms);
                (UnitName::trusted(name), InstanceStatus { message: message.then(|| "a \"b\"".to_string()), ..status })
            };
            let instances = entries.into_iter().map(entry).collect();
            let before = Report { v: 1, generation: 7, instances, ..Report::default() };
            let text = serde_json::to_string(&before).unwrap();
            prop_assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), before);
        }
    }
}
