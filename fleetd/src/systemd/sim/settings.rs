//! The few settings of a unit file that the simulated systemd obeys.

use std::path::PathBuf;
use std::time::Duration;

use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;

/// A unit file with its drop-in, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// The file that it was read from.
    pub(super) text: String,
    /// `loaded` or `bad-setting`.
    pub(super) load: &'static str,
    pub(super) oneshot: bool,
    pub(super) remain_after_exit: bool,
    /// When its program ends by itself, and how.
    pub(super) dies: Option<(Duration, End)>,
    /// Whether it has a reload of its own.
    pub(super) reloads: bool,
    /// `EnvironmentFile=`, specifiers put in.
    pub(super) environment_files: Vec<PathBuf>,
    /// `RefuseManualStop=`.
    pub(super) refuses_stop: bool,
    /// `StopWhenUnneeded=`. Nothing stops for it here.
    pub(super) goes_unneeded: bool,
    /// `no`, `always`, `on-failure`, `on-success`.
    pub(super) restart: String,
    /// `RestartPreventExitStatus=`.
    pub(super) restart_prevented: Vec<i32>,
    pub(super) restart_after: Duration,
    /// How many starts are allowed within which time; `None` for no limit.
    pub(super) start_limit: Option<(usize, Duration)>,
    /// `Type=notify`: its start is done when its program says so.
    pub(super) notify: bool,
    pub(super) watchdog: Option<Duration>,
    pub(super) timeout_stop: Duration,
    /// What goes with its process.
    pub(super) runtime_directory: Option<String>,
    pub(super) environment: Vec<String>,
    pub(super) binds_to: Vec<UnitName>,
    pub(super) requires: Vec<UnitName>,
    pub(super) conflicts: Vec<UnitName>,
    /// What a timer, path or socket starts; it must be there.
    pub(super) triggers: Option<UnitName>,
    /// Started along with it, whatever becomes of them.
    pub(super) wants: Vec<UnitName>,
    pub(super) after: Vec<UnitName>,
    pub(super) asserts_paths: Vec<PathBuf>,
    /// `ExecCondition=+/usr/bin/test -e PATH`.
    pub(super) conditions: Vec<PathBuf>,
}

/// How a program ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) result: &'static str,
    pub(super) code: i32,
}

/// systemd's own `DefaultTimeoutStopSec=`.
const DEFAULT_STOP: Duration = Duration::from_secs(90);

impl Settings {
    pub(super) fn read(name: &UnitName, text: &str, drop_in: &str) -> Settings {
        let file = UnitFile::parse_lenient(&format!("{text}\n{drop_in}"));
        let last = |section, key| file.last(section, key).map(str::trim);
        let time = |section, key, default| last(section, key).and_then(duration).unwrap_or(default);
        let oneshot = last("Service", "Type") == Some("oneshot");
        let restart = last("Service", "Restart").unwrap_or("no").to_string();
        let is =
            |key| file.values("Service", key).last().is_some_and(|value| !value.trim().is_empty());
        // As systemd has it: without a command a service must at least be one that ends by itself.
        let works = name.suffix() != "service"
            || (is("ExecStart") && !(oneshot && restart == "always"))
            || (oneshot && is("ExecStop"));
        let words = |section, key| file.values(section, key).flat_map(str::split_whitespace);
        let window = time("Unit", "StartLimitIntervalSec", Duration::from_secs(10));
        let burst =
            last("Unit", "StartLimitBurst").and_then(|burst| burst.parse().ok()).unwrap_or(5);
        Settings {
            text: text.to_string(),
            load: if works { "loaded" } else { "bad-setting" },
            oneshot,
            remain_after_exit: matches!(
                last("Service", "RemainAfterExit"),
                Some("yes" | "true" | "on" | "1")
            ),
            dies: last("Service", "ExecStart").and_then(dies),
            reloads: is("ExecReload") || last("Service", "Type") == Some("notify-reload"),
            environment_files: file
                .values("Service", "EnvironmentFile")
                .map(|path| PathBuf::from(path.trim().replace("%N", name.stem())))
                .collect(),
            refuses_stop: last("Unit", "RefuseManualStop") == Some("yes"),
            goes_unneeded: last("Unit", "StopWhenUnneeded") == Some("yes"),
            restart,
            restart_prevented: words("Service", "RestartPreventExitStatus")
                .filter_map(|status| status.parse().ok())
                .collect(),
            restart_after: time("Service", "RestartSec", Duration::from_millis(100)),
            start_limit: (!window.is_zero() && burst > 0).then_some((burst, window)),
            notify: last("Service", "Type") == Some("notify"),
            watchdog: last("Service", "WatchdogSec")
                .and_then(duration)
                .filter(|time| !time.is_zero()),
            timeout_stop: time("Service", "TimeoutStopSec", DEFAULT_STOP),
            runtime_directory: last("Service", "RuntimeDirectory")
                .filter(|_| last("Service", "RuntimeDirectoryPreserve") != Some("yes"))
                .map(str::to_string),
            environment: words("Service", "Environment").map(str::to_string).collect(),
            binds_to: words("Unit", "BindsTo").map(UnitName::trusted).collect(),
            requires: words("Unit", "Requires").map(UnitName::trusted).collect(),
            conflicts: words("Unit", "Conflicts").map(UnitName::trusted).collect(),
            triggers: match name.suffix() {
                "timer" => Some(last("Timer", "Unit")),
                "path" => Some(last("Path", "Unit")),
                "socket" => Some(last("Socket", "Service")),
                _ => None,
            }
            .map(|named| {
                named.map_or_else(
                    || UnitName::trusted(format!("{}.service", name.stem())),
                    UnitName::trusted,
                )
            }),
            wants: words("Unit", "Wants").map(UnitName::trusted).collect(),
            after: words("Unit", "After").map(UnitName::trusted).collect(),
            asserts_paths: file
                .values("Unit", "AssertPathExists")
                .map(|path| PathBuf::from(path.trim()))
                .collect(),
            conditions: file
                .values("Service", "ExecCondition")
                .filter_map(|command| command.trim().strip_prefix("+/usr/bin/test -e "))
                .map(PathBuf::from)
                .collect(),
        }
    }

