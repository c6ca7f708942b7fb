//! What submit, load and start share: find the files, create or replace units, ask for a state,
//! wait.

use std::collections::BTreeSet;

use fleet_core::model::{InstanceStatus, RolloutAction};
use fleet_core::name::UnitName;
use fleet_core::rollout::State;
use fleet_core::wire::{InstanceProgress, Unit};

use crate::client::Written;
use crate::context::Context;
use crate::error::Error;
use crate::names::Argument;
use crate::output::{Outcome, note, warn};
use crate::sources::{self, Replaceable, Source, is_global};
use crate::target::{Goal, Target};
use crate::wait::{WaitArgs, look, until_done};

/// Which of the three it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Submit,
    Load,
    Start,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Submit => "submit",
            Verb::Load => "load",
            Verb::Start => "start",
        }
    }

    /// The state to ask for; submit asks for none.
    fn goal(self) -> Option<(Goal, &'static str)> {
        match self {
            Verb::Submit => None,
            Verb::Load => Some((Goal::Loaded, "loaded")),
            Verb::Start => Some((Goal::Launched, "launched")),
        }
    }

    /// Submit must not stop what is loaded, load must not stop what runs.
    fn may_replace_in(self) -> Replaceable<'static> {
        match self {
            Verb::Submit => &["inactive"],
            Verb::Load => &["inactive", "loaded"],
            Verb::Start => &["inactive", "loaded", "launched"],
        }
    }
}

/// Runs the command. All files are read and checked before the first write.
pub(crate) async fn run(
    context: &Context,
    verb: Verb,
    units: &[String],
    replace: bool,
    wait: &WaitArgs,
) -> Result<u8, Error> {
    let arguments = Argument::parse_all(units).map_err(|bad| bad.during("Error creating units"))?;
    let mut sources = Vec::new();
    for argument in &arguments {
        sources.push(
            sources::find(&context.client, argument, replace.then(|| verb.may_replace_in()))
                .await?,
        );
    }
    let mut targets = Vec::new();
    for source in super::order::in_order(sources) {
        let again = match (&source, replace && verb == Verb::Start) {
            (Source::Same { unit, .. }, true) => tries_again(context, unit).await?,
            _ => false,
        };
        let target = apply(context, verb, source, wait.blocks()).await?;
        targets
            .extend(target.map(|target| Target { stays_up: target.stays_up || again, ..target }));
    }
    if wait.blocks() {
        until_done(&context.client, &context.output, targets, wait).await?;
    }
    context.output.all_results()?;
    Ok(0)
}

/// Has a text tried again that was undone: the record has it already.
async fn tries_again(context: &Context, unit: &Unit) -> Result<bool, Error> {
    let name = &unit.name;
    // A unit that nobody looks after has none, and neither has an older fleetd.
    let Ok(rollout) = context.client.rollout(name).await else { return Ok(false) };
    if rollout.state != State::Undone {
        return Ok(false);
    }
    let resumed = context.client.want_rollout(name, RolloutAction::Resume).await;
    resumed.map_err(|error| Error::request(&format!("Error trying {name} again"), error))?;
    note(&format!("The text of {name} was undone, and is tried again"));
    Ok(true)
}

