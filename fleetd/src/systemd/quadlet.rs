//! Quadlet units: podman's own generator turns a `.container` text into a service's, in a folder of
//! its own.
//!
//! Podman does this at daemon-reload; asking its generator directly spares the reload, and gives
//! its words when a text is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fleet_core::name::UnitName;
use tokio::process::Command;

/// Where distributions put the generator.
const GENERATORS: &[&str] = &[
    "/usr/libexec/podman/quadlet",
    "/usr/lib/podman/quadlet",
    "/usr/local/libexec/podman/quadlet",
];

/// It takes milliseconds; when it hangs, something is wrong with the machine.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The service that podman makes of the Quadlet unit `name` (`web.container`, `web@1.container`)
/// with the text `text`, in a folder of its own under `scratch`, where nobody but this process's
/// user can write: what podman makes of a relative path lies there.
///
/// The error is for the user: the generator's own words, or that there is none on this machine.
/// Images, volumes and networks that are Quadlet units themselves (`Image=x.image`) are not known
/// here, and refused as missing.
pub async fn translate(scratch: &Path, name: &UnitName, text: &str) -> Result<String, String> {
    let generator = GENERATORS.iter().map(Path::new).find(|path| path.exists());
    let generator = generator.ok_or(
        "podman's Quadlet generator is not installed on this machine; install podman 4.4 or later",
    )?;
    run(generator, scratch, name, text).await
}

async fn run(
    generator: &Path,
    scratch: &Path,
    name: &UnitName,
    text: &str,
) -> Result<String, String> {
    let folder = Folder::new(scratch)
        .map_err(|error| format!("cannot make a folder for podman's Quadlet generator: {error}"))?;
    let file = folder.0.join(name.as_str());
    fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    let mut command = Command::new(generator);
    command.args(["--dryrun", "--no-kmsg-log"]).env("QUADLET_UNIT_DIRS", &folder.0);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(TIME_LIMIT, output).await {
        Err(_) => {
            return Err(format!(
                "podman's Quadlet generator did not answer within {} s",
                TIME_LIMIT.as_secs()
            ));
        }
        Ok(Err(error)) => return Err(format!("cannot run {}: {error}", generator.display())),
        Ok(Ok(output)) => output,
    };
    let (said, wanted) = (String::from_utf8_lossy(&output.stdout), name.systemd_name());
    let made = if output.status.success() { said.lines().find_map(header) } else { None };
    match (service_in(&said, &wanted), made) {
        // Written in a way that the check at submit does not see, or accepted before there was one.
        (Some(service), _) if service.contains(&*folder.0.to_string_lossy()) => {
            Err("a path in it is relative, and no folder comes with a unit; write the whole path"
                .to_string())
        }
        (Some(service), Some(_)) => Ok(service),
        (None, Some(other)) => Err(format!(
            "podman's Quadlet generator makes {other} of it, and fleet runs it as {wanted}; leave \
                ServiceName= out"
        )),
        _ => Err(complaint(
            &String::from_utf8_lossy(&output.stderr),
            &folder.0,
            &name.systemd_name(),
        )),
    }
}

/// The part of the generator's output that stands under `---NAME---`.
fn service_in(output: &str, service: &UnitName) -> Option<String> {
    let begin = format!("---{service}---");
    let mut lines = output.lines().skip_while(|line| *line != begin);
    lines.next()?;
    let body = lines.take_while(|line| header(line).is_none());
    // SourcePath= would point into the temporary folder; systemd would find the unit changed for
    // ever.
    let text: String = body
        .filter(|line| !line.starts_with("SourcePath="))
        .flat_map(|line| [line, "\n"])
        .collect();
    Some(format!("{}\n", text.trim()))
}

/// The service whose text follows.
fn header(line: &str) -> Option<&str> {
    line.strip_prefix("---")?.strip_suffix("---")
}

/// What the generator said, without its own name, its progress, our folder's name, and, where it
/// gave a reason, its warnings.
fn complaint(stderr: &str, folder: &Path, service: &UnitName) -> String {
    let folder = format!("{}/", folder.display());
    let words = |line: &str| {
        let said = match line.split_once("]: ") {
            Some((head, said)) if head.starts_with("quadlet-generator[") => said,
            _ => line,
        };
        said.replace(&folder, "")
    };
    let lines = stderr
        .lines()
        .map(words)
        .filter(|line| !line.is_empty() && !line.starts_with("Loading source"));
    let (warnings, reasons): (Vec<String>, Vec<String>) =
        lines.partition(|line| line.to_lowercase().starts_with("warning"));
    let silent = format!("podman's Quadlet generator made no {service} of it");
    match (reasons.is_empty(), warnings.is_empty()) {
        (false, _) => reasons.join("; "),
        (true, false) => format!("{silent}; it only said: {}", warnings.join("; ")),
        (true, true) => format!("{silent} and gave no reason"),
    }
}

