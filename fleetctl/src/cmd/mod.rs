//! The commands, one file each; what several of them share is in [`activate`], [`deactivate`] and
//! [`remote`].

mod activate;
mod cat;
mod deactivate;
mod debug;
mod destroy;
mod drain;
mod events;
mod export;
mod fd_forward;
mod import;
mod journal;
mod list_machines;
mod list_revisions;
mod list_unit_files;
mod list_units;
mod load;
mod order;
mod remote;
mod restart;
mod rollback;
mod scale;
mod ssh;
mod start;
mod status;
mod stop;
mod store;
mod submit;
mod unload;
mod verify;
mod version;

use clap::{Args, Subcommand};
use fleet_core::name::UnitName;
use fleet_core::wire::{Machine, Unit};

use crate::cli::{Cli, Globals};
use crate::client::Client;
use crate::error::Error;
use crate::output::{Output, note};
use crate::ssh::SshArgs;

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
    /// The options of every command.
    pub(crate) globals: Globals,
    /// How to reach machines over ssh, for the commands that do.
    pub(crate) ssh: SshArgs,
}

/// All commands, in the order of a unit's life. The aliases are prefixes that fit a newer command
/// too, and mean what they meant to fleet 1.0.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Submit(submit::SubmitArgs),
    Load(load::LoadArgs),
    Start(start::StartArgs),
    Scale(scale::ScaleArgs),
    #[command(alias = "r")]
    Restart(restart::RestartArgs),
    Rollback(rollback::RollbackArgs),
    #[command(alias = "sto")]
    Stop(stop::StopArgs),
    #[command(aliases = ["u", "un"])]
    Unload(unload::UnloadArgs),
    #[command(aliases = ["d", "de"])]
    Destroy(destroy::DestroyArgs),
    Status(status::StatusArgs),
    Journal(journal::JournalArgs),
    #[command(alias = "c")]
    Cat(cat::CatArgs),
    ListUnits(list_units::ListUnitsArgs),
    ListUnitFiles(list_unit_files::ListUnitFilesArgs),
    ListRevisions(list_revisions::ListRevisionsArgs),
    ListMachines(list_machines::ListMachinesArgs),
    Drain(drain::DrainArgs),
    Cordon(drain::CordonArgs),
    Uncordon(drain::UncordonArgs),
    Events(events::EventsArgs),
    Ssh(ssh::SshCommandArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Store(store::StoreArgs),
    Debug(debug::DebugArgs),
    Version(version::VersionArgs),
    FdForward(fd_forward::FdForwardArgs),
    #[command(hide = true)]
    Verify(verify::VerifyArgs),
}

/// The options of all lists.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Do not shorten ids and hashes
    #[arg(long, short = 'l', alias = "l")]
    pub(crate) full: bool,
    /// Do not print the column names
    #[arg(long)]
    pub(crate) no_legend: bool,
}

/// Runs the command; gives the exit code.
pub(crate) async fn run(cli: Cli) -> Result<u8, Error> {
    cli.retired.check()?;
    let output = Output::new(cli.globals.json);
    match cli.command {
        // These ask no fleetd, so they need no tunnel to one.
        Command::FdForward(args) => return fd_forward::run(args).await,
        Command::Verify(args) => return verify::run(args),
        Command::Debug(debug::DebugArgs { command: debug::DebugCommand::Replay(args) }) => {
            return debug::replay(&output, args);
        }
        Command::Version(_) if !output.is_json() => return version::own(&output),
        _ => {}
    }
    let client = Client::connect(&cli.globals, &cli.ssh).await?;
    let context = Context { client, output, globals: cli.globals, ssh: cli.ssh };
    let ended = match cli.command {
        Command::Submit(args) => submit::run(&context, args).await,
        Command::Load(args) => load::run(&context, args).await,
        Command::Start(args) => start::run(&context, args).await,
        Command::Scale(args) => scale::run(&context, args).await,
        Command::Restart(args) => restart::run(&context, args).await,
        Command::Rollback(args) => rollback::run(&context, args).await,
        Command::Stop(args) => stop::run(&context, args).await,
        Command::Unload(args) => unload::run(&context, args).await,
        Command::Destroy(args) => destroy::run(&context, args).await,
        Command::Status(args) => status::run(&context, args).await,
        Command::Journal(args) => journal::run(&context, args).await,
        Command::Cat(args) => cat::run(&context, args).await,
        Command::ListUnits(args) => list_units::run(&context, args).await,
        Command::ListUnitFiles(args) => list_unit_files::run(&context, args).await,
        Command::ListMachines(args) => list_machines::run(&context, args).await,
        Command::ListRevisions(args) => list_revisions::run(&context, args).await,
        Command::Drain(args) => drain::drain(&context, args).await,
        Command::Cordon(args) => drain::cordon(&context, args).await,
        Command::Uncordon(args) => drain::uncordon(&context, args).await,
        Command::Events(args) => events::run(&context, args).await,
        Command::Ssh(args) => ssh::run(&context, args).await,
        Command::Export(args) => export::run(&context, args).await,
        Command::Import(args) => import::run(&context, args).await,
        Command::Store(args) => store::run(&context, args).await,
        Command::Debug(args) => debug::run(&context, args).await,
        Command::Version(args) => version::run(&context, args).await,
        Command::FdForward(args) => fd_forward::run(args).await,
        Command::Verify(args) => verify::run(args),
    };
    if ended.is_err() {
        // What was done before the error is data all the same.
        context.output.finish_results()?;
    }
    ended
}

/// The machine whose id starts so, if there is one; the error says that there are several.
fn machine_starting<'a>(
    machines: &'a [Machine],
    word: &str,
) -> Result<Option<&'a Machine>, String> {
    let mut fitting =
        machines.iter().filter(|machine| !word.is_empty() && machine.id.starts_with(word));
    match (fitting.next(), fitting.next()) {
        (Some(_), Some(_)) => Err(format!("several machines start with {word}")),
        (one, _) => Ok(one),
    }
}

/// The names that a user may have meant: `web@.service` for `web.service`. For an error's hint
/// only, so it may fail quietly.
async fn did_you_mean(client: &Client, error: Error, name: &UnitName) -> Error {
    let same_prefix = |unit: &Unit| {
        UnitName::trusted(unit.name.as_str()).prefix() == name.prefix()
            && unit.name != name.as_str()
    };
    let near: Vec<String> = match client.brief_units().await {
        Ok(units) => units.into_iter().filter(same_prefix).map(|unit| unit.name).take(3).collect(),
        Err(_) => Vec::new(),
    };
    if near.is_empty() {
        error.hint("`fleetctl list-unit-files` shows what the cluster has")
    } else {
        error.hint(format!("did you mean {}?", near.join(", ")))
    }
}

/// As in fleet 1.0, no units are nothing to do: `fleetctl stop $(…)` must not fail where the list
/// is empty.
fn no_units(units: &[String]) -> bool {
    if units.is_empty() {
        note("No units given");
    }
    units.is_empty()
}
