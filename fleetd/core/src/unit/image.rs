//! The image that a Quadlet unit's service runs, and the service that pulls it beforehand.
//!
//! Both are read from the service that podman's generator made: what it turned into arguments of
//! `podman run` (`Pull=`, `PodmanArgs=`, `GlobalArgs=`) is what `podman pull` is told.

use super::file::UnitFile;
use super::new_image;
use super::stop_terms::timeout_ms;
use super::xfleet::expand;
use crate::name::UnitName;

/// How long a pull may take, in milliseconds, where the unit's own `TimeoutStartSec=` is not
/// longer: some gigabytes over a slow line.
pub const PULL_MS: u64 = 15 * 60 * 1_000;

/// How long a pull may take at most, in milliseconds, also where the unit's start may take for
/// ever: a machine pulls few images at once, and the others wait.
const LONGEST_PULL_MS: u64 = 60 * 60 * 1_000;

/// The options of `podman run` that `podman pull` knows, and whether each takes a value.
const PASSED_ON: &[(&str, bool)] = &[
    ("--arch", true),
    ("--authfile", true),
    ("--cert-dir", true),
    ("--creds", true),
    ("--decryption-key", true),
    ("--os", true),
    ("--platform", true),
    ("--retry", true),
    ("--retry-delay", true),
    ("--tls-verify", false),
    ("--variant", true),
];

/// The lines of the service that hold for its pull, too: where it finds its proxy and its logins.
const SHARED_LINES: &[&str] = &["Environment", "EnvironmentFile", "PassEnvironment"];

/// When podman pulls an image (`Pull=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// At each start.
    Always,
    /// If it is not on the machine.
    Missing,
    /// At each start, if the registry has another one and answers.
    Newer,
}

/// An image that is pulled before its instance is started or restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name, as the unit has it.
    pub name: String,
    /// When it is pulled.
    pub policy: Policy,
    /// podman and its own options, as they stand in a unit file.
    podman: Vec<String>,
    /// The options of `podman pull`.
    options: Vec<String>,
    /// Lines of `[Service]`.
    lines: Vec<String>,
    /// Whether the service waits for the network.
    online: bool,
    timeout_ms: u64,
}

impl Image {
    /// The image of a service that podman's generator made. `None` where nothing is pulled
    /// beforehand: the unit names no image of a registry (`Rootfs=`, `x.image`, `x.build`), never
    /// pulls it (`Pull=never`), or runs podman as another user, whose images are not root's.
    pub fn of(service: &UnitFile) -> Option<Image> {
        let name = service.last("X-Container", "Image")?.trim();
        let other_unit = [".image", ".build"].iter().any(|kind| name.ends_with(kind));
        if name.is_empty() || other_unit || service.last("Service", "User").is_some() {
            return None;
        }
        let words = words(service.last("Service", "ExecStart")?);
        let run = words.iter().position(|word| word == "run")?;
        let exec = service.last("X-Container", "Exec").map_or(0, |exec| self::words(exec).len());
        let is_image = |at: &usize| words.get(*at).is_some_and(|word| unquoted(word) == name);
        let expected = words.len().checked_sub(exec + 1).filter(|at| *at > run);
        let at =
            expected.filter(is_image).or_else(|| (run + 1..words.len()).rev().find(is_image))?;
        let options = &words[run + 1..at];
        let policy = match value_of(options, "--pull").as_deref() {
            None | Some("missing" | "true") => Policy::Missing,
            Some("always") => Policy::Always,
            Some("newer") => Policy::Newer,
            Some(_) => return None,
        };
        let lines = SHARED_LINES.iter().flat_map(|key| {
            let values = service.values("Service", key);
            let values = values.filter(|value| !value.starts_with("PODMAN_SYSTEMD_UNIT="));
            values.map(move |value| format!("{key}={value}"))
        });
        let own_ms = service.last("Service", "TimeoutStartSec").and_then(timeout_ms);
        let online = service
            .values("Unit", "After")
            .any(|after| after.split_whitespace().any(|name| name == "network-online.target"));
        Some(Image {
            name: name.to_string(),
            policy,
            podman: words[..run].to_vec(),
            options: passed_on(options),
            lines: lines.collect(),
            online,
            timeout_ms: own_ms.unwrap_or(0).clamp(PULL_MS, LONGEST_PULL_MS),
        })
    }

