//! Unit files and links, fleet's and the host's, and what is loaded of them.

use std::collections::VecDeque;

use fleet_core::unit::file::UnitFile;

use super::unit::{Manager, Unit};
use super::*;

impl Manager {
    pub(super) fn reload(&mut self) {
        let names: Vec<UnitName> = self.units.keys().cloned().collect();
        for name in names {
            let is_hosts = self.is_hosts(&name);
            let settings = self.settings(&name);
            let wants = self.links.get(&name).cloned().unwrap_or_default();
            let Some(unit) = self.units.get_mut(&name) else { continue };
            unit.wants = wants;
            unit.is_hosts = is_hosts;
            unit.load = settings.as_ref().map_or("not-found", |settings| settings.load);
            if let Some(settings) = settings {
                unit.settings = settings;
            }
        }
    }

    /// Links a unit that fleet wrote, as its `[Install]` section says.
    pub(super) fn enable(&mut self, name: &UnitName) -> Result<(), String> {
        let Some((text, _)) = self.files.get(name) else {
            return Err(format!("Unit {name} does not exist"));
        };
        let file = UnitFile::parse_lenient(text);
        let mut aliases = file.values("Install", "Alias").flat_map(str::split_whitespace);
        if let Some(alias) =
            aliases.find(|alias| UnitName::trusted(*alias).suffix() != name.suffix())
        {
            return Err(format!("Cannot alias {name} as {alias}."));
        }
        let by = ["WantedBy", "RequiredBy"]
            .into_iter()
            .flat_map(|key| file.values("Install", key))
            .flat_map(str::split_whitespace);
        for target in by {
            self.links.entry(UnitName::trusted(target)).or_default().insert(name.clone());
        }
        Ok(())
    }

    pub(super) fn disable(&mut self, name: &UnitName) {
        self.links.retain(|_, wanted| {
            wanted.remove(name);
            !wanted.is_empty()
        });
    }

    /// Loads the unit unless it is, and says how that went.
    pub(super) fn load(&mut self, name: &UnitName) -> Option<&'static str> {
        if let Some(unit) = self.units.get(name) {
            return Some(unit.load);
        }
        let settings = self.settings(name)?;
        let is_hosts = self.is_hosts(name);
        let outcome = JobOutcome { result: "success".to_string(), ..JobOutcome::default() };
        let (load, starts) = (settings.load, VecDeque::new());
        let wants = self.links.get(name).cloned().unwrap_or_default();
        let unit = Unit {
            began: tokio::time::Instant::now(),
            settings,
            runs: String::new(),
            environment: Vec::new(),
            load,
            is_hosts,
            active: "inactive",
            sub: "dead",
            job: None,
            outcome,
            invocation: 0,
            watched_until: None,
            starts,
            wants,
            epoch: 0,
        };
        self.units.insert(name.clone(), unit);
        Some(load)
    }

    fn settings(&self, name: &UnitName) -> Option<Settings> {
        match (self.ours(name), self.hosts(name)) {
            (Some((text, drop_in)), _) if !self.is_hosts(name) => {
                Some(Settings::read(name, text, self.drop_ins.get(name).unwrap_or(drop_in)))
            }
            (_, Some((_, text))) => Some(Settings::read(name, text, "")),
            _ => None,
        }
    }

    fn ours(&self, name: &UnitName) -> Option<&(String, String)> {
        [Some(name.clone()), name.template()].iter().flatten().find_map(|name| self.files.get(name))
    }

    fn hosts(&self, name: &UnitName) -> Option<&(String, String)> {
        [Some(name.clone()), name.template()]
            .iter()
            .flatten()
            .find_map(|name| self.host_files.get(name))
    }

    /// Whether the host's own file is the one that systemd would read.
    fn is_hosts(&self, name: &UnitName) -> bool {
        self.hosts(name)
            .is_some_and(|(path, _)| path.starts_with("/etc/") || self.ours(name).is_none())
    }

    pub(super) fn taken_over(&self, name: &UnitName) -> Option<TakenOver> {
        self.ours(name)?;
        let (path, _) = self.hosts(name).filter(|_| self.is_hosts(name))?;
        Some(TakenOver {
            path: path.clone(),
            in_force: self.units.get(name).is_none_or(|unit| unit.is_hosts),
        })
    }
}
