//! What an application is to consist of: read from a folder, a `.quadlets` file or single files,
//! and checked before anything is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use clap::{Args, ValueHint};
use fleet_core::app::{
    AppName, Checksum, FileEntry, MAX_APP_BYTES, MAX_APP_FILES, MAX_APP_UNITS, MAX_FILE_BYTES,
    path_refusal, pod_of,
};
use fleet_core::name::{NameError, SUFFIXES, UnitName};
use fleet_core::unit::file::{MAX_UNIT_BYTES, UnitFile};
use fleet_core::unit::intake;
use fleet_core::wire::AppFiles;
use rustix::fs::OFlags;

use crate::error::Error;
use crate::quadlets;

/// The ending of a file with several Quadlet files in it.
const BUNDLED: &str = ".quadlets";

/// The most entries of one folder that are looked at: more than an application may have, with room
/// for what is passed over.
const MAX_ENTRIES: usize = 4_000;

/// What version control and file managers keep in a folder. It is no part of an application.
const PASSED_OVER: &[&str] = &[
    ".DS_Store",
    ".git",
    ".gitattributes",
    ".gitignore",
    ".gitmodules",
    ".hg",
    ".hgignore",
    ".jj",
    ".svn",
];

/// The arguments that name an application's files.
#[derive(Debug, Clone, Args)]
pub(crate) struct AppArgs {
    /// A folder, a .quadlets file, or single files with --app
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// The application's name [default: the folder's]
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Option<String>,
}

/// An application as it lies here.
#[derive(Debug)]
pub(crate) struct LocalApp {
    /// Its name.
    pub(crate) name: AppName,
    /// What is sent of it.
    pub(crate) files: AppFiles,
    /// The contents of its files.
    pub(crate) contents: BTreeMap<Checksum, Vec<u8>>,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
    /// The arguments that mean it, for hints.
    pub(crate) words: String,
}

/// Reads what the arguments name. Every error is one of the input, with its path.
pub(crate) fn read(args: &AppArgs) -> Result<LocalApp, Error> {
    let mut found = Found::default();
    let named = match args.paths.as_slice() {
        [folder] if folder.is_dir() => {
            let root = canonical(folder)?;
            found.folder(&root, &mut Place::root(folder, &root))?;
            root.file_name().map(|name| name.to_string_lossy().into_owned())
        }
        paths => {
            for path in paths {
                found.single(path)?;
            }
            let whole = match paths {
                [path] => path.file_name().and_then(|name| name.to_str()),
                _ => None,
            };
            whole.and_then(|name| name.strip_suffix(BUNDLED)).map(str::to_string)
        }
    };
    let shown: Vec<String> = args.paths.iter().map(|path| path.display().to_string()).collect();
    let shown = shown.join(" ");
    let name = match (&args.app, named) {
        (Some(name), _) => AppName::parse(name).map_err(Error::usage)?,
        (None, Some(name)) => AppName::parse(&name).map_err(|problem| {
            Error::usage(format!("{shown}: {problem}")).hint("--app=NAME gives it another name")
        })?,
        (None, None) => {
            return Err(Error::usage("single files have no name of an application")
                .hint(format!("give it one: --app=NAME {shown}")));
        }
    };
    let words = match &args.app {
        Some(name) => format!("--app={name} {shown}"),
        None => shown.clone(),
    };
    found.checked(name, &shown, words)
}

/// A folder that is being read.
struct Place<'a> {
    /// The application's folder, without symbolic links.
    root: &'a Path,
    /// The folder as the user wrote it, with what is below that.
    shown: PathBuf,
    /// Its path in the application, with a `/` at the end; empty for the application's own.
    inside: String,
    /// Where it really is, and the folders above it.
    way: Vec<PathBuf>,
}

