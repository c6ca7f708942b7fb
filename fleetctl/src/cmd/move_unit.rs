//! `fleetctl move`: puts one instance on another machine, once.

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::wire::{Machine, MoveState};
use tokio::time::{Instant, sleep};

use super::drain::{find, legend};
use crate::client::first_known;
use crate::complete;
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::output::note;
use crate::wait::{WaitArgs, at};

/// How often a move is looked at: it takes a second or so.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Move one instance to a machine, and wait until it runs there
///
/// The machine must fit the unit's options, and MaxUnavailable= is kept to. The move is made once:
/// nothing holds the instance there later.
#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The unit, or one instance of a template
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    unit: String,
    /// The machine, by ID or the beginning of it
    #[arg(value_name = "MACHINE", add = ArgValueCompleter::new(complete::machines))]
    machine: String,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: MoveArgs) -> Result<u8, Error> {
    let all = context.client.machines().await;
    let all = all.map_err(|error| Error::request("Error finding machines", error))?;
    let machine = find(&all, &args.machine)?;
    let (name, asked) = first_known(&Argument::parse(&args.unit)?, async |name| {
        context.client.move_unit(name.as_str(), &machine.id).await
    })
    .await;
    let state = match asked {
        Ok(state) => state,
        Err(error) if error.is_not_found() => {
            let error = Error::worded(Kind::Failed, format!("Unit {name} not found"));
            return Err(did_you_mean(&context.client, error, &name).await);
        }
        Err(error) => return Err(Error::request(&format!("Error moving {name}"), error)),
    };
    let state = match args.wait.blocks() {
        false => state,
        true => {
            let deadline = args.wait.limit().map(|limit| Instant::now() + limit);
            let mut last = state;
            tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => {
                    let message = format!("Interrupted. The move of {name} goes on");
                    return Err(Error::worded(Kind::Interrupted, message));
                }
                () = at(deadline) => return Err(timed_out(&machine, &last)),
                done = done(context, &machine, &mut last) => done?,
            }
            last
        }
    };
    match context.output.is_json() {
        true => context.output.document(&state)?,
        false if args.wait.blocks() => {
            context.output.text(&format!("Unit {name} moved to {}\n", legend(&machine)))?
        }
        false => {
            context.output.text(&format!("Triggered move of {name} to {}\n", legend(&machine)))?
        }
    }
    Ok(0)
}

/// Waits until the instance is up on the machine.
async fn done(context: &Context, machine: &Machine, last: &mut MoveState) -> Result<(), Error> {
    let mut told = String::new();
    loop {
        if last.machine_id == machine.id && last.active {
            return Ok(());
        }
        if !last.refused.is_empty() {
            return Err(Error::failed(format!(
                "{} does not move to {}: {}",
                last.name,
                legend(machine),
                last.refused
            )));
        }
        if last.to_machine_id.is_empty() && last.machine_id != machine.id {
            return Err(Error::failed(format!(
                "{} is not on its way to {} any more: something else was decided since",
                last.name,
                legend(machine)
            ))
            .hint(format!("`fleetctl events --unit {}` says what and why", last.name)));
        }
        if !last.waits.is_empty() && last.waits != told {
            told.clone_from(&last.waits);
            note(&format!("{} waits: {told}", last.name));
        }
        sleep(LOOK_PERIOD).await;
        match context.client.move_state(&last.name).await {
            Ok(now) => *last = now,
            Err(error) if error.is_passing() => {}
            Err(error) => {
                return Err(Error::request(&format!("Error moving {}", last.name), error));
            }
        }
    }
}

fn timed_out(machine: &Machine, last: &MoveState) -> Error {
    let why = match last.waits.as_str() {
        "" if last.machine_id == machine.id => "it is there, and not active yet",
        "" => "it has yet to leave its machine",
        waits => waits,
    };
    let message = format!("Timed out moving {} to {}: {why}", last.name, legend(machine));
    Error::worded(Kind::TimedOut, message).hint("the move goes on")
}
