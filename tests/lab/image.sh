#!/bin/sh
# The recipe of the hosts' image: FOLDER/root is a Debian with podman, docker, a registry and etcd, FOLDER/containers its image store.
# The image is cached under the hash of this file, so any change here builds a new one. Nothing writes into it later: hosts copy its store.
set -eux
folder=$1
root=$folder/root
suite=trixie
packages=systemd,systemd-sysv,libpam-systemd,dbus,dbus-user-session,iproute2,podman,catatonit,aardvark-dns,runc,etcd-server,etcd-client,curl,procps,iputils-ping,nftables,docker.io,docker-cli,docker-registry

# The mirror and the proxies that this machine's apt uses.
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 2>/dev/null |
    awk -v c="$codename" '$1 == c && $2 ~ /debian/ { print $2; exit }')
options=$(mktemp)
apt-config dump | grep -E '^Acquire::(http|https)::Proxy ' > "$options" || true

mmdebstrap --variant=minbase --include="$packages" \
    --aptopt="$options" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$suite" "$root" "${mirror:-http://deb.debian.org/debian}"
rm -f "$options"
chmod 755 "$folder" "$root"

# Each host brings its own identity.
rm -f "$root/etc/machine-id" "$root/var/lib/dbus/machine-id" "$root/etc/hostname"
: > "$root/etc/machine-id"

# Timers and services that only cost time in a host that lives for minutes.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer podman-auto-update.timer podman-auto-update.service podman-restart.service \
    podman-clean-transient.service podman.socket console-getty.service getty@tty1.service getty.target \
    netavark-dhcp-proxy.service netavark-dhcp-proxy.socket \
    systemd-networkd.service systemd-networkd.socket systemd-resolved.service systemd-timesyncd.service \
    systemd-firstboot.service systemd-journal-flush.service systemd-pcrphase.service nftables.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# docker's daemon and the registry run where a test starts them; a host without them boots as before.
for unit in docker.service docker.socket containerd.service docker-registry.service; do
    rm -f "$root"/etc/systemd/system/*.wants/"$unit"
done
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\n' > "$root/etc/systemd/journald.conf.d/lab.conf"

# runc, since crun refuses hybrid cgroups; low limits, since the machine may lack CAP_SYS_RESOURCE.
mkdir -p "$root/etc/containers"
cat > "$root/etc/containers/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF

# The same for docker's daemon: it follows the cgroup driver and the limits of podman here.
mkdir -p "$root/etc/docker"
cat > "$root/etc/docker/daemon.json" <<'CONF'
{
  "storage-driver": "overlay2",
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "default-ulimits": {
    "nofile": { "Name": "nofile", "Soft": 1024, "Hard": 1024 },
    "nproc": { "Name": "nproc", "Soft": 4096, "Hard": 4096 }
  }
}
CONF

# localhost/busybox: the one container image of the lab, from this machine's static busybox.
box=$root/usr/share/fleet-lab/busybox
mkdir -p "$box/bin" "$box/etc" "$box/tmp" "$box/www" "$box/dev" "$box/proc" "$box/sys"
cp "$(command -v busybox)" "$box/bin/busybox"
"$box/bin/busybox" --list | grep -vx busybox | xargs -I NAME ln -s busybox "$box/bin/NAME"
echo 'root:x:0:0:root:/:/bin/sh' > "$box/etc/passwd"
tar -C "$box" -c . > "$root/usr/share/fleet-lab/busybox.tar"
rm -rf "$box"

# Imported once here: copying the finished store to a host takes milliseconds, an import at boot takes seconds.
mkdir -p "$folder/containers" "$root/var/lib/containers"
# The bind of the root on itself makes it a mount point, without which podman cannot chroot inside the chroot.
unshare --mount --pid --fork sh -eux <<SCRIPT
mount --bind "$root" "$root"
mount --bind "$folder/containers" "$root/var/lib/containers"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
for dir in run tmp var/tmp; do mount -t tmpfs tmpfs "$root/\$dir"; done
chroot "$root" podman import --change CMD=/bin/sh --change ENV=PATH=/bin /usr/share/fleet-lab/busybox.tar localhost/busybox:latest
chroot "$root" podman images
SCRIPT
[ -n "$(ls "$folder/containers/storage/overlay-images")" ]