impl<'a> Place<'a> {
    fn root(shown: &Path, root: &'a Path) -> Place<'a> {
        Place {
            root,
            shown: shown.to_path_buf(),
            inside: String::new(),
            way: vec![root.to_path_buf()],
        }
    }
}

/// A unit's text, and where it stands.
struct UnitText {
    text: String,
    /// The file.
    path: PathBuf,
    /// The line before its first in that file.
    before: usize,
}

/// What was found so far.
#[derive(Default)]
struct Found {
    units: BTreeMap<UnitName, UnitText>,
    files: BTreeMap<String, FileEntry>,
    contents: BTreeMap<Checksum, Vec<u8>>,
    bytes: u64,
    warnings: Vec<String>,
}

impl Found {
    /// Reads a folder and those below it, by name.
    fn folder(&mut self, real: &Path, place: &mut Place<'_>) -> Result<(), Error> {
        let shown = place.shown.clone();
        let entries = fs::read_dir(real).map_err(|problem| cannot_read(&shown, problem))?;
        let mut names = Vec::new();
        for entry in entries.take(MAX_ENTRIES + 1) {
            names.push(entry.map_err(|problem| cannot_read(&shown, problem))?.file_name());
        }
        if names.len() > MAX_ENTRIES {
            return Err(too_many(&shown, &format!("the folder has more than {MAX_ENTRIES} files")));
        }
        names.sort();
        for name in names {
            let path = shown.join(&name);
            let Some(name) = name.to_str() else {
                return Err(Error::usage(format!("{}: its name is not UTF-8", path.display())));
            };
            if is_passed_over(name) {
                continue;
            }
            let real = inside(&real.join(name), &path, place.root)?;
            if real.is_dir() {
                self.sub_folder(name, real, &path, place)?;
            } else {
                self.entry(&format!("{}{name}", place.inside), &real, &path)?;
            }
        }
        Ok(())
    }

    fn sub_folder(
        &mut self,
        name: &str,
        real: PathBuf,
        path: &Path,
        place: &mut Place<'_>,
    ) -> Result<(), Error> {
        let of = name.strip_suffix(".d");
        if of.is_some_and(|of| UnitName::parse(of).is_ok() || SUFFIXES.contains(&of)) {
            let problem = "drop-in folders are not taken: put their options into the unit file";
            return Err(Error::usage(format!("{}: {problem}", path.display())));
        }
        if place.way.contains(&real) {
            let problem = "this symbolic link leads back to a folder that it is in";
            return Err(Error::usage(format!("{}: {problem}", path.display())));
        }
        let inside = format!("{}{name}", place.inside);
        // Before it is entered: so the depth has a limit.
        if let Some(problem) = path_refusal(&inside) {
            return Err(Error::usage(format!("{}: {problem}", path.display())));
        }
        let outer = (place.shown.clone(), place.inside.clone());
        (place.shown, place.inside) = (path.to_path_buf(), format!("{inside}/"));
        place.way.push(real.clone());
        self.folder(&real, place)?;
        place.way.pop();
        (place.shown, place.inside) = outer;
        Ok(())
    }

    /// One of several files that the user named. Its path from here is its path in the application.
    fn single(&mut self, path: &Path) -> Result<(), Error> {
        if path.is_dir() {
            let problem = "this is a folder; name one folder, or files alone";
            return Err(Error::usage(format!("{}: {problem}", path.display())));
        }
        let real = canonical(path)?;
        let parts: Vec<Component<'_>> =
            path.components().filter(|part| *part != Component::CurDir).collect();
        let names: Option<Vec<&str>> = parts
            .iter()
            .map(|part| match part {
                Component::Normal(name) => name.to_str(),
                _ => None,
            })
            .collect();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let inside = match (kind(name), names) {
            // It has no path in the application.
            (Kind::Unit | Kind::Bundled, _) => name.to_string(),
            (Kind::File, Some(names)) => names.join("/"),
            (Kind::File, None) => {
                let problem = "a file that is no unit keeps its path, so it must lie below this \
                    folder and be named from here";
                return Err(Error::usage(format!("{}: {problem}", path.display())));
            }
        };
        self.entry(&inside, &real, path)
    }

