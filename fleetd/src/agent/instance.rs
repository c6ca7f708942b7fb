//! What the agent knows of each instance on this host, in one record an instance; and what fleet
//! wrote of it, which is noted on the disk as well.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::path::Path;

use fleet_core::converge::{Marker, Trouble};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::unit::file::ShortHash;

use super::images::Wish;
use super::markers::{LoseFile, Markers, Template};
use super::rest::AtRest;
use super::settling::Start;
use crate::systemd::JobOutcome;

/// What is known of one instance. All but the marker is lost with this fleetd.
#[derive(Debug, Default)]
pub(super) struct Instance {
    /// What fleet wrote here; `None` if it wrote no such unit. Set by [`Instances::set_marker`].
    marker: Option<Marker>,
    /// The text that it runs, where its template's file got another one that runs the same, and it
    /// has not been written since.
    pub(super) runs: Option<ShortHash>,
    /// Its recent failures.
    pub(super) trouble: Trouble,
    /// Its active state, and since when, in milliseconds since 1970; of what has a job, nothing is
    /// known.
    pub(super) since: Option<(String, u64)>,
    /// Why it failed last.
    pub(super) outcome: Option<JobOutcome>,
    /// … and why the time before: it was started again since, and has yet to run well.
    pub(super) outcome_before: Option<JobOutcome>,
    /// … and what systemd said of that in the journal, if it was asked.
    pub(super) reason: Option<Reason>,
    /// Whether systemd refused to stop it when it was last asked.
    pub(super) stop_refused: bool,
    /// Its present start, and whether it has stayed up since.
    pub(super) start: Option<Start>,
    /// … and what was known of it before another text was assigned, which may change nothing for
    /// what runs.
    pub(super) start_before: Option<Start>,
    /// The revision of its configuration whose values were written last, for a job that is about to
    /// be queued.
    pub(super) values: Option<u64>,
    /// Why its last reload failed, in systemd's word.
    pub(super) reload_failed: Option<String>,
    /// How it came to be at rest, if it is launched.
    pub(super) rest: AtRest,
    /// Why it was unhealthy, if it was last restarted for that.
    pub(super) unhealthy: Option<String>,
    /// Whether an earlier fleetd started it, and this one has not looked at it yet.
    pub(super) adopted: bool,
    /// The service that pulls the image that it is to run, and what for.
    pub(super) pull: Option<(UnitName, Wish)>,
}

/// What the journal says of a failure; `None` if it says nothing.
#[derive(Debug, Clone)]
pub(super) struct Reason(pub(super) Option<String>);

impl Instance {
    /// What fleet wrote here.
    pub(super) fn marker(&self) -> Option<&Marker> {
        self.marker.as_ref()
    }

    /// Whether it ran when systemd was last asked, or was about to.
    pub(super) fn is_up(&self) -> bool {
        let up = |active: &str| matches!(active, "active" | "activating" | "reloading");
        self.since.as_ref().is_some_and(|(active, _)| up(active))
    }

    /// Notes its active state; whether it is another one shows since when it is.
    pub(super) fn note_active(&mut self, active: &str, now_ms: u64) {
        if self.since.as_ref().is_none_or(|(state, _)| state != active) {
            self.since = Some((active.to_string(), now_ms));
        }
    }

    /// Since when it has been in its state, as far as that is known.
    pub(super) fn since_ms(&self, now_ms: u64) -> u64 {
        self.since.as_ref().map_or(now_ms, |(_, since_ms)| *since_ms)
    }

    /// It is started again: how it failed is that of the time before.
    pub(super) fn is_tried_again(&mut self) {
        self.outcome_before = self.outcome.take().or(self.outcome_before.take());
    }

    /// Forgets why it failed.
    pub(super) fn forget_outcome(&mut self) {
        (self.outcome, self.outcome_before) = (None, None);
        (self.reason, self.unhealthy) = (None, None);
    }
}

/// All instances that fleet wrote on this host or should write.
#[derive(Debug)]
pub(super) struct Instances {
    /// What is noted on the disk beside the markers.
    pub(super) notes: Markers,
    all: BTreeMap<UnitName, Instance>,
}

impl Instances {
    /// Reads what an earlier fleetd noted in `folder`, and notes that it is `machine`'s if there is
    /// nothing.
    pub(super) fn open(folder: &Path, machine: &MachineId) -> io::Result<Instances> {
        let (notes, markers) = Markers::open(folder, machine)?;
        let with = |(marker, runs)| {
            let (marker, adopted) = (Some(marker), true);
            Instance { marker, runs, adopted, ..Instance::default() }
        };
        let all = markers.into_iter().map(|(name, marker)| (name, with(marker))).collect();
        Ok(Instances { notes, all })
    }

    pub(super) fn get(&self, name: &UnitName) -> Option<&Instance> {
        self.all.get(name)
    }

