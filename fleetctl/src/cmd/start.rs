//! `fleetctl start`: makes the cluster place units and run them.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::activate::{self, Verb};
use crate::complete;
use crate::context::{Context, no_units};
use crate::error::Error;
use crate::wait::WaitArgs;

/// Start units, and wait until they run
///
/// Submits units that the cluster does not have. A unit that already runs is not restarted.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// The units, or their files
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units_and_files))]
    units: Vec<String>,
    /// Replace the cluster's unit if its local file differs
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: StartArgs) -> Result<u8, Error> {
    if no_units(&args.units) {
        return Ok(0);
    }
    activate::run(context, Verb::Start, &args.units, args.replace, &args.wait).await
}
