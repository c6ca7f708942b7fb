//! Copied disks: whether a host that has a copy of a machine's disk, and so its id, keeps out of
//! that machine's way.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::name::UnitName;
use fleetd::keeper;
use fleetd::store::kv::LeaseId;
use fleetd::systemd::Job;

use crate::host::COPY;

/// Who has each machine's place.
#[derive(Default)]
pub(crate) struct Copies {
    /// By the machine's id: the host that wrote its record last, and under which lease.
    holders: BTreeMap<String, (usize, Option<LeaseId>)>,
    /// The hosts that have been refused.
    refused: BTreeSet<usize>,
}

impl Copies {
    /// A machine's record was written by a host, or deleted by whoever it was. The error is what is
    /// wrong.
    pub(crate) fn registered(
        &mut self,
        id: &str,
        host: Option<usize>,
        lease: Option<LeaseId>,
        undisturbed: bool,
    ) -> Result<(), String> {
        let (Some(host), Some(_)) = (host, lease) else {
            self.holders.remove(id);
            return Ok(());
        };
        let before = self.holders.insert(id.to_string(), (host, lease));
        match before {
            Some((other, held)) if other != host && held == lease => Err(format!(
                "host {host} goes on with the lease that host {other} holds for the same machine"
            )),
            _ if host >= COPY && undisturbed => {
                Err(format!("host {host}, a copy, took the place of a machine that lives"))
            }
            _ => Ok(()),
        }
    }

    /// A host noted that it was refused.
    pub(crate) fn noted(&mut self, host: usize) {
        self.refused.insert(host);
    }

    /// Of the hosts with a process of one unit, those that count as different machines. A copy that
    /// was never refused is its original after a reboot, for all that anybody can know: it booted
    /// while the original was lost (docs/fencing.md).
    pub(crate) fn apart<'a>(&self, hosts: &'a BTreeSet<usize>) -> BTreeSet<&'a usize> {
        let told_apart = |host: &&usize| {
            **host < COPY || self.refused.contains(host) || !hosts.contains(&(**host % COPY))
        };
        hosts.iter().filter(told_apart).collect()
    }

    /// A host asked its systemd for a job. The error is what is wrong.
    pub(crate) fn asked(&self, host: usize, name: &UnitName, job: Job) -> Result<(), String> {
        let holds = || self.holders.values().any(|(holder, _)| *holder == host);
        // A keeper that waits for the machine's place is no help to anybody.
        let calls_off = job == Job::Stop && name.as_str() == keeper::UNIT;
        if host < COPY || calls_off || holds() {
            return Ok(());
        }
        Err(format!("host {host}, a copy that does not have its machine's place, acts on {name}"))
    }
}