    /// The record of this instance, a new one if there is none.
    pub(super) fn of(&mut self, name: &UnitName) -> &mut Instance {
        if !self.all.contains_key(name) {
            self.all.insert(name.clone(), Instance::default());
        }
        self.all.get_mut(name).expect("inserted above")
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Instance> {
        self.all.values()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.all.values_mut()
    }

    /// Forgets all but these; what has a marker must be among them.
    pub(super) fn retain(&mut self, names: &BTreeSet<UnitName>) {
        self.all.retain(|name, _| names.contains(name));
    }

    pub(super) fn marker(&self, name: &UnitName) -> Option<&Marker> {
        self.all.get(name)?.marker()
    }

    /// The instances that fleet wrote here.
    pub(super) fn written(&self) -> impl Iterator<Item = &UnitName> {
        self.markers().map(|(name, _)| name)
    }

    /// The services that instances here need beside their own.
    pub(super) fn needed_beside(&self) -> impl Iterator<Item = &UnitName> {
        self.markers().flat_map(|(_, marker)| marker.beside.iter().chain(&marker.beside_old))
    }

    /// The instances here with each service that they need beside their own.
    pub(super) fn users_beside(&self) -> impl Iterator<Item = (&UnitName, &UnitName)> {
        self.markers().flat_map(|(instance, marker)| {
            let services = marker.beside.iter().chain(&marker.beside_old);
            services.map(move |service| (instance, service))
        })
    }

    /// Notes what fleet wrote, on the disk first.
    pub(super) fn set_marker(&mut self, name: &UnitName, marker: Marker) -> io::Result<()> {
        if self.marker(name) == Some(&marker) {
            return Ok(());
        }
        self.notes.write(name, &marker)?;
        let instance = self.of(name);
        if !marker.hash.is_empty() {
            instance.runs = None;
        }
        instance.marker = Some(marker);
        Ok(())
    }

    /// Notes that nothing of it is left here.
    pub(super) fn remove_marker(&mut self, name: &UnitName) -> io::Result<()> {
        self.notes.remove(name)?;
        self.of(name).marker = None;
        Ok(())
    }

    /// Notes which start of user space it is. Under another one than the markers are of, what was
    /// launched was so in an earlier one. A marker of an older fleetd is of this one.
    pub(super) fn enter_user_space(&mut self, stamp: u64) -> io::Result<()> {
        if self.notes.is_of_another_user_space(stamp)? {
            let launched: Vec<UnitName> = self
                .markers()
                .filter(|(_, marker)| marker.launched && !marker.ended)
                .map(|(name, _)| name.clone())
                .collect();
            for name in launched {
                let Some(marker) = self.marker(&name).cloned() else { continue };
                self.set_marker(&name, Marker { earlier: true, ..marker })?;
            }
        }
        self.notes.enter_user_space(stamp)
    }

    /// Notes whose text the file of this template has from now on. What shared its file with
    /// another text counts as not written, until it is.
    pub(super) fn set_template(&mut self, name: &UnitName, template: Template) -> io::Result<()> {
        let stale = |(_, marker): &(&UnitName, &Marker)| marker.hash != template.hash;
        let stale: Vec<UnitName> =
            self.sharing(name).filter(stale).map(|(name, _)| name.clone()).collect();
        self.notes.set_template(name, template.clone())?;
        for name in stale {
            let instance = self.of(&name);
            if let Some(marker) = &mut instance.marker {
                // One that had lost its file before runs what it ran.
                let runs = marker.lose_file(Some(&template));
                let ran = instance.runs.take().filter(|ran| template.alike.as_ref() == Some(ran));
                instance.runs = runs.or(ran);
            }
        }
        Ok(())
    }

    /// The instances that share the file of this template.
    pub(super) fn sharers<'a>(
        &'a self,
        template: &'a UnitName,
    ) -> impl Iterator<Item = &'a UnitName> {
        self.sharing(template).map(|(name, _)| name)
    }

    /// The templates whose file nobody shares.
    pub(super) fn unshared(&self) -> Vec<UnitName> {
        if !self.notes.are_complete() {
            return Vec::new();
        }
        let unshared = |template: &&UnitName| self.sharers(template).next().is_none();
        self.notes.templates().filter(unshared).cloned().collect()
    }

    fn markers(&self) -> impl Iterator<Item = (&UnitName, &Marker)> {
        self.all.iter().filter_map(|(name, instance)| Some((name, instance.marker()?)))
    }

    fn sharing<'a>(
        &'a self,
        template: &'a UnitName,
    ) -> impl Iterator<Item = (&'a UnitName, &'a Marker)> {
        let head = template.stem();
        let family = self.all.range::<str, _>((Bound::Included(head), Bound::Unbounded));
        let family = family.take_while(move |(name, _)| name.as_str().starts_with(head));
        let family = family.filter_map(|(name, instance)| Some((name, instance.marker()?)));
        family.filter(move |(name, marker)| {
            marker.shared && name.systemd_name().template().as_ref() == Some(template)
        })
    }
}
