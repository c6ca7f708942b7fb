//! Words to systemd about this service. The socket is opened once, at the start: a process without
//! a free descriptor could else not say that it lives.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;
use tracing::warn;

/// The way to systemd, if it listens.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

impl Notifier {
    /// Opens what `NOTIFY_SOCKET` names, if it does. One that leads nowhere, as an inherited one
    /// may, is no reason not to run: a systemd that waits for a word says so itself.
    pub fn from_environment() -> Notifier {
        let opened = std::env::var_os("NOTIFY_SOCKET").map(|path| Notifier::to(&path)).transpose();
        opened.map_or_else(
            |error| {
                warn!("cannot open the NOTIFY_SOCKET: {error}; going on without a word to systemd");
                Notifier { socket: None }
            },
            |opened| opened.unwrap_or(Notifier { socket: None }),
        )
    }

    fn to(path: &OsStr) -> io::Result<Notifier> {
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        Ok(Notifier { socket: Some(socket) })
    }

    /// Says this.
    pub fn say(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
        socket.send(lines.as_bytes()).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_over_one_socket_also_where_its_file_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str()).unwrap();
        std::fs::remove_file(&path).unwrap();
        notifier.say(&[NotifyState::Ready, NotifyState::Watchdog]).unwrap();
        let mut said = [0; 64];
        let length = systemd.recv(&mut said).unwrap();
        assert_eq!(&said[..length], b"READY=1\nWATCHDOG=1\n");
        assert!(Notifier::to(path.as_os_str()).is_err());
    }
}
