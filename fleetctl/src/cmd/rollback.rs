//! `fleetctl rollback`: gives units an earlier text again.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::activate::{instances, tell_warnings};
use super::deactivate::is_inactive;
use crate::client::first_known;
use crate::complete;
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::sources::is_global;
use crate::target::{Goal, Target};
use crate::wait::{WaitArgs, until_done};

/// Return a unit to an earlier revision, and wait until it runs
///
/// The file becomes a new revision. The unit's desired state and count stay. Instances change as
/// MaxUnavailable= of that file permits; those that are down change at once.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The unit or template
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    unit: String,
    /// The revision to return to, see `fleetctl list-revisions` [default: the last that differs]
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: RollbackArgs) -> Result<u8, Error> {
    let (name, rolled) = first_known(&Argument::parse(&args.unit)?, async |name| {
        context.client.rollback(name.as_str(), args.to).await
    })
    .await;
    let (rolled, written) = match rolled {
        Ok(done) => done,
        Err(error) if error.is_not_found() => {
            let error = Error::worded(Kind::Failed, format!("Unit {name} not found"));
            return Err(did_you_mean(&context.client, error, &name).await);
        }
        Err(error) => {
            let error = Error::request(&format!("Error rolling back {name}"), error);
            return Err(error.hint(format!("`fleetctl list-revisions {name}` shows what there is")));
        }
    };
    tell_warnings(name.as_str(), &written);
    if context.output.is_json() {
        context.output.document(&rolled)?;
    } else {
        let line = format!(
            "Unit {name} has the text of revision {} again, as revision {}\n",
            rolled.to, rolled.revision
        );
        context.output.text(&line)?;
    }
    let unit = context
        .client
        .unit(name.as_str())
        .await
        .map_err(|error| Error::request("Error waiting for units", error))?;
    let Some(unit) = unit.filter(|unit| args.wait.blocks() && !is_inactive(unit)) else {
        return Ok(0);
    };
    let goal = if unit.desired_state == "launched" { Goal::Launched } else { Goal::Loaded };
    let target = match is_global(&unit) || context.output.is_json() {
        true => Target::quiet(name.as_str(), goal),
        false => Target::telling(name.as_str(), goal, instances(context, &unit).await?),
    };
    let target = Target { stays_up: true, ..target };
    until_done(&context.client, &context.output, vec![target], &args.wait).await?;
    Ok(0)
}
