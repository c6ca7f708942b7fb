//! `HealthCheck=` and its times: what a unit's text says of the health of its instances.

use serde::{Deserialize, Serialize};

use super::file::{UnitFile, words};
use super::stop_terms::span_us;
use super::xfleet::{Constraints, expand};
use crate::health::{
    HealthCheck, INTERVAL_MS, Loopback, Probe, RETRIES, START_PERIOD_MS, TIMEOUT_MS,
};
use crate::name::UnitName;

/// The shortest and the longest `HealthInterval=`, in milliseconds.
const INTERVALS_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

/// The shortest and the longest `HealthTimeout=`, in milliseconds.
const TIMEOUTS_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// The longest `HealthStartPeriod=`, in milliseconds.
const LONGEST_START_PERIOD_MS: u64 = 86_400_000;

/// The most bad answers in a row that may be asked for.
const MOST_RETRIES: u32 = 100;

/// The longest check, in bytes, specifiers put in.
const LONGEST: usize = 2_048;

/// The most words of a command.
const MOST_WORDS: usize = 64;

/// What the text says, of each option what stands there; `None` for the default.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthOptions {
    /// The check, before specifiers are put in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// How often, in milliseconds; `u64::MAX` for what is no such time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// How long an answer may take, in milliseconds; `u64::MAX` for what is no such time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How many bad answers in a row; 0 for what is no such number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// How long bad answers do not count after a start, in milliseconds; `u64::MAX` for what is no
    /// such time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period_ms: Option<u64>,
}

impl HealthOptions {
    /// Whether the text says nothing of health.
    pub fn is_unset(&self) -> bool {
        *self == HealthOptions::default()
    }

    /// The check of one instance, `None` if it has none. The error says what is wrong with it.
    /// Times that cannot be read count as not given: a new text with such is refused.
    pub fn of(&self, instance: &UnitName) -> Result<Option<HealthCheck>, String> {
        let Some(check) = &self.check else { return Ok(None) };
        if check.len() > LONGEST {
            return Err(too_long());
        }
        let probe = parse(&expand(check, instance))?;
        let time = |ms: Option<u64>, default| ms.filter(|ms| *ms != u64::MAX).unwrap_or(default);
        Ok(Some(HealthCheck {
            probe,
            interval_ms: time(self.interval_ms, INTERVAL_MS),
            timeout_ms: time(self.timeout_ms, TIMEOUT_MS),
            retries: self.retries.filter(|count| *count > 0).unwrap_or(RETRIES),
            start_period_ms: time(self.start_period_ms, START_PERIOD_MS),
        }))
    }
}

/// The check of one instance by a unit's text.
pub fn check_of(instance: &UnitName, file: &UnitFile) -> Result<Option<HealthCheck>, String> {
    Constraints::from_file(file).health.of(instance)
}

/// Why a new unit of this name is not taken with this check.
pub(super) fn refuse_check(name: &UnitName, wants: &Constraints) -> Option<String> {
    let check = wants.health.check.as_ref()?;
    let runs = name.systemd_name().suffix() == "service" && !name.is_shared();
    if !runs {
        return Some(format!(
            "HealthCheck={check}: only services and containers can be asked for their health, and \
                {name} is neither"
        ));
    }
    // What an instance's own name makes of a template's is seen with a replica.
    let sample = if name.is_template() { name.replica(1) } else { name.clone() };
    match wants.health.of(&sample) {
        Err(problem) => Some(problem),
        Ok(Some(HealthCheck { probe: Probe::Exec { .. }, .. }))
            if ["pod", "kube"].contains(&name.suffix()) =>
        {
            Some(format!(
                "HealthCheck={check}: {name} has several containers; use http:// or tcp:// with a \
                    published port"
            ))
        }
        Ok(_) => None,
    }
}

/// Why an option that only a check gives a meaning is not taken.
pub(super) fn refuse_alone(option: &str, wants: &Constraints) -> Option<String> {
    wants
        .health
        .check
        .is_none()
        .then(|| format!("{option} without HealthCheck does nothing; say what is to be asked"))
}

/// Reads `HealthInterval=`, in milliseconds.
pub(super) fn interval_ms(text: &str) -> Option<u64> {
    span_ms(text).filter(|ms| INTERVALS_MS.contains(ms))
}

/// Reads `HealthTimeout=`, in milliseconds.
pub(super) fn timeout_ms(text: &str) -> Option<u64> {
    span_ms(text).filter(|ms| TIMEOUTS_MS.contains(ms))
}

/// Reads `HealthStartPeriod=`, in milliseconds.
pub(super) fn start_period_ms(text: &str) -> Option<u64> {
    span_ms(text).filter(|ms| *ms <= LONGEST_START_PERIOD_MS)
}

/// Reads `HealthRetries=`.
pub(super) fn retries(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let count = if digits { text.parse().ok() } else { None };
    count.filter(|count| (1..=MOST_RETRIES).contains(count))
}

