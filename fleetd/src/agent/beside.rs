//! Services that are on this machine for the sake of instances: networks, volumes, images and
//! builds of Quadlet for all that name them, and the containers of a pod. Each is written before
//! its first user starts, and stopped and removed when its last one here is gone. A volume's data
//! stays.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::app::Checksum;
use fleet_core::converge::{FencedBy, Marker, Seen};
use fleet_core::name::UnitName;
use fleet_core::unit::file::{UnitFile, words};
use fleet_core::unit::on_failure::OnFailure;
use fleet_core::unit::xfleet::expand;
use tracing::{debug, warn};

use super::Agent;
use super::dropin::drop_in;
use super::fence;
use super::files::File;
use super::markers::Beside;
use super::templates::Rendered;
use crate::process::clock;
use crate::systemd::quadlet::Made;
use crate::systemd::{Job, Listed};

/// How the names of networks begin that podman's generator names after their files.
const NAMED_BY_PODMAN: &str = "systemd-";

impl Agent {
    /// Writes the services that `instance` needs beside its own, and their files.
    pub(super) async fn put_beside(
        &mut self,
        instance: &UnitName,
        rendered: &Rendered,
        fence_by: Option<FencedBy>,
    ) -> Result<(), String> {
        for (service, made) in &rendered.beside {
            self.put_one_beside(service, made, instance, rendered, fence_by)
                .await
                .map_err(|problem| format!("{}: {problem}", made.quadlet))?;
        }
        Ok(())
    }

    async fn put_one_beside(
        &mut self,
        service: &UnitName,
        Made { quadlet, text }: &Made,
        instance: &UnitName,
        rendered: &Rendered,
        fence_by: Option<FencedBy>,
    ) -> Result<(), String> {
        let file = UnitFile::parse_lenient(text);
        if let Some(name) = volume_name(quadlet, service, &file) {
            let app = rendered.bundle.as_ref().map(|bundle| &bundle.app);
            self.volumes.made(&name, (quadlet, service), app, clock::now_ms());
        }
        let mut own = drop_in(service, &file, &OnFailure::default());
        if quadlet.suffix() == "network" {
            own.push_str(&removes_network(&file));
        }
        // The containers of a fenced pod end when it does, and by its terms.
        if let Some((by, keeper)) = fence_by.zip(self.keeper.as_ref())
            && !quadlet.is_shared()
        {
            own.push_str(&fence::lines(rendered.file(), instance, by, &keeper.guard_dir));
        }
        let whole = match rendered.bundle.as_ref().filter(|_| self.names_files(text)) {
            Some(bundle) => Some(self.whole(bundle)?),
            None => None,
        };
        // What several units share has the files that it names itself: each of them brings more of
        // its own, and would write it anew for that.
        let files = whole.as_ref().map(|whole| match quadlet.is_shared() {
            true => whole.files_of(quadlet),
            false => whole.files(),
        });
        let of_files = files.as_ref().map(|files| sum_of(files)).unwrap_or_default();
        let hash = UnitFile::parse_lenient(&format!("{text}\n{own}\n[X-Fleet]\nBundle={of_files}"));
        let note = Beside { quadlet: quadlet.clone(), hash: hash.short_hash(), writing: false };
        let present = self.instances.notes.beside(service).cloned();
        if present.as_ref() == Some(&note) {
            return Ok(());
        }
        let mine = |name: &&UnitName| name.systemd_name() == *service;
        if let Some(other) = self.instances.written().find(mine) {
            return Err(format!("{other} runs as {service} on this machine already"));
        }
        match &present {
            None => {
                let host = self.systemd.host_defines(service).await.map_err(|e| e.to_string())?;
                if let Some(path) = host {
                    return Err(super::apply::is_the_hosts(service, &path));
                }
            }
            Some(_) => self.instances.notes.note_reload_due(),
        }
        let intent = Beside { writing: true, ..note.clone() };
        self.instances.notes.set_beside(service, intent).map_err(|e| e.to_string())?;
        match files {
            Some(files) => self.files.put(service, &files)?,
            None => self.files.remove(service)?,
        }
        self.systemd.write(service, text, &own).await.map_err(|e| e.to_string())?;
        self.instances.notes.set_beside(service, note).map_err(|e| e.to_string())
    }

