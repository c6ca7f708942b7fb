//! What a unit's text names of its application: other Quadlet files, and plain files.

use crate::name::UnitName;
use crate::unit::file::{UnitFile, UnitOption, words};
use crate::unit::xfleet::expand;

/// Where an instance finds the files of its application, before the stem of its name.
pub const FILES_DIR: &str = "/run/fleet/files/";

/// The options of `[Unit]` whose words podman's generator translates when they name Quadlet files.
const DEPENDENCIES: &[&str] = &[
    "After",
    "Before",
    "BindsTo",
    "Conflicts",
    "PartOf",
    "Requires",
    "Requisite",
    "Upholds",
    "Wants",
];

/// Those of them that start what they name.
const STARTING: &[&str] = &["BindsTo", "Requires", "Upholds", "Wants"];

/// One thing that a text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// The line of the option, from 1.
    pub(super) line: usize,
    /// The option, with the word that names it: `Network=app.network`.
    pub(super) said: String,
    /// What is named.
    pub(super) to: Target,
}

impl Reference {
    /// The Quadlet file that is named, if it is one.
    pub(super) fn quadlet(self) -> Option<UnitName> {
        match self.to {
            Target::Quadlet(name, _) => Some(name),
            _ => None,
        }
    }
}

/// What a text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A Quadlet file, and how. For a template `%i` stands for nothing here: `app@%i.network` is
    /// `app@.network`.
    Quadlet(UnitName, How),
    /// A service that podman makes of a Quadlet file.
    Service(UnitName),
    /// A file of the folder, or a folder of it. Without `must` it may be missing.
    Path {
        /// Inside the folder, without `./`.
        path: String,
        /// Whether what reads the unit fails without it.
        must: bool,
    },
    /// Every file of the folder.
    Everything,
    /// What is outside the folder.
    Outside,
}

/// How a Quadlet file is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Its service is needed: `Network=app.network`.
    Needed,
    /// The same, and `%i` says which: `Network=app@%i.network`.
    NeededOfInstance,
    /// It runs by itself, and only its name is looked at: `After=db.container`.
    Name,
}

/// All that the text of the unit `name` names, in the order of its lines.
pub(super) fn references(name: &UnitName, file: &UnitFile) -> Vec<Reference> {
    let mut found = Vec::new();
    for (option, &line) in file.options.iter().zip(&file.lines) {
        let mut look = Look { name, option, line, found: &mut found };
        let value = option.value.replace("\\\n", " ");
        look.option(&value, file);
        look.in_the_files_folder(&value);
    }
    if name.suffix() == "build" && file.last("Build", "File").is_none() {
        let said = "[Build] without File=".to_string();
        found.push(Reference { line: 0, said, to: Target::Everything });
    }
    found
}

/// The pod that a container says it belongs to, by its own words: `app@%i.pod`.
pub fn pod_of(name: &UnitName, file: &UnitFile) -> Option<UnitName> {
    let pod = file.last("Container", "Pod").filter(|_| name.suffix() == "container")?;
    UnitName::read(&expand(pod.trim(), name)).filter(|pod| pod.suffix() == "pod")
}

struct Look<'a> {
    name: &'a UnitName,
    option: &'a UnitOption,
    line: usize,
    found: &'a mut Vec<Reference>,
}

