//! fleetctl: asks a fleetd over HTTP, waits until it is so, and prints what fleet 1.0 printed.
//!
//! Read in this order:
//!
//! - `cli` is what a user may type, `options` what every command takes; `cmd` has a file a command,
//!   `help` puts their texts in order.
//! - `context` is what a command works with; `sources` finds unit files.
//! - `wait` follows the cluster until every `target` is as asked; `watch` judges what it sees,
//!   `settle` whether what came up stays up, `progress` draws what is still missing.
//! - `app_files` reads an application from a folder, `quadlets` cuts a file of several;
//!   `app_plan` shows what an apply would do, `diff` two texts, and `question` asks the user.
//! - `client` speaks HTTP; its `hints` say what to do about a request that failed. Followers cut
//!   what comes into `lines`, and `retry` when it breaks.
//! - `screen`, `output` and `table` print; `error` has the exit codes.
//! - `complete` serves shells; `ssh` and `tunnel` run the system's ssh, and `answer` answers its
//!   question about a new host.
//!
//! What is absent: fleetctl never talks to the store or to systemd. No file imports one that
//! imports it, in however many steps (`tests/cli/layers.rs`).

mod answer;
mod app_files;
mod app_plan;
mod cli;
mod client;
mod clock;
mod cmd;
mod complete;
mod context;
mod diff;
mod endpoint;
mod error;
mod fleet1;
mod folder;
mod help;
mod last_lines;
mod lines;
mod names;
mod options;
mod output;
mod progress;
mod quadlets;
mod question;
mod retry;
mod screen;
mod settle;
mod sources;
mod ssh;
mod table;
mod target;
mod tunnel;
mod wait;
mod watch;

use std::process::ExitCode;

use cli::Cli;
use error::Error;

/// Runs fleetctl with the process's arguments; gives its exit code.
pub fn main() -> ExitCode {
    complete::serve_shell(cli::definition);
    if let Some(code) = answer::serve() {
        return code;
    }
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(stop) => return ExitCode::from(stop.print()),
    };
    screen::set_colours(cli.globals.color);
    // One thread is enough for one user's questions, and starts faster than a pool.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            return ExitCode::from(Error::failed(format!("cannot start: {problem}")).print());
        }
    };
    let code = runtime.block_on(run(cli)).unwrap_or_else(|error| error.print());
    ExitCode::from(code)
}

async fn run(cli: Cli) -> Result<u8, Error> {
    cli.retired.check()?;
    cmd::run(cli.command, cli.globals, cli.ssh).await
}

/// All commands and options, for man pages and completions.
pub fn command() -> clap::Command {
    cli::definition()
}
