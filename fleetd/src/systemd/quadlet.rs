//! Quadlet units: podman's own generator turns a Quadlet file, with those that it names and the
//! files that come with it, into services, in a folder of its own.
//!
//! Podman does this at daemon-reload; asking its generator directly spares the reload, and gives
//! its words when a text is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use fleet_core::app::path_refusal;
use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::podman::major_minor;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

mod instances;

pub use instances::one_by_one;

/// Where distributions put the generator.
pub const GENERATORS: &[&str] = &[
    "/usr/libexec/podman/quadlet",
    "/usr/lib/podman/quadlet",
    "/usr/local/libexec/podman/quadlet",
];

/// Where a host has Quadlet files of its own, in podman's order.
const HOSTS_FOLDERS: &[&str] = &[
    "/run/containers/systemd",
    "/etc/containers/systemd",
    "/usr/local/share/containers/systemd",
    "/usr/share/containers/systemd",
];

const NO_GENERATOR: &str = "podman's Quadlet generator is not installed on this machine; install \
    podman 4.4 or later";

/// It takes milliseconds; when it hangs, something is wrong with the machine.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The most that the generator may print, in bytes: far more than it makes of the largest
/// application, and no danger to fleetd's memory.
const LONGEST_OUTPUT: u64 = 32 * 1024 * 1024;

/// The same of what it says on stderr.
const LONGEST_WORDS: u64 = 256 * 1024;

/// How long the generator may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked whether it has.
const VERSION_LOOK: Duration = Duration::from_millis(5);

/// The version of this host's podman, as its generator says it: `5.4.2`. Empty if there is none;
/// `None` if it does not say.
pub fn version_of_host() -> Option<String> {
    match GENERATORS.iter().map(Path::new).find(|path| path.exists()) {
        Some(generator) => version(generator),
        None => Some(String::new()),
    }
}

fn version(generator: &Path) -> Option<String> {
    let mut command = std::process::Command::new(generator);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let begin = Instant::now();
    while begin.elapsed() < VERSION_LIMIT {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(VERSION_LOOK),
            _ => break,
        }
    }
    let _ = child.kill(); // it has ended, or hangs
    let _ = child.wait();
    let mut said = String::new();
    child.stdout.take()?.take(64).read_to_string(&mut said).ok()?;
    let said = said.trim();
    major_minor(said).map(|_| said.to_string())
}

/// What a unit is translated with.
#[derive(Debug, Clone, Copy, Default)]
pub struct With<'a> {
    /// The Quadlet files of its bundle, by name.
    pub quadlets: Option<&'a BTreeMap<UnitName, String>>,
    /// The other files of its bundle, by path.
    pub files: &'a [(&'a str, &'a [u8])],
    /// The folder of the folders, one a service, where services find their files; none if the unit
    /// has no bundle.
    pub root: Option<&'a Path>,
}

/// What podman makes of a unit and its bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// The text of the unit's own service.
    pub main: String,
    /// The services that must be there beside it, by name: networks, volumes and the like, and the
    /// containers of a pod.
    pub beside: BTreeMap<UnitName, Made>,
}

/// A service that podman makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The Quadlet file that it is made of.
    pub quadlet: UnitName,
    /// Its text.
    pub text: String,
}

/// What podman says of Quadlet files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Those that it makes no services of, each with the line, where one is known, and the reason.
    pub refused: BTreeMap<UnitName, (Option<usize>, String)>,
    /// Those whose type it does not know.
    pub unknown: BTreeSet<UnitName>,
}

/// podman's generator on this host.
#[derive(Debug, Clone)]
pub struct Generator {
    /// Where it may be.
    programs: Vec<PathBuf>,
    /// Where it finds files, in folders that are there for a moment.
    scratch: PathBuf,
}

impl Generator {
    /// That of the host. Nobody but this process's user may write into `scratch`.
    pub fn of_host(scratch: PathBuf) -> Generator {
        Generator { programs: GENERATORS.iter().map(PathBuf::from).collect(), scratch }
    }

    /// Another program in its place.
    pub fn at(program: PathBuf, scratch: PathBuf) -> Generator {
        Generator { programs: vec![program], scratch }
    }

