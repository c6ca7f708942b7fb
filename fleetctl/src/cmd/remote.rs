//! What status and journal share where they ask the machines themselves over ssh, as fleet 1.0 did.

use clap::Args;
use fleet_core::name::UnitName;
use fleet_core::wire::UnitState;

use crate::client::{Client, ClientError, first_known};
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::ssh::{Host, quoted};

/// The option that asks for it.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverSsh {
    /// Ask the machines over ssh on this TCP port, not through fleetd
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ssh_port: Option<u16>,
}

/// An instance of a unit, and the machine that reports it.
pub(crate) struct Place {
    pub(crate) instance: UnitName,
    pub(crate) machine: String,
    pub(crate) address: String,
}

/// Where a unit is: of a template all instances. Nowhere is an error in fleet 1.0's words, `Unit X
/// does not appear to be …`.
pub(crate) async fn places(
    context: &Context,
    argument: &Argument,
    be: &str,
) -> Result<(UnitName, Vec<Place>), Error> {
    let (name, places) = find(context, argument).await?;
    match places {
        None => {
            let error = Error::worded(Kind::Failed, format!("Unit {name} does not exist."));
            Err(did_you_mean(&context.client, error, &name).await)
        }
        Some(places) if places.is_empty() => {
            Err(Error::worded(Kind::Failed, format!("Unit {name} does not appear to be {be}.")))
        }
        Some(places) => Ok((name, places)),
    }
}

/// The same, with the name that is meant; `None` if the cluster does not have the unit, and no
/// machine still stops it.
pub(crate) async fn find(
    context: &Context,
    argument: &Argument,
) -> Result<(UnitName, Option<Vec<Place>>), Error> {
    let failed =
        |error| Error::request(&format!("Error retrieving state of {}", argument.name), error);
    let (name, found) = first_known(argument, async |name| {
        let states = states_of(&context.client, name).await?;
        // What was destroyed and still stops has a state, and nothing else.
        if states.is_empty() {
            context.client.unit(name.as_str()).await?.ok_or_else(ClientError::not_found)?;
        }
        Ok(states)
    })
    .await;
    let states = match found {
        Err(error) if error.is_not_found() => return Ok((name, None)),
        found => found.map_err(failed)?,
    };
    let machines = context.client.machines().await.map_err(failed)?;
    let place = |(instance, state): (UnitName, UnitState)| {
        let machine = machines.iter().find(|machine| machine.id == state.machine_id)?;
        Some(Place { instance, machine: machine.id.clone(), address: machine.primary_ip.clone() })
    };
    let places = states.into_iter().filter_map(place).collect();
    Ok((name, Some(places)))
}

/// What systemd says of a unit on each machine, of a template of all its instances.
async fn states_of(
    client: &Client,
    name: &UnitName,
) -> Result<Vec<(UnitName, UnitState)>, ClientError> {
    let states = client.states(Some(name.as_str()).filter(|_| !name.is_template())).await?;
    let of_it = |state: UnitState| {
        let instance = UnitName::parse(&state.name).ok()?; // it goes into a command line
        let of_it = instance == *name || instance.template().as_ref() == Some(name);
        of_it.then_some((instance, state))
    };
    Ok(states.into_iter().filter_map(of_it).collect())
}

/// Runs a command of `words` that prints, where the instance is; gives its exit status.
pub(crate) fn run(
    context: &Context,
    place: &Place,
    port: u16,
    words: &[&str],
) -> Result<u8, Error> {
    let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    context
        .ssh
        .connect(&Host::of_machine(&place.address, port)?)?
        .print(&line.join(" "), &context.output)
}
