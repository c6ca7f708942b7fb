//! `fleetctl update --check`: which running images their registries have newer.

use std::collections::BTreeSet;

use fleet_core::name::UnitName;
use fleet_core::wire::{ImageCheck, ImageCheckPage, UnitState};
use serde::Serialize;

use super::volumes::{Addresses, addresses, legend, say_unknown};
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::output::{counted, note};
use crate::table::{Cell, Column, Tone, render};

/// Some image differs.
const SOME_DIFFER: u8 = 1;

/// Some image could not be asked for.
const NOT_ASKED: u8 = 2;

/// What is printed with `--json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked<'a> {
    #[serde(flatten)]
    page: &'a ImageCheckPage,
    /// What runs of it and was not asked about, since its file has no `AutoUpdate=registry`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without_auto_update: Vec<NotAsked>,
}

/// An instance that podman was not asked about.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NotAsked {
    unit: String,
    #[serde(rename = "machineID")]
    machine_id: String,
}

/// Changes nothing. Answers with 1 if some image differs, 2 if some could not be asked for.
pub(super) async fn run(context: &Context, words: &[String]) -> Result<u8, Error> {
    // A script must be able to tell "some differ" from "nobody knows".
    check(context, words).await.map_err(|mut error| {
        if error.kind == Kind::Failed {
            error.kind = Kind::Usage;
        }
        error
    })
}

async fn check(context: &Context, words: &[String]) -> Result<u8, Error> {
    let units = units(context, words).await?;
    let failed = |error| Error::request("Error asking for images", error);
    let names: Vec<&str> = units.iter().map(UnitName::as_str).collect();
    let page = context.client.check_images(&names).await.map_err(failed)?;
    let machines = addresses(context).await?;
    let states = context.client.brief_states().await.map_err(failed)?;
    let not_asked = not_asked(&page, &states, &units);
    let code = code(&page, !words.is_empty() && !not_asked.is_empty());
    say_unknown(&page.unknown, &machines, false);
    if context.output.is_json() {
        let checked = Checked { page: &page, without_auto_update: not_asked };
        context.output.document(&checked)?;
        return Ok(code);
    }
    let columns = columns(&machines);
    let columns: Vec<&Column<'_, ImageCheck>> = columns.iter().collect();
    let table = render(&columns, &page.images, false, true, context.output.stdout());
    context.output.spans(&table)?;
    say_not_asked(&not_asked, &machines, words.is_empty());
    Ok(code)
}

/// The units that words mean, or all of an application.
async fn units(context: &Context, words: &[String]) -> Result<BTreeSet<UnitName>, Error> {
    let mut units = BTreeSet::new();
    for word in words {
        let argument = Argument::parse(word)?;
        let failed = |error| Error::request(&format!("Error retrieving Unit {word}"), error);
        let found = context.client.unit_of(&argument).await.map_err(failed)?;
        let unit = found.map(|unit| UnitName::trusted(unit.name));
        if let Some(unit) = unit.filter(|unit| !unit.is_shared()) {
            units.insert(unit);
            continue;
        }
        let app = match argument.untyped() {
            Some(name) => context.client.app(name).await.map_err(failed)?,
            None => None,
        };
        let Some(app) = app else {
            let problem = format!("there is no unit or application {word}");
            let error = Error::worded(Kind::Usage, problem);
            return Err(did_you_mean(&context.client, error, &argument.name).await);
        };
        units.extend(app.units.into_iter().filter(|unit| !unit.is_shared()));
    }
    Ok(units)
}

/// The containers that run and that podman said nothing of, on machines that did answer.
fn not_asked(
    page: &ImageCheckPage,
    states: &[UnitState],
    units: &BTreeSet<UnitName>,
) -> Vec<NotAsked> {
    let silent: BTreeSet<&str> = page.unknown.iter().map(|one| one.machine_id.as_str()).collect();
    let said: BTreeSet<(&str, &str)> =
        page.images.iter().map(|one| (one.unit.as_str(), one.machine_id.as_str())).collect();
    let is_meant = |name: &UnitName| {
        let of_template = name.template().is_some_and(|template| units.contains(&template));
        units.is_empty() || units.contains(name) || of_template
    };
    let missing = states.iter().filter(|state| {
        let name = UnitName::trusted(state.name.as_str());
        let (name_and_place, machine) =
            ((state.name.as_str(), state.machine_id.as_str()), state.machine_id.as_str());
        name.suffix() == "container"
            && state.systemd_active_state == "active"
            && is_meant(&name)
            && !said.contains(&name_and_place)
            && !silent.contains(machine)
    });
    let one = |state: &UnitState| NotAsked {
        unit: state.name.clone(),
        machine_id: state.machine_id.clone(),
    };
    missing.map(one).collect()
}

fn say_not_asked(not_asked: &[NotAsked], machines: &Addresses, counts_only: bool) {
    let why = "without AutoUpdate=registry in its file podman asks no registry";
    if counts_only && !not_asked.is_empty() {
        let containers = counted(not_asked.len(), "running container");
        note(&format!("{containers} not checked: {why}"));
        return;
    }
    for NotAsked { unit, machine_id } in not_asked {
        note(&format!("{unit} on {} not checked: {why}", legend(machine_id, machines, false)));
    }
}

fn code(page: &ImageCheckPage, some_not_asked: bool) -> u8 {
    let failed = page.images.iter().any(|image| image.updated == "failed");
    if failed || some_not_asked || !page.unknown.is_empty() {
        NOT_ASKED
    } else if page.images.iter().any(|image| image.updated == "pending") {
        SOME_DIFFER
    } else {
        0
    }
}

fn columns(machines: &Addresses) -> Vec<Column<'_, ImageCheck>> {
    vec![
        ("unit", Box::new(|image, _| image.unit.as_str().into())),
        ("machine", Box::new(|image, full| legend(&image.machine_id, machines, full).into())),
        ("image", Box::new(|image, _| image.image.as_str().into())),
        ("policy", Box::new(|image, _| image.policy.as_str().into())),
        ("updated", Box::new(|image, _| updated(&image.updated))),
    ]
}

fn updated(word: &str) -> Cell {
    let tone = match word {
        "pending" => Tone::Busy,
        "failed" => Tone::Bad,
        _ => Tone::Plain,
    };
    Cell::from(word).toned(tone)
}
