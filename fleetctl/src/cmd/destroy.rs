//! `fleetctl destroy`: stops units everywhere and forgets their files.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::name::UnitName;

use super::activate::tell_warnings;
use super::deactivate::find;
use crate::complete;
use crate::context::{Context, no_units};
use crate::error::Error;
use crate::output::Outcome;
use crate::target::{Goal, Target};
use crate::wait::{WaitArgs, until_done};

/// Stop units and delete them from the cluster
///
/// A replica with a record of its own loses only that record: its template counts it again.
#[derive(Debug, Args)]
pub(crate) struct DestroyArgs {
    /// The units; a scaled template goes with all its instances
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    units: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: DestroyArgs) -> Result<u8, Error> {
    if no_units(&args.units) {
        return Ok(0);
    }
    let mut targets = Vec::new();
    for unit in find(context, &args.units).await? {
        let written = match context.client.destroy(&unit.name).await {
            Ok(written) => written,
            // Somebody else was faster, or it was a replica of a template that went before it.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(Error::request("Error destroying units", error)),
        };
        tell_warnings(&unit.name, &written);
        if let Some(template) = taken_back(context, &unit.name).await? {
            let line = format!("Removed {}'s own record; {template} counts it again", unit.name);
            context.output.result(&line, Outcome::nowhere(&unit.name, "counted"))?;
            continue;
        }
        if args.wait.blocks() {
            targets.push(Target::telling(&unit.name, Goal::Destroyed, [unit.name.clone()]));
        } else {
            context.output.result(
                &format!("Destroyed {}", unit.name),
                Outcome::nowhere(&unit.name, "destroyed"),
            )?;
        }
    }
    until_done(&context.client, &context.output, targets, &args.wait).await?;
    context.output.all_results()?;
    Ok(0)
}

/// The template whose replica it is again, now that its own record is gone.
async fn taken_back(context: &Context, name: &str) -> Result<Option<String>, Error> {
    if UnitName::trusted(name).template().is_none() {
        return Ok(None);
    }
    let unit = context
        .client
        .unit(name)
        .await
        .map_err(|error| Error::request(&format!("Error retrieving Unit {name}"), error))?;
    Ok(unit.map(|unit| unit.template).filter(|template| !template.is_empty()))
}