impl Look<'_> {
    fn add(&mut self, word: &str, to: Target) {
        let said = format!("{}={word}", self.option.name);
        self.found.push(Reference { line: self.line, said, to });
    }

    /// What podman and systemd make of the option.
    fn option(&mut self, value: &str, file: &UnitFile) {
        let value = value.trim();
        let UnitOption { section, name: option, .. } = self.option;
        if section == "Unit" && DEPENDENCIES.contains(&option.as_str()) {
            value.split_whitespace().for_each(|word| self.dependency(word));
            return;
        }
        if !self.name.is_quadlet() {
            return;
        }
        let head = value.split(':').next().unwrap_or_default().trim();
        match (section.as_str(), option.as_str()) {
            ("Container" | "Volume", "Image") => self.quadlet(value, &["image", "build"]),
            ("Container" | "Pod" | "Kube" | "Build", "Network") => {
                self.quadlet(head, &["network", "container"]);
            }
            ("Container" | "Pod" | "Build", "Volume") => match head.starts_with('.') {
                true => self.path(head, true),
                false => self.quadlet(head, &["volume"]),
            },
            ("Container", "Mount") => words(value).iter().for_each(|mount| self.mount(mount)),
            ("Container", "Pod") => self.quadlet(value, &["pod"]),
            ("Container", "EnvironmentFile") | ("Kube", "ConfigMap" | "Yaml") => {
                let relative = |word: &&String| is_relative(word);
                words(value).iter().filter(relative).for_each(|word| self.path(word, true));
            }
            ("Build", "File") if is_relative(value) => {
                let place = file.last("Build", "SetWorkingDirectory").map(str::trim);
                // A file beside its context is looked for there.
                let context = place.filter(|place| is_relative(place) && !is_word(place));
                let path = context.map(|context| format!("{context}/{value}"));
                self.path(path.as_deref().unwrap_or(value), true);
            }
            ("Build" | "Kube", "SetWorkingDirectory") if is_word(value) => {
                self.add(value, Target::Everything);
            }
            ("Build", "SetWorkingDirectory") if is_relative(value) => self.path(value, true),
            _ => {
                let beside = |word: &&String| word.starts_with("./");
                words(value).iter().filter(beside).for_each(|word| self.path(word, false));
            }
        }
    }

    fn dependency(&mut self, word: &str) {
        let word = word.trim_matches(['"', '\'']);
        let Some(name) = UnitName::read(&expand(word, self.name)) else { return };
        if name.is_quadlet() && self.name.is_quadlet() {
            let how = match (name.is_shared(), word.contains("%i")) {
                (false, _) => How::Name,
                (true, true) => How::NeededOfInstance,
                (true, false) => How::Needed,
            };
            self.add(word, Target::Quadlet(name, how));
        } else if name.suffix() == "service" && STARTING.contains(&self.option.name.as_str()) {
            self.add(word, Target::Service(name));
        }
    }

    /// A word that names a Quadlet file of one of these kinds, or something else.
    fn quadlet(&mut self, word: &str, kinds: &[&str]) {
        let name = UnitName::read(&expand(word, self.name));
        let Some(name) = name.filter(|name| kinds.contains(&name.suffix())) else { return };
        let how = if word.contains("%i") { How::NeededOfInstance } else { How::Needed };
        self.add(word, Target::Quadlet(name, how));
    }

    /// `type=bind,source=./a,target=/b`.
    fn mount(&mut self, mount: &str) {
        let fields = mount.split(',').map(|field| field.trim_matches('"'));
        let options: Vec<(&str, &str)> = fields.filter_map(|field| field.split_once('=')).collect();
        let last = |keys: &[&str]| {
            options.iter().rev().find(|(key, _)| keys.contains(key)).map(|(_, value)| *value)
        };
        let Some(source) = last(&["source", "src"]) else { return };
        match last(&["type"]) {
            Some("volume") | None => self.quadlet(source, &["volume"]),
            Some("image") => self.quadlet(source, &["image", "build"]),
            Some(_) if source.starts_with('.') => self.path(source, true),
            Some(_) => {}
        }
    }

    /// A path beside the unit's file.
    fn path(&mut self, word: &str, must: bool) {
        let to = match inside(word) {
            Some(path) if path.is_empty() => Target::Everything,
            Some(path) => Target::Path { path, must },
            None if must => Target::Outside,
            None => return,
        };
        self.add(word, to);
    }

    /// What the value names below the instance's own folder, `/run/fleet/files/%N/…`.
    fn in_the_files_folder(&mut self, value: &str) {
        let mut rest = value;
        while let Some(at) = rest.find(FILES_DIR) {
            let optional = rest[..at].ends_with('-');
            rest = &rest[at + FILES_DIR.len()..];
            let ends = |c: char| c.is_whitespace() || "\"':,;()".contains(c);
            let path = &rest[..rest.find(ends).unwrap_or(rest.len())];
            let (whose, path) = path.split_once('/').unwrap_or((path, ""));
            let stem = self.name.systemd_name();
            if whose != "%N" && expand(whose, self.name) != stem.stem() {
                continue;
            }
            let word = format!("{FILES_DIR}{whose}/{path}");
            match inside(path) {
                Some(path) if path.is_empty() => self.add(&word, Target::Everything),
                Some(path) => self.add(&word, Target::Path { path, must: !optional }),
                None => self.add(&word, Target::Outside),
            }
        }
    }
}

