//! Machines that are lost together with the store's leader.
//!
//! etcd keeps in memory when a lease was renewed. A new leader of it does not know, and gives every lease its whole time again and its
//! election timeout on top: a machine that was lost with the old one would be called lost up to 3 s later than others. So fleet's leader
//! looks at the leases after each such election, and ends those that nobody renewed for most of their time since: whoever lives has tried
//! that at least twice.

use std::time::Duration;

use fleet_core::name::MachineId;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use crate::health::Health;
use crate::store::kv::TimeLeft;
use crate::store::{LeaseId, Store, StoreError};

/// How often is looked whether there was an election, and at a lease that may be overdue at any moment.
const PERIOD: Duration = Duration::from_millis(250);

/// A lease is overdue when this part of its time, and [`ON_TOP`], is left. Where it is less than a second nothing is won.
const LAST_PART: u32 = 5;

/// What etcd's new leader adds to each lease's time: its election timeout, by default this. With a longer one nothing is done here.
const ON_TOP: Duration = Duration::from_secs(1);

/// What a time that etcd tells may be too long by: see [`TimeLeft::left`].
const SECOND: Duration = Duration::from_secs(1);

/// A machine whose lease was not renewed since the election, as far as is known.
struct Silent {
    machine: MachineId,
    lease: LeaseId,
    look: Instant,
}

/// What is to be done about a lease.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// To look again after this.
    Wait(Duration),
    /// To end it.
    Overdue,
    /// Nothing: it was renewed since, or little is won.
    Leave,
}

/// Looks for as long as it is not dropped. `settle` is how long the store must have been reachable before anybody is lost.
pub async fn end_overdue(store: &Store, health: &Health, settle: Duration) {
    let mut looked_after = None;
    loop {
        let led_anew = store.led_anew();
        if let Some(elected) = led_anew.filter(|_| led_anew != looked_after) {
            match look_at_all(store, elected, || health.is_settled(settle)).await {
                Ok(()) => looked_after = led_anew,
                Err(error) => debug!("cannot look at the machines' leases: {error}"),
            }
        }
        sleep(PERIOD).await;
    }
}

/// Looks at each lease until it is renewed, ended, or overdue; at none any more when there is another election.
async fn look_at_all(store: &Store, elected: Instant, settled: impl Fn() -> bool) -> Result<(), StoreError> {
    let machines = store.machine_leases().await?;
    let mut silent: Vec<Silent> =
        machines.into_iter().map(|(machine, lease)| Silent { machine, lease, look: Instant::now() }).collect();
    while let Some(next) = silent.iter().map(|silent| silent.look).min() {
        sleep_until(next).await;
        if store.led_anew() != Some(elected) {
            return Ok(());
        }
        let mut still = Vec::new();
        for mut silent in silent {
            if silent.look <= Instant::now() {
                let Some(time) = store.time_left(silent.lease).await? else { continue };
                silent.look = Instant::now()
                    + match judge(time, elected.elapsed()) {
                        Verdict::Leave => continue,
                        Verdict::Wait(pause) => pause,
                        // The store was away for more than an election: all get time to return.
                        Verdict::Overdue if !settled() => PERIOD,
                        Verdict::Overdue => {
                            end(store, &silent, elected).await?;
                            continue;
                        }
                    };
            }
            still.push(silent);
        }
        silent = still;
    }
    Ok(())
}

/// About a lease that has `time`, so long after etcd's leader was heard to be elected.
fn judge(time: TimeLeft, since_election: Duration) -> Verdict {
    let last_part = time.granted / LAST_PART;
    if last_part < SECOND || since_election + time.left > time.granted + ON_TOP + SECOND {
        Verdict::Leave
    } else if time.left <= last_part + ON_TOP {
        Verdict::Overdue
    } else {
        Verdict::Wait(time.left.saturating_sub(last_part + ON_TOP + SECOND).max(PERIOD))
    }
}

async fn end(store: &Store, silent: &Silent, elected: Instant) -> Result<(), StoreError> {
    let Silent { machine, lease, .. } = silent;
    let silence_s = elected.elapsed().as_secs();
    info!(%machine, "machine {} has been silent for the {silence_s} s since the store elected a leader: it is lost", machine.short());
    store.revoke(*lease).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_ten(left_s: u64, since_election_ms: u64) -> Verdict {
        let time = TimeLeft { granted: Duration::from_secs(10), left: Duration::from_secs(left_s) };
        judge(time, Duration::from_millis(since_election_ms))
    }

    #[test]
    fn a_lease_is_overdue_when_a_fifth_and_what_came_on_top_is_left_and_looked_at_a_second_before() {
        // It has 10.5 s, and etcd says 10.
        assert_eq!(of_ten(11, 500), Verdict::Wait(Duration::from_secs(7)));
        assert_eq!(of_ten(4, 7_600), Verdict::Wait(PERIOD));
        assert_eq!(of_ten(3, 8_100), Verdict::Overdue);
        assert_eq!(of_ten(2, 9_100), Verdict::Overdue);
    }

    #[test]
    fn a_lease_that_was_renewed_since_is_left() {
        assert_eq!(of_ten(10, 2_100), Verdict::Leave);
        assert_eq!(
            of_ten(3, 9_100),
            Verdict::Leave,
            "renewed 2 s after the election, silent for seven since: its time is its own"
        );
        assert_eq!(of_ten(3, 60_000), Verdict::Leave);
    }

    #[test]
    fn a_lease_of_which_a_fifth_is_no_second_is_left() {
        let time = TimeLeft { granted: Duration::from_secs(4), left: SECOND };
        assert_eq!(judge(time, Duration::from_secs(3)), Verdict::Leave);
    }
}
