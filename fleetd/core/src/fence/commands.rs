//! Commands that start processes where systemd does not end them with the unit: in the control
//! groups of a daemon, of podman, or of another unit.
//!
//! Words are looked at, also those that are quoted for a shell; what a script or a program does by
//! itself is not known here.

/// What runs containers or machines through a daemon of its own.
const DAEMONS: &[&str] = &[
    "docker",
    "docker-compose",
    "nerdctl",
    "ctr",
    "crictl",
    "lxc",
    "lxc-start",
    "incus",
    "virsh",
    "podman-compose",
    "podman-remote",
];

/// The words by which those, and podman, start something.
const STARTS: &[&str] = &["run", "start", "restart", "up", "play", "launch", "service", "stack"];

/// How podman is told to stay in the unit's control group. `no-conmon` is none of them: it keeps
/// podman's monitor there, not the container.
const CONTAINED: &[&str] = &["split", "disabled"];

/// Options of podman that put a container elsewhere than its `--cgroups` says.
const ELSEWHERE: &[&str] = &["--cgroup-parent", "--pod", "--pod-id-file"];

/// Options by which another podman does the work; the short ones mean something else behind `run`.
const REMOTE: &[&str] = &["--remote", "--connection", "--url", "--host"];
const REMOTE_SHORT: &[&str] = &["-r", "-c", "-H"];

/// So deep are quotes in quotes followed: a shell in a shell's argument.
const DEPTH: u32 = 4;

const DAEMON: &str = "what it starts runs in a daemon's control groups and outlives this unit; \
    use podman run --cgroups=split, or a .container unit";
const PODMAN_RUN: &str = "it puts the container into a control group of its own, which outlives \
    this unit; add --cgroups=split (and Delegate=yes)";
const PODMAN_START: &str = "what it starts runs in a control group of its own, which outlives \
    this unit; use podman run --cgroups=split, or a .container unit";
const PODMAN_ELSEWHERE: &str = "puts the container into another control group than the unit's";
const PODMAN_REMOTE: &str =
    "has another podman run the container, outside the unit's control group";
const OTHER_UNIT: &str = "what it starts runs in another unit and outlives this one";
const SESSION: &str = "it may open a login session, which takes the processes out of the unit's \
    control group; use User=";

/// Why the processes of a command line would outlive its unit, with the program; `None` where its
/// words say nothing of the kind.
pub(super) fn escapes(line: &str) -> Option<String> {
    search(line.trim_start_matches(['@', '-', ':', '+', '!', '|']), DEPTH)
}

/// Why a Quadlet unit's `GlobalArgs=` or `PodmanArgs=` take the container out of the unit's control
/// group.
pub(super) fn podman_options_escape(name: &str, value: &str) -> Option<&'static str> {
    let words: Vec<String> = simple_commands(value).into_iter().flatten().collect();
    if any(&words, REMOTE) || (name == "GlobalArgs" && any(&words, REMOTE_SHORT)) {
        return Some(PODMAN_REMOTE);
    }
    let contained = last_cgroups(&words).is_none_or(is_contained);
    (any(&words, ELSEWHERE) || !contained).then_some(PODMAN_ELSEWHERE)
}

/// Whether podman leaves a container in the unit's control group with this `--cgroups`, or
/// `CgroupsMode=`.
pub(super) fn is_contained(mode: &str) -> bool {
    CONTAINED.contains(&mode)
}

fn search(text: &str, depth: u32) -> Option<String> {
    for words in simple_commands(text) {
        let last_start =
            words.iter().rposition(|word| STARTS.contains(&word.as_str())).unwrap_or(0);
        for (at, word) in words.iter().enumerate() {
            if word.contains(char::is_whitespace) {
                if depth > 0
                    && let Some(found) = search(word, depth - 1)
                {
                    return Some(found);
                }
                continue;
            }
            let program = word.rsplit('/').next().unwrap_or(word);
            match judge(program, &words[at + 1..], at < last_start) {
                Where::Elsewhere(reason) => return Some(format!("{program}: {reason}")),
                Where::Here => break,
                Where::Unknown => {}
            }
        }
    }
    None
}

