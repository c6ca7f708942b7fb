//! The changes, each under load.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::{HostState, Options, wait_for};

use super::load::Counted;

/// How many instances there are.
const WANTED: usize = 12;

/// The ports that instances and their spares may have: `INSTANCE_PORTS` and the number.
pub(crate) const PORTS: [u16; 18] = {
    let (mut ports, mut number) = ([0; 18], 0);
    while number < 18 {
        let instance = number as u16 + 1;
        ports[number] = if instance < 10 { 810 + instance } else { 8100 + instance };
        number += 1;
    }
    ports
};

/// How long a change may take.
const LIMIT: Duration = Duration::from_secs(300);

type Change = fn(&Bench<'_>) -> Result<String>;

/// Its name, what it is, how it is made: with its own word about the end.
pub(crate) const CHANGES: [(&str, &str, Change); 6] = [
    ("update", "update of 12, stop-first", |bench| bench.update("stop-first")),
    ("start-first", "update of 12, start-first", |bench| bench.update("start-first")),
    ("crash", "a text that crashes, undone", |bench| bench.crash()),
    ("answers-500", "a text that answers 500, undone", |bench| bench.answers_500()),
    ("drain", "drain of one machine of three, start-first", |bench| bench.drain()),
    ("reboot", "reboot of one machine by FleetLock, start-first", |bench| bench.reboot()),
];

pub(crate) fn run(wanted: impl Fn(&str) -> bool) -> Result<()> {
    let options = Options { name: "bench-changes".into(), hosts: 3, ..Options::default() };
    scenario(&options, |cluster| {
        let bench = Bench::new(cluster)?;
        for (name, what, change) in CHANGES.iter().filter(|(name, ..)| wanted(name)) {
            bench.begin()?;
            let load = bench.load()?;
            std::thread::sleep(Duration::from_secs(2)); // how it is without the change
            let from = Instant::now();
            let ended = change(&bench).with_context(|| name.to_string())?;
            let took = from.elapsed().as_secs_f64();
            let counted = counted(load)?;
            let failed: u64 = counted.failed.values().sum();
            println!(
                "{what}: {took:.1} s, {failed} of {} requests failed {:?}, fewest of {WANTED} \
                    answering {}, most {}; {ended}",
                counted.sent, counted.failed, counted.fewest, counted.most
            );
            bench.settle()?;
        }
        Ok(())
    })
}

pub(crate) struct Bench<'a> {
    cluster: &'a Cluster,
    /// This program, in the hosts.
    program: String,
}

