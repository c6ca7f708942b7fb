//! What lies between one machine and the rest of the world: its part of the network, its disk, and
//! what stops its processes.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::gate::Mortal;

/// A request on the wire takes this long, in milliseconds: a data centre's network.
const LATENCY_MS: std::ops::Range<u64> = 0..4;

/// One machine's link. All its choices come from one seed.
pub struct Link {
    state: Mutex<State>,
    /// Wakes those who wait for a change of the network.
    changed: Notify,
    /// Its fleetd.
    pub fleetd: Mortal,
    /// Its keeper.
    pub keeper: Mortal,
    /// The guard beside that.
    pub guard: Mortal,
}

struct State {
    random: fastrand::Rng,
    requests_cut_until: Instant,
    answers_cut_until: Instant,
    slow_disk_until: Instant,
    late_until: Instant,
    /// Of a thousand answers, how many are lost, until when.
    losing: (u64, Instant),
    /// Of a thousand requests, how many are delivered twice, until when.
    repeating: (u64, Instant),
}

/// What becomes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Arrives after this long.
    Arrives(Duration),
    /// Never arrives.
    Lost,
}

impl Link {
    /// A link without faults.
    pub fn new(seed: u64) -> Link {
        let now = Instant::now();
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            requests_cut_until: now,
            answers_cut_until: now,
            slow_disk_until: now,
            late_until: now,
            losing: (0, now),
            repeating: (0, now),
        };
        let [fleetd, keeper, guard] = [Mortal::default(), Mortal::default(), Mortal::default()];
        Link { state: Mutex::new(state), changed: Notify::new(), fleetd, keeper, guard }
    }

    /// Cuts one way or both for a time.
    pub fn cut(&self, requests: bool, answers: bool, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.state();
        if requests {
            state.requests_cut_until = state.requests_cut_until.max(until);
        }
        if answers {
            state.answers_cut_until = state.answers_cut_until.max(until);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Loses some answers for a time: what was asked for is done.
    pub fn lose_answers(&self, per_mille: u64, time: Duration) {
        self.state().losing = (per_mille, Instant::now() + time);
    }

    /// Delays some messages for a time, by up to some seconds: they overtake each other.
    pub fn delay(&self, time: Duration) {
        self.state().late_until = Instant::now() + time;
    }

    /// Delivers some requests twice for a time.
    pub fn repeat(&self, per_mille: u64, time: Duration) {
        self.state().repeating = (per_mille, Instant::now() + time);
    }

    /// Slows the disk and systemd down for a time.
    pub fn slow_disk(&self, time: Duration) {
        self.state().slow_disk_until = Instant::now() + time;
    }

    /// Ends every fault.
    pub fn heal(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.requests_cut_until = now;
        state.answers_cut_until = now;
        state.slow_disk_until = now;
        state.late_until = now;
        state.losing = (0, now);
        state.repeating = (0, now);
        drop(state);
        self.fleetd.spare();
        self.keeper.spare();
        self.guard.spare();
        self.changed.notify_waiters();
    }

    /// What becomes of a request sent now.
    pub fn request(&self) -> Fate {
        let mut state = self.state();
        let cut = state.requests_cut_until;
        state.fate(cut)
    }

    /// How much later a request sent now is sent once more, if it is.
    pub fn again(&self) -> Option<Duration> {
        let mut state = self.state();
        let (per_mille, until) = state.repeating;
        let repeats = Instant::now() < until && state.random.u64(0..1000) < per_mille;
        repeats.then(|| {
            let longest = state.random.u64(10..6_000); // so that short times are common
            Duration::from_millis(state.random.u64(1..=longest))
        })
    }

    /// What becomes of an answer sent now.
    pub fn answer(&self) -> Fate {
        let mut state = self.state();
        let now = Instant::now();
        let (per_mille, until) = state.losing;
        if now < until && state.random.u64(0..1000) < per_mille {
            return Fate::Lost;
        }
        let cut = state.answers_cut_until;
        state.fate(cut)
    }

    /// Takes as long as the disk or systemd takes now.
    pub async fn disk(&self) {
        let pause = {
            let mut state = self.state();
            (Instant::now() < state.slow_disk_until).then(|| state.random.u64(20..800))
        };
        if let Some(pause) = pause {
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Returns once answers have not come through for `patience`.
    pub async fn silent(&self, patience: Duration) {
        loop {
            let changed = self.changed.notified();
            let until = self.state().answers_cut_until;
            let begin = Instant::now();
            if until > begin {
                sleep_until(until.min(begin + patience)).await;
                if until >= begin + patience {
                    return;
                }
            } else {
                changed.await;
            }
        }
    }

    /// Waits until answers come through again.
    pub async fn answers_pass(&self) {
        let until = self.state().answers_cut_until;
        if until > Instant::now() {
            sleep_until(until).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic inside a link")
    }
}

impl State {
    fn fate(&mut self, cut_until: Instant) -> Fate {
        let now = Instant::now();
        let latency = Duration::from_millis(self.random.u64(LATENCY_MS));
        if cut_until > now {
            // TCP tries again: what was sent into a cut may still arrive after it.
            return if self.random.bool() {
                Fate::Lost
            } else {
                Fate::Arrives(cut_until - now + latency)
            };
        }
        if now < self.late_until && self.random.u64(0..8) == 0 {
            return Fate::Arrives(Duration::from_millis(self.random.u64(100..6000)));
        }
        Fate::Arrives(latency)
    }
}
