//! Takes a unit's text in: the same checks in the same order for whoever submits, imports, rolls
//! back or asks `fleetctl`.
//!
//! A rule that comes later must not lock anybody out of a text that is in the store already: such a
//! text is taken as it is, with a warning. Whether it is in the store, byte for byte, the caller
//! knows.

use std::fmt;

use super::contradiction::{Contradiction, contradiction};
use super::lint::lint;
use super::xfleet::{Constraints, OPTIONS, SECTION};
use crate::app::BundleRef;
use crate::configuration::ConfigChanged;
use crate::fence;
use crate::name::UnitName;
use crate::unit::file::{MAX_UNIT_BYTES, UnitFile, UnitFileError, UnitOption, boolean, words};

/// A text that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What it says.
    pub file: UnitFile,
    /// What the user should know of it.
    pub warnings: Vec<String>,
}

/// Why a text is not taken. As text: the problem with its line, then the options that are in each
/// other's way with theirs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The line that is wrong, from 1; 0 when the name, the file as a whole or several lines are.
    pub line: usize,
    /// What is wrong, and what to do.
    pub problem: String,
    /// The options that are in each other's way, by line.
    pub options: Vec<UnitFileError>,
    /// Whether the file is over [`MAX_UNIT_BYTES`].
    pub too_large: bool,
}

/// Takes the text of a unit called `name`, or says the first thing that is wrong with it.
pub fn take(name: &UnitName, text: &str) -> Result<Taken, Refusal> {
    let too_large = text.len() > MAX_UNIT_BYTES;
    let of = |UnitFileError { line, problem }, too_large| Refusal {
        line,
        problem,
        options: Vec::new(),
        too_large,
    };
    let file = parse(name, text).map_err(|error| of(error, too_large))?;
    if let Some(Contradiction { problem, options }) = contradiction(&file) {
        return Err(Refusal { line: 0, problem, options, too_large: false });
    }
    if let Some(first) = refusals(name, &file).into_iter().next() {
        return Err(of(first, false));
    }
    let warnings = lint(&file).iter().map(ToString::to_string).collect();
    Ok(Taken { file, warnings })
}

/// Parses the text of a unit called `name`; what it says is not looked at.
pub fn parse(name: &UnitName, text: &str) -> Result<UnitFile, UnitFileError> {
    // The name of a volume or a network says enough: podman has defaults for the rest.
    let parsed = match name.is_shared() || name.suffix() == "pod" {
        true => UnitFile::parse_even_empty(text),
        false => UnitFile::parse(text),
    };
    parsed.map_err(|error| match name.is_quadlet() {
        true => blanks_before(error, text),
        false => error,
    })
}

/// A line that is no option because blanks stand behind the backslash before it: podman goes on
/// there all the same, systemd does not.
fn blanks_before(error: UnitFileError, text: &str) -> UnitFileError {
    let before = error.line.checked_sub(2).and_then(|line| text.split('\n').nth(line));
    let before = before.map(|line| line.strip_suffix('\r').unwrap_or(line));
    let blank = before.is_some_and(|line| line.trim_end().ends_with('\\') && !line.ends_with('\\'));
    match blank {
        true => UnitFileError {
            line: error.line - 1,
            problem: "blanks stand behind the backslash at the end of the line; remove them, so \
                that everybody reads the next line as its continuation, as podman does"
                .to_string(),
        },
        false => error,
    }
}

/// Takes the text of a unit that comes in a folder with other files, or says everything that is
/// wrong with it. Whether the paths in it are there is for those to check who see the folder.
pub fn take_with_files(name: &UnitName, text: &str) -> Result<Taken, Vec<String>> {
    let file = parse(name, text).map_err(|error| vec![error.to_string()])?;
    if contradiction(&file).is_some() {
        return take(name, text).map_err(|refusal| vec![refusal.to_string()]);
    }
    let found = refusals_of(name, &file, false);
    if !found.is_empty() {
        return Err(found.iter().map(ToString::to_string).collect());
    }
    let warnings = lint(&file).iter().map(ToString::to_string).collect();
    Ok(Taken { file, warnings })
}

