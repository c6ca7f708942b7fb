//! `fleetctl restart`: restarts units where they are.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::activate::{instances, tell_warnings, triggered};
use super::deactivate::is_inactive;
use crate::complete;
use crate::context::{Context, no_units};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::output::note;
use crate::sources::{self, Source, is_global};
use crate::target::{Goal, Target};
use crate::wait::{WaitArgs, until_done};

/// Restart units where they are, and wait until they run
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// The units; of a template all instances, of a global unit on every machine
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    units: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(context: &Context, args: RestartArgs) -> Result<u8, Error> {
    if no_units(&args.units) {
        return Ok(0);
    }
    let mut targets = Vec::new();
    let mut restarted = Vec::new();
    let arguments = Argument::parse_all(&args.units)?;
    for argument in &arguments {
        let unit = match sources::find(&context.client, argument, None).await? {
            Source::Keep(unit) | Source::Same { unit, .. } => unit,
            Source::Create(unit) | Source::Replace { new: unit, .. } => {
                let message =
                    format!("Unable to restart unit {}: the cluster does not have it", unit.name);
                return Err(Error::worded(Kind::Failed, message)
                    .hint(format!("fleetctl start {}", unit.name)));
            }
        };
        if is_inactive(&unit) {
            // No failure, as in fleet 1.0: the others are restarted.
            note(&format!("Unable to restart unit {} in state inactive", unit.name));
            note(&format!("Hint: fleetctl start {}", unit.name));
            continue;
        }
        let name = &unit.name;
        let asked = match unit.desired_state.as_str() {
            // What is stopped needs no restart, only a start.
            "loaded" => context.client.set_desired(name, "launched").await,
            _ => context.client.restart(name).await,
        };
        let written = asked
            .map_err(|error| Error::request(&format!("Error restarting unit {name}"), error))?;
        tell_warnings(name, &written);
        let global = is_global(&unit);
        if global || !args.wait.blocks() {
            triggered(context, "restart", &unit)?;
        }
        targets.push(if global {
            Target::quiet(name, Goal::Launched)
        } else {
            Target::telling(name, Goal::Launched, instances(context, &unit).await?)
        });
        restarted.push(unit.name);
    }
    if args.wait.blocks() {
        until_done(&context.client, &context.output, targets, &args.wait).await?;
        restarted.iter().for_each(|name| note(&format!("Unit({name}) was restarted.")));
    }
    context.output.all_results()?;
    Ok(0)
}
