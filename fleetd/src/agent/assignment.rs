//! What this machine was assigned: as the store shows it, or, while that does not answer, as it was
//! before a reboot.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::model::Assignment;
use fleet_core::name::MachineId;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::Agent;
use super::remembered::Remembered;
use crate::machine::session::Standing;
use crate::process::repeated::Repeated;
use crate::store::kv::WatchEvent;
use crate::store::{Store, StoreError};

/// How long the store may take for its first answer before the agent starts from what it remembers,
/// in milliseconds: longer than a store that is there ever takes, and short for whoever waits for a
/// rebooted machine.
const DISK_PATIENCE_MS: u64 = 5_000;

/// What the store last showed, for the agent's next tick.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    /// The assignment, if there is one.
    pub(super) assignment: Option<Arc<Assignment>>,
    /// The revision that it was true at.
    pub(super) as_of: i64,
    /// Whether the store has answered at all.
    pub(super) answered: bool,
}

pub(super) type Newest = watch::Receiver<Shown>;

impl Agent {
    /// Takes what the store shows, once this machine's id is known to be its own; or, while the
    /// store does not answer, what was assigned before.
    pub(super) fn take(&mut self, shown: Shown, standing: Standing, now_ms: u64) {
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
                if self.instances.notes.are_of_another() {
                    self.instances.notes.belong_to(&self.machine);
                }
            } else if shown.answered
                && self.assignment.is_none()
                && self.instances.notes.are_of_another()
            {
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
}

/// Keeps each assignment that the store shows on the disk, the newest if several came while one was
/// written.
pub(super) async fn remember(remembered: Option<Remembered>, mut newest: Newest) {
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

/// Keeps `newest` at this machine's assignment: reads it, follows it, reads it again after a break,
/// or when it is `wanted` as of a later revision. An absent key is no news.
pub(super) async fn follow_assignment(
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
            biased; // the same order in each run of the simulator
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
