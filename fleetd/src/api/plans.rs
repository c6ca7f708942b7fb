//! Plans that only show what the leader would do. Requests about the same revision share one, and
//! only one is made at a time: a hundred clients that wait cost one plan for each change, on one
//! thread.

use std::sync::Arc;

use fleet_core::plan::Plan;
use fleet_core::view::Cluster;
use tokio::sync::Mutex;

use crate::leader::planner::Planner;
use crate::process::clock;

/// The newest plan.
#[derive(Default)]
pub(super) struct Plans {
    planner: Planner,
    /// With the revision that it is of.
    last: Mutex<Option<(i64, Arc<Plan>)>>,
}

impl Plans {
    /// What planning this cluster gives, at the time of whoever asked for this revision first.
    pub(super) async fn of(&self, cluster: &Cluster) -> Arc<Plan> {
        let mut last = self.last.lock().await;
        if let Some((revision, plan)) = &*last
            && *revision == cluster.snapshot.revision
        {
            return plan.clone();
        }
        let mut snapshot = cluster.snapshot.clone();
        snapshot.now_ms = clock::now_ms();
        let plan = Arc::new(self.planner.plan(snapshot).await.plan);
        *last = Some((cluster.snapshot.revision, plan.clone()));
        plan
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_hundred_who_ask_about_two_revisions_cost_two_plans_one_at_a_time() {
        let (made, now) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let counted = made.clone();
        let planner = Planner::with(move |_| {
            assert_eq!(now.fetch_add(1, SeqCst), 0, "another is being made");
            counted.fetch_add(1, SeqCst);
            now.fetch_sub(1, SeqCst);
            Plan::default()
        });
        let plans = Plans { planner, ..Plans::default() };
        for revision in [7, 8] {
            let mut cluster = Cluster::default();
            cluster.snapshot.revision = revision;
            join_all((0..50).map(|_| plans.of(&cluster))).await;
        }
        assert_eq!(made.load(SeqCst), 2);
    }
}
