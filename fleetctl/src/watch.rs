//! Judges one line of progress after another: what arrived, what left, what can never be, and
//! whether all is done.

use std::collections::BTreeSet;

use fleet_core::model::InstanceStatus;
use fleet_core::name::UnitName;
use fleet_core::rollout::{Failure, Kind as What, State};
use fleet_core::wire::{InstanceProgress, Progress, UnitProgress};
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::output::{Outcome, Output, counted, machine_legend, note};
use crate::progress::{lines, reasons};
use crate::settle::Settling;
use crate::target::{Goal, Target};

/// How many names an error lists before it only counts.
const NAMES_SHOWN: usize = 3;

/// The units waited for, and the newest that is known of them.
#[derive(Debug)]
pub(crate) struct Watch {
    targets: Vec<Target>,
    last: Progress,
    /// Whose rollouts were said to wait for a user.
    told_to_wait: BTreeSet<String>,
    /// What came up meanwhile, and may not stay up.
    pub(crate) settling: Settling,
}

impl Watch {
    /// Nothing is known yet.
    pub(crate) fn new(targets: Vec<Target>) -> Watch {
        Watch {
            targets,
            last: Progress::default(),
            told_to_wait: BTreeSet::new(),
            settling: Settling::default(),
        }
    }

    /// The names to follow.
    pub(crate) fn units(&self) -> Vec<String> {
        self.targets.iter().map(|target| target.unit.clone()).collect()
    }

    /// The newest progress.
    pub(crate) fn last(&self) -> &Progress {
        &self.last
    }

    /// Takes a line: prints what is news, and says whether all is done. What can never be is the
    /// error.
    pub(crate) fn observe(&mut self, progress: Progress, output: &Output) -> Result<bool, Error> {
        self.last = progress;
        let mut all_done = true;
        // Units are destroyed in any order, and told of in the order asked for.
        let mut in_order = true;
        for target in &mut self.targets {
            let Some(unit) = self.last.units.iter().find(|unit| unit.name == target.unit) else {
                (all_done, in_order) = (false, false);
                continue;
            };
            self.settling.observe(target, unit, Instant::now());
            let is_text = unit.rollout.as_ref().is_none_or(|rollout| rollout.kind == What::Text);
            if let Some(error) = undone(unit).filter(|_| target.stays_up || !is_text) {
                return Err(error);
            }
            if let Some(word) = waits(unit).filter(|_| self.told_to_wait.insert(unit.name.clone()))
            {
                note(&word);
            }
            let done = match target.goal {
                Goal::Destroyed if !in_order => is_done(target, unit),
                _ => tell(target, unit, output)?,
            };
            in_order &= done;
            all_done &= done;
        }
        if !all_done {
            self.check_impossible()?;
        }
        Ok(all_done)
    }

    /// Tells what is done and was not told yet, since something before it is not: nothing more will
    /// come. With `--json` also what is not done, and why.
    pub(crate) fn tell_rest(&mut self, output: &Output) -> Result<(), Error> {
        if output.is_json() {
            for target in self.missing() {
                let unit = self.last.units.iter().find(|unit| unit.name == target.unit);
                let instances = unit.into_iter().flat_map(|unit| &unit.instances);
                for instance in instances.filter(|instance| !instance.done) {
                    output.result("", not_done(instance, target.goal))?;
                }
            }
        }
        for target in self.targets.iter_mut().filter(|target| target.goal == Goal::Destroyed) {
            let unit = self.last.units.iter().find(|unit| unit.name == target.unit);
            if let Some(unit) = unit.filter(|unit| is_done(target, unit)) {
                tell(target, unit, output)?;
            }
        }
        Ok(())
    }

    /// What failed in a rollout that an error tells of, and when that was found.
    pub(crate) fn failed(&self) -> Option<(&Failure, u64)> {
        let units = self.last.units.iter().filter(|unit| undone(unit).is_some());
        let mut rollouts = units.filter_map(|unit| unit.rollout.as_ref());
        rollouts.find_map(|rollout| Some((rollout.failure.as_ref()?, rollout.since_ms)))
    }