/// Writes one unit, and says what to wait for.
async fn apply(
    context: &Context,
    verb: Verb,
    source: Source,
    blocks: bool,
) -> Result<Option<Target>, Error> {
    let output = &context.output;
    let (known, body) = match source {
        Source::Keep(unit) => (Some(unit), None),
        Source::Same { unit, text } => {
            if let Some(text) = text {
                write_comments(context, &unit, text).await?;
            }
            output.result(
                &format!("Found same Unit({}) in Registry, nothing to do", unit.name),
                Outcome::nowhere(&unit.name, "unchanged"),
            )?;
            (Some(unit), None)
        }
        Source::Replace { old, new } => (Some(old), Some(new)),
        Source::Create(new) => (None, Some(new)),
    };
    // One write both creates a unit and asks for its state: less to do for everybody, and no moment
    // in between.
    let creates = body.is_some();
    let replaces = creates && known.is_some();
    let current = match (&known, body) {
        (_, Some(mut new)) => {
            new.desired_state =
                verb.goal().map_or_else(String::new, |(_, state)| state.to_string());
            if new.desired_state.is_empty() && known.is_some() {
                new.desired_state = "inactive".to_string();
            }
            let written = context.client.put_unit(&new).await.map_err(|error| {
                Error::request(
                    &format!("Error creating units: failed creating unit {}", new.name),
                    error,
                )
            })?;
            tell_warnings(&new.name, &written);
            if known
                .as_ref()
                .is_none_or(|old| old.desired_state == "inactive" || old.desired_state.is_empty())
            {
                // fleet 1.0 knew no state of global units, and printed none.
                let state = if is_global(&new) { "" } else { "inactive" };
                output.result(
                    &format!("Unit {} {state}", new.name),
                    Outcome::nowhere(&new.name, "inactive"),
                )?;
            }
            // A file says nothing of the count: a scaled template keeps the one that it has.
            Unit { replicas: known.as_ref().and_then(|old| old.replicas), ..*new }
        }
        (Some(unit), None) => (**unit).clone(),
        (None, None) => unreachable!("a source has a unit or a file"),
    };
    let Some((goal, state)) = verb.goal() else { return Ok(None) };
    if !creates {
        if current.desired_state == state {
            return match verb {
                Verb::Start => start_again(context, &current, blocks).await,
                // It is as asked, or on its way: nothing is news, but a failure is.
                Verb::Submit | Verb::Load => Ok(Some(Target::quiet(current.name, goal))),
            };
        }
        let written =
            context.client.set_desired(&current.name, state).await.map_err(|error| {
                Error::request(&format!("Error {}ing units", verb.word()), error)
            })?;
        tell_warnings(&current.name, &written);
    }
    let target = announced(context, verb.word(), &current, goal, blocks).await?;
    // What ran before runs no worse until it is known that the new text stays up.
    let stays_up = replaces && known.is_some_and(|old| old.desired_state == state);
    Ok(Some(Target { stays_up, ..target }))
}

/// A unit that is wanted launched already: what of it runs or is on its way is left alone, what has
/// ended is restarted.
async fn start_again(
    context: &Context,
    unit: &Unit,
    blocks: bool,
) -> Result<Option<Target>, Error> {
    let name = &unit.name;
    let progress = look(&context.client, name).await?;
    let wanted: Vec<&InstanceProgress> =
        progress.instances.iter().filter(|instance| instance.wanted).collect();
    let ended: Vec<&str> = wanted
        .iter()
        .filter(|instance| has_ended(instance))
        .map(|instance| instance.name.as_str())
        .collect();
    let quiet = Target::quiet(name, Goal::Launched);
    let asked: Vec<&str> = if ended.len() == wanted.len() && !ended.is_empty() {
        vec![name]
    } else if is_global(unit) {
        if !ended.is_empty() {
            note(&format!("Unit {name} has ended on {} of {} machines", ended.len(), wanted.len()));
            note(&format!(
                "Hint: fleetctl restart {name} starts it there, and restarts it on the others"
            ));
        }
        Vec::new()
    } else {
        ended.clone()
    };
    for instance in &asked {
        let failed = |error| Error::request(&format!("Error starting unit {instance}"), error);
        let written = context.client.restart(instance).await.map_err(failed)?;
        tell_warnings(instance, &written);
    }
    if asked.is_empty() {
        // It is as asked, or on its way: nothing is news, but a failure is.
        return Ok(Some(quiet));
    }
    if is_global(unit) || !blocks {
        triggered(context, "start", unit)?;
    }
    let target = if is_global(unit) {
        quiet
    } else {
        Target::telling(name, Goal::Launched, ended.into_iter().map(str::to_string))
    };
    Ok(Some(target))
}