/// Takes a text that the store holds already for this unit, whatever is wrong with it. What a new
/// text would be refused for is a warning.
pub fn take_stored(name: &UnitName, text: &str) -> Taken {
    take(name, text).unwrap_or_else(|refusal| refusal.waived(text))
}

impl Refusal {
    /// The refused `text`, taken because it is in the store already.
    pub fn waived(&self, text: &str) -> Taken {
        let file = UnitFile::parse_lenient(text);
        let waived = format!("taken because it is stored already; a new text is refused: {self}");
        let notes = lint(&file);
        let warnings =
            std::iter::once(waived).chain(notes.iter().map(ToString::to_string)).collect();
        Taken { file, warnings }
    }

    /// The same of a file whose lines its sender does not know, since it came as options.
    pub fn without_lines(self) -> Refusal {
        Refusal { line: 0, options: Vec::new(), ..self }
    }

    /// The problem with its line, without the options.
    pub fn headline(&self) -> String {
        UnitFileError { line: self.line, problem: self.problem.clone() }.to_string()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        self.options.iter().try_for_each(|option| write!(f, "; {option}"))
    }
}

/// Why a new unit of this name with this file is not taken, each with its line (0: the name or the
/// file as a whole); empty when it is.
pub fn refusals(name: &UnitName, file: &UnitFile) -> Vec<UnitFileError> {
    refusals_of(name, file, BundleRef::of(file).is_none())
}

/// `alone` if no folder comes with the unit.
fn refusals_of(name: &UnitName, file: &UnitFile, alone: bool) -> Vec<UnitFileError> {
    let whole = name.refusal().map(|problem| UnitFileError { line: 0, problem });
    let mut found: Vec<UnitFileError> = whole.into_iter().collect();
    for (option, &line) in file.options.iter().zip(&file.lines) {
        let problem = match option.section.as_str() {
            "Install" => unknown_target(name, option),
            _ if name.is_quadlet() && option.name == "ServiceName" => another_name(name, option),
            "Container" if name.is_quadlet() && alone => quadlet(option),
            _ => None,
        };
        found.extend(problem.map(|problem| UnitFileError { line, problem }));
    }
    found.extend(unstoppable(file));
    found.extend(demands(name, file));
    found.extend(unconfigurable(name, file));
    found.extend(without_a_process(name, file));
    found.extend(fence::refusals(name, file));
    found
}

/// What the options of `[X-Fleet]` say against themselves, each on its last line; of a family each
/// member on its own.
fn demands(name: &UnitName, file: &UnitFile) -> Vec<UnitFileError> {
    let wants = Constraints::from_file(file);
    let options = || {
        let options = file.options.iter().zip(&file.lines);
        options.filter(|(option, _)| option.section == SECTION)
    };
    let given = |known: &str| {
        let mut lines = options().filter(|(option, _)| option.name == known);
        lines.next_back().map(|(_, line)| *line)
    };
    let mut found = Vec::new();
    for row in OPTIONS {
        if row.family.is_some() {
            let members = options().filter(|(option, _)| row.is_called(&option.name));
            found.extend(members.filter_map(|(option, line)| {
                let problem = row.refuses_one(name, option)?;
                Some(UnitFileError { line: *line, problem })
            }));
        } else if let Some(line) = row.names().find_map(given)
            && let Some(problem) = (row.refuse)(name, &wants)
        {
            found.push(UnitFileError { line, problem });
        }
    }
    found
}

