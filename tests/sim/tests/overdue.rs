//! Which machines fleet's leader takes for lost after an election inside etcd, and when.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::model::DesiredState;
use fleet_core::name::MachineId;
use fleet_sim::etcd::{Etcd, Origin};
use fleet_sim::link::Link;
use fleet_sim::network::RemoteKv;
use fleet_sim::run::{Options, run_script};
use fleet_sim::script::{Action, Script, Timed, Wish};
use fleetd::leader::overdue;
use fleetd::machine::health::Health;
use fleetd::process::clock::{Clock, with_clock};
use fleetd::store::Store;
use fleetd::store::kv::{Change, Kv, LeaseId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

const ID: &str = "0123456789abcdef0123456789abcdef";

/// A machine that renews its lease so many milliseconds after an election, and no more.
struct Silent<'a> {
    lease_s: u64,
    renewals_ms: &'a [u64],
    /// Whether machines may be called lost at all.
    settled: bool,
}

impl Silent<'_> {
    /// How many seconds after the election it is taken for lost; `None` if it is not before its
    /// lease ends.
    async fn lost_after(&self) -> Option<f64> {
        let (etcd, link) = (Etcd::new(), Arc::new(Link::new(1)));
        let origin = Origin { machine: 0, life: 1, keeper: false };
        let store =
            Store::new(Arc::new(RemoteKv::new(etcd.asked_by(origin), link, 0, None)), "/fleet/");
        let health = Health::default();
        if self.settled {
            // Long ago.
            with_clock(Arc::new(|| 0), async { health.reachable(None, Duration::ZERO) }).await;
        }
        let settle = Duration::from_secs(self.lease_s + 2);
        let lease = etcd.grant(Duration::from_secs(self.lease_s)).await.unwrap();
        let put = Change::Put {
            key: format!("/fleet/machines/{ID}"),
            value: b"{}".to_vec(),
            lease: Some(lease),
        };
        let created = etcd.txn(&[], &[put]).await.unwrap().revision;
        store.leader().await.unwrap();
        etcd.change_leader();
        let elected = Instant::now();
        let (found, mut finds) = watch::channel(overdue::Overdue::new());
        // The host's clock stands still beside tokio's.
        let clock: Clock = Arc::new(move || 1_000_000 + elected.elapsed().as_millis() as u64);
        tokio::select! {
            () = with_clock(clock, overdue::look(&store, &health, settle, &found)) => unreachable!("it looks for ever"),
            // As the leader renews its own lease.
            () = async { loop { sleep(Duration::from_secs(1)).await; store.leader().await.unwrap(); } } => unreachable!(),
            () = renewed(&etcd, lease, elected, self.renewals_ms) => unreachable!("it only waits \
                then"),
            () = ended(&etcd, lease) => None,
            found = finds.wait_for(|found| !found.is_empty()) => {
                assert_eq!(found.unwrap().get(&MachineId::new(ID)), Some(&created));
                Some(elected.elapsed().as_secs_f64())
            }
        }
    }
}

async fn renewed(etcd: &Etcd, lease: LeaseId, elected: Instant, renewals_ms: &[u64]) {
    for ms in renewals_ms {
        sleep_until(elected + Duration::from_millis(*ms)).await;
        assert!(etcd.keep_alive(lease).await.unwrap(), "at {ms} ms");
    }
    std::future::pending().await
}

async fn ended(etcd: &Etcd, lease: LeaseId) {
    while etcd.time_left(lease).await.unwrap().is_some() {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_silent_since_the_election_is_lost_after_four_fifths_of_its_lease() {
    for (lease_s, from, to) in [(5, 4.0, 5.0), (10, 8.0, 8.6), (60, 48.0, 48.6)] {
        let lost = Silent { lease_s, renewals_ms: &[], settled: true }.lost_after().await.unwrap();
        assert!((from..to).contains(&lost), "{lost} of {lease_s}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_renews_is_not_lost_before_seven_seconds_of_silence_and_later_has_its_whole_lease()
 {
    for first in (0..3_000).step_by(100) {
        let silent = Silent { lease_s: 10, renewals_ms: &[first], settled: true };
        match silent.lost_after().await.map(|lost| lost - first as f64 / 1e3) {
            Some(lost) => assert!(first <= 2_000 && lost >= 7.0, "{lost} s after {first} ms"),
            None => assert!(first > 1_000, "{first} ms"),
        }
    }
    let renews =
        Silent { lease_s: 10, renewals_ms: &[500, 3_800, 7_100, 10_400, 13_700], settled: true };
    assert_eq!(renews.lost_after().await, None);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_lost_while_machines_get_time_to_return_nor_where_a_fifth_is_no_second() {
    assert_eq!(Silent { lease_s: 10, renewals_ms: &[], settled: false }.lost_after().await, None);
    assert_eq!(Silent { lease_s: 4, renewals_ms: &[], settled: true }.lost_after().await, None);
}

/// Seed 900035: a machine that rebooted was taken for lost by its old lease for ever, though it had
/// put itself under a new one.
#[test]
fn a_machine_that_reboots_while_it_is_taken_for_lost_is_there_again() {
    let user = |wish| Action::User { user: 0, over: 0, wish };
    let actions = [
        (
            4_000,
            user(Wish::Submit {
                unit: "agent.service",
                text: 0,
                desired: Some(DesiredState::Launched),
            }),
        ),
        (25_000, Action::Crash { machine: 2, down_ms: 8_700 }),
        (25_200, Action::NewStoreLeader),
        (33_600, Action::PowerLoss { machine: 2, down_ms: 50 }),
    ];
    for seed in 1..=20 {
        let actions = actions.clone().map(|(at_ms, action)| Timed { at_ms, action }).to_vec();
        let outcome =
            run_script(seed, Script { machines: 3, calm: false, actions }, &Options::default());
        assert_eq!(outcome.verdict, None, "{seed}: {}", outcome.history.join("\n"));
    }
}

/// Each lease has its whole time again at the election, and then nobody reaches the store for so
/// long: whoever hears of the election late must not take for overdue who could not renew.
#[test]
fn an_election_that_all_hear_of_late_moves_nothing() {
    for (elected_ms, cut_ms) in
        (0..=2_000).step_by(250).flat_map(|at| (500..=14_000).step_by(750).map(move |ms| (at, ms)))
    {
        let user = |wish| Action::User { user: 0, over: 0, wish };
        let unit = "web@.service";
        let actions = [
            (2_000, user(Wish::Submit { unit, text: 0, desired: None })),
            (2_100, user(Wish::Scale { unit, replicas: 6 })),
            (40_000, Action::CutAll { ms: cut_ms }),
            (40_000 + elected_ms, Action::NewStoreLeader),
        ];
        let actions = actions.into_iter().map(|(at_ms, action)| Timed { at_ms, action }).collect();
        let outcome =
            run_script(1, Script { machines: 3, calm: true, actions }, &Options::default());
        assert_eq!(outcome.verdict, None, "{elected_ms} {cut_ms}: {}", outcome.history.join("\n"));
    }
}
