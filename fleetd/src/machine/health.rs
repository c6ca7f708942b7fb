//! Since when the store has been reachable without a break: what decides whether an absent machine
//! is lost or gets time to return.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::process::clock;

/// How long machines have in any case to renew or register anew when the store is back: a call that
/// hangs (2 s), the pause after it, a call that does not.
const RETURN: Duration = Duration::from_secs(3);

/// The longest break that may be an election's alone: the election, a call that it made hang, the
/// next renewal.
const ELECTION: Duration = Duration::from_millis(7_500);

/// Shared between the session, which keeps the machine's lease and so notices every outage that
/// matters, and the engine.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Since when it answers, breaks that do not count aside, in milliseconds since 1970. `None`
    /// while it does not.
    since_ms: Option<u64>,
    /// What `since_ms` was before the present break, or the last one.
    before_ms: Option<u64>,
    /// When it answered first after the last break of any kind, by both clocks.
    back: Option<(Instant, u64)>,
    /// When it answered last.
    answered: Option<Instant>,
}

impl Health {
    /// The store answered; `led_anew` as of [`Kv::led_anew`](crate::store::kv::Kv::led_anew),
    /// `lease` is the time of a machine's lease.
    ///
    /// A break in which etcd elected another leader does not count: each lease had its whole time
    /// again in the midst of it. It must be short against that time, and stand alone, lest several
    /// hide a long one.
    pub fn reachable(&self, led_anew: Option<Instant>, lease: Duration) {
        let mut state = self.lock();
        let (now, now_ms) = (Instant::now(), clock::now_ms());
        if state.since_ms.is_none() {
            let excused = match (state.back, state.answered) {
                (Some((back, _)), Some(answered)) => {
                    let elected = led_anew.is_some_and(|at| at > answered);
                    let short = now.duration_since(answered) <= ELECTION.min(lease * 3 / 4);
                    elected && short && answered.duration_since(back) >= lease
                }
                _ => false,
            };
            state.since_ms = state.before_ms.filter(|_| excused).or(Some(now_ms));
            state.back = Some((now, now_ms));
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

    /// When absent machines may be called lost, in milliseconds since 1970: once the store has been
    /// reachable for `settle`, and for a few seconds since any break. `None` while it is not
    /// reachable.
    pub fn settled_at_ms(&self, settle: Duration) -> Option<u64> {
        let state = self.lock();
        let (since_ms, (_, back_ms)) = (state.since_ms?, state.back?);
        Some(
            (since_ms + settle.as_millis() as u64)
                .max(back_ms + settle.min(RETURN).as_millis() as u64),
        )
    }

    /// Whether the store answered last time.
    pub fn is_reachable(&self) -> bool {
        self.lock().since_ms.is_some()
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

    /// Answers for `steady`, is silent for `silent`, answers again; a leader of etcd is elected in
    /// the silence if `elected`.
    async fn broken(health: &Health, steady: Duration, silent: Duration, elected: bool) -> bool {
        health.reachable(None, LEASE);
        let since = health.settled_at_ms(Duration::ZERO);
        sleep(steady).await;
        health.reachable(None, LEASE);
        sleep(silent / 2).await;
        health.unreachable();
        assert!(!health.is_reachable());
        let led_anew = elected.then(Instant::now);
        sleep(silent / 2).await;
        health.reachable(led_anew, LEASE);
        let settled_at_ms = health.settled_at_ms(Duration::from_secs(12));
        assert!(settled_at_ms >= Some(clock::now_ms() + 3_000), "{settled_at_ms:?}");
        settled_at_ms < Some(clock::now_ms() + 12_000) && since < Some(clock::now_ms())
    }

    async fn counts(steady_s: u64, silent_s: u64, elected: bool) -> bool {
        // The wall clock stands still beside tokio's, so what counts is told apart by a clock of
        // tokio's.
        let start = Instant::now();
        let clock: clock::Clock = std::sync::Arc::new(move || start.elapsed().as_millis() as u64);
        let health = Health::default();
        !clock::with_clock(
            clock,
            broken(&health, Duration::from_secs(steady_s), Duration::from_secs(silent_s), elected),
        )
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_break_for_an_election_of_etcd_does_not_count() {
        assert!(!counts(10, 5, true).await);
        assert!(counts(10, 5, false).await, "nobody was elected: leases ran on in it");
        assert!(!counts(10, 7, true).await);
        assert!(counts(10, 8, true).await, "it was long");
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
