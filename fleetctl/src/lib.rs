//! fleetctl: asks a fleetd over HTTP, waits until it is so, and prints what fleet 1.0 printed.
//!
//! Read in this order: `cli` is what a user may type, `cmd` has one file a command, `sources` finds
//! unit files, `wait` follows the cluster until it is as asked, `watch` judges what it sees,
//! `settle` whether what came up stays up, `client` speaks HTTP, `output` and `table` print,
//! `error` has the exit codes and hints, `complete` serves shells, `ssh` and `tunnel` run the
//! system's ssh, `answer` its question about a new host. What is absent: fleetctl never talks to
//! the store or to systemd.

mod answer;
mod cli;
mod client;
mod cmd;
mod complete;
mod endpoint;
mod error;
mod fleet1;
mod folder;
mod names;
mod output;
mod progress;
mod settle;
mod sources;
mod ssh;
mod table;
mod tunnel;
mod wait;
mod watch;

use std::process::ExitCode;

/// Runs fleetctl with the process's arguments; gives its exit code.
pub fn main() -> ExitCode {
    complete::serve_shell();
    if let Some(code) = answer::serve() {
        return code;
    }
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(stop) => return ExitCode::from(stop.print()),
    };
    // One thread is enough for one user's questions, and starts faster than a pool.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            return ExitCode::from(
                error::Error::failed(format!("cannot start: {problem}")).print(),
            );
        }
    };
    let code = runtime.block_on(cmd::run(cli)).unwrap_or_else(|error| error.print());
    ExitCode::from(code)
}

/// All commands and options, for man pages and completions.
pub fn command() -> clap::Command {
    cli::definition()
}
