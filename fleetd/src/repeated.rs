//! Trouble that goes on is said once a minute, not at each try.

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
        let known = self.last.as_ref().is_some_and(|(said, when)| *said == words && when.elapsed() < AGAIN);
        if known {
            return None;
        }
        Some(&self.last.insert((words, Instant::now())).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
