//! `fleetctl apply`: makes the cluster have an application as its files say.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use fleet_core::name::UnitName;
use fleet_core::wire::{AppPlan, Unit, UnitPlan};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::plan::{ask, refused, show};
use crate::app_files::{self, AppArgs, LocalApp};
use crate::app_plan::PlannedOn;
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::output::{counted, note, warn};
use crate::question;
use crate::sources::is_global;
use crate::target::{Goal, Target};
use crate::wait::{WaitArgs, until_done};

/// How many contents are sent at once. Each is 1 MiB at most, and fleetd serves others, too.
const SENT_AT_ONCE: usize = 4;

/// Apply an application's files, and wait until it runs
///
/// Shows the plan first, and asks. Everything is changed, or nothing. Units that an earlier apply
/// brought and that are gone from the files stay, unless --prune is given.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    app: AppArgs,
    /// Also remove units that an earlier apply brought and that are gone from the files
    #[arg(long)]
    prune: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    /// Refuse if the application is at another revision, or, with all that `fleetctl plan` says
    /// there, if any of its units was changed since; 0 means that it is new
    #[arg(long, value_name = "N")]
    if_revision: Option<PlannedOn>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: ApplyArgs) -> Result<u8, Error> {
    if !args.yes && !question::can_ask() {
        return Err(question::needs_yes("apply"));
    }
    let local = app_files::read(&args.app)?;
    let plan = ask(context, &local, args.prune, args.if_revision.as_ref()).await?;
    show(context, &local, &plan).await?;
    if !plan.changes {
        if context.output.is_json() {
            context.output.document(&plan)?;
        }
        return Ok(0);
    }
    if !args.yes && !question::yes(&format!("Apply this to {}?", local.name)) {
        note("Nothing was changed.");
        return Ok(Kind::Failed.code());
    }
    // What was shown is what is done.
    let planned_on = PlannedOn::of(&plan);
    let asked = Cell::new(false);
    let applied = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => return Err(interrupted(&local, asked.get())),
        applied = send(context, &local, &plan, args.prune, &planned_on, &asked) => applied?,
    };
    let is_news = |warning: &&String| !plan.warnings.contains(warning);
    applied.warnings.iter().filter(is_news).for_each(|warning| warn(warning));
    match context.output.is_json() {
        true => context.output.document(&applied)?,
        false => {
            let line = format!("Applied {}, revision {}\n", local.name, applied.revision);
            context.output.text(&line)?;
        }
    }
    if args.wait.blocks() {
        let targets = targets(context, &local, &applied).await?;
        until_done(&context.client, &context.output, targets, &args.wait).await?;
    }
    Ok(0)
}

/// Sends the contents that the cluster lacks, and then applies.
async fn send(
    context: &Context,
    local: &LocalApp,
    plan: &AppPlan,
    prune: bool,
    planned_on: &PlannedOn,
    asked: &Cell<bool>,
) -> Result<AppPlan, Error> {
    let client = &context.client;
    stream::iter(&plan.missing)
        .map(async |sum| match local.contents.get(sum) {
            Some(content) => client.put_blob(&local.name, sum, content).await.map_err(|error| {
                let what = format!("Error sending files of {}, nothing was changed", local.name);
                refused(&what, error, local)
            }),
            None => Err(Error::failed(format!(
                "fleetd asks for the content {sum}, which no file here has; nothing was changed"
            ))),
        })
        .buffer_unordered(SENT_AT_ONCE)
        .try_collect::<()>()
        .await?;
    if !plan.missing.is_empty() {
        note(&format!("Sent {}.", counted(plan.missing.len(), "file")));
    }
    asked.set(true);
    let applied = client.apply(&local.name, &local.files, prune, Some(planned_on), true).await;
    applied.map_err(|error| match error.may_be_done() {
        false => refused(&format!("Error applying {}", local.name), error, local),
        true => Error::request(
            &format!("Error applying {}, which may have been done, wholly", local.name),
            error,
        )
        .hint(format!("`fleetctl plan {}` shows what is left to do", local.words)),
    })
}

/// The error for Ctrl-C before the answer.
fn interrupted(local: &LocalApp, asked: bool) -> Error {
    let state = match asked {
        false => "nothing was changed".to_string(),
        true => format!("either all of {} was applied or nothing", local.name),
    };
    Error::worded(Kind::Interrupted, format!("Interrupted: {state}."))
        .hint(format!("`fleetctl plan {}` shows what is left to do", local.words))
}

/// What to wait for: what starts, restarts or goes because of the apply.
async fn targets(
    context: &Context,
    local: &LocalApp,
    applied: &AppPlan,
) -> Result<Vec<Target>, Error> {
    let records = context.client.brief_units().await;
    let records = records.map_err(|error| Error::request("Error waiting for units", error))?;
    let records: BTreeMap<&str, &Unit> =
        records.iter().map(|unit| (unit.name.as_str(), unit)).collect();
    let (members, quiet) = (local.members(), context.output.is_json());
    let target = |unit: &UnitPlan| match unit.kind.as_str() {
        "remove" => {
            let told = (!quiet).then(|| unit.name.clone());
            Some(Target::telling(&unit.name, Goal::Destroyed, told))
        }
        "create" | "change" if !members.contains(unit.name.as_str()) => {
            changed(unit, &records, quiet)
        }
        _ => None,
    };
    Ok(applied.units.iter().filter_map(target).collect())
}

/// The target of a unit that is new or has changed, if anything of it is to run.
fn changed(unit: &UnitPlan, records: &BTreeMap<&str, &Unit>, quiet: bool) -> Option<Target> {
    let record = records.get(unit.name.as_str())?;
    let name = UnitName::trusted(unit.name.as_str());
    let is_still = unit.kind == "change"
        && unit.restarts == 0
        && unit.starts.is_empty()
        && unit.stops.is_empty()
        && unit.unplaced.is_empty();
    let runs = !name.is_shared() && (!name.is_template() || record.replicas.is_some());
    if is_still || !runs || record.desired_state == "inactive" {
        return None;
    }
    let goal = if record.desired_state == "loaded" { Goal::Loaded } else { Goal::Launched };
    let stays_up = unit.restarts > 0;
    if quiet || is_global(record) {
        return Some(Target { stays_up, ..Target::quiet(&unit.name, goal) });
    }
    let started: BTreeSet<String> = unit.starts.iter().map(|on| on.instance.to_string()).collect();
    // Those with records of their own do not follow the template.
    let follows = |instance: &String| !records.contains_key(instance.as_str());
    let told: BTreeSet<String> = match record.replicas {
        _ if unit.kind == "change" && !stays_up => started.clone(),
        Some(count) => {
            (1..=count).map(|number| name.replica(number).to_string()).filter(follows).collect()
        }
        None => BTreeSet::from([unit.name.clone()]),
    };
    let mut target = Target::telling(&unit.name, goal, told);
    let left = unit.stops.iter().map(|on| on.instance.to_string());
    target.leaving.extend(left.filter(|name| !started.contains(name)));
    target.leaving.retain(|name| !target.arriving.contains(name));
    Some(Target { stays_up, ..target })
}
