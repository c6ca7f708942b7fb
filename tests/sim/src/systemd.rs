//! A machine's systemd as its fleetd reaches it: fleetd's own simulated one, with slow answers,
//! crash points and the judge's ear.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::name::UnitName;
use fleetd::systemd::sim::{SimSystemd, Times};
use fleetd::systemd::{Bonds, Job, JobOutcome, Listed, Rest, Systemd, SystemdError, TakenOver};
use tokio::sync::watch;

use crate::apps;
use crate::judge::SharedJudge;
use crate::link::Link;
use crate::planted::Planted;

/// How long systemd takes, as measured (docs/performance.md).
const TIMES: Times = Times { call: Duration::from_millis(1), job: Duration::from_millis(30) };

/// systemd on one machine.
pub struct HostSystemd {
    /// The simulated one.
    pub inner: SimSystemd,
    number: usize,
    link: Arc<Link>,
    judge: SharedJudge,
    /// Where instances find their files.
    files: PathBuf,
    planted: Option<Planted>,
}

impl HostSystemd {
    /// A freshly booted one.
    pub fn new(
        number: usize,
        link: Arc<Link>,
        judge: SharedJudge,
        files: PathBuf,
        planted: Option<Planted>,
    ) -> HostSystemd {
        let inner = SimSystemd::new(TIMES);
        let (judged, root) = (judge.clone(), files.clone());
        inner.observe(Box::new(move |name, active, environment| {
            let mut judge = judged.lock();
            judge.entered(number, name, active, environment);
            if active == "activating" && apps::is_of_app(name) {
                judge.found_files(number, name, apps::found(&root, name));
            }
        }));
        HostSystemd { inner, number, link, judge, files, planted }
    }

    /// The version of the files that an instance of the application finds.
    pub fn files_of(&self, name: &UnitName) -> Result<usize, String> {
        apps::found(&self.files, name)
    }

    /// With that bug planted, an instance keeps one of its files for its next text.
    fn mix_files(&self, name: &UnitName) {
        if self.planted == Some(Planted::MixesFiles) {
            let (new, old) = (self.files.join(name.stem()), self.files.join(".before"));
            let old = old.join(name.stem()).join(apps::FILES[0]);
            let _ = std::fs::copy(old, new.join(apps::FILES[0])); // most have none
        }
    }
}

#[async_trait]
impl Systemd for HostSystemd {
    async fn list(&self, wanted: &[UnitName]) -> Result<BTreeMap<UnitName, Listed>, SystemdError> {
        self.link.disk().await;
        let listed = self.inner.list(wanted).await;
        self.link.fleetd.point().await;
        listed
    }

    async fn outcome(&self, name: &UnitName) -> Result<JobOutcome, SystemdError> {
        self.link.fleetd.point().await;
        let outcome = self.inner.outcome(name).await?;
        if self.planted == Some(Planted::MistakesEnds) && outcome.result != "success" {
            return Ok(JobOutcome { result: "signal".to_string(), code: Some(9), ..outcome });
        }
        Ok(outcome)
    }

    async fn reason(&self, name: &UnitName) -> Option<String> {
        self.inner.reason(name).await
    }

    async fn last_failure(&self, name: &UnitName) -> Option<JobOutcome> {
        self.inner.last_failure(name).await
    }

    async fn output(&self, name: &UnitName) -> String {
        self.inner.output(name).await
    }

    async fn host_takes_over(&self, name: &UnitName) -> Result<Option<TakenOver>, SystemdError> {
        self.inner.host_takes_over(name).await
    }

    async fn restarts(&self, name: &UnitName) -> Result<u32, SystemdError> {
        self.link.fleetd.point().await;
        self.inner.restarts(name).await
    }

    fn jobs_of_others(&self) -> u64 {
        self.inner.jobs_of_others()
    }

    async fn reload(&self) -> Result<(), SystemdError> {
        self.link.fleetd.point().await;
        self.link.disk().await;
        let done = self.inner.reload().await;
        self.link.fleetd.point().await;
        done
    }

    async fn queue(&self, name: &UnitName, job: Job) -> Result<(), SystemdError> {
        self.link.fleetd.point().await;
        self.judge.lock().asked(self.number, name, job);
        let done = self.inner.queue(name, job).await;
        self.link.fleetd.point().await;
        done
    }

    async fn reset_failed(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.link.fleetd.point().await;
        self.inner.reset_failed(name).await
    }

    async fn enable(&self, names: &[UnitName]) -> Result<(), SystemdError> {
        self.link.fleetd.point().await;
        self.inner.enable(names).await
    }

    async fn disable(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.link.fleetd.point().await;
        self.inner.disable(name).await
    }

    async fn host_defines(&self, name: &UnitName) -> Result<Option<String>, SystemdError> {
        self.inner.host_defines(name).await
    }

    async fn write(&self, name: &UnitName, text: &str, drop_in: &str) -> Result<(), SystemdError> {
        self.link.fleetd.point().await;
        self.link.disk().await;
        self.mix_files(name);
        let done = self.inner.write(name, text, drop_in).await;
        self.link.fleetd.point().await;
        done
    }

    async fn share(&self, name: &UnitName, drop_in: Option<&str>) -> Result<(), SystemdError> {
        self.link.fleetd.point().await;
        self.mix_files(name);
        let done = self.inner.share(name, drop_in).await;
        self.link.fleetd.point().await;
        done
    }

    async fn unshare(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.link.fleetd.point().await;
        let done = self.inner.unshare(name).await;
        self.link.fleetd.point().await;
        done
    }

    async fn remove(&self, name: &UnitName) -> Result<(), SystemdError> {
        self.link.fleetd.point().await;
        let done = self.inner.remove(name).await;
        self.link.fleetd.point().await;
        done
    }

    async fn has_run(&self, name: &UnitName) -> Result<bool, SystemdError> {
        self.link.fleetd.point().await;
        self.inner.has_run(name).await
    }

    fn take_failed_starts(&self) -> BTreeMap<UnitName, String> {
        self.inner.take_failed_starts()
    }

    fn take_failed_reloads(&self) -> BTreeMap<UnitName, String> {
        self.inner.take_failed_reloads()
    }

    fn open_starts(&self) -> BTreeSet<UnitName> {
        self.inner.open_starts()
    }

    async fn user_space(&self) -> Result<u64, SystemdError> {
        self.link.fleetd.point().await;
        self.inner.user_space().await
    }

    async fn rest(&self, name: &UnitName) -> Result<Rest, SystemdError> {
        self.link.fleetd.point().await;
        self.inner.rest(name).await
    }

    async fn bonds(&self, name: &UnitName) -> Result<Option<Bonds>, SystemdError> {
        self.link.fleetd.point().await;
        self.inner.bonds(name).await
    }

    async fn stopped_with(&self, name: &UnitName) -> Result<Vec<UnitName>, SystemdError> {
        self.link.fleetd.point().await;
        self.inner.stopped_with(name).await
    }

    fn jobs_in_flight(&self) -> usize {
        self.inner.jobs_in_flight()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }
}
