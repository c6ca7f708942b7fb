//! `fleetctl list-machines`: the machines of the cluster.

use clap::Args;
use fleet_core::model::Availability;
use fleet_core::wire::{Machine, Missing, MissingMachine};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::options::ListArgs;
use crate::output::{machine_legend, note, warn};
use crate::table::{Cell, Column, Tone, pick, render};

/// How many machines that are waited for are named; the rest is counted.
const NAMED: usize = 10;

/// List the machines of the cluster
#[derive(Debug, Args)]
pub(crate) struct ListMachinesArgs {
    #[command(flatten)]
    list: ListArgs,
    /// The columns: machine, ip, metadata, leader, version, instances, availability
    #[arg(long, default_value = "machine,ip,metadata", value_name = "NAMES")]
    fields: String,
}

pub(crate) async fn run(context: &Context, args: ListMachinesArgs) -> Result<u8, Error> {
    let columns = columns();
    let columns = pick(&columns, &args.fields)?;
    let (machines, missing) = context.client.machines_and_missing().await.map_err(|error| {
        Error::request_in_brackets("Error retrieving list of active machines from fleet API", error)
    })?;
    // Beside the list, whose lines are the machines that are there: scripts read it.
    if let Some(missing) = &missing {
        warn(&missing.says);
        say_who_is_waited_for(missing, args.list.full);
    }
    say_who_takes_nothing(&machines, args.list.full);
    if context.output.is_json() {
        let there = machines.iter().map(|machine| Entry { machine, missing: false });
        let waits: Vec<Machine> =
            missing.iter().flat_map(|missing| &missing.waits).map(absent).collect();
        let entries: Vec<Entry> =
            there.chain(waits.iter().map(|machine| Entry { machine, missing: true })).collect();
        context.output.document(&entries)?;
        return Ok(0);
    }
    let table =
        render(&columns, &machines, args.list.full, !args.list.no_legend, context.output.stdout());
    context.output.spans(&table)?;
    Ok(0)
}

/// A machine in `--json`.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    machine: &'a Machine,
    /// Whether it is not there, and waited for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    missing: bool,
}

fn absent(machine: &MissingMachine) -> Machine {
    Machine { id: machine.id.clone(), instances: Some(machine.instances), ..Machine::default() }
}

fn say_who_is_waited_for(missing: &Missing, full: bool) {
    let who = |machine: &MissingMachine| {
        let units = if machine.instances == 1 { "unit" } else { "units" };
        format!("{} ({} {units})", machine_legend(&machine.id, "", full), machine.instances)
    };
    let (named, rest) = missing.waits.split_at(missing.waits.len().min(NAMED));
    let mut names = named.iter().map(who).collect::<Vec<_>>().join(", ");
    if !rest.is_empty() {
        names.push_str(&format!(" and {} more", rest.len()));
    }
    match missing.next_in_ms {
        Some(ms) if !names.is_empty() => {
            note(&format!("Waiting for {names}; gives up the first in {} s", ms.div_ceil(1000)))
        }
        _ => note("All of them are given up. Waits for others that go missing within 10 minutes."),
    }
}

/// Also beside the list: its columns are fleet 1.0's.
fn say_who_takes_nothing(machines: &[Machine], full: bool) {
    for (availability, what) in
        [(Availability::Cordoned, "Cordoned"), (Availability::Draining, "Drained")]
    {
        let mut names: Vec<String> = machines
            .iter()
            .filter(|machine| machine.availability == availability)
            .map(|machine| machine_legend(&machine.id, "", full))
            .collect();
        if names.is_empty() {
            continue;
        }
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        note(&format!("{what}, so nothing new is placed there: {}{more}", names.join(", ")));
    }
}

fn columns() -> Vec<Column<'static, Machine>> {
    vec![
        ("machine", Box::new(|machine, full| machine_legend(&machine.id, "", full).into())),
        ("ip", Box::new(|machine, _| machine.primary_ip.as_str().into())),
        ("metadata", Box::new(|machine, _| metadata(machine))),
        ("leader", Box::new(|machine, _| machine.leader.to_string().into())),
        ("availability", Box::new(|machine, _| availability(machine.availability))),
        ("version", Box::new(|machine, _| machine.version.as_str().into())),
        (
            "instances",
            Box::new(|machine, _| {
                machine.instances.map_or_else(String::new, |count| count.to_string()).into()
            }),
        ),
    ]
}

fn availability(availability: Availability) -> Cell {
    let tone = if availability.is_active() { Tone::Good } else { Tone::Busy };
    Cell::from(availability.as_str()).toned(tone)
}

fn metadata(machine: &Machine) -> Cell {
    machine
        .metadata
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
        .into()
}
