//! The agent: each tick is this machine's assignment and its systemd's word in, steps and a report
//! out. What to do is `fleet_core::converge`'s to decide.
//!
//! **Architecture invariant:** it knows its own machine and assignment, no other machine and no
//! placement rule.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::converge::{Step, converge};
use fleet_core::model::Assignment;
use fleet_core::name::{MachineId, UnitName};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tracing::warn;

use crate::machine::session::Standing;
use crate::machine::volumes::Volumes;
use crate::metrics::FailureCounts;
use crate::process::clock;
use crate::store::Store;
use crate::systemd::quadlet::Generator;
use crate::systemd::{Listed, MAX_STARTS, Systemd, SystemdError};

mod apply;
mod assignment;
mod beside;
mod bundles;
mod configurations;
mod dropin;
mod enable;
mod failures;
mod fence;
mod files;
mod health;
mod images;
mod instance;
mod leaving;
mod markers;
mod observe;
mod remembered;
mod report;
mod rest;
mod settling;
mod templates;
#[cfg(test)]
mod tests;
mod user_space;

use assignment::{Newest, Shown, follow_assignment, remember};
use bundles::{Blobs, Bundles};
use configurations::Configurations;
use failures::Failures;
use fence::KeeperOfHost;
use files::Files;
use health::Checks;
use instance::Instances;
use remembered::Remembered;
use report::Reports;
use rest::Resting;
use settling::Search;

/// How often systemd is asked for states when nothing happens: a failure is noticed within a
/// second. Why not systemd's signals: docs/decisions/0003-listing-not-signals.md.
const LIST_PERIOD_MS: u64 = 950;

/// While jobs are under way, systemd is asked no more often than this; else each of 300 ends would
/// cost a listing.
const BUSY_PERIOD_MS: u64 = 150;

/// While something that fleet has just started is young, systemd is asked as often as this: most
/// programs that cannot work die at once, and nobody is to read that they run.
const YOUNG_PERIOD_MS: u64 = 80;

/// How long that is.
const YOUNG_MS: u64 = 1_000;

/// … and no more often than takes a twentieth of the time: a listing of 4,000 units takes systemd
/// some 20 ms.
const LISTING_SHARE: u64 = 20;

/// While jobs are under way, this many ended ones are worth a tick that queues more.
const REFILL: usize = MAX_STARTS / 4;

/// Runs what this machine was assigned.
pub struct Agent {
    machine: MachineId,
    store: Store,
    systemd: Arc<dyn Systemd>,
    /// What is known of each instance here, one record an instance.
    instances: Instances,
    /// The files that come with instances.
    files: Files,
    /// What comes with units, as the store has it.
    blobs: Blobs,
    bundles: Bundles,
    /// podman's volumes that were made for instances.
    volumes: Arc<Volumes>,
    /// What systemd last said of the services that are here for the sake of instances.
    beside: BTreeMap<UnitName, Listed>,
    /// Whether the files of what an earlier fleetd left were looked through.
    tidied: bool,
    /// Translates Quadlet units, in a folder of fleet's own, never one where others can write.
    generator: Generator,
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
    /// Looks in turn for restarts by systemd.
    search: Search,
    /// What systemd last said that tells of units at rest.
    resting: Resting,
    /// Whether the markers are known to be of this start of user space.
    in_this_user_space: bool,
    texts: apply::Texts,
    /// The images that instances wait for.
    images: images::Images,
    /// What was rendered lately.
    rendered: templates::Cache,
    /// The instances of which the present pass writes a text that changes nothing for what runs.
    alike: BTreeSet<UnitName>,
    configurations: Configurations,
    /// The instances that the present pass writes.
    rewriting: BTreeSet<UnitName>,
    /// How instances failed here lately.
    failures: Failures,
    /// … and how many, by kind.
    failure_counts: Arc<FailureCounts>,
    reports: Reports,
    /// What is asked of instances beyond systemd's word, and what came of it.
    checks: Checks,
    /// Since when there have been steps to take in every tick.
    busy_since_ms: Option<u64>,
    /// How long the last listing took.
    listing_ms: u64,
    /// Not before is systemd told again of links, see [`Agent::tell_targets`].
    no_links_before_ms: u64,
    /// What went wrong last, so that it is said once.
    said: String,
}

impl Agent {
    /// `run_dir` holds what is known of the units of this boot.
    pub fn new(
        machine: MachineId,
        store: Store,
        systemd: Arc<dyn Systemd>,
        run_dir: &Path,
    ) -> std::io::Result<Agent> {
        let instances = Instances::open(&run_dir.join("units"), &machine)?;
        let images = images::Images::with_left(instances.notes.pulls()?);
        let generator = Generator::of_host(run_dir.join("quadlet"));
        generator.tidy()?;
        Ok(Agent {
            machine,
            store,
            systemd,
            instances,
            files: Files::open(run_dir.join("files"))?,
            blobs: Blobs::open(run_dir.join("blobs"))?,
            bundles: Bundles::default(),
            volumes: Arc::default(),
            beside: BTreeMap::new(),
            tidied: false,
            generator,
            assignment: None,
            as_of: 0,
            wanted: watch::Sender::new(0),
            keeper: None,
            remembered: None,
            asked_since_ms: None,
            from_disk: false,
            refused: false,
            search: Search::default(),
            resting: Resting::default(),
            in_this_user_space: false,
            texts: apply::Texts::default(),
            images,
            rendered: templates::Cache::default(),
            alike: BTreeSet::new(),
            configurations: Configurations::new(run_dir.join("config")),
            rewriting: BTreeSet::new(),
            failures: Failures::open(run_dir.join("failures")),
            failure_counts: Arc::default(),
            reports: Reports::default(),
            checks: Checks::new(),
            busy_since_ms: None,
            listing_ms: 0,
            no_links_before_ms: 0,
            said: String::new(),
        })
    }

