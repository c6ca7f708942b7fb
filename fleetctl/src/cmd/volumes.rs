//! `fleetctl volumes`: what volumes hold on machines, and `destroy --volumes`, by which that goes.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use fleet_core::wire::{Unasked, Volume, VolumePage};

use crate::clock::age;
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::options::ListArgs;
use crate::output::{Outcome, counted, machine_legend, note, warn};
use crate::question;
use crate::table::{Cell, Column, Tone, pick, render};

/// How many digits of a machine's ID say which is meant, where data goes for good.
const ID_DIGITS: usize = 8;

/// List the volumes that fleet made, with their sizes and users
///
/// Each machine is asked for its own. A volume stays on a machine when the last instance that uses
/// it has left; `fleetctl destroy --volumes` removes it. Exits with 1 if a machine did not answer.
#[derive(Debug, Args)]
pub(crate) struct VolumesArgs {
    #[command(flatten)]
    list: ListArgs,
    /// The columns: volume, unit, app, machine, size, used
    #[arg(long, default_value = "volume,unit,machine,size,used", value_name = "NAMES")]
    fields: String,
}

pub(crate) async fn run(context: &Context, args: VolumesArgs) -> Result<u8, Error> {
    pick(&columns(&BTreeMap::new(), false), &args.fields)?;
    let (page, machines) = ask(context).await?;
    say_unknown(&page.unknown, &machines, args.list.full);
    let code = if page.unknown.is_empty() { 0 } else { 1 };
    if context.output.is_json() {
        context.output.document(&page)?;
        return Ok(code);
    }
    let screen = context.output.stdout();
    let columns = columns(&machines, screen.terminal);
    let columns = pick(&columns, &args.fields)?;
    let table = render(&columns, &page.volumes, args.list.full, !args.list.no_legend, screen);
    context.output.spans(&table)?;
    Ok(code)
}

/// The addresses of machines, by their ids.
pub(super) type Addresses = BTreeMap<String, String>;

async fn ask(context: &Context) -> Result<(VolumePage, Addresses), Error> {
    let failed = |error| Error::request("Error retrieving the list of volumes", error);
    let page = context.client.volumes().await.map_err(failed)?;
    Ok((page, addresses(context).await?))
}

pub(super) async fn addresses(context: &Context) -> Result<Addresses, Error> {
    let failed = |error| Error::request("Error retrieving the list of machines", error);
    let machines = context.client.machines().await.map_err(failed)?;
    Ok(machines.into_iter().map(|machine| (machine.id, machine.primary_ip)).collect())
}

/// Names the machines that did not answer.
pub(super) fn say_unknown(unknown: &[Unasked], machines: &Addresses, full: bool) {
    for Unasked { machine_id, problem } in unknown {
        warn(&format!("machine {}: {problem}", legend(machine_id, machines, full)));
    }
}

pub(super) fn legend(id: &str, machines: &Addresses, full: bool) -> String {
    machine_legend(id, machines.get(id).map_or("", String::as_str), full)
}

fn columns(machines: &Addresses, for_people: bool) -> Vec<Column<'_, Volume>> {
    vec![
        ("volume", Box::new(|volume, _| volume.name.as_str().into())),
        ("unit", Box::new(|volume, _| volume.unit.as_str().into())),
        ("app", Box::new(|volume, _| volume.app.as_str().into())),
        (
            "machine",
            Box::new(move |volume, full| legend(&volume.machine_id, machines, full).into()),
        ),
        (
            "size",
            Box::new(move |volume, _| match (volume.size_bytes, for_people) {
                (Some(bytes), true) => size(bytes).into(),
                (Some(bytes), false) => bytes.to_string().into(),
                (None, _) => "".into(),
            }),
        ),
        ("used", Box::new(|volume, _| used(volume))),
    ]
}

fn used(volume: &Volume) -> Cell {
    match volume.used_by.is_empty() {
        true => Cell::from(volume.last_user.as_str()).aged(volume.last_used_ms.map(age)),
        false => Cell::from(in_use(volume)).toned(Tone::Good),
    }
}