/// A folder for one translation, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(scratch: &Path) -> std::io::Result<Folder> {
        let path = scratch.join(uuid::Uuid::new_v4().simple().to_string());
        // Unit files may carry secrets: nobody else reads along.
        std::os::unix::fs::DirBuilderExt::mode(fs::DirBuilder::new().recursive(true), 0o700)
            .create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator that prints what podman 5.4.2 printed.
    async fn with_generator(script: &str, name: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let generator = folder.path().join("quadlet");
        // Written by another process: a program that a process of ours still has open for writing,
        // by a fork, cannot be run.
        let recipe = format!(
            "cat > '{0}' <<'END' && chmod +x '{0}'\n#!/bin/sh\n{script}\nEND\n",
            generator.display()
        );
        assert!(std::process::Command::new("sh").args(["-c", &recipe]).status().unwrap().success());
        let scratch = folder.path().join("quadlet.d");
        let translated =
            run(&generator, &scratch, &UnitName::parse(name).unwrap(), "[Container]\nImage=x\n")
                .await;
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&scratch).unwrap().permissions());
        assert_eq!(
            (mode & 0o777, fs::read_dir(&scratch).unwrap().count()),
            (0o700, 0),
            "nobody else's, and empty again"
        );
        translated
    }

    #[tokio::test]
    async fn a_path_that_podman_made_of_a_relative_one_is_refused() {
        let script = "echo '---web.service---'; echo '[Service]'; echo ExecStart=podman run -v \
            $QUADLET_UNIT_DIRS/conf:/conf x";
        let expected =
            "a path in it is relative, and no folder comes with a unit; write the whole path";
        assert_eq!(with_generator(script, "web.container").await.unwrap_err(), expected);
    }

    #[tokio::test]
    async fn the_service_is_taken_from_the_dry_run() {
        let script = "echo '---web@1.service---'; cat $QUADLET_UNIT_DIRS/web@1.container; echo; \
            echo '[Unit]'; echo SourcePath=/tmp/x; echo";
        assert_eq!(
            with_generator(script, "web@1.container").await.unwrap(),
            "[Container]\nImage=x\n\n[Unit]\n"
        );
    }

    #[tokio::test]
    async fn a_refusal_is_the_generators_own_words() {
        let script = "echo \"quadlet-generator[90]: Loading source unit file \
            $QUADLET_UNIT_DIRS/web.container\" >&2
            echo \"quadlet-generator[90]: converting \\\"web.container\\\": unsupported key 'Foo' \
            in group 'Container' in $QUADLET_UNIT_DIRS/web.container\" >&2
            exit 1";
        let expected = "converting \"web.container\": unsupported key 'Foo' in group 'Container' \
            in web.container";
        assert_eq!(with_generator(script, "web.container").await.unwrap_err(), expected);
    }

    #[tokio::test]
    async fn a_warning_stands_in_no_reasons_way() {
        let warning = "echo 'quadlet-generator[90]: Warning: web.container specifies the image \
            \"x\" which not a fully qualified image name.' >&2";
        let reason = "echo \"quadlet-generator[90]: converting \\\"web.container\\\": unsupported \
            key 'Foo'\" >&2; exit 1";
        let said =
            with_generator(&format!("{warning}\n{reason}"), "web.container").await.unwrap_err();
        assert_eq!(said, "converting \"web.container\": unsupported key 'Foo'");
        let said = with_generator(warning, "web.container").await.unwrap_err();
        assert!(
            said.starts_with(
                "podman's Quadlet generator made no web.service of it; it only said: Warning: "
            ),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_silent_failure_is_told_too() {
        assert!(
            with_generator("exit 0", "web.container").await.unwrap_err().contains("gave no reason")
        );
        let other = with_generator("echo '---other.service---'; echo '[Service]'", "web.container")
            .await
            .unwrap_err();
        assert!(
            other.contains("makes other.service of it") && other.contains("leave ServiceName= out"),
            "{other}"
        );
    }
}
