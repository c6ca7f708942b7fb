//! The commands, one file each; what several of them share is in [`activate`], [`deactivate`] and
//! [`remote`].

mod activate;
mod apply;
mod apps;
mod cat;
mod config;
mod deactivate;
mod debug;
mod destroy;
mod diff;
mod drain;
mod events;
mod export;
mod fd_forward;
mod image_check;
mod import;
mod journal;
mod list_machines;
mod list_revisions;
mod list_unit_files;
mod list_units;
mod load;
mod move_unit;
mod order;
mod plan;
mod reboots;
mod remote;
mod restart;
mod rollback;
mod rollout;
mod scale;
mod ssh;
mod start;
mod status;
mod stop;
mod store;
mod submit;
mod unload;
mod update;
mod verify;
mod version;
mod volumes;

use clap::Subcommand;

use crate::client::Client;
use crate::context::Context;
use crate::error::Error;
use crate::help::Group;
use crate::options::Globals;
use crate::output::Output;
use crate::ssh::SshArgs;

/// All commands, in the order of a unit's life. The aliases are prefixes that fit a newer command
/// too, and mean what they meant to fleet 1.0.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Plan(plan::PlanArgs),
    Apply(apply::ApplyArgs),
    Apps(apps::AppsArgs),
    Diff(diff::DiffArgs),
    Volumes(volumes::VolumesArgs),
    Submit(submit::SubmitArgs),
    Load(load::LoadArgs),
    Start(start::StartArgs),
    Scale(scale::ScaleArgs),
    #[command(aliases = ["r", "re"])]
    Restart(restart::RestartArgs),
    Update(update::UpdateArgs),
    Rollback(rollback::RollbackArgs),
    Rollout(rollout::RolloutArgs),
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
    Config(config::ConfigArgs),
    Drain(drain::DrainArgs),
    Cordon(drain::CordonArgs),
    Uncordon(drain::UncordonArgs),
    Move(move_unit::MoveArgs),
    Reboots(reboots::RebootsArgs),
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

/// The commands as `fleetctl --help` lists them.
pub(crate) const GROUPS: &[Group] = &[
    ("Applications", &["plan", "apply", "apps", "diff", "config", "volumes"]),
    ("Run units", &["start", "scale", "restart", "stop"]),
    (
        "Look at units",
        &["status", "journal", "cat", "list-units", "list-unit-files", "list-revisions", "events"],
    ),
    ("Change units", &["submit", "load", "update", "rollback", "rollout", "unload", "destroy"]),
    ("Machines", &["list-machines", "drain", "cordon", "uncordon", "move", "reboots", "ssh"]),
    ("Cluster", &["export", "import", "store"]),
    ("Tools", &["debug", "version", "fd-forward", "help"]),
];

/// Runs the command; gives the exit code.
pub(crate) async fn run(command: Command, globals: Globals, ssh: SshArgs) -> Result<u8, Error> {
    let output = Output::new(globals.json);
    match command {
        // These ask no fleetd, so they need no tunnel to one.
        Command::FdForward(args) => return fd_forward::run(args).await,
        Command::Verify(args) => return verify::run(args),
        Command::Debug(debug::DebugArgs { command: debug::DebugCommand::Replay(args) }) => {
            return debug::replay(&output, args);
        }
        Command::Version(_) if !output.is_json() => return version::own(&output),
        _ => {}
    }
    let client = Client::connect(&globals, &ssh).await?;
    let context = Context { client, output, globals, ssh };
    let ended = match command {
        Command::Plan(args) => plan::run(&context, args).await,
        Command::Apply(args) => apply::run(&context, args).await,
        Command::Apps(args) => apps::run(&context, args).await,
        Command::Volumes(args) => volumes::run(&context, args).await,
        Command::Diff(args) => diff::run(&context, args).await,
        Command::Submit(args) => submit::run(&context, args).await,
        Command::Load(args) => load::run(&context, args).await,
        Command::Start(args) => start::run(&context, args).await,
        Command::Scale(args) => scale::run(&context, args).await,
        Command::Restart(args) => restart::run(&context, args).await,
        Command::Update(args) => update::run(&context, args).await,
        Command::Rollback(args) => rollback::run(&context, args).await,
        Command::Rollout(args) => rollout::run(&context, args).await,
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
        Command::Config(args) => config::run(&context, args).await,
        Command::Drain(args) => drain::drain(&context, args).await,
        Command::Cordon(args) => drain::cordon(&context, args).await,
        Command::Uncordon(args) => drain::uncordon(&context, args).await,
        Command::Move(args) => move_unit::run(&context, args).await,
        Command::Reboots(args) => reboots::run(&context, args).await,
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
