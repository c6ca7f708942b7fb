//! This host's systemd behind one trait: [`dbus`] is the real one, [`sim`] a simulated one for
//! tests of scale and faults. [`quadlet`] has podman translate its units, [`images`] reads which
//! images it has, [`transient`] has systemd run podman, [`counters`] is what both count.
//!
//! **Architecture invariant:** nothing here knows of the cluster, the store or other machines.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use fleet_core::name::UnitName;
use tokio::sync::watch;

pub mod counters;
pub mod dbus;
pub mod images;
mod jobs;
mod journal;
pub mod own_job;
pub mod quadlet;
pub mod sim;
pub mod transient;

/// systemd, as the agent needs it. Both implementations pass `tests/tests/systemd.rs`.
///
/// Names are systemd's (`web.service`, never `web.container`). Calls are pipelined: callers may
/// have any number in flight, an implementation keeps at most [`MAX_CALLS`] on the bus and waits
/// with the rest.
#[async_trait]
pub trait Systemd: Send + Sync + 'static {
    /// The units of `wanted` that are not at rest, by name: a unit that is `inactive` without a job
    /// is absent, whether it is loaded, only written or unknown. One bus call, whose cost grows
    /// with the host's loaded units, not with `wanted`.
    async fn list(&self, wanted: &[UnitName]) -> Result<BTreeMap<UnitName, Listed>, SystemdError>;

    /// Why a unit is in its state. Only for units that failed: it costs a call each, for services
    /// four.
    ///
    /// Types that have no result (slices, targets, devices) give an empty one.
    async fn outcome(&self, name: &UnitName) -> Result<JobOutcome, SystemdError>;

    /// How often systemd itself has restarted a loaded service (`Restart=`) since a job last
    /// started it; 0 for units of other types. A call each. Counted when the restart begins, not
    /// while systemd waits for `RestartSec=`.
    async fn restarts(&self, name: &UnitName) -> Result<u32, SystemdError>;

    /// How many jobs systemd had that were not queued here, as of the last [`Systemd::list`] that
    /// asked. Only good for comparing: if it moved, any unit may have been restarted, by systemd
    /// itself or an operator, and be as `active` as it was before.
    fn jobs_of_others(&self) -> u64;

    /// What systemd wrote to the journal on why the unit's last start failed, as far as it says
    /// more than [`Systemd::outcome`]: what program or file is missing. It costs a process: ask
    /// where [`JobOutcome::has_words`], and not for many at once.
    async fn reason(&self, name: &UnitName) -> Option<String>;

    /// How the unit failed last in this boot, by what systemd noted in the journal; `None` if that
    /// is not known. For a service that systemd has restarted since: the restart cleared its
    /// [`Systemd::outcome`]. It costs a process.
    async fn last_failure(&self, name: &UnitName) -> Option<JobOutcome>;

    /// The newest lines that the unit's programs printed, oldest first; none if the journal cannot
    /// tell. It costs a process.
    async fn output(&self, name: &UnitName) -> String;

    /// Asks systemd to read changed unit files. Its cost grows with the loaded units: batch changes
    /// into one.
    async fn reload(&self) -> Result<(), SystemdError>;

    /// Queues a job and returns as soon as systemd took it; its end raises [`Systemd::changes`].
    ///
    /// Waits first while [`MAX_JOBS`] jobs, or for a start [`MAX_STARTS`] starts, are in flight.
    /// Right after it returns the unit may still be `inactive` with a job. A oneshot that is
    /// stopped while it runs ends `failed` with result `signal`. `Ok` for the stop of a unit that
    /// is not loaded. The reload of a unit that has none is refused. An end says nothing of
    /// success: list the unit, and see [`Systemd::take_failed_starts`].
    async fn queue(&self, name: &UnitName, job: Job) -> Result<(), SystemdError>;

    /// Clears the failed state, so that systemd forgets the unit. `Ok` if it is not loaded.
    async fn reset_failed(&self, name: &UnitName) -> Result<(), SystemdError>;

    /// Links units where their `[Install]` sections say (`WantedBy=`, `Alias=`…), until the next
    /// boot. Written before. One bus call.
    ///
    /// A target that is loaded heeds the link after a [`Systemd::reload`], one that is not at its
    /// next start. A link of somebody else is not replaced: that is [`SystemdError::Refused`], as
    /// is a section that systemd does not take. If one of several is refused, it is open which of
    /// the others are linked, and the error does not say which one it is: ask for each by itself
    /// then.
    async fn enable(&self, names: &[UnitName]) -> Result<(), SystemdError>;

    /// Takes back [`Systemd::enable`]; before the unit is removed. `Ok` if there is no link.
    async fn disable(&self, name: &UnitName) -> Result<(), SystemdError>;

    /// Where a unit of this name is defined by the host itself, outside fleet's own folder: its
    /// file's path, else `None`. A mount point in use counts: the kernel's list of mounts is its
    /// file. So do slices, scopes, swaps and devices that systemd makes itself.
    async fn host_defines(&self, name: &UnitName) -> Result<Option<String>, SystemdError>;

    /// The unit of the host's own that has come to stand before the one that fleet wrote under this
    /// name, as in `/etc/systemd/system`; none where there is no such file, or it only masks the
    /// name. No bus call unless there is one.
    async fn host_takes_over(&self, name: &UnitName) -> Result<Option<TakenOver>, SystemdError>;

    /// Writes a unit file and, beside it, fleet's drop-in; replaces what fleet wrote there before.
    /// Atomic a file: never half a file.
    ///
    /// A unit that is not loaded needs no [`Systemd::reload`] afterwards. systemd reads its folder
    /// again at the next start after a write, so write all that is to be started first and queue
    /// the starts then.
    async fn write(&self, name: &UnitName, text: &str, drop_in: &str) -> Result<(), SystemdError>;

    /// Lets an instance run the file that [`Systemd::write`] wrote for its template: its own file,
    /// if any, goes, and `drop_in` takes the place of the template's drop-in for it, if the two
    /// differ. Without either nothing is written, and systemd's folder stays as it is.
    async fn share(&self, name: &UnitName, drop_in: Option<&str>) -> Result<(), SystemdError>;

    /// Gives an instance that shares its template's file a copy of its own, so that the template's
    /// can be written anew.
    async fn unshare(&self, name: &UnitName) -> Result<(), SystemdError>;

    /// Removes what [`Systemd::write`] or [`Systemd::share`] wrote. `Ok` if there is nothing.
    async fn remove(&self, name: &UnitName) -> Result<(), SystemdError>;

    /// The starts and restarts queued here that systemd ended otherwise than `done` since this was
    /// last asked, with its word for it: `failed`, `dependency`, `canceled`, `timeout`, `assert`…
    /// Of a unit only its last job counts, and none that systemd refused to queue. No bus call.
    ///
    /// Ask before a listing: then what that shows is how they were left.
    fn take_failed_starts(&self) -> BTreeMap<UnitName, String>;

    /// The same of reloads.
    fn take_failed_reloads(&self) -> BTreeMap<UnitName, String>;

    /// The units whose last job queued here is a start or restart that has not been heard to end,
    /// or is still to be taken from [`Systemd::take_failed_starts`]: a listing may show them at
    /// rest already. No bus call.
    fn open_starts(&self) -> BTreeSet<UnitName>;

    /// Names this start of user space: another after a soft-reboot, which leaves `/run` as it is.
    async fn user_space(&self) -> Result<u64, SystemdError>;

    /// Whether a unit has left its rest in this start of user space, as far as systemd knows: of
    /// what is at rest it remembers only what a loaded unit names, such as the target that wants
    /// it. Loads the unit.
    async fn has_run(&self, name: &UnitName) -> Result<bool, SystemdError>;

    /// How a unit that is at rest came to be so, by what systemd noted in the journal. No bus call.
    async fn rest(&self, name: &UnitName) -> Result<Rest, SystemdError>;

    /// What a start of the unit does to others; `None` if systemd stops it whenever nobody needs it
    /// (`StopWhenUnneeded=`). Loads the unit.
    async fn bonds(&self, name: &UnitName) -> Result<Option<Bonds>, SystemdError>;

    /// The units that systemd stops when this one is stopped: those that require it, are bound to
    /// it, or are part of it. Only of units that are loaded.
    async fn stopped_with(&self, name: &UnitName) -> Result<Vec<UnitName>, SystemdError>;

    /// How many jobs queued through this value have not ended yet: at most [`MAX_JOBS`].
    fn jobs_in_flight(&self) -> usize;

    /// Counts up whenever a job that was queued here ends, or systemd or the bus went or came back.
    /// A wake-up carries no data.
    ///
    /// A process that ends by itself is no job: look now and then, too.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// The most calls on the bus at once: over 128 the system bus refuses replies to one connection.
