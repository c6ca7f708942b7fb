//! The host's real systemd, over the system bus.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::name::UnitName;
use tokio::sync::{OnceCell, watch};

use super::counters::{Counters, Tally};
use super::jobs::Jobs;
use super::journal::Journal;
use super::{Bonds, Job, JobOutcome, Listed, Rest, Systemd, SystemdError, TakenOver};
use files::Files;
use glance::Glance;
use link::{CallError, Link, read};
use zbus::zvariant::OwnedValue;

mod files;
mod glance;
pub(crate) mod inside;
mod link;

/// The error name for a unit that is not loaded and cannot be.
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// The error name for a unit that has no file; which of the two it is depends on systemd's version.
const NO_SUCH_FILE: &str = "org.freedesktop.DBus.Error.FileNotFound";

/// Which bus systemd is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// The machine's. The only one for a daemon: zbus cannot talk to systemd's private socket.
    System,
    /// The user's.
    User,
    /// `unix:path=…`, such as a container's.
    Address(String),
}

impl Bus {
    /// Connects; a call may take as long as given.
    pub(super) async fn connect(
        &self,
        call_timeout: Option<Duration>,
    ) -> zbus::Result<zbus::Connection> {
        let builder = match self {
            Bus::System => zbus::connection::Builder::system()?,
            Bus::User => zbus::connection::Builder::session()?,
            Bus::Address(address) => zbus::connection::Builder::address(address.as_str())?,
        };
        match call_timeout {
            Some(timeout) => builder.method_timeout(timeout).build().await,
            None => builder.build().await,
        }
    }
}

/// Where systemd is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Its bus.
    pub bus: Bus,
    /// The folder for fleet's unit files, as systemd sees it; in memory, so that a reboot empties
    /// it. If it is not systemd's own folder for units of this boot, there are links to the files
    /// in that.
    pub unit_dir: PathBuf,
    /// Where this process sees systemd's `/`. Only tests, which look into containers, have another.
    pub root: PathBuf,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bus: Bus::System,
            unit_dir: PathBuf::from("/run/systemd/system"),
            root: PathBuf::from("/"),
        }
    }
}

/// systemd over D-Bus. Connects at the first call, and again at the first call after the connection
/// was lost.
pub struct DbusSystemd {
    link: Link,
    glance: Glance,
    files: Files,
    root: PathBuf,
    user: bool,
    jobs: Arc<Jobs>,
    tally: Arc<Tally>,
    /// systemd's search path. It is fixed when systemd is built and booted.
    search: OnceCell<Vec<String>>,
}

impl DbusSystemd {
    /// Does not talk to the bus yet.
    pub fn new(options: Options) -> DbusSystemd {
        let runtime_folder = match (&options.bus, std::env::var_os("XDG_RUNTIME_DIR")) {
            (Bus::User, Some(folder)) => PathBuf::from(folder).join("systemd/user"),
            _ => PathBuf::from("/run/systemd/system"),
        };
        let tally = Arc::<Tally>::default();
        let jobs = Jobs::new(Arc::clone(&tally));
        DbusSystemd {
            root: options.root.clone(),
            user: options.bus == Bus::User,
            link: Link::new(options.bus, Arc::clone(&jobs), Arc::clone(&tally)),
            glance: Glance::default(),
            files: Files::new(options.root, &runtime_folder, options.unit_dir),
            jobs,
            tally,
            search: OnceCell::new(),
        }
    }

    /// As [`DbusSystemd::new`], and checks that systemd answers.
    pub async fn connect(options: Options) -> Result<DbusSystemd, SystemdError> {
        let systemd = DbusSystemd::new(options);
        systemd.search_path().await?;
        Ok(systemd)
    }

    /// What was asked of systemd so far.
    pub fn counters(&self) -> Counters {
        self.tally.read()
    }

    fn journal(&self) -> Journal<'_> {
        Journal { root: &self.root, user: self.user }
    }

    async fn search_path(&self) -> Result<&Vec<String>, SystemdError> {
        Ok(self.search.get_or_try_init(|| self.link.manager_property("UnitPath")).await?)
    }
}

