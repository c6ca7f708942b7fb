//! The agent: each tick is this machine's assignment and its systemd's word in, steps and a report
//! out. What to do is `fleet_core::converge`'s to decide.
//!
//! **Architecture invariant:** it knows its own machine and assignment, no other machine and no
//! placement rule.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::converge::{Step, Trouble, converge};
use fleet_core::model::{Assignment, Report};
use fleet_core::name::{MachineId, UnitName};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::machine::session::Standing;
use crate::process::clock;
use crate::process::repeated::Repeated;
use crate::store::kv::WatchEvent;
use crate::store::{Registration, Store, StoreError};
use crate::systemd::{JobOutcome, MAX_STARTS, Systemd, SystemdError};

mod apply;
mod dropin;
mod enable;
mod fence;
mod markers;
mod observe;
mod remembered;
mod report;
mod rest;
mod settling;
mod templates;
#[cfg(test)]
mod tests;

use fence::KeeperOfHost;
use markers::Markers;
use remembered::Remembered;
use rest::Resting;
use settling::Settling;

/// How often systemd is asked for states when nothing happens: a failure is noticed within a
/// second. Why not systemd's signals: docs/decisions/0003-listing-not-signals.md.
const LIST_PERIOD_MS: u64 = 950;

/// While jobs are under way, systemd is asked no more often than this; else each of 300 ends would
/// cost a listing.
const BUSY_PERIOD_MS: u64 = 150;

/// … and no more often than takes a twentieth of the time: a listing of 4,000 units takes systemd
/// some 20 ms.
const LISTING_SHARE: u64 = 20;

/// While jobs are under way, this many ended ones are worth a tick that queues more.
const REFILL: usize = MAX_STARTS / 4;

/// Two reports go out at once; after that one each half second.
const REPORT_PERIOD_MS: u64 = 500;
const REPORT_BURST: u64 = 2;

/// How long the store may take for its first answer before the agent starts from what it remembers,
/// in milliseconds: longer than a store that is there ever takes, and short for whoever waits for a
/// rebooted machine.
const DISK_PATIENCE_MS: u64 = 5_000;

/// How long leaving waits for units to stop. Below fleetd's own TimeoutStopSec (90 s).
const LEAVE_TIMEOUT: Duration = Duration::from_secs(75);

/// Runs what this machine was assigned.
pub struct Agent {
    machine: MachineId,
    store: Store,
    systemd: Arc<dyn Systemd>,
    markers: Markers,
    /// Where Quadlet units are translated: a folder of fleet's own, never one where others can
    /// write.
    scratch: PathBuf,
    /// The last assignment that the store showed; kept while the store is away.
    assignment: Option<Arc<Assignment>>,
    /// The store's revision that it was true at; 0 where the store did not show it.
    as_of: i64,
    /// The revision at which it should be known.
    wanted: watch::Sender<i64>,
    /// The keeper of fenced units, where this fleetd runs any.
    keeper: Option<KeeperOfHost>,
    /// What outlives a reboot.
    remembered: Option<Remembered>,
    /// Since when the store is asked for the first assignment of this run.
    asked_since_ms: Option<u64>,
    /// Whether the assignment is the one from before, since the store does not answer.
    from_disk: bool,
    /// Whether another fleetd had this machine's id, and the assignment of this one has not been
    /// read since.
    refused: bool,
    trouble: BTreeMap<UnitName, Trouble>,
    /// Which instances have stayed up since they were started.
    settling: Settling,
    /// Each instance's active state, and since when; of what has a job, nothing is known.
    since: BTreeMap<UnitName, (String, u64)>,
    outcomes: BTreeMap<UnitName, JobOutcome>,
    /// … and what systemd said of it in the journal; none where it was asked and said nothing.
    reasons: BTreeMap<UnitName, Option<String>>,
    /// What systemd refused to stop when it was last asked.
    stop_refused: BTreeSet<UnitName>,
    /// Launched units that are at rest.
    resting: Resting,
    /// Whether the markers are known to be of this start of user space.
    in_this_user_space: bool,
    texts: apply::Texts,
    /// The template that was rendered last.
    rendered: Option<(apply::TextKey, Arc<templates::Rendered>)>,
    /// The instances that the present pass writes.
    rewriting: BTreeSet<UnitName>,
    reported: Option<Report>,
    /// The revision of the last report in the store, 0 if there is none; unknown while one of ours
    /// may still arrive.
    reported_at: Option<i64>,
    /// Under which registration that was; a new one starts with an empty report.
    registration: Option<Registration>,
    /// Since when there have been steps to take in every tick.
    busy_since_ms: Option<u64>,
    /// How long the last listing took.
    listing_ms: u64,
    /// Not before is systemd told again of links, see [`Agent::tell_targets`].
    no_links_before_ms: u64,
    /// What went wrong last, so that it is said once.
    said: String,
    /// The time up to which reports are paid for, see [`Agent::may_report`].
    report_credit_ms: u64,
}

