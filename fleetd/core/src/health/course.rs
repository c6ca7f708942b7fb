//! What the answers of one start of an instance come to.

use super::{Health, HealthCheck};

/// While an instance starts it is asked more often, so that whoever waits for it need not wait for
/// long: after a tenth of the time that it has taken already, but not before this, in milliseconds.
const STARTING_MS: u64 = 1_000;

/// The longest reason that is kept, in bytes.
const LONGEST_WHY: usize = 200;

/// How the present start of an instance has gone so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    health: Health,
    /// Since when it runs, in milliseconds since 1970.
    started_ms: u64,
    /// Since when its answers have been good, in milliseconds since 1970.
    well_since_ms: u64,
    /// Bad answers in a row that count.
    failures: u32,
    /// When the first bad answer in a row came.
    failing_since_ms: Option<u64>,
    /// When the last bad answer that counts came.
    counted_ms: Option<u64>,
}

impl Course {
    /// It has just come up.
    pub fn starting(started_ms: u64) -> Course {
        Course {
            health: Health::Starting,
            started_ms,
            well_since_ms: started_ms,
            failures: 0,
            failing_since_ms: None,
            counted_ms: None,
        }
    }

    /// It was healthy when it was last known, before this fleetd looked.
    pub fn healthy(now_ms: u64) -> Course {
        Course { health: Health::Healthy, ..Course::starting(now_ms) }
    }

    /// How it is.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Since when its answers have been good, in milliseconds since 1970; `None` while they are
    /// not.
    pub fn well_since_ms(&self) -> Option<u64> {
        (self.health == Health::Healthy).then_some(self.well_since_ms)
    }

    /// Takes an answer: nothing, or why it is bad. True if its health is another one now.
    pub fn take(&mut self, check: &HealthCheck, answer: Result<(), String>, now_ms: u64) -> bool {
        let before = self.health.word();
        match answer {
            Ok(()) => {
                if self.health != Health::Healthy {
                    (self.health, self.well_since_ms) = (Health::Healthy, now_ms);
                }
                (self.failures, self.failing_since_ms, self.counted_ms) = (0, None, None);
            }
            Err(why) => self.take_bad(check, why, now_ms),
        }
        before != self.health.word()
    }

    fn take_bad(&mut self, check: &HealthCheck, why: String, now_ms: u64) {
        let since_ms = *self.failing_since_ms.get_or_insert(now_ms);
        if self.health == Health::Starting {
            let may_take_until_ms = self.started_ms.saturating_add(check.start_period_ms);
            // It is asked more often than the text says, and no sooner found to be unhealthy.
            let counted = self.counted_ms.is_some_and(|at| now_ms < at + check.interval_ms);
            if now_ms < may_take_until_ms || counted {
                return;
            }
        }
        self.counted_ms = Some(now_ms);
        self.failures = self.failures.saturating_add(1);
        if self.failures >= check.retries && !self.health.is_unhealthy() {
            let why = why[..why.floor_char_boundary(LONGEST_WHY)].to_string();
            self.health = Health::Unhealthy { why, since_ms };
        }
    }

