//! What a host finds on its disks: its identity, fleet's configuration, etcd's unit.
//!
//! The image, with fleet's packages installed, is shared and read-only. All that is a host's own
//! lies in `tree/` and is copied over the root in memory by `init`, before systemd starts; so it is
//! there at every boot.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::options::Options;
use super::process::run;
use super::state::{Folder, HostSpec, Spec};

/// Disks that outlive a boot: folder below the host's, place in the host.
pub(crate) const DISKS: [(&str, &str); 5] = [
    ("containers", "/var/lib/containers"),
    ("docker", "/var/lib/docker"),
    ("fleet", "/var/lib/fleet"),
    ("etcd", "/var/lib/etcd"),
    ("records", RECORDS),
];

/// Where test units write down when they live, see [`crate::record`].
pub const RECORDS: &str = "/var/lib/records";

/// Where `init` and `tree/` are in the host.
pub(crate) const BOOT: &str = "/opt/lab";

/// Where a host finds what this machine hands it while it runs: packages, libraries.
pub(crate) const HANDED: &str = "/opt/lab-files";

/// Lays out the host's folder.
pub(crate) fn lay_out(
    folder: &Folder,
    spec: &Spec,
    host: &HostSpec,
    options: &Options,
) -> Result<()> {
    let base = folder.host(&host.name);
    let tree = base.join("boot/tree");
    fs::create_dir_all(&tree).with_context(|| format!("make {}", tree.display()))?;
    write_init(&base.join("boot/init"), host)?;
    write_identity(&tree, spec, host)?;
    write_etcd(&tree, spec, host)?;
    write_config(&tree, spec, host, options)?;
    for (disk, _) in DISKS {
        if disk != "containers" {
            fs::create_dir_all(base.join(disk))?;
        }
    }
    // A copy of the store with the busybox image: faster than an import at every first boot. Of the
    // store itself: `cp -a` copies a link as a link, and all hosts would share what the image
    // holds.
    let store = spec.image.join("containers");
    let store = store.canonicalize().with_context(|| format!("find {}", store.display()))?;
    run("cp", &[Path::new("-a"), &store, &base.join("containers")])?;
    fs::create_dir_all(base.join("files"))?;
    Ok(())
}

/// Hands a file to the host, also while it runs and uses an earlier one of the name. Returns its
/// path there.
pub(crate) fn hand(folder: &Folder, host: &str, name: &str, from: &Path) -> Result<String> {
    let files = folder.host(host).join("files");
    let beside = files.join(format!(".{name}.new"));
    fs::copy(from, &beside).with_context(|| format!("copy {} into {host}", from.display()))?;
    fs::rename(&beside, files.join(name))?;
    Ok(format!("{HANDED}/{name}"))
}

/// nspawn mounts the v1 controllers read-only; systemd in the host needs to write to them.
fn write_init(path: &Path, host: &HostSpec) -> Result<()> {
    let address = &host.address;
    let script = format!(
        "#!/bin/sh\n\
         # The first process of a lab host: makes the root this host's own, then becomes systemd.\n\
         for hierarchy in /sys/fs/cgroup/*/; do mount -o remount,rw,bind \"$hierarchy\"; done \
         2>/dev/null\n\
         cp -a {BOOT}/tree/. / &&\n\
         ip link set lo up &&\n\
         ip address add {address}/24 dev host0 &&\n\
         ip link set host0 up || exit 1\n\
         exec /lib/systemd/systemd\n"
    );
    write(path, &script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn write_identity(tree: &Path, spec: &Spec, host: &HostSpec) -> Result<()> {
    let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
    for other in &spec.hosts {
        hosts += &format!("{} {}\n", other.address, other.name);
    }
    write(&tree.join("etc/hosts"), &hosts)?;
    write(&tree.join("etc/hostname"), &format!("{}\n", host.name))?;
    write(&tree.join("etc/machine-id"), &format!("{}\n", host.machine_id))
}

/// Ours instead of Debian's unit; masked where the host is no member.
fn write_etcd(tree: &Path, spec: &Spec, host: &HostSpec) -> Result<()> {
    let unit = tree.join("etc/systemd/system/etcd.service");
    let members = spec.members();
    if !members.iter().any(|member| member.name == host.name) {
        return link("/dev/null", &unit);
    }
    let cluster: Vec<String> = members
        .iter()
        .map(|member| format!("{}=http://{}:2380", member.name, member.address))
        .collect();
    let (name, address, cluster) = (&host.name, &host.address, cluster.join(","));
    // Type=exec: with notify a boot would hang for as long as the other members are down.
    let text = format!(
        "[Unit]\n\
         Description=etcd member {name} of the lab\n\
         After=network.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=exec\n\
         ExecStart=/usr/bin/etcd --name {name} --data-dir /var/lib/etcd/data --log-level warn \
         \\\n  \
           --listen-client-urls http://{address}:2379,http://127.0.0.1:2379 \
           --advertise-client-urls http://{address}:2379 \\\n  \
           --listen-peer-urls http://{address}:2380 --initial-advertise-peer-urls \
           http://{address}:2380 \\\n  \
           --initial-cluster {cluster} --initial-cluster-state new --initial-cluster-token {lab}\n\
         Restart=always\n\
         RestartSec=500ms\n\
         LimitNOFILE=65536\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        lab = spec.name
    );
    write(&unit, &text)?;
    enable(tree, "multi-user.target", "etcd.service", "/etc/systemd/system")
}

fn write_config(tree: &Path, spec: &Spec, host: &HostSpec, options: &Options) -> Result<()> {
    let config = tree.join("etc/fleet/fleetd.conf.d/10-lab.toml");
    write(&config, &config_text(spec, host, options))
}

fn config_text(spec: &Spec, host: &HostSpec, options: &Options) -> String {
    let (name, address) = (&host.name, &host.address);
    let mut text = String::from("# Written by the lab.\n");
    if !spec.members().is_empty() {
        let urls: Vec<String> = spec
            .members()
            .iter()
            .map(|member| format!("\"http://{}:2379\"", member.address))
            .collect();
        text += &format!("etcd_servers = [{}]\n", urls.join(", "));
    }
    text += &format!(
        "listen = [\"http://{address}:4100\"]\n\
         insecure = true\n\
         public_ip = \"{address}\"\n"
    );
    let extra = options.host_config_extra.get(name).map_or("", String::as_str);
    // Extra lines may bring metadata of their own, and a key may be there once only.
    let says_metadata =
        |text: &str| text.lines().any(|line| line.trim_start().starts_with("metadata"));
    if !says_metadata(extra) && !says_metadata(&options.config_extra) {
        text += &format!("metadata = \"host={name}\"\n");
    }
    for lines in [options.config_extra.as_str(), extra] {
        if !lines.is_empty() {
            text += lines.trim_end();
            text.push('\n');
        }
    }
    text
}

fn enable(tree: &Path, target: &str, unit: &str, folder: &str) -> Result<()> {
    let wants = tree.join(format!("etc/systemd/system/{target}.wants"));
    link(&format!("{folder}/{unit}"), &wants.join(unit))
}

fn link(to: &str, at: &PathBuf) -> Result<()> {
    fs::create_dir_all(at.parent().context("a place for a link")?)?;
    symlink(to, at).with_context(|| format!("link {}", at.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().context("a place for a file")?)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
