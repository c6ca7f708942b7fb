//! The error for a request that did not work, with its next move: every such hint is here.

use std::error::Error as _;

use super::failure::ClientError;
use crate::error::{Error, Kind};

impl Error {
    /// A refused or unanswered request, after the words that say what it was for.
    pub(crate) fn request(what: &str, error: ClientError) -> Error {
        with_hint(Error::worded(Kind::Failed, format!("{what}: {error}")), &error)
    }

    /// The same for list-machines, whose words were different.
    pub(crate) fn request_in_brackets(what: &str, error: ClientError) -> Error {
        let made = Error::worded(
            Kind::Failed,
            format!(
                "{what} ({error})\nPossible issues:\n  etcd is unhealthy and/or lost quorum\n  \
                    connection cannot be established to any etcd servers"
            ),
        );
        with_hint(made, &error)
    }
}

/// Adds the next move after a request that did not work.
fn with_hint(made: Error, error: &ClientError) -> Error {
    let hint = match error {
        ClientError::Unreachable { endpoint, source, .. } => match io_kind(source) {
            Some(std::io::ErrorKind::PermissionDenied) => {
                format!("only root may use {endpoint}; try sudo, or another --endpoint")
            }
            _ if endpoint.starts_with("unix:") => {
                "is fleetd running on this machine? See `systemctl status fleetd`, or name \
                    another machine with --endpoint=http://HOST:PORT"
                    .to_string()
            }
            _ => "is fleetd listening there? Name one or several machines with \
                --endpoint=http://HOST:PORT,http://HOST2:PORT"
                .to_string(),
        },
        ClientError::Silent { .. } => "fleetd accepted the request but does not answer; see \
            `journalctl -u fleetd` on that machine, or name another with --endpoint"
            .to_string(),
        ClientError::Api { code: 503, .. } => "fleetd cannot reach its store; running units keep \
            running. Is etcd healthy?"
            .to_string(),
        ClientError::Api { code: 429, .. } => "nothing was changed; try again, or name another \
            machine with --endpoint"
            .to_string(),
        ClientError::Api { code: 400, message }
            if message.starts_with("cannot activate template") =>
        {
            "a template runs as instances: `fleetctl scale web=3` keeps three, `fleetctl start \
                web@1` starts one"
                .to_string()
        }
        // ssh's words for what a tunnel did not reach; of sockets it says no more than this.
        ClientError::Garbled { problem, .. }
            if problem.ends_with("open failed: administratively prohibited: open failed") =>
        {
            "the host's sshd does not allow this forwarding: change AllowTcpForwarding or \
                PermitOpen there, or name its socket with --endpoint"
                .to_string()
        }
        ClientError::Garbled { problem, .. }
            if problem.ends_with("open failed: connect failed: open failed") =>
        {
            "the socket does not exist, or that user (--ssh-username) may not use it, or the \
                host's sshd forwards no sockets (AllowStreamLocalForwarding); with fleetctl \
                installed there that is not needed"
                .to_string()
        }
        ClientError::Garbled { .. } => "is that a fleetd? `fleetctl version --json` shows both \
            versions"
            .to_string(),
        ClientError::Api { .. } | ClientError::Tls { .. } => return made,
    };
    made.hint(hint)
}

/// The innermost I/O error's kind.
fn io_kind(error: &reqwest::Error) -> Option<std::io::ErrorKind> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        source = inner.source();
    }
    None
}
