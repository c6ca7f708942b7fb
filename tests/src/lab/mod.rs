//! Real hosts on one machine: each a booted systemd with its own network, disks, etcd and fleetd.
//!
//! A lab lives in its state folder, its cgroups and its network namespace; all three are named
//! after it and nothing of it is anywhere else. So any process can attach to it, and `down` can
//! clear it also after its maker was killed.

mod cgroup;
mod files;
mod host;
mod network;
mod options;
mod process;
mod setup;
mod signals;
mod state;
mod wait;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

pub use files::RECORDS;
pub use host::exit_code;
pub use options::{DEFAULT_NAME, Options, Store, address, machine_id};
pub use setup::{bin_folder, build, cache, packages, programs, setup};
pub use wait::wait_for;

use state::{Folder, HostSpec, Spec};

/// etcd is up some 0.5 s after its host; three members on a busy machine take longer to agree.
const ETCD_LIMIT: Duration = Duration::from_secs(30);

/// Taking three hosts down takes 0.2 s.
const DOWN_LIMIT: Duration = Duration::from_secs(10);

/// A host as `ls` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// h1, h2, …
    pub name: String,
    /// IPv4 address on the lab's network.
    pub address: String,
    /// The pid, on this machine, of the host's systemd; none while it is stopped.
    pub init_pid: Option<u32>,
    /// Whether it has power.
    pub state: HostState,
}

/// Whether a host has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// Its systemd lives.
    Running,
    /// It was killed, or has shut itself down or rebooted itself; its disks are kept, and `boot`
    /// starts it.
    Stopped,
}

/// A lab that is up. One made by [`Lab::up`] goes down when it is dropped; one attached to stays.
#[derive(Debug)]
pub struct Lab {
    folder: Folder,
    spec: Spec,
    owned: bool,
}

impl Lab {
    /// Boots the hosts side by side and, with etcd, waits until every member is healthy.
    ///
    /// Clears what a lab of this name left behind if its owner was killed. Fails, leaving nothing,
    /// if a host does not come up, and on SIGINT, SIGTERM and SIGHUP takes the lab down and ends
    /// the program.
    pub fn up(options: &Options) -> Result<Lab> {
        options.check()?;
        let image = setup::install(&setup()?)?;
        let folder = Folder::new(&options.name)?;
        clear_abandoned(&folder)?;
        ensure!(
            !folder.exists(),
            "lab {0} is up already, or was left by a killed `up`; `cargo lab down --name {0}` \
                clears it",
            folder.name
        );
        let spec = options.spec(image);
        signals::own(&folder.name);
        // From here on dropping it clears what there is.
        let lab = Lab { folder, spec, owned: true };
        lab.start(options)?;
        Ok(lab)
    }

    /// The lab of this name that is up.
    pub fn attach(name: &str) -> Result<Lab> {
        let folder = Folder::new(name)?;
        let spec = folder.read_spec()?;
        Ok(Lab { folder, spec, owned: false })
    }

    /// Lets the lab live on after this program.
    pub fn keep(mut self) -> Result<()> {
        signals::yield_to_clean_up();
        self.spec.owner = None;
        self.folder.write_spec(&self.spec)?;
        self.owned = false;
        signals::disown(&self.folder.name);
        Ok(())
    }

    /// Ends all hosts and removes all that is the lab's.
    pub fn down(mut self) -> Result<()> {
        signals::yield_to_clean_up();
        self.owned = false;
        let result = down_named(&self.folder.name);
        signals::disown(&self.folder.name);
        result
    }

    /// The hosts, in order.
    pub fn ls(&self) -> Vec<Host> {
        self.spec.hosts.iter().map(|host| self.show(host)).collect()
    }

    /// Runs a command in the host and returns its output and exit status, whatever they are.
    pub fn exec(&self, host: &str, args: &[&str]) -> Result<Output> {
        let mut command = self.command(host, args)?;
        command.output().with_context(|| format!("run `{}` in {host}", args.join(" ")))
    }

