//! What a user may type: global options, the commands, and what is left of fleet 1.0's options.

use std::ffi::{OsStr, OsString};
use std::io::Write;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser};

use crate::cmd::{Command, GROUPS};
use crate::error::{Error, Kind};
use crate::help::with_help;
use crate::options::Globals;
use crate::output::warn;
use crate::ssh::SshArgs;

/// Runs systemd units on a cluster of machines
#[derive(Debug, Parser)]
#[command(
    name = "fleetctl",
    version = concat!("version v", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true,
    infer_subcommands = true,
    max_term_width = 100,
    // As in fleet 1.0, the last of a flag that is given twice wins.
    args_override_self = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(flatten)]
    pub(crate) ssh: SshArgs,
    #[command(flatten)]
    pub(crate) retired: Retired,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// fleet 1.0's options that do nothing any more. Scripts pass them, so they are taken with a
/// warning; those that would change which cluster is meant are refused.
#[derive(Debug, Args)]
pub(crate) struct Retired {
    #[arg(long, global = true, hide = true, env = "FLEETCTL_DRIVER")]
    driver: Option<String>,
    #[arg(long, global = true, hide = true, env = "FLEETCTL_ETCD_KEY_PREFIX")]
    etcd_key_prefix: Option<String>,
    #[arg(long, global = true, hide = true, env = "FLEETCTL_REQUEST_TIMEOUT")]
    request_timeout: Option<String>,
    #[arg(long, global = true, hide = true, env = "FLEETCTL_ETCD_CAFILE")]
    etcd_cafile: Option<String>,
    #[arg(long, global = true, hide = true, env = "FLEETCTL_ETCD_CERTFILE")]
    etcd_certfile: Option<String>,
    #[arg(long, global = true, hide = true, env = "FLEETCTL_ETCD_KEYFILE")]
    etcd_keyfile: Option<String>,
    #[arg(
        long,
        global = true,
        hide = true,
        env = "FLEETCTL_EXPERIMENTAL_API",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    experimental_api: Option<String>,
    #[arg(
        long,
        global = true,
        hide = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    sign: Option<String>,
}

impl Retired {
    /// Warns of each option given; refuses those that mean another cluster.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refused = |why: String| {
            Error::worded(Kind::Failed, format!("Unable to initialize client: {why}"))
        };
        match self.driver.as_deref() {
            None | Some("API" | "api") => {}
            Some("etcd") => {
                let why = "the driver \"etcd\" is gone: only fleetd talks to the store".to_string();
                return Err(refused(why).hint("name a fleetd with --endpoint"));
            }
            Some(other) => return Err(refused(format!("unrecognized driver \"{other}\""))),
        }
        let given = [
            ("driver", &self.driver),
            ("etcd-key-prefix", &self.etcd_key_prefix),
            ("request-timeout", &self.request_timeout),
            ("etcd-cafile", &self.etcd_cafile),
            ("etcd-certfile", &self.etcd_certfile),
            ("etcd-keyfile", &self.etcd_keyfile),
            ("experimental-api", &self.experimental_api),
            ("sign", &self.sign),
        ];
        for (name, _) in given.iter().filter(|(_, value)| value.is_some()) {
            warn(&format!("--{name} no longer has any effect"));
        }
        Ok(())
    }
}

/// Why there is no command to run.
pub(crate) struct Stop(clap::Error);

/// Reads the command line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Stop> {
    let (mut args, off) = go_style_switches(args);
    // What is put off on the command line is off, whatever the environment says.
    let is_off = |name: &str| off.iter().any(|names| names.contains(&name));
    let definition = definition().mut_args(|arg| match arg.get_long().is_some_and(is_off) {
        true => arg.env(Resettable::Reset),
        false => arg,
    });
    if args.len() < 2 {
        args = vec!["fleetctl".into(), "--help".into()];
    }
    let definition = with_help(definition, GROUPS);
    let matches = definition.try_get_matches_from(args).map_err(Stop)?;
    Cli::from_arg_matches(&matches).map_err(Stop)
}

/// What a user may type. A variable that is empty counts as not set.
pub(crate) fn definition() -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    Cli::command().mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(Resettable::Reset),
        false => arg,
    })
}

/// The names of one switch, the long one first.
type Names = &'static [&'static str];

/// fleet 1.0's switches could be written `--no-block=true`; ours are there or not. The last of
/// several wins. Gives what is left of the arguments, and the switches that are off at their end.
fn go_style_switches(args: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, Vec<Names>) {
    let mut left: Vec<OsString> = Vec::new();
    let mut off: Vec<Names> = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            // What follows is no option of ours.
            left.push(arg);
            left.extend(args);
            break;
        }
        let Some((names, on)) = switch(&arg) else {
            left.push(arg);
            continue;
        };
        left.retain(|earlier| !names.iter().any(|name| is_written(earlier, name)));
        off.retain(|earlier| *earlier != names);
        match on {
            true => left.push(OsString::from(format!("--{}", names[0]))),
            false => off.push(names),
        }
    }
    (left, off)
}

