//! Since when the store has been reachable without a break: what decides whether an absent machine is lost or gets time to return.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;

/// Shared between the session, which keeps the machine's lease and so notices every outage that matters, and the engine.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Since when it answers, breaks that do not count aside, in milliseconds since 1970. `None` while it does not.
    since_ms: Option<u64>,
    /// What `since_ms` was before the present break, or the last one.
    before_ms: Option<u64>,
    /// When it answered first after the last break of any kind.
    back: Option<Instant>,
    /// When it answered last.
    answered: Option<Instant>,
}

impl Health {
    /// The store answered; `led_anew` as of [`Kv::led_anew`](crate::store::kv::Kv::led_anew), `lease` is the time of a machine's lease.
    ///
    /// A break that etcd spent on electing another leader does not count: every lease has its whole time again after it, so nobody can be
    /// lost for having been silent in it. It must be short and stand alone, lest several hide a long one.
    pub fn reachable(&self, led_anew: Option<Instant>, lease: Duration) {
        let mut state = self.lock();
        let now = Instant::now();
        if state.since_ms.is_none() {
            let excused = match (state.back, state.answered) {
                (Some(back), Some(answered)) => {
                    let elected = led_anew.is_some_and(|at| at > answered);
                    elected && now.duration_since(answered) <= lease && answered.duration_since(back) >= lease
                }
                _ => false,
            };
            state.since_ms = state.before_ms.filter(|_| excused).or_else(|| Some(clock::now_ms()));
            state.back = Some(now);
        }
        state.answered = Some(now);
    }

    /// The store did not answer.
    pub fn unreachable(&self) {
        let mut state = self.lock();
        if let Some(since) = state.since_ms.take() {
            state.before_ms = Some(since);
        }
    }

    /// When absent machines may be called lost, in milliseconds since 1970: once the store has been reachable for `settle`.
    /// `None` while it is not reachable.
    pub fn settled_at_ms(&self, settle: Duration) -> Option<u64> {
        self.lock().since_ms.map(|since| since + settle.as_millis() as u64)
    }

    /// Whether absent machines may be called lost by now.
    pub fn is_settled(&self, settle: Duration) -> bool {
        self.settled_at_ms(settle).is_some_and(|at_ms| clock::now_ms() >= at_ms)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic while holding it cannot leave half a value.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    /// Answers for `steady`, is silent for `silent`, answers again; a leader of etcd is elected in the silence if `elected`.
    async fn broken(health: &Health, steady: Duration, silent: Duration, elected: bool) -> bool {
        health.reachable(None, LEASE);
        let since = health.settled_at_ms(Duration::ZERO);
        sleep(steady).await;
        health.reachable(None, LEASE);
        sleep(silent / 2).await;
        health.unreachable();
        assert_eq!(health.settled_at_ms(Duration::ZERO), None);
        let led_anew = elected.then(Instant::now);
        sleep(silent / 2).await;
        health.reachable(led_anew, LEASE);
        health.settled_at_ms(Duration::ZERO) == since
    }

    async fn counts(steady_s: u64, silent_s: u64, elected: bool) -> bool {
        // The wall clock stands still beside tokio's, so what counts is told apart by a clock of tokio's.
        let start = Instant::now();
        let clock: clock::Clock = std::sync::Arc::new(move || start.elapsed().as_millis() as u64);
        let health = Health::default();
        !clock::with_clock(clock, broken(&health, Duration::from_secs(steady_s), Duration::from_secs(silent_s), elected)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_break_for_an_election_of_etcd_does_not_count() {
        assert!(!counts(10, 5, true).await);
        assert!(counts(10, 5, false).await, "nobody was elected: leases ran on in it");
        assert!(counts(10, 11, true).await, "it was long");
        assert!(counts(9, 5, true).await, "there may have been another just before");
    }

    #[tokio::test(start_paused = true)]
    async fn breaks_one_after_the_other_count_all_together() {
        let start = Instant::now();
        let clock: clock::Clock = std::sync::Arc::new(move || start.elapsed().as_millis() as u64);
        let health = Health::default();
        let breaks = async {
            assert!(broken(&health, LEASE, LEASE / 2, true).await);
            assert!(!broken(&health, LEASE / 2, LEASE / 2, true).await);
            assert!(!broken(&health, LEASE / 2, LEASE / 2, true).await);
        };
        clock::with_clock(clock, breaks).await;
    }
}
