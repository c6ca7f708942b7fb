//! The guard: the process that fenced units are bound to. It knows no store; it goes by the
//! keeper's renewals, and ends without them.
//!
//! The keeper writes each renewal into a file; the guard looks there, and pings systemd's watchdog
//! once for each that was sent a short time before. One guard goes by one life of the keeper: for
//! another life there must be another guard. Until that begins, no file lets anything fenced start.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{ANSWER, Host, LOOK, host};
use crate::config::Settings;
use crate::process::files;
use crate::process::repeated::Repeated;
use crate::systemd::dbus::Bus;

/// The unit that the guard runs as.
pub const UNIT: &str = "fleet-guard.service";

/// What the guard tells the agent of its host, in its runtime folder, which systemd takes away when
/// it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The revision that names the keeper's life; without a cluster, the time of its start.
    pub life: i64,
    /// Whether there is no cluster: the embedded store has one machine, and systemd alone keeps one
    /// copy.
    pub alone: bool,
    /// Until when the units that are bound to it run on without another renewal, in milliseconds
    /// since 1970.
    pub until_ms: u64,
}

/// The file whose presence lets systemd start what was fenced under `life`: each such unit asserts
/// it.
pub fn life_file(guard_dir: &Path, life: i64) -> PathBuf {
    guard_dir.join(format!("life-{life}"))
}

/// What the guard of this host says; `None` while there is none, or its keeper holds no lease.
pub fn read_state(guard_dir: &Path) -> Option<State> {
    let state: State = read_json(&state_file(guard_dir))?;
    life_file(guard_dir, state.life).exists().then_some(state)
}

fn state_file(guard_dir: &Path) -> PathBuf {
    guard_dir.join("state.json")
}

/// Where a guard says that it is there.
pub(super) fn guard_file(guard_dir: &Path) -> PathBuf {
    guard_dir.join("guard.json")
}

/// Where a keeper tells its renewals.
pub(super) fn renewals_file(run_dir: &Path) -> PathBuf {
    run_dir.join("renewal")
}

/// A guard that is there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GuardFile {
    /// Names this process among the guards of this boot: the microsecond of its start.
    pub(super) number: u64,
    watchdog_ms: u64,
}

impl GuardFile {
    /// How long it goes on without a renewal; the lease lasts as long.
    pub(super) fn watchdog(&self) -> Duration {
        Duration::from_millis(self.watchdog_ms)
    }
}

/// What a keeper tells its guard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Renewal {
    /// The guard that it is for.
    pub(super) guard: u64,
    pub(super) life: i64,
    pub(super) alone: bool,
    pub(super) lease: i64,
    /// When the last renewal that counts was sent, in milliseconds since the host's boot.
    pub(super) sent_ms: u64,
    /// That there will be no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<Ended>,
}

/// Why there will be no more renewals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ended {
    /// systemd was told to stop the keeper. Nobody need guard anything until it is started.
    Stopped,
    /// The lease is lost, and there will be another life.
    Lost,
}

/// A guard that is starting.
pub struct Guard {
    host: Arc<dyn Host>,
    watchdog: Duration,
    /// Gone with this process.
    guard_dir: PathBuf,
    renewals: PathBuf,
}

impl Guard {
    /// The guard of the host that this runs on.
    pub fn new(settings: &Settings) -> anyhow::Result<Guard> {
        let watchdog = sd_notify::watchdog_enabled();
        let watchdog = watchdog.context(
            "run it as fleet-guard.service, with WatchdogSec=: \
            without systemd's watchdog nothing would end what is fenced when this hangs",
        )?;
        let (bus, folder) =
            (if settings.systemd_user { Bus::User } else { Bus::System }, settings.guard_dir());
        ensure!(
            std::env::var_os("RUNTIME_DIRECTORY").is_some_and(|own| Path::new(&own) == folder),
            "its folder would be {}, beside run_dir, and systemd takes away another one when this \
                ends ($RUNTIME_DIRECTORY): \
             with fenced units run_dir must lie where fleet-guard.service has its \
             RuntimeDirectory=",
            folder.display()
        );
        Guard::on(Arc::new(host::Booted::new(bus)?), watchdog, &folder, &settings.run_dir)
    }

    /// A guard on any host.
    pub fn on(
        host: Arc<dyn Host>,
        watchdog: Duration,
        guard_dir: &Path,
        run_dir: &Path,
    ) -> anyhow::Result<Guard> {
        let shortest = ANSWER * 2;
        ensure!(
            watchdog >= shortest,
            "WatchdogSec={} s is too short; use {} s or more",
            watchdog.as_secs(),
            shortest.as_secs()
        );
        files::public_folder(guard_dir)
            .with_context(|| format!("cannot create {}", guard_dir.display()))?;
        Ok(Guard {
            host,
            watchdog,
            guard_dir: guard_dir.to_path_buf(),
            renewals: renewals_file(run_dir),
        })
    }