    /// Takes away what a killed process left of its translations: texts, and files of up to 16 MiB.
    pub fn tidy(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.scratch) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// The services that podman makes of the Quadlet unit `name` (`web.container`, `web@1.pod`)
    /// with the text `text`, in a folder of its own. What podman makes of a path relative to that
    /// folder leads to the service's own folder under [`With::root`].
    ///
    /// The host's own Quadlet files are there, too, behind those of the bundle. The error is for
    /// the user: the generator's own words, or that there is none on this machine.
    pub async fn translate(
        &self,
        name: &UnitName,
        text: &str,
        with: With<'_>,
    ) -> Result<Translated, String> {
        let generator = self.programs.iter().find(|path| path.exists()).ok_or(NO_GENERATOR)?;
        run(generator, &self.scratch, name, text, with).await
    }

    /// What podman refuses of Quadlet files that come together with files of these paths. The error
    /// says why nobody can tell on this machine.
    pub async fn check(
        &self,
        quadlets: &BTreeMap<UnitName, String>,
        paths: &[&str],
    ) -> Result<Checked, String> {
        let generator = self.programs.iter().find(|path| path.exists()).ok_or(NO_GENERATOR)?;
        let files = instances::all(quadlets);
        let texts: BTreeMap<UnitName, String> =
            files.iter().map(|(file, (_, text))| (file.clone(), text.clone())).collect();
        let folder = Folder::new(&self.scratch).map_err(no_folder)?;
        let empty: Vec<(&str, &[u8])> = paths.iter().map(|path| (*path, &b""[..])).collect();
        folder.fill(&texts, &empty)?;
        let Said { stdout, stderr } = ask(generator, &folder.0).await?;
        let made = services(&stdout, &folder.0);
        let mut checked = Checked::default();
        for (file, (name, _)) in files.iter().filter(|(file, _)| !made.contains_key(*file)) {
            let one = BTreeMap::from([(file.clone(), String::new())]);
            let said = Words { stderr: &stderr, folder: &folder.0, quadlets: &one };
            match said.is_unknown(file) {
                true => drop(checked.unknown.insert(name.clone())),
                false => {
                    let words = said.complaint(file).replace(file.as_str(), name.as_str());
                    let line = line_of(&quadlets[name], &words);
                    checked.refused.insert(name.clone(), (line, words));
                }
            }
        }
        Ok(checked)
    }
}

/// The line of the option that podman does not know, where it names one.
fn line_of(text: &str, words: &str) -> Option<usize> {
    let quoted = |behind: &str| words.split_once(behind)?.1.split_once('\'').map(|(it, _)| it);
    let (key, group) = (quoted("unsupported key '")?, quoted("in group '")?);
    let file = UnitFile::parse_lenient(text);
    let mut options = file.options.iter().zip(&file.lines);
    let found = options.find(|(option, _)| option.section == group && option.name == key);
    found.map(|(_, line)| *line)
}

fn no_folder(error: io::Error) -> String {
    format!("cannot make a folder for podman's Quadlet generator: {error}")
}

async fn run(
    generator: &Path,
    scratch: &Path,
    name: &UnitName,
    text: &str,
    with: With<'_>,
) -> Result<Translated, String> {
    let none = BTreeMap::new();
    let quadlets = instances::files(name, text, with.quadlets.unwrap_or(&none))?;
    let folder = Folder::new(scratch).map_err(no_folder)?;
    folder.fill(&quadlets, with.files)?;
    let Said { stdout, stderr } = ask(generator, &folder.0).await?;
    let said = Words { stderr: &stderr, folder: &folder.0, quadlets: &quadlets };
    let made = services(&stdout, &folder.0);
    let mut translated = BTreeMap::new();
    for quadlet in quadlets.keys() {
        let wanted = quadlet.systemd_name();
        let Some((service, text)) = made.get(quadlet) else {
            return Err(said.complaint(quadlet));
        };
        if *service != wanted.as_str() {
            return Err(format!(
                "podman's Quadlet generator makes {service} of {quadlet}, and fleet runs it as \
                 {wanted}; leave ServiceName= out"
            ));
        }
        translated.insert(quadlet, at_home(text, &folder.0, with.root)?);
    }
    let main = translated.remove(name).ok_or("podman's Quadlet generator made nothing of it")?;
    let pod = name.systemd_name();
    let belongs = |quadlet: &UnitName, text: &str| {
        let bound = || {
            let file = UnitFile::parse_lenient(text);
            file.values("Unit", "BindsTo").any(|other| other == pod.as_str())
        };
        quadlet.is_shared() || (name.suffix() == "pod" && bound())
    };
    let beside = translated
        .into_iter()
        .filter(|(quadlet, text)| belongs(quadlet, text))
        .map(|(quadlet, text)| (quadlet.systemd_name(), Made { quadlet: quadlet.clone(), text }))
        .collect();
    Ok(Translated { main, beside })
}

