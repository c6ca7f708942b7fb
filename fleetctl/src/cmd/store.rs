//! `fleetctl store check`: whether every document in the store is sound.

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::error::Error;

/// Look after the store
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Read every document in the store, and say what is wrong with it and what to do
    ///
    /// Exits with 1 if a document needs a person. The embedded store of a stopped fleetd: `fleetd
    /// --check-store`.
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
