//! A lab whose fleetd works, and the questions that tests ask of it: what fleet says, and what each
//! host's own systemd says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fleet_core::wire::{Machine, MachinePage, Unit, UnitPage, UnitState, UnitStatePage};
use serde::de::DeserializeOwned;

use crate::lab::{HostState, Lab, Options, cache, exit_code, wait_for};

/// How long anything may take to happen that has no limit of its own. Far above what it does take:
/// the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How many labs may be up at once: most of a scenario is waiting for leases, but each lab boots up
/// to three hosts.
const LABS: usize = 4;

/// How often a scenario looks for a free place: short against any scenario.
const LOOK: Duration = Duration::from_millis(200);

/// A lab with fleetd registered on every host and one leader.
pub struct Cluster {
    /// Its hosts.
    pub lab: Lab,
}

/// What a host's member of etcd says of itself.
struct Member {
    id: u64,
    leader: u64,
    term: u64,
}

/// What a command said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The exit status; of a command ended by a signal, 128 and its number.
    pub code: i32,
    /// What it printed as data.
    pub out: String,
    /// What it said besides.
    pub err: String,
}

/// Active units as systemd itself knows them: unit and host to the main process, 0 where there is
/// none.
pub type Running = BTreeMap<(String, String), u32>;

/// Runs `body` on a cluster of its own. When it fails, prints what the hosts' fleetd had to say;
/// leaves nothing behind either way.
pub fn scenario(options: &Options, body: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let _turn = Turn::wait()?;
    let cluster = Cluster { lab: Lab::up(options)? };
    let ended =
        catch_unwind(AssertUnwindSafe(|| cluster.wait_until_ready().and_then(|()| body(&cluster))));
    if !matches!(ended, Ok(Ok(()))) {
        eprintln!("{}", cluster.diagnosis());
    }
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}