    /// The environment that its files and `Environment=` give a process; `None` where a file is not
    /// there. Of a file's values those of one line, without escapes.
    pub(super) fn read_environment(&self) -> Option<Vec<String>> {
        let mut environment = self.environment.clone();
        for path in &self.environment_files {
            let text = std::fs::read_to_string(path).ok()?;
            environment.extend(text.lines().map(|line| line.replace('"', "")));
        }
        Some(environment)
    }

    pub(super) fn restarts_after(&self, result: &str, code: Option<i32>) -> bool {
        let prevented = code.is_some_and(|code| self.restart_prevented.contains(&code));
        if prevented && result == "exit-code" {
            return false;
        }
        match self.restart.as_str() {
            "always" => true,
            "on-success" => result == "success",
            "on-failure" => result != "success",
            _ => false,
        }
    }
}

/// `/bin/false` dies at once, `/bin/sh -c 'sleep 0.5; exit 1'` after a while, and so does what
/// kills itself (`kill -9 $$`) or fills the memory (`tail /dev/zero`) there; no other program ends
/// by itself.
fn dies(command: &str) -> Option<(Duration, End)> {
    if command == "/bin/false" {
        return Some((Duration::ZERO, End { result: "exit-code", code: 1 }));
    }
    let script = command.strip_prefix("/bin/sh -c 'sleep ")?.strip_suffix('\'')?;
    let (time, last) = script.split_once("; ")?;
    let end = match last {
        "kill -9 $$" => End { result: "signal", code: 9 },
        "tail /dev/zero" => End { result: "oom-kill", code: 9 },
        _ => {
            let code = last.strip_prefix("exit ")?.parse().ok()?;
            End { result: if code == 0 { "success" } else { "exit-code" }, code }
        }
    };
    Some((duration(time)?, end))
}

/// `5`, `1.5`, `200ms`, `1min 30s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for word in text.split_whitespace() {
        let digits = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        let unit = match &word[digits..] {
            "" | "s" | "sec" => 1.0,
            "ms" => 0.001,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += Duration::try_from_secs_f64(word[..digits].parse::<f64>().ok()? * unit).ok()?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_needs_a_command_and_the_drop_in_counts() {
        let read =
            |text, drop_in| Settings::read(&UnitName::trusted("a.service"), text, drop_in).load;
        assert_eq!(read("[Service]\nType=simple\n", ""), "bad-setting");
        assert_eq!(read("[Service]\nExecStart=/bin/x\n", ""), "loaded");
        assert_eq!(read("[Service]\n", "[Service]\nExecStart=/bin/x\n"), "loaded");
        assert_eq!(read("[Service]\nExecStart=/bin/x\n", "[Service]\nExecStart=\n"), "bad-setting");
        assert_eq!(Settings::read(&UnitName::trusted("a.target"), "[Unit]\n", "").load, "loaded");
    }

    #[test]
    fn programs_that_die_are_told_by_their_command() {
        let end = |command: &str| {
            dies(command).map(|(after, end)| (after.as_millis(), end.result, end.code))
        };
        assert_eq!(end("/bin/false"), Some((0, "exit-code", 1)));
        assert_eq!(end("/bin/sh -c 'sleep 0.5; exit 7'"), Some((500, "exit-code", 7)));
        assert_eq!(end("/bin/sh -c 'sleep 2; exit 0'"), Some((2000, "success", 0)));
        assert_eq!(end("/bin/sh -c 'sleep 2; kill -9 $$'"), Some((2000, "signal", 9)));
        assert_eq!(end("/bin/sh -c 'sleep 2; tail /dev/zero'"), Some((2000, "oom-kill", 9)));
        assert_eq!((dies("/bin/sleep 1000"), dies("/bin/sh -c 'exec web'")), (None, None));
    }

    #[test]
    fn times_are_read_as_systemd_writes_them() {
        for (text, millis) in [
            ("5", Some(5000)),
            ("1min 30s", Some(90_000)),
            ("200ms", Some(200)),
            ("0", Some(0)),
            ("soon", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }
}
