//! A tunnel: one ssh connection that makes sockets and addresses as the other host sees them
//! sockets of this one. Where the host's sshd forbids to forward sockets, each connection to one is
//! an ssh of its own that runs `fleetctl fd-forward` there, as fleet 1.0 did it.

use std::cell::OnceCell;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::ssh::{Connection, Host, SshArgs, cannot_run, quoted};

/// How often to look whether ssh has opened its sockets; it gives no other sign.
const LOOK: Duration = Duration::from_millis(10);

/// What ssh says of a connection that the host's sshd did not make; of a socket that is not there
/// in the same words as of one that it must not forward to.
const NOT_OPENED: &str = "open failed";

/// The exit status of a shell that found no such program.
const NOT_FOUND: i32 = 127;

/// An open tunnel; it closes when it is dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    folder: TempDir,
    connection: Connection,
    child: Child,
    ssh: SshArgs,
    host: Host,
    endpoints: Vec<Endpoint>,
    /// Set once sockets are reached through `fleetctl fd-forward`: the last of these that ended,
    /// for what it said. A host without a fleetctl has nothing to say.
    forwarded: OnceCell<Ended>,
}

type Ended = Arc<Mutex<Option<Connection>>>;

impl Tunnel {
    /// Connects, and forwards each of `endpoints`. ssh asks the user about unknown hosts and
    /// passphrases, so only it keeps time.
    pub(crate) async fn open(
        ssh: &SshArgs,
        host: &Host,
        endpoints: &[Endpoint],
    ) -> Result<Tunnel, Error> {
        let folder = tempfile::Builder::new()
            .prefix("fleetctl.")
            // Who may connect to its sockets has the power of who opened it.
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|problem| {
                Error::failed(format!("cannot create a temporary folder: {problem}"))
            })?;
        let (mut command, connection) = connect(ssh, host)?;
        command.args(["-N", "-o", "ExitOnForwardFailure=yes"]);
        for (i, endpoint) in endpoints.iter().enumerate() {
            command.arg("-L").arg(format!(
                "{}:{}",
                socket(folder.path(), i).display(),
                target(endpoint)
            ));
        }
        command.args(connection.destination());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.map_err(|problem| cannot_run(&problem))?;
        let (ssh, host, endpoints) = (ssh.clone(), host.clone(), endpoints.to_vec());
        let mut tunnel =
            Tunnel { folder, connection, child, ssh, host, endpoints, forwarded: OnceCell::new() };
        while !(0..tunnel.endpoints.len()).all(|i| tunnel.socket(i).exists()) {
            tokio::select! {
                _ = tunnel.child.wait() => return Err(tunnel.connection.failure()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        Ok(tunnel)
    }

    /// What ssh, or fleetctl at its other end, said last: why a forwarded connection came to
    /// nothing.
    pub(crate) fn last_words(&self) -> Option<String> {
        let ended =
            self.forwarded.get().map(|ended| ended.lock().unwrap_or_else(PoisonError::into_inner));
        ended
            .and_then(|ended| ended.as_ref()?.last_words())
            .or_else(|| self.connection.last_words())
    }

    /// The socket here that leads to the endpoint of that number.
    pub(crate) fn socket(&self, endpoint: usize) -> PathBuf {
        socket(self.folder.path(), endpoint)
    }

    /// After a connection that came to nothing: if it was not opened there, `fleetctl fd-forward`
    /// is to do it from now on, since the host's sshd may forbid to forward sockets. The same
    /// question is worth another try then. A write is not: what ssh said may be of another
    /// connection, and this one have broken half-way.
    pub(crate) fn forward_otherwise(&self) -> bool {
        let refused = self.connection.last_words().is_some_and(|words| words.contains(NOT_OPENED));
        if !refused || self.forwarded.get().is_some() {
            return false;
        }
        let ended = self.forwarded.get_or_init(Ended::default);
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            let Endpoint::Unix(path) = endpoint else { continue };
            let (socket, of_ssh) = (self.socket(i), self.socket(i).with_extension("ssh"));
            let listener =
                std::fs::rename(&socket, &of_ssh).and_then(|()| UnixListener::bind(&socket));
            let Ok(listener) = listener else { return false };
            let remote = format!("fleetctl fd-forward {}", quoted(&path.to_string_lossy()));
            let way = Way {
                ssh: self.ssh.clone(),
                host: self.host.clone(),
                remote,
                socket,
                of_ssh,
                ended: ended.clone(),
            };
            tokio::spawn(way.serve(listener));
        }
        true
    }
}

/// The way to a socket by a command there.
struct Way {
    ssh: SshArgs,
    host: Host,
    remote: String,
    /// Ours, and the one that it took the place of.
    socket: PathBuf,
    of_ssh: PathBuf,
    ended: Ended,
}

impl Way {
    /// Joins each connection to an ssh of its own that runs the command.
    async fn serve(self, listener: UnixListener) {
        let way = Arc::new(self);
        while let Ok((stream, _)) = listener.accept().await {
            let way = way.clone();
            tokio::spawn(async move { way.forward(stream).await });
        }
    }

    async fn forward(&self, mut stream: UnixStream) {
        // Without a file for what ssh says there is no connection, and the client sees it closed.
        let Ok((mut command, connection)) = connect(&self.ssh, &self.host) else { return };
        let Ok(words) = connection.log() else { return };
        command.args(connection.destination()).arg(&self.remote).stderr(words);
        match join(&mut stream, command).await {
            // The host has no fleetctl: if fleetd was only away, ssh finds it again.
            Ok(Some(status)) if status.code() == Some(NOT_FOUND) => {
                drop(std::fs::rename(&self.of_ssh, &self.socket))
            }
            Ok(Some(_)) => {
                *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection)
            }
            // Whoever asked has gone, or there is no ssh to run, which would have been said before.
            Ok(None) | Err(_) => {}
        }
        // The stream closes now, when the words are there.
    }
}

/// Copies both ways until the command has ended, or whoever is at the stream has gone.
async fn join(
    stream: &mut UnixStream,
    mut command: Command,
) -> std::io::Result<Option<ExitStatus>> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Ok(None);
    };
    let (mut from, mut to) = stream.split();
    tokio::select! {
        _ = tokio::io::copy(&mut stdout, &mut to) => {}
        ended = tokio::io::copy(&mut from, &mut stdin) => {
            if ended.is_ok() {
                return Ok(None);
            }
        }
    }
    child.wait().await.map(Some)
}

/// An ssh of our own, ended with us: a connection that the user's configuration shares would
/// outlive this one.
fn connect(ssh: &SshArgs, host: &Host) -> Result<(Command, Connection), Error> {
    let mut connection = ssh.connect(host)?;
    connection.command.args(["-T", "-o", "ControlPath=none"]);
    let mut command = Command::from(std::mem::replace(
        &mut connection.command,
        std::process::Command::new("ssh"),
    ));
    command.kill_on_drop(true);
    Ok((command, connection))
}

fn socket(folder: &Path, endpoint: usize) -> PathBuf {
    folder.join(format!("{endpoint}.sock"))
}

/// The endpoint as ssh's -L names it.
fn target(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Unix(path) => path.display().to_string(),
        Endpoint::Http(url) => {
            let port = url.port_or_known_default().unwrap_or(80);
            format!("{}:{port}", url.host_str().unwrap_or("localhost"))
        }
    }
}
