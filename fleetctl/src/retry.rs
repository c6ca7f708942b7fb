//! What every follower does when its connection breaks: says so once, and tries again after a
//! growing pause. fleetd may be restarting.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::screen::note;

/// The pause before the first new try; doubles up to [`LONGEST_PAUSE`].
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// fleetd restarts within a few seconds; asking more rarely would only be late.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// One follower's tries.
#[derive(Debug)]
pub(crate) struct Retry {
    pause: Duration,
    told: bool,
    /// Since when the present connection is up, or is being tried.
    since: Instant,
}

impl Retry {
    /// Nothing has broken yet.
    pub(crate) fn new() -> Retry {
        Retry { pause: FIRST_PAUSE, told: false, since: Instant::now() }
    }

    /// Whether the next break is worth a word: the last one is over.
    pub(crate) fn is_news(&self) -> bool {
        !self.told || self.since.elapsed() >= LONGEST_PAUSE
    }

    /// Something came: the pauses begin small again, and the next break is worth a word.
    pub(crate) fn works(&mut self) {
        self.pause = FIRST_PAUSE;
        self.told = false;
    }

    /// Says that the connection broke, unless it was said already, and waits.
    pub(crate) async fn pause(&mut self, broken: &str) {
        if self.is_news() {
            note(&format!("The connection to fleetd broke ({broken}); trying again."));
            self.told = true;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.since = Instant::now();
    }
}