#[async_trait]
impl Systemd for DbusSystemd {
    async fn list(&self, wanted: &[UnitName]) -> Result<BTreeMap<UnitName, Listed>, SystemdError> {
        // Not ListUnitsByNames: it loads each unit that is not loaded, at 0.4 ms of PID 1 a name
        // and again at every call.
        let listed = self.glance.list(&self.link, wanted).await?;
        Ok(listed.into_iter().filter(|(_, unit)| unit.active != "inactive" || unit.job).collect())
    }

    async fn outcome(&self, name: &UnitName) -> Result<JobOutcome, SystemdError> {
        let Some(interface) = interface_with_result(name.suffix()) else {
            return Ok(JobOutcome::default());
        };
        let path = unit_path(name);
        let refused = |error| refused("describe", name, error);
        let result = self.link.get::<String>(&path, interface, "Result", |c| c.outcome += 1);
        if name.suffix() != "service" {
            return Ok(JobOutcome {
                result: result.await.map_err(refused)?,
                ..JobOutcome::default()
            });
        }
        let number =
            |property| self.link.get::<i32>(&path, interface, property, |c| c.outcome += 1);
        let restarts = self.link.get::<u32>(&path, interface, "NRestarts", |c| c.outcome += 1);
        let (result, ended, status, restarts) = futures_util::future::try_join4(
            result,
            number("ExecMainCode"),
            number("ExecMainStatus"),
            restarts,
        )
        .await
        .map_err(refused)?;
        // `ExecMainCode` says how the process ended (`CLD_EXITED`…); 0 is that none did.
        Ok(JobOutcome { result, code: (ended != 0).then_some(status), restarts })
    }

    async fn restarts(&self, name: &UnitName) -> Result<u32, SystemdError> {
        match interface_with_result(name.suffix()).filter(|_| name.suffix() == "service") {
            Some(interface) => {
                let count = self
                    .link
                    .get::<u32>(&unit_path(name), interface, "NRestarts", |c| c.outcome += 1)
                    .await;
                count.map_err(|error| refused("describe", name, error))
            }
            None => Ok(0),
        }
    }

    fn jobs_of_others(&self) -> u64 {
        self.glance.jobs_of_others()
    }

    async fn reason(&self, name: &UnitName) -> Option<String> {
        let id = self
            .link
            .get::<Vec<u8>>(&unit_path(name), UNIT, "InvocationID", |c| c.outcome += 1)
            .await
            .ok()?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        if id.is_empty() { None } else { self.journal().reason(name, &id).await }
    }

    async fn last_failure(&self, name: &UnitName) -> Option<JobOutcome> {
        self.tally.count(|c| c.journal += 1);
        self.journal().last_failure(name).await
    }

    async fn output(&self, name: &UnitName) -> String {
        self.tally.count(|c| c.journal += 1);
        self.journal().output(name).await
    }

    async fn reload(&self) -> Result<(), SystemdError> {
        self.link.manager("Reload", &(), |c| c.reload += 1).await?;
        Ok(())
    }

    async fn queue(&self, name: &UnitName, job: Job) -> Result<(), SystemdError> {
        let ticket = self.jobs.take(name, job).await;
        self.glance.queues(name, job);
        let body = (name.as_str(), "replace");
        let reply = match job {
            Job::Start => self.link.manager("StartUnit", &body, |c| c.start += 1).await,
            Job::Stop => self.link.manager("StopUnit", &body, |c| c.stop += 1).await,
            Job::Restart => self.link.manager("RestartUnit", &body, |c| c.restart += 1).await,
            Job::Reload => self.link.manager("ReloadUnit", &body, |c| c.reload_unit += 1).await,
        };
        match reply {
            Ok(reply) => {
                let path: zbus::zvariant::OwnedObjectPath = read(&reply)?;
                if let Some(id) = path.rsplit('/').next().and_then(|id| id.parse().ok()) {
                    ticket.queued(id);
                }
                Ok(())
            }
            Err(CallError::Refused(error, _)) if job == Job::Stop && error == NO_SUCH_UNIT => {
                self.jobs.wake();
                Ok(())
            }
            Err(error) => Err(refused(job.verb(), name, error)),
        }
    }

    async fn reset_failed(&self, name: &UnitName) -> Result<(), SystemdError> {
        match self.link.manager("ResetFailedUnit", &(name.as_str(),), |c| c.reset_failed += 1).await
        {
            Err(CallError::Refused(error, _)) if error == NO_SUCH_UNIT => Ok(()),
            Err(error) => Err(refused("reset", name, error)),
            Ok(_) => Ok(()),
        }
    }

