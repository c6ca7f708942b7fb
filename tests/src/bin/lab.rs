//! `cargo lab`: real hosts on this machine, for trying fleet by hand and from scripts.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use fleet_tests::lab::{self, DEFAULT_NAME, Host, HostState, Lab, Options, Store};

/// Boots real hosts on this machine: each a systemd of its own, with etcd, fleetd and podman.
///
/// Needs root and Debian 12 or later. Data goes to stdout, all talk to stderr. Exit status: 0 done,
/// 1 failed, 2 usage; `exec` and `net` pass on that of the command.
#[derive(Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab", after_help = EXAMPLES)]
struct Args {
    /// Which lab; several with different names can be up at once
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,
    #[command(subcommand)]
    command: Cmd,
}

const EXAMPLES: &str = "Examples:
  cargo lab up                               three hosts, etcd on h1
  cargo lab exec h1 -- fleetctl list-machines
  cargo lab kill h2 && cargo lab boot h2     a power loss, and the power is back
  cargo lab cut h3; cargo lab heal h3        the network cable
  cargo lab down

Hosts are h1, h2, … In a host the services are named fleetd and etcd, fleetctl is on the PATH, and
podman has the image localhost/busybox. Files: /var/lib/fleet-lab (FLEET_LAB_STATE),
/var/cache/fleet-lab (FLEET_LAB_CACHE). The hosts have fleet's packages, built from cargo's programs
or those in FLEET_BIN_DIR.";

#[derive(Subcommand)]
enum Cmd {
    /// Install what this machine lacks and build the hosts' image; `up` does it too
    Setup,
    /// Boot N hosts and wait until they are up
    Up {
        /// How many hosts
        #[arg(value_name = "N", default_value_t = 3)]
        hosts: usize,
        /// Where fleet keeps its state; with `embedded` each host is a cluster of one
        #[arg(long, value_enum, default_value_t)]
        store: Store,
        /// On how many hosts etcd runs, from h1 on
        #[arg(long, value_name = "1|3", default_value_t = 1, value_parser = members)]
        etcd_members: usize,
        /// A line for every host's fleetd configuration; may be given several times
        #[arg(long, value_name = "TOML")]
        config: Vec<String>,
        /// Take fleet's programs as they were built last
        #[arg(long)]
        no_build: bool,
    },
    /// List the hosts
    Ls {
        /// As a JSON array of {name, address, init_pid, state}
        #[arg(long)]
        json: bool,
    },
    /// Run a command in a host, with this command's stdin, stdout, stderr and exit status
    Exec {
        /// For instance h1
        host: String,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Run a command of this machine on the lab's network, for instance curl
    Net {
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Power loss: everything in the host is gone at once, its disks stay
    Kill {
        /// For instance h2
        host: String,
    },
    /// Boot a stopped host: same machine id, same disks
    Boot {
        /// For instance h2
        host: String,
    },
    /// Unplug a host's network cable
    Cut {
        /// For instance h3
        host: String,
        /// Drop only what it sends to this host
        #[arg(long, value_name = "HOST")]
        to: Option<String>,
    },
    /// Plug it back in
    Heal {
        /// For instance h3
        host: String,
    },
    /// End all hosts and remove everything; also after a crash, and when nothing is up
    Down,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<u8> {
    let name = args.name.as_str();
    match args.command {
        Cmd::Setup => out(&format!("{}\n", lab::setup()?.display()))?,
        Cmd::Up { hosts, store, etcd_members, config, no_build } => {
            if !no_build {
                lab::build()?;
            }
            let config_extra = config.join("\n");
            let name = name.to_owned();
            up(&Options { name, hosts, store, etcd_members, config_extra, ..Options::default() })?;
        }
        Cmd::Ls { json } => ls(name, json)?,
        Cmd::Exec { host, command } => {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let status = Lab::attach(name)?.command(&host, &words)?.status();
            return Ok(lab::exit_code(status.context("run the command")?));
        }
        Cmd::Net { command } => {
            let mut outside = Lab::attach(name)?.outside(&command[0]);
            let status = outside.args(&command[1..]).status();
            return Ok(lab::exit_code(status.context("run the command")?));
        }
        Cmd::Kill { host } => Lab::attach(name)?.kill(&host)?,
        Cmd::Boot { host } => Lab::attach(name)?.boot(&host)?,
        Cmd::Cut { host, to: None } => Lab::attach(name)?.cut(&host)?,
        Cmd::Cut { host, to: Some(to) } => Lab::attach(name)?.cut_one_way(&host, &to)?,
        Cmd::Heal { host } => Lab::attach(name)?.heal(&host)?,
        Cmd::Down => lab::down_named(name)?,
    }
    Ok(0)
}

fn up(options: &Options) -> Result<()> {
    let start = Instant::now();
    let lab = Lab::up(options)?;
    let hosts: Vec<String> =
        lab.ls().iter().map(|h| format!("{} ({})", h.name, h.address)).collect();
    lab.keep()?;
    eprintln!(
        "lab {}: {} up in {:.1} s",
        options.name,
        hosts.join(", "),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn ls(name: &str, json: bool) -> Result<()> {
    let hosts = if lab::exists(name)? { Lab::attach(name)?.ls() } else { Vec::new() };
    if json {
        return out(&format!("{}\n", serde_json::to_string_pretty(&hosts)?));
    }
    if hosts.is_empty() {
        eprintln!("lab {name} is not up; `cargo lab up` starts it");
        return Ok(());
    }
    out("NAME\tADDRESS\t\tINIT\tSTATE\n")?;
    hosts.iter().try_for_each(|host| out(&row(host)))
}

fn row(host: &Host) -> String {
    let pid = host.init_pid.map_or("-".to_owned(), |pid| pid.to_string());
    let state = match host.state {
        HostState::Running => "running",
        HostState::Stopped => "stopped",
    };
    format!("{}\t{}\t{pid}\t{state}\n", host.name, host.address)
}

fn out(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("write to stdout")
}

fn members(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("etcd has 1 or 3 members here".to_owned()),
    }
}
