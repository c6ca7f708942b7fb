//! `fleetctl journal`: a unit's log, from whichever machines run it.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::name::UnitName;

use super::remote::{self, OverSsh};
use super::{Context, did_you_mean};
use crate::client::{ClientError, innermost};
use crate::complete;
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::output::machine_legend;

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
    #[command(flatten)]
    ssh: OverSsh,
    /// Read the journal as root, over ssh; fleetd does anyway
    #[arg(long)]
    sudo: bool,
}

pub(crate) async fn run(context: &Context, args: JournalArgs) -> Result<u8, Error> {
    let [unit] = args.units.as_slice() else {
        return Err(Error::worded(Kind::Failed, "One unit file must be provided."));
    };
    let name = Argument::parse(unit)?.name;
    let lines = args.lines.to_string();
    // With --json each entry is a document, as journalctl has it.
    let format = if context.output.is_json() { "json" } else { &args.output };
    if let Some(port) = args.ssh.ssh_port {
        return over_ssh(context, &name, port, &lines, format, &args).await;
    }
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

async fn over_ssh(
    context: &Context,
    name: &UnitName,
    port: u16,
    lines: &str,
    format: &str,
    args: &JournalArgs,
) -> Result<u8, Error> {
    let places = remote::places(context, name, "running").await?;
    if args.follow && places.len() > 1 {
        let machines: Vec<String> = places.iter().map(|place| machine_legend(&place.machine, &place.address, false)).collect();
        let message = format!("{name} is in {} places, and ssh can follow one: {}", places.len(), machines.join(", "));
        return Err(Error::failed(message).hint("without --ssh-port fleetd follows all of them as one stream"));
    }
    let mut worst = 0;
    for place in places {
        let unit = place.instance.systemd_name();
        let mut words = vec!["journalctl", "--unit", unit.as_str(), "--no-pager", "-n", lines, "--output", format];
        if args.sudo {
            words.insert(0, "sudo");
        }
        words.extend(args.follow.then_some("-f"));
        worst = worst.max(remote::run(context, &place, port, &words)?);
    }
    Ok(worst)
}
