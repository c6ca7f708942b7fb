//! `fleetctl ssh`: a shell or a command on a machine of the cluster, found by its id or by a unit
//! that it runs.

use std::collections::BTreeMap;

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::remote;
use crate::complete;
use crate::context::{Context, machine_starting};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::ssh::Host;

/// Log in to a machine, or run a command there
///
/// X is a machine's ID or the beginning of it, or a unit: the machine that runs it. Exits with the
/// status of the command.
#[derive(Debug, Args)]
pub(crate) struct SshCommandArgs {
    /// The machine with this ID, or the beginning of it
    #[arg(long, value_name = "ID", add = ArgValueCompleter::new(complete::machines))]
    machine: Option<String>,
    /// The machine that runs this unit
    #[arg(
        long,
        value_name = "UNIT",
        conflicts_with = "machine",
        add = ArgValueCompleter::new(complete::units)
    )]
    unit: Option<String>,
    #[command(flatten)]
    port: SshPort,
    /// Forward the ssh agent
    #[arg(long, short = 'A', alias = "A")]
    forward_agent: bool,
    /// A machine or unit, unless an option names one; then the command
    #[arg(
        value_name = "X | COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        add = ArgValueCompleter::new(complete::machines_and_units)
    )]
    words: Vec<String>,
}

/// The option of all commands that may use ssh.
#[derive(Debug, Clone, Args)]
pub(crate) struct SshPort {
    /// The TCP port of the machines' ssh
    #[arg(
        long,
        value_name = "N",
        default_value_t = 22,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) ssh_port: u16,
}

pub(crate) async fn run(context: &Context, args: SshCommandArgs) -> Result<u8, Error> {
    let mut words = args.words.as_slice();
    let address = match (&args.machine, &args.unit) {
        (Some(machine), _) => machine_address(context, machine).await?.ok_or_else(nowhere)?,
        (None, Some(unit)) => unit_address(context, unit).await?.ok_or_else(nowhere)?,
        (None, None) => {
            let Some((wanted, rest)) = words.split_first() else {
                return Err(unable("one machine or unit must be provided"));
            };
            words = rest;
            match machine_address(context, wanted).await? {
                Some(address) => address,
                None => unit_address(context, wanted).await?.ok_or_else(nowhere)?,
            }
        }
    };
    if let Some(("--", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        words = rest;
    }
    let mut connection = context.ssh.connect(&Host::of_machine(&address, args.port.ssh_port)?)?;
    connection.command.args(args.forward_agent.then_some("-A"));
    // As with ssh itself, the words are one line for the shell there.
    let line = words.join(" ");
    connection.run((!words.is_empty()).then_some(line.as_str()))
}

fn unable(why: &str) -> Error {
    Error::worded(Kind::Failed, format!("Unable to proceed: {why}"))
}

fn nowhere() -> Error {
    unable("could not find matching unit or machine")
}

/// The address of the machine whose id starts so.
async fn machine_address(context: &Context, wanted: &str) -> Result<Option<String>, Error> {
    let machines = context
        .client
        .machines()
        .await
        .map_err(|error| Error::request("Unable to proceed", error))?;
    match machine_starting(&machines, wanted) {
        Ok(machine) => Ok(machine.map(|machine| machine.primary_ip.clone())),
        Err(several) => Err(unable(&several).hint("write more of the ID")),
    }
}

/// The address of the one machine that runs a unit.
async fn unit_address(context: &Context, wanted: &str) -> Result<Option<String>, Error> {
    let Ok(argument) = Argument::parse(wanted) else { return Ok(None) };
    let (name, places) = remote::find(context, &argument).await?;
    let places = places.unwrap_or_default();
    let machines: BTreeMap<String, String> =
        places.into_iter().map(|place| (place.machine, place.address)).collect();
    match machines.len() {
        0 => Ok(None),
        1 => Ok(machines.into_values().next()),
        n => {
            let ids: Vec<&str> = machines.keys().map(|id| id.get(..8).unwrap_or(id)).collect();
            let hint = format!("name one of them: --machine={}", ids.join(" or --machine="));
            Err(unable(&format!("{name} is on {n} machines")).hint(hint))
        }
    }
}