    /// Whether all was done at the last line.
    pub(crate) fn is_done(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The error for when time is up: which units, and what each of their instances lacks.
    pub(crate) fn timed_out(&self) -> Error {
        let mut message = Vec::new();
        for target in self.missing() {
            message.push(format!(
                "Error waiting for units: timed out waiting for unit {} to report state {}",
                target.unit,
                target.goal.word()
            ));
        }
        message.extend(lines(&self.last).into_iter().map(|line| format!("  {line}")));
        Error::worded(Kind::TimedOut, message.join("\n")).hint(
            "the cluster continues with it; `fleetctl list-units` shows how far it is, \
                --timeout=SECONDS waits longer",
        )
    }

    /// The error for Ctrl-C.
    pub(crate) fn interrupted(&self) -> Error {
        let word = |target: &Target| format!("{} {}", target.unit, target.goal.word());
        let mut missing: Vec<String> = self.missing().map(word).collect();
        if missing.is_empty() {
            // All are up, and about to be looked at once more.
            missing = self.targets.iter().map(word).collect();
        }
        Error::worded(
            Kind::Interrupted,
            format!(
                "Interrupted. The cluster continues with what was asked: {}",
                shorten(&missing)
            ),
        )
    }

    fn missing(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter(move |target| {
            !self.last.units.iter().any(|unit| unit.name == target.unit && is_done(target, unit))
        })
    }

    /// No machine fits, or systemd says "failed": waiting longer is in vain.
    fn check_impossible(&self) -> Result<(), Error> {
        for target in &self.targets {
            let Some(unit) = self.last.units.iter().find(|unit| unit.name == target.unit) else {
                continue;
            };
            if let Some(error) = unit.instances.iter().find_map(stuck) {
                return Err(error);
            }
            if is_done(target, unit)
                || target.nowhere_will_do
                || matches!(target.goal, Goal::Inactive | Goal::Destroyed)
            {
                continue;
            }
            if let Some(error) = no_machine(unit) {
                return Err(error);
            }
            if target.stays_up && is_undone_by_itself(unit) {
                continue; // that ends it, and says what failed
            }
            if let Some(error) =
                unit.instances.iter().find_map(|instance| failure(instance, target.goal))
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Prints what is news of one unit, and says whether it is done.
fn tell(target: &mut Target, unit: &UnitProgress, output: &Output) -> Result<bool, Error> {
    let done = is_done(target, unit);
    let word = target.goal.word();
    if !unit.exists && target.goal != Goal::Destroyed {
        return Err(Error::failed(format!("{} was destroyed while waiting for it", target.unit)));
    }
    if done
        && target.goal != Goal::Destroyed
        && !unit.desired_state.is_empty()
        && unit.desired_state != word
    {
        let message = format!(
            "the desired state of {} is {} now: somebody else changed it",
            target.unit, unit.desired_state
        );
        return Err(Error::failed(message));
    }
    let refused = |instance: &InstanceProgress| target.nowhere_will_do && is_refused(instance);
    let arrived = |i: &&InstanceProgress| {
        i.wanted && !refused(i) && (i.done || failure(i, target.goal).is_some())
    };
    for instance in unit.instances.iter().filter(arrived).collect::<Vec<_>>() {
        // "launched" says that systemd was told to start it; a failure is launched, too.
        if target.arriving.remove(&instance.name) {
            announce(&instance.name, word, Some(instance), output)?;
        }
    }
    let gone: Vec<String> = target
        .leaving
        .iter()
        .filter(|name| done || !unit.instances.iter().any(|i| i.name == **name))
        .cloned()
        .collect();
    for name in gone {
        target.leaving.remove(&name);
        announce(&name, Goal::Inactive.word(), None, output)?;
    }
    if done {
        for name in std::mem::take(&mut target.arriving) {
            match target.goal {
                Goal::Destroyed => {
                    output.result(&format!("Destroyed {name}"), Outcome::nowhere(&name, word))?
                }
                _ => announce(&name, Goal::Inactive.word(), None, output)?,
            }
        }
    }
    Ok(done)
}

fn announce(
    name: &str,
    state: &str,
    instance: Option<&InstanceProgress>,
    output: &Output,
) -> Result<(), Error> {
    let mut outcome = Outcome::nowhere(name, state);
    let mut line = format!("Unit {name} {state}");
    if let Some((machine, instance)) =
        instance.and_then(|i| i.machine.as_ref().map(|machine| (machine, i)))
    {
        line.push_str(&format!(
            " on {}",
            machine_legend(machine.as_str(), &instance.address, false)
        ));
        outcome.machine_id = machine.to_string();
        outcome.primary_ip.clone_from(&instance.address);
    }
    output.result(&line, outcome)
}

fn is_done(target: &Target, unit: &UnitProgress) -> bool {
    let down = |instance: &InstanceProgress| {
        instance.done || instance.machine.is_none() || is_refused(instance)
    };
    let settling = |instance: &InstanceProgress| {
        instance.status.as_ref().is_some_and(|status| status.settling || !status.is_well())
    };
    if target.stays_up
        && target.goal == Goal::Launched
        && unit.instances.iter().any(|i| i.wanted && settling(i))
    {
        return false;
    }
    unit.done
        || (target.nowhere_will_do && !unit.instances.is_empty() && unit.instances.iter().all(down))
}

/// Whether a new text that fails is undone by the cluster.
fn is_undone_by_itself(unit: &UnitProgress) -> bool {
    unit.rollout.as_ref().is_some_and(|rollout| {
        rollout.state == State::Undone
            || (rollout.state == State::Rolling && rollout.good.is_some())
            || (rollout.waits && rollout.good.is_some())
    })
}

/// The error for a new text or a restart that failed, once nothing more is done about it.
fn undone(unit: &UnitProgress) -> Option<Error> {
    let rollout = unit.rollout.as_ref()?;
    let (name, revision, good) = (&unit.name, rollout.revision, rollout.good);
    let because = match &rollout.failure {
        Some(failure) => format!(": {failure}"),
        None => String::new(),
    };
    let error = match (rollout.state, good) {
        (State::Undone, Some(good)) if unit.done => {
            Error::failed(format!("revision {revision} of {name} was undone{because}"))
                .hint(format!("all instances have the text of revision {good}"))
                .hint(format!("`fleetctl rollout resume {name}` tries it again"))
        }
        (State::Paused, good) if rollout.failure.is_some() => {
            let what = match rollout.kind {
                What::Text | What::Other => format!("revision {revision}"),
                What::Restart => "the restart".to_string(),
                What::Config => "the new configuration".to_string(),
            };
            let error = Error::failed(format!("{what} of {name} goes no further{because}"));
            let error = error.hint(format!("`fleetctl rollout resume {name}` tries on"));
            match good {
                Some(good) => error.hint(format!(
                    "`fleetctl rollout undo {name}` returns all instances to revision {good}"
                )),
                None => error,
            }
        }
        _ => return None,
    };
    Some(match &rollout.failure {
        Some(failure) => error.hint(format!("fleetctl journal {}", failure.instance)),
        None => error,
    })
}

/// What is said of a rollout that waits for a user.
fn waits(unit: &UnitProgress) -> Option<String> {
    let rollout = unit.rollout.as_ref().filter(|it| it.waits && it.failure.is_none())?;
    let name = &unit.name;
    let undo = match rollout.good {
        Some(_) => format!(", `fleetctl rollout undo {name}` takes it back"),
        None => String::new(),
    };
    Some(format!(
        "The rollout of {name} waits for a user: `fleetctl rollout resume {name}` goes on{undo}"
    ))
}

/// Whether its machine took none of it: there is nothing to stop there.
fn is_refused(instance: &InstanceProgress) -> bool {
    instance.acknowledged && instance.status.as_ref().is_some_and(InstanceStatus::is_refused)
}

/// The error for instances that fit no machine, with each reason and its count.
fn no_machine(unit: &UnitProgress) -> Option<Error> {
    let misfits: Vec<&InstanceProgress> = unit
        .instances
        .iter()
        .filter(|i| i.wanted && i.machine.is_none() && !i.misfits.is_empty())
        .collect();
    let first = misfits.first()?;
    let names: Vec<String> = misfits.iter().map(|instance| instance.name.clone()).collect();
    let mut error = Error::failed(format!("no machine can run {}", shorten(&names)));
    for misfit in &first.misfits {
        error = error.hint(format!("{}: {}", counted(misfit.machines, "machine"), misfit.reason));
    }
    Some(error.hint(format!(
        "{} stays submitted and is placed when a machine fits; `fleetctl destroy {}` removes it",
        unit.name, unit.name
    )))
}

/// The error for an instance that should go and that systemd does not stop.
fn stuck(instance: &InstanceProgress) -> Option<Error> {
    let status =
        instance.status.as_ref().filter(|status| status.stop_refused && !instance.wanted)?;
    let machine = instance
        .machine
        .as_ref()
        .map_or_else(String::new, |id| machine_legend(id.as_str(), "", false));
    let why = reasons(status, false);
    let systemd_name = UnitName::trusted(&*instance.name).systemd_name();
    let error = Error::failed(format!("{} still runs on {machine}{why}", instance.name));
    Some(error.hint(format!(
        "fleet retries every minute; `systemctl kill {systemd_name}` on that machine ends it"
    )))
}

/// The error for an instance that its machine reports as failed, in systemd's words.
fn failure(instance: &InstanceProgress, goal: Goal) -> Option<Error> {
    let status = instance.status.as_ref().filter(|_| instance.wanted && instance.acknowledged)?;
    // What systemd restarts again and again is never `failed`, nor is what runs and answers badly.
    let works = status.is_active() && status.is_well();
    let in_vain = status.gave_up && !works && status.message.is_none();
    if instance.done && !(in_vain && status.is_active()) {
        return None;
    }
    let failed = (status.active == "failed" || in_vain) && goal == Goal::Launched;
    // What is on its way up says only what it waits for.
    if !failed && (status.message.is_none() || status.active == "activating") {
        return None;
    }
    let machine = instance
        .machine
        .as_ref()
        .map_or_else(String::new, |id| format!(" on {}", machine_legend(id.as_str(), "", false)));
    let why = reasons(status, failed);
    let error = Error::failed(format!("{} failed{machine}{why}", instance.name));
    Some(error.hint(format!("fleetctl journal {}", instance.name)))
}

/// An instance that is not as asked when the wait ends.
fn not_done(instance: &InstanceProgress, goal: Goal) -> Outcome {
    let nowhere = instance.wanted && instance.machine.is_none() && !instance.misfits.is_empty();
    let state = match () {
        () if nowhere => "nowhere",
        () if failure(instance, goal).is_some() => "failed",
        () => "waiting",
    };
    let machine = instance.machine.as_ref();
    Outcome {
        machine_id: machine.map_or_else(String::new, ToString::to_string),
        primary_ip: instance.address.clone(),
        reasons: instance.misfits.clone(),
        waits: instance.waits.clone(),
        waits_for: instance.waits_for.clone(),
        status: instance.status.clone(),
        ..Outcome::nowhere(&instance.name, state)
    }
}

fn shorten(names: &[String]) -> String {
    match names.len().checked_sub(NAMES_SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..NAMES_SHOWN].join(", ")),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(units: &[(&str, bool)]) -> Progress {
        let unit = |(name, done): &(&str, bool)| UnitProgress {
            name: name.to_string(),
            exists: !done,
            done: *done,
            ..UnitProgress::default()
        };
        Progress { units: units.iter().map(unit).collect(), ..Progress::default() }
    }

    fn destroying(names: &[&str]) -> Watch {
        let target = |name: &&str| Target::telling(*name, Goal::Destroyed, [name.to_string()]);
        Watch::new(names.iter().map(target).collect())
    }

    #[test]
    fn units_are_told_destroyed_in_the_order_asked_for_whichever_goes_first() {
        let (mut watch, output) = (destroying(&["c", "a", "b"]), Output::new(true));
        assert!(
            !watch.observe(progress(&[("a", true), ("b", false), ("c", false)]), &output).unwrap()
        );
        assert!(output.told().is_empty());
        assert!(
            !watch.observe(progress(&[("a", true), ("b", false), ("c", true)]), &output).unwrap()
        );
        assert_eq!(output.told(), ["c", "a"]);
        assert!(
            watch.observe(progress(&[("a", true), ("b", true), ("c", true)]), &output).unwrap()
        );
        assert_eq!(output.told(), ["c", "a", "b"]);
    }

    #[test]
    fn what_was_destroyed_is_told_also_where_one_before_it_never_goes() {
        let (mut watch, output) = (destroying(&["a", "b", "c"]), Output::new(true));
        watch.observe(progress(&[("a", false), ("b", true), ("c", false)]), &output).unwrap();
        watch.tell_rest(&output).unwrap();
        assert_eq!(output.told(), ["b"]);
    }

    fn of(status: InstanceStatus, done: bool) -> UnitProgress {
        let instance = InstanceProgress {
            name: "web@1.service".to_string(),
            wanted: true,
            acknowledged: true,
            done,
            status: Some(status),
            ..InstanceProgress::default()
        };
        UnitProgress {
            name: "web@.service".to_string(),
            exists: true,
            done,
            instances: vec![instance],
            ..UnitProgress::default()
        }
    }

    #[test]
    fn a_new_text_is_waited_for_until_it_has_stayed_up_and_a_first_one_only_until_it_is_up() {
        let up = |settling| InstanceStatus {
            active: "active".into(),
            settling,
            ..InstanceStatus::default()
        };
        let first = Target::quiet("web@.service", Goal::Launched);
        let new = Target { stays_up: true, ..first.clone() };
        assert!(is_done(&first, &of(up(true), true)));
        assert!(!is_done(&new, &of(up(true), true)));
        assert!(is_done(&new, &of(up(false), true)));
    }

    #[test]
    fn what_is_restarted_in_vain_is_a_failure_also_where_systemd_never_says_so() {
        let status = |active: &str, gave_up| InstanceStatus {
            active: active.into(),
            gave_up,
            result: "exit-code".into(),
            code: Some(3),
            ..InstanceStatus::default()
        };
        let said = |status| {
            failure(&of(status, false).instances[0], Goal::Launched)
                .map(|error| format!("{error:?}"))
        };
        assert!(
            said(status("activating", true))
                .unwrap()
                .contains("web@1.service failed: exit-code, status 3")
        );
        assert_eq!(said(status("activating", false)), None, "it may come up yet");
    }
}
