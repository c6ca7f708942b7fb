//! What this machine is: its id, address, capacity and boot.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context;
use fleet_core::model::{Capacity, FORMAT, Machine};
use fleet_core::name::MachineId;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::config::Settings;
use crate::machine::podman;
use crate::machine::session::Presence;

/// The address of a machine that has no other.
const LOOPBACK: &str = "127.0.0.1";

/// How often the routing table is asked whether the machine's address has changed; nothing is sent
/// for it.
const LOOK: Duration = Duration::from_secs(5);

/// The same while the machine has no address: its network is coming up.
const LOOK_FOR_THE_FIRST: Duration = Duration::from_secs(1);

/// Looks at this host, with what the configuration says of it.
pub fn this_machine(settings: &Settings) -> anyhow::Result<Machine> {
    let id = std::fs::read_to_string("/etc/machine-id")
        .context("cannot read /etc/machine-id; create it with systemd-machine-id-setup")?;
    let id = id.trim();
    anyhow::ensure!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "/etc/machine-id holds {id:?}, not 32 hex digits; create it with systemd-machine-id-setup"
    );
    let address =
        if settings.public_ip.is_empty() { default_address() } else { settings.public_ip.clone() };
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_string();
    let podman = podman::of_host(settings);
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
        since_ms: 0, // the session knows
        podman: podman.version,
        secrets: podman.secrets,
        unknown: Default::default(),
    })
}

/// The same while fleetd runs: its id is what it was at the start, and its address what it was if
/// it has none now.
pub fn still_this_machine(settings: &Settings, before: &Machine) -> anyhow::Result<Machine> {
    let mut now = this_machine(settings)?;
    if now.id != before.id {
        warn!(
            "/etc/machine-id has changed from {} to {}; run systemctl restart fleetd",
            before.id, now.id
        );
        now.id = before.id.clone();
    }
    if settings.public_ip.is_empty() && now.address == LOOPBACK {
        now.address.clone_from(&before.address);
        now.api = settings.api_url(&now.address);
    }
    Ok(now)
}

/// Follows the machine's address while fleetd runs, where the configuration names none: the network
/// may come up after fleetd, and a DHCP server may give another address. Ends when it is dropped.
pub struct AddressWatch(Option<AbortHandle>);

impl AddressWatch {
    /// By these settings; what changes is said in `presence`.
    pub fn of(settings: &Settings, presence: &watch::Sender<Presence>) -> AddressWatch {
        if !settings.public_ip.is_empty() {
            return AddressWatch(None);
        }
        let (settings, presence) = (settings.clone(), presence.clone());
        let follow =
            follow_address(presence, found_address, move |address| settings.api_url(address));
        AddressWatch(Some(tokio::spawn(follow).abort_handle()))
    }
}

impl Drop for AddressWatch {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// An address that is gone is kept until there is another one.
async fn follow_address(
    presence: watch::Sender<Presence>,
    find: impl Fn() -> Option<IpAddr>,
    api_url: impl Fn(&str) -> Option<String>,
) {
    loop {
        let known = presence.borrow().machine.address.clone();
        tokio::time::sleep(if known == LOOPBACK { LOOK_FOR_THE_FIRST } else { LOOK }).await;
        let Some(address) = find()
            .filter(|ip| !ip.is_loopback())
            .map(|ip| ip.to_string())
            .filter(|found| *found != known)
        else {
            continue;
        };
        info!("this machine's address is {address} now, and was {known}");
        presence.send_modify(|presence| {
            presence.machine.api = api_url(&address);
            presence.machine.address = address;
        });
    }
}

/// The address that this host would use towards others; loopback if it has none yet.
fn default_address() -> String {
    found_address().map_or_else(|| LOOPBACK.to_string(), |ip| ip.to_string())
}

/// The same, found by asking the routing table; nothing is sent.
fn found_address() -> Option<IpAddr> {
    let towards = |bind: &str, other: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(other).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    // Documentation addresses (RFC 5737, RFC 3849): any address behind the default route does.
    towards("0.0.0.0:0", "192.0.2.1:9").or_else(|| towards("[::]:0", "[2001:db8::1]:9"))
}

fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_comes_up_or_changes_is_told_and_one_that_goes_is_kept() {
        let machine = Machine::new(MachineId::new("m"), LOOPBACK);
        let presence = watch::Sender::new(Presence { machine, ttl: Duration::from_secs(10) });
        let mut told = presence.subscribe();
        let found =
            ["", "127.0.0.1", "10.0.0.1", "10.0.0.1", "", "10.0.0.2"].map(|ip| ip.parse().ok());
        let found = Mutex::new(VecDeque::from(found));
        let find = move || found.lock().unwrap().pop_front().flatten();
        let follow =
            follow_address(presence, find, |address| Some(format!("http://{address}:4100")));
        let began = tokio::time::Instant::now();
        let told = async {
            let mut all = Vec::new();
            while all.len() < 2 {
                told.changed().await.unwrap();
                let machine = told.borrow_and_update().machine.clone();
                all.push((machine.address, machine.api.unwrap(), began.elapsed().as_secs()));
            }
            all
        };
        let told = tokio::select! { told = told => told, () = follow => unreachable!("it goes on \
        for ever") };
        let expected = [("10.0.0.1", 3), ("10.0.0.2", 3 + 3 * 5)];
        assert_eq!(
            told,
            expected.map(|(ip, at)| (ip.to_string(), format!("http://{ip}:4100"), at))
        );
    }
}
