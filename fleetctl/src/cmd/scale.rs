//! `fleetctl scale`: says how many instances of a template the cluster keeps running.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::name::UnitName;
use fleet_core::wire::Scaled;

use super::activate::{replicas, tell_warnings};
use super::{Context, no_units};
use crate::client::Written;
use crate::complete;
use crate::error::{Error, Kind};
use crate::names::ScaleArgument;
use crate::sources;
use crate::wait::{WaitArgs, until_done};
use crate::watch::{Goal, Target};

/// Keep so many instances of a template running
///
/// `web=5` means five instances of web@.service, `web=+2` two more than now, `web=-1` one fewer. A template that the cluster
/// does not have is submitted from this directory first.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Templates and their counts
    #[arg(value_name = "UNIT=COUNT", add = ArgValueCompleter::new(complete::templates))]
    counts: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: ScaleArgs) -> Result<u8, Error> {
    if no_units(&args.counts) {
        return Ok(0);
    }
    let arguments: Vec<ScaleArgument> = args.counts.iter().map(|text| ScaleArgument::parse(text)).collect::<Result<_, _>>()?;
    let mut targets = Vec::new();
    let mut revision = 0;
    let mut all_scaled = Vec::new();
    for argument in &arguments {
        let (scaled, written) = scale(context, argument).await?;
        tell_warnings(scaled.name.as_str(), &written);
        revision = revision.max(written.revision);
        if !context.output.is_json() {
            context.output.text(&format!("Unit {} scaled from {} to {}\n", scaled.name, scaled.before, scaled.replicas))?;
        }
        targets.push(target(context, &scaled).await?);
        all_scaled.push(scaled);
    }
    if context.output.is_json() {
        // The counts are the data; what arrives where is in list-units.
        context.output.document(&all_scaled)?;
    }
    if args.wait.blocks() {
        until_done(&context.client, &context.output, targets, revision, &args.wait).await?;
    }
    Ok(0)
}

/// What is news: the instances that the count brings, or takes away. All that it counts and does not bring are said, too.
async fn target(context: &Context, scaled: &Scaled) -> Result<Target, Error> {
    let Scaled { name, before, replicas: now } = scaled;
    let counted = replicas(context, name, 1, *now.max(before)).await?;
    let number = |name: &String| UnitName::trusted(name.as_str()).replica_number().unwrap_or(0);
    let of = |from: u32, to: u32| counted.iter().filter(move |name| (from..=to).contains(&number(name))).cloned();
    let mut target = Target::telling(name.as_str(), Goal::Launched, of(before + 1, *now));
    target.leaving.extend(of(now + 1, *before));
    Ok(target)
}

async fn scale(context: &Context, argument: &ScaleArgument) -> Result<(Scaled, Written), Error> {
    let mut first_missing = None;
    for template in &argument.templates {
        match try_scale(context, template, argument).await? {
            Some(done) => return Ok(done),
            None => first_missing = first_missing.or(Some(template)),
        }
    }
    for template in &argument.templates {
        let Some(text) = sources::read_optional(template.as_str())? else { continue };
        let unit = sources::unit_from_text(template, template.as_str(), text)?;
        let written = context
            .client
            .put_unit(&unit)
            .await
            .map_err(|error| Error::request(&format!("Error creating units: failed creating unit {template}"), error))?;
        tell_warnings(template.as_str(), &written);
        if let Some(done) = try_scale(context, template, argument).await? {
            return Ok(done);
        }
    }
    let name = first_missing.map_or_else(String::new, UnitName::to_string);
    let message = format!("Error scaling units: unable to find Unit({name}) in Registry or on filesystem");
    Err(Error::worded(Kind::Failed, message)
        .hint(format!("a template's file is named {name}; run this where it lies, or `fleetctl submit` it first")))
}

/// `None` if the cluster does not have the template.
async fn try_scale(context: &Context, template: &UnitName, argument: &ScaleArgument) -> Result<Option<(Scaled, Written)>, Error> {
    match context.client.scale(template.as_str(), &argument.count).await {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error::request("Error scaling units", error)),
    }
}
