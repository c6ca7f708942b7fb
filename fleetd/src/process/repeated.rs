//! Trouble that goes on is said once a minute, not at each try.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// How long the same words are kept back.
const AGAIN: Duration = Duration::from_secs(60);

/// What was said last, and when.
#[derive(Debug, Default)]
pub struct Repeated {
    last: Option<(String, Instant)>,
}

impl Repeated {
    /// The words, if they are new or were said a while ago.
    pub fn fresh(&mut self, words: String) -> Option<&str> {
        let known =
            self.last.as_ref().is_some_and(|(said, when)| *said == words && when.elapsed() < AGAIN);
        if known {
            return None;
        }
        Some(&self.last.insert((words, Instant::now())).0)
    }
}

/// How many different lines a minute strangers can set off.
const MOST_LINES: usize = 20;

/// How long such a line may be, in characters: it may quote what they sent.
const LONGEST_LINE: usize = 500;

/// Lines that strangers can set off, before anybody knows who they are: each once a minute, and
/// not more than `MOST_LINES` in it.
#[derive(Debug, Default)]
pub struct Throttled {
    since: Option<Instant>,
    said: BTreeSet<String>,
    left_out: u64,
}

impl Throttled {
    /// The words, if they may be said now.
    pub fn fresh(&mut self, words: &str) -> Option<String> {
        let plain = words.chars().map(|c| if c.is_control() { ' ' } else { c });
        let words: String = plain.take(LONGEST_LINE).collect();
        let mut before = 0;
        if self.since.is_none_or(|since| since.elapsed() >= AGAIN) {
            before = self.left_out;
            *self = Throttled { since: Some(Instant::now()), ..Throttled::default() };
        }
        if self.said.contains(&words) {
            return None;
        }
        if self.said.len() >= MOST_LINES {
            self.left_out += 1;
            return None;
        }
        self.said.insert(words.clone());
        Some(match before {
            0 => words,
            n => format!("{words} (before it, {n} such lines were left out)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn strangers_set_off_some_lines_a_minute_and_the_rest_is_counted() {
        let mut throttled = Throttled::default();
        assert_eq!(throttled.fresh("no\nway"), Some("no way".to_string()));
        assert_eq!(throttled.fresh("no\nway"), None);
        let said = (0..100).filter_map(|n| throttled.fresh(&format!("{n}"))).count();
        assert_eq!(said, MOST_LINES - 1);
        tokio::time::advance(AGAIN).await;
        let left_out = 100 - (MOST_LINES - 1);
        let expected = format!("7 (before it, {left_out} such lines were left out)");
        assert_eq!(throttled.fresh("7"), Some(expected));
        assert_eq!(throttled.fresh(&"x".repeat(1000)).unwrap().len(), LONGEST_LINE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_words_come_once_a_minute_and_others_at_once() {
        let mut repeated = Repeated::default();
        assert_eq!(repeated.fresh("full".into()), Some("full"));
        assert_eq!(repeated.fresh("full".into()), None);
        tokio::time::advance(AGAIN).await;
        assert_eq!(repeated.fresh("full".into()), Some("full"));
        assert_eq!(repeated.fresh("gone".into()), Some("gone"));
        assert_eq!(repeated.fresh("full".into()), Some("full"));
    }
}
