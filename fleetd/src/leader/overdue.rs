//! Machines that are lost together with the store's leader.
//!
//! etcd keeps in memory when a lease was renewed. A new leader of it does not know, and gives every
//! lease its whole time again and its election timeout on top: a machine that was lost with the old
//! one would be called lost up to 3 s later than others. So fleet's leader looks at the leases
//! after each such election. A machine that has not renewed its own for most of its time is
//! overdue: planning takes it for absent, until it renews. Nothing is written but the plan, under
//! the term's fence.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_core::name::MachineId;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use crate::machine::health::Health;
use crate::store::kv::TimeLeft;
use crate::store::{Registration, Store, StoreError};

/// The overdue machines, each with the revision that created its key: a new registration is not
/// overdue.
pub type Overdue = BTreeMap<MachineId, i64>;

/// How often is looked whether there was an election, and at a lease that may be overdue at any
/// moment.
const PERIOD: Duration = Duration::from_millis(250);

/// How many leases are looked at together.
const AT_ONCE: usize = 16;

/// A lease is overdue when this part of its time, and [`ON_TOP`], is left. Where this part is less
/// than a second nothing is done.
const LAST_PART: u32 = 5;

/// What etcd's new leader adds to each lease's time: its election timeout, by default this.
const ON_TOP: Duration = Duration::from_secs(1);

/// What a time that etcd tells may be too long by: see [`TimeLeft::left`].
const SECOND: Duration = Duration::from_secs(1);

/// A machine whose lease was not renewed since the election, as far as is known.
#[derive(Clone)]
struct Silent {
    machine: MachineId,
    registration: Registration,
    look: Instant,
}

/// What a lease says of its machine.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Not yet: to look again after this.
    Wait(Duration),
    Overdue,
    /// It has renewed, or little is won by looking.
    Leave,
}

/// Looks for as long as it is not dropped, and says in `overdue` what it found. `settle` is how
/// long the store must have been reachable before anybody is lost.
pub async fn look(
    store: &Store,
    health: &Health,
    settle: Duration,
    overdue: &watch::Sender<Overdue>,
) {
    let mut looked_after = None;
    loop {
        let led_anew = store.led_anew();
        // Later than that, whatever the election did to leases is over.
        if let Some(elected) =
            led_anew.filter(|at| led_anew != looked_after && at.elapsed() <= settle)
        {
            match look_at_all(store, elected, settle, health, overdue).await {
                Ok(()) => looked_after = led_anew,
                Err(error) => debug!("cannot look at the machines' leases: {error}"),
            }
        }
        sleep(PERIOD).await;
    }
}

/// Looks at each lease until it is renewed or ended; at none any more when there is another
/// election.
async fn look_at_all(
    store: &Store,
    elected: Instant,
    settle: Duration,
    health: &Health,
    overdue: &watch::Sender<Overdue>,
) -> Result<(), StoreError> {
    // By half of the time, whoever lives has renewed, and need not be looked at again.
    let first = elected + settle / 2;
    let machines = store.registrations().await?.into_iter();
    let mut silent: Vec<Silent> = machines
        .map(|(machine, registration)| Silent { machine, registration, look: first })
        .collect();
    while let Some(next) = silent.iter().map(|silent| silent.look).min() {
        sleep_until(next).await;
        let (due, later): (Vec<_>, Vec<_>) =
            silent.into_iter().partition(|silent| silent.look <= Instant::now());
        silent = later;
        for due in due.chunks(AT_ONCE) {
            let told =
                join_all(due.iter().map(|silent| store.time_left(silent.registration.lease))).await;
            if store.led_anew() != Some(elected) {
                return Ok(());
            }
            for (one, told) in due.iter().zip(told) {
                let pause = match told.map(|time| time.map(|time| judge(time, elected.elapsed()))) {
                    // The machine's key ends with its lease, unless the machine has put it under
                    // another one.
                    Ok(None) => {
                        if overdue.borrow().contains_key(&one.machine)
                            && has_moved(store, one).await?
                        {
                            overdue
                                .send_if_modified(|overdue| overdue.remove(&one.machine).is_some());
                        }
                        continue;
                    }
                    Ok(Some(Verdict::Leave)) => {
                        overdue.send_if_modified(|overdue| overdue.remove(&one.machine).is_some());
                        continue;
                    }
                    Ok(Some(Verdict::Wait(pause))) => pause,
                    Ok(Some(Verdict::Overdue)) => {
                        if health.is_settled(settle) {
                            overdue.send_if_modified(|overdue| mark(overdue, one, elected));
                        }
                        PERIOD
                    }
                    Err(error) => {
                        debug!(
                            "cannot look at the lease of machine {}: {error}",
                            one.machine.short()
                        );
                        PERIOD
                    }
                };
                // One that is overdue since an earlier election may be back at any moment.
                let pause =
                    if overdue.borrow().contains_key(&one.machine) { PERIOD } else { pause };
                silent.push(Silent { look: Instant::now() + pause, ..one.clone() });
            }
        }
    }
    Ok(())
}

/// Whether a machine whose lease has ended is registered under another one, as after a quick
/// reboot.
async fn has_moved(store: &Store, silent: &Silent) -> Result<bool, StoreError> {
    let there = store.registered(&silent.machine).await?;
    Ok(there.is_some_and(|there| there.registration.lease != silent.registration.lease))
}

/// About a lease that has `time`, so long after etcd's leader was heard to be elected.
fn judge(time: TimeLeft, since_election: Duration) -> Verdict {
    let last_part = time.granted / LAST_PART;
    if time.left > 2 * time.granted {
        // Its member was just about to lead.
        Verdict::Wait(PERIOD)
    } else if last_part < SECOND || since_election + time.left > time.granted + ON_TOP + SECOND {
        Verdict::Leave
    } else if time.left <= last_part + ON_TOP {
        Verdict::Overdue
    } else {
        Verdict::Wait(time.left.saturating_sub(last_part + ON_TOP + SECOND).max(PERIOD))
    }
}

fn mark(overdue: &mut Overdue, silent: &Silent, elected: Instant) -> bool {
    let Silent { machine, registration, .. } = silent;
    let new = overdue.insert(machine.clone(), registration.create_revision)
        != Some(registration.create_revision);
    if new {
        let silence_s = elected.elapsed().as_secs();
        info!(%machine, "machine {} has been silent for the {silence_s} s since the store elected \
            a leader: it is lost", machine.short());
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_ten(left_s: u64, since_election_ms: u64) -> Verdict {
        let time = TimeLeft { granted: Duration::from_secs(10), left: Duration::from_secs(left_s) };
        judge(time, Duration::from_millis(since_election_ms))
    }

    #[test]
    fn a_lease_is_overdue_when_a_fifth_and_what_came_on_top_is_left_and_looked_at_a_second_before()
    {
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
