//! `fleetctl debug`: the snapshot that the leader planned, saved, and planned again anywhere.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use fleet_core::event;
use fleet_core::replay::Saved;

use crate::client::ClientError;
use crate::context::Context;
use crate::error::Error;
use crate::folder;
use crate::output::{Output, note};

/// Save the leader's last plan, and replay it
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    #[command(subcommand)]
    pub(crate) command: DebugCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Save the snapshot that the leader's last plan was made from
    ///
    /// Names, labels, placements and reports; no unit's text.
    Snapshot(SnapshotArgs),
    /// Plan a saved snapshot again, and compare with the leader's plan
    ///
    /// Asks no fleetd. With --json it prints the plan, byte for byte as the leader's was.
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// The file to write [default: stdout]
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// The plan with this digest, from `fleetctl events --json`; leaders keep their last plans
    #[arg(long, value_name = "DIGEST")]
    plan: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The file that `fleetctl debug snapshot` wrote
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

pub(crate) async fn run(context: &Context, args: DebugArgs) -> Result<u8, Error> {
    match args.command {
        DebugCommand::Snapshot(args) => snapshot(context, args).await,
        DebugCommand::Replay(args) => replay(&context.output, args),
    }
}

async fn snapshot(context: &Context, args: SnapshotArgs) -> Result<u8, Error> {
    let mut text =
        context.client.snapshot(args.plan.as_deref()).await.map_err(|error| match error {
            ClientError::Api { code: 404, message } => Error::failed(message),
            error => Error::request("Error retrieving the snapshot", error),
        })?;
    text.push(b'\n');
    match args.file {
        None => context.output.bytes(&text)?,
        Some(file) => {
            folder::write_private(&file, &text).map_err(|error| {
                Error::failed(format!("cannot write {}: {error}", file.display()))
            })?;
            note(&format!(
                "Saved the snapshot in {}; `fleetctl debug replay` replays it.",
                file.display()
            ));
        }
    }
    Ok(0)
}

pub(crate) fn replay(output: &Output, args: ReplayArgs) -> Result<u8, Error> {
    let file = args.file.display();
    let text = std::fs::read(&args.file)
        .map_err(|error| Error::failed(format!("cannot read {file}: {error}")))?;
    let saved: Saved = serde_json::from_slice(&text).map_err(|error| {
        Error::failed(format!("{file} is not a snapshot that this version can read: {error}"))
            .hint("`fleetctl debug snapshot FILE` writes one")
    })?;
    let plan = saved.replay();
    if output.is_json() {
        output.json_text(&format!("{}\n", serde_json::to_string(&plan)?))?;
    } else {
        let lines: String =
            event::all_of(&plan, &saved.snapshot).iter().map(|item| format!("{item}\n")).collect();
        output.text(&lines)?;
    }
    let digest = plan.digest();
    let revision = saved.snapshot.revision;
    if digest != saved.plan {
        let own = env!("CARGO_PKG_VERSION");
        let message = format!(
            "at revision {revision} this fleetctl plans {digest}, the leader planned {}",
            saved.plan
        );
        return Err(Error::failed(message)
            .cause(format!("the leader was fleetd {}, this is {own}", saved.version)));
    }
    note(&format!("The same plan as the leader's at revision {revision}: {digest}."));
    Ok(0)
}
