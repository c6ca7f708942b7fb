//! Writes the man pages and shell completions of fleetd and fleetctl into a folder: `cargo run
//! --package fleet-tests --bin man FOLDER`.
//!
//! `man/` gets `fleetctl.1`, one page a command, `fleetd.8` and `fleet-keeper.8`; `completions/`
//! gets `fleetctl` (bash), `_fleetctl` (zsh) and `fleetctl.fish`, under the names that their shells
//! look for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap_complete::env::{EnvCompleter, Fish, Zsh};
use clap_mangen::Man;

/// bash breaks words in the middle of unit names, so it needs a script of its own.
const BASH: &str = include_str!("../../../fleetctl/dist/fleetctl.bash");

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("usage: man FOLDER")?);
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&man, &completions] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    // Only `fleetctl --version` has a word before its number.
    let mut fleetctl =
        fleetctl::command().disable_help_subcommand(true).version(env!("CARGO_PKG_VERSION"));
    // Gives each command its full name, by which its page is called.
    fleetctl.build();
    render_all(&fleetctl, "fleetd(8)", &man)?;
    render(fleetd::process::cli::command(), "8", "fleet-keeper(8), fleetctl(1)", &man)?;
    render(fleetd::process::cli::keeper_command(), "8", "fleetd(8), fleetctl(1)", &man)?;
    write(&completions.join("fleetctl"), BASH.as_bytes())?;
    for (shell, name) in [(&Zsh as &dyn EnvCompleter, "_fleetctl"), (&Fish, "fleetctl.fish")] {
        let mut script = Vec::new();
        shell.write_registration("COMPLETE", "fleetctl", "fleetctl", "fleetctl", &mut script)?;
        if name == "_fleetctl" {
            // zsh reads the file at the first TAB, as the body of a function by its name: this
            // makes that TAB answer, too.
            script.extend_from_slice(
                b"[ \"$funcstack[1]\" = _fleetctl ] && _clap_dynamic_completer_fleetctl \"$@\"\n",
            );
        }
        write(&completions.join(name), &script)?;
    }
    Ok(())
}

/// Writes the pages of a command of fleetctl and of all below it.
fn render_all(command: &clap::Command, see: &str, folder: &Path) -> Result<()> {
    render(command.clone(), "1", see, folder)?;
    let page = format!("{}(1)", name(command));
    command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .try_for_each(|below| render_all(below, &page, folder))
}

/// Writes the page `fleetctl-start.1` of the command `fleetctl start`; `see` are the pages of SEE
/// ALSO.
fn render(command: clap::Command, section: &str, see: &str, folder: &Path) -> Result<()> {
    let mut page = Vec::new();
    let version = format!("fleet {}", env!("CARGO_PKG_VERSION"));
    // What -h leaves out for brevity a page has.
    let command = command.mut_args(|arg| arg.hide_short_help(false));
    let man = Man::new(command).section(section).source(version).manual("fleet");
    man.render(&mut page)?;
    page.extend_from_slice(format!(".SH \"SEE ALSO\"\n{}\n", see.replace('-', "\\-")).as_bytes());
    write(&folder.join(man.get_filename()), &page)
}

fn name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
