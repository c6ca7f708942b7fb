//! `fleetctl list-machines`: the machines of the cluster.

use clap::Args;
use fleet_core::model::Availability;
use fleet_core::wire::{AvailabilityNote, LostMachine, Machine, Missing, MissingMachine, Moved};
use serde::Serialize;

use crate::clock::{age, until};
use crate::context::Context;
use crate::error::Error;
use crate::options::ListArgs;
use crate::output::{machine_legend, note, warn};
use crate::table::{Cell, Column, Tone, pick, render};

/// How many machines that are waited for are named; the rest is counted.
const NAMED: usize = 10;

/// The columns of fleet 1.0.
const FIELDS: &str = "machine,ip,metadata";

/// Those on a terminal.
const FIELDS_WITH_STATE: &str = "machine,ip,state,metadata";

/// List the machines of the cluster
///
/// A machine that was lost within the last hour and has not come back is shown as `lost` on a
/// terminal, and wherever the field `state` is asked for.
#[derive(Debug, Args)]
pub(crate) struct ListMachinesArgs {
    #[command(flatten)]
    list: ListArgs,
    /// The columns: machine, ip, metadata, state, leader, version, instances, availability
    #[arg(long, default_value = FIELDS, value_name = "NAMES")]
    fields: String,
}

pub(crate) async fn run(context: &Context, args: ListMachinesArgs) -> Result<u8, Error> {
    pick(&columns(), &args.fields)?;
    let (machines, missing, lost) =
        context.client.machines_and_absent().await.map_err(|error| {
            Error::request_in_brackets(
                "Error retrieving list of active machines from fleet API",
                error,
            )
        })?;
    // Beside the list, whose lines are the machines that are there: scripts read it.
    if let Some(missing) = &missing {
        warn(&missing.says);
        say_who_is_waited_for(missing, args.list.full);
    }
    say_who_takes_nothing(&machines, args.list.full);
    say_who_is_lost(&lost, args.list.full);
    if context.output.is_json() {
        let there = machines.iter().map(Entry::there);
        let waits: Vec<Machine> =
            missing.iter().flat_map(|missing| &missing.waits).map(absent).collect();
        let waits = waits.iter().map(|machine| Entry { missing: true, ..Entry::there(machine) });
        let gone: Vec<Row> = lost.into_iter().map(Row::lost).collect();
        let entries: Vec<Entry> = there.chain(waits).chain(gone.iter().map(Row::entry)).collect();
        context.output.document(&entries)?;
        return Ok(0);
    }
    let screen = context.output.stdout();
    let fields = match screen.terminal && args.fields == FIELDS {
        true => FIELDS_WITH_STATE,
        false => &args.fields,
    };
    let mut rows: Vec<Row> =
        machines.into_iter().map(|machine| Row { machine, lost: None }).collect();
    if fields.split(',').any(|field| field == "state") {
        rows.extend(lost.into_iter().map(Row::lost));
    }
    let columns = columns();
    let columns = pick(&columns, fields)?;
    let table = render(&columns, &rows, args.list.full, !args.list.no_legend, screen);
    context.output.spans(&table)?;
    Ok(0)
}

/// A line of the list.
struct Row {
    machine: Machine,
    /// Set if it is there no longer.
    lost: Option<LostMachine>,
}

impl Row {
    fn lost(lost: LostMachine) -> Row {
        let machine = Machine {
            id: lost.id.clone(),
            primary_ip: lost.primary_ip.clone(),
            ..Machine::default()
        };
        Row { machine, lost: Some(lost) }
    }

    fn entry(&self) -> Entry<'_> {
        let lost_ms = self.lost.as_ref().map(|lost| lost.lost_ms);
        let moved = self.lost.as_ref().map_or(&[][..], |lost| &lost.moved);
        Entry { lost_ms, moved, ..Entry::there(&self.machine) }
    }
}

