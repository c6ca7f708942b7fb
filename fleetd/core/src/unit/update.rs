//! How a new text reaches a unit's instances: when one of them counts as healthy, how long it may
//! take to become so, and what happens if it does not.

use serde::{Deserialize, Serialize};

use super::file::UnitFile;
use super::stop_terms::span_us;
use super::xfleet::Constraints;
use crate::name::UnitName;

/// How long an instance of a scaled template or a global unit must have been up before it counts as
/// healthy, in milliseconds: most programs that cannot work have said so by then.
pub const MIN_HEALTHY_MS: u64 = 5_000;

/// How long an instance may take to become healthy with a new text that says nothing of that, in
/// milliseconds.
pub const HEALTHY_DEADLINE_MS: u64 = 120_000;

/// The longest `MinHealthy=`, in milliseconds.
const LONGEST_MIN_HEALTHY_MS: u64 = 3_600_000;

/// The longest `HealthyDeadline=`, in milliseconds.
const LONGEST_DEADLINE_MS: u64 = 86_400_000;

/// What happens to a new text that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnUpdateFailure {
    /// Everybody gets the last good text again.
    Rollback,
    /// Nobody else gets the new text, and what runs it stays as it is.
    Pause,
    /// The others get it all the same.
    Continue,
    /// No such word: refused where it is submitted, and taken for the default where it stands.
    Unreadable,
}

/// In which order an instance gets what takes it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// It is stopped and started again.
    StopFirst,
    /// A spare instance is healthy before it is stopped.
    StartFirst,
    /// No such word: refused where it is submitted, and taken for the default where it stands.
    Unreadable,
}

impl UpdateOrder {
    /// Reads the option's value.
    pub fn parse(text: &str) -> UpdateOrder {
        match text {
            "stop-first" => UpdateOrder::StopFirst,
            "start-first" => UpdateOrder::StartFirst,
            _ => UpdateOrder::Unreadable,
        }
    }
}

/// Why a unit of this name that demands this cannot have spare instances.
pub(super) fn no_spares(name: &UnitName, wants: &Constraints) -> Option<String> {
    let why = match wants {
        _ if !name.is_template() => format!(
            "starts spare instances of a scaled template, and {name} is one unit; leave it out, or \
                scale a template"
        ),
        Constraints { global: true, .. } => {
            "has no room for a spare instance of a global unit: each machine runs one; leave it \
                out, MaxUnavailable says how many are changed at once"
                .to_string()
        }
        Constraints { fence: true, .. } => {
            "would run a spare instance beside one that Fence keeps alone; leave one of them out"
                .to_string()
        }
        Constraints { machine_of, .. } if !machine_of.is_empty() => {
            "has no machine for a spare instance that runs beside another unit (MachineOf); leave \
                it out"
                .to_string()
        }
        _ => return None,
    };
    Some(format!("UpdateOrder=start-first {why}"))
}

impl OnUpdateFailure {
    /// Reads the option's value.
    pub fn parse(text: &str) -> OnUpdateFailure {
        match text {
            "rollback" => OnUpdateFailure::Rollback,
            "pause" => OnUpdateFailure::Pause,
            "continue" => OnUpdateFailure::Continue,
            _ => OnUpdateFailure::Unreadable,
        }
    }
}

/// How long an instance of the unit must have been up before it counts as healthy, in milliseconds;
/// `None` if neither its text nor its kind says so.
pub fn settles_ms(unit: &UnitName, file: &UnitFile) -> Option<u64> {
    let wants = Constraints::from_file(file);
    let default = (unit.is_template() || wants.global).then_some(MIN_HEALTHY_MS);
    wants.min_healthy_ms.filter(|ms| *ms != u64::MAX).or(default)
}

/// How long an instance may take to become healthy with a new text, in milliseconds: what the text
/// says, else the usual time and what it says of how long a start and staying up take.
pub fn deadline_ms(wants: &Constraints) -> u64 {
    let said = |ms: Option<u64>| ms.filter(|ms| *ms != u64::MAX);
    said(wants.healthy_deadline_ms).unwrap_or_else(|| {
        let starts_ms = said(wants.health.start_period_ms).unwrap_or(0);
        let stays_ms = said(wants.min_healthy_ms).unwrap_or(0);
        HEALTHY_DEADLINE_MS.saturating_add(starts_ms).saturating_add(stays_ms)
    })
}

