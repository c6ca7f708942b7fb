//! What applying an application changes: records, the application's document, and what must be kept
//! before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::refs::Reference;
use super::whole::{Closure, Whole, with_bundle, without_bundle};
use super::{AppName, Application, Basis, Bundle, BundleRef, Checksum, FileEntry};
use crate::model::{DesiredState, FORMAT, UnitRecord};
use crate::name::UnitName;
use crate::unit::file::UnitFile;
use crate::unit::intake::{self, Taken};
use crate::unit::needs;
use crate::unit::xfleet::{Constraints, is_global};
use crate::view::Cluster;
use crate::wire::{AppFiles, AppPlan, FilePlan, UnitPlan};

/// What somebody applies.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Under which name.
    pub app: &'a AppName,
    /// All that it is to consist of.
    pub files: &'a AppFiles,
    /// Whether what an earlier apply brought, and these files no longer have, is removed.
    pub prune: bool,
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
}

/// What an apply writes, all of it or nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applying {
    /// Records to write, each with whether its text is new.
    pub records: Vec<(UnitRecord, bool)>,
    /// Units to remove.
    pub removed: Vec<UnitName>,
    /// The application's document, if anything changes.
    pub app: Option<Application>,
    /// What must be kept before, by checksum: bundles, and the texts in them.
    pub contents: BTreeMap<Checksum, Vec<u8>>,
    /// All Quadlet files that the application has or names, if any of its own changes: podman can
    /// say what is wrong with them.
    pub quadlets: BTreeMap<UnitName, String>,
    /// The contents of files that must have been sent.
    pub files: BTreeSet<Checksum>,
    /// The bundles that units have so far and get another for: see [`tell_files`].
    pub bundles_before: BTreeMap<UnitName, Checksum>,
    /// The same for the user, but for the machines: see [`super::forecast`].
    pub plan: AppPlan,
}

/// What an apply changes in `cluster`; the error is everything that is wrong, as
/// `web.container: line 5: …`.
pub fn changes(cluster: &Cluster, request: Request) -> Result<Applying, Vec<String>> {
    if request.files.units.is_empty() {
        return Err(vec![
            "there is no unit file: an application has at least one; to be rid of it, destroy it"
                .to_string(),
        ]);
    }
    let mut problems = Vec::new();
    let units = names(request.files, &mut problems);
    let old = cluster.apps.get(request.app).map(Arc::as_ref);
    let staying = match request.prune {
        true => BTreeMap::new(),
        false => members_left_out(cluster, old, &units),
    };
    let old_files = old.map(|old| &old.files);
    let whole = Whole::new(&units, &request.files.files, &cluster.records);
    let whole = whole.with_strays(&staying, old_files, &cluster.records);
    problems.extend(whole.problems());
    if !problems.is_empty() {
        // What a broken whole would bring cannot be said, but what is wrong with each text can.
        for (name, text) in &units {
            problems.extend(take(cluster, name, text).err().into_iter().flatten());
        }
        return Err(problems);
    }
    let kept_files = whole.files_of_strays();
    let mut changed_files = changed_files(old, request.files);
    changed_files.retain(|path, _| !kept_files.contains_key(path));
    let mut work = Work {
        cluster,
        request,
        old,
        whole,
        units: &units,
        replicas: BTreeMap::new(),
        changed_files,
        kept_files,
        done: Applying::default(),
    };
    problems.extend(circles(cluster, &units));
    for name in units.keys() {
        problems.extend(work.unit(name).err().into_iter().flatten());
    }
    let staying = work.strays();
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(work.finish(staying))
}

/// Says of the units that get another bundle which files differ from the one that they have. After
/// a rollback that one is not what was applied last, so the application's document cannot say it.
/// `bundles` are those of [`Applying::bundles_before`], as far as they are there.
pub fn tell_files(applying: &mut Applying, bundles: &BTreeMap<Checksum, Bundle>) {
    for plan in &mut applying.plan.units {
        let before = applying.bundles_before.get(plan.name.as_str());
        let Some(old) = before.and_then(|sum| bundles.get(sum)) else { continue };
        let named = plan.new_text.as_deref().and_then(bundle_of);
        let new = named.and_then(|named| applying.contents.get(&named.sum));
        let new: Bundle =
            new.and_then(|content| serde_json::from_slice(content).ok()).unwrap_or_default();
        let files = old.files.keys().chain(new.files.keys());
        let files = files.filter(|path| old.files.get(*path) != new.files.get(*path));
        let quadlets = old.quadlets.keys().chain(new.quadlets.keys());
        let quadlets = quadlets.filter(|name| old.quadlets.get(*name) != new.quadlets.get(*name));
        let differ: BTreeSet<&str> =
            files.map(String::as_str).chain(quadlets.map(UnitName::as_str)).collect();
        plan.details.retain(|detail| !detail.starts_with(FILES));
        if !differ.is_empty() {
            plan.details.push(files_detail(differ));
        }
    }
}

