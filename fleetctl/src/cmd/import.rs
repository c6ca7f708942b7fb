//! `fleetctl import`: takes the units and settings of another cluster, all or nothing, and says
//! before what it would change.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::client::ClientError;
use crate::context::Context;
use crate::error::Error;
use crate::output::{counted, note, warn};
use crate::{fleet1, folder};

/// Take over an exported cluster or a running fleet 1.0
///
/// All units and settings are taken, or none.
///
/// Without --yes it only shows what would change. Units that the import does not name stay as they
/// are.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct ImportArgs {
    /// A folder that `fleetctl export` wrote
    #[arg(
        value_name = "FOLDER",
        value_hint = ValueHint::DirPath,
        required_unless_present = "from_fleet1",
        conflicts_with = "from_fleet1"
    )]
    folder: Option<PathBuf>,
    /// Read from a fleet 1.0 at this URL: unix:///PATH, http://HOST:PORT, https://HOST:PORT
    #[arg(long, value_name = "URL")]
    from_fleet1: Option<String>,
    /// Replace units of the cluster that differ
    #[arg(long)]
    replace: bool,
    /// Import; without this, nothing changes
    #[arg(long, short = 'y')]
    yes: bool,
    /// Only show what would change; the default
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

pub(crate) async fn run(context: &Context, args: ImportArgs) -> Result<u8, Error> {
    let export = match (&args.folder, &args.from_fleet1) {
        (_, Some(url)) => fleet1::read(context, url).await?,
        (Some(folder), None) => folder::read(folder)?,
        (None, None) => return Err(Error::usage("name a folder, or --from-fleet1=URL")),
    };
    let unchanged = |error| Error::request("Error importing, nothing was changed", error);
    // Once it is asked for it may be decided, and then it is finished whoever waits for the answer.
    let failed = |error: ClientError| match error.may_be_done() {
        false => unchanged(error),
        true => Error::request("Error importing, which may have been done", error)
            .hint("run it again to see what is left"),
    };
    // The refusal of what differs comes after it was shown, so the plan is asked for first.
    let mut answer = context.client.import(&export, true, args.replace).await.map_err(unchanged)?;
    let conflicts = answer.changes.iter().filter(|change| change.kind == "conflict").count();
    let go = args.yes && conflicts == 0;
    if go {
        answer = context.client.import(&export, false, args.replace).await.map_err(failed)?;
    }
    if context.output.is_json() {
        context.output.document(&answer)?;
    }
    for change in &answer.changes {
        if !context.output.is_json() {
            context.output.text(&format!(
                "{} {}: {}\n",
                change.kind,
                change.name,
                change.details.join(", ")
            ))?;
        }
        change
            .warnings
            .iter()
            .for_each(|warning| warn(&format!("Unit {}: {warning}", change.name)));
    }
    if conflicts > 0 {
        let differ = if conflicts == 1 {
            "1 unit differs".to_string()
        } else {
            format!("{conflicts} units differ")
        };
        let message = format!("{differ} from what the cluster has; nothing was changed");
        return Err(Error::failed(message).hint("--replace takes the imported ones"));
    }
    let (changes, same) = (counted(answer.changes.len(), "change"), answer.unchanged);
    match go {
        true => note(&format!("Imported: {changes}, {same} unchanged.")),
        false => note(&format!(
            "Would import: {changes}, {same} unchanged. Nothing was changed; --yes does it."
        )),
    }
    Ok(0)
}
