//! Writes the man pages and shell completions of fleetd and fleetctl into a folder: `cargo run
//! --package fleet-tests --bin man FOLDER`.
//!
//! `man/` gets `fleetctl.1`, one page a command, `fleetd.8`, `fleet-keeper.8` and `fleet-unit.5`,
//! the options of `[X-Fleet]`; `completions/` gets `fleetctl` (bash), `_fleetctl` (zsh) and
//! `fleetctl.fish`, under the names that their shells look for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap_complete::env::{EnvCompleter, Fish, Zsh};
use clap_mangen::Man;
use fleet_core::unit::xfleet::{Counts, FleetOption, List, OPTIONS};

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
    render_all(&fleetctl, "fleetd(8), fleet-unit(5)", &man)?;
    write(&man.join("fleet-unit.5"), unit_page().as_bytes())?;
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

/// The page `fleet-unit.5`: every option of `[X-Fleet]`, of the table that fleetd reads them by.
fn unit_page() -> String {
    let version = format!("fleet {}", env!("CARGO_PKG_VERSION"));
    let mut page = format!(
        ".TH fleet-unit 5 \"\" \"{version}\" \"fleet\"\n.SH NAME\nfleet\\-unit \\- the [X\\-Fleet] \
        section of unit files\n.SH DESCRIPTION\nA unit of fleet is a systemd unit file, see \
        systemd.unit(5). The section [X\\-Fleet], which systemd passes over, says which machines \
        may run it. The specifiers %n, %N, %p and %i stand for the unit\\(aqs name, its name \
        without type, the part before @ and the part after it.\n.SH OPTIONS\n"
    );
    for option in OPTIONS {
        let about = [option.about.to_string()].into_iter().chain(rules(option));
        let about = about.collect::<Vec<_>>().join(" ").replace('-', "\\-");
        page += &format!(".TP\n\\fB{}=\\fR\n{about}\n", option.name);
    }
    page + ".SH \"SEE ALSO\"\nfleetctl(1), fleetd(8), systemd.unit(5)\n"
}

/// What else a row of the table says of an option, a sentence each.
fn rules(option: &FleetOption) -> Vec<String> {
    let mut rules = vec![match (option.counts, option.list) {
        (Counts::First, _) => "The first value counts.".to_string(),
        (Counts::Last, _) => "The last value counts.".to_string(),
        (Counts::All, None) => "May be given several times.".to_string(),
        (Counts::All, Some(List { most, of })) => {
            format!("May be given several times, with {most} {of} at most.")
        }
    }];
    rules.extend(option.has_specifiers().then(|| "Specifiers are put in.".to_string()));
    let partners = OPTIONS.iter().filter(|other| other.excludes.contains(&option.name));
    let excluded: Vec<String> = (option.excludes.iter().copied())
        .chain(partners.map(|other| other.name))
        .map(|name| format!("{name}="))
        .collect();
    rules.extend(
        (!excluded.is_empty()).then(|| format!("Cannot be used with {}.", excluded.join(", "))),
    );
    let legacy: Vec<String> = option.legacy.iter().map(|name| format!("{name}=")).collect();
    rules.extend((!legacy.is_empty()).then(|| format!("Older names: {}.", legacy.join(", "))));
    rules
}

fn name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
