//! Looks at every document: can it be read, is it of this format, is it near its limit, does it
//! belong to anything.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::address;
use fleet_core::app::{AppName, Application, Checksum};
use fleet_core::check::{Problem, StoreCheck};
use fleet_core::configuration::Configuration;
use fleet_core::event::Event;
use fleet_core::model::{
    Act, Assignment, FORMAT, Leader, MAX_DOCUMENT_BYTES, Machine, Move, Reboots, Report, Settings,
    UnitRecord,
};
use fleet_core::name::UnitName;
use fleet_core::rollout::Rollout;
use serde::de::DeserializeOwned;

use super::blobs::BLOBS_A_REQUEST;
use super::keys::{Key, ORIGIN};
use super::kv::KeyValue;
use super::units::MAX_RECORD_BYTES;
use super::{Store, StoreError, mirror};

/// From this share of its limit on a document is named, in percent: time is left to do something
/// about it.
const NEAR_PERCENT: usize = 80;

impl Store {
    /// Reads everything that is fleet's and says what is wrong with it. Changes nothing.
    pub async fn check(&self) -> Result<StoreCheck, StoreError> {
        let documents = self.kv.range(self.keys.root()).await?;
        let mut look = Look {
            check: StoreCheck { revision: documents.revision, ..StoreCheck::default() },
            units: BTreeMap::new(),
            apps: BTreeSet::new(),
        };
        for kv in &documents.kvs {
            look.document(kv, self.keys.read(&kv.key));
        }
        let texts = self.kv.range(self.keys.texts()).await?;
        look.texts(&texts.kvs, self.keys.texts());
        for kv in &self.kv.range(self.keys.events()).await?.kvs {
            look.check.count("events", &kv.key, kv.value.len());
            look.readable::<Event>(kv, "delete it; events are for people only");
        }
        let blobs: Vec<String> =
            self.kv.keys(self.keys.blobs()).await?.kvs.into_iter().map(|kv| kv.key).collect();
        // They may be many, and each as large as a request.
        for chunk in blobs.chunks(BLOBS_A_REQUEST) {
            let (found, _) = self.kv.get_many(chunk).await?;
            found.iter().flatten().for_each(|kv| look.blob(kv, self.keys.blobs()));
        }
        for kv in &self.kv.range(self.keys.config_revisions()).await?.kvs {
            look.check.count("config revisions", &kv.key, kv.value.len());
            look.readable::<Configuration>(kv, "delete it; it is an earlier revision");
        }
        for kv in &self.kv.range(self.keys.stage()).await?.kvs {
            look.check.count("import", &kv.key, kv.value.len());
        }
        look.check.problems.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(look.check)
    }
}

struct Look {
    check: StoreCheck,
    /// Each unit's newest text; `None` if its record cannot be read.
    units: BTreeMap<UnitName, Option<u64>>,
    apps: BTreeSet<AppName>,
}