    /// Runs a command in the host that must succeed, and returns what it printed.
    pub fn sh(&self, host: &str, script: &str) -> Result<String> {
        let output = self.exec(host, &["sh", "-c", script])?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{script}` in {host} failed ({}): {}", output.status, said.trim());
        }
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// A command that will run in the host as root, for a caller who connects the streams.
    pub fn command(&self, host: &str, args: &[&str]) -> Result<Command> {
        self.spec.host(host)?;
        host::command(&self.folder, host, args)
    }

    /// Power loss: everything in the host is gone at once, its disks stay.
    pub fn kill(&self, host: &str) -> Result<()> {
        self.spec.host(host)?;
        host::kill(&self.folder, host)
    }

    /// Boots a stopped host: same machine id, same disks, cable plugged in.
    pub fn boot(&self, host: &str) -> Result<()> {
        host::boot(&self.folder, &self.spec, self.spec.host(host)?)
    }

    /// Unplugs the host's network cable.
    pub fn cut(&self, host: &str) -> Result<()> {
        self.running_pid(host)?;
        network::set_link(&self.folder.net(), host, false)
    }

    /// Plugs the cable back in, and takes back all one-way cuts of the lab.
    pub fn heal(&self, host: &str) -> Result<()> {
        self.running_pid(host)?;
        network::clear_one_way(&self.folder.net())?;
        network::set_link(&self.folder.net(), host, true)
    }

    /// Drops what one host sends to another, and only that.
    pub fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.spec.host(from)?, self.spec.host(to)?);
        network::drop_one_way(&self.folder.net(), &from.address, &to.address)
    }

    /// A command with this machine's files on the lab's network, from where all hosts can be
    /// reached.
    pub fn outside(&self, program: &str) -> Command {
        network::command(&self.folder.net(), program)
    }

    /// The body of an HTTP answer, asked for from outside the hosts; limit 5 s.
    pub fn http_get(&self, url: &str) -> Result<String> {
        let mut command = self.outside("curl");
        let output =
            command.args(["-sS", "--fail", "--noproxy", "*", "--max-time", "5", url]).output()?;
        if !output.status.success() {
            bail!("GET {url}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The pid, on this machine, of the host's systemd.
    pub fn running_pid(&self, host: &str) -> Result<u32> {
        self.spec.host(host)?;
        let run = self.folder.running(host);
        Ok(run.with_context(|| format!("{host} does not run"))?.init.pid)
    }

    /// A file of a running host as seen from outside, for instance its /run/fleet.sock.
    pub fn path_in(&self, host: &str, path: &str) -> Result<PathBuf> {
        let pid = self.running_pid(host)?;
        Ok(PathBuf::from(format!("/proc/{pid}/root/{}", path.trim_start_matches('/'))))
    }

    /// The host's IPv4 address.
    pub fn address(&self, host: &str) -> Result<&str> {
        Ok(&self.spec.host(host)?.address)
    }

    /// The host's machine id: 32 hexadecimal digits, the same at every boot.
    pub fn machine_id(&self, host: &str) -> Result<&str> {
        Ok(&self.spec.host(host)?.machine_id)
    }

    /// The URLs of the etcd members' client ports; none with the embedded store.
    pub fn etcd_urls(&self) -> Vec<String> {
        let members = self.spec.members().iter();
        members.map(|member| format!("http://{}:2379", member.address)).collect()
    }

    /// Hands a file of this machine to the host, which may be running. Returns its path there.
    pub fn hand(&self, host: &str, name: &str, from: &Path) -> Result<String> {
        self.spec.host(host)?;
        files::hand(&self.folder, host, name, from)
    }

    /// The folder of the host's disks and console log, on this machine.
    pub fn host_folder(&self, host: &str) -> Result<PathBuf> {
        self.spec.host(host)?;
        Ok(self.folder.host(host))
    }

    /// Where, on this machine, the records of the host's test units are; see [`crate::record`].
    pub fn records(&self, host: &str) -> Result<PathBuf> {
        Ok(self.host_folder(host)?.join("records"))
    }

    fn start(&self, options: &Options) -> Result<()> {
        self.folder.create()?;
        self.folder.write_spec(&self.spec)?;
        network::create(&self.folder.net(), &format!("{}.1", options::subnet(&self.spec.name)))?;
        in_parallel(&self.spec.hosts, |host| {
            files::lay_out(&self.folder, &self.spec, host, options)?;
            host::boot(&self.folder, &self.spec, host)
        })?;
        in_parallel(&self.etcd_urls(), |url| {
            wait_for(&format!("etcd at {url}"), ETCD_LIMIT, || {
                let health = self.http_get(&format!("{url}/health"))?;
                ensure!(health.contains(r#""health":"true""#), "it says {}", health.trim());
                Ok(())
            })
        })
    }

    fn show(&self, host: &HostSpec) -> Host {
        let run = self.folder.running(&host.name);
        Host {
            name: host.name.clone(),
            address: host.address.clone(),
            init_pid: run.map(|run| run.init.pid),
            state: if run.is_some() { HostState::Running } else { HostState::Stopped },
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        signals::yield_to_clean_up();
        if let Err(error) = down_named(&self.folder.name) {
            eprintln!("lab {}: {error:#}", self.folder.name);
        }
        signals::disown(&self.folder.name);
    }
}

/// Whether there is a lab of this name, or something left of one.
pub fn exists(name: &str) -> Result<bool> {
    Ok(Folder::new(name)?.exists())
}

/// Ends and removes the lab of this name, whatever there is of it; nothing at all is no error.
pub fn down_named(name: &str) -> Result<()> {
    let folder = Folder::new(name)?;
    // More than once where needed: a command of a killed `up` (cp, unshare) may still be at work
    // for a moment.
    wait_for(&format!("lab {name} to be gone"), DOWN_LIMIT, || {
        host::clear_leftovers(name, None)?;
        network::remove(&folder.net())?;
        if folder.remove()? {
            host::tidy_nspawn();
        }
        Ok(())
    })
}

/// A test that was killed leaves its lab; the next one of this name need not stumble over it.
fn clear_abandoned(folder: &Folder) -> Result<()> {
    let owner = folder.read_spec().ok().and_then(|spec| spec.owner);
    match owner {
        Some(owner) if !owner.is_alive() => down_named(&folder.name),
        _ => Ok(()),
    }
}

/// Does it to all at once; of several errors it returns the first.
fn in_parallel<T: Sync>(all: &[T], act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|one| scope.spawn(|| act(one))).collect();
        let results: Vec<Result<()>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        results.into_iter().collect()
    })
}