    /// Has the agent keep its assignment in `data_dir`, and start from it after a reboot while the
    /// store is away.
    pub fn with_memory(mut self, data_dir: &Path) -> std::io::Result<Agent> {
        let remembered = Remembered::open(data_dir, &self.machine)?;
        self.blobs = remembered.blobs().clone();
        self.remembered = Some(remembered);
        Ok(self)
    }

    /// Has the agent count failures there.
    pub fn counting(mut self, failures: Arc<FailureCounts>) -> Agent {
        self.failure_counts = failures;
        self
    }

    /// Has the agent note there which volumes it makes, and who uses them.
    #[must_use]
    pub fn with_volumes(self, volumes: Arc<Volumes>) -> Agent {
        Agent { volumes, ..self }
    }

    /// Ticks whenever the assignment changes, a job ends, a pause ends or time passes, for ever.
    /// Drop the future to stop: nothing that runs is stopped by that. While another fleetd has this
    /// machine's id, nothing is started or stopped.
    pub async fn run(agent: Arc<Mutex<Agent>>, standing: watch::Receiver<Standing>) {
        let (machine, store, systemd, wanted, remembered, checks) = {
            let agent = agent.lock().await;
            let (systemd, wanted) = (agent.systemd.clone(), agent.wanted.subscribe());
            let (remembered, checks) = (agent.remembered.clone(), agent.checks.clone());
            (agent.machine.clone(), agent.store.clone(), systemd, wanted, remembered, checks)
        };
        let mut healths = checks.changes();
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
                        _ = healths.changed() => {}
                    }
                };
                let _ = timeout(wait, woken).await;
            }
        };
        tokio::join!(follow, remember, checks.run(), tick);
    }

    /// What this agent knows, for a look from outside (SIGUSR1).
    pub fn state(&self) -> serde_json::Value {
        serde_json::json!({ "assignment": self.assignment.as_deref(), "reported": self.reports.last() })
    }

    /// One pass. Answers with when to look again, in milliseconds since 1970, and, while jobs are
    /// under way, how long to let them run.
    async fn tick(
        &mut self,
        now_ms: u64,
        newest: &Newest,
        standing: Standing,
    ) -> (u64, Option<Duration>) {
        self.reports.go_under(standing.registration());
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

    /// Looks at the host, decides, and acts. It waits for nothing without a limit: each call to
    /// systemd, the journal, podman and the store has one, and a call that had no answer is the
    /// last of its kind in the pass.
    async fn pass(&mut self, now_ms: u64) -> Result<u64, SystemdError> {
        if !self.in_this_user_space {
            self.enter_user_space().await?;
        }
        let mut host = self.observe(now_ms).await?;
        self.forget_old_text(&host);
        if !std::mem::replace(&mut self.tidied, true) {
            self.tidy_files();
        }
        let look_soon =
            self.look_back(&mut host).await | self.explain_rest(&mut host, now_ms).await;
        let look_soon = self.look_for_images(&mut host, now_ms).await | look_soon;
        let look_soon = self.judge_failures(&mut host, now_ms).await | look_soon;
        self.listing_ms = clock::now_ms().saturating_sub(now_ms);
        let life = self.open_life(now_ms).await;
        if let Some(assignment) = self.assignment.as_ref().filter(|_| self.from_disk) {
            // What was assigned since that was written is not known: nothing is taken off.
            host.retain(|name, _| assignment.instances.contains_key(name));
        }
        let converged = converge(self.assignment.as_deref(), &host, life, now_ms);
        let idle = converged.steps.is_empty() && !look_soon;
        // Said before the next try hides it: that may take long until it fails, too.
        let failing = converged
            .steps
            .iter()
            .any(|step| matches!(step, Step::Start { again: true, .. } | Step::Revive { .. }));
        // Made before the steps are taken: it says what was seen, not what was asked for since.
        let report = self.report(&host, now_ms).await;
        let left_over = self.apply(converged.steps, now_ms).await | self.tidy_beside().await;
        if idle && !left_over {
            self.tell_targets(now_ms).await;
        }
        self.busy_since_ms = if idle { None } else { self.busy_since_ms.or(Some(now_ms)) };
        let mut next_ms =
            now_ms + if idle && !left_over { LIST_PERIOD_MS } else { self.busy_period_ms() };
        if let Some(settles_ms) = self.settles_at_ms(&host) {
            next_ms = next_ms.min(settles_ms.max(now_ms + self.busy_period_ms()));
        }
        if let Some(young_ms) = self.young_at_ms(&host, now_ms) {
            next_ms = next_ms.min(young_ms);
        }
        // In the middle of work the next tick will know more; long work is reported as it goes.
        let worth_saying =
            failing || self.busy_since_ms.is_none_or(|since| now_ms >= since + report::PERIOD_MS);
        if worth_saying && !self.publish(report, now_ms).await {
            next_ms = next_ms.min(self.reports.next_ms());
        }
        Ok(converged.wake_at_ms.map_or(next_ms, |at| at.min(next_ms)))
    }

    fn busy_period_ms(&self) -> u64 {
        self.paced(BUSY_PERIOD_MS)
    }

    /// The period, or as long as listings may be apart where they take long.
    fn paced(&self, period_ms: u64) -> u64 {
        period_ms.max(self.listing_ms * LISTING_SHARE).min(LIST_PERIOD_MS)
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
