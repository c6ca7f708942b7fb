//! `fleetctl load`: makes the cluster place units, not started.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::activate::{self, Verb};
use crate::complete;
use crate::context::{Context, no_units};
use crate::error::Error;
use crate::wait::WaitArgs;

/// Place units on machines without starting them
///
/// A unit that runs is stopped, and stays on its machine.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The units, or their files
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units_and_files))]
    units: Vec<String>,
    /// Replace the cluster's unit if its local file differs
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: LoadArgs) -> Result<u8, Error> {
    if no_units(&args.units) {
        return Ok(0);
    }
    activate::run(context, Verb::Load, &args.units, args.replace, &args.wait).await
}
