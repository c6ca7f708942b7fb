//! Whether what gives up as its file says is left alone.

use std::collections::BTreeMap;

use fleet_core::model::Placement;
use fleet_core::name::UnitName;
use fleetd::systemd::Job;

use crate::script::QUITTER;

/// So many starts may one decision of the leader take once all faults are over: the second where it
/// was not known that the first had been for it.
const STARTS: u32 = 2;

/// How often fleetd has started it on each machine, by the placement that the leader gave it there.
#[derive(Default)]
pub(crate) struct Quitting {
    mended: bool,
    starts: BTreeMap<usize, (Placement, u32)>,
}

impl Quitting {
    /// From now on nothing fails but by its file.
    pub(crate) fn all_are_mended(&mut self) {
        self.mended = true;
    }

    /// fleetd asked for a job. The error is that it had no reason to.
    pub(crate) fn asked(
        &mut self,
        machine: usize,
        name: &UnitName,
        job: Job,
        placement: Option<&Placement>,
    ) -> Result<(), String> {
        let starts = matches!(job, Job::Start | Job::Restart);
        let Some(placement) = placement.filter(|_| self.mended && starts) else { return Ok(()) };
        if name.as_str() != QUITTER {
            return Ok(());
        }
        let (of, count) = self.starts.entry(machine).or_insert((placement.clone(), 0));
        if of != placement {
            (*of, *count) = (placement.clone(), 0);
        }
        *count += 1;
        match *count {
            1..=STARTS => Ok(()),
            count => Err(format!(
                "machine {machine} started {name} {count} times though it gives up by its file"
            )),
        }
    }
}
