//! The labels that a unit asks of a machine (`MachineMetadata=`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::podman::Kind;

/// The first 16 bytes of the SHA-1 of a set of labels: as two numbers, which are compared faster
/// than bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fingerprint([u64; 2]);

impl Fingerprint {
    /// That of a Quadlet unit of this kind that asks for these labels.
    pub(crate) fn of_kind(kind: Kind, labels: Option<Fingerprint>) -> Fingerprint {
        match labels {
            Some(labels) => Fingerprint([labels.0[0].wrapping_add(kind.number()), labels.0[1]]),
            None => Fingerprint([kind.number(), 0]),
        }
    }

    /// That of such a unit that takes these secrets of podman.
    pub(crate) fn with_secrets(self, secrets: &BTreeSet<String>) -> Fingerprint {
        if secrets.is_empty() {
            return self;
        }
        let mut text = format!("{}-{} secrets", self.0[0], self.0[1]);
        for secret in secrets {
            let _ = write!(text, ",{}:{secret}", secret.len());
        }
        Fingerprint::of(&text)
    }

    fn of(text: &str) -> Fingerprint {
        let hash: [u8; 20] = Sha1::digest(text).into();
        let number = |at: usize| {
            hash[at..at + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        Fingerprint([number(0), number(8)])
    }
}

/// Keys are all needed, of a key's values any one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, BTreeSet<String>>", into = "BTreeMap<String, BTreeSet<String>>")]
pub struct Labels {
    wanted: BTreeMap<String, BTreeSet<String>>,
    fingerprint: Option<Fingerprint>,
}

impl Labels {
    /// What two sets of labels share exactly if they are the same, none if no label is asked for:
    /// planning compares thousands, and a map of sets of strings lies all over the memory.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Whether any key or value holds a specifier (`%i`).
    pub(crate) fn have_specifiers(&self) -> bool {
        self.wanted.iter().any(|(key, values)| {
            key.contains('%') || values.iter().any(|value| value.contains('%'))
        })
    }
}

impl From<BTreeMap<String, BTreeSet<String>>> for Labels {
    fn from(wanted: BTreeMap<String, BTreeSet<String>>) -> Labels {
        let mut text = String::new();
        for (key, values) in &wanted {
            // Each with its length or count before it, so that no two differing sets can read
            // alike.
            let _ = write!(text, "{}:{key}={}", key.len(), values.len());
            for value in values {
                let _ = write!(text, ",{}:{value}", value.len());
            }
            text.push(' ');
        }
        let fingerprint = (!wanted.is_empty()).then(|| Fingerprint::of(&text));
        Labels { wanted, fingerprint }
    }
}

impl From<Labels> for BTreeMap<String, BTreeSet<String>> {
    fn from(labels: Labels) -> Self {
        labels.wanted
    }
}

impl Deref for Labels {
    type Target = BTreeMap<String, BTreeSet<String>>;

    fn deref(&self) -> &Self::Target {
        &self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_labels_never_read_alike() {
        let labels = |pairs: &[(&str, &str)]| {
            let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (key, value) in pairs {
                wanted.entry((*key).to_string()).or_default().insert((*value).to_string());
            }
            Labels::from(wanted)
        };
        let sets: [&[(&str, &str)]; 7] = [
            &[],
            &[("a", "b")],
            &[("a", "b"), ("a", "c")],
            &[("a", "b"), ("c", "d")],
            &[("a", "b,1:c")],
            &[("a", "b 1:c=1,1:d")],
            &[("a=1,1:b 1:c", "d")],
        ];
        for (at, one) in sets.iter().enumerate() {
            assert_eq!(labels(one).fingerprint(), labels(one).fingerprint());
            for other in &sets[..at] {
                assert_ne!(labels(one).fingerprint(), labels(other).fingerprint());
            }
        }
    }

    #[test]
    fn labels_are_written_and_read_as_a_plain_map() {
        let text = r#"{"disk":["ssd"],"zone":["a","b"]}"#;
        let labels: Labels = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&labels).unwrap(), text);
        assert_eq!(labels["zone"].len(), 2);
    }
}