/// Circles of `Needs=` that these texts would close, each with the first of its units.
fn circles(cluster: &Cluster, units: &BTreeMap<UnitName, String>) -> Vec<String> {
    let wants = |text: &String| Constraints::from_file(&UnitFile::parse_lenient(text));
    let new: BTreeMap<UnitName, Constraints> =
        units.iter().map(|(name, text)| (name.clone(), wants(text))).collect();
    let needing = new.iter().filter(|(_, wants)| !wants.needs.is_empty());
    let mut told: BTreeSet<UnitName> = BTreeSet::new();
    let mut problems = Vec::new();
    for (name, _) in needing {
        let Some(circle) = needs::circle(&cluster.snapshot.units, &new, name) else { continue };
        if !told.contains(name) {
            problems.push(format!("{name}: {}", needs::says(&circle)));
        }
        told.extend(circle);
    }
    problems
}

/// What the detail begins with that names files.
const FILES: &str = "files: ";

fn files_detail<'a>(files: impl IntoIterator<Item = &'a str>) -> String {
    format!("{FILES}{}", files.into_iter().collect::<Vec<_>>().join(", "))
}

fn bundle_of(text: &str) -> Option<BundleRef> {
    BundleRef::of(&UnitFile::parse_lenient(text))
}

/// The names of the units, as far as they are any.
fn names(files: &AppFiles, problems: &mut Vec<String>) -> BTreeMap<UnitName, String> {
    let mut units = BTreeMap::new();
    for (name, text) in &files.units {
        match UnitName::parse(name) {
            Ok(name) => drop(units.insert(name, text.clone())),
            Err(problem) => problems.push(format!("{name}: {problem}")),
        }
    }
    units
}

/// The containers that an earlier apply brought for pods that are still there, and that the files
/// no longer have. A pod is one thing: without pruning it goes on with them.
fn members_left_out(
    cluster: &Cluster,
    old: Option<&Application>,
    units: &BTreeMap<UnitName, String>,
) -> BTreeMap<UnitName, String> {
    let left_out = old.into_iter().flat_map(|old| &old.units);
    let left_out = left_out.filter(|name| !units.contains_key(*name));
    let records = left_out.filter_map(|name| cluster.records.get(name));
    let of_a_pod = records.filter(|record| {
        let pod = super::pod_of(&record.name, &UnitFile::parse_lenient(&record.text));
        pod.is_some_and(|pod| units.contains_key(&pod))
    });
    of_a_pod.map(|record| (record.name.clone(), record.text.clone())).collect()
}

/// The paths of files that differ from those applied last, each with what happens to it.
fn changed_files(old: Option<&Application>, new: &AppFiles) -> BTreeMap<String, &'static str> {
    let none = BTreeMap::<String, FileEntry>::new();
    let before = old.map_or(&none, |old| &old.files);
    let paths: BTreeSet<&String> = before.keys().chain(new.files.keys()).collect();
    let kind = |path: &String| match (before.get(path), new.files.get(path)) {
        (None, _) => Some("create"),
        (_, None) => Some("remove"),
        (Some(before), Some(after)) => (before != after).then_some("change"),
    };
    paths.into_iter().filter_map(|path| Some((path.clone(), kind(path)?))).collect()
}

/// The same checks as for one submitted unit, but for all that is wrong. A text that the cluster
/// holds for the unit stays taken.
fn take(cluster: &Cluster, name: &UnitName, text: &str) -> Result<Taken, Vec<String>> {
    let stored = cluster.records.get(name).is_some_and(|record| record.text == text);
    if stored {
        return Ok(intake::take_stored(name, text));
    }
    let all = intake::take_with_files(name, text);
    all.map_err(|found| found.into_iter().map(|problem| format!("{name}: {problem}")).collect())
}

struct Work<'a> {
    cluster: &'a Cluster,
    request: Request<'a>,
    old: Option<&'a Application>,
    whole: Whole<'a>,
    units: &'a BTreeMap<UnitName, String>,
    /// What `Replicas=` says, by template.
    replicas: BTreeMap<UnitName, u32>,
    changed_files: BTreeMap<String, &'static str>,
    /// Files that the folder no longer has, and that are needed all the same.
    kept_files: BTreeMap<String, FileEntry>,
    done: Applying,
}

