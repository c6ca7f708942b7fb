//! What this host looks like: what systemd says of every unit that fleet wrote here or should
//! write, and what the agent knows of each.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::converge::{Seen, SystemdState};
use fleet_core::name::UnitName;
use tracing::warn;

use super::Agent;
use crate::systemd::{Listed, SystemdError};

impl Agent {
    /// What this host looks like: every unit that fleet wrote here or should write.
    pub(super) async fn observe(
        &mut self,
        now_ms: u64,
    ) -> Result<BTreeMap<UnitName, Seen>, SystemdError> {
        let assigned = self.assignment.iter().flat_map(|assignment| assignment.instances.keys());
        let names: BTreeSet<UnitName> = assigned.chain(self.markers.names()).cloned().collect();
        self.trouble.retain(|name, _| names.contains(name));
        self.since.retain(|name, _| names.contains(name));
        self.outcomes.retain(|name, _| names.contains(name));
        self.reasons.retain(|name, _| names.contains(name));
        self.stop_refused.retain(|name| names.contains(name));
        self.resting.retain(&names);
        self.resting.failed.extend(self.systemd.take_failed_starts());
        // Only what fleet wrote: asking systemd for a name makes it look for a file.
        let written: Vec<UnitName> = self.markers.names().map(UnitName::systemd_name).collect();
        let asked: BTreeSet<UnitName> = written
            .into_iter()
            .chain(self.needed_guard())
            .chain(self.resting.bonds().cloned())
            .collect();
        let asked: Vec<UnitName> = asked.into_iter().collect();
        let mut listed =
            if asked.is_empty() { BTreeMap::new() } else { self.systemd.list(&asked).await? };
        self.note_guard(&listed);
        self.resting.note_listed(&listed);
        let open = self.systemd.open_starts();
        let mut host = BTreeMap::new();
        for name in names {
            let marker = self.markers.get(&name).cloned();
            let listed = marker.as_ref().and_then(|_| listed.remove(&name.systemd_name()));
            let systemd = listed
                .map(state)
                .filter(|state| state.load != "not-found" || state.active != "inactive");
            // Its start is over, and how that went is about to be heard: until then it is on its
            // way.
            let systemd = match systemd {
                None if marker.is_some() && open.contains(&name.systemd_name()) => Some(queued()),
                listed => listed,
            };
            let assigned =
                self.assignment.as_ref().and_then(|assignment| assignment.instances.get(&name));
            if let Some(text) = assigned.map(|placement| &placement.hash)
                && self.trouble.entry(name.clone()).or_default().keep_only_of(text)
            {
                self.settling.forget(&name);
            }
            let active = systemd
                .as_ref()
                .map_or("inactive", |state| if state.job { "job" } else { &state.active });
            self.note_since(&name, active, now_ms);
            host.insert(name, Seen { marker, systemd, ..Seen::default() });
        }
        self.settle(&mut host, now_ms).await;
        for (name, seen) in &mut host {
            let active = seen.systemd.as_ref().is_some_and(|state| state.active == "active");
            let since_ms = self.since.get(name).map_or(now_ms, |(_, since_ms)| *since_ms);
            let trouble = self.trouble.entry(name.clone()).or_default();
            let well = active && !self.stop_refused.contains(name);
            trouble.forget_if_well(well, since_ms, now_ms);
            seen.trouble = trouble.clone();
        }
        self.take_failed_starts(&mut host, now_ms);
        Ok(host)
    }

    /// After a soft-reboot `/run` is as it was, and what ran is stopped, by nobody's wish.
    pub(super) async fn enter_user_space(&mut self) -> Result<(), SystemdError> {
        let stamp = self.systemd.user_space().await?;
        match self.markers.enter_user_space(stamp) {
            Ok(()) => self.in_this_user_space = true,
            Err(error) => warn!("cannot note which start of user space it is: {error}"),
        }
        Ok(())
    }

    fn note_since(&mut self, name: &UnitName, active: &str, now_ms: u64) {
        if self.since.get(name).is_none_or(|(state, _)| state != active) {
            self.since.insert(name.clone(), (active.to_string(), now_ms));
        }
    }
}

/// A unit whose start has just been asked for.
fn queued() -> SystemdState {
    let [load, active, sub] = ["loaded", "inactive", "dead"].map(str::to_string);
    SystemdState { load, active, sub, job: true }
}

fn state(listed: Listed) -> SystemdState {
    SystemdState { load: listed.load, active: listed.active, sub: listed.sub, job: listed.job }
}
