//! `fleetctl scale`: says how many instances of a template the cluster keeps running.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::name::UnitName;
use fleet_core::unit::count::scaled;
use fleet_core::wire::{Scaled, Unit};

use super::activate::{replicas, tell_warnings};
use crate::client::Written;
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::names::ScaleArgument;
use crate::sources;
use crate::target::{Goal, Target};
use crate::wait::{WaitArgs, until_done};

/// Set how many instances of a template run
///
/// `web=5` means five instances of web@.service, `web=+2` two more than now, `web=-1` one fewer.
/// Submits a template from this directory that the cluster does not have.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Templates and their counts
    #[arg(value_name = "UNIT=COUNT", add = ArgValueCompleter::new(complete::templates))]
    counts: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: ScaleArgs) -> Result<u8, Error> {
    if args.counts.is_empty() {
        // Unlike a list of units, a list of counts is never empty by chance.
        return Err(Error::usage("No units given")
            .hint("write UNIT=COUNT: web=5, web@.service=5, web=+2 or web=-1"));
    }
    let arguments: Vec<ScaleArgument> =
        args.counts.iter().map(|text| ScaleArgument::parse(text)).collect::<Result<_, _>>()?;
    // All are found and checked before any is changed.
    let mut found = Vec::new();
    for argument in &arguments {
        found.push(find(context, argument).await?);
    }
    let mut targets = Vec::new();
    let mut all_scaled = Vec::new();
    for (argument, unit) in arguments.iter().zip(found) {
        let (scaled, written) = scale(context, argument, &unit).await?;
        tell_warnings(scaled.name.as_str(), &written);
        if !context.output.is_json() {
            context.output.text(&format!(
                "Unit {} scaled from {} to {}\n",
                scaled.name, scaled.before, scaled.replicas
            ))?;
        }
        targets.push(target(context, &scaled).await?);
        all_scaled.push(scaled);
    }
    if context.output.is_json() {
        // The counts are the data; what arrives where is in list-units.
        context.output.document(&all_scaled)?;
    }
    if args.wait.blocks() {
        until_done(&context.client, &context.output, targets, &args.wait).await?;
    }
    Ok(0)
}

/// What is news: the instances that the count brings, or takes away. All that it counts and does
/// not bring are said, too.
async fn target(context: &Context, scaled: &Scaled) -> Result<Target, Error> {
    let Scaled { name, before, replicas: now } = scaled;
    let counted = replicas(context, name, 1, *now.max(before)).await?;
    let number = |name: &String| UnitName::trusted(name.as_str()).replica_number().unwrap_or(0);
    let of = |from: u32, to: u32| {
        counted.iter().filter(move |name| (from..=to).contains(&number(name))).cloned()
    };
    let mut target = Target::telling(name.as_str(), Goal::Launched, of(before + 1, *now));
    target.leaving.extend(of(now + 1, *before));
    Ok(target)
}

/// The template that is meant: the cluster's, or of a file here.
async fn find(context: &Context, argument: &ScaleArgument) -> Result<Unit, Error> {
    for template in &argument.templates {
        let unit = context.client.unit(template.as_str()).await;
        if let Some(unit) = unit.map_err(|error| Error::request("Error scaling units", error))? {
            return checked(unit, argument);
        }
    }
    for template in &argument.templates {
        if let Some(text) = sources::read_optional(template.as_str())? {
            return checked(sources::unit_from_text(template, template.as_str(), text)?, argument);
        }
    }
    let name = argument.templates.first().map_or_else(String::new, UnitName::to_string);
    let message =
        format!("Error scaling units: unable to find Unit({name}) in Registry or on filesystem");
    Err(Error::worded(Kind::Failed, message).hint(format!(
        "a template's file is named {name}; run this where it lies, or `fleetctl submit` it first"
    )))
}

/// Refuses what fleetd would refuse, in its words, so that no other count is changed before.
fn checked(unit: Unit, argument: &ScaleArgument) -> Result<Unit, Error> {
    let name = UnitName::trusted(unit.name.as_str());
    match scaled(&name, sources::is_global(&unit), unit.replicas.unwrap_or(0), &argument.count) {
        Ok(_) => Ok(unit),
        Err(problem) => Err(Error::worded(Kind::Failed, format!("Error scaling units: {problem}"))),
    }
}

async fn scale(
    context: &Context,
    argument: &ScaleArgument,
    unit: &Unit,
) -> Result<(Scaled, Written), Error> {
    let name = &unit.name;
    // What came of a file has no hash yet.
    if unit.hash.is_empty() && context.client.unit(name).await.is_ok_and(|unit| unit.is_none()) {
        let failed = |error| {
            Error::request(&format!("Error creating units: failed creating unit {name}"), error)
        };
        let written = context.client.put_unit(unit).await.map_err(failed)?;
        tell_warnings(name, &written);
    }
    context
        .client
        .scale(name, &argument.count)
        .await
        .map_err(|error| Error::request("Error scaling units", error))
}
