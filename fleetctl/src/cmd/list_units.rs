//! `fleetctl list-units`: what systemd says of every unit on every machine.

use std::collections::HashMap;

use clap::Args;
use fleet_core::health::Health;
use fleet_core::wire::UnitState;

use crate::clock::{age, now_ms, until};
use crate::context::Context;
use crate::error::Error;
use crate::options::ListArgs;
use crate::output::machine_legend;
use crate::table::{Cell, Column, Tone, pick, render};

/// List units and their state in systemd on each machine
#[derive(Debug, Args)]
pub(crate) struct ListUnitsArgs {
    #[command(flatten)]
    list: ListArgs,
    /// The columns: unit, load, active, sub, machine, hash, health, result, restarts, next,
    /// message
    #[arg(long, default_value = "unit,machine,active,sub", value_name = "NAMES")]
    fields: String,
}

pub(crate) async fn run(context: &Context, args: ListUnitsArgs) -> Result<u8, Error> {
    pick(&columns(&HashMap::new()), &args.fields)?;
    let failed = |error| Error::request("Error retrieving list of units from repository", error);
    // Only whole hashes take everything.
    let whole = context.output.is_json()
        || (args.list.full && args.fields.split(',').any(|field| field == "hash"));
    let states = async {
        if whole { context.client.states(None).await } else { context.client.brief_states().await }
    };
    let (states, machines) = tokio::join!(states, context.client.machines());
    let mut states = states.map_err(failed)?;
    let addresses: HashMap<String, String> = machines
        .map_err(failed)?
        .into_iter()
        .map(|machine| (machine.id, machine.primary_ip))
        .collect();
    states.sort_by(|a, b| (&a.name, &a.machine_id).cmp(&(&b.name, &b.machine_id)));
    if context.output.is_json() {
        context.output.document(&states)?;
        return Ok(0);
    }
    let columns = columns(&addresses);
    let columns = pick(&columns, &args.fields)?;
    let table =
        render(&columns, &states, args.list.full, !args.list.no_legend, context.output.stdout());
    context.output.spans(&table)?;
    Ok(0)
}

fn columns(addresses: &HashMap<String, String>) -> Vec<Column<'_, UnitState>> {
    let address = |id: &str| addresses.get(id).map_or("", String::as_str);
    vec![
        ("unit", Box::new(|state, _| state.name.as_str().into())),
        ("load", Box::new(|state, _| state.systemd_load_state.as_str().into())),
        (
            "active",
            Box::new(|state, _| {
                let cell = Cell::state(&state.systemd_active_state);
                // What runs and answers badly is not what the state says.
                match state.health.as_ref().filter(|health| **health != Health::Healthy) {
                    Some(health) if health.is_unhealthy() => {
                        cell.toned(Tone::Bad).aged(Some(health.words(now_ms())))
                    }
                    Some(health) => cell.toned(Tone::Busy).aged(Some(health.words(now_ms()))),
                    None => cell.aged(state.since_ms.map(age)),
                }
            }),
        ),
        (
            "sub",
            Box::new(|state, _| match state.spare {
                true => format!("{} (spare)", state.systemd_sub_state).into(),
                false => state.systemd_sub_state.as_str().into(),
            }),
        ),
        (
            "machine",
            Box::new(move |state, full| {
                machine_legend(&state.machine_id, address(&state.machine_id), full).into()
            }),
        ),
        (
            "hash",
            Box::new(|state, full| {
                if full {
                    state.hash.as_str().into()
                } else {
                    state.hash.get(..7).unwrap_or(&state.hash).into()
                }
            }),
        ),
        (
            "health",
            Box::new(|state, _| {
                let words = |health: &Health| health.words(now_ms());
                state.health.as_ref().map_or_else(String::new, words).into()
            }),
        ),
        ("result", Box::new(|state, _| state.result.as_str().into())),
        (
            "restarts",
            Box::new(|state, _| {
                state.restarts.map_or_else(String::new, |count| count.to_string()).into()
            }),
        ),
        ("next", Box::new(|state, _| state.next_try_ms.and_then(until).unwrap_or_default().into())),
        ("message", Box::new(|state, _| state.message.as_deref().unwrap_or_default().into())),
    ]
}