impl<'a> Bench<'a> {
    fn new(cluster: &'a Cluster) -> Result<Bench<'a>> {
        let own = std::env::current_exe()?;
        let mut program = String::new();
        for host in cluster.hosts() {
            program = cluster.lab.hand(&host, "bench_changes", &own)?;
        }
        Ok(Bench { cluster, program })
    }

    /// The unit's text; `version` makes it another one.
    fn text(&self, version: &str, order: &str, status: u16) -> String {
        format!(
            "[Service]\nExecStart={} serve 81%i {status}\nRestart=always\nTimeoutStopSec=10\n\
            Environment=VERSION={version}\n[X-Fleet]\nUpdateOrder={order}\n\
            HealthCheck=http://:81%i/\nHealthInterval=1s\nHealthyDeadline=30s\n",
            self.program
        )
    }

    /// All instances answer, with the first text.
    fn begin(&self) -> Result<()> {
        self.cluster.submit("web@.service", &self.text("1", "start-first", 200))?;
        self.cluster.ctl(&["scale", &format!("web={WANTED}")])?;
        // Then it is a text to go back to.
        self.cluster.ctl(&["rollout", "status", "web@"])?;
        self.all_are_healthy()
    }

    fn all_are_healthy(&self) -> Result<()> {
        wait_for("all instances to be healthy", LIMIT, || {
            let states = self.cluster.states()?;
            let good = states.iter().filter(|state| state.systemd_active_state == "active").count();
            ensure!(good == WANTED && states.len() == WANTED, "{good} of {}", states.len());
            let list = self.cluster.ctl(&["list-units", "--no-legend", "--fields=health"])?;
            let healthy = list.lines().filter(|line| line.trim() == "healthy").count();
            ensure!(healthy == WANTED, "{healthy} healthy: {list}");
            Ok(())
        })
    }

    /// Between two changes: nothing of the last one is left.
    fn settle(&self) -> Result<()> {
        self.cluster.clean()
    }

    fn load(&self) -> Result<Child> {
        let lab = &self.cluster.lab;
        let mut command = lab.outside(std::env::current_exe()?.to_str().context("its name")?);
        command.arg("load");
        for host in self.cluster.hosts() {
            command.arg(lab.address(&host)?);
        }
        Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
    }

    fn replace(&self, text: &str) -> Result<String> {
        let path = self.cluster.write_unit("web@.service", text)?;
        let said = self.cluster.fleetctl("h1", &["start", "--replace", &path])?;
        self.all_are_healthy()?;
        Ok(format!("exit status {}", said.code))
    }

    fn update(&self, order: &str) -> Result<String> {
        if order != "start-first" {
            self.cluster.submit("web@.service", &self.text("1", order, 200))?;
        }
        let ended = self.replace(&self.text("2", order, 200))?;
        ensure!(ended == "exit status 0", "{ended}");
        Ok(ended)
    }

    fn crash(&self) -> Result<String> {
        let text = self.text("2", "stop-first", 200).replace(&self.program, "/bin/false");
        self.replace(&text)
    }

    fn answers_500(&self) -> Result<String> {
        self.replace(&self.text("2", "stop-first", 500))
    }

    fn drain(&self) -> Result<String> {
        let machine = self.cluster.lab.machine_id("h3")?;
        self.cluster.ctl(&["drain", machine])?;
        self.all_are_healthy()?;
        self.cluster.ctl(&["uncordon", machine])?;
        Ok("drained".into())
    }

    /// As Zincati does: asks until it is allowed, reboots, tells that it is back.
    fn reboot(&self) -> Result<String> {
        let lab = &self.cluster.lab;
        wait_for("the permission to reboot", LIMIT, || self.fleet_lock("pre-reboot"))?;
        lab.sh("h3", "systemctl poweroff --no-block")?;
        wait_for("h3 to be off", PATIENCE, || {
            let off =
                lab.ls().iter().any(|host| host.name == "h3" && host.state != HostState::Running);
            ensure!(off, "it is on");
            Ok(())
        })?;
        lab.boot("h3")?;
        lab.hand("h3", "bench_changes", &std::env::current_exe()?)?;
        self.cluster.wait_until_ready()?;
        wait_for("the lock to be given back", LIMIT, || self.fleet_lock("steady-state"))?;
        self.all_are_healthy()?;
        let listed = self.cluster.ctl(&["list-machines"])?;
        ensure!(!listed.contains("rained"), "{listed}");
        Ok("rebooted".into())
    }

    fn fleet_lock(&self, step: &str) -> Result<()> {
        let lab = &self.cluster.lab;
        let body = format!(
            r#"{{"client_params":{{"id":"{}","group":"default"}}}}"#,
            lab.machine_id("h3")?
        );
        let url = format!("http://{}:4100/v1/{step}", lab.address("h1")?);
        let output = lab
            .outside("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "10", "-H", "fleet-lock-protocol: true"])
            .args(["-H", "Content-Type: application/json"])
            .args(["-d", &body, "-w", " %{http_code}", &url])
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success() && said.ends_with(" 200"), "{said}");
        Ok(())
    }
}

fn counted(mut load: Child) -> Result<Counted> {
    drop(load.stdin.take());
    let output = load.wait_with_output()?;
    if !output.status.success() {
        bail!("the client ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("what the client counted")
}
