//! A registry of images on h1, which the hosts pull from.

use anyhow::{Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE};
use fleet_tests::lab::wait_for;

/// Where it listens, as podman and docker name it.
pub(crate) const REGISTRY: &str = "h1:5000";

/// The user and the password that it may be told to ask for.
pub(crate) const LOGIN: (&str, &str) = ("fleet", "secret");

/// `htpasswd -nbB fleet secret`.
const HTPASSWD: &str = "fleet:$2y$05$KbaMcf06Zzs2iHnYPIEvV.Or.N/puz67kCqBpIBJS1rRSUxIlKNvi";

const CONFIG: &str = "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: \
    /var/lib/docker-registry\nhttp:\n  addr: :5000\n";

/// Starts it, and tells podman and docker on every host that it speaks no TLS.
pub(crate) fn start(cluster: &Cluster) -> Result<()> {
    let insecure = format!("[[registry]]\nlocation = \"{REGISTRY}\"\ninsecure = true\n");
    for host in cluster.hosts() {
        cluster.write(&host, "/etc/containers/registries.conf.d/lab.conf", &insecure)?;
        let json = format!("s|^{{|{{ \"insecure-registries\": [\"{REGISTRY}\"],|");
        cluster.lab.sh(&host, &format!("sed -i '1{json}' /etc/docker/daemon.json"))?;
    }
    cluster.write("h1", "/etc/docker/registry/htpasswd", &format!("{HTPASSWD}\n"))?;
    asks_for_login(cluster, false)
}

/// Starts it again, asking for a login or not.
pub(crate) fn asks_for_login(cluster: &Cluster, asks: bool) -> Result<()> {
    let auth = "auth:\n  htpasswd:\n    realm: lab\n    path: /etc/docker/registry/htpasswd\n";
    let config = format!("{CONFIG}{}", if asks { auth } else { "" });
    cluster.write("h1", "/etc/docker/registry/config.yml", &config)?;
    told(cluster, "restart")?;
    answers(cluster)
}

/// Waits until it answers.
pub(crate) fn answers(cluster: &Cluster) -> Result<()> {
    wait_for("the registry to answer", PATIENCE, || {
        let code = cluster
            .lab
            .sh("h1", &format!("curl -so /dev/null -w '%{{http_code}}' http://{REGISTRY}/v2/"))?;
        ensure!(code == "200" || code == "401", "it said {code}");
        Ok(())
    })
}

/// Has h1's systemd do that to it: `stop`, `start`, `kill -s STOP`.
pub(crate) fn told(cluster: &Cluster, what: &str) -> Result<()> {
    cluster.lab.sh("h1", &format!("systemctl {what} docker-registry")).map(drop)
}

/// Pushes an image of its own under this name, and takes it off h1.
pub(crate) fn push(cluster: &Cluster, image: &str) -> Result<()> {
    let (user, password) = LOGIN;
    let script = format!(
        "podman import --quiet --change CMD=/bin/sh --change ENV=PATH=/bin --change \
        LABEL=version={image}-$(date +%N) /usr/share/fleet-lab/busybox.tar {REGISTRY}/{image} && \
        podman push --quiet --creds={user}:{password} {REGISTRY}/{image} && \
        podman rmi {REGISTRY}/{image}"
    );
    cluster.lab.sh("h1", &script).map(drop)
}
