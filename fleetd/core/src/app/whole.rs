//! The files of an application seen together: who names whom, what is missing, what goes round in a
//! circle, and what comes with each unit.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::refs::{How, Reference, Target, pod_of, references};
use super::{AppName, Bundle, BundleRef, Checksum, FileEntry, paths_refusals};
use super::{MAX_APP_BYTES, MAX_APP_FILES, MAX_APP_UNITS, MAX_FILE_BYTES};
use crate::model::UnitRecord;
use crate::name::UnitName;
use crate::unit::file::UnitFile;
use crate::unit::podman;
use crate::unit::xfleet::SECTION;

/// What stands for a Quadlet file of which only the name is looked at, by its type: the unit need
/// not change when that file does.
const STAND_INS: &[(&str, &str)] = &[
    ("container", "[Container]\nImage=localhost/stand-in\n"),
    ("kube", "[Kube]\nYaml=/dev/null\n"),
    ("pod", "[Pod]\nPodName=stand-in\n"),
];

/// The units and files of an application, with what its units name of the cluster besides.
pub(super) struct Whole<'a> {
    units: BTreeMap<UnitName, Read>,
    files: &'a BTreeMap<String, FileEntry>,
    /// The files of the last apply: what the folder no longer has may still need some.
    old_files: Option<&'a BTreeMap<String, FileEntry>>,
    /// The containers of each pod.
    members: BTreeMap<UnitName, BTreeSet<UnitName>>,
}

/// One unit, read.
struct Read {
    /// Without a `Bundle=` line.
    text: String,
    references: Vec<Reference>,
    pod: Option<UnitName>,
    /// Whether it belongs to the application.
    ours: bool,
    /// Whether an earlier apply brought it, and it stays though the folder no longer has it.
    stray: bool,
}

impl Read {
    fn new(name: &UnitName, text: &str, ours: bool) -> Read {
        let text = without_bundle(text);
        let file = UnitFile::parse_lenient(&as_podman_reads(name, &text));
        let (references, pod) = (references(name, &file), pod_of(name, &file));
        Read { text, references, pod, ours, stray: false }
    }
}

/// What comes with one unit, and the texts in it, which are kept by their checksums as files are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Closure {
    /// The bundle.
    pub(super) bundle: Bundle,
    /// The texts of its Quadlet files.
    pub(super) texts: BTreeMap<Checksum, String>,
}