impl Look {
    fn document(&mut self, kv: &KeyValue, key: Option<Key>) {
        const REPAIR: &str =
            "repair it or delete it (`etcdctl get`, `etcdctl put`); nothing new is planned before";
        const RESTART: &str = "delete it and restart fleetd on that machine, which writes it \
            anew; nothing new is planned before";
        const REPORT: &str = "delete it and restart fleetd on that machine, which writes it anew; \
            until then the leader takes that machine for one that has not reported";
        const ROLLOUT: &str = "delete it; the leader writes it anew";
        let (kind, limit) = match &key {
            Some(Key::Unit(_)) => ("units", MAX_RECORD_BYTES),
            Some(Key::App(_)) => ("apps", MAX_DOCUMENT_BYTES),
            Some(Key::Settings(_)) => ("settings", MAX_DOCUMENT_BYTES),
            Some(Key::Config(_)) => ("config", MAX_DOCUMENT_BYTES),
            Some(Key::Machine(_)) => ("machines", MAX_DOCUMENT_BYTES),
            Some(Key::Assignment(_)) => ("assignments", MAX_DOCUMENT_BYTES),
            Some(Key::Report(_)) => ("reports", MAX_DOCUMENT_BYTES),
            Some(Key::Move(_)) => ("moves", MAX_DOCUMENT_BYTES),
            Some(Key::Rollout(_)) => ("rollouts", MAX_DOCUMENT_BYTES),
            Some(Key::Act(_)) => ("acts", MAX_DOCUMENT_BYTES),
            Some(Key::Misnamed(kind, _)) => (*kind, MAX_DOCUMENT_BYTES),
            Some(_) => ("other", MAX_DOCUMENT_BYTES),
            None => ("unknown", MAX_DOCUMENT_BYTES),
        };
        self.check.count(kind, &kv.key, kv.value.len());
        if kv.value.len() * 100 > limit * NEAR_PERCENT {
            let remedy = match key {
                Some(Key::Assignment(_) | Key::Report(_)) => {
                    "give the cluster more machines, or that machine fewer units"
                }
                _ => "make it smaller",
            };
            self.note(kv, format!("{} of {limit} bytes", kv.value.len()), remedy);
        }
        match key {
            Some(Key::Unit(name)) => {
                let remedy = format!(
                    "delete it ({}) and submit it again; nothing new is planned before",
                    delete(name.as_str())
                );
                if let Some(problem) = name.refusal() {
                    self.bad(
                        kv,
                        problem,
                        "destroy it and submit it under another name; machines that do not run it \
                            yet refuse it",
                    );
                }
                let record = self.readable::<UnitRecord>(kv, &remedy);
                let record =
                    record.filter(|record| self.named(kv, record.name.as_str(), name.as_str()));
                self.units.insert(name, record.map(|record| record.revision));
            }
            Some(Key::Machine(id)) => {
                self.leased(
                    kv,
                    "delete it; that machine registers again when its fleetd is restarted",
                );
                if let Some(machine) = self.readable::<Machine>(kv, RESTART) {
                    self.named(kv, machine.id.as_str(), id.as_str());
                    self.reachable(kv);
                }
            }
            Some(Key::App(name)) => {
                let remedy = "delete it (`etcdctl del`), and apply the application again with the \
                    texts that its units have; what runs goes on";
                if let Some(app) = self.readable::<Application>(kv, remedy) {
                    self.named(kv, app.name.as_str(), name.as_str());
                }
                self.apps.insert(name);
            }
            Some(Key::Config(name)) => {
                const REMEDY: &str = "set its values again; what starts with it waits until then";
                if let Some(config) = self.readable::<Configuration>(kv, REMEDY) {
                    self.named(kv, config.name.as_str(), name.as_str());
                }
            }
            Some(Key::Settings(_)) => drop(self.readable::<Settings>(kv, REPAIR)),
            Some(Key::Move(_)) => drop(self.readable::<Move>(kv, REPAIR)),
            Some(Key::Assignment(_)) => drop(self.readable::<Assignment>(kv, REPAIR)),
            Some(Key::Report(_)) => drop(self.readable::<Report>(kv, REPORT)),
            Some(Key::Rollout(_)) => drop(self.readable::<Rollout>(kv, ROLLOUT)),
            Some(Key::Reboots) => {
                const REMEDY: &str = "delete it; nobody gets leave to reboot before, and machines \
                    that are drained for a reboot stay so until they are uncordoned";
                drop(self.readable::<Reboots>(kv, REMEDY));
            }
            Some(Key::Act(_)) => {
                drop(self.readable::<Act>(kv, "delete it; it is for people only"));
            }
            Some(Key::Misnamed("units", problem)) => {
                let name = kv.key.split_once("/units/").map_or("", |(_, name)| name);
                self.bad(kv, problem, &format!("nobody reads it; delete it ({})", delete(name)));
            }
            Some(Key::Misnamed(_, problem)) => self.bad(kv, problem, "nobody reads it; delete it"),
            Some(Key::Leader) => {
                self.leased(kv, "delete it; another leader is elected");
                drop(self.readable::<Leader>(kv, "delete it; another leader is elected"));
            }
            Some(_) => {}
            None => self.note(
                kv,
                "this fleetd does not know what it is".into(),
                "a later version may; else delete it",
            ),
        }
    }

    /// A text without its unit is litter; a unit without its newest text cannot be started
    /// anywhere.
    fn texts(&mut self, texts: &[KeyValue], prefix: &str) {
        let mut stored: BTreeSet<(UnitName, u64)> = BTreeSet::new();
        for kv in texts {
            self.check.count("texts", &kv.key, kv.value.len());
            let path = kv.key.strip_prefix(prefix).unwrap_or_default();
            let text = |(name, number): (&str, &str)| {
                let number = number.strip_suffix(ORIGIN).unwrap_or(number);
                Some((UnitName::parse(name).ok()?, number.parse::<u64>().ok()?))
            };
            let Some((name, number)) = path.rsplit_once('/').and_then(text) else {
                self.note(
                    kv,
                    "this fleetd does not know what it is".into(),
                    "a later version may; else delete it",
                );
                continue;
            };
            if !self.units.contains_key(&name) {
                self.note(
                    kv,
                    format!("a text of {name}, which is no unit any more"),
                    "delete it, it only takes space",
                );
            }
            if std::str::from_utf8(&kv.value).is_err() {
                self.bad(kv, "it is no UTF-8".into(), "submit the unit again");
            }
            if !path.ends_with(ORIGIN) {
                stored.insert((name, number));
            }
        }
        let known = self.units.iter().filter_map(|(name, newest)| Some((name, (*newest)?)));
        let missing = known.filter(|(name, newest)| !stored.contains(&((*name).clone(), *newest)));
        let missing = missing.map(|(name, newest)| Problem {
            key: format!("{prefix}{name}/{newest:010}"),
            problem: format!("text {newest} of {name} is missing"),
            remedy: "submit the unit again with another text; where it runs it goes on".into(),
            harms: true,
        });
        self.check.problems.extend(missing.collect::<Vec<_>>());
    }

