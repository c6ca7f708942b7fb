//! What stop and unload share: ask for a lower state and wait; and what destroy and restart share
//! with them: find the units.

use fleet_core::name::UnitName;
use fleet_core::wire::Unit;

use super::activate::{announced, tell_warnings};
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::output::note;
use crate::sources::is_global;
use crate::target::Goal;
use crate::wait::{WaitArgs, until_done};

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Stop,
    Unload,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Stop => "stop",
            Verb::Unload => "unload",
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Verb::Stop => "stopping",
            Verb::Unload => "unloading",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Verb::Stop => "stopped",
            Verb::Unload => "unloaded",
        }
    }

    fn goal(self) -> (Goal, &'static str) {
        match self {
            Verb::Stop => (Goal::Loaded, "loaded"),
            Verb::Unload => (Goal::Inactive, "inactive"),
        }
    }

    /// Whether there is nothing to do. As in fleet 1.0, to stop what is on no machine is an error,
    /// to unload it is not.
    fn is_done(self, unit: &Unit) -> Result<bool, Error> {
        match self {
            Verb::Stop if is_inactive(unit) => Err(Error::worded(
                Kind::Failed,
                format!("Unable to stop unit {} in state inactive", unit.name),
            )),
            Verb::Stop => Ok(unit.desired_state == "loaded" && !is_global(unit)),
            Verb::Unload => Ok(is_inactive(unit) && !is_global(unit)),
        }
    }
}

/// Runs the command.
pub(super) async fn run(
    context: &Context,
    verb: Verb,
    names: &[String],
    wait: &WaitArgs,
) -> Result<u8, Error> {
    let units = find(context, names).await?;
    if units.is_empty() {
        context.output.all_results()?;
        return Ok(0);
    }
    let (goal, state) = verb.goal();
    let mut targets = Vec::new();
    let mut done = Vec::new();
    // All are checked before any is changed.
    let mut open = Vec::new();
    for unit in &units {
        if !verb.is_done(unit)? {
            open.push(unit);
        }
    }
    for unit in open {
        let written = context
            .client
            .set_desired(&unit.name, state)
            .await
            .map_err(|error| Error::request(&format!("Error {} units", verb.doing()), error))?;
        tell_warnings(&unit.name, &written);
        let mut target = announced(context, verb.word(), unit, goal, wait.blocks()).await?;
        target.nowhere_will_do = verb == Verb::Stop;
        targets.push(target);
        if !is_global(unit) {
            done.push(unit.name.clone());
        }
    }
    if wait.blocks() {
        until_done(&context.client, &context.output, targets, wait).await?;
    }
    context.output.all_results()?;
    // Go's way to print a list.
    note(&format!("Successfully {} units [{}].", verb.done(), done.join(" ")));
    Ok(0)
}

/// The units named, in the order named. As in fleet 1.0, those that the cluster does not have are
/// passed over with a word; so is what cannot be a unit's name, such as another file of the
/// directory.
pub(super) async fn find(context: &Context, units: &[String]) -> Result<Vec<Unit>, Error> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    let mut seen: Vec<UnitName> = Vec::new();
    for text in units {
        let argument = match Argument::parse(text) {
            Ok(argument) if seen.contains(&argument.name) => continue,
            Ok(argument) => argument,
            Err(bad) => {
                note(&bad.to_string());
                continue;
            }
        };
        seen.push(argument.name.clone());
        match context.client.unit_of(&argument).await {
            Ok(Some(unit)) => found.push(unit),
            Ok(None) => missing.push(argument.name),
            Err(error) => {
                return Err(Error::request(
                    "Error retrieving list of units from repository",
                    error,
                ));
            }
        }
    }
    if found.is_empty() {
        note("Units not found in registry");
    } else {
        missing.iter().for_each(|name| note(&format!("Unit {name} not found in registry")));
    }
    Ok(found)
}

/// Whether a unit is on no machine and is not meant to be.
pub(super) fn is_inactive(unit: &Unit) -> bool {
    let inactive = |state: &str| state.is_empty() || state == "inactive";
    inactive(&unit.desired_state) && inactive(&unit.current_state)
}
