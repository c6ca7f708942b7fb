//! Health checks: what an instance is asked beyond systemd's word, and what its answers mean.
//!
//! `[X-Fleet]` says what is asked ([`unit::health`](crate::unit::health) reads it), the agent on
//! the instance's machine asks, and [`Course`] judges. An instance without a check has no
//! [`Health`]: then systemd's word is all there is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::UnitName;

mod course;

pub use course::Course;

/// How often an instance is asked unless its text says otherwise, in milliseconds.
pub const INTERVAL_MS: u64 = 10_000;

/// How long an answer may take unless the text says otherwise, in milliseconds.
pub const TIMEOUT_MS: u64 = 3_000;

/// How many answers in a row must be bad, unless the text says otherwise, for the instance to count
/// as unhealthy.
pub const RETRIES: u32 = 3;

/// How long after its start bad answers do not count, unless the text says otherwise, in
/// milliseconds: a large program takes that long to come up, and restarting it would not help.
pub const START_PERIOD_MS: u64 = 30_000;

/// What an instance is asked, and how often. In a marker: specifiers are put in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The question.
    pub probe: Probe,
    /// How often, in milliseconds.
    pub interval_ms: u64,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// How many bad answers in a row make it unhealthy.
    pub retries: u32,
    /// How long after the start bad answers do not count, in milliseconds.
    pub start_period_ms: u64,
}

/// What is asked. A network probe goes to the instance's own machine, never to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Probe {
    /// `GET`: a status from 200 to 399 is good.
    Http {
        /// The address.
        host: Loopback,
        /// The port.
        port: u16,
        /// Path and query, from `/` on.
        path: String,
    },
    /// A connection that is taken is good.
    Tcp {
        /// The address.
        host: Loopback,
        /// The port.
        port: u16,
    },
    /// A command inside the unit that ends with status 0 is good.
    Exec {
        /// The program's absolute path, and its arguments.
        command: Vec<String>,
    },
}

/// The machine itself, by one of its loopback addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loopback {
    /// 127.0.0.1, and if nobody listens there `::1`.
    Any,
    /// 127.0.0.1.
    V4,
    /// `::1`.
    V6,
}

/// How an instance with a check is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Health {
    /// It has not given a good answer since its start, and its time for that is not over.
    Starting,
    /// Its last answers were good.
    Healthy,
    /// Its last answers were bad.
    Unhealthy {
        /// The last bad answer when it was found to be: `503`, `connection refused`.
        why: String,
        /// The time of the first bad answer in a row, in milliseconds since 1970.
        since_ms: u64,
    },
}

/// A number of a name, the same everywhere: spreads instances over the interval (FNV-1a).
pub fn seed(name: &UnitName) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

impl Health {
    /// The state in a word, as it stands in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy { .. } => "unhealthy",
        }
    }

    /// The state for people: `healthy`, `unhealthy (503 for 12 s)`.
    pub fn words(&self, now_ms: u64) -> String {
        let Health::Unhealthy { why, since_ms } = self else { return self.word().to_string() };
        let age = match now_ms.saturating_sub(*since_ms) / 1_000 {
            seconds @ 0..120 => format!("{seconds} s"),
            seconds @ 120..7_200 => format!("{} min", seconds / 60),
            seconds => format!("{} h", seconds / 3_600),
        };
        format!("unhealthy ({why} for {age})")
    }

    /// Whether it is known to be unhealthy.
    pub fn is_unhealthy(&self) -> bool {
        matches!(self, Health::Unhealthy { .. })
    }
}

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loopback::Any => "",
            Loopback::V4 => "127.0.0.1",
            Loopback::V6 => "[::1]",
        })
    }
}

/// As it is written in a unit file.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Http { host, port, path } => write!(f, "http://{host}:{port}{path}"),
            Probe::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Probe::Exec { command } => write!(f, "exec:{}", command.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_told_in_words_and_read_from_json() {
        let unhealthy = Health::Unhealthy { why: "503".to_string(), since_ms: 1_000 };
        let words = |ms| unhealthy.words(ms);
        assert_eq!(words(13_999), "unhealthy (503 for 12 s)");
        assert_eq!(words(600_000), "unhealthy (503 for 9 min)");
        assert_eq!(words(7_201_000), "unhealthy (503 for 2 h)");
        assert_eq!(words(0), "unhealthy (503 for 0 s)", "clocks differ");
        assert_eq!(Health::Starting.words(5), "starting");
        for (health, json) in [
            (Health::Healthy, r#"{"state":"healthy"}"#),
            (unhealthy, r#"{"state":"unhealthy","why":"503","since_ms":1000}"#),
        ] {
            assert_eq!(serde_json::to_string(&health).unwrap(), json);
            assert_eq!(serde_json::from_str::<Health>(json).unwrap(), health);
        }
    }
}
