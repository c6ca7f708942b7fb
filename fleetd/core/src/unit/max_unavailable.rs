//! `MaxUnavailable=`: how many instances of a unit may be down at once because of updates, restarts
//! and drains.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A budget for what is done to a unit's instances on purpose. What fails by itself counts against
/// it, and is not held up by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaxUnavailable {
    /// So many instances; at least 1.
    Instances(u32),
    /// Such a share of the wanted instances, rounded down, but at least one instance; 1 to 100.
    Percent(u32),
    /// Neither: refused where it is submitted, and taken for 1 where it stands all the same.
    Unreadable(String),
}

/// The budget of scaled templates and global units that name none: a text that fails, or a drain,
/// takes down a quarter of them at most.
pub const DEFAULT: MaxUnavailable = MaxUnavailable::Percent(25);

impl MaxUnavailable {
    /// Reads the option's value.
    pub fn parse(text: &str) -> MaxUnavailable {
        let (number, largest, made): (_, u32, fn(u32) -> MaxUnavailable) =
            match text.strip_suffix('%') {
                Some(number) => (number, 100, MaxUnavailable::Percent),
                None => (text, u32::MAX, MaxUnavailable::Instances),
            };
        let digits = number.bytes().all(|byte| byte.is_ascii_digit()); // `parse` would take a plus
        let number = number.parse().ok().filter(|number| digits && (1..=largest).contains(number));
        number.map_or_else(|| MaxUnavailable::Unreadable(text.to_string()), made)
    }

    /// How many of `wanted` instances may be down; `None` if all of them may.
    pub fn limit(&self, wanted: usize) -> Option<usize> {
        Some(self.of(wanted)).filter(|most| *most < wanted)
    }

    /// How many of `wanted` instances may be down.
    pub fn of(&self, wanted: usize) -> usize {
        match self {
            MaxUnavailable::Instances(number) => *number as usize,
            MaxUnavailable::Percent(percent) => (wanted * *percent as usize / 100).max(1),
            MaxUnavailable::Unreadable(_) => 1,
        }
    }
}

impl fmt::Display for MaxUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaxUnavailable::Instances(number) => write!(f, "{number}"),
            MaxUnavailable::Percent(percent) => write!(f, "{percent}%"),
            MaxUnavailable::Unreadable(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_all_may_be_down_there_is_no_limit() {
        let limit = |text, wanted| MaxUnavailable::parse(text).limit(wanted);
        assert_eq!([limit("100%", 4), limit("3", 3), limit("1", 1), limit("5", 3)], [None; 4]);
        assert_eq!((limit("99%", 4), limit("2", 3), limit("1", 2)), (Some(3), Some(2), Some(1)));
        assert_eq!([5, 4, 3, 2].map(|wanted| DEFAULT.limit(wanted)), [Some(1); 4]);
        assert_eq!((DEFAULT.limit(1), DEFAULT.limit(9)), (None, Some(2)));
    }

    #[test]
    fn a_number_or_a_share_is_read_and_all_else_is_not() {
        for (text, of_ten) in [("1", 1), ("3", 3), ("50", 50), ("1%", 1), ("25%", 2), ("100%", 10)]
        {
            assert_eq!(MaxUnavailable::parse(text).of(10), of_ten, "{text}");
            assert_eq!(MaxUnavailable::parse(text).to_string(), text);
        }
        for text in ["", "0", "-1", "+1", "0%", "101%", "1.5", "half", "%", "4294967296"] {
            assert_eq!(MaxUnavailable::parse(text), MaxUnavailable::Unreadable(text.to_string()));
        }
    }
}
