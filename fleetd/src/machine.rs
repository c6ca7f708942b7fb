//! What this machine is: its id, address, capacity and boot.

use std::net::{IpAddr, UdpSocket};

use anyhow::Context;
use fleet_core::model::{Capacity, FORMAT, Machine};
use fleet_core::name::MachineId;

use crate::config::Settings;

/// Looks at this host, with what the configuration says of it.
pub fn this_machine(settings: &Settings) -> anyhow::Result<Machine> {
    let id = std::fs::read_to_string("/etc/machine-id")
        .context("cannot read /etc/machine-id; create it with systemd-machine-id-setup")?;
    let id = id.trim();
    anyhow::ensure!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "/etc/machine-id holds {id:?}, not 32 hex digits; create it with systemd-machine-id-setup"
    );
    let address = if settings.public_ip.is_empty() { default_address() } else { settings.public_ip.clone() };
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string();
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    Ok(Machine {
        v: FORMAT,
        id: MachineId::new(id),
        api: settings.api_url(&address),
        address,
        metadata: settings.metadata.clone(),
        capacity: Capacity { cpus, memory_bytes: memory_bytes() },
        version: env!("CARGO_PKG_VERSION").to_string(),
        boot_id,
        unknown: Default::default(),
    })
}

/// The address that this host would use towards others, found by asking the routing table; nothing is sent.
fn default_address() -> String {
    let towards = |bind: &str, other: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(other).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    // Documentation addresses (RFC 5737, RFC 3849): any address behind the default route does.
    let found = towards("0.0.0.0:0", "192.0.2.1:9").or_else(|| towards("[::]:0", "[2001:db8::1]:9"));
    found.map_or_else(|| "127.0.0.1".to_string(), |ip| ip.to_string())
}

fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
