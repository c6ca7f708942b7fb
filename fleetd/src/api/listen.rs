//! Where the API listens: sockets that systemd hands over, else a unix socket; and TCP, if
//! configured.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use tokio::net::{TcpListener, UnixListener, UnixSocket};
use tracing::{error, info, warn};

use super::tls::ServerTls;
use crate::config::Listen;

/// How many may wait to be taken on the unix socket, as with systemd's own.
const BACKLOG: u32 = 4096;

/// Open listeners.
#[derive(Default)]
pub struct Listeners {
    pub(super) unix: Vec<UnixListener>,
    pub(super) tcp: Vec<(TcpListener, Option<ServerTls>)>,
    handed: Vec<Listen>,
    /// Sockets of systemd's that nobody may use, and why.
    pub(super) closed: Vec<(TcpListener, String)>,
    /// The same of unix sockets. They are kept open: who connects is not taken.
    closed_unix: Vec<(std::os::unix::net::UnixListener, String)>,
}

/// Takes over systemd's sockets; where there are none, binds `socket`. Binds each of `addresses`
/// that is none of these; `tls` is for those that want it. A TCP socket of systemd's that
/// `addresses` do not name speaks plain HTTP, which must be `insecure` on purpose, on loopback too:
/// else all who connect are told that it is closed. It is no reason not to run, since a machine
/// whose fleetd does not start is lost.
pub fn listen(
    socket: &Path,
    addresses: &[Listen],
    insecure: bool,
    tls: Option<&ServerTls>,
) -> anyhow::Result<Listeners> {
    let mut listeners = Listeners::default();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = listenfd::ListenFd::from_env();
    let mut unbound = addresses.to_vec();
    for index in 0..handed.len() {
        if let Ok(Some(unix)) = handed.take_unix_listener(index) {
            if !insecure && let Err(why) = shut_others_out(&unix, &socket_unit(&names, index)) {
                error!("{why}");
                listeners.closed_unix.push((unix, why));
                continue;
            }
            unix.set_nonblocking(true)?;
            listeners.unix.push(UnixListener::from_std(unix)?);
        } else if let Ok(Some(tcp)) = handed.take_tcp_listener(index) {
            let address = tcp.local_addr()?;
            let named = unbound
                .iter()
                .position(|listen| is_same(listen.address, address))
                .map(|at| unbound.remove(at));
            if named.is_none() && !insecure {
                listeners.close(tcp, address, &socket_unit(&names, index))?;
                continue;
            }
            let plain = Listen { address, tls: false };
            listeners.handed.extend(named.is_none().then_some(plain));
            listeners.add(tcp, named.unwrap_or(plain), tls)?;
        }
    }
    if listeners.are_none() {
        listeners.unix.push(bind_unix(socket)?);
    }
    for listen in unbound {
        let tcp = std::net::TcpListener::bind(listen.address)
            .with_context(|| format!("cannot listen on {listen}"))?;
        listeners.add(tcp, listen, tls)?;
    }
    Ok(listeners)
}

impl Listeners {
    /// The TCP sockets that systemd handed over and nobody named.
    pub fn handed(&self) -> &[Listen] {
        &self.handed
    }

    /// Why sockets that systemd handed over are closed, each in a line.
    pub fn closed(&self) -> impl Iterator<Item = &str> {
        let unix = self.closed_unix.iter().map(|(_, why)| why.as_str());
        self.closed.iter().map(|(_, why)| why.as_str()).chain(unix)
    }

    /// Takes a socket that nobody may use.
    fn close(
        &mut self,
        tcp: std::net::TcpListener,
        address: SocketAddr,
        from: &str,
    ) -> anyhow::Result<()> {
        let whose = Listen { address, tls: false }.who_reaches_it();
        let why = format!(
            "systemd hands over a socket on {address} that listen does not name; it is closed, \
                since over plain HTTP {whose} could run anything as root here. Name it, listen = \
                [\"https://{address}\"], with tls_cafile, tls_certfile and tls_keyfile, or set \
                insecure = true if all of these may, or take it out of {from}; then systemctl \
                restart fleetd"
        );
        error!("{why}");
        tcp.set_nonblocking(true)?;
        self.closed.push((TcpListener::from_std(tcp)?, why));
        Ok(())
    }