    /// When it is to be asked next, in milliseconds since 1970, if it was last asked at `asked_ms`.
    /// `seed` spreads the instances of a host over the interval.
    pub fn next_ms(&self, check: &HealthCheck, asked_ms: Option<u64>, seed: u64) -> u64 {
        let interval_ms = check.interval_ms.max(1);
        if self.health == Health::Starting {
            let Some(asked_ms) = asked_ms else {
                return self.started_ms + seed % STARTING_MS.min(interval_ms);
            };
            let taken_ms = asked_ms.saturating_sub(self.started_ms);
            return asked_ms + (taken_ms / 10).max(STARTING_MS).min(interval_ms);
        }
        // Each has its own place in the interval, so that those that came up together do not stay
        // together.
        let asked_ms = asked_ms.unwrap_or(self.started_ms);
        asked_ms + interval_ms - (asked_ms + seed % interval_ms) % interval_ms
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Loopback, Probe};
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            probe: Probe::Tcp { host: Loopback::Any, port: 80 },
            interval_ms: 10_000,
            timeout_ms: 3_000,
            retries: 3,
            start_period_ms: 30_000,
        }
    }

    /// Asks as often as `next_ms` says, from 0 to `until_ms`; answers with each change and its
    /// time.
    fn run(course: &mut Course, until_ms: u64, good: impl Fn(u64) -> bool) -> Vec<(u64, String)> {
        let (check, mut asked, mut said) = (check(), None, Vec::new());
        loop {
            let now_ms = course.next_ms(&check, asked, 0);
            if now_ms > until_ms {
                return said;
            }
            assert!(asked.is_none_or(|last| now_ms > last), "{now_ms} after {asked:?}");
            asked = Some(now_ms);
            let answer = if good(now_ms) { Ok(()) } else { Err("503".to_string()) };
            if course.take(&check, answer, now_ms) {
                said.push((now_ms, course.health().word().to_string()));
            }
        }
    }

    #[test]
    fn what_comes_up_is_healthy_with_its_first_good_answer() {
        let mut course = Course::starting(0);
        assert_eq!(run(&mut course, 60_000, |_| true), [(0, "healthy".to_string())]);
        let mut course = Course::starting(0);
        let said = run(&mut course, 60_000, |now_ms| now_ms > 20_000);
        assert_eq!(said.len(), 1);
        assert!((20_000..23_000).contains(&said[0].0), "{said:?}");
        assert_eq!(course.well_since_ms(), Some(said[0].0));
    }

    #[test]
    fn what_never_answers_has_its_start_period_and_then_as_many_tries_as_the_rest() {
        let mut course = Course::starting(0);
        let said = run(&mut course, 200_000, |_| false);
        assert_eq!(said.len(), 1, "{said:?}");
        let (at_ms, word) = &said[0];
        assert_eq!(word, "unhealthy");
        assert!((50_000..60_000).contains(at_ms), "30 s and two intervals: {said:?}");
        let since_ms = 0;
        assert_eq!(course.health(), &Health::Unhealthy { why: "503".to_string(), since_ms });
    }

    #[test]
    fn one_bad_answer_among_good_ones_says_nothing() {
        let mut course = Course::healthy(0);
        let bad = |now_ms: u64| now_ms.is_multiple_of(30_000) || now_ms.is_multiple_of(40_000);
        assert_eq!(run(&mut course, 600_000, |now_ms| !bad(now_ms)), []);
    }

    #[test]
    fn three_bad_answers_in_a_row_are_unhealthy_and_one_good_one_is_healthy_again() {
        let mut course = Course::healthy(0);
        let said = run(&mut course, 600_000, |now_ms| !(100_000..200_000).contains(&now_ms));
        let said: Vec<(u64, &str)> = said.iter().map(|(at, word)| (*at, word.as_str())).collect();
        assert_eq!(said, [(120_000, "unhealthy"), (200_000, "healthy")]);
        assert_eq!(course.well_since_ms(), Some(200_000));
    }

    #[test]
    fn instances_that_came_up_together_are_asked_one_after_the_other() {
        let course = Course::healthy(12_345);
        let times: Vec<u64> = (0..1000).map(|n| course.next_ms(&check(), None, n * 10)).collect();
        for time in &times {
            assert!((12_346..=22_345).contains(time), "{time}");
        }
        let distinct: std::collections::BTreeSet<&u64> = times.iter().collect();
        assert_eq!(distinct.len(), 1000);
        let next = course.next_ms(&check(), Some(times[0]), 0);
        assert_eq!(next, times[0] + 10_000, "each keeps its place");
    }

    #[test]
    fn a_long_answer_is_cut() {
        let mut course = Course::healthy(0);
        let once = HealthCheck { retries: 1, ..check() };
        course.take(&once, Err("ä".repeat(1_000)), 5);
        let Health::Unhealthy { why, since_ms: 5 } = course.health() else { panic!() };
        assert_eq!(why.len(), LONGEST_WHY);
    }
}