impl Work<'_> {
    /// One unit of the application.
    fn unit(&mut self, name: &UnitName) -> Result<(), Vec<String>> {
        let closure = match name.is_shared() {
            true => Closure::default(),
            false => self.whole.closure(name),
        };
        let text = with_bundle(&self.units[name], self.request.app, &closure);
        let taken = take(self.cluster, name, &text)?;
        let old = self.cluster.records.get(name);
        self.foreign(name, old)?;
        let global = is_global(&taken.file.options);
        let is_member = super::pod_of(name, &taken.file).is_some();
        let says = Constraints::from_file(&taken.file).replicas;
        if says.is_some() && (is_member || name.is_shared()) {
            let why = match self.whole.pod(name) {
                Some(pod) => format!("it runs in {pod}; say there how many"),
                None => "it is where something names it; leave it out".to_string(),
            };
            return Err(vec![format!("{name}: Replicas= does not count: {why}")]);
        }
        let placed = !is_member && !name.is_shared();
        let warnings = taken.warnings.iter().map(|warning| format!("{name}: {warning}"));
        self.done.plan.warnings.extend(warnings);
        let mut plan = UnitPlan { name: name.to_string(), ..UnitPlan::default() };
        let record = match old {
            None => self.created(name, &text, says, placed, &mut plan),
            Some(old) => {
                if global && old.replicas.is_some() {
                    let problem = format!("{name}: it is scaled, so it cannot become Global");
                    return Err(vec![problem]);
                }
                self.kept(old, &text, says, &mut plan)
            }
        };
        if placed && name.is_template() && record.replicas.is_none() {
            self.done.plan.warnings.push(format!(
                "{name}: it is a template without Replicas=, so nothing of it runs; say \
                    Replicas= in [X-Fleet], or scale it"
            ));
        }
        self.replicas.extend(says.map(|count| (name.clone(), count)));
        let files: Vec<&str> = closure
            .bundle
            .files
            .keys()
            .filter(|path| self.changed_files.contains_key(*path))
            .map(String::as_str)
            .collect();
        if plan.kind == "change" && plan.new_text.is_some() && !files.is_empty() {
            plan.details.push(files_detail(files));
        }
        if let (Some(old), Some(_)) = (&plan.old_text, &plan.new_text) {
            let before = bundle_of(old).filter(|before| before.app == *self.request.app);
            let differs = |before: &BundleRef| bundle_of(&text).as_ref() != Some(before);
            let before = before.filter(differs).map(|before| (name.clone(), before.sum));
            self.done.bundles_before.extend(before);
        }
        for path in closure.bundle.files.keys() {
            if let Some(file) = self.file_plan(path) {
                file.units.push(name.to_string());
            }
        }
        let new_text = old.is_none_or(|old| old.text != record.text);
        if old.is_none_or(|old| **old != record) {
            self.done.records.push((record, new_text));
        }
        if !closure.bundle.is_empty() {
            let encoded = closure.bundle.encode();
            self.done.contents.insert(Checksum::of(&encoded), encoded);
            let texts = closure.texts.into_iter().map(|(sum, text)| (sum, text.into_bytes()));
            self.done.contents.extend(texts);
        }
        self.done.plan.units.push(plan);
        Ok(())
    }

    /// Refuses a unit that is not this application's to change.
    fn foreign(&self, name: &UnitName, old: Option<&Arc<UnitRecord>>) -> Result<(), Vec<String>> {
        let owns = |app: &Application| app.units.contains(name);
        if let Some(other) =
            self.cluster.apps.values().find(|app| app.name != *self.request.app && owns(app))
        {
            let other = &other.name;
            return Err(vec![match old {
                Some(_) => format!(
                    "{name}: it belongs to the application {other}; leave it out of this folder, \
                        where it may be named all the same, or destroy it there"
                ),
                // Both would own it, and either could destroy it.
                None => format!(
                    "{name}: it belongs to the application {other}, though it was destroyed; \
                        apply {other} without it first"
                ),
            }]);
        }
        let ours = self.old.is_some_and(owns);
        let asked = without_bundle(&self.units[name]);
        if let Some(old) = old.filter(|_| !ours)
            && without_bundle(&old.text) != asked
        {
            return Err(vec![format!(
                "{name}: there is a unit of this name that no application has brought, with \
                    another text; destroy it, or take over its text, and apply again"
            )]);
        }
        if old.is_none() {
            let there = |twin: &UnitName| {
                self.cluster.records.contains_key(twin)
                    && !(self.request.prune
                        && self.old.is_some_and(|app| app.units.contains(twin))
                        && !self.units.contains_key(twin))
            };
            if let Some(twin) = name.twins().into_iter().find(there) {
                let service = name.systemd_name();
                return Err(vec![format!(
                    "{name}: it and {twin}, which the cluster has, would both run as {service}"
                )]);
            }
        }
        Ok(())
    }

    fn created(
        &self,
        name: &UnitName,
        text: &str,
        says: Option<u32>,
        placed: bool,
        plan: &mut UnitPlan,
    ) -> UnitRecord {
        // A template is launched by its count.
        let launched = !name.is_template() || says.is_some();
        let desired = if launched { DesiredState::Launched } else { DesiredState::Inactive };
        plan.kind = "create".to_string();
        plan.new_text = Some(text.to_string());
        if placed {
            plan.details.push(desired.to_string());
            plan.details.extend(says.map(replicas));
        }
        UnitRecord {
            desired,
            replicas: says,
            created_ms: self.request.now_ms,
            ..UnitRecord::new(name.clone(), text)
        }
    }

    /// One that is there: what was decided by hand stays.
    fn kept(
        &self,
        old: &Arc<UnitRecord>,
        text: &str,
        says: Option<u32>,
        plan: &mut UnitPlan,
    ) -> UnitRecord {
        let mut record = UnitRecord::clone(old);
        plan.old_text = Some(old.text.clone());
        if old.text != text {
            record.text = text.to_string();
            record.revision += 1;
            plan.new_text = Some(text.to_string());
        }
        let ours = self.old.is_some_and(|app| app.units.contains(&old.name));
        let before = self.old.and_then(|app| app.replicas.get(&old.name)).copied();
        let mut differs = None;
        if let Some(count) = says {
            if before == Some(count) && old.replicas.is_some() {
                differs = old.replicas.filter(|now| *now != count).map(|now| (now, count));
            } else if old.replicas != Some(count) {
                record.set_replicas(count);
            }
        }
        // Submitted and never started, or never scaled: applying is what starts it.
        let new_here = !ours || (old.replicas.is_none() && record.replicas.is_some());
        let can = !old.name.is_template() || record.replicas.is_some();
        if record.desired == DesiredState::Inactive && new_here && can {
            record.desired = DesiredState::Launched;
        }
        if record.replicas != old.replicas {
            let now = record.replicas.unwrap_or(0);
            let line = match old.replicas {
                Some(before) => format!("{before} → {}", replicas(now)),
                None => replicas(now),
            };
            plan.details.push(line);
        }
        if record.desired != old.desired {
            plan.details.push(format!("{} → {}", old.desired, record.desired));
        }
        let changes = record != **old;
        plan.kind = if changes { "change" } else { "keep" }.to_string();
        if let Some((now, count)) = differs {
            plan.details.push(format!("{}, set by hand; Replicas={count}", replicas(now)));
        }
        if !changes && record.desired != DesiredState::Launched && can {
            plan.details.push(format!("{}, set by hand", record.desired));
        }
        record
    }

    fn file_plan(&mut self, path: &str) -> Option<&mut FilePlan> {
        let kind = self.changed_files.get(path)?;
        let files = &mut self.done.plan.files;
        let at = files.iter().position(|file| file.path == path).unwrap_or_else(|| {
            let path = path.to_string();
            files.push(FilePlan { path, kind: kind.to_string(), units: Vec::new() });
            files.len() - 1
        });
        files.get_mut(at)
    }

    /// What an earlier apply brought, and the files no longer have. Answers with what stays of it.
    fn strays(&mut self) -> BTreeSet<UnitName> {
        let mut staying = BTreeSet::new();
        let before = self.old.into_iter().flat_map(|old| &old.units);
        for name in before.filter(|name| !self.units.contains_key(*name)) {
            // One that was destroyed by itself is no stray: the application forgets it.
            let Some(record) = self.cluster.records.get(name) else { continue };
            let kind = if self.request.prune { "remove" } else { "stray" };
            match self.request.prune {
                true => self.done.removed.push(name.clone()),
                false => drop(staying.insert(name.clone())),
            }
            self.done.plan.units.push(UnitPlan {
                name: name.to_string(),
                kind: kind.to_string(),
                old_text: Some(record.text.clone()),
                ..UnitPlan::default()
            });
        }
        let replicas = self.old.map(|old| old.replicas_of_their_own(self.cluster));
        for name in replicas.into_iter().flatten() {
            let goes = name.template().is_some_and(|name| self.done.removed.contains(&name));
            if !goes || self.units.contains_key(&name) {
                continue;
            }
            self.done.plan.units.push(UnitPlan {
                name: name.to_string(),
                kind: "remove".to_string(),
                old_text: self.cluster.records.get(&name).map(|record| record.text.clone()),
                ..UnitPlan::default()
            });
            self.done.removed.push(name);
        }
        self.done.plan.units.sort_by(|a, b| a.name.cmp(&b.name));
        self.still_named();
        staying
    }

    /// Warns of what goes although units of others name it: those keep its text until they are
    /// applied again, which is refused then.
    fn still_named(&mut self) {
        let removed = &self.done.removed;
        let others = self.cluster.records.values().filter(|record| {
            !self.units.contains_key(&record.name) && !removed.contains(&record.name)
        });
        for record in others {
            let may = |name: &&UnitName| record.text.contains(name.prefix());
            if !removed.iter().any(|name| may(&name)) {
                continue;
            }
            let file = UnitFile::parse_lenient(&record.text);
            let named = super::refs::references(&record.name, &file);
            let named: Vec<UnitName> = named.into_iter().filter_map(Reference::quadlet).collect();
            let is_named = |name: &&UnitName| {
                named.iter().any(|to| to == *name || to.template().as_ref() == Some(*name))
            };
            self.done.plan.warnings.extend(removed.iter().filter(is_named).map(|name| {
                format!("{name}: {}, which is not in this folder, names it", record.name)
            }));
        }
    }

    fn finish(mut self, staying: BTreeSet<UnitName>) -> Applying {
        for path in self.changed_files.keys().cloned().collect::<Vec<_>>() {
            self.file_plan(&path);
        }
        self.done.plan.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.done.files = self.request.files.files.values().map(|file| file.sum.clone()).collect();
        let units: BTreeSet<UnitName> = self.units.keys().cloned().chain(staying).collect();
        let other_units = self.old.is_none_or(|old| old.units != units);
        let replicas = self.old.is_none_or(|old| old.replicas != self.replicas);
        let changed =
            |(record, new_text): &(UnitRecord, bool)| *new_text && record.name.is_quadlet();
        if self.done.records.iter().any(changed) {
            self.done.quadlets = self.whole.quadlets();
        }
        let changes = other_units
            || replicas
            || !self.changed_files.is_empty()
            || !self.done.records.is_empty()
            || !self.done.removed.is_empty();
        let revision = self.old.map_or(0, |old| old.revision);
        self.done.plan.revision = revision;
        self.done.plan.basis =
            Basis::of(self.cluster, self.request.app, self.request.files).to_string();
        self.done.plan.changes = changes;
        self.done.app = changes.then(|| Application {
            v: FORMAT,
            name: self.request.app.clone(),
            revision: revision + 1,
            units,
            replicas: std::mem::take(&mut self.replicas),
            files: self.request.files.files.clone().into_iter().chain(self.kept_files).collect(),
            applied_ms: self.request.now_ms,
            unknown: self.old.map(|old| old.unknown.clone()).unwrap_or_default(),
        });
        self.done
    }
}

