//! `fleetctl list-unit-files`: every unit that the cluster has, and what is wanted of it.

use std::collections::HashMap;

use clap::Args;
use fleet_core::name::UnitName;
use fleet_core::wire::Unit;

use crate::context::Context;
use crate::error::Error;
use crate::options::ListArgs;
use crate::output::{machine_legend, warn};
use crate::sources::{hash, is_global};
use crate::table::{Cell, Column, Tone, pick, render};

/// List units in the cluster and their desired states
#[derive(Debug, Args)]
pub(crate) struct ListUnitFilesArgs {
    #[command(flatten)]
    list: ListArgs,
    /// The columns: unit, hash, dstate, state, target, global, desc, replicas, running, revision,
    /// why
    #[arg(long, default_value = "unit,hash,dstate,state,target", value_name = "NAMES")]
    fields: String,
}

pub(crate) async fn run(context: &Context, args: ListUnitFilesArgs) -> Result<u8, Error> {
    pick(&columns(&HashMap::new()), &args.fields)?;
    if args.fields.split(',').any(|field| field == "tmachine") {
        warn("The \"tmachine\" field is deprecated. Use \"target\" instead");
    }
    let failed = |error| Error::request("Error retrieving list of units from repository", error);
    let whole = context.output.is_json() || args.fields.split(',').any(|field| field == "desc");
    let units = async {
        if whole { context.client.units().await } else { context.client.brief_units().await }
    };
    let (units, machines) = tokio::join!(units, context.client.machines());
    let mut units = units.map_err(failed)?;
    let addresses: HashMap<String, String> = machines
        .map_err(failed)?
        .into_iter()
        .map(|machine| (machine.id, machine.primary_ip))
        .collect();
    units.sort_by(|a, b| a.name.cmp(&b.name));
    if context.output.is_json() {
        context.output.document(&units)?;
        return Ok(0);
    }
    let columns = columns(&addresses);
    let columns = pick(&columns, &args.fields)?;
    let table =
        render(&columns, &units, args.list.full, !args.list.no_legend, context.output.stdout());
    context.output.spans(&table)?;
    Ok(0)
}

fn columns(addresses: &HashMap<String, String>) -> Vec<Column<'_, Unit>> {
    let number = |value: Option<u64>| Cell::from(value.map_or_else(String::new, |n| n.to_string()));
    vec![
        ("unit", Box::new(|unit, _| unit.name.as_str().into())),
        (
            "hash",
            Box::new(|unit, full| {
                if full {
                    hash(unit).into()
                } else {
                    hash(unit).chars().take(7).collect::<String>().into()
                }
            }),
        ),
        (
            "dstate",
            Box::new(|unit, _| match is_shared(unit) {
                true => "".into(),
                false => unit.desired_state.as_str().into(),
            }),
        ),
        // fleet never knew a state of global units: it differs from machine to machine. Nor have
        // networks and volumes any, which are where a unit needs them.
        (
            "state",
            Box::new(|unit, _| match is_global(unit) || is_shared(unit) {
                true => "".into(),
                false => state(unit),
            }),
        ),
        (
            "target",
            Box::new(|unit, full| match () {
                () if is_global(unit) => "global".into(),
                () if is_shared(unit) => "shared".into(),
                // It is on many machines: how many run says more.
                () if unit.replicas.is_some() => running(unit),
                () => target(unit, addresses, full),
            }),
        ),
        ("tmachine", Box::new(|unit, full| target(unit, addresses, full))),
        ("global", Box::new(|unit, _| is_global(unit).to_string().into())),
        ("desc", Box::new(|unit, _| description(unit))),
        ("replicas", Box::new(move |unit, _| number(unit.replicas.map(u64::from)))),
        ("running", Box::new(|unit, _| running(unit))),
        ("revision", Box::new(move |unit, _| number(unit.revision))),
        (
            "why",
            Box::new(|unit, _| {
                unit.why.as_ref().map_or_else(String::new, ToString::to_string).into()
            }),
        ),
    ]
}

/// Whether it is there for the units that name it, on their machines.
fn is_shared(unit: &Unit) -> bool {
    UnitName::trusted(unit.name.as_str()).is_shared()
}

/// As it should be if it runs, on its way if it is not as wanted.
fn state(unit: &Unit) -> Cell {
    let tone = match unit.current_state.as_str() {
        state if state != unit.desired_state => Tone::Busy,
        "launched" => Tone::Good,
        _ => Tone::Plain,
    };
    Cell::from(unit.current_state.as_str()).toned(tone)
}

/// `3/5`: how many instances run, of how many that are wanted.
fn running(unit: &Unit) -> Cell {
    let (Some(running), Some(wanted)) = (unit.running, unit.wanted) else { return "".into() };
    let tone = if running == wanted { Tone::Good } else { Tone::Busy };
    Cell::from(format!("{running}/{wanted}")).toned(tone)
}

fn target(unit: &Unit, addresses: &HashMap<String, String>, full: bool) -> Cell {
    machine_legend(
        &unit.machine_id,
        addresses.get(&unit.machine_id).map_or("", String::as_str),
        full,
    )
    .into()
}

fn description(unit: &Unit) -> Cell {
    let last = unit
        .options
        .iter()
        .rev()
        .find(|option| option.section == "Unit" && option.name == "Description");
    last.map_or("", |option| option.value.as_str()).into()
}