/// What the store last showed, for the agent's next tick.
#[derive(Debug, Clone, Default)]
struct Shown {
    /// The assignment, if there is one.
    assignment: Option<Arc<Assignment>>,
    /// The revision that it was true at.
    as_of: i64,
    /// Whether the store has answered at all.
    answered: bool,
}

type Newest = watch::Receiver<Shown>;

impl Agent {
    /// `run_dir` holds what is known of the units of this boot.
    pub fn new(
        machine: MachineId,
        store: Store,
        systemd: Arc<dyn Systemd>,
        run_dir: &Path,
    ) -> std::io::Result<Agent> {
        let markers = Markers::open(&run_dir.join("units"), &machine)?;
        Ok(Agent {
            machine,
            store,
            systemd,
            markers,
            scratch: run_dir.join("quadlet"),
            assignment: None,
            as_of: 0,
            wanted: watch::Sender::new(0),
            keeper: None,
            remembered: None,
            asked_since_ms: None,
            from_disk: false,
            refused: false,
            trouble: BTreeMap::new(),
            settling: Settling::default(),
            since: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            reasons: BTreeMap::new(),
            stop_refused: BTreeSet::new(),
            resting: Resting::default(),
            in_this_user_space: false,
            texts: apply::Texts::default(),
            rendered: None,
            rewriting: BTreeSet::new(),
            reported: None,
            reported_at: None,
            registration: None,
            busy_since_ms: None,
            listing_ms: 0,
            no_links_before_ms: 0,
            said: String::new(),
            report_credit_ms: 0,
        })
    }

    /// Has the agent keep its assignment in `data_dir`, and start from it after a reboot while the
    /// store is away.
    pub fn with_memory(mut self, data_dir: &Path) -> std::io::Result<Agent> {
        self.remembered = Some(Remembered::open(data_dir, &self.machine)?);
        Ok(self)
    }

    /// Ticks whenever the assignment changes, a job ends, a pause ends or time passes, for ever.
    /// Drop the future to stop: nothing that runs is stopped by that. While another fleetd has this
    /// machine's id, nothing is started or stopped.
    pub async fn run(agent: Arc<Mutex<Agent>>, standing: watch::Receiver<Standing>) {
        let (machine, store, systemd, wanted, remembered) = {
            let agent = agent.lock().await;
            let (systemd, wanted) = (agent.systemd.clone(), agent.wanted.subscribe());
            (agent.machine.clone(), agent.store.clone(), systemd, wanted, agent.remembered.clone())
        };
        let mut jobs = systemd.changes();
        let (sender, mut newest) = watch::channel(Shown::default());
        let remember = remember(remembered, sender.subscribe());
        let follow = follow_assignment(store, machine, sender, wanted);
        let tick = async {
            let mut stands = standing.clone();
            loop {
                let now = *standing.borrow();
                let (next_ms, busy) = agent.lock().await.tick(clock::now_ms(), &newest, now).await;
                // A job's end wakes at once when it was the last one, and a busy while later when
                // others are still running.
                let wait = Duration::from_millis(next_ms.saturating_sub(clock::now_ms()));
                let job_ended = async {
                    let _ = jobs.changed().await;
                    if let Some(pace) = busy {
                        let _ = timeout(pace, settle(&*systemd, &mut jobs)).await;
                    }
                };
                let woken = async {
                    tokio::select! {
                        biased; // the same order in each run of the simulator
                        () = job_ended => {}
                        _ = newest.changed() => {}
                        _ = stands.changed() => {}
                    }
                };
                let _ = timeout(wait, woken).await;
            }
        };
        tokio::join!(follow, remember, tick);
    }

    /// What this agent knows, for a look from outside (SIGUSR1).
    pub fn state(&self) -> serde_json::Value {
        serde_json::json!({ "assignment": self.assignment.as_deref(), "reported": &self.reported })
    }

    /// One pass. Answers with when to look again, in milliseconds since 1970, and, while jobs are
    /// under way, how long to let them run.
    async fn tick(
        &mut self,
        now_ms: u64,
        newest: &Newest,
        standing: Standing,
    ) -> (u64, Option<Duration>) {
        let registration = standing.registration();
        if registration != self.registration {
            self.registration = registration;
            (self.reported, self.reported_at) = (None, None);
        }
        if standing.is_refused() {
            (self.refused, self.assignment) = (true, None);
            self.call_off_keeper().await;
            return (now_ms + LIST_PERIOD_MS, None);
        }
        self.take(newest.borrow().clone(), standing, now_ms);
        match self.pass(now_ms).await {
            Ok(next_ms) => {
                self.said.clear();
                (
                    next_ms,
                    (self.systemd.jobs_in_flight() > 0)
                        .then(|| Duration::from_millis(self.busy_period_ms())),
                )
            }
            Err(error) => {
                let now = error.to_string();
                if self.said != now {
                    warn!("{now}; trying again, nothing that runs is touched");
                    self.said = now;
                }
                (now_ms + LIST_PERIOD_MS, None)
            }
        }
    }