    /// The image of one instance, with its specifiers put in. `None` if one is left in the name:
    /// only systemd knows those of the host.
    pub fn of_instance(&self, instance: &UnitName) -> Option<Image> {
        let service = instance.systemd_name();
        let put_in = |texts: &[String]| texts.iter().map(|text| expand(text, &service)).collect();
        let image = Image {
            name: expand(&self.name, &service),
            podman: put_in(&self.podman),
            options: put_in(&self.options),
            lines: put_in(&self.lines),
            ..self.clone()
        };
        (!image.name.contains(['%', '$'])).then_some(image)
    }

    /// The name of the service that pulls it: another one for each text.
    pub fn service(&self) -> UnitName {
        let hash = UnitFile::parse_lenient(&self.unit()).hash();
        UnitName::trusted(format!("fleet-pull-{}.service", &hash[..12]))
    }

    /// The text of that service.
    ///
    /// `Pull=missing` asks podman itself once more whether the image is there. `Pull=newer` goes on
    /// with the one that is there when the registry does not answer.
    pub fn unit(&self) -> String {
        let mut text = format!("[Unit]\nDescription=Pull of the image {}\n", self.name);
        if self.online {
            text.push_str("Wants=network-online.target\nAfter=network-online.target\n");
        }
        // How often it is tried again, and when, is the agent's to say.
        text.push_str("StartLimitIntervalSec=0\n\n[Service]\nType=oneshot\n");
        text.push_str(&format!("TimeoutStartSec={}ms\n", self.timeout_ms));
        for line in &self.lines {
            text.push_str(&format!("{line}\n"));
        }
        let podman = self.podman.join(" ");
        if self.policy == Policy::Missing {
            let exists = format!("{podman} image exists {}", self.name);
            text.push_str(&format!("ExecCondition=/bin/sh -c '! \"$$0\" \"$$@\"' {exists}\n"));
        }
        let mut pull = format!("{podman} pull");
        self.options.iter().for_each(|option| pull.push_str(&format!(" {option}")));
        let may_fail = if self.policy == Policy::Newer { "-" } else { "" };
        text.push_str(&format!("ExecStart={may_fail}{pull} {}\n", self.name));
        if self.policy == Policy::Newer {
            text.push_str(&format!("ExecStart={podman} image exists {}\n", self.name));
        }
        text
    }

    /// How long a pull may take, for people.
    pub fn limit(&self) -> String {
        format!("{} min", self.timeout_ms / 60_000)
    }

    /// The name in full, as podman lists it: with a tag, and where docker.io has it. `None` for a
    /// short name, which podman looks up in its configuration.
    pub fn full_name(&self) -> Option<String> {
        let (domain, rest) = self.name.split_once('/')?;
        if domain != "localhost" && !domain.contains(['.', ':']) {
            return None;
        }
        let library = if domain == "docker.io" && !rest.contains('/') { "library/" } else { "" };
        let last = rest.rsplit('/').next().unwrap_or(rest);
        let tag = if last.contains([':', '@']) { "" } else { ":latest" };
        Some(format!("{domain}/{library}{rest}{tag}"))
    }
}

/// What a pull has printed so far, in short: `2 layers begun`. Empty if there is nothing to tell.
pub fn progress(lines: &str) -> String {
    let last = lines.rfind("Trying to pull ").map_or(lines, |at| &lines[at..]);
    let layers = last.lines().filter(|line| line.starts_with("Copying blob ")).count();
    match layers {
        0 => String::new(),
        1 => "1 layer begun".to_string(),
        _ => format!("{layers} layers begun"),
    }
}

