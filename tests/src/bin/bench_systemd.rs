//! Measures fleetd's systemd against a bare D-Bus loop on the booted host in
//! FLEET_TEST_SYSTEMD_ROOT: `bench_systemd rate|burst|list|dropin|slices`.
#![allow(clippy::print_stdout, reason = "the figures are its output")]

use std::time::{Duration, Instant};

use fleet_core::name::UnitName;
use fleetd::systemd::dbus::{Bus, DbusSystemd, Options};
use fleetd::systemd::{Job, Systemd};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use zbus::{Connection, MatchRule, MessageStream};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SLEEPS: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
const ROUNDS: usize = 5;

struct Bench {
    root: String,
    systemd: DbusSystemd,
    bare: Connection,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let root = std::env::var("FLEET_TEST_SYSTEMD_ROOT")?;
    let address = format!("unix:path={root}/run/dbus/system_bus_socket");
    let options = Options {
        bus: Bus::Address(address.clone()),
        root: root.clone().into(),
        ..Options::default()
    };
    let systemd = DbusSystemd::connect(options).await?;
    let bare = zbus::connection::Builder::address(address.as_str())?.build().await?;
    let bench = Bench { root, systemd, bare };
    match std::env::args().nth(1).as_deref() {
        Some("rate") => bench.rate().await,
        Some("burst") => bench.burst().await,
        Some("list") => bench.list().await,
        Some("dropin") => bench.drop_in().await,
        Some("slices") => bench.slices().await,
        _ => anyhow::bail!("rate, burst, list, dropin or slices"),
    }
}

impl Bench {
    /// Starts and stops of 300 units: `queue` against a loop of 64 bare calls that waits for all
    /// ends as well.
    async fn rate(&self) -> anyhow::Result<()> {
        let names = names("rate", 300);
        self.write(&names, SLEEPS, "[Unit]\nDescription=x\n").await?;
        let mut rates: [Vec<f64>; 4] = Default::default();
        let mut dear: [Vec<f64>; 2] = Default::default();
        // The first round warms both up.
        for round in 0..=ROUNDS {
            for way in [round % 2, 1 - round % 2] {
                self.settle().await;
                let cpu = self.pid1();
                let start = if way == 0 {
                    self.ours(&names, Job::Start).await?
                } else {
                    self.bare(&names, "StartUnit").await?
                };
                self.settle().await;
                let cpu = self.pid1() - cpu;
                let stop = if way == 0 {
                    self.ours(&names, Job::Stop).await?
                } else {
                    self.bare(&names, "StopUnit").await?
                };
                if round > 0 {
                    rates[way].push(300.0 / start);
                    rates[2 + way].push(300.0 / stop);
                    dear[way].push(cpu / 300.0);
                }
            }
        }
        let [start, bare_start, stop, bare_stop] = rates.map(median);
        println!("start {start:.0}/s, bare {bare_start:.0}/s: {:.2}", start / bare_start);
        println!("stop {stop:.0}/s, bare {bare_stop:.0}/s: {:.2}", stop / bare_stop);
        let [ours, bare] = dear.map(median);
        println!(
            "PID 1 CPU a start: {ours:.2} ms, bare {bare:.2} ms; {:?}",
            self.systemd.counters()
        );
        self.clear(&names).await
    }

    /// 5,000 starts asked at once, then 5,000 stops.
    async fn burst(&self) -> anyhow::Result<()> {
        let names = names("burst", 5000);
        self.write_sliced(&names).await?;
        let start = self.ours(&names, Job::Start).await?;
        let running = self
            .systemd
            .list(&names)
            .await?
            .values()
            .filter(|unit| unit.active == "active")
            .count();
        let stop = self.ours(&names, Job::Stop).await?;
        println!(
            "5000 starts in {start:.1} s, {running} active, 5000 stops in {stop:.1} s; {:?}",
            self.systemd.counters()
        );
        self.clear(&names).await
    }