/// A machine in `--json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(flatten)]
    machine: &'a Machine,
    /// Whether it is not there, and waited for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    missing: bool,
    /// When it was given up, in milliseconds since 1970, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_ms: Option<u64>,
    /// What moved off it then, and where that is now.
    #[serde(skip_serializing_if = "<[Moved]>::is_empty")]
    moved: &'a [Moved],
}

impl Entry<'_> {
    fn there(machine: &Machine) -> Entry<'_> {
        Entry { machine, missing: false, lost_ms: None, moved: &[] }
    }
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
        let who = |machine: &Machine| {
            let name = machine_legend(&machine.id, "", full);
            let note = machine.note.as_ref().map(noted).unwrap_or_default();
            if note.is_empty() { name } else { format!("{name} ({note})") }
        };
        let mut names: Vec<String> = machines
            .iter()
            .filter(|machine| machine.availability == availability)
            .map(who)
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

/// `by root@h1, 4m ago: new disk; until in 300 s, then what is left is stopped`.
fn noted(note: &AvailabilityNote) -> String {
    let by = if note.by.is_empty() { String::new() } else { format!("by {}, ", note.by) };
    let mut text = format!("{by}{} ago", age(note.at_ms));
    if !note.reason.is_empty() {
        text.push_str(&format!(": {}", note.reason));
    }
    if let Some(deadline_ms) = note.deadline_ms {
        let when = until(deadline_ms).map_or("passed".to_string(), |left| format!("in {left}"));
        let force = if note.force { ", when what is left is stopped" } else { "" };
        text.push_str(&format!("; deadline {when}{force}"));
    }
    text
}

/// Which machines were lost, and what became of what they ran.
fn say_who_is_lost(lost: &[LostMachine], full: bool) {
    for machine in lost.iter().take(NAMED) {
        let place = |moved: &Moved| match moved.machine_id.as_str() {
            "" => format!("{} (on no machine)", moved.name),
            id => format!("{} to {}", moved.name, machine_legend(id, "", full)),
        };
        let named = machine.moved.iter().take(NAMED);
        let mut units = named.map(place).collect::<Vec<_>>().join(", ");
        let more = machine.instances.saturating_sub(machine.moved.len().min(NAMED) as u64);
        if more > 0 {
            let and = if units.is_empty() { "" } else { " and " };
            units.push_str(&format!("{and}{more} more"));
        }
        let who = machine_legend(&machine.id, &machine.primary_ip, full);
        let moved = match units.as_str() {
            "" => "it ran nothing".to_string(),
            units => format!("moved off it: {units}"),
        };
        note(&format!("Lost {} ago: {who}; {moved}", age(machine.lost_ms)));
    }
    if lost.len() > NAMED {
        note(&format!("{} more machines were lost within the last hour", lost.len() - NAMED));
    }
}

fn columns() -> Vec<Column<'static, Row>> {
    vec![
        ("machine", Box::new(|row, full| machine_legend(&row.machine.id, "", full).into())),
        ("ip", Box::new(|row, _| row.machine.primary_ip.as_str().into())),
        ("metadata", Box::new(|row, _| metadata(&row.machine))),
        ("state", Box::new(|row, _| state(row))),
        ("leader", Box::new(|row, _| row.machine.leader.to_string().into())),
        ("availability", Box::new(|row, _| availability(row.machine.availability))),
        ("version", Box::new(|row, _| row.machine.version.as_str().into())),
        (
            "instances",
            Box::new(|row, _| {
                row.machine.instances.map_or_else(String::new, |count| count.to_string()).into()
            }),
        ),
    ]
}

/// Whether it is there and takes units, and on a terminal since when it is there.
fn state(row: &Row) -> Cell {
    match (&row.lost, row.machine.availability) {
        (Some(lost), _) => Cell::from(format!("lost {}", age(lost.lost_ms))).toned(Tone::Bad),
        (None, Availability::Active) => {
            Cell::from("up").toned(Tone::Good).aged(row.machine.since_ms.map(age))
        }
        (None, other) => Cell::from(other.as_str()).toned(Tone::Busy),
    }
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