    async fn enable(&self, names: &[UnitName]) -> Result<(), SystemdError> {
        let Some(first) = names.first() else { return Ok(()) };
        let listed: Vec<&str> = names.iter().map(UnitName::as_str).collect();
        // In memory only, and no link of somebody else replaced.
        let reply =
            self.link.manager("EnableUnitFiles", &(listed, true, false), |c| c.enable += 1).await;
        reply.map(drop).map_err(|error| refused("enable", first, error))
    }

    async fn disable(&self, name: &UnitName) -> Result<(), SystemdError> {
        let body = (vec![name.as_str()], true);
        match self.link.manager("DisableUnitFiles", &body, |c| c.disable += 1).await {
            Err(CallError::Refused(error, _)) if error == NO_SUCH_UNIT || error == NO_SUCH_FILE => {
                Ok(())
            }
            Err(error) => Err(refused("disable", name, error)),
            Ok(_) => Ok(()),
        }
    }

    async fn host_defines(&self, name: &UnitName) -> Result<Option<String>, SystemdError> {
        let file = self.files.host_defines(name, self.search_path().await?);
        if file.is_some() || !may_be_without_a_file(name) || self.files.is_ours(name) {
            return Ok(file);
        }
        // What the host mounted by hand, and what systemd makes itself, has no file, and a start
        // would find it done.
        let active = self
            .link
            .get::<String>(&unit_path(name), UNIT, "ActiveState", |c| c.outcome += 1)
            .await;
        let active = active.map_err(|error| refused("describe", name, error))?;
        let source =
            if name.suffix() == "mount" { "/proc/self/mountinfo" } else { "systemd itself" };
        Ok((active != "inactive" && active != "failed").then(|| source.to_string()))
    }

    async fn host_takes_over(&self, name: &UnitName) -> Result<Option<TakenOver>, SystemdError> {
        let Some(path) = self.files.host_takes_over(name, self.search_path().await?) else {
            return Ok(None);
        };
        let fragment = self
            .link
            .get::<String>(&unit_path(name), UNIT, "FragmentPath", |c| c.outcome += 1)
            .await;
        let fragment = fragment.map_err(|error| refused("describe", name, error))?;
        Ok(Some(TakenOver {
            path,
            in_force: !fragment.is_empty() && !self.files.is_fleets(name, &fragment),
        }))
    }

    async fn write(&self, name: &UnitName, text: &str, drop_in: &str) -> Result<(), SystemdError> {
        self.tally.count(|c| c.write += 1);
        self.files.write(name, text, drop_in)
    }

    async fn share(&self, name: &UnitName, drop_in: Option<&str>) -> Result<(), SystemdError> {
        if self.files.share(name, drop_in)? {
            self.tally.count(|c| c.write += 1);
        }
        Ok(())
    }

    async fn unshare(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.tally.count(|c| c.write += 1);
        self.files.unshare(name)
    }

    async fn remove(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.tally.count(|c| c.remove += 1);
        self.files.remove(name)
    }

    fn take_failed_starts(&self) -> BTreeMap<UnitName, String> {
        self.jobs.take_failed_starts()
    }

    fn take_failed_reloads(&self) -> BTreeMap<UnitName, String> {
        self.jobs.take_failed_reloads()
    }

    fn open_starts(&self) -> BTreeSet<UnitName> {
        self.jobs.open_starts()
    }

    async fn user_space(&self) -> Result<u64, SystemdError> {
        // Its serialized value outlives a reexecution, and no soft-reboot.
        Ok(self.link.manager_property("UserspaceTimestamp").await?)
    }

    async fn has_run(&self, name: &UnitName) -> Result<bool, SystemdError> {
        let path = unit_path(name);
        let left =
            self.link.get::<u64>(&path, UNIT, "InactiveExitTimestampMonotonic", |c| c.outcome += 1);
        let begun = self.link.manager_property::<u64>("UserspaceTimestampMonotonic");
        let (left, begun) = tokio::join!(left, begun);
        // What systemd still knows from before a soft-reboot has older times.
        Ok(left.map_err(|error| refused("describe", name, error))? >= begun?.max(1))
    }

    async fn rest(&self, name: &UnitName) -> Result<Rest, SystemdError> {
        self.tally.count(|c| c.journal += 1);
        self.journal()
            .rest(name)
            .await
            .map_err(|problem| SystemdError::Unavailable(format!("the journal: {problem}")))
    }

