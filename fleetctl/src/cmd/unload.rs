//! `fleetctl unload`: takes units off their machines and keeps their files.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::activate::{announced, tell_warnings};
use super::deactivate::{bracketed, find, is_inactive};
use super::{Context, no_units};
use crate::complete;
use crate::error::Error;
use crate::output::note;
use crate::sources::is_global;
use crate::wait::{WaitArgs, until_done};
use crate::watch::Goal;

/// Stop units and take them off their machines; the cluster keeps their files
#[derive(Debug, Args)]
pub(crate) struct UnloadArgs {
    /// The units; of a scaled template all instances
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    units: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: UnloadArgs) -> Result<u8, Error> {
    if no_units(&args.units) {
        return Ok(0);
    }
    let units = find(context, &args.units).await?;
    if units.is_empty() {
        return Ok(0);
    }
    let mut targets = Vec::new();
    let mut revision = 0;
    let mut unloaded = Vec::new();
    for unit in units.iter().filter(|unit| is_global(unit) || !is_inactive(unit)) {
        let written = context
            .client
            .set_desired(&unit.name, "inactive")
            .await
            .map_err(|error| Error::request("Error unloading units", error))?;
        tell_warnings(&unit.name, &written);
        revision = revision.max(written.revision);
        targets.push(announced(context, "unload", unit, Goal::Inactive, args.wait.blocks())?);
        if !is_global(unit) {
            unloaded.push(unit.name.clone());
        }
    }
    if args.wait.blocks() {
        until_done(&context.client, &context.output, targets, revision, &args.wait).await?;
    }
    context.output.all_results()?;
    note(&format!("Successfully unloaded units {}.", bracketed(&unloaded)));
    Ok(0)
}