pub const MAX_CALLS: usize = 64;

/// The most jobs in flight: at 512 systemd is cut off the bus, since it adds a match rule a job.
/// The rest is for other clients' jobs and systemd's own rules.
pub const MAX_JOBS: usize = 448;

/// The most of [`MAX_JOBS`] that starts and restarts may take: stops must pass when every start
/// hangs, and are what ends those.
pub const MAX_STARTS: usize = 256;

/// The name of the drop-in that [`Systemd::write`] puts beside a unit; a unit file with it is
/// fleet's.
pub const DROP_IN: &str = "10-fleet.conf";

/// The jobs that fleet asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// `StartUnit`, mode `replace`.
    Start,
    /// `StopUnit`, mode `replace`.
    Stop,
    /// `RestartUnit`, mode `replace`.
    Restart,
    /// `ReloadUnit`, mode `replace`: the unit's own reload (`ExecReload=`), of one that runs.
    Reload,
}

impl Job {
    /// The word for messages.
    pub fn verb(self) -> &'static str {
        match self {
            Job::Start => "start",
            Job::Stop => "stop",
            Job::Restart => "restart",
            Job::Reload => "reload",
        }
    }

    /// Whether the unit is to come up by it.
    pub fn starts(self) -> bool {
        matches!(self, Job::Start | Job::Restart)
    }
}

