//! A bare D-Bus client on one host's systemd: the yardstick. It keeps 64 calls in flight and waits
//! until all units are in the state.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fleet_tests::lab::Lab;
use futures_util::stream::{self, StreamExt};
use zbus::Connection;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

pub(crate) struct Bare {
    root: PathBuf,
    bus: Connection,
}

impl Bare {
    pub(crate) async fn connect(lab: &Lab, host: &str) -> Result<Bare> {
        let root = lab.path_in(host, "/")?;
        let address = format!("unix:path={}", root.join("run/dbus/system_bus_socket").display());
        let bus = zbus::connection::Builder::address(address.as_str())?.build().await?;
        Ok(Bare { root, bus })
    }

    /// The host's file system, from outside.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes unit files the way fleet does: one each, with a drop-in that spreads them over
    /// slices.
    pub(crate) fn write(&self, prefix: &str, count: usize, text: &str) -> Result<()> {
        let dir = self.root.join("run/systemd/system");
        for i in 1..=count {
            let name = format!("{prefix}@{i}.service");
            std::fs::create_dir_all(dir.join(format!("{name}.d")))?;
            std::fs::write(
                dir.join(format!("{name}.d/10-fleet.conf")),
                format!("[Service]\nSlice=fleet-{prefix}-{}.slice\n", i / 64),
            )?;
            std::fs::write(dir.join(&name), text)?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self, prefix: &str, count: usize) {
        let dir = self.root.join("run/systemd/system");
        for i in 1..=count {
            let _ = std::fs::remove_dir_all(dir.join(format!("{prefix}@{i}.service.d")));
            let _ = std::fs::remove_file(dir.join(format!("{prefix}@{i}.service")));
        }
    }

    /// Asks for `method` on all units, and waits until `active` of them are. Seconds.
    pub(crate) async fn all(
        &self,
        method: &str,
        prefix: &str,
        count: usize,
        active: usize,
    ) -> Result<f64> {
        let begin = Instant::now();
        let calls = stream::iter(1..=count).map(|i| {
            let name = format!("{prefix}@{i}.service");
            async move { self.call(method, &(name.as_str(), "replace")).await }
        });
        let answers: Vec<Result<()>> = calls.buffer_unordered(64).collect().await;
        ensure!(
            answers.iter().all(Result::is_ok),
            "a bare call failed: {:?}",
            answers.iter().find(|a| a.is_err())
        );
        self.wait(prefix, active).await?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Waits until exactly `count` units of the template are active. The cgroups are looked at
    /// first, which costs systemd nothing.
    pub(crate) async fn wait(&self, prefix: &str, count: usize) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            if self.cgroups(prefix) == count && self.active(prefix).await? == count {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} of {count} units of {prefix} are active after 180 s",
                self.active(prefix).await?
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn active(&self, prefix: &str) -> Result<usize> {
        let pattern = format!("{prefix}@*.service");
        let reply = self
            .bus
            .call_method(
                Some(SYSTEMD),
                "/org/freedesktop/systemd1",
                Some(MANAGER),
                "ListUnitsByPatterns",
                &(&["active"][..], &[pattern.as_str()][..]),
            )
            .await?;
        type Unit = (
            String,
            String,
            String,
            String,
            String,
            String,
            zbus::zvariant::OwnedObjectPath,
            u32,
            String,
            zbus::zvariant::OwnedObjectPath,
        );
        let units: Vec<Unit> = reply.body().deserialize()?;
        // A unit with a job is on its way, not there.
        Ok(units.iter().filter(|unit| unit.7 == 0).count())
    }

    pub(crate) async fn reload(&self) -> Result<()> {
        self.call("Reload", &()).await
    }

    pub(crate) async fn start(&self, name: &str) -> Result<()> {
        self.call("StartUnit", &(name, "replace")).await
    }

    async fn call<B: serde::Serialize + zbus::zvariant::DynamicType>(
        &self,
        method: &str,
        body: &B,
    ) -> Result<()> {
        self.bus
            .call_method(Some(SYSTEMD), "/org/freedesktop/systemd1", Some(MANAGER), method, body)
            .await?;
        Ok(())
    }

    /// The control groups of the template's units.
    fn cgroups(&self, prefix: &str) -> usize {
        let v1 = self.root.join("sys/fs/cgroup/systemd/fleet.slice");
        let fleet = if v1.exists() { v1 } else { self.root.join("sys/fs/cgroup/fleet.slice") };
        // Only the template's own: a walk over those of 4,000 other units every few milliseconds
        // would be measured, too.
        count(&fleet.join(format!("fleet-{prefix}.slice")), &format!("{prefix}@"))
    }

    /// The CPU time of the host's PID 1, in milliseconds.
    pub(crate) fn pid1_ms(&self) -> f64 {
        let process = self.root.parent().unwrap_or(Path::new("/"));
        let text = std::fs::read_to_string(process.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN)
            / 1e6
    }

    /// Waits until PID 1 has nothing left to do: what one measurement leaves behind must not count
    /// in the next.
    pub(crate) async fn settle(&self) {
        loop {
            let before = self.pid1_ms();
            tokio::time::sleep(Duration::from_millis(200)).await;
            if self.pid1_ms() - before < 2.0 {
                return;
            }
        }
    }
}

fn count(folder: &Path, prefix: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let mut found = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".slice") {
            found += count(&entry.path(), prefix);
        } else if name.starts_with(prefix) && name.ends_with(".service") {
            found += 1;
        }
    }
    found
}
