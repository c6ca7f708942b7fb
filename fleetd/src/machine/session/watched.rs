//! A machine's record that somebody else's lease holds: whether that one lives.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::LeaseId;
use crate::store::kv::TimeLeft;

/// So many renewals by somebody else are proof. One is none: an election inside etcd gives each
/// lease its whole time again.
const PROOF: u32 = 2;

/// Of a lease whose renewals cannot be told apart (each second counts as a whole one): alive after
/// twice its time and this is renewed.
const ELECTION: Duration = Duration::from_secs(3);

/// At this part of its time, or at two seconds if that is more, a lease was not renewed for so long
/// that its holder is not there.
const LAST_PART: f64 = 0.3;
const LAST_SECONDS: Duration = Duration::from_secs(2);

/// What a lease of somebody else's says of its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// It is not known yet.
    Unknown,
    /// It has been silent for so long that it cannot be there, and its lease is about to end.
    Silent,
    /// It renews the lease.
    Lives,
}

/// Looks at one lease again and again.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) lease: LeaseId,
    since: Instant,
    left: Duration,
    renewals: u32,
}

impl Watched {
    pub(super) fn new(lease: LeaseId, now: &TimeLeft) -> Watched {
        Watched { lease, since: Instant::now(), left: now.left, renewals: 0 }
    }

    /// One more look.
    pub(super) fn look(&mut self, now: &TimeLeft) -> Holder {
        self.renewals += u32::from(now.left > self.left);
        self.left = now.left;
        let outlived_itself = self.since.elapsed() > now.granted * 2 + ELECTION;
        if self.renewals >= PROOF || outlived_itself {
            return Holder::Lives;
        }
        let last = now.granted.mul_f64(LAST_PART).max(LAST_SECONDS).min(now.granted / 2);
        if now.left <= last { Holder::Silent } else { Holder::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// What is known of a holder that renews at these times (in milliseconds) a lease of so many
    /// seconds, and after how long.
    async fn found(granted_s: u64, renewals_ms: &[u64]) -> (Holder, u64) {
        let granted = Duration::from_secs(granted_s);
        let began = Instant::now();
        let mut watched = None;
        loop {
            let passed = began.elapsed();
            let last = renewals_ms
                .iter()
                .map(|ms| Duration::from_millis(*ms))
                .filter(|at| *at <= passed)
                .max();
            let left = (last.unwrap_or_default() + granted).saturating_sub(passed);
            let now = TimeLeft { granted, left: Duration::from_secs(left.as_secs() + 1) };
            let holder = watched.get_or_insert_with(|| Watched::new(LeaseId(1), &now)).look(&now);
            if holder != Holder::Unknown {
                return (holder, passed.as_millis() as u64);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_renews_lives_and_who_is_silent_is_known_before_the_lease_ends() {
        for seconds in [2, 3, 5, 10, 60] {
            let beat = seconds * 1_000 / 3;
            let beats: Vec<u64> = (1..60).map(|number| number * beat).collect();
            let (holder, after_ms) = found(seconds, &beats).await;
            assert_eq!(holder, Holder::Lives, "{seconds} s");
            assert!(after_ms <= seconds * 2_000 + 4_000, "{seconds} s: {after_ms} ms");
            let (holder, after_ms) = found(seconds, &[]).await;
            assert_eq!(holder, Holder::Silent, "{seconds} s");
            assert!(after_ms < seconds * 1_000, "{seconds} s: {after_ms} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_renewal_may_be_an_election_and_proves_nothing() {
        assert_eq!(found(10, &[3_000]).await.0, Holder::Silent);
    }
}
