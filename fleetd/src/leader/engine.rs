//! The engine: while it leads, each tick is one snapshot in, one fenced commit out. How placements
//! are chosen is `fleet_core::plan`'s.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use fleet_core::model::{FORMAT, Reboots, Snapshot};
use fleet_core::name::MachineId;
use fleet_core::replay::Saved;
use fleet_core::rollout::{self, Advanced};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, info, warn};

use crate::copy::Following;
use crate::leader::election;
use crate::leader::event_log::{self, EventLog};
use crate::leader::outlook::{Knowledge, Seen};
use crate::leader::overdue;
use crate::leader::overdue::Overdue;
use crate::leader::planner::{Planned, Planner};
use crate::leader::replays::Replays;
use crate::machine::health::Health;
use crate::machine::session::Standing;
use crate::metrics::Metrics;
use crate::process::clock;
use crate::process::panics;
use crate::process::repeated::Repeated;
use crate::store::{Mirror, Store, StoreError, Term};

/// How often the leader looks again when nothing happens: a safety net, since every change wakes
/// it.
const PERIOD_MS: u64 = 30_000;

/// When to look again whether the store is reachable for as long as it must be, while this
/// machine's session cannot say when.
const UNSETTLED_MS: u64 = 1_000;

/// How long to wait before an unreachable store is read again.
const RETRY: Duration = Duration::from_millis(200);

/// How long an engine that panicked stands aside. What set that off is most often still in the
/// store, and may be mended there.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// How long a leader that stops tries to say so.
const LAST_WORD: Duration = Duration::from_millis(500);

/// A plan that takes longer than this is worth a word: placements wait for it, leases do not.
const SLOW_PLAN: Duration = Duration::from_secs(1);

/// Plans for the cluster while its machine leads.
pub struct Engine {
    /// The store.
    pub store: Store,
    /// This machine.
    pub machine: MachineId,
    /// The leader's lease.
    pub leader_ttl: Duration,
    /// How long the store must have been reachable before an absent machine is lost: the agents'
    /// lease and a bit.
    pub settle: Duration,
    /// Since when the store is reachable.
    pub health: Arc<Health>,
    /// Whether this machine's id is its own: no machine stands for election by the id of another
    /// that lives.
    pub standing: watch::Receiver<Standing>,
    /// What the engine counts.
    pub metrics: Arc<Metrics>,
    /// What it planned last.
    pub replays: Arc<Replays>,
    /// How it plans.
    pub planner: Planner,
}

