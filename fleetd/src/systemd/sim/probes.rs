//! How simulated programs answer health checks.

use std::time::Duration;

use async_trait::async_trait;
use fleet_core::health::Probe;
use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use tokio::time::Instant;

use super::settings::duration;
use super::unit::real;
use super::{Behaviour, SimSystemd};
use crate::probe::{Answer, Probes};

/// What a program's arguments say of its answers, from its start on: well, unless they say
/// otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// `--ready-after=5s`: none before.
    ready_after: Duration,
    /// `--sick-after=20s`: with 503 from then on.
    sick_after: Option<Duration>,
    /// `--sick-for=10s`: so long, else for ever.
    sick_for: Option<Duration>,
    /// `--hangs`: it does not answer where it would answer badly.
    hangs: bool,
}

impl Answers {
    pub(super) fn read(command: &str) -> Answers {
        let time = |option: &str| {
            let mut words = command.split_whitespace();
            duration(words.find_map(|word| word.strip_prefix(option))?)
        };
        Answers {
            ready_after: time("--ready-after=").unwrap_or_default(),
            sick_after: time("--sick-after="),
            sick_for: time("--sick-for="),
            hangs: command.split_whitespace().any(|word| word == "--hangs"),
        }
    }

    /// The answer of a program that has run for so long.
    fn after(&self, age: Duration) -> Answer {
        if age < self.ready_after {
            return Answer::Bad("connection refused".to_string());
        }
        let sick_for = self.sick_for.unwrap_or(Duration::MAX);
        match self.sick_after {
            Some(from) if age >= from && age < from.saturating_add(sick_for) => match self.hangs {
                true => Answer::None,
                false => Answer::Bad("503".to_string()),
            },
            _ => Answer::Good,
        }
    }
}

impl SimSystemd {
    /// How the program of a unit answers if it is asked now; `None` while it does not run.
    pub fn answer(&self, name: &UnitName) -> Option<Answer> {
        let manager = self.manager();
        if let Some(answer) = manager.answers.get(name) {
            return Some(answer.clone());
        }
        let unit = manager.units.get(name).filter(|unit| unit.active == "active")?;
        if manager.behaviours.get(name) == Some(&Behaviour::Works) {
            return Some(Answer::Good); // what made it answer badly is mended
        }
        let file = UnitFile::parse_lenient(&unit.runs);
        let answers = Answers::read(file.last("Service", "ExecStart").unwrap_or_default());
        // Its times go by the host's clock.
        let stretched = |time: Duration| real(time, manager.rate_ppm);
        let answers = Answers {
            ready_after: stretched(answers.ready_after),
            sick_after: answers.sick_after.map(stretched),
            ..answers
        };
        Some(answers.after(Instant::now() - unit.began))
    }

    /// From now on the unit's program answers like this, whatever its arguments say; `None`: no
    /// longer.
    pub fn answer_with(&self, name: &UnitName, answer: Option<Answer>) {
        let mut manager = self.manager();
        match answer {
            Some(answer) => drop(manager.answers.insert(name.clone(), answer)),
            None => drop(manager.answers.remove(name)),
        }
    }
}

#[async_trait]
impl Probes for SimSystemd {
    async fn ask(&self, instance: &UnitName, _: &Probe, limit: Duration) -> Answer {
        let service = instance.systemd_name();
        let answer = self.answer(&service);
        self.tally.count(|c| c.check += 1);
        match answer {
            Some(Answer::None) => {
                tokio::time::sleep(limit).await;
                Answer::None
            }
            Some(answer) => {
                tokio::time::sleep(self.times.call).await;
                answer
            }
            None => Answer::Bad("connection refused".to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_arguments_tell_how_it_answers() {
        let answers =
            |command: &str, seconds| Answers::read(command).after(Duration::from_secs(seconds));
        let bad = |words: &str| Answer::Bad(words.to_string());
        assert_eq!(answers("/bin/web", 0), Answer::Good);
        let slow = "/bin/web --ready-after=5s --sick-after=20s --sick-for=10s";
        assert_eq!(answers(slow, 4), bad("connection refused"));
        assert_eq!(answers(slow, 5), Answer::Good);
        assert_eq!(answers(slow, 25), bad("503"));
        assert_eq!(answers(slow, 30), Answer::Good);
        assert_eq!(answers("/bin/web --sick-after=0 --hangs", 100), Answer::None);
    }
}
