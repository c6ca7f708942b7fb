//! `fleetctl diff`: an application's files against the cluster, or two revisions of a unit.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use clap_complete::ArgValueCompleter;
use fleet_core::wire::App;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::plan::no_answer;
use crate::app_files::{self, AppArgs, LocalApp};
use crate::app_plan::comparable;
use crate::client::first_known;
use crate::complete;
use crate::context::{Context, did_you_mean};
use crate::diff::{ADDED, REMOVED, unified};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::output::note;
use crate::screen::{Screen, Span};

/// How many texts are asked for at once.
const ASKED_AT_ONCE: usize = 4;

/// Compare an application's files, or two revisions of a unit
///
/// `fleetctl diff shop/` compares with the cluster, file by file; - is the cluster's, + is here.
/// `fleetctl diff web@ 3..4` compares two revisions of a unit, and `3..` an earlier one with the
/// present. Exits with 0 if there is no difference, 1 if there is one, 2 if that cannot be said.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A folder, a .quadlets file, files with --app; or a unit and its revisions
    #[arg(
        value_name = "PATH",
        required = true,
        value_hint = ValueHint::AnyPath,
        add = ArgValueCompleter::new(complete::units_and_files)
    )]
    paths: Vec<PathBuf>,
    /// The application's name [default: the folder's]
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
}

/// One file that differs.
#[derive(Debug, Serialize)]
struct Difference {
    /// The unit or file.
    path: String,
    /// `create` if it is here alone, `remove` if it is in the cluster alone, else `change`.
    kind: &'static str,
    /// How it differs; empty for what is on one side alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    diff: String,
    #[serde(skip)]
    shown: Vec<Span>,
}

pub(crate) async fn run(context: &Context, args: DiffArgs) -> Result<u8, Error> {
    let compared = async {
        let differences = match (&args.app, args.paths.as_slice()) {
            (None, [unit, range]) if revisions(range).is_some() => {
                let unit = unit.to_string_lossy();
                of_unit(context, &unit, revisions(range).unwrap_or_default()).await?
            }
            (None, [unit]) if !unit.exists() => {
                let unit = unit.display();
                return Err(Error::usage(format!("there is no file or folder {unit}")).hint(
                    format!("revisions of a unit are compared so: fleetctl diff {unit} 3..4"),
                ));
            }
            (app, paths) => {
                let args = AppArgs { paths: paths.to_vec(), app: app.clone() };
                of_app(context, &app_files::read(&args)?).await?
            }
        };
        if context.output.is_json() {
            context.output.document(&differences)?;
        } else {
            for difference in &differences {
                context.output.spans(&difference.shown)?;
            }
        }
        Ok(u8::from(!differences.is_empty()))
    };
    // 1 says that there is a difference, so it cannot be an error's.
    compared.await.map_err(no_answer)
}

/// `3..4` or `3..`: the first, and the second or none for the present one.
fn revisions(range: &std::path::Path) -> Option<(u64, Option<u64>)> {
    let (first, second) = range.to_str()?.split_once("..")?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number > 0);
    match second {
        "" => Some((number(first)?, None)),
        second => Some((number(first)?, Some(number(second)?))),
    }
}

async fn of_unit(
    context: &Context,
    unit: &str,
    (first, second): (u64, Option<u64>),
) -> Result<Vec<Difference>, Error> {
    let argument = Argument::parse(unit)?;
    let (name, page) =
        first_known(&argument, async |name| context.client.revisions(name.as_str()).await).await;
    let page = match page {
        Ok(page) => page,
        Err(error) if error.is_not_found() => {
            let error = Error::worded(Kind::Failed, format!("Unit {name} not found"));
            return Err(did_you_mean(&context.client, error, &name).await);
        }
        Err(error) => {
            return Err(Error::request(&format!("Error listing the revisions of {name}"), error));
        }
    };
    let present = page.revisions.iter().find(|revision| revision.current);
    let second = second.or(present.map(|revision| revision.revision)).unwrap_or(first);
    let text = async |number: u64| {
        if !page.revisions.iter().any(|revision| revision.revision == number) {
            return Err(Error::failed(format!("{name} has no revision {number}"))
                .hint(format!("`fleetctl list-revisions {name}` shows what there is")));
        }
        let revision = context.client.revision(name.as_str(), number).await;
        let what = format!("Error retrieving revision {number} of {name}");
        let revision = revision.map_err(|error| Error::request(&what, error))?;
        Ok(revision.text.unwrap_or_default())
    };
    let (old, new) = (text(first).await?, text(second).await?);
    let heads = [format!("{name} revision {first}"), format!("{name} revision {second}")];
    Ok(changed(name.to_string(), &heads, &old, &new).into_iter().collect())
}

