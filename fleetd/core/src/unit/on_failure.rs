//! `OnFailure.RESULT=`: what fleet does about an instance that failed, by systemd's `Result`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How many out-of-memory kills move an instance for which nothing is said: the second one on the
/// same machine is no accident, and another machine may have more.
pub const OOM_KILLS: u32 = 2;

/// Before an exit status: `exit-78`.
const STATUS: &str = "exit-";

/// How an instance failed: systemd's `Result`, or fleet's own check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Its program ended with an exit status that is no success.
    ExitCode,
    /// A signal killed it.
    Signal,
    /// A signal killed it, and it left a core dump.
    CoreDump,
    /// The kernel or systemd killed it because memory was short.
    OomKill,
    /// Its start, its stop or its time to run took too long.
    Timeout,
    /// It did not say in time that it lives (`WatchdogSec=`).
    Watchdog,
    /// systemd started it too often in too short a time.
    StartLimitHit,
    /// Its health check failed.
    Unhealthy,
    /// Another result of systemd's: `protocol`, `resources` …
    Other,
}

/// What fleet does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is restarted where it is, as often as that takes.
    Restart,
    /// It is moved to another machine that fits, and restarted where it is until then.
    Move,
    /// It stays failed: it is neither restarted nor moved.
    GiveUp,
}

/// What a unit's file says of each kind of failure: `oom-kill` or `exit-78` to an action, in the
/// words of the file. What a later version knows is kept, and means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OnFailure(BTreeMap<String, String>);

impl Kind {
    /// All of them, each with systemd's word.
    pub const ALL: [Kind; 9] = [
        Kind::ExitCode,
        Kind::Signal,
        Kind::CoreDump,
        Kind::OomKill,
        Kind::Timeout,
        Kind::Watchdog,
        Kind::StartLimitHit,
        Kind::Unhealthy,
        Kind::Other,
    ];

    /// The kind that systemd calls `result`.
    pub fn of(result: &str) -> Kind {
        let known = Kind::ALL.into_iter().find(|kind| kind.word() == result);
        known.unwrap_or(Kind::Other)
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::ExitCode => "exit-code",
            Kind::Signal => "signal",
            Kind::CoreDump => "core-dump",
            Kind::OomKill => "oom-kill",
            Kind::Timeout => "timeout",
            Kind::Watchdog => "watchdog",
            Kind::StartLimitHit => "start-limit-hit",
            Kind::Unhealthy => "unhealthy",
            Kind::Other => "other",
        }
    }
}

impl Action {
    fn parse(word: &str) -> Option<Action> {
        match word {
            "restart" => Some(Action::Restart),
            "move" => Some(Action::Move),
            "give-up" => Some(Action::GiveUp),
            _ => None,
        }
    }
}

impl OnFailure {
    /// Reads values of the form `oom-kill=move`. Of several for one kind the last counts; an empty
    /// one takes back what stands before it.
    pub(super) fn read(values: &[String]) -> OnFailure {
        let mut policy = BTreeMap::new();
        for (kind, action) in values.iter().filter_map(|value| value.split_once('=')) {
            match action.trim() {
                "" => policy.remove(kind),
                action => policy.insert(kind.to_string(), action.to_string()),
            };
        }
        OnFailure(policy)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why it is not taken.
    pub(super) fn problem(&self) -> Option<String> {
        self.0.iter().find_map(|(kind, action)| {
            let said = format!("OnFailure.{kind}={action}");
            if let Some(digits) = kind.strip_prefix(STATUS).filter(|_| kind != "exit-code") {
                if status(digits).is_none() {
                    return Some(format!(
                        "{said}: no exit status of a failure; expect exit-1 to exit-255"
                    ));
                }
            } else if Kind::of(kind) == Kind::Other {
                let known: Vec<&str> = Kind::ALL[..8].iter().map(|kind| kind.word()).collect();
                return Some(format!(
                    "{said}: no result of systemd's; expect {} or exit-N",
                    known.join(", ")
                ));
            }
            Action::parse(action)
                .is_none()
                .then(|| format!("{said}: no such action; expect restart, move or give-up"))
        })
    }

    /// What is said of such a failure, with the words that say so; of an exit status before its
    /// kind.
    pub fn action(&self, result: &str, code: Option<i32>) -> Option<(Action, Said<'_>)> {
        let exit = code.filter(|_| result == Kind::ExitCode.word());
        let of_status = exit.and_then(|code| self.0.get_key_value(&format!("{STATUS}{code}")));
        let (kind, action) = of_status.or_else(|| self.0.get_key_value(result))?;
        Some((Action::parse(action)?, Said { kind, action }))
    }

    /// The exit statuses after which systemd must not restart the unit by itself, since something
    /// else is to be done.
    pub fn statuses(&self) -> Vec<u8> {
        let mut statuses: Vec<u8> = self
            .0
            .iter()
            .filter(|(_, action)| needs_the_failure(action))
            .filter_map(|(kind, _)| status(kind.strip_prefix(STATUS)?))
            .collect();
        statuses.sort_unstable();
        statuses
    }

    /// Whether fleet must see each failure before systemd restarts the unit: which result it is,
    /// systemd asks of exit statuses and signals alone.
    pub fn takes_over(&self) -> bool {
        let by_result = |kind: &str| {
            !matches!(Kind::of(kind), Kind::Other | Kind::Unhealthy | Kind::StartLimitHit)
        };
        self.0.iter().any(|(kind, action)| by_result(kind) && needs_the_failure(action))
    }
}

/// The words of a file that say what is done: `OnFailure.exit-78=give-up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    kind: &'a str,
    action: &'a str,
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnFailure.{}={}", self.kind, self.action)
    }
}