impl<'a> Whole<'a> {
    /// Reads the texts of `units`. Quadlet files that they name and do not bring are looked for
    /// among `records`.
    pub(super) fn new(
        units: &BTreeMap<UnitName, String>,
        files: &'a BTreeMap<String, FileEntry>,
        records: &BTreeMap<UnitName, Arc<UnitRecord>>,
    ) -> Whole<'a> {
        let read = units.iter().map(|(name, text)| (name.clone(), Read::new(name, text, true)));
        let (units, members) = (read.collect(), BTreeMap::new());
        let mut whole = Whole { units, files, old_files: None, members };
        let brought: Vec<UnitName> = whole.units.keys().cloned().collect();
        whole.take_in(brought, records);
        whole
    }

    /// The same with containers of its pods that the folder no longer has, and `old_files`, which
    /// those may need.
    pub(super) fn with_strays(
        mut self,
        strays: &BTreeMap<UnitName, String>,
        old_files: Option<&'a BTreeMap<String, FileEntry>>,
        records: &BTreeMap<UnitName, Arc<UnitRecord>>,
    ) -> Whole<'a> {
        self.old_files = old_files;
        for (name, text) in strays {
            let read = Read { stray: true, ..Read::new(name, text, false) };
            self.units.insert(name.clone(), read);
        }
        self.take_in(strays.keys().cloned().collect(), records);
        self
    }

    /// Notes the pods of these units, and looks for what they name.
    fn take_in(&mut self, mut open: Vec<UnitName>, records: &BTreeMap<UnitName, Arc<UnitRecord>>) {
        for name in &open {
            if let Some(pod) = &self.units[name].pod {
                self.members.entry(pod.clone()).or_default().insert(name.clone());
            }
        }
        while let Some(name) = open.pop() {
            let named: Vec<UnitName> = self.units[&name]
                .references
                .iter()
                .filter_map(|reference| match &reference.to {
                    Target::Quadlet(to, _) => Some(to.clone()),
                    _ => None,
                })
                .collect();
            for to in named.into_iter().flat_map(|to| [to.template(), Some(to)]).flatten() {
                if let Some(record) = records.get(&to).filter(|_| !self.units.contains_key(&to)) {
                    self.units.insert(to.clone(), Read::new(&to, &record.text, false));
                    open.push(to);
                }
            }
        }
    }

    /// The pod that a container of the application runs in, if that is of the application, too.
    pub(super) fn pod(&self, name: &UnitName) -> Option<&UnitName> {
        self.units.get(name)?.pod.as_ref()
    }

    /// The texts of all Quadlet files.
    pub(super) fn quadlets(&self) -> BTreeMap<UnitName, String> {
        let quadlets = self.units.iter().filter(|(name, _)| name.is_quadlet());
        quadlets.map(|(name, unit)| (name.clone(), unit.text.clone())).collect()
    }

    /// Everything that is wrong with the whole, each as `web.container: line 5: …`.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.over_limits();
        problems.extend(paths_refusals(&self.files.keys().map(|path| &**path).collect()));
        let ours = || self.units.iter().filter(|(_, unit)| unit.ours);
        for (name, unit) in ours() {
            for reference in &unit.references {
                if let Err(problem) = self.check(name, reference) {
                    problems.push(said(name, reference, &problem));
                }
            }
        }
        problems.extend(self.twins());
        problems.extend(self.circles());
        problems
    }

    fn over_limits(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let units = self.units.values().filter(|unit| unit.ours).count();
        if units > MAX_APP_UNITS {
            problems.push(format!("{units} units; the limit of an application is {MAX_APP_UNITS}"));
        }
        if self.files.len() > MAX_APP_FILES {
            let files = self.files.len();
            problems.push(format!("{files} files; the limit of an application is {MAX_APP_FILES}"));
        }
        for (path, entry) in self.files.iter().filter(|(_, entry)| entry.size > MAX_FILE_BYTES) {
            problems.push(format!(
                "{path}: {} bytes; the limit of a file is {MAX_FILE_BYTES} (1 MiB)",
                entry.size
            ));
        }
        let bytes = self.files.values().fold(0u64, |sum, entry| sum.saturating_add(entry.size));
        if bytes > MAX_APP_BYTES {
            problems.push(format!(
                "{bytes} bytes in all files; the limit of an application is {MAX_APP_BYTES} (16 MiB)"
            ));
        }
        problems
    }

    /// Whether what a reference names is there; the error says what is wrong with it.
    fn check(&self, from: &UnitName, reference: &Reference) -> Result<(), String> {
        match &reference.to {
            Target::Quadlet(to, how) => {
                let found = self.find(from, to, *how)?;
                if self.units[&found].ours {
                    return self.check_pod(from, &found);
                }
                if found.suffix() == "pod" {
                    return Err(format!(
                        "{found} is not in the folder, and a pod and its containers \
                        come together"
                    ));
                }
                self.check_foreign(&found)
            }
            Target::Path { path, must: true } if !self.has(path) => {
                Err(format!("there is no {path} in the folder"))
            }
            Target::Outside => {
                Err("the path leads out of the folder, and only the folder comes along".to_string())
            }
            _ => Ok(()),
        }
    }

    /// A container and its pod are one thing.
    fn check_pod(&self, from: &UnitName, pod: &UnitName) -> Result<(), String> {
        let of_it = self.units.get(from).is_some_and(|unit| unit.pod.as_ref() == Some(pod));
        match (from.instance(), pod.instance()) {
            (container, pod_is) if of_it && container != pod_is => Err(format!(
                "{from} and {pod} are one thing that is placed together; name both as templates, \
                    or none"
            )),
            _ => Ok(()),
        }
    }

    /// The files of another application do not come along.
    fn check_foreign(&self, found: &UnitName) -> Result<(), String> {
        let mut seen = BTreeSet::from([found.clone()]);
        let mut open = vec![found.clone()];
        while let Some(name) = open.pop() {
            for reference in &self.units[&name].references {
                match &reference.to {
                    Target::Path { .. } | Target::Everything | Target::Outside => {
                        return Err(format!(
                            "{name} is not in the folder, and names files that are not either: {}; \
                                bring it along",
                            reference.said
                        ));
                    }
                    Target::Quadlet(to, how) => {
                        let to = self.find(&name, to, *how)?;
                        if seen.insert(to.clone()) {
                            open.push(to);
                        }
                    }
                    Target::Service(_) => {}
                }
            }
        }
        Ok(())
    }

    /// The file that is meant by `to` in the text of `from`.
    fn find(&self, from: &UnitName, to: &UnitName, how: How) -> Result<UnitName, String> {
        let missing = || Err(format!("there is no {to} in the folder"));
        if self.units.contains_key(to) {
            return match to.is_template() {
                true if how == How::Needed => Err(format!(
                    "{to} is a template; say which instance: {}@%i.{}",
                    to.prefix(),
                    to.suffix()
                )),
                true if !from.is_template() && how == How::NeededOfInstance => {
                    Err(format!("{from} is no template, so %i stands for nothing"))
                }
                _ => Ok(to.clone()),
            };
        }
        let Some(template) = to.template().filter(|name| self.units.contains_key(name)) else {
            return missing();
        };
        match to.instance() == from.instance() {
            true => Ok(template),
            false => Err(format!(
                "there is no {to} in the folder, and of {template} a unit can only name its own \
                    instance, {}@%i.{}",
                to.prefix(),
                to.suffix()
            )),
        }
    }

    /// Whether there is such a file, or a folder with files in it.
    fn has(&self, path: &str) -> bool {
        at_or_below(self.files, path).next().is_some()
    }

    /// Units of the application that would be the same service.
    fn twins(&self) -> Vec<String> {
        let mut by_service: BTreeMap<UnitName, &UnitName> = BTreeMap::new();
        let mut problems = Vec::new();
        for name in self.units.iter().filter(|(_, unit)| unit.ours).map(|(name, _)| name) {
            if let Some(twin) = by_service.insert(name.systemd_name(), name) {
                let service = name.systemd_name();
                problems.push(format!("{name}: it and {twin} would both run as {service}"));
            }
        }
        problems
    }

    /// Quadlet files that each need the next to be there first.
    fn circles(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut done: BTreeSet<&UnitName> = BTreeSet::new();
        for start in self.units.keys() {
            let mut way: Vec<(&UnitName, Vec<(&UnitName, &Reference)>)> = Vec::new();
            if done.insert(start) {
                way.push((start, self.needed(start)));
            }
            while let Some((name, open)) = way.last_mut() {
                let name = *name;
                let Some((next, reference)) = open.pop() else {
                    way.pop();
                    continue;
                };
                if let Some(at) = way.iter().position(|(on, _)| *on == next) {
                    let round = way[at..].iter().map(|(on, _)| on.as_str());
                    let round: Vec<&str> = round.chain([next.as_str()]).collect();
                    let problem = format!("that goes round in a circle: {}", round.join(" → "));
                    problems.push(said(name, reference, &problem));
                } else if done.insert(next) {
                    way.push((next, self.needed(next)));
                }
            }
        }
        problems
    }

    /// The Quadlet files whose services the unit waits for, but for its pod, which is the same
    /// thing.
    fn needed(&self, name: &UnitName) -> Vec<(&UnitName, &Reference)> {
        let unit = &self.units[name];
        let needs = unit.references.iter().filter_map(|reference| match &reference.to {
            Target::Quadlet(to, how) if *how != How::Name && unit.pod.as_ref() != Some(to) => {
                let found = self.find(name, to, *how).ok()?;
                Some((self.units.get_key_value(&found)?.0, reference))
            }
            _ => None,
        });
        needs.collect()
    }

    /// What comes with a unit of the application.
    pub(super) fn closure(&self, of: &UnitName) -> Closure {
        let mut closure = Closure::default();
        let mut names: BTreeSet<UnitName> = BTreeSet::new();
        let (mut seen, mut open) = (BTreeSet::from([of.clone()]), vec![of.clone()]);
        while let Some(name) = open.pop() {
            let unit = &self.units[&name];
            let mut next: Vec<UnitName> =
                self.members.get(&name).into_iter().flatten().cloned().collect();
            for reference in &unit.references {
                match &reference.to {
                    Target::Quadlet(to, How::Name) => {
                        names.extend(self.find(&name, to, How::Name));
                    }
                    Target::Quadlet(to, how) => next.extend(self.find(&name, to, *how)),
                    // What podman makes for others, and this unit starts by its service's name.
                    Target::Service(service) => {
                        let made = service.twins().into_iter();
                        next.extend(made.filter(|twin| {
                            twin.is_shared() && self.units.get(twin).is_some_and(|unit| unit.ours)
                        }));
                    }
                    Target::Path { .. } | Target::Everything if unit.ours || unit.stray => {
                        closure.bundle.files.extend(self.found(unit, &reference.to));
                    }
                    _ => {}
                }
            }
            open.extend(next.into_iter().filter(|name| seen.insert(name.clone())));
        }
        seen.remove(of);
        names.remove(of);
        let whole = seen.iter().map(|name| (name, self.units[name].text.as_str()));
        let stand_ins = names.iter().filter(|name| !seen.contains(*name));
        for (name, text) in whole.chain(stand_ins.map(|name| (name, self.stand_in(name)))) {
            let sum = Checksum::of(text.as_bytes());
            closure.bundle.quadlets.insert(name.clone(), sum.clone());
            closure.texts.insert(sum, text.to_string());
        }
        closure
    }

    /// The files that a reference leads to.
    fn found(&self, unit: &Read, to: &Target) -> BTreeMap<String, FileEntry> {
        let mut found = BTreeMap::new();
        let old = self.old_files.filter(|_| unit.stray);
        for files in old.into_iter().chain([self.files]) {
            match to {
                Target::Path { path, .. } => found.extend(
                    at_or_below(files, path).map(|(path, entry)| (path.clone(), entry.clone())),
                ),
                Target::Everything => found.extend(files.clone()),
                _ => {}
            }
        }
        found
    }

    /// The files of the last apply that the folder no longer has, and containers need that it no
    /// longer has either.
    pub(super) fn files_of_strays(&self) -> BTreeMap<String, FileEntry> {
        let strays = self.units.values().filter(|unit| unit.stray);
        let named = strays.flat_map(|unit| {
            unit.references.iter().flat_map(|reference| self.found(unit, &reference.to))
        });
        named.filter(|(path, _)| !self.files.contains_key(path)).collect()
    }

    /// A text under which podman's generator knows the name.
    fn stand_in(&self, name: &UnitName) -> &str {
        let known = STAND_INS.iter().find(|(kind, _)| *kind == name.suffix());
        known.map_or(&self.units[name].text, |(_, text)| text)
    }
}

