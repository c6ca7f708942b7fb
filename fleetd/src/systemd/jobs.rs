//! Slots for systemd jobs: taken before a job is queued, given back when it ends, by whichever way
//! we learn of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use fleet_core::name::UnitName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::counters::Tally;
use super::{Job, MAX_JOBS, MAX_STARTS};

/// How many ends of unknown jobs are kept while a reply is awaited; a reply is at most
/// [`super::MAX_CALLS`] ends late.
const MAX_EARLY: usize = 1024;

/// systemd's word for a job that was done as asked.
pub(super) const DONE: &str = "done";

/// What a job holds; dropping it frees it.
#[derive(Debug)]
struct Slot {
    name: UnitName,
    job: Job,
    /// Which of our jobs for this unit it is, counted from its last quiet time.
    nth: u64,
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
    /// Jobs that ended while a reply was on its way: the end may overtake the reply that tells the
    /// id. With their results.
    early: BTreeMap<u32, String>,
    /// The units that have jobs of ours, and how many were asked for since their last quiet time.
    asked: BTreeMap<UnitName, Asked>,
    /// The starts and reloads that ended otherwise than done, with systemd's word for it, until
    /// somebody asks.
    failed: BTreeMap<UnitName, (Job, String)>,
    /// Who waits for the end of a health check, by its unit.
    checks: BTreeMap<UnitName, oneshot::Sender<String>>,
    queueing: usize,
    ended: u64,
}

#[derive(Debug, Default)]
struct Asked {
    all: u64,
    open: usize,
    /// Whether the last one is a start or restart.
    starts: bool,
}

impl State {
    fn ask(&mut self, name: &UnitName, job: Job) -> u64 {
        self.failed.remove(name);
        let asked = self.asked.entry(name.clone()).or_default();
        *asked = Asked { all: asked.all + 1, open: asked.open + 1, starts: job.starts() };
        asked.all
    }

    /// A job is over. Of an earlier one than the last we do not care how: the last took its place.
    fn over(&mut self, slot: Slot, result: &str) {
        let Some(asked) = self.asked.get_mut(&slot.name) else { return };
        asked.open -= 1;
        let last = asked.all == slot.nth;
        if asked.open == 0 {
            self.asked.remove(&slot.name);
        }
        if last && slot.job != Job::Stop && result != DONE {
            self.failed.insert(slot.name, (slot.job, result.to_string()));
        }
    }
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

    /// Waits for a free slot. Starts and reloads cannot take them all, so that stops still pass
    /// when every start hangs, and can end those.
    pub(super) async fn take(self: &Arc<Jobs>, name: &UnitName, job: Job) -> Ticket {
        let permit = async |slots: &Arc<Semaphore>| {
            Arc::clone(slots).acquire_owned().await.expect("never closed")
        };
        let start = match job {
            Job::Start | Job::Restart | Job::Reload => Some(permit(&self.starts).await),
            Job::Stop => None,
        };
        let any = permit(&self.all).await;
        let nth = {
            let mut state = self.state();
            state.queueing += 1;
            state.ask(name, job)
        };
        let slot = Slot { name: name.clone(), job, nth, _any: any, _start: start };
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

    /// A job ended; `result` is systemd's word for how, [`DONE`] where that is not known.
    pub(super) fn ended(&self, id: u32, result: &str) {
        let known = {
            let mut state = self.state();
            state.ended += 1;
            if state.queueing > 0 {
                state.early.insert(id, result.to_string());
                if state.early.len() > MAX_EARLY {
                    state.early.pop_first();
                }
            }
            let slots = state.running.remove(&id);
            let known = slots.is_some() || state.queueing > 0;
            slots.into_iter().flatten().for_each(|slot| state.over(slot, result));
            known
        };
        if known {
            self.wake();
        }
    }

    /// Waits for the end of the one job of a health check's unit, which takes no slot: callers run
    /// few of them. Answers with systemd's word for how it ended.
    pub(super) fn watch(&self, unit: &UnitName) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        let checks = &mut self.state().checks;
        checks.retain(|_, waiting| !waiting.is_closed());
        checks.insert(unit.clone(), sender);
        receiver
    }

    /// The job of a unit ended, which may be one that [`Jobs::watch`] waits for.
    pub(super) fn check_ended(&self, unit: &str, result: &str) {
        if let Some(waiting) = self.state().checks.remove(unit) {
            let _ = waiting.send(result.to_string());
        }
    }

    /// The units whose last job of ours is a start that has not been heard to end, or that ended
    /// otherwise than done and nobody has asked yet.
    pub(super) fn open_starts(&self) -> BTreeSet<UnitName> {
        let state = self.state();
        let starts = state.asked.iter().filter(|(_, asked)| asked.starts).map(|(name, _)| name);
        let failed = state.failed.iter().filter(|(_, (job, _))| job.starts()).map(|(name, _)| name);
        starts.chain(failed).cloned().collect()
    }

    pub(super) fn take_failed_starts(&self) -> BTreeMap<UnitName, String> {
        self.take_failed(Job::starts)
    }

    pub(super) fn take_failed_reloads(&self) -> BTreeMap<UnitName, String> {
        self.take_failed(|job| job == Job::Reload)
    }