/// Why a pull failed, by what podman printed last; `None` if it said nothing of an error.
pub fn problem(lines: &str) -> Option<&str> {
    lines.lines().rev().find_map(|line| line.trim().strip_prefix("Error: "))
}

/// Those of podman's options that a pull knows.
fn passed_on(options: &[String]) -> Vec<String> {
    let mut passed = Vec::new();
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let word = unquoted(option);
        let (name, given) = match word.split_once('=') {
            Some((name, _)) => (name, true),
            None => (word.as_str(), false),
        };
        let Some((_, takes_value)) = PASSED_ON.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        passed.push(option.clone());
        if *takes_value && !given {
            passed.extend(rest.next().cloned());
        }
    }
    passed
}

/// The last value of an option, which is the one that podman heeds.
fn value_of(options: &[String], name: &str) -> Option<String> {
    options.iter().enumerate().rev().find_map(|(at, option)| {
        let word = unquoted(option);
        match word.strip_prefix(name)? {
            "" => options.get(at + 1).map(|value| unquoted(value)),
            rest => rest.strip_prefix('=').map(str::to_string),
        }
    })
}

/// The words of a command line, each with its quotes and escapes as they stand.
fn words(line: &str) -> Vec<String> {
    let words = new_image::words(line, 0..line.len());
    words.into_iter().map(|word| line[word].to_string()).collect()
}