    fn are_none(&self) -> bool {
        self.unix.is_empty() && self.tcp.is_empty()
    }

    fn add(
        &mut self,
        tcp: std::net::TcpListener,
        listen: Listen,
        tls: Option<&ServerTls>,
    ) -> anyhow::Result<()> {
        tcp.set_nonblocking(true)?;
        let tcp = TcpListener::from_std(tcp)?;
        let tls = match listen.tls {
            false => None,
            true => Some(tls.with_context(|| format!("{listen} without a certificate"))?.clone()),
        };
        let is_open = tls.as_ref().is_none_or(|tls| tls.files().ca.is_none());
        self.tcp.push((tcp, tls));
        if is_open {
            warn!(
                "listening on {listen}, insecure: {} can run anything as root here",
                listen.who_reaches_it()
            );
            return Ok(());
        }
        info!("listening on {listen}");
        Ok(())
    }
}

/// The unit that hands over the socket of this number, as systemd names it unless told otherwise:
/// it may be fleet 1.0's.
fn socket_unit(names: &str, index: usize) -> String {
    match names.split(':').nth(index).filter(|name| name.ends_with(".socket")) {
        Some(name) => format!("{name} (systemctl cat {name})"),
        None => "the .socket unit that hands it over (systemctl list-sockets)".to_string(),
    }
}

/// Whether a socket is the one that is meant: `ListenStream=4100` is `[::]:4100` for systemd, and
/// that is all of IPv4, too.
fn is_same(meant: SocketAddr, socket: SocketAddr) -> bool {
    let any = |address: SocketAddr| address.ip().is_unspecified();
    meant.port() == socket.port() && (meant.ip() == socket.ip() || (any(meant) && any(socket)))
}

/// Who may write to a unix socket commands fleetd. systemd lets everybody, unless the unit says
/// otherwise. The error is why the socket must stay closed.
fn shut_others_out(unix: &std::os::unix::net::UnixListener, from: &str) -> Result<(), String> {
    let address = unix.local_addr().map_err(|error| format!("a socket of systemd's: {error}"))?;
    let Some(path) = address.as_pathname() else {
        return Err(format!(
            "systemd hands over a unix socket that has no file, so that every user and every \
                program of this machine could run anything as root here; it is closed. Take it \
                out of {from}, or set insecure = true if all of these may; then systemctl restart \
                fleetd"
        ));
    };
    let narrowed = std::fs::metadata(path).and_then(|file| {
        let mode = file.permissions().mode();
        if mode & 0o002 != 0 {
            std::fs::set_permissions(path, Permissions::from_mode(mode & 0o770))?;
            warn!(
                "every user of this machine could write to {}, and run anything as root here; only \
                    its owner and group may now. Write SocketMode=0660 in {from}, or set insecure = \
                    true if all may",
                path.display()
            );
        }
        Ok(())
    });
    narrowed.map_err(|error| {
        format!(
            "cannot see to it that others may not write to {}: {error}; it is closed",
            path.display()
        )
    })
}

/// Replaces a socket file that nobody listens on; refuses one that somebody does.
fn bind_unix(socket: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        anyhow::bail!("{} is in use: another fleetd is running here", socket.display());
    }
    let _ = std::fs::remove_file(socket);
    // Whoever may connect can run anything as root: root and its group only. Of another user, that
    // one only, since the group may be everybody's.
    let mode = if rustix::process::geteuid().is_root() { 0o660 } else { 0o600 };
    let bind = || {
        let unix = UnixSocket::new_stream()?;
        // Before it has a name, so that nobody comes in between.
        rustix::fs::fchmod(&unix, rustix::fs::Mode::from_raw_mode(mode))?;
        unix.bind(socket)?;
        std::fs::set_permissions(socket, Permissions::from_mode(mode))?;
        unix.listen(BACKLOG)
    };
    bind().with_context(|| format!("cannot listen on {}", socket.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_said_to_be_of_the_unit_that_hands_it_over() {
        assert_eq!(
            socket_unit("fleetd.socket:fleet.socket", 1),
            "fleet.socket (systemctl cat fleet.socket)"
        );
        for names in ["", "fleetd.socket", "fleetd.socket:api"] {
            assert!(
                socket_unit(names, 1).starts_with("the .socket unit that hands it over"),
                "{names}"
            );
        }
    }
}