    fn take_failed(&self, of: fn(Job) -> bool) -> BTreeMap<UnitName, String> {
        let mut state = self.state();
        let (taken, left) =
            std::mem::take(&mut state.failed).into_iter().partition(|(_, (job, _))| of(*job));
        state.failed = left;
        let taken: BTreeMap<UnitName, (Job, String)> = taken;
        taken.into_iter().map(|(name, (_, word))| (name, word)).collect()
    }

    /// All job ends seen so far, also those of other clients.
    pub(super) fn ends_seen(&self) -> u64 {
        self.state().ended
    }

    pub(super) fn running(&self) -> BTreeSet<u32> {
        self.state().running.keys().copied().collect()
    }

    /// Gives all slots back: their ends will never be heard, since the connection that would hear
    /// them is gone.
    pub(super) fn forget_all(&self) {
        let mut state = self.state();
        state.early.clear();
        state.checks.clear();
        let lost: Vec<Slot> = std::mem::take(&mut state.running).into_values().flatten().collect();
        lost.into_iter().for_each(|slot| state.over(slot, DONE));
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
        match (state.early.get(&id).cloned(), self.slot.take()) {
            (Some(result), Some(slot)) => state.over(slot, &result),
            (None, slot) => state.running.entry(id).or_default().extend(slot),
            (Some(_), None) => {}
        }
    }

    /// There was nothing to do, or systemd would not.
    fn dropped(&mut self, state: &mut State) {
        if let Some(slot) = self.slot.take() {
            state.over(slot, DONE);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let jobs = Arc::clone(&self.jobs);
        let mut state = jobs.state();
        self.dropped(&mut state);
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

    fn unit() -> UnitName {
        UnitName::trusted("a.service")
    }

    #[tokio::test]
    async fn a_start_that_did_not_end_well_is_told_once_and_one_that_another_took_the_place_of_is_not()
     {
        let jobs = jobs();
        let told = || jobs.take_failed_starts().into_values().collect::<Vec<String>>();
        jobs.take(&unit(), Job::Start).await.queued(1);
        assert_eq!(jobs.open_starts().len(), 1);
        jobs.ended(1, "dependency");
        assert_eq!(jobs.open_starts().len(), 1, "nobody has asked yet");
        assert_eq!(
            (told(), told(), jobs.open_starts().len()),
            (vec!["dependency".to_string()], vec![], 0)
        );
        jobs.take(&unit(), Job::Start).await.queued(2);
        jobs.take(&unit(), Job::Restart).await.queued(3);
        jobs.ended(2, "canceled");
        jobs.ended(3, "done");
        assert_eq!((told(), jobs.open_starts().len()), (vec![], 0));
        // The end may overtake the reply.
        let (start, stop) =
            (jobs.take(&unit(), Job::Start).await, jobs.take(&unit(), Job::Stop).await);
        jobs.ended(4, "failed");
        jobs.ended(5, "done");
        start.queued(4);
        stop.queued(5);
        assert_eq!((told(), jobs.open_starts().len()), (vec![], 0));
        let start = jobs.take(&unit(), Job::Start).await;
        jobs.ended(6, "failed");
        start.queued(6);
        assert_eq!(told(), ["failed"]);
    }

    #[tokio::test]
    async fn a_failed_reload_is_no_failed_start_and_is_told_once() {
        let jobs = jobs();
        jobs.take(&unit(), Job::Reload).await.queued(1);
        assert_eq!(jobs.open_starts().len(), 0);
        jobs.ended(1, "failed");
        assert_eq!((jobs.take_failed_starts().len(), jobs.open_starts().len()), (0, 0));
        let told: Vec<String> = jobs.take_failed_reloads().into_values().collect();
        assert_eq!((told, jobs.take_failed_reloads().len()), (vec!["failed".to_string()], 0));
    }

    #[tokio::test]
    async fn a_slot_is_held_until_its_job_ends() {
        let jobs = jobs();
        jobs.take(&unit(), Job::Start).await.queued(1);
        assert_eq!(jobs.in_flight(), 1);
        jobs.ended(2, DONE);
        assert_eq!(jobs.in_flight(), 1);
        jobs.ended(1, DONE);
        assert_eq!((jobs.in_flight(), *jobs.changes().borrow()), (0, 1));
    }

    #[tokio::test]
    async fn an_end_may_overtake_the_reply_also_for_merged_jobs() {
        let jobs = jobs();
        let (first, second) =
            (jobs.take(&unit(), Job::Start).await, jobs.take(&unit(), Job::Start).await);
        first.queued(7);
        jobs.ended(7, DONE);
        second.queued(7);
        assert_eq!(jobs.in_flight(), 0);
        assert!(jobs.state().early.is_empty());
    }

    #[tokio::test]
    async fn a_refused_or_dropped_start_gives_its_slot_back() {
        let jobs = jobs();
        drop(jobs.take(&unit(), Job::Restart).await);
        assert_eq!(jobs.in_flight(), 0);
    }

    #[tokio::test]
    async fn stops_pass_when_every_start_hangs() {
        let jobs = jobs();
        for id in 0..MAX_STARTS {
            jobs.take(&unit(), Job::Start).await.queued(id as u32);
        }
        assert!(jobs.full());
        jobs.take(&unit(), Job::Stop).await.queued(9999);
        assert_eq!(jobs.in_flight(), MAX_STARTS + 1);
        jobs.forget_all();
        assert_eq!(jobs.in_flight(), 0);
    }
}
