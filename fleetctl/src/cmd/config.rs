//! `fleetctl config`: values that operators change by hand, apart from any unit file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::Stdio;

use clap::{Args, Subcommand};
use fleet_core::app::AppName;
use fleet_core::configuration::{MAX_VALUE_BYTES, REVISION_VARIABLE, is_variable, refusal};
use fleet_core::time::utc;
use fleet_core::wire::{Config, ConfigChange, ConfigPatch, ConfigRollback};

use super::activate::instances;
use crate::client::{ClientError, innermost};
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::lines::{Lines, Piece};
use crate::output::note;
use crate::retry::Retry;
use crate::sources::is_global;
use crate::target::{Goal, Target};
use crate::wait::{WaitArgs, until_done};

/// The longest line of a follower, in bytes: a configuration at its limit, escaped.
const MAX_LINE: usize = 2 * 1024 * 1024;

/// Change the values that units get by Config=
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Set values, all in one write, and wait until the units that use them have them
    ///
    /// KEY=VALUE sets a value as it stands there, KEY@FILE that of a file, KEY@- that of standard
    /// input. The configuration is made if there is none.
    Set(SetArgs),
    /// Print a configuration's values, or one value as it is
    Get(GetArgs),
    /// List the configurations
    List,
    /// Change values in $VISUAL or $EDITOR, as a JSON document
    ///
    /// Changes nothing if somebody else changed the configuration meanwhile.
    Edit(EditArgs),
    /// Remove values, or with --all a configuration that no unit uses
    Rm(RmArgs),
    /// List the revisions that are kept, newest first, with what each changed
    History(NameArgs),
    /// Give a configuration the values of an earlier revision, as a new one
    Rollback(RollbackArgs),
    /// Run a command with the values in its environment, now and at each change
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
struct NameArgs {
    /// The configuration
    #[arg(value_name = "NAME", value_parser = name)]
    name: AppName,
}

