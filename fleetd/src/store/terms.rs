//! The terms of the store's own leaders, as far as a client hears of them.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// The term heard last, and when it was another one than before.
#[derive(Debug, Default)]
pub struct Terms(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// 0: none.
    term: u64,
    led_anew: Option<Instant>,
}

impl Terms {
    /// An answer was given in this term. False if a later one is known: who answered has not heard
    /// of the present leader.
    pub fn heard(&self, term: u64) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if term > heard.term {
            if heard.term != 0 {
                heard.led_anew = Some(Instant::now());
            }
            heard.term = term;
        }
        term == heard.term
    }

    /// See [`Kv::led_anew`](super::kv::Kv::led_anew).
    pub fn led_anew(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).led_anew
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_term_heard_is_no_change_and_an_earlier_one_never() {
        let terms = Terms::default();
        assert!(terms.heard(7));
        assert!(terms.heard(7));
        assert_eq!(terms.led_anew(), None);
        assert!(terms.heard(8));
        let changed = terms.led_anew();
        assert!(changed.is_some());
        assert!(!terms.heard(7));
        assert!(terms.heard(8));
        assert_eq!(terms.led_anew(), changed);
    }
}