fn in_use(volume: &Volume) -> String {
    format!("in use by {}", volume.used_by.join(", "))
}

/// A number of bytes for people: `1.5 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: &[&str] = &["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut number, mut unit) = (bytes as f64 / 1024.0, 0);
    // What would be rounded to 1024 is one of the next.
    while number >= 1023.5 && unit + 1 < UNITS.len() {
        (number, unit) = (number / 1024.0, unit + 1);
    }
    let digits = if number < 9.95 { 1 } else { 0 };
    format!("{number:.digits$} {}", UNITS[unit])
}

/// Removes volumes, after a question; `yes` is the answer.
pub(super) async fn destroy(context: &Context, words: &[String], yes: bool) -> Result<u8, Error> {
    if !yes && !question::can_ask() {
        return Err(question::needs_yes("destroy --volumes"));
    }
    let (page, machines) = ask(context).await?;
    say_unknown(&page.unknown, &machines, false);
    let mut chosen: BTreeSet<usize> = BTreeSet::new();
    for word in words {
        let found = meant(&page.volumes, word);
        let refused = |problem| Error::failed(format!("{problem}; nothing was changed"));
        chosen.extend(found.map_err(|problem| {
            refused(problem).hint("`fleetctl volumes` shows which there are")
        })?);
    }
    let chosen: Vec<&Volume> = chosen.into_iter().map(|at| &page.volumes[at]).collect();
    let place = |volume: &Volume| {
        format!("{} on {}", volume.name, legend(&volume.machine_id, &machines, false))
    };
    let mut used = chosen.iter().filter(|volume| !volume.used_by.is_empty());
    if let Some(volume) = used.next() {
        let problem = format!("{} is {}; nothing was changed", place(volume), in_use(volume));
        return Err(Error::failed(problem).hint(
            "`fleetctl unload` or `fleetctl destroy` takes its users off the machine first",
        ));
    }
    if !yes {
        for volume in &chosen {
            let size = volume.size_bytes.map_or("of unknown size".to_string(), size);
            let last = match volume.last_user.as_str() {
                "" => String::new(),
                user => format!(", last used by {user}"),
            };
            note(&format!("- {} ({}): {size}{last}", place(volume), volume.unit));
        }
        let known = chosen.iter().filter_map(|volume| volume.size_bytes).sum();
        let (volumes, bytes) = (counted(chosen.len(), "volume"), size(known));
        if !question::yes(&format!("Destroy {volumes} with {bytes} of data, for good?")) {
            note("Nothing was changed.");
            return Ok(Kind::Failed.code());
        }
    }
    for volume in chosen {
        let gone = context.client.destroy_volume(&volume.machine_id, &volume.name).await;
        match gone {
            Ok(()) => {}
            // Somebody else was faster.
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                let what = format!("Error destroying the volume {}", place(volume));
                return Err(Error::request(&what, error));
            }
        }
        let outcome = Outcome {
            machine_id: volume.machine_id.clone(),
            ..Outcome::nowhere(&volume.name, "destroyed")
        };
        context.output.result(&format!("Destroyed the volume {}", place(volume)), outcome)?;
    }
    context.output.all_results()?;
    // Where a word names no machine, there may be more on those that did not answer.
    if page.unknown.is_empty() || words.iter().all(|word| word.contains('@')) {
        return Ok(0);
    }
    note("What machines have that did not answer is still there.");
    Ok(Kind::Failed.code())
}

/// Whether a word means a volume in one way.
type Way<'a> = &'a dyn Fn(&Volume) -> bool;