/// What the generator printed.
struct Said {
    stdout: String,
    stderr: String,
}

/// Runs the generator on the files in `folder`. What it returns says nothing: it fails for the sake
/// of the host's own files, too.
async fn ask(generator: &Path, folder: &Path) -> Result<Said, String> {
    let hosts = HOSTS_FOLDERS.iter().map(Path::new).filter(|folder| folder.is_dir());
    let folders: Vec<&Path> = std::iter::once(folder).chain(hosts).collect();
    let folders = std::env::join_paths(folders).map_err(|error| error.to_string())?;
    let mut command = Command::new(generator);
    command.args(["--dryrun", "--no-kmsg-log"]).env("QUADLET_UNIT_DIRS", folders);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let cannot = |error: io::Error| format!("cannot run {}: {error}", generator.display());
    let mut child = command.spawn().map_err(cannot)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let all = async {
        let (stdout, stderr) = tokio::try_join!(
            at_most(stdout, LONGEST_OUTPUT, "podman's Quadlet generator printed more than 32 MiB"),
            at_most(stderr, LONGEST_WORDS, "podman's Quadlet generator complained without end"),
        )?;
        child.wait().await.map_err(cannot)?;
        Ok(Said { stdout, stderr })
    };
    tokio::time::timeout(TIME_LIMIT, all).await.unwrap_or_else(|_| {
        let limit = TIME_LIMIT.as_secs();
        Err(format!("podman's Quadlet generator did not answer within {limit} s"))
    })
}

/// All that comes, unless it is more than `limit`; then `too_much` is the error.
async fn at_most(
    from: Option<impl AsyncRead + Unpin>,
    limit: u64,
    too_much: &str,
) -> Result<String, String> {
    let mut bytes = Vec::new();
    let Some(from) = from else { return Ok(String::new()) };
    let read = from.take(limit + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| format!("cannot read what podman's Quadlet generator says: {error}"))?;
    match bytes.len() as u64 > limit {
        true => Err(too_much.to_string()),
        false => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// The services in the generator's output that are made of files in `folder`, by those files, each
/// with its name and text.
fn services<'o>(output: &'o str, folder: &Path) -> BTreeMap<UnitName, (&'o str, String)> {
    let mut services = BTreeMap::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(service) = header(line) else { continue };
        let (mut text, mut source) = (String::new(), None);
        while let Some(line) = lines.next_if(|line| header(line).is_none()) {
            // It would point into the folder of the translation; systemd would find the unit
            // changed for ever.
            match line.strip_prefix("SourcePath=") {
                Some(path) => source = Path::new(path).strip_prefix(folder).ok(),
                None => text.extend([line, "\n"]),
            }
        }
        let quadlet = source.and_then(Path::to_str).and_then(|name| UnitName::parse(name).ok());
        if let Some(quadlet) = quadlet {
            services.insert(quadlet, (service, format!("{}\n", text.trim())));
        }
    }
    services
}

/// The service whose text follows.
fn header(line: &str) -> Option<&str> {
    line.strip_prefix("---")?.strip_suffix("---").filter(|name| name.ends_with(".service"))
}

/// The text with each path in `folder` as the service finds it when it runs.
fn at_home(text: &str, folder: &Path, root: Option<&Path>) -> Result<String, String> {
    let folder = folder.to_string_lossy();
    match root {
        _ if !text.contains(&*folder) => Ok(text.to_string()),
        Some(root) => Ok(text.replace(&*folder, &format!("{}/%N", root.display()))),
        // Written in a way that the check at submit does not see, or accepted before there was one.
        None => Err("a path in it is relative, and no folder comes with a unit; write the whole \
             path, or apply the unit with its folder"
            .to_string()),
    }
}

/// What the generator said on stderr.
struct Words<'a> {
    stderr: &'a str,
    folder: &'a Path,
    quadlets: &'a BTreeMap<UnitName, String>,
}

