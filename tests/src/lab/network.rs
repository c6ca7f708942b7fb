//! The lab's own network namespace: a bridge with the hosts on it, and nothing of it anywhere else.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::process::run;

pub(crate) const BRIDGE: &str = "fleet0";

/// Makes the namespace, kept alive by a mount on `file`, with the bridge at `address`.
pub(crate) fn create(file: &Path, address: &str) -> Result<()> {
    File::create(file).with_context(|| format!("make {}", file.display()))?;
    // Not `ip netns`: that leaves a mount on /run/netns behind.
    run("unshare", &[&format!("--net={}", file.display()), "true"])?;
    // stp off and forward_delay 0: a bridge of one lab has no loops, and a port works at once.
    ip(file, &["link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
    ip(file, &["address", "add", &format!("{address}/24"), "dev", BRIDGE])?;
    ip(file, &["link", "set", BRIDGE, "up"])?;
    ip(file, &["link", "set", "lo", "up"])
}

/// Unplugs or plugs the host's cable: packets stop both ways, and connections are not told.
pub(crate) fn set_link(file: &Path, host: &str, up: bool) -> Result<()> {
    let link = format!("vb-{host}");
    ip(file, &["link", "set", &link, if up { "up" } else { "down" }])
}

/// Drops what `from` sends to `to`, and only that.
pub(crate) fn drop_one_way(file: &Path, from: &str, to: &str) -> Result<()> {
    let rules = format!(
        "add table bridge lab\n\
         add chain bridge lab cut {{ type filter hook forward priority 0; }}\n\
         add rule bridge lab cut ether type ip ip saddr {from} ip daddr {to} drop\n"
    );
    let args = [&net(file), "nft", &rules];
    run("nsenter", &args).map(drop)
}

/// Takes back all one-way cuts of the lab.
pub(crate) fn clear_one_way(file: &Path) -> Result<()> {
    // Added first, so that deleting works also where there were none.
    let args = [&net(file), "nft", "add table bridge lab; delete table bridge lab"];
    run("nsenter", &args).map(drop)
}

/// A command that will run in the namespace, with this machine's files.
pub(crate) fn command(file: &Path, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(net(file)).arg("--").arg(program);
    command
}

/// Removes the namespace; its links go with it. One that is not there is no error.
pub(crate) fn remove(file: &Path) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    if is_mounted(file) {
        run("umount", &[file])?;
    }
    fs::remove_file(file).with_context(|| format!("remove {}", file.display()))
}

fn is_mounted(file: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = file.to_string_lossy();
    table.lines().any(|line| line.split(' ').nth(4) == Some(&point))
}

fn ip(file: &Path, args: &[&str]) -> Result<()> {
    let net = net(file);
    let all: Vec<&str> = [net.as_str(), "ip"].into_iter().chain(args.iter().copied()).collect();
    run("nsenter", &all).map(drop)
}

fn net(file: &Path) -> String {
    format!("--net={}", file.display())
}
