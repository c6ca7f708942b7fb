//! `fleetctl submit`: hands unit files to the cluster, which keeps them and starts nothing.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::activate::{self, Verb};
use crate::complete;
use crate::context::{Context, no_units};
use crate::error::Error;
use crate::wait::WaitArgs;

/// Hand unit files to the cluster without running them
///
/// Looks for each file in the cluster, then on this machine; for web@1.service also for the file
/// web@.service.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The unit files
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units_and_files))]
    units: Vec<String>,
    /// Replace the cluster's unit if its file differs and it is inactive
    #[arg(long)]
    replace: bool,
    /// Taken from fleet 1.0; there is nothing to wait for
    #[arg(long, hide = true)]
    no_block: bool,
    /// Taken from fleet 1.0; there is nothing to wait for
    #[arg(long, hide = true, allow_negative_numbers = true)]
    block_attempts: Option<i64>,
}

pub(crate) async fn run(context: &Context, args: SubmitArgs) -> Result<u8, Error> {
    if no_units(&args.units) {
        return Ok(0);
    }
    let nothing_to_wait_for = WaitArgs { no_block: true, block_attempts: 0, timeout: 0.0 };
    activate::run(context, Verb::Submit, &args.units, args.replace, &nothing_to_wait_for).await
}