/// Reads `MinHealthy=`, in milliseconds.
pub fn min_healthy_ms(text: &str) -> Option<u64> {
    span_ms(text).filter(|ms| *ms <= LONGEST_MIN_HEALTHY_MS)
}

/// Reads `HealthyDeadline=`, in milliseconds.
pub fn healthy_deadline_ms(text: &str) -> Option<u64> {
    span_ms(text).filter(|ms| (1_000..=LONGEST_DEADLINE_MS).contains(ms))
}

fn span_ms(text: &str) -> Option<u64> {
    let us = span_us(text.trim()).filter(|_| !text.trim().is_empty())?;
    Some((us / 1000.0).ceil().min(1e15) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_systemds_within_bounds() {
        let read = ["0", "5", "500ms", "1min 30s", "1h"].map(min_healthy_ms);
        assert_eq!(read, [0, 5_000, 500, 90_000, 3_600_000].map(Some));
        assert_eq!(["", "soon", "-1", "61min", "infinity"].map(min_healthy_ms), [None; 5]);
        assert_eq!(
            ["1", "2min", "1d"].map(healthy_deadline_ms),
            [1_000, 120_000, 86_400_000].map(Some)
        );
        assert_eq!(["0", "999ms", "25h", "infinity"].map(healthy_deadline_ms), [None; 4]);
    }

    #[test]
    fn a_text_with_a_slow_start_has_longer_unless_it_says_otherwise() {
        let deadline = |lines: &str| {
            let text = format!("[X-Fleet]\n{lines}\n");
            deadline_ms(&Constraints::from_file(&UnitFile::parse_lenient(&text)))
        };
        assert_eq!(deadline(""), 120_000);
        assert_eq!(deadline("HealthCheck=tcp://:80\nHealthStartPeriod=10min"), 720_000);
        assert_eq!(deadline("MinHealthy=3min"), 300_000);
        assert_eq!(deadline("MinHealthy=3min\nHealthyDeadline=1min"), 60_000);
        assert_eq!(deadline("MinHealthy=never\nHealthyDeadline=never"), 120_000);
    }

    #[test]
    fn templates_and_global_units_settle_longer_unless_their_texts_say_otherwise() {
        let settles = |unit: &str, lines: &str| {
            let text = format!("[Service]\nExecStart=/bin/true\n[X-Fleet]\n{lines}\n");
            settles_ms(&UnitName::trusted(unit), &UnitFile::parse_lenient(&text))
        };
        assert_eq!(settles("web@.service", ""), Some(5_000));
        assert_eq!(settles("web@.service", "MinHealthy=0"), Some(0));
        assert_eq!(settles("log.service", "Global=true"), Some(5_000));
        assert_eq!(settles("db.service", ""), None);
        assert_eq!(settles("db.service", "MinHealthy=1min"), Some(60_000));
        assert_eq!(settles("web@.service", "MinHealthy=never"), Some(5_000));
    }

    #[test]
    fn only_a_template_whose_instances_are_alike_has_spares() {
        let refused = |name: &str, lines: &str| {
            let text = format!("[X-Fleet]\n{lines}\n");
            let wants = Constraints::from_file(&UnitFile::parse_lenient(&text));
            no_spares(&UnitName::trusted(name), &wants)
        };
        assert_eq!(refused("web@.service", "MaxPerMachine=1\nConflicts=web@*.service"), None);
        for (name, lines, word) in [
            ("web.service", "", "web.service is one unit"),
            ("web@3.service", "", "web@3.service is one unit"),
            ("web@.service", "Global=true", "global"),
            ("web@.service", "Fence=true", "Fence"),
            ("web@.service", "MachineOf=db@%i.service", "MachineOf"),
        ] {
            let refused = refused(name, lines).unwrap_or_default();
            assert!(refused.contains(word), "{name} {lines}: {refused}");
        }
        let read = ["stop-first", "start-first", "rolling"].map(UpdateOrder::parse);
        use UpdateOrder::{StartFirst, StopFirst, Unreadable};
        assert_eq!(read, [StopFirst, StartFirst, Unreadable]);
    }

    #[test]
    fn three_words_say_what_happens() {
        let read = ["rollback", "pause", "continue", "undo"].map(OnUpdateFailure::parse);
        use OnUpdateFailure::{Continue, Pause, Rollback, Unreadable};
        assert_eq!(read, [Rollback, Pause, Continue, Unreadable]);
    }
}
