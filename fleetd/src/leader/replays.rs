//! The last snapshots that this machine planned while it led, for `fleetctl debug snapshot`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use fleet_core::model::Snapshot;
use fleet_core::plan::Held;
use fleet_core::replay::Saved;

/// How many snapshots that led to a commit are kept, at most and, however large they are, at least.
const MOST: usize = 256;
const LEAST: usize = 8;

/// How many entries all kept snapshots may have together. They share the documents that did not
/// change in between, so an entry takes some 50 bytes.
const ENTRIES: usize = 200_000;

/// Shared between the engine, which fills it, and the API.
#[derive(Debug, Default)]
pub struct Replays {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last: Option<(Arc<Saved>, Vec<Held>)>,
    committed: VecDeque<Arc<Saved>>,
    /// Of all committed ones.
    entries: usize,
}

impl Replays {
    /// Notes what was planned last, and what waits by that plan.
    pub fn planned(&self, saved: Arc<Saved>, held: &[Held]) {
        self.lock().last = Some((saved, held.to_vec()));
    }

    /// What waits by the last plan; `None` if this machine does not lead.
    pub fn held(&self) -> Option<Vec<Held>> {
        self.lock().last.as_ref().map(|(_, held)| held.clone())
    }

    /// Notes that what was planned last was also written.
    pub fn committed(&self, saved: Arc<Saved>) {
        let mut kept = self.lock();
        kept.entries += entries(&saved);
        kept.committed.push_back(saved);
        while kept.committed.len() > MOST
            || (kept.committed.len() > LEAST && kept.entries > ENTRIES)
        {
            let oldest = kept.committed.pop_front();
            kept.entries -= oldest.map_or(0, |oldest| entries(&oldest));
        }
    }

    /// Another machine leads: what was planned last is no longer what holds. What was committed
    /// stays, to be asked for.
    pub fn end_term(&self) {
        self.lock().last = None;
    }

    /// What was planned last, or the snapshot whose plan has this digest.
    pub fn find(&self, digest: Option<&str>) -> Option<Arc<Saved>> {
        let kept = self.lock();
        match digest {
            None => kept.last.as_ref().map(|(saved, _)| saved.clone()),
            Some(digest) => kept.committed.iter().rev().find(|saved| saved.plan == digest).cloned(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // A panic while holding it cannot leave half a value.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entries(saved: &Saved) -> usize {
    let Snapshot { units, machines, assignments, reports, .. } = &saved.snapshot;
    units.len() + machines.len() + assignments.len() + reports.len()
}

#[cfg(test)]
mod tests {
    use fleet_core::model::Report;
    use fleet_core::name::MachineId;

    use super::*;

    #[test]
    fn as_many_are_kept_as_their_size_allows_also_after_the_term() {
        for (size, rounds, kept) in
            [(1, 300, MOST), (2_000, 120, ENTRIES / 2_000), (50_000, 12, LEAST)]
        {
            let report = Arc::new(Report::default());
            let reports = (0..size)
                .map(|number| (MachineId::new(format!("{number}")), report.clone()))
                .collect();
            let snapshot = Snapshot { reports, ..Snapshot::default() };
            let (version, leader) = (String::new(), MachineId::new("m"));
            let mut saved = Saved { v: 1, version, leader, term: 1, plan: String::new(), snapshot };
            let replays = Replays::default();
            for number in 0..rounds {
                saved.plan = number.to_string();
                replays.planned(Arc::new(saved.clone()), &[]);
                replays.committed(Arc::new(saved.clone()));
            }
            replays.end_term();
            let found = (0..rounds)
                .filter(|number| replays.find(Some(&number.to_string())).is_some())
                .count();
            assert_eq!(
                (found, replays.find(None).is_none()),
                (kept, true),
                "of {size} entries each"
            );
            assert!(replays.find(Some(&saved.plan)).is_some(), "the last one is kept");
        }
    }
}