fn span_ms(text: &str) -> Option<u64> {
    let us = span_us(text.trim()).filter(|_| !text.trim().is_empty())?;
    Some((us / 1000.0).ceil().min(1e15) as u64)
}

/// Reads a check, specifiers put in. The error is one for the user, with the check.
fn parse(text: &str) -> Result<Probe, String> {
    let refused = |problem: String| format!("invalid HealthCheck {text:?}: {problem}");
    if text.len() > LONGEST {
        return Err(too_long());
    }
    if text.chars().any(char::is_control) {
        return Err(refused("it has a control character".to_string()));
    }
    let probe = match text.split_once(':') {
        Some(("http", rest)) => http(rest),
        Some(("tcp", rest)) => tcp(rest),
        Some(("exec", rest)) => exec(rest),
        Some(("https", _)) => {
            Err("a probe speaks no TLS; use http:// on a port of its own, tcp:// or exec:".into())
        }
        _ => Err("expect http://:PORT/PATH, tcp://:PORT or exec:/PROGRAM ARGUMENTS".into()),
    };
    probe.map_err(refused)
}

fn too_long() -> String {
    format!("invalid HealthCheck: it has more than {LONGEST} bytes")
}

fn http(rest: &str) -> Result<Probe, String> {
    let rest = rest.strip_prefix("//").ok_or("expect http://:PORT/PATH")?;
    let (at, path) = match rest.find(['/', '?', '#']) {
        Some(end) if rest[end..].starts_with('/') => rest.split_at(end),
        Some(_) => return Err("the path begins with a slash".to_string()),
        None => (rest, "/"),
    };
    let (host, port) = place(at)?;
    if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        return Err(format!("{bad:?} has no place in a path; write it as %-escape"));
    }
    Ok(Probe::Http { host, port, path: path.to_string() })
}

fn tcp(rest: &str) -> Result<Probe, String> {
    let rest = rest.strip_prefix("//").ok_or("expect tcp://:PORT")?;
    if rest.contains('/') {
        return Err("a connection has no path; expect tcp://:PORT".to_string());
    }
    let (host, port) = place(rest)?;
    Ok(Probe::Tcp { host, port })
}

/// `:8080`, `localhost:8080`, `127.0.0.1:8080`, `[::1]:8080`.
fn place(text: &str) -> Result<(Loopback, u16), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => return Err("there is no port; expect :PORT, as in :8080".to_string()),
    };
    let host = match host {
        "" | "localhost" => Loopback::Any,
        "127.0.0.1" => Loopback::V4,
        "[::1]" => Loopback::V6,
        other => {
            return Err(format!(
                "it asks another host ({other}); each instance is asked on its own machine, so \
                    write the port alone"
            ));
        }
    };
    let number = if port.starts_with('+') { None } else { port.parse::<u16>().ok() };
    match number.filter(|port| *port > 0) {
        Some(port) => Ok((host, port)),
        None => Err(format!("{port:?} is no port; expect a number from 1 to 65535")),
    }
}