/// Why what a unit asks of its configuration cannot be had, on its last line.
fn unconfigurable(name: &UnitName, file: &UnitFile) -> Option<UnitFileError> {
    let wants = Constraints::from_file(file);
    let config = wants.config.as_ref()?;
    let last = |known: &str| {
        let mut options = file.options.iter().zip(&file.lines);
        options.rfind(|(option, _)| option.section == SECTION && option.name == known)
    };
    let gives = |section: &str, option: &str| {
        file.last(section, option).is_some_and(|value| !value.trim().is_empty())
    };
    if name.is_quadlet() && gives("Container", "Pod") {
        let problem = format!(
            "Config={config}: a container of a pod cannot have one yet; leave Pod= or Config= out"
        );
        return Some(UnitFileError { line: *last("Config")?.1, problem });
    }
    let reloads = gives("Service", "ExecReload")
        || file.last("Service", "Type") == Some("notify-reload")
        || (name.is_quadlet()
            && (gives("Container", "ReloadCmd") || gives("Container", "ReloadSignal")));
    if wants.config_changed == Some(ConfigChanged::Reload) && !reloads {
        let problem = "ConfigChanged=reload: systemd cannot reload this unit; give it ExecReload=, \
            or let changes restart it";
        return Some(UnitFileError { line: *last("ConfigChanged")?.1, problem: problem.into() });
    }
    None
}

/// A command that is to run inside a unit in which systemd knows no main process: each answer would
/// be a bad one, and the unit restarted for ever.
fn without_a_process(name: &UnitName, file: &UnitFile) -> Option<UnitFileError> {
    let check = Constraints::from_file(file).health.check?;
    let kind = file.last("Service", "Type").map(str::trim)?;
    let has_none = kind == "oneshot"
        || kind == "forking" && file.last("Service", "PIDFile").is_none_or(str::is_empty);
    if name.is_quadlet() || !check.trim_start().starts_with("exec:") || !has_none {
        return None;
    }
    let mut options = file.options.iter().zip(&file.lines);
    let (_, &line) =
        options.rfind(|(option, _)| option.section == SECTION && option.name == "HealthCheck")?;
    let problem = format!(
        "HealthCheck={check}: with Type={kind} systemd knows no process that the command could run \
            beside; use http:// or tcp://, or another Type= (PIDFile= with forking)"
    );
    Some(UnitFileError { line, problem })
}

/// `RefuseManualStop=`, whose last value counts: systemd would refuse every stop.
fn unstoppable(file: &UnitFile) -> Option<UnitFileError> {
    let options = file.options.iter().zip(&file.lines);
    let mut given =
        options.filter(|(option, _)| option.section == "Unit" && option.name == "RefuseManualStop");
    let (option, &line) =
        given.next_back().filter(|(option, _)| boolean(option.value.trim()) == Some(true))?;
    let value = option.value.trim();
    let problem = "systemd would refuse every stop, so fleet could never take the unit off a \
        machine; leave it out";
    Some(UnitFileError { line, problem: format!("RefuseManualStop={value}: {problem}") })
}

/// The names in `Alias=` and `Also=` of the unit `name`, each with its option: what enabling it
/// takes or enables besides. The error is a word that may mean any unit.
pub fn install_names(name: &UnitName, file: &UnitFile) -> Result<Vec<(String, UnitName)>, String> {
    let mut names: Vec<(String, UnitName)> = Vec::new();
    for option in file.options.iter().filter(|option| option.section == "Install") {
        if option.value.trim().is_empty() {
            names.retain(|(of, _)| *of != option.name); // an empty value takes back what stands before it
        }
        if let Some(problem) = unknown_target(name, option) {
            return Err(problem);
        }
        let words = install_words(option).into_iter().filter(|word| !is_own_link(name, word));
        let words = words.filter_map(|word| install_name(name, &word));
        names.extend(words.map(|word| (option.name.clone(), word)));
    }
    Ok(names)
}