    /// Takes what the store shows, once this machine's id is known to be its own; or, while the
    /// store does not answer, what was assigned before.
    fn take(&mut self, shown: Shown, standing: Standing, now_ms: u64) {
        if standing == Standing::Asked {
            self.asked_since_ms = None; // the store answers: whose the id is will be known soon
            return;
        }
        if self.refused && standing.is_own() {
            // What the watch showed last was the other one's to run. What holds was written after
            // this one's registration, or stands there still at that revision.
            let Some(registration) = standing.registration() else { return };
            if shown.as_of < registration.create_revision {
                self.wanted.send_replace(registration.create_revision);
                return;
            }
            self.refused = false;
        }
        if standing.is_own() {
            if let Some(assignment) = shown.assignment {
                (self.assignment, self.as_of, self.from_disk) =
                    (Some(assignment), shown.as_of, false);
                if self.markers.are_of_another() {
                    self.markers.belong_to(&self.machine);
                }
            } else if shown.answered && self.assignment.is_none() && self.markers.are_of_another() {
                // What runs here was assigned to the id that this machine had before: to this one
                // nothing is.
                self.assignment = Some(Arc::default());
            }
        }
        let asked_since_ms = *self.asked_since_ms.get_or_insert(now_ms);
        let no_answer = !shown.answered || !standing.is_own();
        if no_answer && self.assignment.is_none() && now_ms >= asked_since_ms + DISK_PATIENCE_MS {
            self.assignment =
                self.remembered.as_ref().and_then(Remembered::assignment).map(Arc::new);
            if let Some(assignment) = &self.assignment {
                let generation = assignment.generation;
                warn!(
                    "the store does not answer; starting what was assigned before (generation \
                        {generation}), fenced units wait"
                );
                self.from_disk = true;
            }
        }
    }

    async fn pass(&mut self, now_ms: u64) -> Result<u64, SystemdError> {
        if !self.in_this_user_space {
            self.enter_user_space().await?;
        }
        let mut host = self.observe(now_ms).await?;
        let look_soon = self.explain_rest(&mut host).await;
        self.listing_ms = clock::now_ms().saturating_sub(now_ms);
        let life = self.open_life(now_ms).await;
        if let Some(assignment) = self.assignment.as_ref().filter(|_| self.from_disk) {
            // What was assigned since that was written is not known: nothing is taken off.
            host.retain(|name, _| assignment.instances.contains_key(name));
        }
        let converged = converge(self.assignment.as_deref(), &host, life, now_ms);
        let idle = converged.steps.is_empty() && !look_soon;
        // Said before the next try hides it: that may take long until it fails, too.
        let failing =
            converged.steps.iter().any(|step| matches!(step, Step::Start { again: true, .. }));
        // Made before the steps are taken: it says what was seen, not what was asked for since.
        let report = self.report(&host, now_ms).await;
        let free = MAX_STARTS.saturating_sub(self.systemd.jobs_in_flight());
        let left_over = self.apply(converged.steps, free, now_ms).await;
        if idle && !left_over {
            self.tell_targets(now_ms).await;
        }
        self.busy_since_ms = if idle { None } else { self.busy_since_ms.or(Some(now_ms)) };
        let mut next_ms =
            now_ms + if idle && !left_over { LIST_PERIOD_MS } else { self.busy_period_ms() };
        if let Some(settles_ms) = self.settles_at_ms(&host) {
            next_ms = next_ms.min(settles_ms.max(now_ms + self.busy_period_ms()));
        }
        // In the middle of work the next tick will know more; long work is reported as it goes.
        let worth_saying =
            failing || self.busy_since_ms.is_none_or(|since| now_ms >= since + REPORT_PERIOD_MS);
        if worth_saying && !self.publish(report, now_ms).await {
            next_ms = next_ms.min(self.report_credit_ms);
        }
        Ok(converged.wake_at_ms.map_or(next_ms, |at| at.min(next_ms)))
    }

    async fn let_jobs_end(&mut self, deadline_ms: u64) {
        let mut jobs = self.systemd.changes();
        while self.systemd.jobs_in_flight() > 0 && clock::now_ms() < deadline_ms {
            let _ = timeout(Duration::from_millis(BUSY_PERIOD_MS), jobs.changed()).await;
        }
    }

    fn busy_period_ms(&self) -> u64 {
        BUSY_PERIOD_MS.max(self.listing_ms * LISTING_SHARE).min(LIST_PERIOD_MS)
    }