fn exec(rest: &str) -> Result<Probe, String> {
    let command = words(rest);
    match command.first() {
        None => Err("there is no program; expect exec:/PROGRAM ARGUMENTS".to_string()),
        Some(program) if !program.starts_with('/') => {
            Err(format!("{program:?} is no absolute path; expect exec:/PROGRAM ARGUMENTS"))
        }
        Some(_) if command.len() > MOST_WORDS => {
            Err(format!("the command has more than {MOST_WORDS} words; use a script"))
        }
        Some(_) => Ok(Probe::Exec { command }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(name: &str, lines: &str) -> Vec<String> {
        let text = format!("[Service]\nExecStart=/bin/a\n[X-Fleet]\n{lines}\n");
        let taken = crate::unit::intake::take(&UnitName::trusted(name), &text);
        taken.err().map(|problem| vec![problem.to_string()]).unwrap_or_default()
    }

    #[test]
    fn checks_are_read_as_they_are_written() {
        for (text, expected) in [
            ("http://:8080/healthz", "http://:8080/healthz"),
            ("http://:8080", "http://:8080/"),
            ("http://localhost:80/a?b=%20c", "http://:80/a?b=%20c"),
            ("http://127.0.0.1:1/", "http://127.0.0.1:1/"),
            ("http://[::1]:65535/", "http://[::1]:65535/"),
            ("tcp://:5432", "tcp://:5432"),
            ("exec:/bin/a b  'c d'", "exec:/bin/a b c d"),
        ] {
            assert_eq!(parse(text).map(|probe| probe.to_string()).as_deref(), Ok(expected));
        }
        let command = ["/bin/sh", "-c", "exit 1"].map(str::to_string).to_vec();
        assert_eq!(parse("exec:/bin/sh -c \"exit 1\""), Ok(Probe::Exec { command }));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_the_reason() {
        for (text, problem) in [
            ("", "expect http://:PORT/PATH"),
            ("8080", "expect http://:PORT/PATH"),
            ("ftp://:21", "expect http://:PORT/PATH"),
            ("https://:443/", "speaks no TLS"),
            ("http:/healthz", "expect http://:PORT/PATH"),
            ("http://:8080?x", "the path begins with a slash"),
            ("http://localhost/healthz", "there is no port"),
            ("http://[::1]/", "there is no port"),
            ("http://db.example:80/", "it asks another host (db.example)"),
            ("http://10.0.0.1:80/", "it asks another host (10.0.0.1)"),
            ("http://user@localhost:80/", "it asks another host (user@localhost)"),
            ("http://:0/", "\"0\" is no port"),
            ("http://:65536/", "\"65536\" is no port"),
            ("http://:+80/", "\"+80\" is no port"),
            ("http://:80/a b", "' ' has no place in a path"),
            ("http://:80/a#b", "'#' has no place in a path"),
            ("http://:80/ä", "has no place in a path"),
            ("http://:80/a\u{7}", "control character"),
            ("tcp://:5432/x", "a connection has no path"),
            ("exec:", "there is no program"),
            ("exec:true", "\"true\" is no absolute path"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(problem), "{text}: {said}");
        }
        assert!(parse(&format!("exec:/bin/a{}", " x".repeat(64))).is_err());
        assert!(parse(&format!("exec:/bin/{}", "x".repeat(LONGEST))).is_err());
    }

    #[test]
    fn times_and_counts_have_bounds() {
        assert_eq!(
            ["1", "10s", "1h", "500ms", "2h", ""].map(interval_ms)[..3],
            [Some(1_000), Some(10_000), Some(3_600_000)]
        );
        assert_eq!(["500ms", "2h", "", "soon", "infinity"].map(interval_ms), [None; 5]);
        assert_eq!(["100ms", "1min"].map(timeout_ms), [Some(100), Some(60_000)]);
        assert_eq!(["0", "61", "-1"].map(timeout_ms), [None; 3]);
        assert_eq!(["0", "1d"].map(start_period_ms), [Some(0), Some(86_400_000)]);
        assert_eq!(["25h", "x"].map(start_period_ms), [None; 2]);
        assert_eq!(["1", "100"].map(retries), [Some(1), Some(100)]);
        assert_eq!(["0", "101", "+1", "-1", "", "three"].map(retries), [None; 6]);
    }

    #[test]
    fn bad_options_are_refused_where_they_are_submitted() {
        for (lines, problem) in [
            ("HealthCheck=gopher://:70", "invalid HealthCheck \"gopher://:70\""),
            ("HealthCheck=http://other:80/", "it asks another host (other)"),
            ("HealthCheck=tcp://:1\nHealthInterval=0", "invalid HealthInterval"),
            ("HealthCheck=tcp://:1\nHealthTimeout=soon", "invalid HealthTimeout"),
            ("HealthCheck=tcp://:1\nHealthRetries=0", "invalid HealthRetries"),
            ("HealthCheck=tcp://:1\nHealthStartPeriod=x", "invalid HealthStartPeriod"),
            ("HealthRetries=3", "HealthRetries without HealthCheck"),
            ("HealthInterval=3", "HealthInterval without HealthCheck"),
        ] {
            let said = refusals("web@.service", lines).join(" ");
            assert!(said.contains(problem), "{lines}: {said}");
        }
        assert_eq!(refusals("web@.service", "HealthCheck=http://:80%i/%p"), [""; 0]);
        assert!(refusals("a.timer", "HealthCheck=tcp://:1").join(" ").contains("only services"));
        let exec = refusals("a.pod", "HealthCheck=exec:/bin/true").join(" ");
        assert!(exec.contains("several containers"), "{exec}");
    }

    #[test]
    fn each_instance_has_its_own_check_and_defaults_fill_what_is_not_said() {
        let file = UnitFile::parse_lenient(
            "[X-Fleet]\nHealthCheck=http://:80%i/%N\nHealthRetries=5\nHealthInterval=1min\n",
        );
        let check = check_of(&UnitName::trusted("web@12.service"), &file).unwrap().unwrap();
        assert_eq!(check.probe.to_string(), "http://:8012/web@12");
        assert_eq!((check.retries, check.interval_ms), (5, 60_000));
        assert_eq!((check.timeout_ms, check.start_period_ms), (3_000, 30_000));
        let problem = check_of(&UnitName::trusted("web@db.service"), &file).unwrap_err();
        assert!(problem.contains("\"80db\" is no port"), "{problem}");
        let none = UnitFile::parse_lenient("[X-Fleet]\nHealthRetries=5\n");
        assert_eq!(check_of(&UnitName::trusted("web.service"), &none), Ok(None));
    }
}
