//! How units end: told to, killed, by their watchdog or by themselves; and what their programs say
//! meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use super::unit::{Manager, Then, Timer, Unit, real};
use super::*;

impl Manager {
    /// SIGTERM, or SIGABRT of the watchdog.
    pub(super) fn begin_stop(&mut self, name: &UnitName, how: &'static str) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let (limit, mut takes) = (unit.settings.timeout_stop, self.stop_times.get(name).copied());
        if unit.sub == "auto-restart" {
            unit.outcome.result = "success".to_string();
            takes = None; // there is no process
        }
        let acts = self.children.get(name).inspect(|child| child.terminate.notify_one()).is_some();
        let next = match takes {
            _ if acts && how == "stop-sigterm" => (Then::Killed, Some(limit)),
            Some(takes) if takes > limit => (Then::Killed, Some(limit)),
            takes => (Then::Stopped, takes),
        };
        self.step(name, Some(("deactivating", how)), Some(next));
    }

    /// The stop is done: the process has ended.
    pub(super) fn stopped(&mut self, name: &UnitName) {
        self.clean_up(name);
        let Some(unit) = self.units.get_mut(name) else { return };
        let (result, job) = (unit.outcome.result.clone(), unit.job);
        self.rests.insert(name.clone(), if job.is_some() { Rest::Stopped } else { Rest::Ended });
        if result != "success" && job.is_none() {
            return self.ended(name, &result);
        }
        self.step(
            name,
            Some(if result == "success" { ("inactive", "dead") } else { ("failed", "failed") }),
            None,
        );
        match job {
            Some((id, Job::Start | Job::Restart)) => {
                if let Some(unit) = self.units.get_mut(name) {
                    unit.job = Some((id, Job::Start));
                }
                self.wait(name, Job::Start);
            }
            _ => self.end_job(name),
        }
        self.forget_if_idle(name);
    }

    pub(super) fn fails_with(&mut self, name: &UnitName, result: &str) {
        if let Some(unit) = self.units.get_mut(name) {
            unit.outcome.result = result.to_string();
        }
    }

    /// The program says that its start is done.
    pub(super) fn ready(&mut self, name: &UnitName, invocation: u64) {
        let starts = |unit: &Unit| {
            unit.invocation == invocation && unit.active == "activating" && unit.settings.notify
        };
        if self.units.get(name).is_some_and(starts) {
            self.started(name);
            self.settle();
        }
    }

    /// The program says that it lives.
    pub(super) fn ping(&mut self, name: &UnitName, invocation: u64) {
        let rate_ppm = self.rate_ppm;
        if let Some(unit) = self.units.get_mut(name).filter(|unit| unit.invocation == invocation) {
            unit.watched_until =
                unit.settings.watchdog.map(|time| Instant::now() + real(time, rate_ppm));
        }
    }

    /// Ends a unit whose program has been silent for too long.
    pub(super) fn watch(&mut self, name: &UnitName) {
        let Some(unit) = self.units.get(name).filter(|unit| unit.active == "active") else {
            return;
        };
        let (Some(until), invocation) = (unit.watched_until, unit.invocation) else { return };
        let left = until.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return self.watch_later(name, invocation, left);
        }
        self.fails_with(name, "watchdog");
        self.begin_stop(name, "stop-watchdog");
        self.end_bound(name);
    }

    pub(super) fn watch_later(&mut self, name: &UnitName, invocation: u64, left: Duration) {
        self.timers.push(Timer {
            delay: Some(left),
            lags: true,
            name: name.clone(),
            epoch: invocation,
            then: Then::Watch,
        });
    }

    /// The program of a unit has ended.
    pub(super) fn exited(&mut self, name: &UnitName, invocation: u64, well: bool) {
        if self.children.get(name).is_some_and(|child| child.invocation == invocation) {
            let (result, code) = if well { ("success", 0) } else { ("exit-code", 1) };
            self.process_ended(name, result, code);
        }
    }

    /// The unit's process ended; `Restart=` decides what follows.
    pub(super) fn process_ended(&mut self, name: &UnitName, result: &str, code: i32) {
        self.break_off_reload(name);
        let Some(unit) = self.units.get_mut(name) else { return };
        let takes = self
            .stop_times
            .get(name)
            .copied()
            .filter(|_| unit.active == "active" && result != "success");
        if unit.active == "deactivating" {
            self.stopped(name);
        } else if let Some(takes) = takes {
            // What is left of it, or its `ExecStopPost=`, takes its time.
            (unit.outcome.code, unit.outcome.result) = (Some(code), result.to_string());
            let takes = takes.min(unit.settings.timeout_stop);
            self.step(
                name,
                Some(("deactivating", "stop-post")),
                Some((Then::Stopped, Some(takes))),
            );
        } else {
            unit.outcome.code = Some(code);
            self.ended(name, result);
        }
        self.settle();
    }

    fn ended(&mut self, name: &UnitName, result: &str) {
        self.clean_up(name);
        let Some(unit) = self.units.get_mut(name) else { return };
        unit.outcome.result = result.to_string();
        self.rests.insert(name.clone(), Rest::Ended);
        if result != "success" {
            self.failures.insert(name.clone(), unit.outcome.clone());
        }
        let Some(unit) = self.units.get_mut(name) else { return };
        // A start whose process ends before it is ready has failed, also where another one follows.
        let starts = (unit.active, unit.sub) == ("activating", "start")
            && matches!(unit.job, Some((_, Job::Start)));
        let after = unit.settings.restart_after;
        if unit.settings.restarts_after(result, unit.outcome.code) {
            self.step(
                name,
                Some(("activating", "auto-restart")),
                Some((Then::StartAgain, Some(after))),
            );
        } else if result != "success" {
            self.step(name, Some(("failed", "failed")), None);
        } else if unit.settings.remain_after_exit {
            self.step(name, Some(("active", "exited")), None);
            return;
        } else {
            self.step(name, Some(("inactive", "dead")), None);
        }
        if starts && !self.waiting.contains_key(name) {
            self.end_job_as(name, if result == "success" { DONE } else { "failed" });
        }
        self.end_bound(name);
        self.forget_if_idle(name);
    }
}
