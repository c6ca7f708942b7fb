//! What submit, load and start share: find the files, create or replace units, ask for a state, wait.

use fleet_core::wire::Unit;

use super::Context;
use crate::client::Written;
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::output::{Outcome, warn};
use crate::sources::{self, Replaceable, Source};
use crate::wait::{WaitArgs, until_done};
use crate::watch::{Goal, Target};

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
pub(crate) async fn run(context: &Context, verb: Verb, units: &[String], replace: bool, wait: &WaitArgs) -> Result<u8, Error> {
    let arguments =
        Argument::parse_all(units).map_err(|problem| Error::worded(Kind::Failed, format!("Error creating units: {problem}")))?;
    let mut sources = Vec::new();
    for argument in &arguments {
        sources.push(sources::find(&context.client, argument, replace.then(|| verb.may_replace_in())).await?);
    }
    let mut targets = Vec::new();
    let mut revision = 0;
    for source in sources {
        let (written, target) = apply(context, verb, source, wait.blocks()).await?;
        revision = revision.max(written.revision);
        targets.extend(target);
    }
    if wait.blocks() {
        until_done(&context.client, &context.output, targets, revision, wait).await?;
    }
    context.output.all_results()?;
    Ok(0)
}

/// Writes one unit, and says what to wait for.
async fn apply(context: &Context, verb: Verb, source: Source, blocks: bool) -> Result<(Written, Option<Target>), Error> {
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
    let mut written = Written::default();
    // One write both creates a unit and asks for its state: less to do for everybody, and no moment in between.
    let creates = body.is_some();
    let current = match (&known, body) {
        (_, Some(mut new)) => {
            new.desired_state = verb.goal().map_or_else(String::new, |(_, state)| state.to_string());
            if new.desired_state.is_empty() && known.is_some() {
                new.desired_state = "inactive".to_string();
            }
            written =
                context.client.put_unit(&new).await.map_err(|error| {
                    Error::request(&format!("Error creating units: failed creating unit {}", new.name), error)
                })?;
            tell_warnings(&new.name, &written);
            if known.as_ref().is_none_or(|old| old.desired_state == "inactive" || old.desired_state.is_empty()) {
                // fleet 1.0 knew no state of global units, and printed none.
                let state = if sources::is_global(&new) { "" } else { "inactive" };
                output.result(&format!("Unit {} {state}", new.name), Outcome::nowhere(&new.name, "inactive"))?;
            }
            *new
        }
        (Some(unit), None) => (**unit).clone(),
        (None, None) => unreachable!("a source has a unit or a file"),
    };
    let Some((goal, state)) = verb.goal() else { return Ok((written, None)) };
    if !creates {
        if current.desired_state == state {
            // It is as asked, or on its way: nothing is news, but a failure is.
            return Ok((written, Some(Target::quiet(current.name, goal))));
        }
        written = context
            .client
            .set_desired(&current.name, state)
            .await
            .map_err(|error| Error::request(&format!("Error {}ing units", verb.word()), error))?;
        tell_warnings(&current.name, &written);
    }
    let target = announced(context, verb.word(), &current, goal, blocks)?;
    Ok((written, Some(target)))
}

/// Has `cat` print the file as it is now. Its options and the wanted state are as before, so nothing is restarted.
async fn write_comments(context: &Context, unit: &Unit, text: String) -> Result<(), Error> {
    let (name, desired_state, options) = (unit.name.clone(), unit.desired_state.clone(), unit.options.clone());
    let body = Unit { name, desired_state, options, text: Some(text), ..Unit::default() };
    let failed =
        |error| Error::request(&format!("Error creating units: failed replacing the comments of unit {}", unit.name), error);
    context.client.put_unit(&body).await.map_err(failed)?;
    Ok(())
}

/// The target of a changed unit; what is triggered and not told of later is told of here.
pub(super) fn announced(context: &Context, verb: &str, unit: &Unit, goal: Goal, blocks: bool) -> Result<Target, Error> {
    let name = &unit.name;
    if sources::is_global(unit) {
        context.output.result(&format!("Triggered global unit {name} {verb}"), Outcome::nowhere(name, "triggered"))?;
        return Ok(Target::quiet(name, goal));
    }
    if !blocks {
        context.output.result(&format!("Triggered unit {name} {verb}"), Outcome::nowhere(name, "triggered"))?;
    }
    Ok(Target::telling(name, goal, instances(unit)))
}

/// The instances of a unit: a scaled template's replicas, or itself.
pub(super) fn instances(unit: &Unit) -> Vec<String> {
    let name = fleet_core::name::UnitName::trusted(unit.name.as_str());
    match unit.replicas.filter(|_| name.is_template()) {
        Some(count) => (1..=count).map(|number| name.replica(number).to_string()).collect(),
        None => vec![unit.name.clone()],
    }
}

/// Says what fleetd found odd about a unit.
pub(super) fn tell_warnings(name: &str, written: &Written) {
    for warning in &written.warnings {
        warn(&format!("Unit {name}: {warning}"));
    }
}
