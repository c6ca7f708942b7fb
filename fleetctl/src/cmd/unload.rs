//! `fleetctl unload`: takes units off their machines and keeps their files.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::deactivate::{self, Verb};
use crate::complete;
use crate::context::{Context, no_units};
use crate::error::Error;
use crate::wait::WaitArgs;

/// Stop units and take them off their machines
///
/// The cluster keeps their files.
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
    deactivate::run(context, Verb::Unload, &args.units, &args.wait).await
}