/// One unit's state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load: String,
    /// `active`, `activating`, `deactivating`, `inactive`, `failed`…
    pub active: String,
    /// `running`, `dead`…
    pub sub: String,
    /// Whether a job for it is queued or running.
    pub job: bool,
}

/// A unit file of the host's own that goes before fleet's of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOver {
    /// The file.
    pub path: String,
    /// Whether systemd goes by it already (`FragmentPath`), so that what runs under the name is the
    /// host's. Before a `daemon-reload` it still goes by fleet's.
    pub in_force: bool,
}

/// How a unit that is at rest came to be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// By itself.
    Ended,
    /// A job stopped it, whoever asked for that.
    Stopped,
    /// systemd has noted nothing since its start, or nothing at all. The note may still be on its
    /// way.
    Unknown,
}

/// What a start of a unit does to other units.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bonds {
    /// What the unit is bound to (`BindsTo=`, `Requisite=`), and of what it requires the services,
    /// sockets, mounts and the like that a job has stopped. A start of the unit starts those, too.
    pub needs: Vec<UnitName>,
    /// What conflicts with it (`Conflicts=`, either way round). A start of the unit stops those.
    pub rivals: Vec<UnitName>,
}

/// Why a unit failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobOutcome {
    /// systemd's `Result`: `success`, `exit-code`, `signal`, `core-dump`, `timeout`, `oom-kill`,
    /// `start-limit-hit`…
    pub result: String,
    /// The main process's exit status or signal, for services.
    pub code: Option<i32>,
    /// systemd's own count of automatic restarts.
    pub restarts: u32,
}

/// The exit statuses by which systemd says that it could not run the program, and why (`EXIT_CHDIR`
/// to `EXIT_CREDENTIALS` and later ones).
const SYSTEMDS_STATUS: std::ops::RangeInclusive<i32> = 200..=245;

impl JobOutcome {
    /// Whether systemd itself failed to run the program: then its journal says why.
    pub fn has_words(&self) -> bool {
        let status = self.result == "exit-code"
            && self.code.is_some_and(|code| SYSTEMDS_STATUS.contains(&code));
        status || self.result == "resources"
    }
}

/// What systemd would not do.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The bus or systemd does not answer. The next tick tries again.
    #[error("systemd cannot be reached: {0}")]
    Unavailable(String),
    /// systemd refused this unit, in its own words.
    #[error("systemd refused to {what} {name}: {problem}")]
    Refused {
        /// `start`, `stop`…
        what: &'static str,
        /// The unit.
        name: UnitName,
        /// Its message: `Unit web@1.service not found.`
        problem: String,
    },
    /// A file could not be written or removed.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}
