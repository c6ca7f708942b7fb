//! What a shell offers at TAB: commands and options from the definitions, names of units and
//! machines from the cluster.

use std::ffi::OsStr;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{ArgMatches, FromArgMatches};
use clap_complete::CompletionCandidate;
use clap_complete::env::CompleteEnv;
use fleet_core::name::UnitName;
use fleet_core::printable;

use crate::client::{Client, ClientError};
use crate::options::Globals;
use crate::ssh::SshArgs;

/// How long a TAB may take: whoever waits longer types the name.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a user may type.
type Definition = fn() -> clap::Command;

/// The one that [`serve_shell`] was handed. A completer is called without an argument of ours.
static DEFINITION: OnceLock<Definition> = OnceLock::new();

/// Answers a shell that asks what fits `definition`, and ends the process then. The scripts of the
/// packages set `COMPLETE`.
pub(crate) fn serve_shell(definition: Definition) {
    let definition = DEFINITION.get_or_init(|| definition);
    CompleteEnv::with_factory(definition).bin("fleetctl").complete();
}

/// The units that the cluster has.
pub(crate) fn units(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = ask(async |client| {
        Ok(client.brief_units().await?.into_iter().map(|unit| unit.name).collect())
    });
    fitting(current, names)
}

/// The units that the cluster has, and the unit files that lie here.
pub(crate) fn units_and_files(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = fitting(current, files(current));
    all.extend(units(current));
    all
}

/// The applications of the cluster.
pub(crate) fn apps(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = ask(async |client| {
        Ok(client.apps().await?.into_iter().map(|app| app.name.to_string()).collect())
    });
    fitting(current, names)
}

/// The machines of the cluster.
pub(crate) fn machines(current: &OsStr) -> Vec<CompletionCandidate> {
    fitting(
        current,
        ask(async |client| {
            Ok(client.machines().await?.into_iter().map(|machine| machine.id).collect())
        }),
    )
}

/// Both, for `fleetctl ssh`.
pub(crate) fn machines_and_units(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = machines(current);
    all.extend(units(current));
    all
}

/// The templates that can be scaled, up to the count.
pub(crate) fn templates(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = ask(async |client| {
        let templates = client
            .brief_units()
            .await?
            .into_iter()
            .map(|unit| UnitName::trusted(unit.name))
            .filter(UnitName::is_template);
        Ok(templates.map(|name| format!("{}=", name.prefix())).collect())
    });
    fitting(current, names)
}

fn fitting(current: &OsStr, names: Vec<String>) -> Vec<CompletionCandidate> {
    let start = current.to_str().unwrap_or_default();
    // A shell writes them to its terminal.
    let fits = |name: &String| {
        name.starts_with(start) && printable::shown(name.as_bytes()) == name.as_str()
    };
    names.into_iter().filter(fits).map(CompletionCandidate::new).collect()
}

/// Unit files and folders beside what is typed so far.
fn files(current: &OsStr) -> Vec<String> {
    let typed = current.to_str().unwrap_or_default();
    let folder = typed.rfind('/').map_or("", |slash| &typed[..=slash]);
    let Ok(entries) = std::fs::read_dir(if folder.is_empty() { "." } else { folder }) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            match entry.path().is_dir() {
                true => Some(format!("{folder}{name}/")),
                false => UnitName::parse(&name).is_ok().then(|| format!("{folder}{name}")),
            }
        })
        .collect();
    names.sort();
    names
}

/// Asks the cluster that the command line so far means. Nobody reads an error in the middle of a
/// line, so there is none.
fn ask(question: impl AsyncFn(&Client) -> Result<Vec<String>, ClientError>) -> Vec<String> {
    let Some((globals, ssh)) = options_so_far() else { return Vec::new() };
    // ssh would take longer, and may have questions of its own.
    if ssh.tunnel.is_some() {
        return Vec::new();
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let answer = async {
        let client = Client::connect(&globals, &ssh).await.ok()?;
        question(&client).await.ok()
    };
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, answer).await })
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// `--endpoint` and its like from the words typed so far; a shell passes them after `--`.
fn options_so_far() -> Option<(Globals, SshArgs)> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let matches: ArgMatches =
        DEFINITION.get()?().ignore_errors(true).try_get_matches_from(words).ok()?;
    Some((Globals::from_arg_matches(&matches).ok()?, SshArgs::from_arg_matches(&matches).ok()?))
}