/// Whether an argument is this switch, put on: `--full`, `-l`.
fn is_written(arg: &OsStr, name: &str) -> bool {
    let dashes = |dashes: &str| arg.to_str().and_then(|arg| arg.strip_prefix(dashes)) == Some(name);
    dashes("--") || (name.len() == 1 && dashes("-"))
}

/// The names of a switch that is written with a value, and the value.
fn switch(arg: &OsStr) -> Option<(Names, bool)> {
    const SWITCHES: &[Names] = &[
        &["full", "l"],
        &["no-legend"],
        &["no-block"],
        &["replace"],
        &["follow", "f"],
        &["debug"],
        &["json"],
        &["sudo"],
        &["forward-agent", "A"],
        &["version"],
    ];
    let (name, value) = arg.to_str()?.strip_prefix("--")?.split_once('=')?;
    let names = SWITCHES.iter().copied().find(|names| names.contains(&name))?;
    match value {
        "true" | "1" => Some((names, true)),
        "false" | "0" => Some((names, false)),
        _ => None,
    }
}

impl Stop {
    /// Prints the help asked for, or the error; gives the exit code.
    pub(crate) fn print(self) -> u8 {
        let error = self.0;
        if !error.use_stderr() {
            // Help that nobody reads is no failure.
            let _ = std::io::stdout().lock().write_all(error.render().to_string().as_bytes());
            return 0;
        }
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => text.clone(),
            Some(ContextValue::Strings(list)) => list.join(", "),
            _ => String::new(),
        };
        let made = match error.kind() {
            ErrorKind::InvalidSubcommand => Error::usage(format!(
                "unknown command \"{}\" for \"fleetctl\"\nRun 'fleetctl --help' for usage.",
                text(ContextKind::InvalidSubcommand)
            )),
            ErrorKind::MissingSubcommand => {
                Error::usage("no command given\nRun 'fleetctl --help' for usage.")
            }
            ErrorKind::UnknownArgument if !text(ContextKind::InvalidArg).starts_with('-') => {
                Error::usage(format!(
                    "unexpected argument {:?}\nRun 'fleetctl COMMAND --help' for usage.",
                    text(ContextKind::InvalidArg)
                ))
            }
            ErrorKind::UnknownArgument => Error::usage(format!(
                "unknown flag: {}\nRun 'fleetctl COMMAND --help' for usage.",
                text(ContextKind::InvalidArg)
            )),
            _ => {
                let rendered = error.render().to_string();
                let message = rendered.strip_prefix("error: ").unwrap_or(&rendered).trim_end();
                Error::usage(message)
            }
        };
        let near = match error.kind() {
            ErrorKind::InvalidSubcommand => {
                let definition = Cli::command();
                let is_name = |near: &&str| {
                    definition.get_subcommands().any(|command| command.get_name() == *near)
                };
                let near = text(ContextKind::SuggestedSubcommand);
                near.split(", ").filter(is_name).collect::<Vec<_>>().join(", ")
            }
            ErrorKind::UnknownArgument => text(ContextKind::SuggestedArg),
            _ => String::new(),
        };
        if near.is_empty() {
            made.print()
        } else {
            made.hint(format!("did you mean {near}?")).print()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    fn left(args: &str) -> String {
        let (left, off) = go_style_switches(args.split(' ').map(OsString::from));
        let left: Vec<String> = left.into_iter().map(|arg| arg.into_string().unwrap()).collect();
        let off: Vec<&str> = off.iter().map(|names| names[0]).collect();
        format!("{}; off: {}", left.join(" "), off.join(" "))
    }

    #[test]
    fn switches_may_be_written_as_in_go() {
        assert_eq!(left("--no-block=true a"), "--no-block a; off: ");
        assert_eq!(left("--l=1 --full=false a"), "a; off: full");
        assert_eq!(left("--endpoint=true a=1"), "--endpoint=true a=1; off: ");
    }

    #[test]
    fn the_last_of_a_flag_that_is_given_twice_wins() {
        assert_eq!(left("--full --full=false -l"), "-l; off: full");
        assert_eq!(left("-f --follow=false"), "; off: follow");
        assert_eq!(left("--json=false --json=true"), "--json; off: ");
        let words = "fleetctl --endpoint unix:///a journal -n 1 --lines 2 -f -f --endpoint \
            unix:///b --endpoint unix:///c x";
        let cli = parse(words.split(' ').map(OsString::from)).ok().expect("a command");
        assert_eq!(cli.globals.endpoint, "unix:///c");
        assert!(format!("{:?}", cli.command).contains("lines: 2"), "{:?}", cli.command);
    }

    #[test]
    fn what_follows_two_dashes_is_left_as_it_is() {
        assert_eq!(left("ssh m -- ls --full=false"), "ssh m -- ls --full=false; off: ");
    }
}