    /// One file: `inside` is its path in the application, `real` where it is, `path` what the user
    /// calls it.
    fn entry(&mut self, inside: &str, real: &Path, path: &Path) -> Result<(), Error> {
        // A build's folder may hold unit files of the image, so below the folder they are files.
        match kind(inside) {
            Kind::Unit => {
                let text = text(real, path)?;
                self.unit(inside, UnitText { text, path: path.to_path_buf(), before: 0 })
            }
            Kind::Bundled => {
                let whole = text(real, path)?;
                let parts = quadlets::split(&whole).map_err(|(line, problem)| {
                    Error::usage(format!("{}:{line}: {problem}", path.display()))
                })?;
                for part in parts {
                    let before = part.line - 1;
                    let text = UnitText { text: part.text, path: path.to_path_buf(), before };
                    self.unit(&part.name, text)?;
                }
                Ok(())
            }
            Kind::File => self.file(inside, real, path),
        }
    }

    fn unit(&mut self, name: &str, unit: UnitText) -> Result<(), Error> {
        let refused = |problem: String| Error::usage(format!("{}: {problem}", unit.path.display()));
        let name = UnitName::parse(name)
            .map_err(|problem: NameError| refused(format!("{name:?}: {problem}")))?;
        if let Some(problem) = name.refusal() {
            return Err(refused(problem));
        }
        if let Err(problem) = intake::parse(&name, &unit.text) {
            let place = match problem.line {
                0 => unit.path.display().to_string(),
                line => format!("{}:{}", unit.path.display(), unit.before + line),
            };
            return Err(Error::usage(format!("{place}: {}", problem.problem)));
        }
        if let Some(first) = self.units.get(&name) {
            return Err(refused(format!("{name} stands in {}, too", first.path.display())));
        }
        if self.units.len() == MAX_APP_UNITS {
            return Err(too_many(&unit.path, &format!("this is unit {}", MAX_APP_UNITS + 1)));
        }
        self.units.insert(name, unit);
        Ok(())
    }

    fn file(&mut self, inside: &str, real: &Path, path: &Path) -> Result<(), Error> {
        if let Some(problem) = path_refusal(inside) {
            return Err(Error::usage(format!("{}: {problem}", path.display())));
        }
        if self.files.len() == MAX_APP_FILES {
            return Err(too_many(path, &format!("this is file {}", MAX_APP_FILES + 1)));
        }
        let (content, executable) = content(real, path, MAX_FILE_BYTES)?;
        let size = content.len() as u64;
        self.bytes += size;
        if self.bytes > MAX_APP_BYTES {
            return Err(Error::usage(format!(
                "{}: with this file the application's files have more than {} MiB, which is the \
                    limit",
                path.display(),
                MAX_APP_BYTES / 1024 / 1024
            )));
        }
        let base = inside.rsplit('/').next().unwrap_or(inside);
        if kind(base) == Kind::Unit && UnitName::parse(base).is_ok_and(|name| name.is_quadlet()) {
            self.warnings.push(format!(
                "{} comes as a file, not as a unit, since it lies in a sub-folder",
                path.display()
            ));
        }
        let sum = Checksum::of(&content);
        self.contents.insert(sum.clone(), content);
        self.files.insert(inside.to_string(), FileEntry { sum, size, executable });
        Ok(())
    }

    /// The whole, if its parts go together.
    fn checked(self, name: AppName, shown: &str, words: String) -> Result<LocalApp, Error> {
        if self.units.is_empty() {
            return Err(Error::usage(format!("{shown}: there is no unit file in it")).hint(
                "unit files and Quadlet files lie in the folder itself and are known by their \
                    endings, such as web.container",
            ));
        }
        for (unit, at) in &self.units {
            let twin = unit.twins().into_iter().find_map(|twin| self.units.get_key_value(&twin));
            if let Some((twin, other)) = twin {
                return Err(Error::usage(format!(
                    "{} and {} make the same service, {}",
                    called(unit, at),
                    called(twin, other),
                    unit.systemd_name()
                )));
            }
        }
        let units =
            self.units.into_iter().map(|(name, unit)| (name.to_string(), unit.text)).collect();
        Ok(LocalApp {
            name,
            files: AppFiles { units, files: self.files },
            contents: self.contents,
            warnings: self.warnings,
            words,
        })
    }
}

impl LocalApp {
    /// The units that are containers of a pod: they run with it.
    pub(crate) fn members(&self) -> BTreeSet<&str> {
        let is_member = |(name, text): &(&String, &String)| {
            let file = UnitFile::parse_lenient(text);
            pod_of(&UnitName::trusted(name.as_str()), &file).is_some()
        };
        self.files.units.iter().filter(is_member).map(|(name, _)| name.as_str()).collect()
    }
}

/// `shop/web.container`, or `shop/app.quadlets (web.container)`.
fn called(name: &UnitName, at: &UnitText) -> String {
    let path = at.path.display().to_string();
    match path.ends_with(name.as_str()) {
        true => path,
        false => format!("{path} ({name})"),
    }
}

/// What a file is, by its path in the application.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Unit,
    Bundled,
    File,
}