/// Where the processes of a program run.
enum Where {
    Elsewhere(&'static str),
    /// In the unit's control group, with whatever the rest of the words says: that is the
    /// container's own command.
    Here,
    Unknown,
}

/// `starts`: whether one of the arguments is a word by which something is started.
fn judge(program: &str, arguments: &[String], starts: bool) -> Where {
    match program {
        "lxc-start" => Where::Elsewhere(DAEMON),
        daemon if starts && DAEMONS.contains(&daemon) => Where::Elsewhere(DAEMON),
        "podman" if starts => podman(arguments).map_or(Where::Here, Where::Elsewhere),
        "systemd-run" | "run0" | "machinectl" => Where::Elsewhere(OTHER_UNIT),
        "systemd-nspawn" if any(arguments, &["--keep-unit"]) => Where::Here,
        "systemd-nspawn" => Where::Elsewhere(OTHER_UNIT),
        "su" | "sudo" => Where::Elsewhere(SESSION),
        _ => Where::Unknown,
    }
}

/// What stands behind the image is not told from podman's own options: better refused than missed.
fn podman(arguments: &[String]) -> Option<&'static str> {
    let verb = arguments.iter().position(|word| STARTS.contains(&word.as_str()))?;
    let (globals, rest) = arguments.split_at(verb);
    if any(globals, REMOTE) || any(globals, REMOTE_SHORT) {
        return Some(PODMAN_REMOTE);
    }
    match (rest[0].as_str(), last_cgroups(rest)) {
        ("run", Some(mode)) if is_contained(mode) => {
            any(rest, ELSEWHERE).then_some(PODMAN_ELSEWHERE)
        }
        ("run", _) => Some(PODMAN_RUN),
        _ => Some(PODMAN_START),
    }
}

/// The last `--cgroups=MODE` or `--cgroups MODE`: it is the one that podman heeds.
fn last_cgroups(words: &[String]) -> Option<&str> {
    let at =
        words.iter().rposition(|word| word == "--cgroups" || word.starts_with("--cgroups="))?;
    match words[at].split_once('=') {
        Some((_, mode)) => Some(mode),
        None => Some(words.get(at + 1).map_or("", String::as_str)),
    }
}

fn any(words: &[String], options: &[&str]) -> bool {
    words.iter().any(|word| options.contains(&word.split('=').next().unwrap_or(word)))
}