/// A word without its quotes.
fn unquoted(word: &str) -> String {
    let inner = ['"', '\'']
        .into_iter()
        .find_map(|quote| word.strip_prefix(quote).and_then(|word| word.strip_suffix(quote)));
    inner.unwrap_or(word).replace("\\\"", "\"").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn service(container: &str, service: &str) -> UnitFile {
        UnitFile::parse_lenient(&format!(
            "[X-Container]\n{container}\n[Service]\nEnvironment=PODMAN_SYSTEMD_UNIT=%n\n{service}\n\
            [Unit]\nAfter=network-online.target\n"
        ))
    }

    fn check(container: &str, lines: &str, expected: Expect) {
        let image = Image::of(&service(container, lines)).unwrap();
        let image = image.of_instance(&UnitName::trusted("web@3.container")).unwrap();
        expected.assert_eq(&image.unit());
    }

    #[test]
    fn the_arguments_of_the_run_that_concern_the_pull_are_its_own() {
        check(
            "Image=h1:5000/web:%i\nExec=sh -c \"a b\"",
            "TimeoutStartSec=30min\nEnvironment=HTTPS_PROXY=http://p\nExecStart=/usr/bin/podman \
            --log-level=info run --name h1:5000/web:%i --pull always -d --env \"A=b c\" \
            --tls-verify=false --authfile \"/x y\" h1:5000/web:%i sh -c \"a b\"",
            expect![[r#"
                [Unit]
                Description=Pull of the image h1:5000/web:3
                Wants=network-online.target
                After=network-online.target
                StartLimitIntervalSec=0

                [Service]
                Type=oneshot
                TimeoutStartSec=1800000ms
                Environment=HTTPS_PROXY=http://p
                ExecStart=/usr/bin/podman --log-level=info pull --tls-verify=false --authfile "/x y" h1:5000/web:3
            "#]],
        );
    }

    #[test]
    fn a_newer_image_is_pulled_if_it_can_be() {
        check(
            "Image=h1:5000/web",
            "TimeoutStartSec=20\nExecStart=/usr/bin/podman run --pull newer h1:5000/web",
            expect![[r#"
                [Unit]
                Description=Pull of the image h1:5000/web
                Wants=network-online.target
                After=network-online.target
                StartLimitIntervalSec=0

                [Service]
                Type=oneshot
                TimeoutStartSec=900000ms
                ExecStart=-/usr/bin/podman pull h1:5000/web
                ExecStart=/usr/bin/podman image exists h1:5000/web
            "#]],
        );
    }

    #[test]
    fn an_image_that_may_be_there_is_pulled_only_if_podman_lacks_it() {
        check(
            "Image=web",
            "ExecStart=/usr/bin/podman run web",
            expect![[r#"
                [Unit]
                Description=Pull of the image web
                Wants=network-online.target
                After=network-online.target
                StartLimitIntervalSec=0

                [Service]
                Type=oneshot
                TimeoutStartSec=900000ms
                ExecCondition=/bin/sh -c '! "$$0" "$$@"' /usr/bin/podman image exists web
                ExecStart=/usr/bin/podman pull web
            "#]],
        );
    }

    #[test]
    fn a_name_in_full_has_a_registry_and_a_tag() {
        let of = |name: &str| {
            let service =
                service(&format!("Image={name}"), &format!("ExecStart=podman run {name}"));
            Image::of(&service).unwrap().full_name()
        };
        for (name, full) in [
            ("h1:5000/web", "h1:5000/web:latest"),
            ("h1:5000/a/web:1", "h1:5000/a/web:1"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/a/nginx:1", "docker.io/a/nginx:1"),
            ("localhost/web", "localhost/web:latest"),
            ("quay.io/a/web@sha256:1", "quay.io/a/web@sha256:1"),
        ] {
            assert_eq!(of(name).as_deref(), Some(full));
        }
        assert_eq!((of("nginx"), of("library/nginx:1")), (None, None));
    }

    #[test]
    fn what_is_not_pulled_beforehand_has_no_image() {
        let run = "ExecStart=/usr/bin/podman run";
        for (container, lines) in [
            ("Rootfs=/x", format!("{run} --rootfs /x")),
            ("Image=x.image", format!("{run} docker.io/x")),
            ("Image=x.build", format!("{run} localhost/x")),
            ("Image=x", format!("{run} --pull never x")),
            ("Image=x", format!("{run} --pull=never x")),
            ("Image=x", format!("User=app\n{run} x")),
            ("Image=x", format!("{run} y")),
            ("", "ExecStart=/bin/sleep 1".to_string()),
        ] {
            assert_eq!(Image::of(&service(container, &lines)), None, "{container} {lines}");
        }
        let hosts = Image::of(&service("Image=x:%H", &format!("{run} x:%H"))).unwrap();
        assert_eq!(hosts.of_instance(&UnitName::trusted("a.container")), None);
    }

    #[test]
    fn instances_of_one_image_share_its_pull_and_another_login_has_its_own() {
        let of = |name: &str, options: &str| {
            let run = format!("ExecStart=podman run --name %p_%i {options} x");
            let image = Image::of(&service("Image=x", &run)).unwrap();
            image.of_instance(&UnitName::trusted(name)).unwrap().service()
        };
        assert_eq!(of("web@1.container", ""), of("web@2.container", "--env A=1"));
        assert_ne!(of("web@1.container", ""), of("web@1.container", "--authfile /a"));
        assert!(of("web@1.container", "").as_str().starts_with("fleet-pull-"));
    }

    #[test]
    fn what_podman_prints_tells_how_far_a_pull_is_and_why_it_failed() {
        let lines = "Trying to pull h1:5000/web:1...\nCopying blob sha256:a\nCopying blob sha256:b\n\
            Error: old\nTrying to pull h1:5000/web:2...\nGetting image source signatures\n";
        assert_eq!(progress(lines), "");
        assert_eq!(progress(&format!("{lines}Copying blob sha256:a\n")), "1 layer begun");
        assert_eq!(problem(lines), Some("old"));
        assert_eq!(problem("Trying to pull x...\n"), None);
        let warned = "time=\"x\" level=warning msg=\"Failed, retrying. Error: a\"\nError: b: c\n";
        assert_eq!(problem(warned), Some("b: c"));
    }
}
