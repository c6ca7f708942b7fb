//! What users did, as items of events and as lines.

use std::fmt::{self, Write};

use super::{Gathered, Item, Reason, What};
use crate::model::{Act, Availability, DesiredState, Did, RolloutAction};
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
        Did::SteeredRollout { action } => {
            let steered = match action {
                RolloutAction::Pause => "paused",
                RolloutAction::Resume => "resumed",
                RolloutAction::Undo => "undid",
                RolloutAction::Other => "changed",
            };
            write!(f, "{steered} the rollout of {units}")
        }
        Did::SetReboots { slots, window } => {
            f.write_str("changed the rules of reboots:")?;
            let slots = slots.iter().map(|(group, slots)| match slots {
                Some(slots) => format!(" {slots} at once in the group {group}"),
                None => format!(" the default in the group {group}"),
            });
            let window = window.iter().map(|window| match window.as_str() {
                "" => " at any time".to_string(),
                window => format!(" in the window {window}"),
            });
            f.write_str(&slots.chain(window).collect::<Vec<_>>().join(","))
        }
        Did::AskedToReboot { group } => {
            write!(f, "asked to reboot machine {machine}, as one of the group {group}")
        }
        Did::MayReboot { .. } => write!(f, "may reboot machine {machine}, which is drained"),
        Did::ReleasedReboot { .. } => write!(f, "released the reboot lock of machine {machine}"),
        Did::DestroyedVolume { volume } => {
            write!(f, "destroyed the volume {volume} on machine {machine}")
        }
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

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::app::AppName;
    use crate::name::{MachineId, UnitName};

    #[test]
    fn what_users_did_is_told_with_who() {
        let web = UnitName::trusted("web@.service");
        let told = |by: &str, did: Did| {
            Item::from(&Act::new(by, 7, did).of_unit(&web).on(&MachineId::new("4dbc7f3b00")))
                .to_string()
        };
        let did = |did: Did| told("anna@h1", did);
        let (inactive, launched) = (DesiredState::Inactive, DesiredState::Launched);
        let submitted = |revision, change: &str| Did::Submitted {
            revision,
            change: change.into(),
            desired: launched,
            replicas: None,
        };
        let app = || AppName::parse("shop").unwrap();
        let keys = |keys: &[&str]| keys.iter().map(|key| key.to_string()).collect();
        let rules = |slots: &[(&str, Option<u32>)], window: Option<&str>| {
            let slots = slots.iter().map(|(group, slots)| (group.to_string(), *slots)).collect();
            did(Did::SetReboots { slots, window: window.map(str::to_string) })
                .replace("user anna@h1 changed the ", "")
        };
        let lines = [
            did(Did::Scaled { from: 3, to: 5 }),
            told("", Did::Restarted),
            told("somebody at 10.0.0.7", Did::Destroyed),
            told("alice (certificate)", submitted(1, "")),
            did(submitted(4, "ExecStart=; 1 line")),
            did(Did::RolledBack { from: 4, to: 3, revision: 5 }),
            did(Did::SetState { from: inactive, to: launched }),
            did(Did::SetState { from: launched, to: DesiredState::Loaded }),
            did(Did::SetState { from: launched, to: inactive }),
            did(Did::Moved),
            did(Did::SetAvailability { to: Availability::Draining, reason: "new disk".into() }),
            did(Did::SetAvailability {
                to: Availability::Active,
                reason: "\u{1b}[2J\nmachine".into(),
            }),
            did(Did::SetAvailability { to: Availability::Cordoned, reason: String::new() }),
            did(Did::Labelled {
                labels: [("a".into(), "b".into()), ("c".into(), String::new())].into(),
            }),
            did(Did::Configured { config: app(), revision: 3, keys: keys(&["db", "log"]) }),
            did(Did::ConfigRemoved { config: app() }),
            did(Did::Applied { app: app(), revision: 2, units: 1 }),
            did(Did::AppDestroyed { app: app() }),
            did(Did::Imported { units: 12 }),
            did(Did::SteeredRollout { action: RolloutAction::Pause }),
            did(Did::SteeredRollout { action: RolloutAction::Resume }),
            did(Did::SteeredRollout { action: RolloutAction::Undo }),
            rules(&[("default", Some(2)), ("etcd", None)], None),
            rules(&[("etcd", Some(0))], Some("Sat 02:00..05:00")),
            rules(&[], Some("")),
            did(Did::AskedToReboot { group: "default".into() }),
            did(Did::MayReboot { group: "default".into() }),
            did(Did::ReleasedReboot { group: "default".into() }),
            did(Did::DestroyedVolume { volume: "systemd-db".into() }),
        ];
        expect![[r#"
            user anna@h1 scaled web@.service from 3 to 5
            somebody restarted web@.service
            somebody at 10.0.0.7 destroyed web@.service
            user alice (certificate) submitted web@.service, launched
            user anna@h1 submitted web@.service, launched: revision 4: ExecStart=; 1 line
            user anna@h1 rolled web@.service back from 4 to 3, as revision 5
            user anna@h1 started web@.service
            user anna@h1 stopped web@.service
            user anna@h1 unloaded web@.service, which was launched
            user anna@h1 asked to move web@.service to 4dbc7f3b
            user anna@h1 drained machine 4dbc7f3b: new disk
            user anna@h1 uncordoned machine 4dbc7f3b: \x1b[2J\x0amachine
            user anna@h1 cordoned machine 4dbc7f3b
            user anna@h1 labelled machine 4dbc7f3b: a=b, c taken away
            user anna@h1 changed the configuration shop to revision 3: db, log
            user anna@h1 removed the configuration shop
            user anna@h1 applied shop, as revision 2, 1 unit changed: web@.service
            user anna@h1 destroyed the application shop: web@.service
            user anna@h1 imported an export, 12 units changed
            user anna@h1 paused the rollout of web@.service
            user anna@h1 resumed the rollout of web@.service
            user anna@h1 undid the rollout of web@.service
            rules of reboots: 2 at once in the group default, the default in the group etcd
            rules of reboots: 0 at once in the group etcd, in the window Sat 02:00..05:00
            rules of reboots: at any time
            user anna@h1 asked to reboot machine 4dbc7f3b, as one of the group default
            user anna@h1 may reboot machine 4dbc7f3b, which is drained
            user anna@h1 released the reboot lock of machine 4dbc7f3b
            user anna@h1 destroyed the volume systemd-db on machine 4dbc7f3b"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn what_users_did_is_data_and_what_a_later_version_says_of_it_spoils_nothing() {
        let act = Act::new("anna@h1", 7, Did::Scaled { from: 3, to: 5 });
        let item = Item::from(&act.of_unit(&UnitName::trusted("web@3.service")));
        let json = serde_json::to_value(&item).unwrap();
        let expected = serde_json::json!({
            "what": "user",
            "units": {"web@.service": "3"},
            "reason": {"kind": "user", "by": "anna@h1", "at_ms": 7,
                "did": {"what": "scaled", "from": 3, "to": 5}},
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Item>(json.clone()).unwrap(), item);
        // A deed that only a later version knows: who did it is still told.
        let mut later = json.clone();
        later["reason"]["did"] = serde_json::json!({"what": "polished", "with": ["wax"]});
        let later: Item = serde_json::from_value(later).unwrap();
        let line = "user anna@h1 did something that this version does not know to web@3.service";
        assert_eq!(later.to_string(), line);
        // A kind of item that only a later version knows, as this one's were to the one before it.
        let mut newer = json;
        newer["what"] = "whistled".into();
        newer["reason"]["kind"] = "tune".into();
        let newer: Item = serde_json::from_value(newer).unwrap();
        assert_eq!((newer.what, newer.reason), (What::Other, Some(Reason::Other)));
    }
}