fn kind(inside: &str) -> Kind {
    let ending = inside.rsplit_once('.').map(|(_, ending)| ending);
    match ending {
        _ if inside.contains('/') => Kind::File,
        Some(ending) if SUFFIXES.contains(&ending) => Kind::Unit,
        _ if inside.ends_with(BUNDLED) => Kind::Bundled,
        _ => Kind::File,
    }
}

/// Whether an entry is no part of the application: of version control, or left by an editor.
fn is_passed_over(name: &str) -> bool {
    let of_vim = || {
        let ending = name.rsplit('.').next().unwrap_or_default();
        name.starts_with('.') && ending.len() == 3 && ending.starts_with("sw")
    };
    PASSED_OVER.contains(&name)
        || name.ends_with('~')
        || name.starts_with(".#")
        || (name.starts_with('#') && name.ends_with('#'))
        || of_vim()
}

/// Where an entry really is; refused if that is out of the application's folder.
fn inside(entry: &Path, path: &Path, root: &Path) -> Result<PathBuf, Error> {
    let real = entry.canonicalize().map_err(|problem| match entry.is_symlink() {
        true => cannot_read(path, format_args!("this symbolic link leads nowhere: {problem}")),
        false => cannot_read(path, problem),
    })?;
    if !real.starts_with(root) {
        return Err(Error::usage(format!(
            "{}: this symbolic link leads out of the folder, to {}; put a copy in its place",
            path.display(),
            real.display()
        )));
    }
    Ok(real)
}

fn canonical(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(|problem| cannot_read(path, problem))
}

/// A text of a unit, in UTF-8.
fn text(real: &Path, path: &Path) -> Result<String, Error> {
    let (bytes, _) = content(real, path, MAX_UNIT_BYTES as u64)?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Error::usage(format!("{}:{line}: this is not UTF-8 text", path.display()))
    })
}

/// What is in a regular file of at most `limit` bytes, and whether its owner may run it.
fn content(real: &Path, path: &Path, limit: u64) -> Result<(Vec<u8>, bool), Error> {
    // A pipe is not waited for, since it is not read.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(real)
        .map_err(|problem| cannot_read(path, problem))?;
    let metadata = file.metadata().map_err(|problem| cannot_read(path, problem))?;
    if !metadata.is_file() {
        return Err(Error::usage(format!("{}: this is not a regular file", path.display())));
    }
    let too_large = |size: u64| {
        let limit = limit / 1024 / 1024;
        Error::usage(format!("{}: it has {size} bytes; the limit is {limit} MiB", path.display()))
    };
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|problem| cannot_read(path, problem))?;
    match bytes.len() as u64 > limit {
        true => Err(too_large(bytes.len() as u64)),
        false => Ok((bytes, metadata.mode() & 0o100 != 0)),
    }
}

fn too_many(path: &Path, what: &str) -> Error {
    Error::usage(format!(
        "{}: {what}; an application has at most {MAX_APP_UNITS} units and {MAX_APP_FILES} other \
            files",
        path.display()
    ))
}

fn cannot_read(path: &Path, problem: impl std::fmt::Display) -> Error {
    let problem = problem.to_string();
    let problem = problem.split(" (os error").next().unwrap_or_default();
    Error::usage(format!("cannot read {}: {problem}", path.display()))
}
