//! The command line of the keeper and its guard: fleetd's configuration, one lease, until that is
//! lost. See `fleetd::keeper`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use fleetd::config;
use fleetd::config::Places;
use fleetd::daemon;
use fleetd::keeper::{self, Guard, Keeper};
use fleetd::machine::facts;
use fleetd::process::cli::KeeperArgs;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match run(&KeeperArgs::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &KeeperArgs) -> anyhow::Result<()> {
    let environment = std::env::vars().collect();
    let places = Places::new(args.config.as_deref(), args.user, &environment);
    // fleetd says its warnings; what is wrong is said here, too.
    let (settings, _) = config::load(&places, &environment)?;
    let filter = EnvFilter::try_new(&settings.log)
        .with_context(|| format!("log = {:?} is no filter", settings.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .init();
    // One thread: there is one thing to do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        if args.guard {
            return Guard::new(&settings)?.run().await;
        }
        let machine = facts::this_machine(&settings)?;
        let store = daemon::open_cluster_store(
            &settings,
            settings.etcd_request_timeout.min(keeper::REQUEST),
        )?;
        Keeper::new(&settings, machine.id, store)?.run().await
    })
}