    /// Goes by the renewals of one life until they end (an error, unless the keeper was stopped for
    /// good).
    pub async fn run(self) -> anyhow::Result<()> {
        let number = self.host.since_boot().as_micros() as u64;
        write_json(
            &guard_file(&self.guard_dir),
            &GuardFile { number, watchdog_ms: self.watchdog.as_millis() as u64 },
        )?;
        let (mut last, mut repeated): (Option<Renewal>, _) = (None, Repeated::default());
        self.host.ping(true);
        loop {
            match read_record::<Renewal>(&self.renewals).filter(|renewal| renewal.guard == number) {
                Some(Renewal { ended: Some(Ended::Stopped), .. }) => {
                    info!("the keeper was stopped; what is fenced here is stopped");
                    return Ok(());
                }
                Some(Renewal { ended: Some(Ended::Lost), .. }) => {
                    bail!("the keeper has lost its lease; what is fenced here is stopped")
                }
                Some(renewal) if last.as_ref().is_some_and(|last| last.life != renewal.life) => {
                    bail!(
                        "the keeper began another life; what was fenced under the one before is \
                            stopped"
                    );
                }
                Some(renewal)
                    if last.as_ref().is_none_or(|last| last.sent_ms < renewal.sent_ms)
                        && self.since(renewal.sent_ms) <= ANSWER =>
                {
                    // A full disk must not end what is fenced: the file that opens starts is there
                    // since the first renewal.
                    match (self.show(&renewal), last.is_none()) {
                        (Err(error), true) => return Err(error),
                        (Err(error), false) => {
                            if let Some(problem) = repeated.fresh(format!("{error:#}")) {
                                warn!(
                                    "{problem}; the renewal counts all the same, but `fleetctl \
                                        status` shows an old time"
                                );
                            }
                        }
                        (Ok(()), _) => {}
                    }
                    // Writing took its time. What it is late by would be added to what the others
                    // wait for.
                    if self.since(renewal.sent_ms) <= ANSWER {
                        self.host.ping(false);
                    }
                    last = Some(renewal); // units may be bound to it from now on, whether it pinged or not
                }
                _ if last.is_none() => self.host.ping(false), // nothing can be bound to it yet
                _ => {}
            }
            if let Some(last) = &last
                && self.since(last.sent_ms) >= self.watchdog
            {
                bail!(
                    "no renewal for {} s; what is fenced here is stopped",
                    self.watchdog.as_secs()
                );
            }
            tokio::select! {
                biased; // the same order in each run of the simulator
                () = self.host.terminated() => return Ok(()),
                () = self.host.sleep(LOOK) => {}
            }
        }
    }

    /// The state first, the file that opens starts last.
    fn show(&self, renewal: &Renewal) -> anyhow::Result<()> {
        let left = self.watchdog.saturating_sub(self.since(renewal.sent_ms));
        let until_ms = self.host.wall_ms() + left.as_millis() as u64;
        write_json(
            &state_file(&self.guard_dir),
            &State { life: renewal.life, alone: renewal.alone, until_ms },
        )?;
        let life = life_file(&self.guard_dir, renewal.life);
        files::create(&life, files::PRIVATE)
            .map(drop)
            .with_context(|| format!("cannot write {}", life.display()))
    }

    fn since(&self, sent_ms: u64) -> Duration {
        self.host.since_boot().saturating_sub(Duration::from_millis(sent_ms))
    }
}

/// How long the record of a renewal is, in bytes. Spaces fill it up.
const RECORD: usize = 512;

/// Overwrites a record in its place, which needs no room on a full disk. It is there twice, so that
/// a half of one is none.
pub(super) fn write_record<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let mut record = serde_json::to_vec(value)?;
    ensure!(record.len() <= RECORD, "{} bytes are too long a record", record.len());
    record.resize(RECORD, b' ');
    let file =
        File::options().write(true).create(true).truncate(false).mode(files::PRIVATE).open(path);
    let written = file.and_then(|file| file.write_all_at(&record.repeat(2), 0));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// The record in a file; `None` where there is none, or one that is being written.
pub(super) fn read_record<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let file = std::fs::read(path).ok()?;
    let (first, second) = file.split_at_checked(RECORD)?;
    (first == second).then(|| serde_json::from_slice(first).ok())?
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Whole or not at all. The folder is memory: a rename is enough.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let write = || files::write_in_memory(path, &serde_json::to_vec(value)?);
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_half_written_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        assert_eq!(read_record::<u64>(&path), None);
        write_record(&path, &1_999).unwrap();
        assert_eq!(read_record(&path), Some(1_999_u64));
        let old = std::fs::read(&path).unwrap();
        write_record(&path, &2_000).unwrap();
        let new = std::fs::read(&path).unwrap();
        for written in 1..new.len() {
            std::fs::write(&path, [&new[..written], &old[written..]].concat()).unwrap();
            let read = read_record::<u64>(&path);
            assert!(
                read.is_none_or(|read| read == 1_999 || read == 2_000),
                "{read:?} after {written} bytes"
            );
        }
        assert!(write_record(&path, &"x".repeat(RECORD)).is_err());
    }
}
