//! A command inside a unit: what a health check of `exec:` runs.
//!
//! systemd runs it as a unit of its own, not fleetd, which has no rights for that: with a limit of
//! time, of memory and of processes, its output thrown away, and nothing of it in the journal. Of a
//! container podman runs it, of another service it enters the namespaces of the main process.

use std::time::Duration;

use fleet_core::health::seed;
use fleet_core::name::UnitName;
use tokio::time::timeout;
use tracing::debug;
use zbus::zvariant::Value;

use super::{DbusSystemd, refused, unit_path};
use crate::probe::Answer;
use crate::systemd::{JobOutcome, Systemd, SystemdError};

/// What enters namespaces.
const NSENTER: &str = "/usr/bin/nsenter";

/// What runs commands in containers.
const PODMAN: &str = "/usr/bin/podman";

/// The most memory of a check, in bytes: podman alone takes some 50 MiB.
const MOST_MEMORY: u64 = 256 << 20;

/// The most processes and threads of a check.
const MOST_TASKS: u64 = 128;

/// How long a check that is out of time has from SIGTERM to SIGKILL.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long systemd may take with all of it beyond the check's own limit.
const SLACK: Duration = Duration::from_secs(10);

/// systemd's word for the level of messages from which on the journal has them: `crit`.
const QUIET: i32 = 2;

const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// systemd's number for no user and no group: root.
const NOBODY_NAMED: u32 = u32::MAX;

impl DbusSystemd {
    /// Runs a command inside an instance that runs, by fleet's name for it. Takes at most `limit`
    /// and a few seconds more, in which what hangs is killed.
    pub(crate) async fn run_inside(
        &self,
        instance: &UnitName,
        command: &[String],
        limit: Duration,
    ) -> Answer {
        let run = async {
            let arguments = match self.way_inside(instance).await {
                Ok(Ok(way)) => way.into_iter().chain(command.iter().cloned()).collect(),
                Ok(Err(problem)) => return Answer::Bad(problem),
                Err(error) => return Answer::NotAsked(error.to_string()),
            };
            match self.run_check(instance, arguments, limit).await {
                Ok(answer) => answer,
                Err(error) => Answer::NotAsked(error.to_string()),
            }
        };
        let late = || Answer::NotAsked("systemd does not end the check".to_string());
        timeout(limit + SLACK, run).await.unwrap_or_else(|_| late())
    }

    /// The words before a command that has to run inside the instance, or why there is no inside.
    async fn way_inside(
        &self,
        instance: &UnitName,
    ) -> Result<Result<Vec<String>, String>, SystemdError> {
        let service = instance.systemd_name();
        if instance.suffix() == "container" {
            let path = self.root.join("run").join(format!("{}.cid", service.stem()));
            return Ok(match std::fs::read_to_string(&path) {
                Ok(id) if id.trim().bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                    Ok([PODMAN, "exec", id.trim()].map(str::to_string).to_vec())
                }
                Ok(_) => Err(format!("{} names no container", path.display())),
                Err(error) => Err(format!("it has no container ({}: {error})", path.display())),
            });
        }
        let path = unit_path(&service);
        let number = |property| self.link.get::<u32>(&path, SERVICE, property, |c| c.check += 1);
        let (pid, user, group) =
            futures_util::future::try_join3(number("MainPID"), number("UID"), number("GID"))
                .await
                .map_err(|error| refused("describe", &service, error))?;
        if pid == 0 {
            return Ok(Err("it has no main process".to_string()));
        }
        if self.user {
            return Ok(Ok(Vec::new())); // only root enters namespaces
        }
        let id = |id: u32| if id == NOBODY_NAMED { 0 } else { id };
        Ok(Ok(vec![
            NSENTER.to_string(),
            format!("--target={pid}"),
            "--all".to_string(),
            "--root".to_string(),
            "--wd".to_string(),
            format!("--setgid={}", id(group)),
            format!("--setuid={}", id(user)),
            "--".to_string(),
        ]))
    }

    async fn run_check(
        &self,
        instance: &UnitName,
        arguments: Vec<String>,
        limit: Duration,
    ) -> Result<Answer, SystemdError> {
        // One name an instance: what an earlier fleetd left is in the way of no more than one.
        let unit = UnitName::trusted(format!("fleet-check-{:016x}.service", seed(instance)));
        let Some(program) = arguments.first().cloned() else {
            return Ok(Answer::Bad("there is no command".to_string()));
        };
        let micros = |time: Duration| Value::from(time.as_micros() as u64);
        let properties: Vec<(&str, Value<'_>)> = vec![
            ("Description", format!("Health check of {instance}").into()),
            ("Type", "oneshot".into()),
            ("ExecStart", vec![(program, arguments, false)].into()),
            ("TimeoutStartUSec", micros(limit)),
            ("TimeoutStopUSec", micros(LAST_WORDS)),
            ("StandardOutput", "null".into()),
            ("StandardError", "null".into()),
            ("LogLevelMax", QUIET.into()),
            ("MemoryMax", MOST_MEMORY.into()),
            ("TasksMax", MOST_TASKS.into()),
            ("Slice", "fleet-checks.slice".into()),
        ];
        let ended = self.jobs.watch(&unit);
        self.glance.queues_check();
        let others: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
        let body = (unit.as_str(), "fail", properties, others);
        if let Err(error) = self.link.manager("StartTransientUnit", &body, |c| c.check += 1).await {
            self.reset_failed(&unit).await?; // that is all that may be in the way
            return Err(refused("check", instance, error));
        }
        let Ok(result) = ended.await else {
            return Ok(Answer::NotAsked("the bus connection ended".to_string()));
        };
        if result == crate::systemd::jobs::DONE {
            return Ok(Answer::Good);
        }
        let outcome = self.outcome(&unit).await;
        if let Err(error) = self.reset_failed(&unit).await {
            debug!("{error}");
        }
        Ok(meaning(&outcome?, &result))
    }
}

/// What the end of a check that did not end well means.
fn meaning(outcome: &JobOutcome, job: &str) -> Answer {
    let code = outcome.code.unwrap_or_default();
    Answer::Bad(match outcome.result.as_str() {
        "timeout" => return Answer::None,
        "exit-code" => format!("exit status {code}"),
        "signal" | "core-dump" => format!("killed by signal {code}"),
        "oom-kill" => "it needs too much memory".to_string(),
        "success" | "" => return Answer::NotAsked(format!("systemd ended the check as {job}")),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_check_is_told_in_a_few_words() {
        let meaning = |result: &str, code| {
            let outcome = JobOutcome { result: result.to_string(), code, restarts: 0 };
            super::meaning(&outcome, "failed")
        };
        let bad = |words: &str| Answer::Bad(words.to_string());
        assert_eq!(meaning("exit-code", Some(3)), bad("exit status 3"));
        assert_eq!(meaning("signal", Some(9)), bad("killed by signal 9"));
        assert_eq!(meaning("timeout", Some(15)), Answer::None);
        assert_eq!(meaning("oom-kill", Some(9)), bad("it needs too much memory"));
        assert!(matches!(meaning("success", None), Answer::NotAsked(_)));
    }
}
