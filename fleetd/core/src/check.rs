//! What checking a store found: what is in it, and what is wrong with it, each with the next move.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `GET /store/check`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreCheck {
    /// The store's revision that was looked at.
    pub revision: i64,
    /// What is in it, by kind.
    pub parts: Vec<Part>,
    /// What is wrong, by key.
    pub problems: Vec<Problem>,
}

/// All keys of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Part {
    /// `units`, `assignments`, `texts`…
    pub kind: String,
    /// How many.
    pub keys: u64,
    /// Keys and values together, in bytes.
    pub bytes: u64,
    /// The largest value, in bytes.
    pub largest_bytes: u64,
    /// Its key.
    pub largest: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// The key.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether it keeps fleet from working as it should; the others are untidy, or will be trouble
    /// one day.
    pub harms: bool,
}

impl StoreCheck {
    /// Whether nothing keeps fleet from working.
    pub fn is_sound(&self) -> bool {
        !self.problems.iter().any(|problem| problem.harms)
    }

    /// Counts a key.
    pub fn count(&mut self, kind: &str, key: &str, value_bytes: usize) {
        let at = self.parts.iter().position(|part| part.kind == kind);
        let at = at.unwrap_or_else(|| {
            self.parts.push(Part { kind: kind.to_string(), ..Part::default() });
            self.parts.len() - 1
        });
        let part = &mut self.parts[at];
        part.keys += 1;
        part.bytes += (key.len() + value_bytes) as u64;
        if part.largest.is_empty() || value_bytes as u64 > part.largest_bytes {
            part.largest_bytes = value_bytes as u64;
            part.largest = key.to_string();
        }
    }
}

impl fmt::Display for StoreCheck {
    /// For people: what is there, what is wrong, the verdict.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            let Part { kind, keys, bytes, largest_bytes, .. } = part;
            writeln!(
                f,
                "{kind:<12} {keys:>7} keys {bytes:>11} bytes, the largest {largest_bytes}"
            )?;
        }
        for Problem { key, problem, remedy, harms } in &self.problems {
            writeln!(f, "{} {key}: {problem}; {remedy}", if *harms { "BAD " } else { "note" })?;
        }
        let bad = self.problems.iter().filter(|problem| problem.harms).count();
        match bad {
            0 => writeln!(f, "The store is sound at revision {}.", self.revision),
            1 => writeln!(f, "1 document needs a person at revision {}.", self.revision),
            n => writeln!(f, "{n} documents need a person at revision {}.", self.revision),
        }
    }
}
