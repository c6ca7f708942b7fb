//! When most machines vanish at once, it is more likely the network than the machines: what they
//! ran is moved one machine at a time.

use std::fmt;

use serde::Serialize;

use crate::model::{Assignment, Snapshot};
use crate::name::MachineId;

/// Fewer missing machines than this are lost at the usual speed.
const MANY: usize = 2;

/// While more than half of the machines are missing, the next one is given up so long after the
/// last, in milliseconds.
pub(super) const SLOW_PAUSE_MS: u64 = 30_000;

/// For how long a machine that was given up counts as missing, in milliseconds: long against the
/// pauses, short against the time in which somebody takes machines away for good, one after the
/// other.
const LATELY_MS: u64 = 600_000;

/// So many machines are missing that their instances are moved slowly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// How many machines are missing that should run something.
    pub missing: usize,
    /// How many are there.
    pub there: usize,
    /// The missing machines that are not given up yet, in the order in which they will be.
    pub waits: Vec<MachineId>,
    /// When the first of them is given up, in milliseconds since 1970; a time that has passed is
    /// now.
    pub next_ms: u64,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missing { missing, there, .. } = self;
        let are = if *there == 1 { "is" } else { "are" };
        write!(
            f,
            "{missing} machines are missing and {there} {are} there: their units are moved \
                slowly, one machine each {} s, in case it is the network",
            SLOW_PAUSE_MS / 1000
        )
    }
}

/// Whether so many machines are missing at this time that their instances are moved slowly.
pub fn missing(snapshot: &Snapshot, now_ms: u64) -> Option<Missing> {
    let gone = || gone(snapshot, now_ms);
    let (missing, there) = (gone().count(), snapshot.machines.len());
    (missing >= MANY && missing > there).then(|| {
        let waits = gone()
            .filter(|(_, assignment)| has_work(assignment))
            .map(|(id, _)| id.clone())
            .collect();
        let last_ms = gone()
            .filter_map(|(_, assignment)| assignment.lost_ms.filter(|at| *at <= now_ms))
            .max();
        Missing {
            missing,
            there,
            waits,
            next_ms: last_ms.map_or(0, |last| last.saturating_add(SLOW_PAUSE_MS)),
        }
    })
}

/// Machines that are gone without a word: those that should run something, and those that were
/// given up lately.
fn gone(snapshot: &Snapshot, now_ms: u64) -> impl Iterator<Item = (&MachineId, &Assignment)> {
    // A time to come is that of a leader whose clock was ahead.
    let lately = move |at: u64| at <= now_ms && now_ms - at < LATELY_MS;
    let all = snapshot.assignments.iter().map(|(id, assignment)| (id, &**assignment));
    let absent = all.filter(|(id, _)| {
        !snapshot.machines.contains_key(*id)
            && !snapshot.settling.contains(*id)
            && !snapshot.left.contains(*id)
    });
    absent.filter(move |(_, assignment)| {
        has_work(assignment) || assignment.lost_ms.is_some_and(lately)
    })
}

/// What is fenced waits by rules of its own.
fn has_work(assignment: &Assignment) -> bool {
    assignment.instances.values().any(|placement| placement.fence.is_none())
}
