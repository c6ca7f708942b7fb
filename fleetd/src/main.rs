//! fleetd's command line: read the configuration, set up logging, run until a signal.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use fleet_core::printable;
use fleetd::config;
use fleetd::config::{Places, Settings};
use fleetd::daemon;
use fleetd::process::cli;
use fleetd::process::cli::Args;
use fleetd::process::panics;
use fleetd::reload::{SetLog, Source};
use tracing::Metadata;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How long work on other threads may take when all else has ended.
const LAST_WORK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    panics::end_the_process();
    let args = cli::parse(std::env::args_os());
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let environment = std::env::vars().collect();
    let places = Places::new(args.config.as_deref(), args.user, &environment);
    let (settings, warnings) = match config::load(&places, &environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            error.warnings.iter().for_each(|warning| eprintln!("Warning: {warning}"));
            let problems = error.problems.len();
            eprintln!("{error}");
            anyhow::bail!(
                "the configuration has {problems} {}",
                if problems == 1 { "problem" } else { "problems" }
            );
        }
    };
    if args.check_config {
        warnings.iter().for_each(|warning| eprintln!("Warning: {warning}"));
        eprintln!("The configuration is good.");
        return Ok(ExitCode::SUCCESS);
    }
    if args.check_store {
        return check_store(&settings);
    }
    let set_log = start_logging(&settings.log)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    // Two threads: the work is waiting for systemd and the store, and the host's cores belong to
    // its units.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(daemon::run(settings, Source { places, environment, set_log }));
    // A plan that is under way has nobody left to wait for it.
    runtime.shutdown_timeout(LAST_WORK);
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what is in the store; the status is 1 if a document needs a person.
fn check_store(settings: &Settings) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let check = runtime.block_on(daemon::check_store(settings))?;
    let text = check.to_string();
    let mut stdout = std::io::stdout();
    // Keys may hold what a terminal obeys.
    let text =
        if stdout.is_terminal() { printable::shown(text.as_bytes()) } else { text.as_str().into() };
    stdout.write_all(text.as_bytes()).context("cannot write to stdout")?;
    Ok(if check.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// To the journal with fields (`UNIT=web@1.service`) under systemd, else to stderr. Answers with
/// what changes the filter.
fn start_logging(filter: &str) -> anyhow::Result<SetLog> {
    let parse = |filter: &str| {
        // rustls warns of odd handshakes, which anybody can send at any rate; what matters of them
        // fleetd says itself, within limits. A filter that names rustls overrules this.
        EnvFilter::try_new(format!("rustls=off,{filter}")).with_context(|| {
            format!("log = {filter:?} is not a filter such as \"info\" or \"fleetd=debug\"")
        })
    };
    let (filter, handle) = tracing_subscriber::reload::Layer::new(parse(filter)?);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let is_ours = |metadata: &Metadata<'_>| metadata.target().starts_with("fleet");
    // What a library says makes sense with its name only, and the journal's own way of logging has
    // no place for that.
    let library = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let (ours, library) = match journal {
        Some(journal) => {
            let ours = journal.with_field_prefix(None).with_syslog_identifier("fleetd".to_string());
            (ours.boxed(), library.without_time().boxed())
        }
        None => (
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_target(false)
                .boxed(),
            library.boxed(),
        ),
    };
    let library = library.with_filter(filter_fn(move |metadata| !is_ours(metadata)));
    let layer = ours.with_filter(filter_fn(is_ours)).and_then(library);
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    Ok(Box::new(move |filter| {
        let changed = parse(filter)
            .and_then(|filter| handle.reload(filter).context("cannot change what is logged"));
        changed.unwrap_or_else(|error| tracing::error!("{error:#}"));
    }))
}
