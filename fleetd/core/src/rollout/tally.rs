//! How a unit's instances are with its text, by what their machines report.

use std::collections::BTreeMap;

use super::{Failure, Rollouts};
use crate::event::Reason;
use crate::model::{Assignment, DesiredState, InstanceStatus, Placement, Report, Snapshot, Unit};
use crate::name::{MachineId, UnitName};
use crate::unit::update;

/// How a unit's instances are with its text.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// They are healthy.
    pub(crate) healthy: usize,
    /// They are not, or it is not known, or they run another text.
    pub(crate) open: usize,
    /// Healthy instances of the text that the document has.
    pub(crate) healthy_before: usize,
    /// The first that failed.
    pub(crate) failure: Option<Failure>,
    /// When the first of the others is late.
    pub(crate) late_ms: Option<u64>,
}

impl Tally {
    /// Whether there are instances, and all are healthy with what is asked of them.
    pub(super) fn all_healthy(&self) -> bool {
        self.healthy > 0 && self.open == 0
    }
}

/// Whether an instance was assigned all that its unit asks for, beside the text.
pub(crate) fn is_asked_all(unit: &Unit, instance: &UnitName, placement: &Placement) -> bool {
    placement.restart == unit.restarts_asked(instance) && placement.config >= unit.config
}

/// Counts the instances of one machine.
pub(crate) fn count_machine(
    asked: &Snapshot,
    rollouts: &Rollouts,
    open: &mut BTreeMap<&UnitName, Tally>,
    (id, assignment, report): (&MachineId, &Assignment, Option<&Report>),
) {
    let known = report.is_some_and(|report| report.generation >= assignment.generation);
    for (instance, placement) in &assignment.instances {
        let Some(tally) = open.get_mut(&placement.unit) else { continue };
        if placement.state != DesiredState::Launched {
            continue;
        }
        let unit = &asked.units[&placement.unit];
        let status = report.filter(|_| known).and_then(|report| report.instances.get(instance));
        let standing = status.map_or(Standing::Unknown, |status| standing(placement, status));
        if placement.hash != unit.hash {
            tally.open += 1;
            let before = rollouts.get(&placement.unit).map(|rollout| &rollout.text.hash);
            let healthy = standing == Standing::Healthy && before == Some(&placement.hash);
            tally.healthy_before += usize::from(healthy);
            continue;
        }
        if !is_asked_all(unit, instance, placement) {
            tally.open += 1; // its restart or its configuration waits
            continue;
        }
        if standing == Standing::Healthy {
            tally.healthy += 1;
            continue;
        }
        tally.open += 1;
        let deadline_ms = update::deadline_ms(&unit.constraints);
        let resumed_ms = rollouts.get(&placement.unit).and_then(|rollout| rollout.course());
        let resumed_ms = resumed_ms.map_or(0, |course| course.resumed_ms);
        let changed_ms = placement.since_ms.max(placement.changed_ms);
        let late_ms = changed_ms.max(resumed_ms).saturating_add(deadline_ms);
        let late = asked.now_ms >= late_ms;
        let Some(status) = status.filter(|_| tally.failure.is_none()) else { continue };
        let failed = |deadline_ms| Failure {
            instance: instance.clone(),
            machine: id.clone(),
            deadline_ms,
            reason: Reason::failed(status),
        };
        match standing {
            // What had failed when a user resumed it has its whole time again.
            Standing::Failed if changed_ms < resumed_ms && !late => {
                tally.late_ms = Some(tally.late_ms.map_or(late_ms, |at| at.min(late_ms)));
            }
            Standing::Failed => tally.failure = Some(failed(None)),
            Standing::Open if late => tally.failure = Some(failed(Some(deadline_ms))),
            Standing::Open => {
                tally.late_ms = Some(tally.late_ms.map_or(late_ms, |at| at.min(late_ms)));
            }
            Standing::Healthy | Standing::Unknown => {}
        }
    }
}

/// How an instance is with the text that it was assigned.
#[derive(Debug, PartialEq)]
pub(crate) enum Standing {
    Healthy,
    /// Restarted in vain.
    Failed,
    /// It has yet to show.
    Open,
    /// Its machine has not said.
    Unknown,
}

pub(crate) fn standing(placement: &Placement, status: &InstanceStatus) -> Standing {
    if status.gave_up || status.stays_down {
        return Standing::Failed;
    }
    // Its machine knows the text and has not started it: its image may not be there.
    if status.hash != placement.hash {
        return Standing::Open;
    }
    let as_decided = status.launched
        && !status.settling
        && status.is_well()
        && (placement.restart == 0 || status.restart == placement.restart)
        && status.config >= placement.config;
    // What ended well, and is to be started again by its own file, waits for that.
    let pauses = status.sub == "auto-restart" && status.restarts == 0;
    if as_decided && (status.is_active() || status.ended || pauses) {
        Standing::Healthy
    } else {
        Standing::Open
    }
}