/// The volumes that a word means, by their places in the list: those of podman's name, of a unit,
/// or of an application, all or behind an `@` those on one machine. The error says that there is
/// none, or that more than one thing is meant.
fn meant(volumes: &[Volume], word: &str) -> Result<Vec<usize>, String> {
    let of = |name: &str, machine: &str| -> Vec<(&'static str, Vec<usize>)> {
        let stem = |volume: &Volume| volume.unit.strip_suffix(".volume") == Some(name);
        let ways: [(&'static str, Way<'_>); 3] = [
            ("podman's volume", &|volume| volume.name == name),
            ("the unit's volume", &|volume| volume.unit == name || stem(volume)),
            ("the application's volumes", &|volume| volume.app == name),
        ];
        let found = ways.into_iter().map(|(way, is_it)| {
            let there = volumes
                .iter()
                .enumerate()
                .filter(|(_, volume)| is_it(volume) && volume.machine_id.starts_with(machine));
            (way, there.map(|(at, _)| at).collect())
        });
        found.filter(|(_, found): &(_, Vec<usize>)| !found.is_empty()).collect()
    };
    let mut ways = of(word, "");
    if let Some((name, machine)) = word.rsplit_once('@').filter(|_| ways.is_empty()) {
        let all = volumes.iter().map(|volume| volume.machine_id.as_str());
        let fitting: BTreeSet<&str> = all.filter(|id| id.starts_with(machine)).collect();
        if machine.is_empty() || fitting.len() > 1 {
            let count = fitting.len();
            return Err(format!("{word}: {count} machine IDs start with {machine:?}"));
        }
        // What follows may be the number of an instance, as in web@1.
        if machine.len() < ID_DIGITS && !fitting.contains(machine) {
            return Err(format!(
                "{word}: {machine:?} is too short for a machine; write {ID_DIGITS} digits of its ID"
            ));
        }
        ways = of(name, machine);
    }
    match ways.as_slice() {
        [] => Err(format!("there is no volume {word}")),
        [(_, found)] => Ok(found.clone()),
        [(_, first), others @ ..] if others.iter().all(|(_, found)| found == first) => {
            Ok(first.clone())
        }
        several => {
            let ways: Vec<&str> = several.iter().map(|(way, _)| *way).collect();
            Err(format!("{word} may be {}; write the volume's own name", ways.join(" or ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, unit: &str, app: &str, machine: &str) -> Volume {
        let [name, unit, app, machine_id] = [name, unit, app, machine].map(str::to_string);
        Volume { name, unit, app, machine_id, ..Volume::default() }
    }

    #[test]
    fn a_word_means_a_volume_a_unit_or_an_application_and_never_two_of_them() {
        let all = [
            volume("systemd-data", "data.volume", "shop", "a1a1a1a1a1"),
            volume("systemd-data", "data.volume", "shop", "b2b2b2b2b2"),
            volume("logs", "logs.volume", "shop", "a1a1a1a1a1"),
            volume("systemd-shop", "shop.volume", "other", "a1a1a1a1a1"),
            volume("web", "x.volume", "web", "b2b2b2b2b2"),
        ];
        let said = |word: &str| match meant(&all, word) {
            Ok(found) => format!("{found:?}"),
            Err(problem) => problem,
        };
        for (word, expected) in [
            ("systemd-data", "[0, 1]"),
            ("data.volume", "[0, 1]"),
            ("data", "[0, 1]"),
            ("data@a1a1a1a1", "[0]"),
            ("logs", "[2]"),
            ("web", "[4]"),
            ("other", "[3]"),
            ("shop@b2b2b2b2b2", "[1]"),
        ] {
            assert_eq!(said(word), expected, "{word}");
        }
        let both = "shop may be the unit's volume or the application's volumes";
        assert!(said("shop").starts_with(both), "{}", said("shop"));
        assert!(said("nosuch").starts_with("there is no volume nosuch"));
        assert!(said("data@").contains("2 machine IDs start with \"\""), "{}", said("data@"));
        assert!(said("data@c1c1c1c1").starts_with("there is no volume data@c1c1c1c1"));
        assert!(said("data@a").starts_with("data@a: \"a\" is too short for a machine"));
    }

    #[test]
    fn sizes_have_two_digits_or_three() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (20 * 1024 * 1024, "20 MiB"),
            (3 * 1024 * 1024 * 1024, "3.0 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