/// A relative path without `.` and `..`, up to the first part that only the machine knows; `None`
/// if it leads out of the folder.
fn inside(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            open if open.contains(['%', '*', '?', '[', '$']) => break,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Whether it is one of Quadlet's words for a folder: that of the unit, or of a file.
fn is_word(value: &str) -> bool {
    ["unit", "file", "yaml"].contains(&value.to_ascii_lowercase().as_str())
}

/// Whether podman's generator takes a path for one beside the file: a specifier may stand for a
/// whole path.
fn is_relative(path: &str) -> bool {
    let is_url = path.contains("://") || path.starts_with("git@");
    !is_url && !path.starts_with('/') && (!path.starts_with('%') || path.starts_with("%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// References as lines: `2 Network=app.network: app.network`.
    fn said(name: &str, text: &str) -> Vec<String> {
        let file = UnitFile::parse(text).unwrap();
        let target = |to: &Target| match to {
            Target::Quadlet(name, How::Needed) => name.to_string(),
            Target::Quadlet(name, How::NeededOfInstance) => format!("{name} (%i)"),
            Target::Quadlet(name, How::Name) => format!("{name} (name)"),
            Target::Service(name) => name.to_string(),
            Target::Path { path, must: true } => format!("./{path}"),
            Target::Path { path, must: false } => format!("./{path}?"),
            Target::Everything => "all".to_string(),
            Target::Outside => "outside".to_string(),
        };
        references(&UnitName::parse(name).unwrap(), &file)
            .iter()
            .map(|one| format!("{} {}: {}", one.line, one.said, target(&one.to)))
            .collect()
    }

    #[test]
    fn a_container_names_quadlet_files_and_paths() {
        for (line, expected) in [
            ("Image=docker.io/library/nginx:1", ""),
            ("Image=web.image", "Image=web.image: web.image"),
            ("Image=web.build", "Image=web.build: web.build"),
            ("Network=app.network:ip=10.0.0.2", "Network=app.network: app.network"),
            ("Network=host", ""),
            ("Network=db.container", "Network=db.container: db.container"),
            ("Volume=data.volume:/x:Z", "Volume=data.volume: data.volume"),
            ("Volume=data:/x", ""),
            ("Volume=/srv/x:/x", ""),
            ("Volume=./conf/:/etc/nginx:ro", "Volume=./conf/: ./conf"),
            ("Volume=.:/x", "Volume=.: all"),
            ("Volume=../x:/x", "Volume=../x: outside"),
            ("Volume=./conf/%i.conf:/x", "Volume=./conf/%i.conf: ./conf"),
            ("Pod=app.pod", "Pod=app.pod: app.pod"),
            (
                "EnvironmentFile=app.env \\\n  \"./b c.env\" /etc/x",
                "EnvironmentFile=app.env: ./app.env; EnvironmentFile=./b c.env: ./b c.env",
            ),
            ("EnvironmentFile=%h/x.env", ""),
            ("Mount=type=volume,source=data.volume,target=/x", "Mount=data.volume: data.volume"),
            ("Mount=type=image,src=x.image,target=/x", "Mount=x.image: x.image"),
            ("Mount=type=bind,source=./a,target=/b", "Mount=./a: ./a"),
            ("Mount=type=glob,src=./conf/*.conf,target=/b", "Mount=./conf/*.conf: ./conf"),
            ("Mount=type=tmpfs,target=/b", ""),
            ("Exec=sh ./run.sh", "Exec=./run.sh: ./run.sh?"),
            (
                "Volume=/run/fleet/files/%N/nginx.conf:/etc/nginx.conf:ro",
                "Volume=/run/fleet/files/%N/nginx.conf: ./nginx.conf",
            ),
            (
                "PodmanArgs=--env-file=/run/fleet/files/web/a",
                "PodmanArgs=/run/fleet/files/web/a: ./a",
            ),
            ("PodmanArgs=--env-file=/run/fleet/files/other/a", ""),
        ] {
            let mut expected: Vec<String> =
                expected.split("; ").filter(|part| !part.is_empty()).map(str::to_string).collect();
            expected.iter_mut().for_each(|part| part.insert_str(0, "2 "));
            assert_eq!(
                said("web.container", &format!("[Container]\n{line}\n")),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn other_kinds_name_what_podman_looks_for_in_them() {
        for (name, text, expected) in [
            ("a.kube", "[Kube]\nYaml=app.yml\n", "2 Yaml=app.yml: ./app.yml"),
            (
                "a.kube",
                "[Kube]\nYaml=/etc/app.yml\nConfigMap=./c.yml\n",
                "3 ConfigMap=./c.yml: ./c.yml",
            ),
            ("a.kube", "[Kube]\nYaml=https://example.com/a.yml\n", ""),
            ("a.pod", "[Pod]\nNetwork=x.network\n", "2 Network=x.network: x.network"),
            ("a.volume", "[Volume]\nImage=x.image\n", "2 Image=x.image: x.image"),
            (
                "a.build",
                "[Build]\nFile=./Containerfile\n",
                "2 File=./Containerfile: ./Containerfile",
            ),
            ("a.build", "[Build]\nImageTag=x\n", "0 [Build] without File=: all"),
            (
                "a.build",
                "[Build]\nFile=Containerfile\nSetWorkingDirectory=unit\n",
                "2 File=Containerfile: ./Containerfile; 3 SetWorkingDirectory=unit: all",
            ),
            (
                "a.build",
                "[Build]\nFile=C\nSetWorkingDirectory=./src\n",
                "2 File=./src/C: ./src/C; 3 SetWorkingDirectory=./src: ./src",
            ),
            ("a.network", "[Network]\nDriver=bridge\n", ""),
            (
                "a.service",
                "[Service]\nExecStart=/bin/sh ./x /run/fleet/files/%N/run.sh\n",
                "2 ExecStart=/run/fleet/files/%N/run.sh: ./run.sh",
            ),
            (
                "a.service",
                "[Service]\nWorkingDirectory=/run/fleet/files/%N\nEnvironmentFile=-/run/fleet/files/%N/x\n",
                "2 WorkingDirectory=/run/fleet/files/%N/: all; \
                    3 EnvironmentFile=/run/fleet/files/%N/x: ./x?",
            ),
            (
                "a.service",
                "[Unit]\nRequires=db.service app-network.service\nAfter=x.service\n[Service]\nA=b\n",
                "2 Requires=db.service: db.service; \
                    2 Requires=app-network.service: app-network.service",
            ),
            (
                "a.container",
                "[Unit]\nAfter=db.container\n[Container]\nA=b\n",
                "2 After=db.container: db.container (name)",
            ),
        ] {
            assert_eq!(said(name, text).join("; "), expected, "{name}: {text}");
        }
    }

    #[test]
    fn specifiers_stand_for_the_unit_that_names() {
        let text = "[Container]\nNetwork=app@%i.network\nVolume=%p-data.volume:/x\n";
        assert_eq!(
            said("web@.container", text),
            [
                "2 Network=app@%i.network: app@.network (%i)",
                "3 Volume=%p-data.volume: web-data.volume"
            ]
        );
        assert_eq!(
            said("web@3.container", text)[0],
            "2 Network=app@%i.network: app@3.network (%i)"
        );
        let file = UnitFile::parse("[Container]\nPod=app@%i.pod\n").unwrap();
        let pod = pod_of(&UnitName::trusted("web@.container"), &file);
        assert_eq!(pod, Some(UnitName::trusted("app@.pod")));
        assert_eq!(pod_of(&UnitName::trusted("web.kube"), &file), None);
    }
}