/// The paths of those `files` that a text names by itself, whatever else comes with it.
pub fn files_named<'f>(
    name: &UnitName,
    text: &str,
    files: &'f BTreeMap<String, FileEntry>,
) -> BTreeSet<&'f str> {
    let references = references(name, &UnitFile::parse_lenient(&as_podman_reads(name, text)));
    let mut named = BTreeSet::new();
    for reference in references {
        match reference.to {
            Target::Path { path, .. } => {
                named.extend(at_or_below(files, &path).map(|(path, _)| path.as_str()));
            }
            Target::Everything => named.extend(files.keys().map(String::as_str)),
            Target::Quadlet(..) | Target::Service(_) | Target::Outside => {}
        }
    }
    named
}

/// The text without the blanks at the ends of its lines: behind a backslash podman passes over
/// them, and goes on with the next line.
fn as_podman_reads<'t>(name: &UnitName, text: &'t str) -> Cow<'t, str> {
    let has = |line: &str| line.trim_end().ends_with('\\') && !line.ends_with('\\');
    if !name.is_quadlet() || !text.lines().any(has) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect())
}

/// The file of that path, or the files in the folder of that path.
fn at_or_below<'f>(
    files: &'f BTreeMap<String, FileEntry>,
    path: &str,
) -> impl Iterator<Item = (&'f String, &'f FileEntry)> {
    let folder = format!("{path}/");
    let below = files.range(folder.clone()..);
    let below = below.take_while(move |(file, _)| file.starts_with(&folder));
    files.get_key_value(path).into_iter().chain(below)
}

