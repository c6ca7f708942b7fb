//! fleetd's command line: read the configuration, set up logging, run until a signal.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use fleetd::cli::Args;
use fleetd::config::Settings;
use fleetd::{config, daemon};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = config::load(args.config.as_deref(), std::env::vars())?;
    if args.check_config {
        eprintln!("The configuration is good.");
        return Ok(ExitCode::SUCCESS);
    }
    if args.check_store {
        return check_store(&settings);
    }
    start_logging(&settings.log)?;
    // Two threads: the work is waiting for systemd and the store, and the host's cores belong to its units.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(daemon::run(settings))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what is in the store; the status is 1 if a document needs a person.
fn check_store(settings: &Settings) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let check = runtime.block_on(daemon::check_store(settings))?;
    std::io::stdout().write_all(check.to_string().as_bytes()).context("cannot write to stdout")?;
    Ok(if check.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// To the journal with fields (`UNIT=web@1.service`) under systemd, else to stderr.
fn start_logging(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("log = {filter:?} is not a filter such as \"info\" or \"fleetd=debug\""))?;
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let layer = match journal {
        Some(journal) => journal.with_field_prefix(None).with_syslog_identifier("fleetd".to_string()).boxed(),
        None => tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    Ok(())
}