impl Engine {
    /// Stands by, leads, stands by again. On `stop` a leader resigns, and the next one is elected
    /// at once.
    pub async fn run(self, stop: CancellationToken) {
        let mut standing = self.standing.clone();
        loop {
            let term = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                term = self.elected(&mut standing) => term,
            };
            info!(term = term.create_revision, "leading");
            self.metrics.leader_since_s.store(clock::now_ms() / 1000, Relaxed);
            let overdue = watch::Sender::default();
            let panicked = tokio::select! {
                biased; // the same order in each run of the simulator
                () = stop.cancelled() => {
                    self.resign(term).await;
                    if let Err(error) = self.store.revoke(term.lease).await {
                        warn!("cannot resign: {error}; the next leader comes when the lease has \
                            run out");
                    }
                    return;
                }
                () = self.hold(term) => None,
                () = when(&mut standing, |standing| standing == Standing::Taken) => None,
                () = overdue::look(&self.store, &self.health, self.settle, &overdue) => None,
                led = panics::contained(self.lead(term, overdue.subscribe())) => led.err(),
            };
            self.metrics.leader_since_s.store(0, Relaxed);
            self.metrics.note_reboots(&Reboots::default(), &Snapshot::default());
            self.replays.end_term();
            info!(term = term.create_revision, "leading no longer");
            if let Some(message) = panicked
                && self.stand_aside(term, &message, &stop).await.is_break()
            {
                return;
            }
        }
    }

    /// Keeps the term alive, in a task of its own: nothing that the engine does holds up a renewal.
    fn hold(&self, term: Term) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (store, ttl) = (self.store.clone(), self.leader_ttl);
        let hold = async move { election::hold(&store, term.lease, ttl).await };
        if !self.planner.is_apart() {
            return Box::pin(hold);
        }
        let task = AbortOnDropHandle::new(tokio::spawn(hold));
        Box::pin(async move { drop(task.await) })
    }

    /// Stands for election for as long as nobody else answers to the machine's id.
    async fn elected(&self, standing: &mut watch::Receiver<Standing>) -> Term {
        loop {
            when(standing, Standing::may_lead).await;
            tokio::select! {
                biased;
                () = when(standing, |standing| standing == Standing::Taken) => {}
                term = election::campaign(&self.store, &self.machine, self.leader_ttl) => return term,
            }
        }
    }

    /// After a panic: says so, lets another machine try, and waits before it stands by again.
    async fn stand_aside(
        &self,
        term: Term,
        message: &str,
        stop: &CancellationToken,
    ) -> ControlFlow<()> {
        self.metrics.engine_panics.fetch_add(1, Relaxed);
        error!(
            "planning ended in a panic: {message}. That is a bug of fleetd, most often set off by \
                one document; units run on. \
             `fleetctl store check` finds documents that cannot be right. The next attempt is in \
             {} s",
            AFTER_PANIC.as_secs()
        );
        if let Err(error) = self.store.revoke(term.lease).await {
            debug!("cannot resign after a panic: {error}");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => ControlFlow::Break(()),
            () = sleep(AFTER_PANIC) => ControlFlow::Continue(()),
        }
    }

    /// Tells that the term ends by itself; whoever waits for the next leader does not wait long for
    /// that.
    async fn resign(&self, term: Term) {
        let told = timeout(
            LAST_WORD,
            event_log::resign(&self.store, term, &self.machine, clock::now_ms()),
        )
        .await;
        if !matches!(told, Ok(Ok(()))) {
            debug!("could not tell that this machine leads no longer: {told:?}");
        }
    }

    /// Plans until another leads.
    async fn lead(&self, term: Term, mut overdue: watch::Receiver<Overdue>) {
        let mut memory = Memory::default();
        let mut repeated = Repeated::default();
        loop {
            match self.lead_until_cut_off(term, &mut memory, &mut overdue).await {
                Ok(()) => return,
                Err(StoreError::Unavailable(problem)) => {
                    debug!("reading the store again: {problem}")
                }
                Err(StoreError::Compacted(revision)) => {
                    debug!("reading the store again: history before {revision} is gone")
                }
                Err(error) => {
                    if let Some(problem) = repeated.fresh(error.to_string()) {
                        error!("cannot plan: {problem}; what runs goes on");
                    }
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Copies the store and follows it. Ends well when another leads, with an error when the copy
    /// must be made anew.
    async fn lead_until_cut_off(
        &self,
        term: Term,
        memory: &mut Memory,
        overdue: &mut watch::Receiver<Overdue>,
    ) -> Result<(), StoreError> {
        let mut copy = Following::begin(&self.store).await?;
        let mut events = EventLog::open(&self.store, term, &self.machine, copy.mirror()).await?;
        let mut committed = 0;
        loop {
            let mut next_ms = clock::now_ms() + PERIOD_MS;
            memory.knowledge.overdue.clone_from(&overdue.borrow_and_update());
            self.metrics.note_reboots(copy.mirror().reboots(), &copy.mirror().cluster().snapshot);
            // Until our own last commit has come round, the copy is older than what we know:
            // planning it would only conflict.
            if copy.mirror().cluster().snapshot.revision >= committed {
                let begin = Instant::now();
                let ticked = self.tick(&mut events, copy.mirror(), memory, clock::now_ms()).await;
                self.metrics.ticks.fetch_add(1, Relaxed);
                self.metrics.tick_failures.fetch_add(u64::from(ticked.is_err()), Relaxed);
                self.metrics.tick_us.fetch_add(begin.elapsed().as_micros() as u64, Relaxed);
                let (revision, wake_at_ms) = match ticked {
                    Err(StoreError::Conflict(what)) => {
                        debug!("looking again: {what} changed");
                        let (leader, _) = self.store.leader().await?;
                        if leader.is_none_or(|leader| leader.machine != self.machine) {
                            return Ok(());
                        }
                        (None, Some(clock::now_ms() + 50))
                    }
                    other => other?,
                };
                committed = revision.unwrap_or(committed);
                next_ms = wake_at_ms.map_or(next_ms, |at| at.min(next_ms));
            }
            let pause = Duration::from_millis(next_ms.saturating_sub(clock::now_ms()));
            tokio::select! {
                biased;
                followed = timeout(pause, copy.next_to_plan()) => followed.unwrap_or(Ok(()))?,
                _ = overdue.changed() => {}
            }
        }
    }

    /// One pass: plans what is, commits what must change, and tells what is new. Answers with the
    /// commit's revision and when to look again.
    pub async fn tick(
        &self,
        events: &mut EventLog,
        mirror: &Mirror,
        memory: &mut Memory,
        now_ms: u64,
    ) -> Result<(Option<i64>, Option<u64>), StoreError> {
        if let Some((key, problem)) = mirror.corrupt().iter().next() {
            let problem = format!(
                "not planning while the document {key} cannot be read: {problem}; repair or \
                    delete it with etcdctl"
            );
            if let Some(problem) = memory.trouble.fresh(problem) {
                error!("{problem}");
            }
            return Ok((None, None));
        }
        for (key, problem) in
            mirror.passed_over().iter().filter(|(key, _)| memory.passed_over.insert((*key).clone()))
        {
            error!("passing over the document {key}: {problem}; delete it");
        }
        if mirror.importing() {
            // Whoever decided it may have died since. Half of it is nothing to plan for.
            return Ok((Some(self.store.finish_import().await?), None));
        }
        let Seen { mut snapshot, settling, settled_at_ms } =
            memory.knowledge.look(mirror, &self.health, self.settle, now_ms);
        // What a text goes back to stands in the store before anything is changed by it.
        let mut rollouts = mirror.cluster().rollouts.clone();
        let Advanced { documents, wake_at_ms: late_at_ms } = rollout::advance(&snapshot, &rollouts);
        let advanced = events.advance(&snapshot, &documents, &rollouts).await?;
        for (unit, document) in documents {
            match document {
                Some(document) => drop(rollouts.insert(unit, Arc::new(document))),
                None => drop(rollouts.remove(&unit)),
            }
        }
        rollout::put_in_force(&mut snapshot, &rollouts);
        let Planned { snapshot, plan, digest, took } = self.planner.plan(snapshot).await;
        memory.say_how_slow(&snapshot, took);
        let saved = Arc::new(Saved {
            v: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_string(),
            leader: self.machine.clone(),
            term: events.term(),
            plan: digest,
            snapshot,
        });
        self.replays.planned(saved.clone(), &plan.held);
        // Also where nothing waits: who looks at a drain is told when it is over.
        let wake_for_settling = settling.then(|| settled_at_ms.unwrap_or(now_ms + UNSETTLED_MS));
        let wake_at_ms =
            [plan.wake_at_ms, wake_for_settling, late_at_ms].into_iter().flatten().min();
        let committed = events.commit(mirror, &saved, &plan, settling).await;
        self.metrics.commit_failures.fetch_add(u64::from(committed.is_err()), Relaxed);
        let revision = committed?;
        let written = revision.or(advanced);
        if revision.is_some() {
            self.replays.committed(saved);
            self.metrics.committed(&plan);
        }
        Ok((written, wake_at_ms))
    }
}

/// What a leader remembers from tick to tick, and no successor takes over.
#[derive(Debug, Default)]
pub struct Memory {
    /// What it plans beside what stands in the store.
    knowledge: Knowledge,
    /// Why nothing is planned, said once a minute.
    trouble: Repeated,
    /// The longest plan that was said.
    longest: Duration,
    /// The documents that are passed over, so that each is said once.
    passed_over: BTreeSet<String>,
}

impl Memory {
    /// Says once that plans are slow, and again when one takes twice as long.
    fn say_how_slow(&mut self, snapshot: &Snapshot, took: Duration) {
        if took < SLOW_PLAN || took < 2 * self.longest {
            return;
        }
        self.longest = took;
        warn!(
            "a plan took {:.1} s, and new placements wait so long: {} units on {} machines. Many \
            Conflicts= and Replaces= patterns cost most; docs/performance.md says what a plan \
            costs",
            took.as_secs_f64(),
            snapshot.units.len(),
            snapshot.machines.len()
        );
    }
}

/// Returns when the machine's standing is so. If nobody is left to tell, it stays as it is.
async fn when(standing: &mut watch::Receiver<Standing>, wanted: impl Fn(Standing) -> bool) {
    if standing.wait_for(|standing| wanted(*standing)).await.is_err() {
        std::future::pending::<()>().await;
    }
}