fn said(name: &UnitName, reference: &Reference, problem: &str) -> String {
    match reference.line {
        0 => format!("{name}: {}: {problem}", reference.said),
        line => format!("{name}: line {line}: {}: {problem}", reference.said),
    }
}

/// The text with the line that names its bundle at its end, in place of an earlier one.
/// Behind it stands what the Quadlet files in it need of podman, for the planner, which does not
/// read them.
pub(super) fn with_bundle(text: &str, app: &AppName, closure: &Closure) -> String {
    let (mut text, bundle) = (without_bundle(text), &closure.bundle);
    if bundle.is_empty() {
        return text;
    }
    let sum = Checksum::of(&bundle.encode());
    let line = BundleRef { app: app.clone(), sum };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    // A blank line ends a value that a backslash would continue.
    text.push_str(&format!("\n[{SECTION}]\nBundle={line}\n"));
    let quadlets = bundle.quadlets.iter();
    let quadlets =
        quadlets.filter_map(|(name, sum)| Some((name, closure.texts.get(sum)?.as_str())));
    for need in podman::needs_of(quadlets) {
        text.push_str(&format!("BundleNeeds={need}\n"));
    }
    text
}

/// The text as its user wrote it: without the lines that say what comes with it.
pub fn without_bundle(text: &str) -> String {
    let file = UnitFile::parse_lenient(text);
    let ours = file.options.iter().zip(&file.lines).filter(|(option, _)| {
        option.section == SECTION
            && ["Bundle", "BundleNeeds"].contains(&option.name.as_str())
            && !option.value.contains('\n')
    });
    let drop: BTreeSet<usize> = ours.map(|(_, line)| *line).collect();
    if drop.is_empty() {
        return text.to_string();
    }
    let lines = text.split_inclusive('\n').enumerate();
    let kept: String =
        lines.filter(|(at, _)| !drop.contains(&(at + 1))).map(|(_, line)| line).collect();
    // The section that was written for it.
    kept.strip_suffix(&format!("\n[{SECTION}]\n")).map_or(kept.clone(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(units: &[(&str, &str)]) -> BTreeMap<UnitName, String> {
        units
            .iter()
            .map(|(name, text)| (UnitName::parse(name).unwrap(), text.to_string()))
            .collect()
    }

    fn files(paths: &[&str]) -> BTreeMap<String, FileEntry> {
        let entry = |path: &str| FileEntry {
            sum: Checksum::of(path.as_bytes()),
            size: 1,
            executable: false,
        };
        paths.iter().map(|path| (path.to_string(), entry(path))).collect()
    }

    fn records(units: &[(&str, &str)]) -> BTreeMap<UnitName, Arc<UnitRecord>> {
        names(units)
            .into_iter()
            .map(|(name, text)| (name.clone(), Arc::new(UnitRecord::new(name, text))))
            .collect()
    }

    fn problems(units: &[(&str, &str)], paths: &[&str], cluster: &[(&str, &str)]) -> Vec<String> {
        Whole::new(&names(units), &files(paths), &records(cluster)).problems()
    }

    fn closure(units: &[(&str, &str)], paths: &[&str], of: &str) -> String {
        let (files, name) = (files(paths), UnitName::trusted(of));
        let closure = Whole::new(&names(units), &files, &BTreeMap::new()).closure(&name);
        let paths = closure.bundle.files.keys().map(String::as_str);
        let quadlets = closure.bundle.quadlets.keys().map(UnitName::as_str);
        paths.chain(quadlets).collect::<Vec<_>>().join(" ")
    }

    const SHOP: &[(&str, &str)] = &[
        (
            "web@.container",
            "[Container]\nImage=nginx\nNetwork=app.network\nVolume=./nginx.conf:/etc/nginx.conf\n\
                EnvironmentFile=app.env\n",
        ),
        ("db.container", "[Container]\nImage=pg\nNetwork=app.network\nVolume=data.volume:/data\n"),
        ("app.network", "[Network]\nDriver=bridge\n"),
        ("data.volume", "[Volume]\nImage=seed.image\n"),
        ("seed.image", "[Image]\nImage=seed\n"),
        ("job.service", "[Unit]\nRequires=app-network.service\n[Service]\nExecStart=/bin/true\n"),
    ];

    #[test]
    fn what_comes_with_a_unit_is_what_it_names_and_what_that_names() {
        let paths = ["nginx.conf", "app.env", "other"];
        assert_eq!(problems(SHOP, &paths, &[]), [""; 0]);
        for (unit, expected) in [
            ("web@.container", "app.env nginx.conf app.network"),
            ("db.container", "app.network data.volume seed.image"),
            ("job.service", "app.network"),
            ("app.network", ""),
        ] {
            assert_eq!(closure(SHOP, &paths, unit), expected, "{unit}");
        }
    }

    #[test]
    fn a_pod_brings_its_containers_and_what_they_name() {
        let units = [
            ("app@.pod", "[Pod]\nNetwork=app.network\n"),
            ("web@.container", "[Container]\nImage=x\nPod=app@%i.pod\nVolume=./conf:/conf\n"),
            ("log@.container", "[Container]\nImage=x\nPod=app@%i.pod\nVolume=logs.volume:/log\n"),
            ("logs.volume", "[Volume]\n#\nDriver=local\n"),
            ("app.network", "[Network]\nDriver=bridge\n"),
            ("all.build", "[Build]\nImageTag=x\nFile=Containerfile\nSetWorkingDirectory=unit\n"),
        ];
        let paths = ["conf/a", "conf/b", "confx", "Containerfile"];
        assert_eq!(problems(&units, &paths, &[]), [""; 0]);
        assert_eq!(
            closure(&units, &paths, "app@.pod"),
            "conf/a conf/b app.network log@.container logs.volume web@.container"
        );
        let none = BTreeMap::new();
        let whole = Whole::new(&names(&units), &none, &BTreeMap::new());
        assert_eq!(whole.pod(&UnitName::trusted("web@.container")).unwrap().as_str(), "app@.pod");
        assert_eq!(whole.pod(&UnitName::trusted("app@.pod")), None);
        assert_eq!(closure(&units, &paths, "all.build"), "Containerfile conf/a conf/b confx");
    }

    #[test]
    fn of_what_is_only_ordered_after_the_name_alone_comes_along() {
        let units = |image: &str| {
            Whole::new(
                &names(&[
                    ("a.container", "[Unit]\nAfter=b.container\n[Container]\nImage=x\n"),
                    ("b.container", &format!("[Container]\nImage={image}\n")),
                ]),
                &BTreeMap::new(),
                &BTreeMap::new(),
            )
            .closure(&UnitName::trusted("a.container"))
        };
        assert_eq!(units("x").bundle.quadlets.len(), 1);
        assert_eq!(units("x"), units("y"));
    }

    #[test]
    fn what_is_missing_is_said_with_file_and_line() {
        let container = |line: &str| format!("[Container]\nImage=x\n\n\n{line}\n");
        let plain = ["app.env", "conf/x"];
        for (name, line, expected) in [
            (
                "web.container",
                "Network=app.network",
                "web.container: line 5: Network=app.network: there is no app.network in the folder",
            ),
            (
                "web.container",
                "EnvironmentFile=./web.env",
                "web.container: line 5: EnvironmentFile=./web.env: there is no web.env in the folder",
            ),
            (
                "web.container",
                "Volume=../x:/x",
                "web.container: line 5: Volume=../x: the path leads out of the folder, and only the \
                    folder comes along",
            ),
            ("web.container", "Volume=./conf:/x", ""),
            ("web.container", "Network=own.network", ""),
            (
                "web@.container",
                "Network=net@.network",
                "web@.container: line 5: Network=net@.network: net@.network is a template; say \
                    which instance: net@%i.network",
            ),
            ("web@.container", "Network=net@%i.network", ""),
            ("web@2.container", "Network=net@%i.network", ""),
            ("web@2.container", "Network=net@2.network", ""),
            (
                "web@2.container",
                "Network=net@3.network",
                "web@2.container: line 5: Network=net@3.network: there is no net@3.network in the \
                    folder, and of net@.network a unit can only name its own instance, \
                    net@%i.network",
            ),
            (
                "web.container",
                "Network=net@%i.network",
                "web.container: line 5: Network=net@%i.network: web.container is no template, so \
                    %i stands for nothing",
            ),
            (
                "web.container",
                "Pod=far.pod",
                "web.container: line 5: Pod=far.pod: far.pod is not in the folder, and a pod and \
                    its containers come together",
            ),
            (
                "web@.container",
                "Pod=app.pod",
                "web@.container: line 5: Pod=app.pod: web@.container and app.pod are one thing \
                    that is placed together; name both as templates, or none",
            ),
            (
                "web.container",
                "Image=far.build",
                "web.container: line 5: Image=far.build: far.build is not in the folder, and names \
                    files that are not either: File=./Containerfile; bring it along",
            ),
        ] {
            let said = problems(
                &[
                    (name, &container(line)),
                    ("net@.network", "[Network]\nDriver=bridge\n"),
                    ("app.pod", "[Pod]\nPodName=x\n"),
                ],
                &plain,
                &[
                    ("own.network", "[Network]\nDriver=bridge\n"),
                    ("far.pod", "[Pod]\nPodName=y\n"),
                    ("far.build", "[Build]\nFile=./Containerfile\n"),
                ],
            );
            assert_eq!(said.join("\n"), expected);
        }
    }

    #[test]
    fn blanks_behind_a_backslash_end_no_line_for_podman() {
        let text = "[Container]\nImage=x\nEnvironmentFile=a.env \\ \n  b.env \\\t\n  c=d.env\n";
        let units = [("web.container", text)];
        assert_eq!(
            closure(&units, &["a.env", "b.env", "c=d.env"], "web.container"),
            "a.env b.env c=d.env"
        );
        let said = problems(&units, &["a.env", "b.env"], &[]).join("\n");
        assert!(said.contains("there is no c=d.env in the folder"), "{said}");
    }

    #[test]
    fn circles_and_twins_are_refused() {
        let circle = [
            ("a.build", "[Build]\nFile=/x\nVolume=b.volume:/b\n"),
            ("b.volume", "[Volume]\nImage=a.build\n"),
            ("c.container", "[Container]\nImage=a.build\n"),
        ];
        assert_eq!(
            problems(&circle, &[], &[]),
            ["b.volume: line 2: Image=a.build: that goes round in a circle: a.build → b.volume → \
                a.build"]
        );
        let itself = [("c.container", "[Container]\nImage=x\nNetwork=c.container\n")];
        assert_eq!(
            problems(&itself, &[], &[]),
            [
                "c.container: line 3: Network=c.container: that goes round in a circle: c.container → \
                c.container"
            ]
        );
        let twins =
            [("app.container", "[Container]\nImage=x\n"), ("app.kube", "[Kube]\nYaml=/a.yml\n")];
        assert_eq!(
            problems(&twins, &[], &[]),
            ["app.kube: it and app.container would both run as app.service"]
        );
    }

    #[test]
    fn limits_and_paths_are_checked() {
        let mut large = files(&["a/b", "a", "../x"]);
        large.get_mut("a").unwrap().size = MAX_FILE_BYTES + 1;
        large.get_mut("a/b").unwrap().size = u64::MAX;
        let said = Whole::new(&BTreeMap::new(), &large, &BTreeMap::new()).problems();
        assert_eq!(
            said,
            [
                "a: 1048577 bytes; the limit of a file is 1048576 (1 MiB)",
                "a/b: 18446744073709551615 bytes; the limit of a file is 1048576 (1 MiB)",
                "18446744073709551615 bytes in all files; the limit of an application is 16777216 \
                    (16 MiB)",
                "\"../x\" cannot be a file of an application: it must be a path inside the \
                    folder, without \".\", \"..\" or \"//\"",
                "\"a\" is a file, and the folder of \"a/b\"",
            ]
        );
        let many: Vec<String> = (0..=MAX_APP_FILES).map(|n| n.to_string()).collect();
        let many = files(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let said = Whole::new(&BTreeMap::new(), &many, &BTreeMap::new()).problems();
        assert_eq!(said, ["1001 files; the limit of an application is 1000"]);
    }

    #[test]
    fn the_line_that_names_the_bundle_stands_at_the_end_once() {
        let app = AppName::parse("shop").unwrap();
        let bundle = Bundle { files: files(&["x"]), ..Bundle::default() };
        let closure = Closure { bundle, ..Closure::default() };
        for text in [
            "[Service]\nExecStart=/a\n",
            "[Service]\nExecStart=/a",
            "[Service]\nExecStart=/a \\\n",
            "[Service]\nExecStart=/a\n[X-Fleet]\nReplicas=2\n",
            "[Service]\nExecStart=/a\n\n[X-Fleet]\nReplicas=2\n",
        ] {
            let once = with_bundle(text, &app, &closure);
            assert_eq!(with_bundle(&once, &app, &closure), once, "{text:?}");
            let file = UnitFile::parse_lenient(&once);
            assert!(BundleRef::of(&file).is_some(), "{once:?}");
            let mut options = file.options.clone();
            options.pop();
            assert_eq!(
                options.len(),
                UnitFile::parse_lenient(text).options.len(),
                "nothing else: {once:?}"
            );
            let back = without_bundle(&once);
            assert_eq!(back.trim_end_matches('\n'), text.trim_end_matches('\n'));
            assert_eq!(with_bundle(&once, &app, &Closure::default()), back);
        }
        let by_hand = "[X-Fleet]\nBundle=shop/1\nReplicas=2\n[Service]\nA=b\n";
        assert_eq!(without_bundle(by_hand), "[X-Fleet]\nReplicas=2\n[Service]\nA=b\n");
    }
}
