//! Which units can be fenced, read from the unit file.

use super::commands;
use crate::name::UnitName;
use crate::unit::file::{UnitFile, UnitFileError, UnitOption, boolean};
use crate::unit::stop_terms::{StopTerms, timeout_ms};
use crate::unit::xfleet::{Constraints, SECTION, is_global, unquote};

/// The longest stop of a fenced unit, in milliseconds: so long its place stays empty after its
/// machine was lost.
const MAX_STOP_MS: u64 = 600_000;

/// Why a unit that asks for `Fence=yes` cannot be fenced, or asks for it in a word that is none,
/// each with its line; empty when it can, or does not ask.
pub fn refusals(name: &UnitName, file: &UnitFile) -> Vec<UnitFileError> {
    let unreadable = unreadable_fences(file);
    if !unreadable.is_empty() || !Constraints::from_file(file).fence {
        return unreadable;
    }
    let fence_line = line_of(file, SECTION, "Fence");
    let mut found: Vec<UnitFileError> = Vec::new();
    let refused = |line: usize, problem: &str| UnitFileError {
        line,
        problem: format!("Fence=yes: {problem}"),
    };
    if name.systemd_name().suffix() != "service" {
        found.push(refused(
            fence_line,
            &format!("{name} is no service; only processes can be fenced"),
        ));
    }
    for (option, &line) in file.options.iter().zip(&file.lines) {
        let value = option.value.replace("\\\n", " "); // continued lines
        found.extend(defeats(option, value.trim(), file).map(|problem| refused(line, &problem)));
    }
    let stop_ms = StopTerms::from_file(name, file).stop_ms;
    if stop_ms > MAX_STOP_MS && found.is_empty() {
        let line =
            line_of(file, "Service", "TimeoutStopSec").max(line_of(file, "Service", "TimeoutSec"));
        let problem = format!(
            "its stop may take {} s by TimeoutStopSec=, ExecStop= and ExecStopPost=; the limit is \
                {} s, since it is nowhere for so long when its machine is lost",
            stop_ms / 1000,
            MAX_STOP_MS / 1000
        );
        found.push(refused(line, &problem));
    }
    found
}

/// `Fence=` with a word that is no boolean: whoever wrote it may believe in a fence that is not
/// there.
fn unreadable_fences(file: &UnitFile) -> Vec<UnitFileError> {
    let given = file
        .options
        .iter()
        .zip(&file.lines)
        .filter(|(option, _)| option.section == SECTION && option.name == "Fence");
    let words = given.flat_map(|(option, &line)| {
        unquote(&option.value).into_iter().map(move |word| (word, line))
    });
    let unreadable = words.filter(|(word, _)| !word.is_empty() && boolean(word).is_none());
    unreadable
        .map(|(word, line)| UnitFileError {
            line,
            problem: format!("Fence={word} is neither yes nor no; write Fence=yes or Fence=no"),
        })
        .collect()
}

/// Why one option of a fenced unit lets its processes outlive their stop.
fn defeats(option: &UnitOption, value: &str, file: &UnitFile) -> Option<String> {
    let yes = boolean(value) == Some(true);
    let reason = match (option.section.as_str(), option.name.as_str()) {
        (SECTION, "Global") if is_global(&file.options) => {
            "runs on every machine, so there is no one copy to keep"
        }
        ("Service", "TimeoutStopSec" | "TimeoutSec" | "TimeoutAbortSec") => match timeout_ms(value)
        {
            Some(u64::MAX) => {
                "lets a stop take for ever, so nobody could ever say that the copy has ended"
            }
            Some(_) => return None,
            None => "is no time that fleet can read; write it in seconds",
        },
        ("Service", "SendSIGKILL") if !yes => "leaves processes alive that ignore SIGTERM",
        ("Service", "KillMode") if !["control-group", "mixed", ""].contains(&value) => {
            "leaves the unit's other processes alive"
        }
        ("Service", "FinalKillSignal") if !["SIGKILL", "KILL", "9"].contains(&value) => {
            "can be ignored by the unit's processes"
        }
        ("Service", "RemainAfterExit") if yes => {
            "keeps the unit active without a process, so that there is nothing to end"
        }
        ("Service", "PAMName") => {
            "lets the login session take the processes out of the unit's control group"
        }
        ("Unit", "SurviveFinalKillSignal") if yes => "lets processes live on over a soft reboot",
        ("Unit", "Before") if value.split_whitespace().any(|unit| !unit.ends_with(".target")) => {
            "makes this unit's stop wait for theirs; write After= into those units instead"
        }
        ("Service", exec) if exec.starts_with("Exec") => return commands::escapes(value),
        ("Container", "CgroupsMode") if !value.is_empty() && !commands::is_contained(value) => {
            "puts the container into a control group of its own, which outlives this unit; write \
                CgroupsMode=split, or leave it out"
        }
        ("Container", "Pod") => {
            "makes it a part of a pod, which is another unit and cannot be fenced with this one"
        }
        ("Container", "GlobalArgs" | "PodmanArgs") => {
            commands::podman_options_escape(&option.name, value)?
        }
        _ => return None,
    };
    Some(format!("{}={value} {reason}", option.name))
}

