//! A tunnel: one ssh connection that makes sockets and addresses as the other host sees them sockets of this one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::ssh::{Connection, Host, SshArgs, cannot_run};

/// How often to look whether ssh has opened its sockets; it gives no other sign.
const LOOK: Duration = Duration::from_millis(10);

/// An open tunnel; it closes when it is dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    folder: TempDir,
    connection: Connection,
    child: Child,
}

impl Tunnel {
    /// Connects, and forwards each of `endpoints`. ssh asks the user about unknown hosts and passphrases, so only it keeps time.
    pub(crate) async fn open(ssh: &SshArgs, host: &Host, endpoints: &[Endpoint]) -> Result<Tunnel, Error> {
        let folder = tempfile::Builder::new()
            .prefix("fleetctl.")
            .tempdir()
            .map_err(|problem| Error::failed(format!("cannot create a temporary folder: {problem}")))?;
        let mut connection = ssh.connect(host)?;
        let command = &mut connection.command;
        // Not through a connection that the user's configuration shares: it would outlive this one.
        command.args(["-N", "-T", "-o", "ExitOnForwardFailure=yes", "-o", "ControlPath=none"]);
        for (i, endpoint) in endpoints.iter().enumerate() {
            command.arg("-L").arg(format!("{}:{}", socket(folder.path(), i).display(), target(endpoint)));
        }
        let mut command = Command::from(std::mem::replace(command, std::process::Command::new("ssh")));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn();
        let mut tunnel = Tunnel { folder, connection, child: child.map_err(|problem| cannot_run(&problem))? };
        while !(0..endpoints.len()).all(|i| tunnel.socket(i).exists()) {
            tokio::select! {
                _ = tunnel.child.wait() => return Err(tunnel.connection.failure()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        Ok(tunnel)
    }

    /// What ssh said last: why a forwarded connection came to nothing.
    pub(crate) fn last_words(&self) -> Option<String> {
        self.connection.last_words()
    }

    /// The socket here that leads to the endpoint of that number.
    pub(crate) fn socket(&self, endpoint: usize) -> PathBuf {
        socket(self.folder.path(), endpoint)
    }
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