impl Words<'_> {
    /// Whether the generator passed over the file: it knows no such type.
    fn is_unknown(&self, quadlet: &UnitName) -> bool {
        let loads = self.stderr.contains("Loading source");
        loads && !self.stderr.contains(&format!("{}/{quadlet}", self.folder.display()))
    }

    /// Why there is no service of `quadlet`: without the generator's own name, its progress, our
    /// folder's name, what it says of the host's files, and, where it gave a reason, its warnings.
    fn complaint(&self, quadlet: &UnitName) -> String {
        let folder = format!("{}/", self.folder.display());
        let words = |line: &str| {
            let said = match line.split_once("]: ") {
                Some((head, said)) if head.starts_with("quadlet-generator[") => said,
                _ => line,
            };
            said.replace(&folder, "")
        };
        let said = self.stderr.lines().map(words).filter(|line| !line.is_empty());
        let (progress, said): (Vec<String>, Vec<String>) =
            said.partition(|line| line.starts_with("Loading source"));
        let (warnings, reasons): (Vec<String>, Vec<String>) =
            said.into_iter().partition(|line| line.to_lowercase().starts_with("warning"));
        let ours = |line: &&String| self.quadlets.keys().any(|name| line.contains(name.as_str()));
        let about_us: Vec<&String> = reasons.iter().filter(ours).collect();
        let reasons: Vec<&String> =
            if about_us.is_empty() { reasons.iter().collect() } else { about_us };
        let joined = |lines: Vec<&String>| {
            lines.into_iter().map(String::as_str).collect::<Vec<_>>().join("; ")
        };
        let service = quadlet.systemd_name();
        let silent = format!("podman's Quadlet generator made no {service} of {quadlet}");
        let kind = quadlet.suffix();
        match (reasons.is_empty(), warnings.is_empty()) {
            (false, _) => joined(reasons),
            _ if !progress.is_empty() && self.is_unknown(quadlet) => {
                format!("this machine's podman knows no .{kind} files ({quadlet}); it is too old")
            }
            (true, false) => {
                format!("{silent}; it only said: {}", joined(warnings.iter().collect()))
            }
            (true, true) => format!("{silent} and gave no reason"),
        }
    }
}

/// A folder for one translation, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(scratch: &Path) -> io::Result<Folder> {
        private(scratch)?;
        // The generator names the place where a link leads.
        let path = fs::canonicalize(scratch)?.join(uuid::Uuid::new_v4().simple().to_string());
        private(&path)?;
        Ok(Folder(path))
    }

    /// Writes what is to be translated.
    fn fill(
        &self,
        quadlets: &BTreeMap<UnitName, String>,
        files: &[(&str, &[u8])],
    ) -> Result<(), String> {
        for (path, content) in files {
            // A path becomes a file: the last place where a bad one is found.
            if let Some(problem) = path_refusal(path) {
                return Err(problem);
            }
            let path = self.0.join(path);
            if let Some(folder) = path.parent() {
                private(folder).map_err(|error| cannot_write(folder, &error))?;
            }
            fs::write(&path, content).map_err(|error| cannot_write(&path, &error))?;
        }
        for (name, text) in quadlets {
            UnitName::parse(name.as_str()).map_err(|problem| problem.to_string())?;
            let path = self.0.join(name.as_str());
            fs::write(&path, text).map_err(|error| cannot_write(&path, &error))?;
        }
        Ok(())
    }
}