/// Whether an instance was started and runs no longer.
fn has_ended(instance: &InstanceProgress) -> bool {
    let down = |status: &InstanceStatus| {
        status.launched && ["inactive", "failed"].contains(&status.active.as_str())
    };
    instance.acknowledged && instance.status.as_ref().is_some_and(down)
}

/// Has `cat` print the file as it is now. Its options and the wanted state are as before, so
/// nothing is restarted.
async fn write_comments(context: &Context, unit: &Unit, text: String) -> Result<(), Error> {
    let (name, desired_state, options) =
        (unit.name.clone(), unit.desired_state.clone(), unit.options.clone());
    let body = Unit { name, desired_state, options, text: Some(text), ..Unit::default() };
    let failed = |error| {
        Error::request(
            &format!("Error creating units: failed replacing the comments of unit {}", unit.name),
            error,
        )
    };
    context.client.put_unit(&body).await.map_err(failed)?;
    Ok(())
}

/// The target of a changed unit; what is triggered and not told of later is told of here.
pub(super) async fn announced(
    context: &Context,
    verb: &str,
    unit: &Unit,
    goal: Goal,
    blocks: bool,
) -> Result<Target, Error> {
    let name = &unit.name;
    if is_global(unit) {
        triggered(context, verb, unit)?;
        return Ok(Target::quiet(name, goal));
    }
    if !blocks {
        triggered(context, verb, unit)?;
    }
    Ok(Target::telling(name, goal, instances(context, unit).await?))
}

/// Says that a unit is asked for and not waited for, or not instance by instance.
pub(super) fn triggered(context: &Context, verb: &str, unit: &Unit) -> Result<(), Error> {
    let (name, what) = (&unit.name, if is_global(unit) { "global unit" } else { "unit" });
    context
        .output
        .result(&format!("Triggered {what} {name} {verb}"), Outcome::nowhere(name, "triggered"))
}

/// The instances of a unit: a scaled template's replicas but for those that go their own way, or
/// itself.
pub(super) async fn instances(context: &Context, unit: &Unit) -> Result<Vec<String>, Error> {
    match unit.replicas {
        Some(count) => replicas(context, &UnitName::trusted(unit.name.as_str()), 1, count).await,
        None => Ok(vec![unit.name.clone()]),
    }
}

/// A template's replicas from number `from` up to `to`. One that was given a state or a text of its
/// own does not follow the template, so it is left out, and said to be.
pub(super) async fn replicas(
    context: &Context,
    template: &UnitName,
    from: u32,
    to: u32,
) -> Result<Vec<String>, Error> {
    if from > to {
        return Ok(Vec::new());
    }
    let units = context.client.brief_units().await;
    let units = units
        .map_err(|error| Error::request("Error retrieving list of units from repository", error))?;
    let is_own = |unit: &&Unit| {
        let name = UnitName::trusted(unit.name.as_str());
        unit.template.is_empty()
            && name.template().as_ref() == Some(template)
            && name.replica_number().is_some_and(|number| (from..=to).contains(&number))
    };
    let mut own: Vec<(u32, &Unit)> = units
        .iter()
        .filter(is_own)
        .filter_map(|unit| Some((UnitName::trusted(unit.name.as_str()).replica_number()?, unit)))
        .collect();
    own.sort_by_key(|(number, _)| *number);
    if !own.is_empty() {
        let said: Vec<String> =
            own.iter().map(|(_, unit)| format!("{} ({})", unit.name, unit.desired_state)).collect();
        note(&format!("Not changed, because they have records of their own: {}", said.join(", ")));
    }
    let own: BTreeSet<u32> = own.into_iter().map(|(number, _)| number).collect();
    Ok((from..=to)
        .filter(|number| !own.contains(number))
        .map(|number| template.replica(number).to_string())
        .collect())
}

/// Says what fleetd found odd about a unit.
pub(super) fn tell_warnings(name: &str, written: &Written) {
    for warning in &written.warnings {
        warn(&format!("Unit {name}: {warning}"));
    }
}
