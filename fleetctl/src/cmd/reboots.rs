//! `fleetctl reboots`: who reboots, how many at once and when; and the lock for hosts whose updater
//! does not speak FleetLock.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::model::DEFAULT_GROUP;
use fleet_core::wire::{Machine, RebootLockState, RebootState, RebootWish, RebootsPatch};
use tokio::time::{Instant, sleep};

use super::drain::{find, legend};
use crate::client::ClientError;
use crate::clock::age;
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::options::ListArgs;
use crate::output::{machine_legend, note};
use crate::table::{Cell, Column, Tone, pick, render};
use crate::wait::at;

/// How often a lock is asked for.
const ASK_PERIOD: Duration = Duration::from_secs(2);

/// The columns.
const FIELDS: &str = "machine,group,state,since,by";

/// Show which machines reboot, and set how many and when
///
/// A machine that asks for a reboot, over FleetLock (Zincati and others) or by --wait, is drained
/// first, and gets leave when its units are elsewhere, a slot of its group is free, the window is
/// open and the cluster is well.
#[derive(Debug, Args)]
pub(crate) struct RebootsArgs {
    /// Let so many machines of the group reboot at once; 0 lets none
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Let machines reboot in this window alone, in UTC, as in "Sat,Sun 02:00..05:00"; "any": at
    /// any time
    #[arg(long, value_name = "WINDOW")]
    window: Option<String>,
    /// Take this machine's lock away, also if it never came back
    #[arg(
        long,
        value_name = "MACHINE",
        conflicts_with_all = ["slots", "window"],
        add = ArgValueCompleter::new(complete::machines)
    )]
    release: Option<String>,
    /// Wait until this machine may reboot: it is drained, and holds the lock
    #[arg(
        long,
        value_name = "MACHINE",
        conflicts_with_all = ["slots", "window", "release"],
        add = ArgValueCompleter::new(complete::machines)
    )]
    wait: Option<String>,
    /// Say that this machine has rebooted: it takes units again once it is back
    #[arg(
        long,
        value_name = "MACHINE",
        conflicts_with_all = ["slots", "window", "release", "wait"],
        add = ArgValueCompleter::new(complete::machines)
    )]
    done: Option<String>,
    /// The group that --slots and --wait are for
    #[arg(long, value_name = "GROUP", default_value = DEFAULT_GROUP)]
    group: String,
    /// Stop waiting after this many seconds; 0 waits forever
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u32,
    #[command(flatten)]
    list: ListArgs,
    /// The columns: machine, group, state, since, by, waits
    #[arg(long, default_value = FIELDS, value_name = "NAMES")]
    fields: String,
}

pub(crate) async fn run(context: &Context, args: RebootsArgs) -> Result<u8, Error> {
    if let Some(machine) = &args.release {
        let machine = named(context, machine).await?;
        let failed = |error| Error::request("Error releasing the reboot lock", error);
        context.client.release_reboot(&machine.id, false).await.map_err(failed)?;
        say(context, &format!("Machine {} holds no reboot lock", legend(&machine)))?;
    } else if let Some(machine) = &args.wait {
        let machine = named(context, machine).await?;
        let wish = RebootWish { group: args.group.clone() };
        let ask = async || context.client.ask_for_reboot(&machine.id, &wish).await;
        until(&machine, args.timeout, "may not reboot yet", ask).await?;
        say(context, &format!("Machine {} may reboot", legend(&machine)))?;
    } else if let Some(machine) = &args.done {
        let machine = named(context, machine).await?;
        let ask = async || context.client.release_reboot(&machine.id, true).await;
        until(&machine, args.timeout, "has yet to come back", ask).await?;
        say(context, &format!("Machine {} takes units again", legend(&machine)))?;
    } else if args.slots.is_some() || args.window.is_some() {
        let slots = args.slots.map(|slots| (args.group.clone(), Some(slots)));
        let window = args.window.map(|text| if text == "any" { String::new() } else { text });
        let patch = RebootsPatch { slots: slots.into_iter().collect(), window };
        let failed = |error| Error::request("Error changing the rules of reboots", error);
        context.client.set_reboots(&patch).await.map_err(failed)?;
    } else {
        return list(context, &args.list, &args.fields).await;
    }
    Ok(0)
}