    /// PID 1's CPU for the ways to list units: of those only written, and of those running; then
    /// signals instead of lists.
    async fn list(&self) -> anyhow::Result<()> {
        let names = names("list", 1000);
        self.write_sliced(&names).await?;
        let none: Vec<&str> = Vec::new();
        for running in [0, 100, 300, 1000] {
            self.ours(&names[..running], Job::Start).await?;
            for count in [100, 300, 1000] {
                let text: Vec<&str> = names[..count].iter().map(|name| name.as_str()).collect();
                let ours = self
                    .cost(20, || async {
                        self.systemd.list(&names[..count]).await.map(|_| ()).map_err(Into::into)
                    })
                    .await?;
                let by_names = self
                    .cost(20, || async { self.manager("ListUnitsByNames", &(&text,)).await })
                    .await?;
                let by_patterns = self
                    .cost(10, || async {
                        self.manager("ListUnitsByPatterns", &(&none, &text)).await
                    })
                    .await?;
                println!(
                    "{count} asked, {running} of 1000 run: list {:.2} ms PID 1, {:.2} ms wall; by \
                        names {:.2}, {:.2}; by patterns {:.2}, {:.2}",
                    ours.0, ours.1, by_names.0, by_names.1, by_patterns.0, by_patterns.1
                );
            }
        }
        let begin = Instant::now();
        for name in &names {
            self.systemd.host_defines(name).await?;
        }
        println!("host_defines of 1000 names: {:.1} ms", begin.elapsed().as_secs_f64() * 1000.0);
        self.ours(&names, Job::Stop).await?;
        let few = &names[..300];
        for subscribed in [false, true, false, true] {
            self.manager(if subscribed { "Subscribe" } else { "GetId" }, &()).await.ok();
            let cpu = self.pid1();
            self.ours(few, Job::Start).await?;
            println!(
                "subscribed {subscribed}: {:.2} ms of PID 1's CPU a start",
                (self.pid1() - cpu) / 300.0
            );
            self.ours(few, Job::Stop).await?;
            if subscribed {
                self.manager("Unsubscribe", &()).await?;
            }
        }
        self.clear(&names).await
    }

    /// The same settings in a drop-in and in the unit file itself.
    async fn drop_in(&self) -> anyhow::Result<()> {
        let settings = "[Unit]\nDescription=x\nStartLimitIntervalSec=0\n[Service]\nSlice=fleet.slice\nEnvironment=A=b\n";
        let names = names("dropin", 300);
        let dir = format!("{}/run/systemd/system", self.root);
        let mut rates: [Vec<f64>; 2] = Default::default();
        for round in 0..=ROUNDS {
            for way in [0, 1] {
                if way == 0 {
                    self.write(&names, SLEEPS, settings).await?;
                } else {
                    for name in &names {
                        std::fs::write(format!("{dir}/{name}"), format!("{SLEEPS}{settings}"))?;
                    }
                }
                let took = self.ours(&names, Job::Start).await?;
                if round > 0 {
                    rates[way].push(300.0 / took);
                }
                self.ours(&names, Job::Stop).await?;
                self.clear(&names).await?;
            }
        }
        let [drop_in, inline] = rates.map(median);
        println!("with drop-in {drop_in:.0}/s, inline {inline:.0}/s: {:.2}", drop_in / inline);
        Ok(())
    }

    /// What 50 more units cost beside 250 and 4,000 running ones, in one slice and in 64.
    async fn slices(&self) -> anyhow::Result<()> {
        for sliced in [true, false] {
            let (crowd, more) = (names("crowd", 4000), names("more", 50));
            let mut running = 0;
            for size in [250, 4000] {
                let new = &crowd[running..size];
                match sliced {
                    true => self.write_sliced(new).await?,
                    false => self.write(new, SLEEPS, "[Service]\nSlice=fleetflat.slice\n").await?,
                }
                self.ours(new, Job::Start).await?;
                running = size;
                for _ in 0..3 {
                    let (cpu, begin) = (self.pid1(), Instant::now());
                    match sliced {
                        true => self.write_sliced(&more).await?,
                        false => {
                            self.write(&more, SLEEPS, "[Service]\nSlice=fleetflat.slice\n").await?
                        }
                    }
                    self.ours(&more, Job::Start).await?;
                    let (wall, start_cpu) = (begin.elapsed().as_secs_f64(), self.pid1() - cpu);
                    let cpu = self.pid1();
                    self.ours(&more, Job::Stop).await?;
                    let stop_cpu = self.pid1() - cpu;
                    self.clear(&more).await?;
                    println!(
                        "64 slices {sliced}, {size} running: write+start {:.2} ms wall, {:.2} ms \
                            PID 1 a unit; stop {:.2} ms PID 1",
                        wall * 20.0,
                        start_cpu / 50.0,
                        stop_cpu / 50.0
                    );
                }
            }
            let begin = Instant::now();
            self.systemd.reload().await?;
            println!("64 slices {sliced}: reload at 4000 {:.0} ms", begin.elapsed().as_millis());
            let stop = self.ours(&crowd, Job::Stop).await?;
            println!("64 slices {sliced}: 4000 stopped at {:.0}/s", 4000.0 / stop);
            self.clear(&crowd).await?;
        }
        Ok(())
    }