    /// Stops and removes everything that fleet runs here; for a machine that leaves. Gives up after
    /// a while and says so.
    pub async fn stop_everything(&mut self) {
        let deadline = clock::now_ms() + LEAVE_TIMEOUT.as_millis() as u64;
        self.assignment = Some(Arc::new(Assignment::default()));
        let mut jobs = self.systemd.changes();
        self.trouble.clear();
        self.stop_refused.clear();
        self.registration = None;
        loop {
            let now_ms = clock::now_ms();
            let left: Vec<UnitName> = self.markers.names().cloned().collect();
            if left.is_empty() {
                self.end_keeper().await;
                self.let_jobs_end(deadline).await;
                return self.forget_links().await;
            }
            if now_ms > deadline {
                return warn!("{} units did not stop in time: {}", left.len(), left[0]);
            }
            if left.iter().all(|name| self.stop_refused.contains(name)) {
                let why = self
                    .trouble
                    .get(&left[0])
                    .and_then(|trouble| trouble.message.clone())
                    .unwrap_or_default();
                let units = if left.len() == 1 {
                    "1 unit runs".to_string()
                } else {
                    format!("{} units run", left.len())
                };
                warn!("{units} on here: {why}");
                if !left
                    .iter()
                    .any(|name| self.markers.get(name).is_some_and(|marker| marker.fence.is_some()))
                {
                    self.end_keeper().await;
                }
                return self.let_jobs_end(deadline).await;
            }
            if let Err(error) = self.pass(now_ms).await {
                warn!("{error}");
            }
            let _ = timeout(Duration::from_millis(BUSY_PERIOD_MS), jobs.changed()).await;
        }
    }
}

/// Keeps each assignment that the store shows on the disk, the newest if several came while one was
/// written.
async fn remember(remembered: Option<Remembered>, mut newest: Newest) {
    let Some(remembered) = remembered else { return };
    let mut kept = None;
    while newest.changed().await.is_ok() {
        let shown = newest.borrow_and_update().assignment.clone();
        let Some(assignment) = shown.filter(|shown| kept.as_ref() != Some(shown)) else { continue };
        kept = Some(assignment.clone());
        let remembered = remembered.clone();
        let _ = tokio::task::spawn_blocking(move || remembered.keep(&assignment)).await;
    }
}

/// Waits for more jobs to end: until none is left, or a good number has ended. The caller limits
/// the time.
async fn settle(systemd: &dyn Systemd, jobs: &mut watch::Receiver<u64>) {
    let before = systemd.jobs_in_flight();
    loop {
        let left = systemd.jobs_in_flight();
        if left == 0 || left + REFILL <= before || jobs.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps `newest` at this machine's assignment: reads it, follows it, reads it again after a break,
/// or when it is `wanted` as of a later revision. An absent key is no news.
async fn follow_assignment(
    store: Store,
    machine: MachineId,
    newest: watch::Sender<Shown>,
    mut wanted: watch::Receiver<i64>,
) {
    let mut repeated = Repeated::default();
    loop {
        match follow_once(&store, &machine, &newest, &mut wanted).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                if let Some(problem) = repeated.fresh(error.to_string()) {
                    warn!("{problem}; this machine keeps what it was assigned before");
                }
            }
            Err(error) => debug!("reading the assignment again: {error}"),
            Ok(()) => {}
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn follow_once(
    store: &Store,
    machine: &MachineId,
    newest: &watch::Sender<Shown>,
    wanted: &mut watch::Receiver<i64>,
) -> Result<(), StoreError> {
    let (assignment, revision) = store.assignment(machine).await?;
    match assignment {
        Some(assignment) => offer(newest, assignment.value, revision),
        None => newest.send_modify(|shown| {
            *shown = Shown { assignment: None, as_of: revision, answered: true }
        }),
    }
    let mut changes = store.watch_assignment(machine, revision).await?;
    loop {
        let batch = tokio::select! {
            batch = changes.recv() => batch,
            Ok(wanted) = wanted.wait_for(|wanted| *wanted > newest.borrow().as_of) => {
                debug!("reading the assignment again: it is wanted as of revision {}", *wanted);
                return Ok(());
            }
        };
        let Some(batch) = batch else { return Ok(()) };
        let batch = batch?;
        for event in batch.events {
            if let WatchEvent::Put(kv) = event {
                offer(newest, store.read_assignment(&kv)?, batch.revision);
            }
        }
    }
}

fn offer(newest: &watch::Sender<Shown>, assignment: Assignment, as_of: i64) {
    newest.send_modify(|shown| {
        if shown.assignment.as_deref() != Some(&assignment) {
            shown.assignment = Some(Arc::new(assignment));
        }
        (shown.as_of, shown.answered) = (as_of, true);
    });
}
