//! `fleetctl plan`: what applying an application would change.

use clap::Args;
use fleet_core::wire::AppPlan;

use crate::app_files::{self, AppArgs, LocalApp};
use crate::app_plan::{PlannedOn, counts, revision, spans};
use crate::client::ClientError;
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::output::{note, warn};

/// Show what applying an application would change
///
/// Nothing is changed. The signs: + is new, ~ changes, - goes, = stays, ! stays though its file is
/// gone. Exits with 0 if there is nothing to do, 1 if there are changes, 2 if there is no plan:
/// the files are wrong, or fleetd does not answer.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    app: AppArgs,
    /// Also remove units that an earlier apply brought and that are gone from the files
    #[arg(long)]
    prune: bool,
}

pub(crate) async fn run(context: &Context, args: PlanArgs) -> Result<u8, Error> {
    let planned = async {
        let local = app_files::read(&args.app)?;
        let plan = ask(context, &local, args.prune, None).await?;
        show(context, &local, &plan).await?;
        if context.output.is_json() {
            context.output.document(&plan)?;
        }
        Ok((local, plan))
    };
    // 1 says that there are changes, so it cannot be an error's.
    let (local, plan) = planned.await.map_err(no_answer)?;
    if plan.changes {
        let (prune, words) = (if args.prune { "--prune " } else { "" }, &local.words);
        note(&format!(
            "`fleetctl apply {prune}--if-revision={} {words}` does this, and refuses if somebody \
                changed any of it first.",
            PlannedOn::of(&plan)
        ));
    }
    Ok(u8::from(plan.changes))
}

/// The same error with the exit status of wrong input, where 1 means something else.
pub(super) fn no_answer(mut error: Error) -> Error {
    if error.kind == Kind::Failed {
        error.kind = Kind::Usage;
    }
    error
}

/// Asks what an apply of these files would do.
pub(super) async fn ask(
    context: &Context,
    local: &LocalApp,
    prune: bool,
    planned_on: Option<&PlannedOn>,
) -> Result<AppPlan, Error> {
    local.warnings.iter().for_each(|warning| warn(warning));
    let asked = context.client.apply(&local.name, &local.files, prune, planned_on, false).await;
    let plan =
        asked.map_err(|error| refused(&format!("Error planning {}", local.name), error, local))?;
    plan.warnings.iter().for_each(|warning| warn(warning));
    Ok(plan)
}

/// A plan or an apply that was refused; each of several problems has a line.
pub(super) fn refused(what: &str, error: ClientError, local: &LocalApp) -> Error {
    match &error {
        ClientError::Api { code: 400 | 413 | 422, message } => {
            let problems: Vec<&str> = message.lines().collect();
            let text = match problems.as_slice() {
                [_, _, ..] => format!("{what}:\n  {}", problems.join("\n  ")),
                _ => format!("{what}: {message}"),
            };
            Error::worded(Kind::Usage, text)
        }
        ClientError::Api { code: 409, .. } => Error::request(what, error)
            .hint(format!("`fleetctl plan {}` shows what would be done now", local.words)),
        ClientError::Api { code: 404, .. } => Error::request(what, error)
            .hint("fleetd may be older: `fleetctl version --json` shows both versions"),
        _ => Error::request(what, error),
    }
}

/// Prints the plan for people, the counts on stderr.
pub(super) async fn show(context: &Context, local: &LocalApp, plan: &AppPlan) -> Result<(), Error> {
    if !context.output.is_json() {
        let placed =
            |unit: &fleet_core::wire::UnitPlan| !unit.starts.is_empty() || !unit.stops.is_empty();
        let machines = match plan.units.iter().any(placed) {
            true => context.client.machines().await,
            false => Ok(Vec::new()),
        };
        let machines =
            machines.map_err(|error| Error::request("Error retrieving machines", error))?;
        context.output.spans(&spans(plan, &machines))?;
    }
    match plan.changes {
        true => note(&format!("{}: {}.", revision(&local.name, plan), counts(plan))),
        false => note(&format!("Nothing to do: {}.", revision(&local.name, plan))),
    }
    Ok(())
}
