//! `fleetctl apps`: which applications there are. Also what `status` shows of one.

use std::collections::{BTreeSet, HashMap};

use clap::Args;
use fleet_core::name::UnitName;
use fleet_core::time::utc;
use fleet_core::wire::{App, UnitState};
use serde::Serialize;

use crate::clock::age;
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::options::ListArgs;
use crate::output::{counted, machine_legend};
use crate::table::{Cell, Column, Tone, pick, render};

/// List applications and how many of their instances run
#[derive(Debug, Args)]
pub(crate) struct AppsArgs {
    #[command(flatten)]
    list: ListArgs,
    /// The columns: app, revision, running, applied, units, files
    #[arg(long, default_value = "app,revision,running,applied", value_name = "NAMES")]
    fields: String,
}

pub(crate) async fn run(context: &Context, args: AppsArgs) -> Result<u8, Error> {
    let columns = columns();
    let columns = pick(&columns, &args.fields)?;
    let apps = context
        .client
        .apps()
        .await
        .map_err(|error| Error::request("Error retrieving the list of applications", error))?;
    if context.output.is_json() {
        context.output.document(&apps)?;
        return Ok(0);
    }
    let table =
        render(&columns, &apps, args.list.full, !args.list.no_legend, context.output.stdout());
    context.output.spans(&table)?;
    Ok(0)
}

fn columns() -> Vec<Column<'static, App>> {
    vec![
        ("app", Box::new(|app, _| app.name.as_str().into())),
        ("revision", Box::new(|app, _| app.revision.to_string().into())),
        ("running", Box::new(|app, _| running(app))),
        (
            "applied",
            Box::new(|app, _| Cell::from(utc(app.applied_ms)).aged(Some(age(app.applied_ms)))),
        ),
        ("units", Box::new(|app, _| app.units.len().to_string().into())),
        ("files", Box::new(|app, _| app.files.len().to_string().into())),
    ]
}

/// `3/5`: how many run of those that are wanted.
fn running(app: &App) -> Cell {
    let tone = if app.running < app.wanted { Tone::Busy } else { Tone::Good };
    Cell::from(format!("{}/{}", app.running, app.wanted)).toned(tone)
}

/// One application; the error says that there is none of that name.
pub(super) async fn find(context: &Context, name: &str) -> Result<App, Error> {
    let found = context.client.app(name).await.map_err(|error| {
        Error::request(&format!("Error retrieving the application {name}"), error)
    })?;
    found.ok_or_else(|| {
        Error::worded(Kind::Failed, format!("Application {name} does not exist."))
            .hint("`fleetctl apps` shows which there are")
    })
}

/// An application with what systemd says of its instances.
#[derive(Serialize)]
struct Shown<'a> {
    app: &'a App,
    states: &'a [UnitState],
}

/// A line of what is shown: an instance, or a unit without one.
struct Row {
    name: String,
    state: UnitState,
}

/// Everything of an application on one screen. The status is that of `systemctl status`: 3 if
/// something that is wanted does not run.
pub(super) async fn show(context: &Context, app: &App) -> Result<u8, Error> {
    let failed = |error| Error::request(&format!("Error retrieving status of {}", app.name), error);
    let (states, machines) = tokio::join!(context.client.brief_states(), context.client.machines());
    let units: BTreeSet<&UnitName> = app.units.iter().collect();
    let unit_of = |state: &UnitState| {
        let name = UnitName::trusted(state.name.as_str());
        let template = name.template().filter(|template| units.contains(template));
        units.contains(&name).then_some(name).or(template)
    };
    let mut states = states.map_err(failed)?;
    states.retain(|state| unit_of(state).is_some());
    let code = if app.running < app.wanted { 3 } else { 0 };
    if context.output.is_json() {
        context.output.document(&Shown { app, states: &states })?;
        return Ok(code);
    }
    let addresses: HashMap<String, String> = machines
        .map_err(failed)?
        .into_iter()
        .map(|machine| (machine.id, machine.primary_ip))
        .collect();
    let mut rows = Vec::new();
    for unit in &app.units {
        let mut of_unit: Vec<&UnitState> =
            states.iter().filter(|state| unit_of(state).as_ref() == Some(unit)).collect();
        of_unit.sort_by_key(|state| {
            let name = UnitName::trusted(state.name.as_str());
            (name.replica_number(), state.name.clone(), state.machine_id.clone())
        });
        if of_unit.is_empty() {
            rows.push(Row { name: unit.to_string(), state: UnitState::default() });
        }
        rows.extend(
            of_unit.into_iter().map(|state| Row { name: state.name.clone(), state: state.clone() }),
        );
    }
    let head = format!(
        "{}: revision {}, applied {} ({} ago), {} of {} running\n\n",
        app.name,
        app.revision,
        utc(app.applied_ms),
        age(app.applied_ms),
        app.running,
        counted(app.wanted, "instance"),
    );
    context.output.text(&head)?;
    let columns = instance_columns(&addresses);
    let columns: Vec<&Column<'_, Row>> = columns.iter().collect();
    context.output.spans(&render(&columns, &rows, false, true, context.output.stdout()))?;
    if !app.files.is_empty() {
        let files: Vec<(&String, u64)> =
            app.files.iter().map(|(path, entry)| (path, entry.size)).collect();
        let columns: Vec<Column<'_, (&String, u64)>> = vec![
            ("file", Box::new(|(path, _), _| path.as_str().into())),
            ("bytes", Box::new(|(_, size), _| size.to_string().into())),
        ];
        let columns: Vec<&Column<'_, (&String, u64)>> = columns.iter().collect();
        context.output.text("\n")?;
        context.output.spans(&render(&columns, &files, false, true, context.output.stdout()))?;
    }
    Ok(code)
}

fn instance_columns(addresses: &HashMap<String, String>) -> Vec<Column<'_, Row>> {
    let address = |id: &str| addresses.get(id).map_or("", String::as_str);
    vec![
        ("unit", Box::new(|row, _| row.name.as_str().into())),
        (
            "machine",
            Box::new(move |row, full| {
                machine_legend(&row.state.machine_id, address(&row.state.machine_id), full).into()
            }),
        ),
        (
            "active",
            Box::new(|row, _| {
                Cell::state(&row.state.systemd_active_state).aged(row.state.since_ms.map(age))
            }),
        ),
        ("sub", Box::new(|row, _| row.state.systemd_sub_state.as_str().into())),
        ("message", Box::new(|row, _| row.state.message.as_deref().unwrap_or_default().into())),
    ]
}