    /// What comes with units of an application is litter without it.
    fn blob(&mut self, kv: &KeyValue, prefix: &str) {
        self.check.count("blobs", &kv.key, kv.value.len());
        let path = kv.key.strip_prefix(prefix).unwrap_or_default();
        let blob = path
            .split_once('/')
            .and_then(|(app, sum)| Some((AppName::parse(app).ok()?, Checksum::parse(sum)?)));
        match blob {
            Some((_, sum)) if Checksum::of(&kv.value) != sum => self.bad(
                kv,
                "it is not what its checksum says".into(),
                "delete it, and apply the application again",
            ),
            Some((app, _)) if !self.apps.contains(&app) => self.note(
                kv,
                format!("it came with {app}, which is no application"),
                "delete it, unless somebody is applying that; it only takes space",
            ),
            Some(_) => {}
            None => self.note(
                kv,
                "this fleetd does not know what it is".into(),
                "a later version may; else delete it",
            ),
        }
    }

    fn readable<T: DeserializeOwned>(&mut self, kv: &KeyValue, remedy: &str) -> Option<T> {
        #[derive(serde::Deserialize)]
        struct Format {
            v: u32,
        }
        let format = mirror::parse::<Format>(&kv.value).map(|format| format.v);
        if let Ok(later) = format
            && later > FORMAT
        {
            let problem = format!("it has format {later}, this fleetd knows {FORMAT}");
            self.bad(kv, problem, "a newer fleetd wrote it; upgrade this one");
            return None;
        }
        match mirror::parse(&kv.value) {
            Ok(document) => Some(document),
            Err(problem) => {
                self.bad(kv, format!("it cannot be read: {problem}"), remedy);
                None
            }
        }
    }

    /// A machine's addresses; what is none was left out when the document was read.
    fn reachable(&mut self, kv: &KeyValue) {
        #[derive(serde::Deserialize)]
        struct Reach {
            #[serde(default)]
            address: String,
            #[serde(default)]
            api: Option<String>,
        }
        let Ok(Reach { address, api }) = mirror::parse(&kv.value) else { return };
        let host = Some(address).filter(|text| !text.is_empty() && !address::is_host(text));
        for bad in host.into_iter().chain(api.filter(|url| !address::is_api(url))) {
            let remedy =
                "set public_ip and listen in that machine's configuration, and restart its fleetd";
            self.note(kv, format!("{bad:?} is no address; it counts as not known"), remedy);
        }
    }

    /// Whether a document's name is that of its key.
    fn named(&mut self, kv: &KeyValue, inside: &str, key: &str) -> bool {
        if inside != key {
            self.bad(
                kv,
                format!("it calls itself {inside}"),
                "somebody copied it by hand; delete it",
            );
        }
        inside == key
    }

    /// What a living machine holds goes when it dies; without a lease it would stand for ever.
    fn leased(&mut self, kv: &KeyValue, remedy: &str) {
        if kv.lease.is_none() {
            self.bad(
                kv,
                "it has no lease, so no fleetd wrote it, and it never ends".into(),
                remedy,
            );
        }
    }

    fn bad(&mut self, kv: &KeyValue, problem: String, remedy: &str) {
        self.check.problems.push(Problem {
            key: kv.key.clone(),
            problem,
            remedy: remedy.to_string(),
            harms: true,
        });
    }

    fn note(&mut self, kv: &KeyValue, problem: String, remedy: &str) {
        self.check.problems.push(Problem {
            key: kv.key.clone(),
            problem,
            remedy: remedy.to_string(),
            harms: false,
        });
    }
}

/// The command that deletes a unit whatever is wrong with it.
fn delete(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~@:".contains(&b);
    let encoded: String = name
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    format!(
        "`curl --unix-socket /run/fleet.sock -X DELETE http://localhost/fleet/v1/units/{encoded}`"
    )
}