    async fn write(&self, names: &[UnitName], text: &str, drop_in: &str) -> anyhow::Result<()> {
        for name in names {
            self.systemd.write(name, text, drop_in).await?;
        }
        Ok(())
    }

    async fn write_sliced(&self, names: &[UnitName]) -> anyhow::Result<()> {
        for (i, name) in names.iter().enumerate() {
            self.systemd
                .write(name, SLEEPS, &format!("[Service]\nSlice=fleet-{}.slice\n", i % 64))
                .await?;
        }
        Ok(())
    }

    async fn clear(&self, names: &[UnitName]) -> anyhow::Result<()> {
        for name in names {
            self.systemd.remove(name).await?;
        }
        Ok(())
    }

    /// Seconds until all jobs ended.
    async fn ours(&self, names: &[UnitName], job: Job) -> anyhow::Result<f64> {
        let begin = Instant::now();
        for queued in join_all(names.iter().map(|name| self.systemd.queue(name, job))).await {
            queued?;
        }
        self.systemd.changes().wait_for(|_| self.systemd.jobs_in_flight() == 0).await?;
        Ok(begin.elapsed().as_secs_f64())
    }

    async fn bare(&self, names: &[UnitName], method: &str) -> anyhow::Result<f64> {
        let rule = MatchRule::builder()
            .interface(MANAGER)?
            .member("JobRemoved")?
            .msg_type(zbus::message::Type::Signal)
            .build();
        let ends = MessageStream::for_match_rule(rule, &self.bare, Some(1024)).await?;
        let begin = Instant::now();
        let count = names.len();
        let all_ended = tokio::spawn(ends.take(count).for_each(|_| async {}));
        let calls = stream::iter(names)
            .map(|name| async move { self.manager(method, &(name.as_str(), "replace")).await });
        calls.buffer_unordered(64).collect::<Vec<_>>().await;
        tokio::time::timeout(Duration::from_secs(60), all_ended).await??;
        Ok(begin.elapsed().as_secs_f64())
    }

    async fn manager<B>(&self, method: &str, body: &B) -> anyhow::Result<()>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        self.bare
            .call_method(Some(SYSTEMD), "/org/freedesktop/systemd1", Some(MANAGER), method, body)
            .await?;
        Ok(())
    }

    /// Waits until PID 1 has nothing left to do: what one measurement leaves behind must not count
    /// in the next.
    async fn settle(&self) {
        loop {
            let before = self.pid1();
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.pid1() - before < 0.5 {
                return;
            }
        }
    }

    /// PID 1's CPU and the wall time of one call, in ms.
    async fn cost<F: Future<Output = anyhow::Result<()>>>(
        &self,
        times: u32,
        call: impl Fn() -> F,
    ) -> anyhow::Result<(f64, f64)> {
        call().await?;
        let (cpu, begin) = (self.pid1(), Instant::now());
        for _ in 0..times {
            call().await?;
        }
        Ok((
            (self.pid1() - cpu) / f64::from(times),
            begin.elapsed().as_secs_f64() * 1000.0 / f64::from(times),
        ))
    }

    /// The CPU time of the host's PID 1, in ms. The host's root is `/proc/PID/root`.
    fn pid1(&self) -> f64 {
        let stat =
            std::fs::read_to_string(format!("{}/schedstat", self.root.trim_end_matches("/root")))
                .unwrap_or_default();
        stat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN)
            / 1e6
    }
}

fn names(prefix: &str, count: usize) -> Vec<UnitName> {
    (0..count).map(|i| UnitName::trusted(format!("fleetbench-{prefix}@{i}.service"))).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
