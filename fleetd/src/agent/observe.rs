//! What this host looks like: what systemd says of every unit that fleet wrote here or should
//! write, and what the agent knows of each.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::converge::{Seen, SystemdState};
use fleet_core::name::UnitName;

use super::Agent;
use crate::systemd::{Listed, SystemdError};

impl Agent {
    /// What this host looks like: every unit that fleet wrote here or should write.
    pub(super) async fn observe(
        &mut self,
        now_ms: u64,
    ) -> Result<BTreeMap<UnitName, Seen>, SystemdError> {
        let assigned = self.assignment.iter().flat_map(|assignment| assignment.instances.keys());
        let names: BTreeSet<UnitName> = assigned.chain(self.instances.written()).cloned().collect();
        self.instances.retain(&names);
        self.resting.failed.extend(self.systemd.take_failed_starts());
        self.take_failed_reloads();
        // Only what fleet wrote: asking systemd for a name makes it look for a file.
        let written: Vec<UnitName> = self.instances.written().map(UnitName::systemd_name).collect();
        let asked: BTreeSet<UnitName> = written
            .into_iter()
            .chain(self.needed_guard())
            .chain(self.instances.notes.all_beside().cloned())
            .chain(self.instances.bonds().cloned())
            .chain(self.images.services().cloned())
            .collect();
        let asked: Vec<UnitName> = asked.into_iter().collect();
        let mut listed =
            if asked.is_empty() { BTreeMap::new() } else { self.systemd.list(&asked).await? };
        self.note_guard(&listed);
        self.note_beside(&listed);
        self.resting.note_listed(&listed);
        let open = self.systemd.open_starts();
        self.note_pulls(&listed, &open, now_ms).await;
        let mut host = BTreeMap::new();
        for name in names {
            let marker = self.instances.marker(&name).cloned();
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
            let launched = marker.as_ref().filter(|marker| marker.launched);
            let failed_part = launched
                .filter(|_| is_up(systemd.as_ref()))
                .and_then(|marker| self.failed_beside(&marker.beside, false));
            let instance = self.instances.of(&name);
            if let Some(placement) = assigned {
                if instance.trouble.config != placement.config {
                    instance.reload_failed = None; // other values are to be read now
                }
                if instance.trouble.keep_only_of(&placement.hash, placement.config) {
                    instance.start_before = instance.start.take();
                }
            }
            let active = systemd
                .as_ref()
                .map_or("inactive", |state| if state.job { "job" } else { &state.active });
            let active = if failed_part.is_some() { "failed" } else { active };
            instance.note_active(active, now_ms);
            host.insert(name, Seen { marker, systemd, failed_part, ..Seen::default() });
        }
        self.settle(&mut host, now_ms).await;
        let well_since = self.look_at_health(&mut host, now_ms);
        for (name, seen) in &mut host {
            let active = seen.systemd.as_ref().is_some_and(|state| state.active == "active")
                && seen.failed_part.is_none();
            let instance = self.instances.of(name);
            let well = active && !instance.stop_refused;
            let well = well && (seen.health.is_none() || well_since.contains_key(name));
            let since_ms = instance.since_ms(now_ms);
            let since_ms = well_since.get(name).map_or(since_ms, |at_ms| since_ms.max(*at_ms));
            instance.trouble.forget_if_well(well, since_ms, now_ms);
            seen.trouble = instance.trouble.clone();
        }
        self.take_failed_starts(&mut host, now_ms);
        Ok(host)
    }
}

fn is_up(systemd: Option<&SystemdState>) -> bool {
    systemd.is_some_and(|state| state.active == "active" && !state.job)
}

/// A unit whose start has just been asked for.
fn queued() -> SystemdState {
    let [load, active, sub] = ["loaded", "inactive", "dead"].map(str::to_string);
    SystemdState { load, active, sub, job: true }
}

fn state(listed: Listed) -> SystemdState {
    SystemdState { load: listed.load, active: listed.active, sub: listed.sub, job: listed.job }
}
