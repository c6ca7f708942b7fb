//! `fleetctl store check`: whether every document in the store is sound.

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::error::Error;

/// Check the store
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Check every document in the store, and say what to do about bad ones
    ///
    /// Exits with 1 if a document needs repair by hand. `fleetd --check-store` checks the embedded
    /// store of a stopped fleetd.
    Check,
}

pub(crate) async fn run(context: &Context, args: StoreArgs) -> Result<u8, Error> {
    let StoreCommand::Check = args.command;
    let check = context
        .client
        .check_store()
        .await
        .map_err(|error| Error::request("Error checking the store", error))?;
    if context.output.is_json() {
        context.output.document(&check)?;
    } else {
        context.output.text(&check.to_string())?;
    }
    Ok(u8::from(!check.is_sound()))
}
