//! Planning, away from the threads that keep this machine alive: a plan may take long, and no
//! lease, watchdog or request waits for it.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet_core::model::Snapshot;
use fleet_core::plan::{self, Plan};

use crate::process::panics;

/// Snapshot in, plan out.
pub type PlanFn = dyn Fn(&Snapshot) -> Plan + Send + Sync;

/// How snapshots are planned.
#[derive(Clone)]
pub struct Planner {
    plan: Arc<PlanFn>,
    apart: bool,
}

/// A snapshot with its plan.
#[derive(Debug)]
pub struct Planned {
    /// What was planned.
    pub snapshot: Snapshot,
    /// The answer.
    pub plan: Plan,
    /// [`Plan::digest`], which takes about as long as a small plan.
    pub digest: String,
    /// How long both took.
    pub took: Duration,
}

impl Default for Planner {
    fn default() -> Planner {
        Planner::with(plan::plan)
    }
}

impl Planner {
    /// With another function than fleet's own, for tests.
    pub fn with(plan: impl Fn(&Snapshot) -> Plan + Send + Sync + 'static) -> Planner {
        Planner { plan: Arc::new(plan), apart: true }
    }

    /// In the caller's own task: for the simulator, which has one thread and its own order of what
    /// runs.
    pub fn inline() -> Planner {
        Planner { apart: false, ..Planner::default() }
    }

    /// Whether what must go on meanwhile has threads to go on.
    pub(crate) fn is_apart(&self) -> bool {
        self.apart
    }

    /// Plans. A panic of the plan is a panic of the caller, who says what it ends.
    pub async fn plan(&self, snapshot: Snapshot) -> Planned {
        let plan = self.plan.clone();
        let work = move || {
            let begin = Instant::now();
            let plan = plan(&snapshot);
            let digest = plan.digest();
            Planned { snapshot, plan, digest, took: begin.elapsed() }
        };
        if !self.apart {
            return work();
        }
        panics::contained_work(work)
            .await
            .unwrap_or_else(|message| resume_unwind(Box::new(message)))
    }
}