    /// The first of these services that failed: of a pod's containers, or of what is `shared`.
    pub(super) fn failed_beside(&self, services: &[UnitName], shared: bool) -> Option<UnitName> {
        let failed = |service: &&UnitName| {
            let note = self.instances.notes.beside(service);
            note.is_some_and(|note| note.quadlet.is_shared() == shared)
                && self
                    .beside
                    .get(*service)
                    .is_some_and(|unit| unit.active == "failed" && !unit.job)
        };
        services.iter().find(failed).cloned()
    }

    /// Takes away the old files of what runs with its new text, or not at all, and lets go of the
    /// networks and the like that only its old text named.
    pub(super) fn forget_old_text(&mut self, host: &BTreeMap<UnitName, Seen>) {
        for (name, seen) in host {
            let moves = seen.systemd.as_ref().is_some_and(|unit| unit.job);
            let Some(marker) = seen.marker.as_ref().filter(|_| !moves) else { continue };
            let runs_new = marker.launched && !marker.outdated && !marker.writing;
            if !runs_new && !seen.is_down() {
                continue;
            }
            if self.files.has_aside() {
                self.files.forget_old(&name.systemd_name());
                marker.beside.iter().for_each(|service| self.files.forget_old(service));
            }
            if !marker.beside_old.is_empty() {
                self.keep(name, Marker { beside_old: Vec::new(), ..marker.clone() });
            }
        }
    }

    /// Takes what systemd says of the services beside instances.
    pub(super) fn note_beside(&mut self, listed: &BTreeMap<UnitName, Listed>) {
        let services = self.instances.notes.all_beside();
        self.beside = services
            .filter_map(|service| Some((service.clone(), listed.get(service)?.clone())))
            .collect();
    }

    /// Those that nobody here needs any longer.
    pub(super) fn unneeded(&self) -> Vec<UnitName> {
        let notes = &self.instances.notes;
        if notes.all_beside().next().is_none() || !notes.are_complete() {
            return Vec::new();
        }
        let needed: BTreeSet<&UnitName> = self.instances.needed_beside().collect();
        let all = self.instances.notes.all_beside();
        all.filter(|service| !needed.contains(service)).cloned().collect()
    }

    /// Stops what nobody needs any longer, and takes it away once it is down. Answers whether there
    /// is more to do.
    pub(super) async fn tidy_beside(&mut self) -> bool {
        self.note_volumes();
        let mut more = false;
        for service in &self.unneeded() {
            match self.retire_beside(service).await {
                Ok(used) => more |= !used,
                Err(problem) => {
                    debug!("{service} stays for now: {problem}");
                    more = true;
                }
            }
        }
        more
    }

    /// Notes which instances use volumes now.
    fn note_volumes(&self) {
        if !self.instances.notes.are_complete() {
            return;
        }
        let mut users: BTreeMap<&UnitName, BTreeSet<&UnitName>> = BTreeMap::new();
        if !self.volumes.is_empty() {
            for (instance, service) in self.instances.users_beside() {
                users.entry(service).or_default().insert(instance);
            }
        }
        self.volumes.used(&users, clock::now_ms());
    }

    /// Answers whether something that is not fleet's still uses it.
    async fn retire_beside(&mut self, service: &UnitName) -> Result<bool, String> {
        let taken_over = self.systemd.host_takes_over(service).await.map_err(|e| e.to_string())?;
        let is_the_hosts = taken_over.is_some_and(|by| by.in_force);
        let known = self.beside.get(service);
        let at_rest = known
            .is_none_or(|unit| !unit.job && ["inactive", "failed"].contains(&unit.active.as_str()));
        if !at_rest && !is_the_hosts {
            let stops = known.is_some_and(|unit| unit.job || unit.active == "deactivating");
            if stops || !self.has_slot(Job::Stop, 0) {
                return Ok(false);
            }
            if self.is_used_by_host(service).await? {
                return Ok(true);
            }
            self.systemd.queue(service, Job::Stop).await.map_err(|e| e.to_string())?;
            return Ok(false);
        }
        if !is_the_hosts {
            self.systemd.reset_failed(service).await.map_err(|e| e.to_string())?;
        }
        self.systemd.remove(service).await.map_err(|e| e.to_string())?;
        self.files.remove(service)?;
        self.instances.notes.remove_beside(service).map_err(|e| e.to_string())?;
        Ok(false)
    }