impl Cluster {
    /// Waits until every host that has power is registered and one of them leads.
    pub fn wait_until_ready(&self) -> Result<()> {
        let hosts = self.hosts();
        // Each host of an embedded lab is a cluster of one.
        let (asked, expected) = if self.lab.etcd_urls().is_empty() {
            (hosts.as_slice(), 1)
        } else {
            (&hosts[..1], hosts.len())
        };
        for host in asked {
            wait_for("all machines and a leader", PATIENCE, || {
                let machines = self.machines_by(host)?;
                let leaders = machines.iter().filter(|machine| machine.leader).count();
                ensure!(
                    machines.len() == expected && leaders == 1,
                    "{} machines, {leaders} lead",
                    machines.len()
                );
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The hosts that have power.
    pub fn hosts(&self) -> Vec<String> {
        self.lab
            .ls()
            .into_iter()
            .filter(|host| host.state == HostState::Running)
            .map(|host| host.name)
            .collect()
    }

    /// The host with this machine id.
    pub fn host_of(&self, machine_id: &str) -> Result<String> {
        let hosts = self.lab.ls().into_iter();
        let found = hosts
            .map(|host| host.name)
            .find(|host| self.lab.machine_id(host).is_ok_and(|id| id == machine_id));
        found.with_context(|| format!("no host has the machine id {machine_id:?}"))
    }

    /// Runs fleetctl in a host, whatever comes of it.
    pub fn fleetctl(&self, host: &str, args: &[&str]) -> Result<Said> {
        let all: Vec<&str> = ["fleetctl"].iter().chain(args).copied().collect();
        Ok(Said::from(self.lab.exec(host, &all)?))
    }

    /// Runs fleetctl in h1; it must end well. Answers with what it printed.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let said = self.fleetctl("h1", args)?;
        ensure!(
            said.code == 0,
            "`fleetctl {}` ended with {}: {}{}",
            args.join(" "),
            said.code,
            said.out,
            said.err
        );
        Ok(said.out)
    }

    /// Writes a unit file in h1, for fleetctl, and answers with its path there.
    pub fn write_unit(&self, name: &str, text: &str) -> Result<String> {
        let path = format!("/root/units/{name}");
        self.write("h1", &path, text)?;
        Ok(path)
    }

    /// Writes a unit file in h1 and submits it.
    pub fn submit(&self, name: &str, text: &str) -> Result<()> {
        let path = self.write_unit(name, text)?;
        self.ctl(&["submit", "--replace", &path]).map(drop)
    }

    /// Writes a unit file in h1 and starts it, waiting until it runs.
    pub fn start(&self, name: &str, text: &str) -> Result<()> {
        let path = self.write_unit(name, text)?;
        self.ctl(&["start", "--replace", &path]).map(drop)
    }

    /// Writes a file in a host.
    pub fn write(&self, host: &str, path: &str, text: &str) -> Result<()> {
        let mut command = self
            .lab
            .command(host, &["sh", "-c", r#"mkdir -p "$(dirname "$0")" && cat > "$0""#, path])?;
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("its standard input")?.write_all(text.as_bytes())?;
        ensure!(child.wait()?.success(), "cannot write {path} in {host}");
        Ok(())
    }

    /// Destroys every unit and waits until no host runs any of them.
    pub fn clean(&self) -> Result<()> {
        let names: Vec<String> = self
            .units()?
            .into_iter()
            .filter(|unit| unit.template.is_empty())
            .map(|unit| unit.name)
            .collect();
        let args: Vec<&str> =
            ["destroy"].into_iter().chain(names.iter().map(String::as_str)).collect();
        self.ctl(&args)?;
        wait_for("an empty cluster", PATIENCE, || {
            let left = self.states()?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
    }

    /// What the API of a host answers to a GET below `/fleet/v1/`.
    pub fn get<T: DeserializeOwned>(&self, host: &str, resource: &str) -> Result<T> {
        let url = format!("http://{}:4100/fleet/v1/{resource}", self.lab.address(host)?);
        let body = self.lab.http_get(&url)?;
        serde_json::from_str(&body).with_context(|| format!("{url} said {body}"))
    }

    /// The machines, as one host's fleetd sees them.
    pub fn machines_by(&self, host: &str) -> Result<Vec<Machine>> {
        Ok(self.get::<MachinePage>(host, "machines?pageSize=1000")?.machines)
    }

    /// The units, as h1's fleetd sees them.
    pub fn units(&self) -> Result<Vec<Unit>> {
        Ok(self.get::<UnitPage>("h1", "units?pageSize=1000")?.units)
    }

    /// The states, as h1's fleetd sees them.
    pub fn states(&self) -> Result<Vec<UnitState>> {
        Ok(self.get::<UnitStatePage>("h1", "state?pageSize=1000")?.states)
    }

    /// Which host leads.
    pub fn leader(&self) -> Result<String> {
        let host = self.hosts().into_iter().next().context("a host with power")?;
        self.leader_by(&host)
    }

    /// Which host leads, as one host's fleetd sees it.
    pub fn leader_by(&self, host: &str) -> Result<String> {
        let machines = self.machines_by(host)?;
        let leader = machines.iter().find(|machine| machine.leader).context("nobody leads")?;
        self.host_of(&leader.id)
    }

    /// What the hosts' systemds run of units with these names (`*` and `?` are patterns), asked of
    /// them and not of fleet.
    pub fn running(&self, patterns: &[&str]) -> Result<Running> {
        let mut running = Running::new();
        for host in self.hosts() {
            for (unit, pid) in self.running_on(&host, patterns)? {
                running.insert((unit, host.clone()), pid);
            }
        }
        Ok(running)
    }

    /// The same for one host: active units to main processes.
    pub fn running_on(&self, host: &str, patterns: &[&str]) -> Result<BTreeMap<String, u32>> {
        let args: Vec<&str> = ["systemctl", "show", "--property=Id,ActiveState,MainPID", "--"]
            .iter()
            .chain(patterns)
            .copied()
            .collect();
        let output = self.lab.exec(host, &args)?;
        ensure!(
            output.status.success(),
            "systemctl in {host}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut running = BTreeMap::new();
        for block in String::from_utf8(output.stdout)?.split("\n\n") {
            let value = |key: &str| {
                block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            };
            // Whatever is not down counts: a copy that is still stopping is a second copy.
            if let (Some(unit), Some("active" | "activating" | "deactivating" | "reloading")) =
                (value("Id"), value("ActiveState"))
            {
                running.insert(unit.to_owned(), value("MainPID").unwrap_or("0").parse()?);
            }
        }
        Ok(running)
    }

    /// Waits until systemd runs exactly `names` among `patterns`, each once.
    pub fn wait_for_exactly(
        &self,
        patterns: &[&str],
        names: &[String],
        limit: Duration,
    ) -> Result<Running> {
        let mut wanted = names.to_vec();
        wanted.sort();
        wait_for(&format!("{} units, each once", wanted.len()), limit, || {
            let running = self.running(patterns)?;
            let mut units: Vec<String> = running.keys().map(|(unit, _)| unit.clone()).collect();
            units.sort();
            ensure!(units == wanted, "there are {:?}", running.keys());
            Ok(running)
        })
    }

    /// Watches for a time that nothing of `before` stops, moves, restarts or comes up twice; fails
    /// at the first deviation.
    pub fn nothing_happens(
        &self,
        patterns: &[&str],
        before: &Running,
        time: Duration,
    ) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            let now = self.running(patterns)?;
            let after = start.elapsed().as_secs_f64();
            ensure!(now == *before, "after {after:.1} s: {}", difference(before, &now));
            std::thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    }

    /// Makes the host's member lead etcd.
    pub fn lead_store_from(&self, host: &str) -> Result<()> {
        let (wanted, leads) = self.store_member(host).map(|member| (member.id, member.leader))?;
        for leader in self.hosts() {
            if wanted != leads && self.store_member(&leader)?.id == leads {
                let endpoint = self.store_endpoint(&leader)?;
                let command =
                    format!("ETCDCTL_API=3 etcdctl --endpoints {endpoint} move-leader {wanted:x}");
                self.lab.sh("h1", &command)?;
            }
        }
        let member = self.store_member(host)?;
        ensure!(member.id == member.leader, "{host}'s member of etcd does not lead");
        Ok(())
    }

    /// How many elections etcd's members have held, as the member of one host counts them (Raft's
    /// term).
    pub fn store_term(&self, host: &str) -> Result<u64> {
        Ok(self.store_member(host)?.term)
    }

    fn store_endpoint(&self, host: &str) -> Result<String> {
        Ok(format!("http://{}:2379", self.lab.address(host)?))
    }

    fn store_member(&self, host: &str) -> Result<Member> {
        let endpoint = self.store_endpoint(host)?;
        let text = self.lab.sh(
            host,
            &format!("ETCDCTL_API=3 etcdctl --endpoints {endpoint} endpoint status -w json"),
        )?;
        let answer: serde_json::Value = serde_json::from_str(&text)?;
        let number = |path: &str| {
            answer.pointer(path).and_then(serde_json::Value::as_u64).context(text.clone())
        };
        Ok(Member {
            id: number("/0/Status/header/member_id")?,
            leader: number("/0/Status/leader")?,
            term: number("/0/Status/raftTerm")?,
        })
    }

    /// Everything below fleet's prefix in etcd, keys and values with their revisions, as etcdctl
    /// prints it.
    pub fn store(&self) -> Result<String> {
        let text = self.lab.sh("h1", "ETCDCTL_API=3 etcdctl get --prefix /fleet -w json")?;
        let answer: serde_json::Value = serde_json::from_str(&text)?;
        Ok(answer["kvs"].to_string())
    }

    /// etcd's own counter of writes.
    pub fn store_revision(&self) -> Result<u64> {
        let text = self.lab.sh("h1", "ETCDCTL_API=3 etcdctl get /none -w json")?;
        let answer: serde_json::Value = serde_json::from_str(&text)?;
        answer["header"]["revision"].as_u64().with_context(|| format!("no revision in {text}"))
    }

    /// The machines, the units and the last words of each fleetd.
    fn diagnosis(&self) -> String {
        let mut text = String::new();
        for host in self.hosts() {
            let fields = "--fields=unit,machine,active,sub,result,restarts,message";
            let parts: [&[&str]; 3] = [
                &[
                    "timeout",
                    "5",
                    "fleetctl",
                    "list-machines",
                    "--fields=machine,ip,metadata,leader",
                ],
                &["timeout", "5", "fleetctl", "list-units", fields],
                &[
                    "timeout",
                    "5",
                    "journalctl",
                    "--no-pager",
                    "--unit=fleetd",
                    "--unit=fleet-keeper",
                    "--unit=fleet-guard",
                    "--lines=80",
                    "--output=short-precise",
                ],
            ];
            for args in parts.iter().skip(if host == "h1" { 0 } else { 2 }) {
                let said = self.lab.exec(&host, args).map(Said::from);
                let _ = writeln!(
                    text,
                    "--- {host}: {}\n{}",
                    args[2..].join(" "),
                    said.map_or_else(|e| e.to_string(), |s| s.out + &s.err)
                );
            }
        }
        text
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            code: i32::from(exit_code(output.status)),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What is in one and not in the other, in words.
fn difference(before: &Running, now: &Running) -> String {
    let mut said = Vec::new();
    for ((unit, host), pid) in before {
        match now.get(&(unit.clone(), host.clone())) {
            None => said.push(format!("{unit} is gone from {host}")),
            Some(other) if other != pid => {
                said.push(format!("{unit} on {host} had pid {pid}, now {other}"))
            }
            Some(_) => {}
        }
    }
    said.extend(
        now.keys()
            .filter(|key| !before.contains_key(*key))
            .map(|(unit, host)| format!("{unit} has come up on {host}")),
    );
    said.join("; ")
}

/// The names `web@1.service` to `web@N.service`.
pub fn replicas(prefix: &str, count: u32) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}@{number}.service")).collect()
}

/// Tries for a while what is expected to end within `limit`, and fails naming both times if it took
/// longer.
pub fn within<T>(
    what: &str,
    limit: Duration,
    since: Instant,
    probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let left = limit.saturating_sub(since.elapsed());
    match wait_for(what, left, probe) {
        Ok(value) => Ok(value),
        Err(error) => bail!("{what} did not happen within {} s: {error:#}", limit.as_secs_f64()),
    }
}

/// A place among the labs that may be up at once on this machine, whichever programs they are of.
/// Held for as long as this lives: the kernel gives a lock back also when its holder is killed.
struct Turn {
    _place: File,
}

impl Turn {
    fn wait() -> Result<Turn> {
        let folder = cache();
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        loop {
            for number in 1..=LABS {
                let path = folder.join(format!(".place-{number}"));
                let place =
                    File::create(&path).with_context(|| format!("open {}", path.display()))?;
                match place.try_lock() {
                    Ok(()) => return Ok(Turn { _place: place }),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => {
                        return Err(error).with_context(|| format!("lock {}", path.display()));
                    }
                }
            }
            std::thread::sleep(LOOK);
        }
    }
}