/// The words of `Alias=` and `Also=`. Quotes are no part of a unit's name, however systemd reads
/// them.
fn install_words(option: &UnitOption) -> Vec<String> {
    match option.name.as_str() {
        "Alias" | "Also" => {
            let value = option.value.replace("\\\n", " ").replace(['"', '\''], "");
            value.split_whitespace().map(str::to_string).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a word of `Alias=` is a path that podman and systemd take: the link by which another
/// unit wants or requires this one, `multi-user.target.wants/web.service`.
fn is_own_link(unit: &UnitName, word: &str) -> bool {
    let Some((folder, link)) = word.split_once('/') else { return false };
    let of = ["wants", "requires", "upholds"]
        .iter()
        .find_map(|kind| folder.strip_suffix(kind)?.strip_suffix('.'));
    let own = install_name(unit, link).is_some_and(|link| link == unit.systemd_name());
    own && of.is_some_and(|other| UnitName::parse(other).is_ok())
}

/// The unit that a word of `Alias=` or `Also=` means to systemd when it enables `unit`; `None` if
/// fleet cannot tell.
fn install_name(unit: &UnitName, word: &str) -> Option<UnitName> {
    let unit = unit.systemd_name();
    let mut name = String::new();
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => match chars.next()? {
                '%' => name.push('%'),
                'i' => name.push_str(unit.instance().unwrap_or_default()),
                'j' => name.push_str(unit.prefix().rsplit('-').next()?),
                'n' => name.push_str(unit.as_str()),
                'N' => name.push_str(unit.stem()),
                'p' => name.push_str(unit.prefix()),
                _ => return None,
            },
            c => name.push(c),
        }
    }
    UnitName::parse(&name).ok()
}

/// Why `Alias=` or `Also=` cannot be looked at before the unit is enabled.
fn unknown_target(name: &UnitName, option: &UnitOption) -> Option<String> {
    // A template's instances are enabled, each under its own name.
    let instance = if name.is_template() { name.replica(1) } else { name.clone() };
    let is_link = |word: &str| option.name == "Alias" && is_own_link(&instance, word);
    let word = install_words(option)
        .into_iter()
        .find(|word| !is_link(word) && install_name(&instance, word).is_none())?;
    let option = &option.name;
    Some(match UnitName::parse(&word) {
        Err(problem) if !word.contains('%') => format!("{option}={word} names no unit: {problem}"),
        _ => format!(
            "{option}={word}: which unit that is, only the machine knows; of specifiers, use %i, \
                %j, %n, %N and %p"
        ),
    })
}

/// Why a Quadlet file cannot name its service: under another name than podman gives it anyway.
fn another_name(name: &UnitName, option: &UnitOption) -> Option<String> {
    let service = name.systemd_name();
    let value = option.value.trim();
    (!value.is_empty() && value != service.stem()).then(|| {
        format!("ServiceName={value}: fleet knows the unit by the name of its file; leave it out")
    })
}

/// Why an option of a `.container` file is not taken. podman looks for relative paths beside the
/// file, and fleet keeps no folder beside it.
fn quadlet(option: &UnitOption) -> Option<String> {
    let value = option.value.replace("\\\n", " ");
    let relative = match option.name.as_str() {
        "Volume" => value
            .split(':')
            .next()
            .map(str::trim)
            .filter(|source| source.starts_with('.'))
            .map(str::to_string),
        "EnvironmentFile" => words(&value).into_iter().find(|path| is_relative(path)),
        "Mount" => words(&value)
            .into_iter()
            .find_map(|mount| mounted_from(&mount).filter(|source| source.starts_with('.'))),
        _ => None,
    }?;
    Some(format!(
        "{}={}: {relative:?} is a relative path, and no folder comes with a unit; write the whole \
            path, as it is on the machines",
        option.name,
        value.trim()
    ))
}

/// Whether podman's generator takes a path for one beside the file: a specifier may stand for a
/// whole path.
fn is_relative(path: &str) -> bool {
    !path.starts_with('/') && (!path.starts_with('%') || path.starts_with("%%"))
}

/// The source of `type=bind,source=./a,target=/b`.
fn mounted_from(mount: &str) -> Option<String> {
    let fields = mount.split(',').map(|field| field.trim_matches('"'));
    let options = fields.filter_map(|field| field.split_once('='));
    let mut sources = options.filter(|(key, _)| ["source", "src"].contains(key));
    sources.next_back().map(|(_, path)| path.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_needs_a_process_that_it_can_run_beside() {
        let with = |service: &str, check: &str| {
            said("a.service", &format!("[Service]\n{service}\n[X-Fleet]\nHealthCheck={check}\n"))
        };
        let refused = with("Type=oneshot\nRemainAfterExit=yes\nExecStart=/a", "exec:/bin/b");
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(
            refused[0].contains("line 6") && refused[0].contains("Type=oneshot"),
            "{refused:?}"
        );
        assert_eq!(with("Type=forking\nExecStart=/a", "exec:/bin/b").len(), 1);
        for good in [
            with("Type=forking\nPIDFile=/run/a.pid\nExecStart=/a", "exec:/bin/b"),
            with("Type=oneshot\nRemainAfterExit=yes\nExecStart=/a", "tcp://:80"),
            with("Type=simple\nExecStart=/a", "exec:/bin/b"),
            with("ExecStart=/a", "exec:/bin/b"),
        ] {
            assert!(good.is_empty(), "{good:?}");
        }
    }

    fn said(name: &str, text: &str) -> Vec<String> {
        refusals(&UnitName::parse(name).unwrap(), &UnitFile::parse(text).unwrap())
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_text_is_taken_or_refused_for_the_first_thing_that_is_wrong_with_it() {
        let name = UnitName::trusted("a.service");
        let refused = |text: &str| take(&name, text).unwrap_err().to_string();
        assert_eq!(refused("[Service]\nx\n").split(": ").next(), Some("line 2"));
        assert_eq!(
            refused("[X-Fleet]\nMachineID=x\nGlobal=true\nFence=maybe\n"),
            "MachineID cannot be used with Global; line 2: MachineID=x; line 3: Global=true"
        );
        assert!(refused("[X-Fleet]\nFence=maybe\n").starts_with("line 2: Fence=maybe is neither"));
        assert!(take(&name, &"x".repeat(MAX_UNIT_BYTES + 1)).unwrap_err().too_large);
        let taken = take(&name, "[Service]\nExecStart=/a\n[X-Fleet]\nGlobal=y\n").unwrap();
        assert!(taken.warnings[0].starts_with("line 4: Global=y counts as no"), "{taken:?}");
    }

    #[test]
    fn a_member_of_a_family_of_options_is_refused_with_its_own_line() {
        let text = "[Service]\nExecStart=/a\n[X-Fleet]\nOnFailure.exit-78=give-up\n\
            OnFailure.exit-0=move\nOnFailure.oom=move\nOnFailure.signal=stop\n\
            OnFailure.watchdog=\n";
        let refused = said("a.service", text);
        let expected = [
            "line 5: OnFailure.exit-0=move: no exit status of a failure; expect exit-1 to exit-255",
            "line 6: OnFailure.oom=move: no result of systemd's; expect exit-code, signal, \
                core-dump, oom-kill, timeout, watchdog, start-limit-hit, unhealthy or exit-N",
            "line 7: OnFailure.signal=stop: no such action; expect restart, move or give-up",
        ];
        assert_eq!(refused, expected);
        let good = "[Unit]\nOnFailure.signal=move\n[Service]\nExecStart=/a\n[X-Fleet]\n\
            OnFailure.exit-78=give-up\nOnFailure.exit-78=move\n";
        let taken = take(&UnitName::trusted("a.service"), good).unwrap();
        let warning = "line 2: OnFailure.signal= in [Unit] is read by nobody; it belongs in \
            [X-Fleet]";
        assert_eq!(taken.warnings, [warning]);
    }

    #[test]
    fn a_quadlet_file_without_options_is_taken_where_its_name_says_enough() {
        let taken = |name: &str, text: &str| take(&UnitName::trusted(name), text).is_ok();
        for name in ["data.volume", "app.network", "app@.pod"] {
            assert!(taken(name, "[Volume]\n") && taken(name, ""), "{name}");
            assert!(!taken(name, "[Volume]\nx\n") && !taken(name, "x\n"), "{name}");
        }
        for name in ["web.container", "web.kube", "web.service"] {
            assert!(!taken(name, "[Container]\n"), "{name}");
        }
    }

    #[test]
    fn a_text_that_is_stored_already_is_taken_and_what_is_wrong_is_a_warning() {
        let many = format!("[X-Fleet]\n{}", "Conflicts=a\n".repeat(101));
        for (name, text, warning) in [
            ("app-.service", "[Service]\nExecStart=/a\n", "app-.service stands for every"),
            ("a.service", "[Unit]\nRefuseManualStop=yes\n", "line 2: RefuseManualStop=yes"),
            ("a.service", many.as_str(), "Conflicts= has more than 100 patterns"),
            ("a.service", "[Service]\nA=b\rC=d\n", "line 2: a carriage return"),
        ] {
            let name = UnitName::trusted(name);
            assert!(take(&name, text).is_err(), "{text}");
            let Taken { file, warnings } = take_stored(&name, text);
            assert_eq!(file, UnitFile::parse_lenient(text));
            let said = "taken because it is stored already; a new text is refused: ";
            assert!(warnings[0].starts_with(&format!("{said}{warning}")), "{warnings:?}");
        }
        assert!(
            take_stored(&UnitName::trusted("a.service"), "[Service]\nA=b\n").warnings.is_empty()
        );
    }

    #[test]
    fn a_relative_path_in_a_container_is_refused_with_its_line() {
        for (line, path) in [
            ("Volume=./conf:/conf", "./conf"),
            ("Volume=../conf:/conf:ro,Z", "../conf"),
            ("Volume=.:/conf", "."),
            ("EnvironmentFile=app.env", "app.env"),
            ("EnvironmentFile=/etc/a.env \\\n  \"./b c.env\"", "./b c.env"),
            ("EnvironmentFile=%%i.env", "%%i.env"),
            ("Mount=type=bind,source=./conf,target=/conf", "./conf"),
            ("Mount=type=glob,src=./conf/*,target=/conf", "./conf/*"),
            ("Mount=type=tmpfs,target=/a \"type=bind,source=../b,target=/b\"", "../b"),
        ] {
            let said = said("a.container", &format!("[Container]\nImage=x\n{line}\n"));
            let about = format!(
                "{path:?} is a relative path, and no folder comes with a unit; write the whole \
                    path, as it is on the machines"
            );
            assert!(
                said.len() == 1 && said[0].starts_with("line 3: ") && said[0].ends_with(&about),
                "{line}: {said:?}"
            );
        }
        let fine = "[Container]\nImage=x\nVolume=/a:/b\nVolume=data:/b\nVolume=/b\nVolume=%h/a:/b\nEnvironmentFile=/etc/a.env %S/b.env\n\
                    \
                    \
                    \
                    \
                    \
                    \
                    Mount=type=bind,source=/a,target=/b\nMount=type=tmpfs,target=/c\nWorkingDir=app\n";
        assert!(said("a.container", fine).is_empty());
        assert!(
            said("a.service", "[Service]\nExecStart=/bin/a\n[Container]\nVolume=./a:/b\n")
                .is_empty()
        );
        assert_eq!(
            said("a.container", "[Container]\nImage=x\nServiceName=a\n"),
            [""; 0],
            "podman makes a.service of it anyway"
        );
        assert_eq!(
            said("a.network", "[Network]\nServiceName=a\n"),
            ["line 2: ServiceName=a: fleet knows the unit by the name of its file; leave it out"],
            "podman makes a-network.service of it"
        );
        assert_eq!(said("a.network", "[Network]\nServiceName=a-network\n"), [""; 0]);
        assert_eq!(
            said("a.container", "[Container]\nImage=x\nServiceName=b\n"),
            ["line 3: ServiceName=b: fleet knows the unit by the name of its file; leave it out"]
        );
    }

    #[test]
    fn what_enabling_a_unit_takes_or_enables_besides_is_known_or_refused() {
        let names = |name: &str, lines: &str| -> String {
            let file = UnitFile::parse(&format!("[Install]\n{lines}\n")).unwrap();
            let names = install_names(&UnitName::parse(name).unwrap(), &file).unwrap();
            names
                .iter()
                .map(|(option, name)| format!("{option}={name}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            names(
                "a-b@c.container",
                "Alias=\"dbus.service\" x-%i.service\nAlias=%p.service %j.service\nAlso=%N.socket \
                    \\\n d.service"
            ),
            "Alias=dbus.service Alias=x-c.service Alias=a-b.service Alias=b.service \
                Also=a-b@c.socket Also=d.service"
        );
        assert_eq!(
            names("a.service", "Alias=b.service\nAlias=\nAlias=c.service\nWantedBy=x.target"),
            "Alias=c.service"
        );
        assert_eq!(
            said(
                "a.container",
                "[Install]\nAlias=multi-user.target.wants/a.service x.target.requires/%n\n\
                    [Container]\nImage=x\n"
            ),
            [""; 0],
            "links by which others want it"
        );
        for bad in ["b/a.service", "x.target.wants/b.service", "../a.service", "x.wants/a.service"]
        {
            let text = format!("[Install]\nAlias={bad}\n[Container]\nImage=x\n");
            assert_eq!(said("a.container", &text).len(), 1, "{bad}");
        }
        assert_eq!(
            said("a.service", "[Install]\nAlias=b.service\nAlias=%H.service\nAlso=x\n"),
            [
                "line 3: Alias=%H.service: which unit that is, only the machine knows; of \
                    specifiers, use %i, %j, %n, %N and %p",
                "line 4: Also=x names no unit: unit name must contain \".\""
            ]
        );
        assert!(
            said("a@.service", "[Install]\nAlias=b-%i.service\nWantedBy=%H.target\n").is_empty()
        );
    }

    #[test]
    fn the_name_is_looked_at_too() {
        let said = said("app-.service", "[Service]\nExecStart=/bin/a\n");
        assert!(
            said.len() == 1 && said[0].starts_with("app-.service stands for every app-*.service"),
            "{said:?}"
        );
    }

    #[test]
    fn a_value_that_its_option_cannot_take_is_refused_with_its_line() {
        assert_eq!(
            said("a.service", "[X-Fleet]\nMaxUnavailable=1\nMaxUnavailable=none\n"),
            ["line 3: invalid MaxUnavailable \"none\": expect a number from 1, or a percentage \
                    from 1% to 100%"]
        );
        assert!(said("a.service", "[X-Fleet]\nMaxUnavailable=none\nMaxUnavailable=\n").is_empty());
        for (name, section, expected) in [
            ("a@.service", "MaxPerMachine=2", ""),
            ("a@x.service", "MaxPerMachine=2", ""),
            ("a@.service", "MaxPerMachine=2\nMaxPerMachine=", ""),
            (
                "a.service",
                "MaxPerMachine=2",
                "line 2: MaxPerMachine counts the instances of a template, and a.service is none; \
                    leave it out",
            ),
            (
                "a@.service",
                "MaxPerMachine=+2",
                "line 2: invalid MaxPerMachine: expect a number from 1",
            ),
            (
                "a@.service",
                "MaxPerMachine=0",
                "line 2: invalid MaxPerMachine: expect a number from 1",
            ),
        ] {
            let found = said(name, &format!("[X-Fleet]\n{section}\n"));
            assert_eq!(found.join("; "), expected, "{name} {section}");
        }
    }

    #[test]
    fn what_a_configuration_cannot_do_for_a_unit_is_refused_with_its_line() {
        let refused = |name: &str, text: &str| said(name, text).join("; ");
        let service = |section: &str| format!("[Service]\nExecStart=/x\n[X-Fleet]\n{section}\n");
        assert_eq!(refused("a.service", &service("Config=shop\nConfigChanged=ignore")), "");
        for (name, section, expected) in [
            ("a.service", "Config=Shop", "line 4: invalid Config: \"Shop\" is no name"),
            ("a.timer", "Config=shop", "line 4: Config=shop: nothing that runs in a.timer would"),
            ("a.pod", "Config=shop", "line 4: Config=shop: nothing that runs in a.pod would"),
            ("a.network", "Config=shop", "line 4: Config=shop: nothing that runs in a.network"),
            ("a.service", "ConfigChanged=reload", "line 4: ConfigChanged without Config does"),
            ("a.service", "Config=a\nConfigChanged=x", "line 5: invalid ConfigChanged: expect"),
            (
                "a.service",
                "Config=a\nConfigChanged=reload",
                "line 5: ConfigChanged=reload: systemd cannot reload this unit; give it ExecReload=",
            ),
        ] {
            let found = refused(name, &service(section));
            assert!(found.starts_with(expected), "{name} {section}: {found}");
        }
        let reloads = "[X-Fleet]\nConfig=a\nConfigChanged=reload\n[Service]\n";
        assert_eq!(refused("a.service", &format!("{reloads}ExecReload=kill -HUP $MAINPID\n")), "");
        assert_eq!(refused("a.service", &format!("{reloads}Type=notify-reload\n")), "");
        let container = "[X-Fleet]\nConfig=a\nConfigChanged=reload\n[Container]\nImage=x\n";
        assert!(refused("a.container", container).starts_with("line 3: ConfigChanged=reload"));
        assert_eq!(refused("a.container", &format!("{container}ReloadSignal=SIGHUP\n")), "");
        let of_pod = "[X-Fleet]\nConfig=a\n[Container]\nImage=x\nPod=b.pod\n";
        let said = refused("a.container", of_pod);
        assert!(said.contains("a container of a pod cannot have one yet"), "{said}");
    }

    #[test]
    fn what_systemd_would_never_stop_is_refused_with_its_line() {
        let refused = |word: &str| {
            let text = format!("[Unit]\nRefuseManualStop={word}\n[Service]\nExecStart=/bin/true\n");
            let found = refusals(&UnitName::trusted("a.service"), &UnitFile::parse(&text).unwrap());
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let said = refused("yes");
        assert!(
            said.starts_with("line 2: RefuseManualStop=yes: systemd would refuse every stop"),
            "{said}"
        );
        assert_eq!(refused("no"), "");
        assert_eq!(refused("yes\nRefuseManualStop=no"), "", "the last one counts");
        assert_eq!(refused("no\nRefuseManualStart=yes"), "", "its timer or socket starts it");
    }

    #[test]
    fn blanks_behind_a_backslash_of_a_quadlet_file_are_named() {
        let text = "[Container]\nImage=x\nExec=sh -c \\  \n  ./run\n";
        let said = take(&UnitName::trusted("a.container"), text).unwrap_err();
        assert_eq!(
            said.to_string(),
            "line 3: blanks stand behind the backslash at the end of the line; remove them, so \
                that everybody reads the next line as its continuation, as podman does"
        );
        let text = "[Service]\nExecStart=/a \\  \n  ./run\n";
        let said = take(&UnitName::trusted("a.service"), text).unwrap_err().to_string();
        assert!(said.starts_with("line 3: \"./run\" is neither"), "{said}");
    }
}