    /// Whether a unit that is not fleet's is up, and a stop of this service would stop it.
    async fn is_used_by_host(&self, service: &UnitName) -> Result<bool, String> {
        let mut users = self.systemd.stopped_with(service).await.map_err(|e| e.to_string())?;
        let written: BTreeSet<UnitName> =
            self.instances.written().map(UnitName::systemd_name).collect();
        let notes = &self.instances.notes;
        users.retain(|user| !written.contains(user) && notes.beside(user).is_none());
        if users.is_empty() {
            return Ok(false);
        }
        let listed = self.systemd.list(&users).await.map_err(|e| e.to_string())?;
        // What is on its way down goes first, as its own order says.
        let down = |active: &str| ["inactive", "failed", "deactivating"].contains(&active);
        Ok(listed.values().any(|unit| !down(&unit.active)))
    }

    /// Takes away the files of what is no longer here, as an earlier fleetd that was killed may
    /// have left them.
    pub(super) fn tidy_files(&mut self) {
        if !self.instances.notes.are_complete() {
            return;
        }
        let own = self.instances.written().map(UnitName::systemd_name);
        let kept: BTreeSet<UnitName> =
            own.chain(self.instances.notes.all_beside().cloned()).collect();
        if let Err(error) = self.files.retain(&kept) {
            warn!("cannot take away old files in {}: {error}", self.files.root().display());
        }
    }
}

/// Stands for these files, with their contents.
fn sum_of(files: &[File<'_>]) -> String {
    let line = |file: &File| {
        let sum = Checksum::of(file.content);
        format!("{} {sum} {}\n", file.path, file.executable)
    };
    Checksum::of(files.iter().map(line).collect::<String>().as_bytes()).to_string()
}

/// podman's name of the volume that a service makes, as its generator wrote it.
fn volume_name(quadlet: &UnitName, service: &UnitName, file: &UnitFile) -> Option<String> {
    let created = file.last("Service", "ExecStart").filter(|_| quadlet.suffix() == "volume")?;
    let name = words(created).pop()?;
    Some(expand(&name, service)).filter(|name| !name.contains('%'))
}

/// The lines that take a network away with its service; podman's generator has none before 5.5.
/// While a container that is not fleet's uses the network, podman keeps it.
///
/// Only a network that podman named after the file: one with `NetworkName=` may be somebody else's
/// by that name, who has no container just now, and would not find it again.
fn removes_network(file: &UnitFile) -> String {
    let created = file.last("Service", "ExecStart").unwrap_or_default();
    let (podman, network) = (created.split(' ').next(), created.rsplit(' ').next());
    match (podman, network) {
        (Some(podman), Some(network))
            if podman.ends_with("/podman") && network.starts_with(NAMED_BY_PODMAN) =>
        {
            format!("[Service]\nExecStop=-{podman} network rm {network}\n")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_called_what_its_service_calls_it() {
        let name = |text: &str| {
            let file = UnitFile::parse_lenient(&format!("[Service]\nExecStart={text}\n"));
            let (quadlet, service) = ("data@1.volume", "data-volume@1.service");
            volume_name(&UnitName::trusted(quadlet), &UnitName::trusted(service), &file)
        };
        let create = "/usr/bin/podman volume create --ignore";
        assert_eq!(name(&format!("{create} systemd-data")).as_deref(), Some("systemd-data"));
        assert_eq!(name(&format!("{create} --label \"a b\" of-%i")).as_deref(), Some("of-1"));
        assert_eq!(name(&format!("{create} of-%H")), None, "only systemd knows");
    }

    #[test]
    fn a_network_goes_with_its_service() {
        let file = UnitFile::parse_lenient(
            "[Service]\nExecStart=/usr/bin/podman network create --ignore --subnet 10.9.0.0/24 \
             systemd-app\n",
        );
        assert_eq!(
            removes_network(&file),
            "[Service]\nExecStop=-/usr/bin/podman network rm systemd-app\n"
        );
        assert_eq!(removes_network(&UnitFile::default()), "");
        let named = "[Service]\nExecStart=/usr/bin/podman network create --ignore proxy\n";
        assert_eq!(
            removes_network(&UnitFile::parse_lenient(named)),
            "",
            "it may be another's, too"
        );
    }
}
