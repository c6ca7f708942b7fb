//! `fleetctl destroy`: stops units everywhere and forgets their files.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::name::UnitName;

use super::activate::tell_warnings;
use super::apps;
use super::deactivate::find;
use super::volumes;
use crate::complete;
use crate::context::{Context, no_units};
use crate::error::{Error, Kind};
use crate::output::{Outcome, counted, note};
use crate::question;
use crate::target::{Goal, Target};
use crate::wait::{WaitArgs, until_done};

/// Stop units and delete them from the cluster
///
/// A replica with a record of its own loses only that record: its template counts it again. With
/// --app a whole application goes, and what its volumes hold stays on the machines. With --volumes
/// that goes: the names are those of volumes, of their units or of an application, and behind an @
/// may stand a machine. A volume in use is refused. Both ask first.
#[derive(Debug, Args)]
pub(crate) struct DestroyArgs {
    /// The units; a scaled template goes with all its instances
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    units: Vec<String>,
    /// An application: all of its units go
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "units",
        group = "asking",
        add = ArgValueCompleter::new(complete::apps)
    )]
    app: Option<String>,
    /// Destroy volumes and all data in them: VOLUME, APP, VOLUME@MACHINE
    #[arg(long, group = "asking")]
    volumes: bool,
    /// Do not ask; --app and --volumes ask on a terminal, and need this elsewhere
    #[arg(long, short = 'y', requires = "asking")]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: DestroyArgs) -> Result<u8, Error> {
    if let Some(app) = &args.app {
        return whole_app(context, app, &args).await;
    }
    if no_units(&args.units) {
        return Ok(0);
    }
    if args.volumes {
        return volumes::destroy(context, &args.units, args.yes).await;
    }
    let mut targets = Vec::new();
    for unit in find(context, &args.units).await? {
        let written = match context.client.destroy(&unit.name).await {
            Ok(written) => written,
            // Somebody else was faster, or it was a replica of a template that went before it.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(Error::request("Error destroying units", error)),
        };
        tell_warnings(&unit.name, &written);
        if let Some(template) = taken_back(context, &unit.name).await? {
            let line = format!("Removed {}'s own record; {template} counts it again", unit.name);
            context.output.result(&line, Outcome::nowhere(&unit.name, "counted"))?;
            continue;
        }
        if args.wait.blocks() {
            targets.push(Target::telling(&unit.name, Goal::Destroyed, [unit.name.clone()]));
        } else {
            context.output.result(
                &format!("Destroyed {}", unit.name),
                Outcome::nowhere(&unit.name, "destroyed"),
            )?;
        }
    }
    until_done(&context.client, &context.output, targets, &args.wait).await?;
    context.output.all_results()?;
    Ok(0)
}

/// Destroys an application, after a question.
async fn whole_app(context: &Context, name: &str, args: &DestroyArgs) -> Result<u8, Error> {
    if !args.yes && !question::can_ask() {
        return Err(question::needs_yes("destroy --app"));
    }
    let app = apps::find(context, name).await?;
    let is_volume = |unit: &&UnitName| unit.suffix() == "volume";
    if !args.yes {
        for unit in app.units.iter().chain(&app.replicas) {
            let stays = if is_volume(&unit) { "; its data stays on the machines" } else { "" };
            note(&format!("- {unit}{stays}"));
        }
        let (units, instances) = (
            counted(app.units.len() + app.replicas.len(), "unit"),
            counted(app.running, "running instance"),
        );
        if !question::yes(&format!("Destroy {name}: {units}, {instances}?")) {
            note("Nothing was changed.");
            return Ok(Kind::Failed.code());
        }
    }
    let removed = context
        .client
        .destroy_app(name)
        .await
        .map_err(|error| Error::request(&format!("Error destroying {name}"), error))?;
    let mut targets = Vec::new();
    for unit in &removed.units {
        if args.wait.blocks() {
            targets.push(Target::telling(unit.as_str(), Goal::Destroyed, [unit.to_string()]));
        } else {
            let outcome = Outcome::nowhere(unit, "destroyed");
            context.output.result(&format!("Destroyed {unit}"), outcome)?;
        }
    }
    until_done(&context.client, &context.output, targets, &args.wait).await?;
    context.output.all_results()?;
    if !removed.volumes.is_empty() {
        let volumes: Vec<&str> = removed.volumes.iter().map(UnitName::as_str).collect();
        note(&format!(
            "What {} held stays on the machines; `fleetctl destroy --volumes {name}` removes it.",
            volumes.join(", ")
        ));
    }
    Ok(0)
}

/// The template whose replica it is again, now that its own record is gone.
async fn taken_back(context: &Context, name: &str) -> Result<Option<String>, Error> {
    if UnitName::trusted(name).template().is_none() {
        return Ok(None);
    }
    let unit = context
        .client
        .unit(name)
        .await
        .map_err(|error| Error::request(&format!("Error retrieving Unit {name}"), error))?;
    Ok(unit.map(|unit| unit.template).filter(|template| !template.is_empty()))
}
