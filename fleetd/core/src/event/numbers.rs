//! A set of replica numbers in few bytes: `1-5,9,11-99/4`, since the planner deals instances out
//! one machine at a time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Numbers, ordered, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(Vec<Run>);

/// `first`, `first + step`, … up to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    last: u32,
    step: u32,
}

impl Numbers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|run| ((run.last - run.first) / run.step) as usize + 1).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `number` is one of them.
    pub fn contains(&self, number: u32) -> bool {
        self.0.iter().any(|run| {
            (run.first..=run.last).contains(&number)
                && (number - run.first).is_multiple_of(run.step)
        })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|run| (run.first..=run.last).step_by(run.step as usize))
    }
}

impl FromIterator<u32> for Numbers {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Numbers {
        let mut numbers: Vec<u32> = numbers.into_iter().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut runs = Vec::new();
        let mut rest = numbers.as_slice();
        while let [first, ..] = *rest {
            let step = rest.get(1).map_or(1, |second| second - first);
            let length = 1 + rest.windows(2).take_while(|pair| pair[1] - pair[0] == step).count();
            // Two numbers far apart are no run: the second may begin a better one.
            let length = if step == 1 || length > 2 { length } else { 1 };
            let step = if length == 1 { 1 } else { step };
            runs.push(Run { first, last: rest[length - 1], step });
            rest = &rest[length..];
        }
        Numbers(runs)
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Run { first, last, step }) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            match (first == last, *step) {
                (true, _) => write!(f, "{first}")?,
                (false, 1) => write!(f, "{first}-{last}")?,
                (false, step) => write!(f, "{first}-{last}/{step}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Numbers, String> {
        let number = |text: &str| {
            text.parse::<u32>().map_err(|error| format!("{text:?} is no number: {error}"))
        };
        let run = |part: &str| {
            let (range, step) = part.split_once('/').unwrap_or((part, "1"));
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let run = Run { first: number(first)?, last: number(last)?, step: number(step)? };
            let sound = run.first <= run.last && run.step > 0;
            if sound {
                Ok(run)
            } else {
                Err(format!("{part:?} is no run of numbers, such as 1-9 or 1-9/2"))
            }
        };
        text.split(',')
            .filter(|part| !part.is_empty())
            .map(run)
            .collect::<Result<Vec<Run>, String>>()
            .map(Numbers)
    }
}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Numbers, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Numbers {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Numbers".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "description": "Replica numbers, as \
            1-5,9,11-99/4; empty for a unit that is no replica."})
    }
}