fn needs_the_failure(action: &str) -> bool {
    matches!(Action::parse(action), Some(Action::Move | Action::GiveUp))
}

/// An exit status of a failure, as a number without zeros before it.
fn status(digits: &str) -> Option<u8> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(values: &[&str]) -> OnFailure {
        OnFailure::read(&values.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_most_specific_and_the_last_word_count() {
        let said = policy(&[
            "exit-code=restart",
            "exit-78=move",
            "exit-78=give-up",
            "oom-kill=move",
            "signal=give-up",
            "signal=",
        ]);
        let action = |result, code| said.action(result, code).map(|(action, _)| action);
        assert_eq!(action("exit-code", Some(78)), Some(Action::GiveUp));
        assert_eq!(action("exit-code", Some(1)), Some(Action::Restart));
        assert_eq!(action("oom-kill", Some(9)), Some(Action::Move));
        assert_eq!(action("signal", Some(78)), None, "taken back, and 78 is no exit status here");
        assert_eq!(action("timeout", None), None);
        let (_, words) = said.action("exit-code", Some(78)).unwrap();
        assert_eq!(words.to_string(), "OnFailure.exit-78=give-up");
    }

    #[test]
    fn what_systemd_may_not_restart_by_itself_follows_from_the_actions() {
        let says = |values: &[&str]| (policy(values).statuses(), policy(values).takes_over());
        assert_eq!(
            says(&["exit-78=give-up", "exit-7=move", "exit-9=restart"]),
            (vec![7, 78], false)
        );
        assert_eq!(says(&["oom-kill=move"]), (vec![], true));
        assert_eq!(says(&["oom-kill=restart", "unhealthy=move"]), (vec![], false));
        assert_eq!(
            says(&["start-limit-hit=give-up"]),
            (vec![], false),
            "systemd has stopped by then"
        );
    }

    #[test]
    fn unknown_words_and_numbers_are_named() {
        let problem = |value: &str| policy(&[value]).problem();
        assert_eq!(problem("exit-1=restart").or(problem("exit-255=give-up")), None);
        assert_eq!(problem("core-dump=move").or(problem("unhealthy=restart")), None);
        for value in ["exit-0=move", "exit-256=move", "exit-=move", "exit-07=move", "exit-+1=move"]
        {
            let expected = format!(
                "OnFailure.{value}: no exit status of a failure; expect exit-1 to exit-255"
            );
            assert_eq!(problem(value), Some(expected));
        }
        assert_eq!(
            problem("oom=move").unwrap(),
            "OnFailure.oom=move: no result of systemd's; expect exit-code, signal, core-dump, \
                oom-kill, timeout, watchdog, start-limit-hit, unhealthy or exit-N"
        );
        assert_eq!(
            problem("signal=ignore").unwrap(),
            "OnFailure.signal=ignore: no such action; expect restart, move or give-up"
        );
    }
}
