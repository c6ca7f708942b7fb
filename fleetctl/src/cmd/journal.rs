//! `fleetctl journal`: a unit's log, from whichever machines run it.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::{Context, did_you_mean};
use crate::client::{ClientError, innermost};
use crate::complete;
use crate::error::{Error, Kind};
use crate::names::Argument;

/// Print a unit's log, from whichever machines run it
#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    /// The unit; of a template or a global unit all instances
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    units: Vec<String>,
    /// Go on printing as lines are written
    #[arg(long, short = 'f', alias = "f")]
    follow: bool,
    /// How many of the newest lines to begin with
    #[arg(long, short = 'n', default_value_t = 10, value_name = "N")]
    lines: u32,
    /// journalctl's output format: short, short-iso, cat, json…
    #[arg(long, short = 'o', default_value = "short", value_name = "FORMAT")]
    output: String,
}

pub(crate) async fn run(context: &Context, args: JournalArgs) -> Result<u8, Error> {
    let [unit] = args.units.as_slice() else {
        return Err(Error::worded(Kind::Failed, "One unit file must be provided."));
    };
    let name = Argument::parse(unit)?.name;
    let lines = args.lines.to_string();
    // With --json each entry is a document, as journalctl has it.
    let format = if context.output.is_json() { "json" } else { &args.output };
    let query = [("lines", lines.as_str()), ("follow", if args.follow { "true" } else { "false" }), ("output", format)];
    let mut answer = match context.client.journal(name.as_str(), &query).await {
        Ok(answer) => answer,
        Err(ClientError::Api { code: 404, .. }) => {
            let error = Error::worded(Kind::Failed, format!("Unit {name} does not exist."));
            return Err(did_you_mean(&context.client, error, &name).await);
        }
        Err(ClientError::Api { code: 409, message }) => {
            return Err(Error::worded(Kind::Failed, format!("Unit {name} does not appear to be running.")).cause(message));
        }
        Err(error) => return Err(Error::request(&format!("Error retrieving journal of {name}"), error)),
    };
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => context.output.bytes(&chunk)?,
            Ok(None) => return Ok(0),
            Err(problem) => return Err(Error::failed(format!("the journal of {name} broke off: {}", innermost(&problem)))),
        }
    }
}