    async fn bonds(&self, name: &UnitName) -> Result<Option<Bonds>, SystemdError> {
        let mut properties = self
            .link
            .get_all(&unit_path(name), UNIT)
            .await
            .map_err(|error| refused("describe", name, error))?;
        if properties.get("StopWhenUnneeded").and_then(|value| bool::try_from(value).ok())
            == Some(true)
        {
            return Ok(None);
        }
        let mut bonds = Bonds {
            needs: take(&mut properties, "BindsTo"),
            rivals: take(&mut properties, "Conflicts"),
        };
        bonds.needs.extend(take(&mut properties, "Requisite"));
        bonds.rivals.extend(take(&mut properties, "ConflictedBy"));
        for other in take(&mut properties, "Requires") {
            // What it requires may be at rest because it has done its part.
            if !["slice", "target", "scope"].contains(&other.suffix())
                && self.rest(&other).await? == Rest::Stopped
            {
                bonds.needs.push(other);
            }
        }
        Ok(Some(bonds))
    }

    async fn stopped_with(&self, name: &UnitName) -> Result<Vec<UnitName>, SystemdError> {
        let properties = self.link.get_all(&unit_path(name), UNIT).await;
        let mut properties = properties.map_err(|error| refused("describe", name, error))?;
        let kinds = ["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf"];
        Ok(kinds.iter().flat_map(|kind| take(&mut properties, kind)).collect())
    }

    fn jobs_in_flight(&self) -> usize {
        self.jobs.in_flight()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.jobs.changes()
    }
}

/// The units that a property names.
fn take(properties: &mut HashMap<String, OwnedValue>, name: &str) -> Vec<UnitName> {
    let units = properties
        .remove(name)
        .and_then(|value| Vec::<String>::try_from(value).ok())
        .unwrap_or_default();
    units.into_iter().map(UnitName::trusted).collect()
}

fn refused(what: &'static str, name: &UnitName, error: CallError) -> SystemdError {
    match error {
        CallError::Unavailable(problem) => SystemdError::Unavailable(problem),
        CallError::Refused(_, problem) => {
            SystemdError::Refused { what, name: name.clone(), problem }
        }
    }
}

/// Whether a host's own unit of this name need have no file. A slice that only units of fleet are
/// in is none of the host's: systemd makes it when the first of them starts.
fn may_be_without_a_file(name: &UnitName) -> bool {
    let of_systemd = |slice: &str| {
        name.stem() == slice
            || name.stem().strip_prefix(slice).is_some_and(|rest| rest.starts_with('-'))
    };
    match name.suffix() {
        "device" | "mount" | "scope" | "swap" => true,
        "slice" => ["system", "user", "machine"].into_iter().any(of_systemd),
        _ => false,
    }
}

/// The interface of a unit type that has a `Result`; slices, targets and devices have none.
fn interface_with_result(suffix: &str) -> Option<&'static str> {
    Some(match suffix {
        "service" => "org.freedesktop.systemd1.Service",
        "socket" => "org.freedesktop.systemd1.Socket",
        "timer" => "org.freedesktop.systemd1.Timer",
        "path" => "org.freedesktop.systemd1.Path",
        "mount" => "org.freedesktop.systemd1.Mount",
        "automount" => "org.freedesktop.systemd1.Automount",
        "swap" => "org.freedesktop.systemd1.Swap",
        "scope" => "org.freedesktop.systemd1.Scope",
        _ => return None,
    })
}

/// The unit's object path: all but letters and digits escaped, and a digit at the front too, as
/// sd-bus does it.
fn unit_path(name: &UnitName) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    for (i, byte) in name.as_str().bytes().enumerate() {
        match byte {
            b'0'..=b'9' if i > 0 => path.push(char::from(byte)),
            b'a'..=b'z' | b'A'..=b'Z' => path.push(char::from(byte)),
            _ => path.push_str(&format!("_{byte:02x}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_paths_are_escaped_as_sd_bus_does_it() {
        let path = |text| unit_path(&UnitName::parse(text).unwrap());
        assert_eq!(path("web@1.service"), "/org/freedesktop/systemd1/unit/web_401_2eservice");
        assert_eq!(path("9-a_b.service"), "/org/freedesktop/systemd1/unit/_39_2da_5fb_2eservice");
    }
}