async fn of_app(context: &Context, local: &LocalApp) -> Result<Vec<Difference>, Error> {
    let name = &local.name;
    let app = context.client.app(name.as_str()).await.map_err(|error| {
        Error::request(&format!("Error retrieving the application {name}"), error)
    })?;
    if app.is_none() {
        note(&format!("{name} is not in the cluster yet."));
    }
    let of_cluster = app.as_ref().map(|app| app.units.iter().map(ToString::to_string));
    let units: BTreeSet<String> =
        local.files.units.keys().cloned().chain(of_cluster.into_iter().flatten()).collect();
    let units = stream::iter(units)
        .map(async |unit| of_app_unit(context, local, app.as_ref(), unit).await)
        .buffered(ASKED_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let of_cluster = app.as_ref().map(|app| app.files.keys().cloned());
    let files: BTreeSet<String> =
        local.files.files.keys().cloned().chain(of_cluster.into_iter().flatten()).collect();
    let files = stream::iter(files)
        .map(async |path| of_app_file(context, local, app.as_ref(), path).await)
        .buffered(ASKED_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(units.into_iter().chain(files).flatten().collect())
}

async fn of_app_unit(
    context: &Context,
    local: &LocalApp,
    app: Option<&App>,
    unit: String,
) -> Result<Option<Difference>, Error> {
    let is_there = app.is_some_and(|app| app.units.iter().any(|name| name.as_str() == unit));
    let record = match is_there {
        true => context
            .client
            .unit(&unit)
            .await
            .map_err(|error| Error::request(&format!("Error retrieving Unit {unit}"), error))?,
        false => None,
    };
    let old = record.map(|record| comparable(&record.text.unwrap_or_default()));
    Ok(match (old, local.files.units.get(&unit)) {
        (Some(old), Some(new)) => {
            let heads = [format!("cluster/{unit}"), format!("{}/{unit}", local.name)];
            changed(unit, &heads, &old, &comparable(new))
        }
        (None, Some(_)) => Some(alone(unit, true)),
        (Some(_), None) => Some(alone(unit, false)),
        (None, None) => None,
    })
}

async fn of_app_file(
    context: &Context,
    local: &LocalApp,
    app: Option<&App>,
    path: String,
) -> Result<Option<Difference>, Error> {
    let old = app.and_then(|app| app.files.get(&path));
    let (old, new) = match (old, local.files.files.get(&path)) {
        (Some(old), Some(new)) if old == new => return Ok(None),
        (Some(old), Some(new)) => (old, new),
        (None, Some(_)) => return Ok(Some(alone(path, true))),
        (_, None) => return Ok(Some(alone(path, false))),
    };
    if old.sum == new.sum {
        let (here, there) = match new.executable {
            true => ("executable here", "not in the cluster"),
            false => ("not executable here", "executable in the cluster"),
        };
        return Ok(Some(whole(path, format!("{here}, {there}"))));
    }
    let bytes = context.client.app_file(local.name.as_str(), &path).await.map_err(|error| {
        Error::request(&format!("Error retrieving {path} of {}", local.name), error)
    })?;
    let new = local.contents.get(&new.sum).map_or(&[][..], Vec::as_slice);
    let text = |bytes: &[u8]| match bytes.contains(&0) {
        true => None,
        false => std::str::from_utf8(bytes).ok().map(str::to_string),
    };
    Ok(match (text(&bytes), text(new)) {
        (Some(old), Some(new)) => {
            let heads = [format!("cluster/{path}"), format!("{}/{path}", local.name)];
            changed(path, &heads, &old, &new)
        }
        _ => Some(whole(path, format!("{} bytes in the cluster, {} here", bytes.len(), new.len()))),
    })
}

/// Two texts under their names; none if they are the same.
fn changed(path: String, heads: &[String; 2], old: &str, new: &str) -> Option<Difference> {
    let lines = unified(old, new, "");
    if lines.is_empty() {
        return None;
    }
    let head = |mark: &str, name: &String, colour| {
        [Span::coloured(format!("{mark} {name}"), colour), Span::from("\n")]
    };
    let mut shown: Vec<Span> = head("---", &heads[0], REMOVED).into();
    shown.extend(head("+++", &heads[1], ADDED));
    shown.extend(lines);
    let diff = Screen::default().render(&shown);
    Some(Difference { path, kind: "change", diff, shown })
}

/// Two contents that are not compared line by line.
fn whole(path: String, how: String) -> Difference {
    let shown = vec![Span::from(format!("{path} differs: {how}\n"))];
    Difference { path, kind: "change", diff: how, shown }
}

/// What is on one side alone.
fn alone(path: String, here: bool) -> Difference {
    let (kind, line, colour) = match here {
        true => ("create", format!("Only here: {path}"), ADDED),
        false => ("remove", format!("Only in the cluster: {path}"), REMOVED),
    };
    let shown = vec![Span::coloured(line, colour), Span::from("\n")];
    Difference { path, kind, diff: String::new(), shown }
}