/// The line of an option's last value; 0 if there is none.
fn line_of(file: &UnitFile, section: &str, name: &str) -> usize {
    let options = file.options.iter().zip(&file.lines);
    options
        .filter(|(o, _)| o.section == section && o.name == name)
        .map(|(_, line)| *line)
        .next_back()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(lines: &str) -> UnitFile {
        UnitFile::parse(&format!("[Service]\n{lines}\n[X-Fleet]\nFence=yes\n")).unwrap()
    }

    fn said(lines: &str) -> String {
        let said: Vec<String> = refusals(&UnitName::trusted("a.service"), &service(lines))
            .iter()
            .map(|e| e.to_string())
            .collect();
        said.join("\n")
    }

    #[test]
    fn what_would_defeat_the_fence_is_refused_with_its_line_and_reason() {
        assert_eq!(
            said("ExecStart=/bin/a\nTimeoutStopSec=infinity"),
            "line 3: Fence=yes: TimeoutStopSec=infinity lets a stop take for ever, so nobody \
                could ever say that the copy has ended"
        );
        assert!(said("TimeoutSec=0").contains("for ever"));
        assert!(
            said("SendSIGKILL=no")
                .starts_with("line 2: Fence=yes: SendSIGKILL=no leaves processes alive")
        );
        assert!(
            said("KillMode=process").contains("other processes alive")
                && said("KillMode=none").contains("alive")
        );
        assert!(said("RemainAfterExit=yes").contains("without a process"));
        assert!(said("TimeoutStopSec=11min").contains("its stop may take 660 s"));
        assert!(said("PAMName=login").contains("login session"));
        assert_eq!(
            said("ExecStart=/bin/sh -c 'exec docker run web'"),
            "line 2: Fence=yes: docker: what it starts runs in a daemon's control groups and \
                outlives this unit; use podman run --cgroups=split, or a .container unit"
        );
        assert!(said("ExecStart=-/usr/bin/podman run web").contains("add --cgroups=split"));
        assert_eq!(
            said(
                "ExecStart=/usr/bin/podman run --cgroups=split \
                    web\nKillMode=mixed\nTimeoutStopSec=9min"
            ),
            ""
        );
    }

    #[test]
    fn systemds_words_for_yes_and_no_are_read_as_systemd_does() {
        for yes in ["1", "yes", "Y", "true", "t", "on", "\\\n yes"] {
            assert_eq!(said(&format!("SendSIGKILL={yes}")), "", "{yes}");
            assert!(said(&format!("RemainAfterExit={yes}")).contains("without a process"), "{yes}");
        }
        for no in ["0", "no", "N", "false", "f", "off"] {
            assert_eq!(said(&format!("RemainAfterExit={no}")), "", "{no}");
            assert!(said(&format!("SendSIGKILL={no}")).contains("leaves processes alive"), "{no}");
        }
        assert_eq!(said("RemainAfterExit=maybe"), "", "systemd passes over it");
    }

    #[test]
    fn a_word_for_fence_that_is_neither_yes_nor_no_is_refused_with_its_line() {
        let said = |section: &str| {
            let file =
                UnitFile::parse(&format!("[Service]\nKillMode=none\n[X-Fleet]\n{section}\n"))
                    .unwrap();
            refusals(&UnitName::trusted("a.service"), &file)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        };
        for word in ["maybe", "enable", "yes no", "\"ja\"", "yes\nFence=2"] {
            let refused = said(&format!("Fence={word}"));
            assert!(
                refused.ends_with("is neither yes nor no; write Fence=yes or Fence=no"),
                "{word}: {refused}"
            );
        }
        assert_eq!(
            said("Fence=no\nFence=enable"),
            "line 5: Fence=enable is neither yes nor no; write Fence=yes or Fence=no"
        );
        for yes in ["yes", "Y", "y", "t", "On", "1", "\"yes\"", "no\nFence=yes"] {
            assert!(said(&format!("Fence={yes}")).contains("KillMode=none"), "{yes}");
        }
        for no in ["no", "N", "f", "off", "0", "", "yes\nFence=no"] {
            assert_eq!(said(&format!("Fence={no}")), "", "{no}");
        }
    }

    #[test]
    fn a_container_stays_in_its_units_control_group_or_is_refused() {
        let said = |lines: &str| {
            let file =
                UnitFile::parse(&format!("[Container]\nImage=a\n{lines}\n[X-Fleet]\nFence=yes\n"))
                    .unwrap();
            refusals(&UnitName::trusted("a.container"), &file)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        };
        for mode in ["split", "disabled", ""] {
            assert_eq!(said(&format!("CgroupsMode={mode}")), "", "{mode}");
        }
        for mode in ["enabled", "no-conmon", "other"] {
            assert!(
                said(&format!("CgroupsMode={mode}"))
                    .starts_with(&format!("line 3: Fence=yes: CgroupsMode={mode} puts"))
            );
        }
        assert!(
            said("Pod=a.pod").starts_with("line 3: Fence=yes: Pod=a.pod makes it a part of a pod")
        );
        assert!(said("PodmanArgs=--cgroups=enabled").contains("another control group"));
        assert!(said("GlobalArgs=--remote").contains("another podman"));
        assert_eq!(said("PodmanArgs=--init --cgroupns=private"), "");
    }

    #[test]
    fn only_services_that_run_once_can_be_fenced() {
        let refused = |name: &str, text: &str| {
            refusals(&UnitName::trusted(name), &UnitFile::parse(text).unwrap()).len()
        };
        assert_eq!(refused("a.socket", "[Socket]\nListenStream=1\n[X-Fleet]\nFence=yes\n"), 1);
        assert_eq!(
            refused("a.service", "[Service]\nExecStart=/a\n[X-Fleet]\nFence=yes\nGlobal=yes\n"),
            1
        );
        assert_eq!(
            refused(
                "a.service",
                "[Unit]\nBefore=b.service\n[Service]\nExecStart=/a\n[X-Fleet]\nFence=yes\n"
            ),
            1
        );
        assert_eq!(
            refused(
                "a.service",
                "[Unit]\nBefore=b.service\n[Service]\nKillMode=none\n[X-Fleet]\nFence=no\n"
            ),
            0
        );
        assert_eq!(refused("a@.container", "[Container]\nImage=a\n[X-Fleet]\nFence=yes\n"), 0);
    }
}
