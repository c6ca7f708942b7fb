//! `fleetctl cat`: prints a unit's file as it was submitted.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::unit::file::UnitFile;

use crate::complete;
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::names::Argument;

/// Print a unit's file as submitted
#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    /// The unit
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    units: Vec<String>,
    /// The text that it had as this revision, see `fleetctl list-revisions`
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
}

pub(crate) async fn run(context: &Context, args: CatArgs) -> Result<u8, Error> {
    let [unit] = args.units.as_slice() else {
        return Err(Error::worded(Kind::Failed, "One unit file must be provided"));
    };
    let argument = Argument::parse(unit)?;
    let Argument { name, .. } = &argument;
    let found = context.client.unit_of(&argument).await;
    let found =
        found.map_err(|error| Error::request(&format!("Error retrieving Unit {name}"), error))?;
    let Some(unit) = found else {
        let error = Error::worded(Kind::Failed, format!("Unit {name} not found"));
        return Err(did_you_mean(&context.client, error, name).await);
    };
    if let Some(number) = args.revision {
        let revision = context.client.revision(&unit.name, number).await.map_err(|error| {
            let what = format!("Error retrieving revision {number} of {}", unit.name);
            Error::request(&what, error)
                .hint(format!("`fleetctl list-revisions {}` shows what there is", unit.name))
        })?;
        match context.output.is_json() {
            true => context.output.document(&revision)?,
            false => context.output.text(&revision.text.unwrap_or_default())?,
        }
        return Ok(0);
    }
    if context.output.is_json() {
        context.output.document(&unit)?;
        return Ok(0);
    }
    // To the byte: no newline is added to a file that ends without one.
    let text = unit.text.unwrap_or_else(|| UnitFile::from_options(unit.options).normalised());
    context.output.text(&text)?;
    Ok(0)
}