/// Unit files may carry secrets: nobody else reads along.
fn private(folder: &Path) -> io::Result<()> {
    std::os::unix::fs::DirBuilderExt::mode(fs::DirBuilder::new().recursive(true), 0o700)
        .create(folder)
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_what_the_generator_says_and_unknown_if_it_does_not() {
        let folder = tempfile::tempdir().unwrap();
        for (script, expected) in
            [("echo 5.4.2", Some("5.4.2")), ("echo usage", None), ("yes", None), ("exit 1", None)]
        {
            let generator = folder.path().join("quadlet");
            let recipe = format!(
                "printf '#!/bin/sh\\n{script}\\n' > '{0}' && chmod +x '{0}'",
                generator.display()
            );
            let made = std::process::Command::new("sh").args(["-c", &recipe]).status();
            assert!(made.unwrap().success());
            assert_eq!(version(&generator).as_deref(), expected, "{script}");
        }
    }

    /// A generator that prints what podman 5.4.2 printed. `$D` is the folder of the translation.
    async fn with_generator(
        script: &str,
        name: &str,
        with: With<'_>,
    ) -> Result<Translated, String> {
        let folder = tempfile::tempdir().unwrap();
        let generator = folder.path().join("quadlet");
        // Written by another process: a program that a process of ours still has open for writing,
        // by a fork, cannot be run.
        let recipe = format!(
            "cat > '{0}' <<'END' && chmod +x '{0}'\n#!/bin/sh\nD=${{QUADLET_UNIT_DIRS%%:*}}\n\
             made() {{ printf '%s\\n' \"---$1---\" '[Unit]' \"SourcePath=$D/$2\" \"$3\" ''; }}\n\
             {script}\nEND\n",
            generator.display()
        );
        assert!(std::process::Command::new("sh").args(["-c", &recipe]).status().unwrap().success());
        let scratch = folder.path().join("quadlet.d");
        let name = UnitName::parse(name).unwrap();
        let translated = run(&generator, &scratch, &name, "[Container]\nImage=x\n", with).await;
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&scratch).unwrap().permissions());
        assert_eq!(
            (mode & 0o777, fs::read_dir(&scratch).unwrap().count()),
            (0o700, 0),
            "nobody else's, and empty again"
        );
        translated
    }

    async fn alone(script: &str, name: &str) -> Result<Translated, String> {
        with_generator(script, name, With::default()).await
    }

    fn quadlets(all: &[(&str, &str)]) -> BTreeMap<UnitName, String> {
        all.iter().map(|(name, text)| (UnitName::trusted(*name), text.to_string())).collect()
    }

    #[tokio::test]
    async fn a_path_that_podman_made_of_a_relative_one_is_refused_where_no_folder_comes_along() {
        let script = "made web.service web.container \"X=podman run -v $D/conf:/conf x\"";
        let expected = "a path in it is relative, and no folder comes with a unit; write the whole \
            path, or apply the unit with its folder";
        assert_eq!(alone(script, "web.container").await.unwrap_err(), expected);
    }

    #[tokio::test]
    async fn the_service_is_taken_from_the_dry_run() {
        let script = "made web@1.service web@1.container \"$(cat $D/web@1.container)\"; exit 1";
        let translated = alone(script, "web@1.container").await.unwrap();
        assert_eq!(translated.main, "[Unit]\n[Container]\nImage=x\n");
        assert_eq!(translated.beside, BTreeMap::new());
    }

    #[tokio::test]
    async fn what_a_unit_names_is_made_beside_it_and_paths_lead_to_the_services_own_folders() {
        let script = "made host.service ../../etc/host.container Other=1
            made app-network.service app.network \"X=$D\"
            made data-volume.service data.volume \"$(cat $D/conf/a)\"
            made web@.service web@.container \"X=podman run -v $D/conf:/conf $D/conf/a\"
            made side.service side.container 'BindsTo=web@.service'";
        let others = quadlets(&[("app.network", ""), ("data.volume", ""), ("side.container", "")]);
        let with = With {
            quadlets: Some(&others),
            files: &[("conf/a", b"[Content]")],
            root: Some(Path::new("/run/fleet/files")),
        };
        let Translated { main, beside } =
            with_generator(script, "web@.container", with).await.unwrap();
        assert_eq!(
            main,
            "[Unit]\nX=podman run -v /run/fleet/files/%N/conf:/conf /run/fleet/files/%N/conf/a\n"
        );
        let beside: String = beside
            .iter()
            .map(|(name, made)| format!("{name} of {}: {}", made.quadlet, made.text))
            .collect();
        assert_eq!(
            beside,
            "app-network.service of app.network: [Unit]\nX=/run/fleet/files/%N\n\
             data-volume.service of data.volume: [Unit]\n[Content]\n",
            "a container that another unit names runs for itself"
        );
    }

    #[tokio::test]
    async fn an_instance_of_a_pod_brings_its_containers() {
        let script = "made web@2.service web@2.container 'BindsTo=app@2-pod.service'
            made app@2-pod.service app@2.pod \"Wants=$(ls $D | tr '\\n' ' ')\"";
        let others = quadlets(&[("web@.container", "[Container]\nPod=app@%i.pod\n")]);
        let with = With { quadlets: Some(&others), ..With::default() };
        let Translated { main, beside } = with_generator(script, "app@2.pod", with).await.unwrap();
        assert_eq!(main, "[Unit]\nWants=app@2.pod web@2.container\n");
        assert_eq!(beside[&UnitName::trusted("web@2.service")].quadlet.as_str(), "web@2.container");
    }

    #[tokio::test]
    async fn a_refusal_is_the_generators_own_words_and_says_nothing_of_the_hosts_files() {
        let script = "echo \"quadlet-generator[90]: Loading source unit file \
            $D/web.container\" >&2
            echo \"quadlet-generator[90]: converting \\\"hosts.container\\\": no Image\" >&2
            echo \"quadlet-generator[90]: converting \\\"web.container\\\": unsupported key 'Foo' \
            in group 'Container' in $D/web.container\" >&2
            exit 1";
        let expected = "converting \"web.container\": unsupported key 'Foo' in group 'Container' \
            in web.container";
        assert_eq!(alone(script, "web.container").await.unwrap_err(), expected);
    }

    #[tokio::test]
    async fn a_warning_stands_in_no_reasons_way() {
        let warning = "echo 'quadlet-generator[90]: Warning: web.container specifies the image \
            \"x\" which not a fully qualified image name.' >&2";
        let reason = "echo \"quadlet-generator[90]: converting \\\"web.container\\\": unsupported \
            key 'Foo'\" >&2; exit 1";
        let said = alone(&format!("{warning}\n{reason}"), "web.container").await.unwrap_err();
        assert_eq!(said, "converting \"web.container\": unsupported key 'Foo'");
        let said = alone(warning, "web.container").await.unwrap_err();
        assert!(
            said.starts_with(
                "podman's Quadlet generator made no web.service of web.container; it only said: \
                 Warning: "
            ),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_silent_failure_is_told_too() {
        assert!(alone("exit 0", "web.container").await.unwrap_err().contains("gave no reason"));
        let other = alone("made other.service web.container ''", "web.container").await;
        let other = other.unwrap_err();
        assert!(
            other.contains("makes other.service of web.container")
                && other.contains("leave ServiceName= out"),
            "{other}"
        );
    }

    #[tokio::test]
    async fn a_kind_that_this_podman_lacks_is_told() {
        let script = "echo \"quadlet-generator[90]: Loading source unit file $D/web.container\" >&2
            made web.service web.container ''";
        let others = quadlets(&[("model.artifact", "")]);
        let with = With { quadlets: Some(&others), ..With::default() };
        assert_eq!(
            with_generator(script, "web.container", with).await.unwrap_err(),
            "this machine's podman knows no .artifact files (model.artifact); it is too old"
        );
    }

    /// The clock is paused, so that the limit passes as soon as there is nothing else to do.
    #[tokio::test(start_paused = true)]
    async fn a_generator_that_hangs_is_given_up() {
        let said = alone("sleep 600", "web.container").await.unwrap_err();
        assert_eq!(said, "podman's Quadlet generator did not answer within 10 s");
    }

    #[tokio::test]
    async fn endless_output_and_garbage_are_errors() {
        for (script, expected) in [
            ("yes", "podman's Quadlet generator printed more than 32 MiB"),
            ("yes >&2", "podman's Quadlet generator complained without end"),
            ("head -c 100000 /dev/urandom", "made no web.service of web.container"),
        ] {
            let said = alone(script, "web.container").await.unwrap_err();
            assert!(said.contains(expected), "{script}: {said}");
        }
    }

    #[tokio::test]
    async fn of_an_application_each_refused_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("quadlet");
        let script = "for f in $QUADLET_UNIT_DIRS/*; do echo \"quadlet-generator[9]: Loading \
            source unit file $f\" >&2; done
            echo \"quadlet-generator[9]: converting \\\"web@1.container\\\": unsupported key 'Foo' \
            in group 'Container' in $QUADLET_UNIT_DIRS/web@1.container\" >&2
            echo '---db.service---'; echo '[Unit]'
            echo \"SourcePath=$QUADLET_UNIT_DIRS/db.container\"; exit 1";
        let recipe = format!(
            "cat > '{0}' <<'END' && chmod +x '{0}'\n#!/bin/sh\nQUADLET_UNIT_DIRS=${{QUADLET_UNIT_DIRS%%:*}}\n{script}\nEND\n",
            program.display()
        );
        assert!(std::process::Command::new("sh").args(["-c", &recipe]).status().unwrap().success());
        let generator = Generator::at(program, folder.path().join("scratch"));
        let texts = [
            ("db.container", "[Container]\nImage=x\n"),
            ("web@.container", "[Container]\nImage=x\nFoo=1\n"),
        ];
        let quadlets = texts.map(|(name, text)| (UnitName::trusted(name), text.to_string()));
        let checked = generator.check(&quadlets.clone().into(), &["conf/a"]).await.unwrap();
        let words = "converting \"web@.container\": unsupported key 'Foo' in group 'Container' in \
            web@.container";
        let refused = [(UnitName::trusted("web@.container"), (Some(3), words.to_string()))];
        assert_eq!(checked, Checked { refused: refused.into(), unknown: BTreeSet::new() });
        let none = Generator::at("/nonexistent".into(), folder.path().join("scratch"));
        assert_eq!(none.check(&quadlets.into(), &[]).await.unwrap_err(), NO_GENERATOR);
    }
}