fn say(context: &Context, text: &str) -> Result<(), Error> {
    if context.output.is_json() { Ok(()) } else { context.output.text(&format!("{text}\n")) }
}

async fn named(context: &Context, word: &str) -> Result<Machine, Error> {
    let all = context.client.machines().await;
    find(&all.map_err(|error| Error::request("Error finding machines", error))?, word)
}

/// Asks until the answer is a yes, and says each new reason why not.
async fn until(
    machine: &Machine,
    timeout: u32,
    what: &str,
    ask: impl AsyncFn() -> Result<(), ClientError>,
) -> Result<(), Error> {
    let deadline = (timeout > 0).then(|| Instant::now() + Duration::from_secs(u64::from(timeout)));
    let mut told = String::new();
    let asking = async {
        loop {
            let error = match ask().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let is_no = matches!(&error, ClientError::Api { code: 409, .. });
            if !is_no && !error.is_passing() {
                return Err(Error::request(&format!("Machine {} {what}", legend(machine)), error));
            }
            let why = error.to_string();
            if why != told {
                note(&format!("Machine {} {what}: {why}", legend(machine)));
                told = why;
            }
            sleep(ASK_PERIOD).await;
        }
    };
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            let message = format!("Interrupted. Machine {} keeps its place", legend(machine));
            Err(Error::worded(Kind::Interrupted, message)
                .hint(format!("`fleetctl reboots --release {}` gives it back", machine.id)))
        }
        () = at(deadline) => {
            let message = format!("Timed out: machine {} {what}", legend(machine));
            Err(Error::worded(Kind::TimedOut, message)
                .hint("it keeps its place; `fleetctl reboots` shows it"))
        }
        asked = asking => asked,
    }
}

async fn list(context: &Context, list: &ListArgs, fields: &str) -> Result<u8, Error> {
    let columns = columns();
    let columns = pick(&columns, fields)?;
    let failed = |error| Error::request("Error listing reboots", error);
    let reboots = context.client.reboots().await.map_err(failed)?;
    if context.output.is_json() {
        context.output.document(&reboots)?;
        return Ok(0);
    }
    let screen = context.output.stdout();
    let table = render(&columns, &reboots.locks, list.full, !list.no_legend, screen);
    context.output.spans(&table)?;
    for lock in reboots.locks.iter().filter(|lock| !lock.waits.is_empty()) {
        note(&format!("{}: {}", machine_legend(&lock.machine_id, "", list.full), lock.waits));
    }
    note(&rules(&reboots.slots, &reboots.window, reboots.open));
    Ok(0)
}

/// `Slots: 1 of default, 2 of workers. Window: Sat 02:00..05:00 (closed now)`.
fn rules(slots: &BTreeMap<String, u32>, window: &str, open: bool) -> String {
    let slots: Vec<String> =
        slots.iter().map(|(group, slots)| format!("{slots} of {group}")).collect();
    let window = match (window, open) {
        ("", _) => "any time".to_string(),
        (window, true) => format!("{window} (open now)"),
        (window, false) => format!("{window} (closed now)"),
    };
    format!("Slots: {}. Window: {window}", slots.join(", "))
}

fn columns() -> Vec<Column<'static, RebootLockState>> {
    vec![
        ("machine", Box::new(|lock, full| machine_legend(&lock.machine_id, "", full).into())),
        ("group", Box::new(|lock, _| lock.group.as_str().into())),
        ("state", Box::new(|lock, _| state(lock.state))),
        ("since", Box::new(|lock, _| age(lock.granted_ms.unwrap_or(lock.since_ms)).into())),
        ("by", Box::new(|lock, _| lock.by.as_str().into())),
        ("waits", Box::new(|lock, _| lock.waits.as_str().into())),
    ]
}

fn state(state: RebootState) -> Cell {
    let tone = if state == RebootState::Away { Tone::Bad } else { Tone::Busy };
    Cell::from(state.as_str()).toned(tone)
}