#[derive(Debug, Args)]
struct SetArgs {
    #[command(flatten)]
    of: NameArgs,
    /// The values
    #[arg(value_name = "KEY=VALUE", required = true)]
    values: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct GetArgs {
    #[command(flatten)]
    of: NameArgs,
    /// The one value to print, to the byte
    #[arg(value_name = "KEY")]
    key: Option<String>,
}

#[derive(Debug, Args)]
struct EditArgs {
    #[command(flatten)]
    of: NameArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct RmArgs {
    #[command(flatten)]
    of: NameArgs,
    /// The values to remove
    #[arg(value_name = "KEY", required_unless_present = "all", conflicts_with = "all")]
    keys: Vec<String>,
    /// Remove the configuration
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct RollbackArgs {
    #[command(flatten)]
    of: NameArgs,
    /// The revision to return to, see `fleetctl config history` [default: the last that differs]
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct WatchArgs {
    #[command(flatten)]
    of: NameArgs,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: ConfigArgs) -> Result<u8, Error> {
    match args.command {
        ConfigCommand::Set(SetArgs { of, values, wait }) => {
            let patch = ConfigPatch { set: pairs(&values)?, ..ConfigPatch::default() };
            change(context, &of.name, &patch, &wait).await
        }
        ConfigCommand::Get(args) => get(context, args).await,
        ConfigCommand::List => list(context).await,
        ConfigCommand::Edit(args) => edit(context, args).await,
        ConfigCommand::Rm(RmArgs { of, all: true, .. }) => {
            context.client.destroy_config(&of.name).await.map_err(|e| failed(&of.name, e))?;
            note(&format!("Configuration {} was removed.", of.name));
            Ok(0)
        }
        ConfigCommand::Rm(RmArgs { of, keys, wait, .. }) => {
            let present = context.client.config(&of.name).await;
            let present = present.map_err(|error| failed(&of.name, error))?;
            if let Some(key) = keys.iter().find(|key| !present.values.contains_key(*key)) {
                return Err(Error::failed(format!("{} has no value {key}", of.name)));
            }
            let remove = keys.into_iter().collect();
            let patch = ConfigPatch { remove, ..ConfigPatch::default() };
            change(context, &of.name, &patch, &wait).await
        }
        ConfigCommand::History(args) => history(context, args).await,
        ConfigCommand::Rollback(RollbackArgs { of, to, wait }) => {
            let wish = ConfigRollback { revision: to };
            let changed = context.client.roll_config_back(&of.name, &wish).await;
            let changed = changed.map_err(|error| failed(&of.name, error))?;
            settle(context, &changed, &wait).await
        }
        ConfigCommand::Watch(args) => watch(context, args).await,
    }
}

fn name(text: &str) -> Result<AppName, String> {
    AppName::parse(text).map_err(|_| {
        "expect lower-case letters, digits, \"-\" and \"_\", a letter or digit first".to_string()
    })
}

fn failed(name: &AppName, error: ClientError) -> Error {
    let is_missing = error.is_not_found();
    let error = Error::request(&format!("Error with configuration {name}"), error);
    match is_missing {
        true => error.hint(format!("fleetctl config set {name} KEY=VALUE")),
        false => error,
    }
}

/// `KEY=VALUE`, `KEY@FILE` or `KEY@-`, whichever of the two signs comes first: no key has one.
fn pairs(arguments: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let mut values = BTreeMap::new();
    for argument in arguments {
        let at = argument.find(['=', '@']).ok_or_else(|| {
            Error::usage(format!("{argument:?}: expect KEY=VALUE, KEY@FILE or KEY@-"))
        })?;
        let (key, rest) = (&argument[..at], &argument[at + 1..]);
        let value = match argument.as_bytes()[at] {
            b'=' => rest.to_string(),
            _ => read(rest)?,
        };
        if values.insert(key.to_string(), value).is_some() {
            return Err(Error::usage(format!("{key} is set twice")));
        }
    }
    match refusal(&values) {
        Some(problem) => Err(Error::failed(problem)),
        None => Ok(values),
    }
}

/// The content of a file, or of standard input for `-`.
fn read(path: &str) -> Result<String, Error> {
    let limit = MAX_VALUE_BYTES as u64 + 1; // one more shows that it is too long
    let mut bytes = Vec::new();
    let done = match path {
        "-" => std::io::stdin().take(limit).read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
    };
    done.map_err(|problem| Error::failed(format!("cannot read {path}: {problem}")))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::failed(format!("{path} is no UTF-8, so it cannot be a value")))
}

async fn change(
    context: &Context,
    name: &AppName,
    patch: &ConfigPatch,
    wait: &WaitArgs,
) -> Result<u8, Error> {
    let changed = context.client.change_config(name, patch).await;
    settle(context, &changed.map_err(|error| failed(name, error))?, wait).await
}

/// Says what a change does, and waits until it is done.
async fn settle(context: &Context, changed: &ConfigChange, wait: &WaitArgs) -> Result<u8, Error> {
    let name = &changed.name;
    if context.output.is_json() {
        context.output.document(changed)?;
    } else if changed.changes.is_empty() {
        note(&format!(
            "Configuration {name} has these values already, revision {}",
            changed.revision
        ));
    } else {
        note(&format!("Configuration {name} has revision {}", changed.revision));
        let units = [("restarts", &changed.restarts), ("reloads", &changed.reloads)];
        for (what, units) in units.into_iter().filter(|(_, units)| !units.is_empty()) {
            note(&format!("It {what} {}", units.join(", ")));
        }
    }
    if !wait.blocks() {
        return Ok(0);
    }
    let mut targets = Vec::new();
    for name in changed.restarts.iter().chain(&changed.reloads) {
        let unit = context.client.unit(name).await;
        let unit = unit.map_err(|error| Error::request("Error waiting for units", error))?;
        let Some(unit) = unit else { continue }; // destroyed meanwhile
        let target = match is_global(&unit) || context.output.is_json() {
            true => Target::quiet(name.as_str(), Goal::Launched),
            false => {
                Target::telling(name.as_str(), Goal::Launched, instances(context, &unit).await?)
            }
        };
        targets.push(Target { stays_up: true, ..target });
    }
    if !targets.is_empty() {
        until_done(&context.client, &context.output, targets, wait).await?;
    }
    Ok(0)
}

async fn get(context: &Context, args: GetArgs) -> Result<u8, Error> {
    let name = &args.of.name;
    let config = context.client.config(name).await.map_err(|error| failed(name, error))?;
    if let Some(key) = &args.key {
        let value = config.values.get(key).ok_or_else(|| {
            Error::failed(format!("{name} has no value {key}"))
                .hint(format!("fleetctl config get {name}"))
        })?;
        match context.output.is_json() {
            true => context.output.document(value)?,
            false => context.output.text(value)?,
        }
        return Ok(0);
    }
    if context.output.is_json() {
        context.output.document(&config)?;
        return Ok(0);
    }
    let lines: String =
        config.values.iter().map(|(key, value)| format!("{key}={}\n", in_a_line(value))).collect();
    context.output.text(&lines)?;
    Ok(0)
}

/// A value of several lines as JSON writes it, so that each value has one line.
fn in_a_line(value: &str) -> String {
    match value.contains(char::is_control) {
        true => serde_json::Value::from(value).to_string(),
        false => value.to_string(),
    }
}

async fn list(context: &Context) -> Result<u8, Error> {
    let configs = context.client.configs().await;
    let configs = configs.map_err(|error| Error::request("Error listing configurations", error))?;
    if context.output.is_json() {
        context.output.document(&configs)?;
        return Ok(0);
    }
    let mut text = "NAME\tREVISION\tKEYS\tCHANGED\n".to_string();
    for config in &configs {
        let (name, revision, keys) = (&config.name, config.revision, config.keys);
        text.push_str(&format!("{name}\t{revision}\t{keys}\t{}\n", utc(config.changed_ms)));
    }
    context.output.text(&text)?;
    Ok(0)
}

async fn history(context: &Context, args: NameArgs) -> Result<u8, Error> {
    let history = context.client.config_history(&args.name).await;
    let history = history.map_err(|error| failed(&args.name, error))?;
    if context.output.is_json() {
        context.output.document(&history.revisions)?;
        return Ok(0);
    }
    let mut text = String::new();
    for revision in &history.revisions {
        let current = if revision.current { " (current)" } else { "" };
        text.push_str(&format!(
            "revision {}{current}, {}\n",
            revision.revision,
            utc(revision.changed_ms)
        ));
        for (key, value) in &revision.changes.set {
            text.push_str(&format!("  {key}={}\n", in_a_line(value)));
        }
        for key in &revision.changes.removed {
            text.push_str(&format!("  without {key}\n"));
        }
    }
    context.output.text(&text)?;
    Ok(0)
}

async fn edit(context: &Context, args: EditArgs) -> Result<u8, Error> {
    let name = &args.of.name;
    let old = match context.client.config(name).await {
        Err(error) if error.is_not_found() => Config::default(),
        found => found.map_err(|error| failed(name, error))?,
    };
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|variable| std::env::var(variable).ok());
    let editor = editor.filter(|editor| !editor.trim().is_empty()).unwrap_or_else(|| "vi".into());
    // Its owner alone may read it.
    let file = tempfile::Builder::new().prefix(&format!("{name}.")).suffix(".json").tempfile();
    let file = file.map_err(|error| Error::failed(format!("cannot make a file: {error}")))?;
    let mut text = serde_json::to_string_pretty(&old.values)?;
    text.push('\n');
    let cannot = |what: &str, error: std::io::Error| {
        Error::failed(format!("cannot {what} {}: {error}", file.path().display()))
    };
    std::fs::write(file.path(), &text).map_err(|error| cannot("write", error))?;
    // An editor with arguments is a command of the shell, as git has it.
    let status = std::process::Command::new("/bin/sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file.path())
        .status()
        .map_err(|error| Error::failed(format!("cannot run {editor}: {error}")))?;
    if !status.success() {
        return Err(Error::failed(format!("{editor} ended with {status}; nothing was changed")));
    }
    let edited = std::fs::read_to_string(file.path()).map_err(|error| cannot("read", error))?;
    let values: BTreeMap<String, String> = serde_json::from_str(&edited).map_err(|error| {
        Error::failed(format!("line {}: {error}; nothing was changed", error.line()))
            .hint("each value is a text in quotes: \"port\": \"8080\"")
    })?;
    if values == old.values {
        note("Nothing was changed.");
        return Ok(0);
    }
    if let Some(problem) = refusal(&values) {
        return Err(Error::failed(format!("{problem}; nothing was changed")));
    }
    let remove: BTreeSet<String> =
        old.values.keys().filter(|key| !values.contains_key(*key)).cloned().collect();
    let patch = ConfigPatch { set: values, remove, if_revision: Some(old.revision) };
    change(context, name, &patch, &args.wait).await
}

/// Runs the command for the values as they are, and at each change. When the connection breaks it
/// goes on with what is there then, if that is another revision.
async fn watch(context: &Context, args: WatchArgs) -> Result<u8, Error> {
    let name = &args.of.name;
    let mut told = None;
    let mut retry = Retry::new();
    let mut is_first = true;
    loop {
        let broken = match context.client.follow_config(name).await {
            Ok(answer) => follow(answer, &args.command, &mut told, &mut retry).await?,
            Err(error) if error.is_passing() && (error.is_busy() || !is_first) => error.to_string(),
            Err(error) => return Err(failed(name, error)),
        };
        is_first = false;
        retry.pause(&broken).await;
    }
}

/// Reads until the connection breaks; answers with why.
async fn follow(
    mut answer: reqwest::Response,
    command: &[String],
    told: &mut Option<u64>,
    retry: &mut Retry,
) -> Result<String, Error> {
    let mut lines = Lines::new(MAX_LINE);
    loop {
        let chunk = match answer.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok("fleetd ended the connection".to_string()),
            Err(problem) => return Ok(innermost(&problem)),
        };
        lines.push(&chunk);
        while let Some(piece) = lines.next() {
            let Piece::Line(line) = piece else {
                return Err(Error::failed("fleetd sent a line that is too long"));
            };
            let config: Config = serde_json::from_slice(&line)?;
            retry.works();
            if told.replace(config.revision) != Some(config.revision) && config.revision > 0 {
                run_with(command, &config).await?;
            }
        }
    }
}

async fn run_with(command: &[String], config: &Config) -> Result<(), Error> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let variables =
        config.values.iter().filter(|(key, value)| is_variable(key) && !value.contains('\0'));
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .envs(variables)
        .env(REVISION_VARIABLE, config.revision.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| Error::worded(Kind::Failed, format!("cannot run {program}: {error}")))?;
    if !status.success() {
        note(&format!("{program} ended with {status} at revision {}", config.revision));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_cut_at_the_first_sign() {
        let set =
            |words: &[&str]| pairs(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        let values = set(&["a=b=c", "mail=x@y", "empty="]).unwrap();
        let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
        assert_eq!(
            values,
            BTreeMap::from([pair("a", "b=c"), pair("empty", ""), pair("mail", "x@y")])
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "two\nlines\n").unwrap();
        let argument = format!("cert@{}", file.path().display());
        assert_eq!(set(&[&argument]).unwrap()["cert"], "two\nlines\n");
        for bad in ["a", "a b=1", "=1"] {
            assert!(set(&[bad]).is_err(), "{bad}");
        }
        assert!(set(&["a=1", "a=2"]).is_err());
        std::fs::write(file.path(), [0xff]).unwrap();
        assert!(set(&[&argument]).is_err(), "no UTF-8");
    }
}