pub(super) fn replicas(count: u32) -> String {
    format!("{count} replica{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Unit;

    const WEB: &str = "[Container]\nImage=x\nNetwork=app.network\nVolume=./nginx.conf:/c\n\
        [X-Fleet]\nReplicas=2\n";

    /// A cluster, and an application that is applied to it.
    struct There {
        cluster: Cluster,
        app: AppName,
        files: AppFiles,
    }

    impl There {
        fn new(units: &[(&str, &str)], files: &[(&str, &str)]) -> There {
            let app = AppName::parse("shop").unwrap();
            let mut there = There { cluster: Cluster::default(), app, files: AppFiles::default() };
            units.iter().for_each(|(name, text)| there.unit(name, text));
            files.iter().for_each(|(path, content)| there.file(path, content));
            there
        }

        fn unit(&mut self, name: &str, text: &str) {
            self.files.units.insert(name.to_string(), text.to_string());
        }

        fn file(&mut self, path: &str, content: &str) {
            let sum = Checksum::of(content.as_bytes());
            let entry = FileEntry { sum, size: content.len() as u64, executable: false };
            self.files.files.insert(path.to_string(), entry);
        }

        fn record(&mut self, record: UnitRecord) {
            let name = record.name.clone();
            let unit = Arc::new(Unit::from_record(&record));
            self.cluster.snapshot.units.insert(name.clone(), unit);
            self.cluster.records.insert(name, Arc::new(record));
        }

        fn planned(&self, prune: bool) -> Result<Applying, Vec<String>> {
            let request = Request { app: &self.app, files: &self.files, prune, now_ms: 5 };
            changes(&self.cluster, request)
        }

        /// What an apply says, a unit or file a line.
        fn plan(&self, prune: bool) -> String {
            match self.planned(prune) {
                Ok(applying) => said(&applying.plan),
                Err(problems) => problems.join("\n"),
            }
        }

        fn apply(&mut self, prune: bool) -> Applying {
            let applying = self.planned(prune).unwrap();
            applying.records.iter().for_each(|(record, _)| self.record(record.clone()));
            for name in &applying.removed {
                self.cluster.records.remove(name);
                self.cluster.snapshot.units.remove(name);
            }
            if let Some(app) = &applying.app {
                self.cluster.apps.insert(app.name.clone(), Arc::new(app.clone()));
            }
            applying
        }

        fn change(&mut self, name: &str, change: impl FnOnce(&mut UnitRecord)) {
            let mut record = (*self.cluster.records[name]).clone();
            change(&mut record);
            self.record(record);
        }
    }

    fn said(plan: &AppPlan) -> String {
        let unit = |unit: &UnitPlan| {
            let text = if unit.new_text.is_some() { " text" } else { "" };
            format!("{} {}{text}: {}", unit.kind, unit.name, unit.details.join("; "))
        };
        let file =
            |file: &FilePlan| format!("{} {}: {}", file.kind, file.path, file.units.join(" "));
        let lines = plan.units.iter().map(unit).chain(plan.files.iter().map(file));
        lines.chain(plan.warnings.iter().cloned()).collect::<Vec<_>>().join("\n")
    }

    fn shop() -> There {
        let units = [
            ("app.network", "[Network]\nDriver=bridge\n"),
            ("db.container", "[Container]\nImage=db\nNetwork=app.network\n"),
            ("web@.container", WEB),
        ];
        There::new(&units, &[("nginx.conf", "1"), ("README", "r")])
    }

    #[test]
    fn a_new_application_is_created_with_what_its_units_need_and_then_there_is_nothing_to_do() {
        let mut there = shop();
        let done = there.apply(false);
        assert_eq!(
            said(&done.plan),
            "create app.network text: \n\
            create db.container text: launched\n\
            create web@.container text: launched; 2 replicas\n\
            create README: \n\
            create nginx.conf: web@.container"
        );
        assert!(done.plan.changes && done.records.len() == 3);
        let web = &there.cluster.records["web@.container"];
        let named =
            super::super::BundleRef::of(&crate::unit::file::UnitFile::parse_lenient(&web.text));
        let bundle = &done.contents[&named.unwrap().sum];
        let bundle: super::super::Bundle = serde_json::from_slice(bundle).unwrap();
        assert_eq!(bundle.files.keys().collect::<Vec<_>>(), ["nginx.conf"]);
        let network = &bundle.quadlets["app.network"];
        assert_eq!(done.contents[network], b"[Network]\nDriver=bridge\n");
        assert_eq!(done.files.len(), 2);
        assert_eq!((web.replicas, web.desired), (Some(2), DesiredState::Launched));
        let app = done.app.unwrap();
        assert_eq!((app.revision, app.units.len(), app.replicas.len()), (1, 3, 1));
        let again = there.planned(true).unwrap();
        assert_eq!((again.app, again.records, again.plan.changes), (None, Vec::new(), false));
        assert_eq!(
            said(&again.plan),
            "keep app.network: \nkeep db.container: \nkeep web@.container: "
        );
    }

    #[test]
    fn a_changed_file_changes_the_units_that_use_it_and_no_others() {
        let mut there = shop();
        there.apply(false);
        there.file("nginx.conf", "2");
        assert_eq!(
            there.plan(false),
            "keep app.network: \nkeep db.container: \n\
            change web@.container text: files: nginx.conf\n\
            change nginx.conf: web@.container"
        );
        assert_eq!(there.apply(false).records[0].0.revision, 2);
        there.files.files.remove("README");
        assert_eq!(there.planned(false).unwrap().records, []);
        assert_eq!(there.apply(false).app.unwrap().revision, 3);
        // A network that changes is another one for those who use it.
        there.unit("app.network", "[Network]\nInternal=true\n");
        assert_eq!(
            there.plan(false),
            "change app.network text: \nchange db.container text: \nchange web@.container text: "
        );
    }

    #[test]
    fn a_count_set_by_hand_holds_until_the_number_in_the_file_changes() {
        let mut there = shop();
        there.apply(false);
        there.change("web@.container", |record| record.set_replicas(5));
        let kept = "keep web@.container: 5 replicas, set by hand; Replicas=2";
        assert!(there.plan(false).contains(kept), "{}", there.plan(false));
        there.unit("web@.container", &WEB.replace("Replicas=2", "Replicas=3"));
        let changed = "change web@.container text: 5 → 3 replicas";
        assert!(there.plan(false).contains(changed), "{}", there.plan(false));
        there.apply(false);
        assert_eq!(there.cluster.records["web@.container"].replicas, Some(3));
        there.unit("web@.container", &WEB.replace("Replicas=2", "MaxPerMachine=3"));
        there.apply(false);
        assert_eq!(there.cluster.records["web@.container"].replicas, Some(3), "it stays");
    }

    #[test]
    fn what_was_stopped_by_hand_stays_stopped() {
        let mut there = shop();
        there.apply(false);
        there.change("db.container", |record| record.desired = DesiredState::Inactive);
        there.unit("db.container", "[Container]\nImage=db2\nNetwork=app.network\n");
        there.apply(false);
        assert_eq!(there.cluster.records["db.container"].desired, DesiredState::Inactive);
        assert!(there.plan(false).contains("keep db.container: inactive, set by hand"));
    }

    #[test]
    fn a_template_without_a_count_waits_for_one() {
        let mut there = There::new(&[("job@.service", "[Service]\nExecStart=/a\n")], &[]);
        assert_eq!(
            there.plan(false),
            "create job@.service text: inactive\n\
            job@.service: it is a template without Replicas=, so nothing of it runs; say Replicas= \
            in [X-Fleet], or scale it"
        );
        there.apply(false);
        there.unit("job@.service", "[Service]\nExecStart=/a\n[X-Fleet]\nReplicas=1\n");
        assert_eq!(there.plan(false), "change job@.service text: 1 replica; inactive → launched");
    }

    #[test]
    fn what_the_files_no_longer_have_stays_until_it_is_pruned() {
        let mut there = shop();
        there.apply(false);
        there.files.units.remove("db.container");
        let kept = there.plan(false);
        assert!(kept.contains("stray db.container: "), "{kept}");
        assert!(!there.planned(false).unwrap().plan.changes);
        let pruned = there.apply(true);
        assert_eq!(pruned.removed, [UnitName::trusted("db.container")]);
        assert!(said(&pruned.plan).contains("remove db.container: "));
        assert!(!there.planned(true).unwrap().plan.changes);
        // Another kind of unit may take its place then, and not before.
        there.unit("app.network", "[Network]\nDriver=bridge\n");
        there.unit("db.kube", "[Kube]\nYaml=./README\n");
        assert!(there.planned(false).is_ok());
        there.files.units.remove("web@.container");
        there.unit("web@.kube", "[Kube]\nYaml=./README\n");
        assert_eq!(
            there.plan(false),
            "web@.kube: it and web@.container, which the cluster has, would both run as \
            web@.service"
        );
        assert!(there.planned(true).is_ok());
    }

    #[test]
    fn a_replica_with_a_record_of_its_own_is_pruned_with_its_template() {
        let mut there = shop();
        there.apply(false);
        let web = there.cluster.records["web@.container"].text.clone();
        for (name, text) in
            [("web@1.container", web.as_str()), ("web@x.container", "[Container]\n")]
        {
            there.record(UnitRecord::new(UnitName::trusted(name), text));
        }
        there.files.units.remove("web@.container");
        let stays = there.plan(false);
        assert!(stays.contains("stray web@.container: ") && !stays.contains("web@1"), "{stays}");
        let pruned = there.apply(true);
        let gone: Vec<&str> = pruned.removed.iter().map(UnitName::as_str).collect();
        assert_eq!(gone, ["web@.container", "web@1.container"], "the other is its user's");
        assert!(said(&pruned.plan).contains("remove web@1.container: "));
    }

    #[test]
    fn a_container_left_out_of_the_folder_stays_in_its_pod_until_it_is_pruned() {
        let pod = "[Pod]\nPodName=x\n[X-Fleet]\nReplicas=2\n";
        let web = "[Container]\nImage=x\nPod=app@%i.pod\nVolume=./web.conf:/c\n";
        let log = "[Container]\nImage=y\nPod=app@%i.pod\nVolume=./log.conf:/c\n";
        let units = [("app@.pod", pod), ("web@.container", web), ("log@.container", log)];
        let mut there = There::new(&units, &[("web.conf", "1"), ("log.conf", "1")]);
        there.apply(false);
        let before = there.cluster.records["app@.pod"].text.clone();
        there.files.units.remove("log@.container");
        there.files.files.remove("log.conf");
        assert_eq!(
            there.plan(false),
            "keep app@.pod: \nstray log@.container: \nkeep web@.container: "
        );
        assert_eq!(there.cluster.records["app@.pod"].text, before, "the pod is as it was");
        assert!(!there.planned(false).unwrap().plan.changes);
        for content in ["2", "3"] {
            there.file("web.conf", content);
            let bundle = bundle_of(&there.apply(false).records[0].0.text).unwrap().sum;
            let bundle = there.planned(false).unwrap().contents[&bundle].clone();
            let bundle: Bundle = serde_json::from_slice(&bundle).unwrap();
            assert_eq!((bundle.files.len(), bundle.quadlets.len()), (2, 2), "both containers'");
        }
        let changed = there.apply(true);
        assert_eq!(changed.removed, [UnitName::trusted("log@.container")]);
        let now = &there.cluster.records["app@.pod"].text;
        let bundle = &changed.contents[&bundle_of(now).unwrap().sum];
        let bundle: Bundle = serde_json::from_slice(bundle).unwrap();
        let members: Vec<&str> = bundle.quadlets.keys().map(UnitName::as_str).collect();
        assert_eq!((members, bundle.files.len()), (vec!["web@.container"], 1));
    }

    #[test]
    fn a_network_that_goes_although_others_name_it_is_warned_of() {
        let mut there = shop();
        there.apply(false);
        let text = "[Container]\nImage=x\nNetwork=app.network\n";
        there.record(UnitRecord::new(UnitName::trusted("other.container"), text));
        let alike = "[Container]\nImage=x\nNetwork=my-app.network\n";
        there.record(UnitRecord::new(UnitName::trusted("alike.container"), alike));
        there.files.units.remove("app.network");
        there.unit("db.container", "[Container]\nImage=db\n");
        there.unit("web@.container", &WEB.replace("Network=app.network\n", ""));
        assert!(there.planned(false).unwrap().plan.warnings.is_empty(), "it stays");
        assert_eq!(
            there.planned(true).unwrap().plan.warnings,
            ["app.network: other.container, which is not in this folder, names it"]
        );
    }

    #[test]
    fn a_unit_of_somebody_else_is_refused_and_the_same_text_is_taken_over() {
        let mut there = There::new(&[("a.service", "[Service]\nExecStart=/a\n")], &[]);
        let text = "[Service]\nExecStart=/a\n";
        there.record(UnitRecord::new(UnitName::trusted("a.service"), text));
        assert_eq!(there.plan(false), "change a.service: inactive → launched");
        there.unit("a.service", "[Service]\nExecStart=/b\n");
        assert_eq!(
            there.plan(false),
            "a.service: there is a unit of this name that no application has brought, with another \
            text; destroy it, or take over its text, and apply again"
        );
        there.unit("a.service", text);
        there.apply(false);
        there.app = AppName::parse("other").unwrap();
        assert_eq!(
            there.plan(false),
            "a.service: it belongs to the application shop; leave it out of this folder, where it \
            may be named all the same, or destroy it there"
        );
        there.unit("b.service", "[Service]\nExecStart=/b\n");
        there.files.units.remove("a.service");
        assert_eq!(there.plan(false), "create b.service text: launched");
    }

    #[test]
    fn a_unit_that_was_destroyed_by_itself_has_one_owner_at_a_time() {
        let text = "[Service]\nExecStart=/a\n";
        let mut there = There::new(&[("a.service", text), ("b.service", text)], &[]);
        there.apply(false);
        there.cluster.records.remove("a.service");
        there.cluster.snapshot.units.remove("a.service");
        let both = std::mem::take(&mut there.files.units);
        there.unit("a.service", text);
        there.app = AppName::parse("other").unwrap();
        assert_eq!(
            there.plan(false),
            "a.service: it belongs to the application shop, though it was destroyed; apply shop \
            without it first"
        );
        let other = std::mem::replace(&mut there.files.units, both);
        there.app = AppName::parse("shop").unwrap();
        there.files.units.remove("a.service");
        assert!(there.apply(false).plan.changes, "shop forgets it");
        assert!(!there.planned(true).unwrap().plan.changes);
        there.files.units = other;
        there.app = AppName::parse("other").unwrap();
        assert_eq!(there.plan(false), "create a.service text: launched");
    }

    #[test]
    fn after_a_rollback_the_files_that_differ_are_named() {
        let mut there = shop();
        let first = there.apply(false);
        let text = there.cluster.records["web@.container"].text.clone();
        there.file("nginx.conf", "2");
        there.unit("app.network", "[Network]\nInternal=true\n");
        there.apply(false);
        there.change("web@.container", |record| record.text = text);
        let mut planned = there.planned(false).unwrap();
        let before = planned.bundles_before.clone();
        assert_eq!(before.keys().map(UnitName::as_str).collect::<Vec<_>>(), ["web@.container"]);
        let unsaid = "keep app.network: \nkeep db.container: \nchange web@.container text: ";
        assert_eq!(said(&planned.plan), unsaid);
        let bundle = |sum: &Checksum| serde_json::from_slice(&first.contents[sum]).unwrap();
        let bundles = before.values().map(|sum| (sum.clone(), bundle(sum))).collect();
        tell_files(&mut planned, &bundles);
        assert_eq!(said(&planned.plan), format!("{unsaid}files: app.network, nginx.conf"));
        // A bundle that is gone leaves what the document says.
        tell_files(&mut planned, &BTreeMap::new());
        assert_eq!(said(&planned.plan), format!("{unsaid}files: app.network, nginx.conf"));
    }

    #[test]
    fn all_problems_of_all_units_are_said_with_their_lines() {
        let there = There::new(
            &[
                ("a.service", "[Service]\nExecStart=/a\n[X-Fleet]\nFence=maybe\nReplicas=x\n"),
                ("b.foo", "[Service]\nExecStart=/a\n"),
                ("c.container", "[Container]\nImage=x\nNetwork=c.network\nVolume=./x:/x\n"),
                ("d.service", "[Service\n"),
            ],
            &[],
        );
        let said = there.plan(false);
        let starts = [
            "b.foo: invalid unit type: \"foo\"",
            "c.container: line 3: Network=c.network: there is no c.network in the folder",
            "c.container: line 4: Volume=./x: there is no x in the folder",
            "a.service: line 4: Fence=maybe is neither",
            "a.service: line 5: ",
            "d.service: line 1: malformed section header",
        ];
        let lines: Vec<&str> = said.lines().collect();
        for start in starts {
            assert!(lines.iter().any(|line| line.starts_with(start)), "{start}: {said}");
        }
        assert_eq!(lines.len(), starts.len(), "{said}");
    }

    #[test]
    fn an_application_without_units_is_none() {
        assert!(
            There::new(&[], &[("README", "x")]).plan(true).starts_with("there is no unit file")
        );
    }

    #[test]
    fn a_pod_is_scaled_and_its_containers_are_not() {
        let pod = "[Pod]\nPodName=x\n[X-Fleet]\nReplicas=2\n";
        let container = "[Container]\nImage=x\nPod=app@%i.pod\n";
        let mut there = There::new(&[("app@.pod", pod), ("web@.container", container)], &[]);
        assert_eq!(
            there.plan(false),
            "create app@.pod text: launched; 2 replicas\ncreate web@.container text: "
        );
        there.apply(false);
        let wanted = |name: &str| there.cluster.snapshot.units[name].gist.wanted;
        assert_eq!((wanted("app@.pod"), wanted("web@.container")), (2, 0));
        there.unit("web@.container", &format!("{container}[X-Fleet]\nReplicas=2\n"));
        assert_eq!(
            there.plan(false),
            "web@.container: Replicas= does not count: it runs in app@.pod; say there how many"
        );
    }
}
