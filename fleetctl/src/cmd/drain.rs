//! `fleetctl drain`, `cordon` and `uncordon`: whether machines take instances, and keep those that
//! they have.

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::model::Availability;
use fleet_core::wire::{Machine, Remaining};
use tokio::time::{Instant, sleep};

use crate::complete;
use crate::context::{Context, machine_starting};
use crate::error::{Error, Kind};
use crate::output::{machine_legend, note};
use crate::wait::{WaitArgs, at};

/// How often a drain is looked at: a move takes a second or so.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// How many instances an error lists before it only counts.
const LISTED: usize = 10;

/// Move units off machines, and place nothing new on them
///
/// Instances of a unit with MaxUnavailable= move a few at a time. Global units stay, as do units
/// that no other machine can run. `fleetctl uncordon` lets the machine take units again, but moves
/// nothing back.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    machines: MachinesArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Place nothing new on machines; their units stay
#[derive(Debug, Args)]
pub(crate) struct CordonArgs {
    #[command(flatten)]
    machines: MachinesArgs,
}

/// Let cordoned or drained machines take units again
#[derive(Debug, Args)]
pub(crate) struct UncordonArgs {
    #[command(flatten)]
    machines: MachinesArgs,
}

#[derive(Debug, Args)]
struct MachinesArgs {
    /// The machines, by ID or the beginning of it
    #[arg(
        value_name = "MACHINE",
        required = true,
        add = ArgValueCompleter::new(complete::machines)
    )]
    machines: Vec<String>,
}

pub(crate) async fn cordon(context: &Context, args: CordonArgs) -> Result<u8, Error> {
    set(context, &args.machines, Availability::Cordoned).await?;
    Ok(0)
}

pub(crate) async fn uncordon(context: &Context, args: UncordonArgs) -> Result<u8, Error> {
    set(context, &args.machines, Availability::Active).await?;
    Ok(0)
}

pub(crate) async fn drain(context: &Context, args: DrainArgs) -> Result<u8, Error> {
    let machines = set(context, &args.machines, Availability::Draining).await?;
    if !args.wait.blocks() {
        return Ok(0);
    }
    let deadline = args.wait.limit().map(|limit| Instant::now() + limit);
    for machine in machines {
        let mut left = Vec::new();
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => {
                let message = format!("Interrupted. Machine {} goes on being \
                    drained", legend(&machine));
                return Err(Error::worded(Kind::Interrupted, message).hint("`fleetctl uncordon` \
                    ends that"));
            }
            () = at(deadline) => return Err(timed_out(&machine, &left)),
            ended = emptied(context, &machine, &mut left) => ended?,
        }
        if !context.output.is_json() {
            context.output.text(&format!("Machine {} drained\n", legend(&machine)))?;
        }
    }
    Ok(0)
}

/// Waits until nothing but global units is on the machine; keeps what is still there in `left`.
async fn emptied(
    context: &Context,
    machine: &Machine,
    left: &mut Vec<Remaining>,
) -> Result<(), Error> {
    let mut told: Vec<String> = Vec::new();
    loop {
        match context.client.availability(&machine.id).await {
            Ok(now) if now.availability != Availability::Draining => {
                let message = format!(
                    "machine {} is {} now: somebody else changed it",
                    legend(machine),
                    now.availability.as_str()
                );
                return Err(Error::failed(message));
            }
            Ok(now) if now.instances.is_empty() => return Ok(()),
            Ok(now) => *left = now.instances,
            Err(error) if error.is_passing() => {}
            Err(error) => {
                return Err(Error::request(
                    &format!("Error draining machine {}", legend(machine)),
                    error,
                ));
            }
        }
        // What stays for good is said at once: only its operator can do something about it.
        for stuck in left.iter().filter(|instance| instance.stuck) {
            if !told.contains(&stuck.name) {
                note(&format!("{} stays on {}: {}", stuck.name, legend(machine), stuck.why));
                told.push(stuck.name.clone());
            }
        }
        sleep(LOOK_PERIOD).await;
    }
}

fn timed_out(machine: &Machine, left: &[Remaining]) -> Error {
    let count = if left.is_empty() {
        "fleetd did not say what is".to_string()
    } else {
        format!("{} instances are", left.len())
    };
    let mut message =
        format!("Timed out draining machine {}: {count} still there", legend(machine));
    for instance in left.iter().take(LISTED) {
        message.push_str(&format!("\n  {}: {}", instance.name, instance.why));
    }
    if left.len() > LISTED {
        message.push_str(&format!("\n  and {} more", left.len() - LISTED));
    }
    Error::worded(Kind::TimedOut, message).hint(
        "the drain continues; `fleetctl uncordon` cancels it. `fleetctl stop` or `unload` \
            removes units that no other machine can run",
    )
}

/// Sets it for all machines, once each of them is known, and says so.
async fn set(
    context: &Context,
    args: &MachinesArgs,
    wanted: Availability,
) -> Result<Vec<Machine>, Error> {
    let all = context
        .client
        .machines()
        .await
        .map_err(|error| Error::request("Error finding machines", error))?;
    let machines = args
        .machines
        .iter()
        .map(|word| find(&all, word))
        .collect::<Result<Vec<Machine>, Error>>()?;
    let mut states = Vec::new();
    for machine in &machines {
        context.client.set_availability(&machine.id, wanted).await.map_err(|error| {
            Error::request(&format!("Error changing machine {}", legend(machine)), error)
        })?;
        states.push(Machine { availability: wanted, ..machine.clone() });
        if !context.output.is_json() {
            context.output.text(&format!("Machine {} {}\n", legend(machine), wanted.as_str()))?;
        }
    }
    if context.output.is_json() {
        context.output.document(&states)?;
    }
    Ok(machines)
}

fn legend(machine: &Machine) -> String {
    machine_legend(&machine.id, &machine.primary_ip, false)
}

/// The machine whose id starts so. A whole id is taken for one that is away, too: fleetd knows.
fn find(all: &[Machine], word: &str) -> Result<Machine, Error> {
    match machine_starting(all, word) {
        Ok(Some(machine)) => Ok(machine.clone()),
        Err(several) => Err(Error::failed(several).hint("write more of the ID")),
        Ok(None) if word.len() == 32 => Ok(Machine { id: word.to_string(), ..Machine::default() }),
        Ok(None) => Err(Error::worded(Kind::Failed, format!("No machine starts with {word:?}"))
            .hint(
                "`fleetctl list-machines` lists the machines that are up; name one that is down \
                by its whole ID",
            )),
    }
}
