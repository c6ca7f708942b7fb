//! `fleetctl drain`, `cordon` and `uncordon`: whether machines take instances, and keep those that
//! they have.

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::model::Availability;
use fleet_core::name::MachineId;
use fleet_core::replay::Saved;
use fleet_core::what_if;
use fleet_core::wire::{AvailabilityWish, Machine, Remaining};
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
    /// Say what would move where, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Give up waiting after this long, as in 90s, 10m or 2h; the drain goes on
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "dry_run")]
    deadline: Option<Duration>,
    /// At the deadline stop what is left, past MaxUnavailable= and where no machine can take it
    #[arg(long, requires = "deadline")]
    force: bool,
    #[command(flatten)]
    reason: ReasonArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Place nothing new on machines; their units stay
#[derive(Debug, Args)]
pub(crate) struct CordonArgs {
    #[command(flatten)]
    machines: MachinesArgs,
    #[command(flatten)]
    reason: ReasonArgs,
}

#[derive(Debug, Args)]
struct ReasonArgs {
    /// Why, for other operators: `fleetctl list-machines` shows it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl ReasonArgs {
    fn wish(self, availability: Availability) -> AvailabilityWish {
        let reason = self.reason.unwrap_or_default();
        AvailabilityWish { availability, reason, within_ms: None, force: false }
    }
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
    set(context, &args.machines, &args.reason.wish(Availability::Cordoned)).await?;
    Ok(0)
}

pub(crate) async fn uncordon(context: &Context, args: UncordonArgs) -> Result<u8, Error> {
    let wish = ReasonArgs { reason: None }.wish(Availability::Active);
    set(context, &args.machines, &wish).await?;
    Ok(0)
}

pub(crate) async fn drain(context: &Context, args: DrainArgs) -> Result<u8, Error> {
    if args.dry_run {
        return preview(context, &args.machines).await;
    }
    let within_ms = args.deadline.map(|within| within.as_millis() as u64);
    let wish = args.reason.wish(Availability::Draining);
    let wish = AvailabilityWish { within_ms, force: args.force, ..wish };
    let machines = set(context, &args.machines, &wish).await?;
    if !args.wait.blocks() {
        return Ok(0);
    }
    let limit = match args.deadline {
        // What is stopped then takes its time.
        Some(within) if args.force => args.wait.limit().map(|limit| within + limit),
        Some(within) => Some(within),
        None => args.wait.limit(),
    };
    let deadline = limit.map(|limit| Instant::now() + limit);
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

/// Says what a drain would do, by the leader's last snapshot.
async fn preview(context: &Context, args: &MachinesArgs) -> Result<u8, Error> {
    let machines = find_all(context, args).await?;
    let failed = |error| Error::request("Error asking what a drain would do", error);
    let saved = context.client.snapshot(None).await.map_err(failed)?;
    let saved: Saved = serde_json::from_slice(&saved).map_err(|error| {
        Error::failed(format!("this fleetctl cannot read the leader's snapshot: {error}"))
            .hint("use the fleetctl of the leader's version")
    })?;
    let ids: Vec<MachineId> =
        machines.iter().map(|machine| MachineId::new(machine.id.as_str())).collect();
    let departures = what_if::drain(&saved.snapshot, &ids);
    if context.output.is_json() {
        context.output.document(&departures)?;
        return Ok(0);
    }
    for departure in &departures {
        context.output.text(&format!("{departure}\n"))?;
    }
    let stay = departures.iter().filter(|departure| !departure.leaves).count();
    let waits = departures.iter().filter(|departure| !departure.at_once).count() - stay;
    let move_at_once = departures.len() - stay - waits;
    note(&format!(
        "Nothing was changed. {move_at_once} would move at once, {waits} as their budgets allow; \
            {stay} would stay"
    ));
    Ok(0)
}

/// Reads `90s`, `10m`, `2h`, or a number of seconds.
fn time(text: &str) -> Result<Duration, String> {
    const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    const YEAR: u64 = 365 * 86_400;
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit));
    let (number, each) =
        unit.map_or((text, 1), |(unit, each)| (text.trim_end_matches(*unit), *each));
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(each));
    seconds
        .filter(|seconds| (1..=YEAR).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "give a time such as 90s, 10m or 2h, a year at most".to_string())
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
    wish: &AvailabilityWish,
) -> Result<Vec<Machine>, Error> {
    let (machines, wanted) = (find_all(context, args).await?, wish.availability);
    let mut states = Vec::new();
    for machine in &machines {
        context.client.set_availability(&machine.id, wish).await.map_err(|error| {
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

/// The machines that are named, once each of them is known.
async fn find_all(context: &Context, args: &MachinesArgs) -> Result<Vec<Machine>, Error> {
    let all = context
        .client
        .machines()
        .await
        .map_err(|error| Error::request("Error finding machines", error))?;
    args.machines.iter().map(|word| find(&all, word)).collect()
}

pub(super) fn legend(machine: &Machine) -> String {
    machine_legend(&machine.id, &machine.primary_ip, false)
}

/// The machine whose id starts so. A whole id is taken for one that is away, too: fleetd knows.
pub(super) fn find(all: &[Machine], word: &str) -> Result<Machine, Error> {
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
