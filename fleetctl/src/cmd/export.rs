//! `fleetctl export`: writes all units with what is wanted of them, and the machines' settings,
//! into a folder.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::context::Context;
use crate::error::Error;
use crate::output::{counted, note};
use crate::{fleet1, folder};

/// Write the cluster's units and settings to a folder
///
/// The folder is a backup, or the way to another store.
///
/// The folder gets units/ with a file a unit, and fleet.json with what is wanted of each and what
/// was set for machines.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The folder, new or empty
    #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
    /// Read from a fleet 1.0 at this URL
    #[arg(long, value_name = "URL")]
    from_fleet1: Option<String>,
}

pub(crate) async fn run(context: &Context, args: ExportArgs) -> Result<u8, Error> {
    let export = match &args.from_fleet1 {
        Some(url) => fleet1::read(context, url).await?,
        None => context
            .client
            .export()
            .await
            .map_err(|error| Error::request("Error exporting", error))?,
    };
    folder::write(&args.folder, &export)?;
    if context.output.is_json() {
        context.output.document(&export)?;
    }
    note(&format!(
        "Exported {} and the settings of {} into {}.",
        counted(export.units.len(), "unit"),
        counted(export.machines.len(), "machine"),
        args.folder.display()
    ));
    Ok(0)
}
