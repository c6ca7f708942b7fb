//! Slots for systemd jobs: taken before a job is queued, given back when it ends, by whichever way we learn of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::counters::Tally;
use super::{Job, MAX_JOBS, MAX_STARTS};

/// How many ends of unknown jobs are kept while a reply is awaited; a reply is at most [`super::MAX_CALLS`] ends late.
const MAX_EARLY: usize = 1024;

/// What a job holds; dropping it frees it.
#[derive(Debug)]
struct Slot {
    _any: OwnedSemaphorePermit,
    _start: Option<OwnedSemaphorePermit>,
}

/// The jobs queued through one systemd value.
#[derive(Debug)]
pub(super) struct Jobs {
    all: Arc<Semaphore>,
    /// Starts need one of these as well.
    starts: Arc<Semaphore>,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct State {
    /// Two slots have one id when systemd merged the jobs.
    running: BTreeMap<u32, Vec<Slot>>,
    /// Jobs that ended while a reply was on its way: the end may overtake the reply that tells the id.
    early: BTreeSet<u32>,
    queueing: usize,
    ended: u64,
}

impl Jobs {
    pub(super) fn new(tally: Arc<Tally>) -> Arc<Jobs> {
        Arc::new(Jobs {
            all: Arc::new(Semaphore::new(MAX_JOBS)),
            starts: Arc::new(Semaphore::new(MAX_STARTS)),
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            tally,
        })
    }

    /// Waits for a free slot. Starts cannot take them all, so that stops still pass when every start hangs, and can end those.
    pub(super) async fn take(self: &Arc<Jobs>, job: Job) -> Ticket {
        let permit = async |slots: &Arc<Semaphore>| Arc::clone(slots).acquire_owned().await.expect("never closed");
        let start = match job {
            Job::Start | Job::Restart => Some(permit(&self.starts).await),
            Job::Stop => None,
        };
        let slot = Slot { _any: permit(&self.all).await, _start: start };
        self.state().queueing += 1;
        let in_flight = self.in_flight();
        self.tally.count(|c| c.most_jobs = c.most_jobs.max(in_flight));
        Ticket { jobs: Arc::clone(self), slot: Some(slot) }
    }

    pub(super) fn in_flight(&self) -> usize {
        MAX_JOBS - self.all.available_permits()
    }

    /// Whether starts have to wait.
    pub(super) fn full(&self) -> bool {
        self.starts.available_permits() == 0
    }

    pub(super) fn ended(&self, id: u32) {
        let known = {
            let mut state = self.state();
            state.ended += 1;
            if state.queueing > 0 {
                state.early.insert(id);
                if state.early.len() > MAX_EARLY {
                    state.early.pop_first();
                }
            }
            state.running.remove(&id).is_some() || state.queueing > 0
        };
        if known {
            self.wake();
        }
    }

    /// All job ends seen so far, also those of other clients.
    pub(super) fn ends_seen(&self) -> u64 {
        self.state().ended
    }

    pub(super) fn running(&self) -> BTreeSet<u32> {
        self.state().running.keys().copied().collect()
    }

    /// Gives all slots back: their ends will never be heard, since the connection that would hear them is gone.
    pub(super) fn forget_all(&self) {
        let mut state = self.state();
        state.running.clear();
        state.early.clear();
    }

    pub(super) fn wake(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while holding job slots")
    }
}

/// A slot whose job is being queued. Dropping it gives the slot back.
#[derive(Debug)]
pub(super) struct Ticket {
    jobs: Arc<Jobs>,
    slot: Option<Slot>,
}

impl Ticket {
    /// systemd took the job: the slot now waits for [`Jobs::ended`], unless the end came first.
    pub(super) fn queued(mut self, id: u32) {
        let mut state = self.jobs.state();
        if !state.early.contains(&id) {
            state.running.entry(id).or_default().extend(self.slot.take());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.jobs.state();
        state.queueing -= 1;
        if state.queueing == 0 {
            state.early.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs() -> Arc<Jobs> {
        Jobs::new(Arc::default())
    }

    #[tokio::test]
    async fn a_slot_is_held_until_its_job_ends() {
        let jobs = jobs();
        jobs.take(Job::Start).await.queued(1);
        assert_eq!(jobs.in_flight(), 1);
        jobs.ended(2);
        assert_eq!(jobs.in_flight(), 1);
        jobs.ended(1);
        assert_eq!((jobs.in_flight(), *jobs.changes().borrow()), (0, 1));
    }

    #[tokio::test]
    async fn an_end_may_overtake_the_reply_also_for_merged_jobs() {
        let jobs = jobs();
        let (first, second) = (jobs.take(Job::Start).await, jobs.take(Job::Start).await);
        first.queued(7);
        jobs.ended(7);
        second.queued(7);
        assert_eq!(jobs.in_flight(), 0);
        assert!(jobs.state().early.is_empty());
    }

    #[tokio::test]
    async fn a_refused_or_dropped_start_gives_its_slot_back() {
        let jobs = jobs();
        drop(jobs.take(Job::Restart).await);
        assert_eq!(jobs.in_flight(), 0);
    }

    #[tokio::test]
    async fn stops_pass_when_every_start_hangs() {
        let jobs = jobs();
        for id in 0..MAX_STARTS {
            jobs.take(Job::Start).await.queued(id as u32);
        }
        assert!(jobs.full());
        jobs.take(Job::Stop).await.queued(9999);
        assert_eq!(jobs.in_flight(), MAX_STARTS + 1);
        jobs.forget_all();
        assert_eq!(jobs.in_flight(), 0);
    }
}