/// The words of each command between `;`, `&` and `|`, without their quotes. Command substitutions
/// count as words of their command.
fn simple_commands(text: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words) = (Vec::new(), Vec::new());
    let (mut word, mut quote, mut chars) = (None::<String>, None, text.chars());
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => match (chars.next(), quote) {
                // A line that goes on: systemd puts a space in.
                (Some('\n') | None, None) => words.extend(word.take()),
                (Some('\n') | None, Some(_)) => word.get_or_insert_default().push(' '),
                (Some(next), _) => word.get_or_insert_default().push(next),
            },
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (end, Some(begin)) if end == begin => quote = None,
            (inner, Some(_)) => word.get_or_insert_default().push(inner),
            (';' | '&' | '|' | '\n', None) => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            (space, None) if space.is_whitespace() || ['(', ')', '`'].contains(&space) => {
                words.extend(word.take())
            }
            (other, None) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    commands.push(words);
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_elsewhere_is_found_in_all_words_of_a_line() {
        for (line, program) in [
            ("/usr/bin/docker run -a web", "docker"),
            ("-/usr/bin/docker --host x start -a web", "docker"),
            ("/usr/bin/env A=b docker run web", "docker"),
            ("sh -c 'exec docker run x'", "docker"),
            ("/bin/sh -c \"docker rm web; exec /usr/bin/docker run x\"", "docker"),
            ("/bin/bash -lc \"sh -c 'docker run x'\"", "docker"),
            ("/bin/sh -c \"sh -c \\\"docker run x\\\"\"", "docker"),
            ("/bin/sh -c 'id=$(docker run -d x) && docker wait $id'", "docker"),
            ("/bin/sh -c \\\n  'docker \\\n  run x'", "docker"),
            ("docker compose up", "docker"),
            ("docker-compose -f a.yaml up", "docker-compose"),
            ("nerdctl run x", "nerdctl"),
            ("podman-compose up", "podman-compose"),
            ("podman run web", "podman"),
            ("podman run --cgroups=no-conmon web", "podman"),
            ("podman run --cgroups=split --cgroups=enabled web", "podman"),
            ("podman run --cgroups split --cgroups enabled web", "podman"),
            ("podman run --cgroups=split --cgroup-parent=a.slice web", "podman"),
            ("podman run --cgroups=split --pod other web", "podman"),
            ("podman --remote run --cgroups=split web", "podman"),
            ("podman start -a web", "podman"),
            ("podman container start web", "podman"),
            ("podman kube play web.yaml", "podman"),
            ("podman play kube web.yaml", "podman"),
            ("podman pod start web", "podman"),
            ("podman compose up", "podman"),
            ("sh -c \"systemd-run /bin/web\"", "systemd-run"),
            ("systemd-run --scope /bin/web", "systemd-run"),
            ("timeout 5 machinectl shell web", "machinectl"),
            ("systemd-nspawn -D /srv/web", "systemd-nspawn"),
            ("su -c web nobody", "su"),
        ] {
            let found = escapes(line);
            assert_eq!(
                found.as_deref().and_then(|found| found.split(':').next()),
                Some(program),
                "{line}: {found:?}"
            );
        }
    }

    #[test]
    fn what_stays_in_the_unit_is_taken() {
        for line in [
            "",
            "/usr/bin/web --on /var/run/docker.sock",
            "/usr/bin/web 'a docker user runs this'",
            "/usr/bin/docker stop web",
            "/bin/sh -c 'docker pull web; /usr/bin/web run'",
            "podman run --cgroups=split web",
            "podman run --cgroups split --rm web start",
            "podman run --cgroups=enabled --cgroups=split web",
            "podman run --cgroups=disabled web --url http://a",
            "podman run --cgroups=split builder docker run web",
            "podman run --name ${NAME} -e 'A=b c' --cgroups=split web",
            "/bin/sh -c \"exec podman run --name $(hostname) --cgroups=split web\"",
            "podman rm -f web",
            "podman kube down web.yaml",
            "systemd-nspawn --keep-unit -D /srv/web",
            "/bin/sh -c 'unbalanced \" quotes",
        ] {
            assert_eq!(escapes(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_of_the_largest_file_is_read_in_no_time_to_speak_of() {
        for words in
            ["docker ", "podman ", "podman rm run ", "systemd-nspawn ", "'\\\\' ", "\" \" "]
        {
            let line = words.repeat(1024 * 1024 / words.len());
            for end in ["", " --cgroups=split --keep-unit"] {
                escapes(&format!("{line}{end}"));
            }
        }
    }

    #[test]
    fn quadlets_options_may_not_move_the_container() {
        let escape = |option: &str| {
            let (name, value) = option.split_once('=').unwrap();
            podman_options_escape(name, value)
        };
        for option in [
            "PodmanArgs=--cgroups=enabled",
            "PodmanArgs=-t --cgroup-parent /a",
            "PodmanArgs=\"--pod=a\"",
        ] {
            assert_eq!(escape(option), Some(PODMAN_ELSEWHERE), "{option}");
        }
        for option in ["GlobalArgs=--remote", "GlobalArgs=-c other", "PodmanArgs=--url=unix:///a"] {
            assert_eq!(escape(option), Some(PODMAN_REMOTE), "{option}");
        }
        for option in [
            "PodmanArgs=--cgroups=split -c 2",
            "PodmanArgs=--cgroupns=private --podman-like",
            "GlobalArgs=--log-level=debug",
        ] {
            assert_eq!(escape(option), None, "{option}");
        }
    }
}
