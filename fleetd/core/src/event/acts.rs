//! What users did, as items of events and as lines.

use std::fmt::{self, Write};

use super::{Gathered, Item, Reason, What};
use crate::model::{Act, Availability, DesiredState, Did};
use crate::printable;

impl From<&Act> for Item {
    fn from(act: &Act) -> Item {
        let mut units = Gathered::default();
        act.units.iter().for_each(|unit| units.add(unit));
        let reason = Reason::User { by: act.by.clone(), at_ms: act.at_ms, did: act.did.clone() };
        Item {
            what: What::User,
            machine: act.machine.clone(),
            units: units.into_units(),
            reason: Some(reason),
        }
    }
}

/// One line, whatever users say: `user root@h1 scaled web@.service from 3 to 5`.
pub(super) fn tell(
    f: &mut fmt::Formatter<'_>,
    by: &str,
    did: &Did,
    units: &str,
    machine: &str,
) -> fmt::Result {
    let mut told = String::new();
    write(&mut told, by, did, units, machine)?;
    f.write_str(&printable::line(&told))
}

fn write(f: &mut String, by: &str, did: &Did, units: &str, machine: &str) -> fmt::Result {
    match by {
        "" => f.write_str("somebody ")?,
        // Who showed nothing has no name.
        by if by.starts_with("somebody ") => write!(f, "{by} ")?,
        by => write!(f, "user {by} ")?,
    }
    match did {
        Did::Submitted { revision, change, desired, replicas } => {
            write!(f, "submitted {units}, {desired}")?;
            if let Some(replicas) = replicas {
                write!(f, ", {replicas} of it")?;
            }
            match (revision, change.is_empty()) {
                (1, true) => Ok(()),
                (n, true) => write!(f, ": revision {n}"),
                (n, false) => write!(f, ": revision {n}: {change}"),
            }
        }
        Did::RolledBack { from, to, revision } => {
            write!(f, "rolled {units} back from {from} to {to}, as revision {revision}")
        }
        Did::Scaled { from, to } => write!(f, "scaled {units} from {from} to {to}"),
        Did::SetState { from, to } => match to {
            DesiredState::Launched => write!(f, "started {units}"),
            DesiredState::Inactive => write!(f, "unloaded {units}, which was {from}"),
            DesiredState::Loaded if *from == DesiredState::Launched => write!(f, "stopped {units}"),
            DesiredState::Loaded => write!(f, "loaded {units}"),
        },
        Did::Restarted => write!(f, "restarted {units}"),
        Did::Destroyed => write!(f, "destroyed {units}"),
        Did::Moved => write!(f, "asked to move {units} to {machine}"),
        Did::SetAvailability { to, reason } => {
            match to {
                Availability::Active => write!(f, "uncordoned machine {machine}")?,
                Availability::Cordoned => write!(f, "cordoned machine {machine}")?,
                Availability::Draining => write!(f, "drained machine {machine}")?,
            }
            if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
        }
        Did::Labelled { labels } => {
            write!(f, "labelled machine {machine}:")?;
            for (n, (label, value)) in labels.iter().enumerate() {
                f.write_str(if n == 0 { " " } else { ", " })?;
                match value.is_empty() {
                    true => write!(f, "{label} taken away")?,
                    false => write!(f, "{label}={value}")?,
                }
            }
            Ok(())
        }
        Did::Configured { config, revision, keys } => {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let keys = keys.join(", ");
            write!(f, "changed the configuration {config} to revision {revision}: {keys}")
        }
        Did::ConfigRemoved { config } => write!(f, "removed the configuration {config}"),
        Did::Applied { app, revision, units: count } => {
            write!(f, "applied {app}, as revision {revision}, {}", counted(*count))?;
            if units.is_empty() { Ok(()) } else { write!(f, ": {units}") }
        }
        Did::AppDestroyed { app } => write!(f, "destroyed the application {app}: {units}"),
        Did::Imported { units: count } => write!(f, "imported an export, {}", counted(*count)),
        Did::Other => write!(f, "did something that this version does not know to {units}"),
    }
}

fn counted(units: usize) -> String {
    match units {
        0 => "no unit changed".to_string(),
        1 => "1 unit changed".to_string(),
        n => format!("{n} units changed"),
    }
}
