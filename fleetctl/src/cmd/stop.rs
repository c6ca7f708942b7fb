//! `fleetctl stop`: stops units and leaves them on their machines.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::activate::{announced, tell_warnings};
use super::deactivate::{bracketed, find, is_inactive};
use super::{Context, no_units};
use crate::complete;
use crate::error::{Error, Kind};
use crate::output::note;
use crate::sources::is_global;
use crate::wait::{WaitArgs, until_done};
use crate::watch::Goal;

/// Stop units; they stay loaded on their machines
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The units; of a scaled template all instances
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    units: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: StopArgs) -> Result<u8, Error> {
    if no_units(&args.units) {
        return Ok(0);
    }
    let units = find(context, &args.units).await?;
    if units.is_empty() {
        return Ok(0);
    }
    let mut targets = Vec::new();
    let mut revision = 0;
    let mut stopped = Vec::new();
    for unit in &units {
        if is_inactive(unit) {
            return Err(Error::worded(Kind::Failed, format!("Unable to stop unit {} in state inactive", unit.name)));
        }
        if unit.desired_state == "loaded" && !is_global(unit) {
            continue;
        }
        let written = context
            .client
            .set_desired(&unit.name, "loaded")
            .await
            .map_err(|error| Error::request("Error stopping units", error))?;
        tell_warnings(&unit.name, &written);
        revision = revision.max(written.revision);
        let mut target = announced(context, "stop", unit, Goal::Loaded, args.wait.blocks())?;
        target.nowhere_will_do = true;
        targets.push(target);
        if !is_global(unit) {
            stopped.push(unit.name.clone());
        }
    }
    if args.wait.blocks() {
        until_done(&context.client, &context.output, targets, revision, &args.wait).await?;
    }
    context.output.all_results()?;
    note(&format!("Successfully stopped units {}.", bracketed(&stopped)));
    Ok(0)
}
