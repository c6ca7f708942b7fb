//! What can go wrong for a user: kinds with their exit codes, and every hint, in one place.

use std::error::Error as _;

use crate::client::ClientError;
use crate::output::{Span, say};

/// What sort of error it is; each has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was tried, and did not work.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// The cluster is not as asked within the time given.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
    /// Whoever read our output has seen enough.
    ClosedPipe,
}

impl Kind {
    /// The exit code: scripts may rely on these.
    pub(crate) fn code(self) -> u8 {
        match self {
            Kind::ClosedPipe => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::TimedOut => 3,
            Kind::Interrupted => 130, // 128 + SIGINT, as a shell reports it
        }
    }
}

/// One error as the user sees it: a sentence, its causes, and next moves.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) kind: Kind,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl Error {
    /// Something did not work; printed after `Error: `.
    pub(crate) fn failed(message: impl AsRef<str>) -> Error {
        Error::worded(Kind::Failed, format!("Error: {}", message.as_ref()))
    }

    /// The command line makes no sense; printed after `Error: `.
    pub(crate) fn usage(message: impl AsRef<str>) -> Error {
        Error::worded(Kind::Usage, format!("Error: {}", message.as_ref()))
    }

    /// An error in fleet 1.0's own words, which scripts may look for; printed as it is.
    pub(crate) fn worded(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// Adds what led to it.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Error {
        self.causes.push(cause.into());
        self
    }

    /// Adds a next move.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hints.push(hint.into());
        self
    }

    /// A refused or unanswered request, after the words that say what it was for.
    pub(crate) fn request(what: &str, error: ClientError) -> Error {
        let hints = hints_for(&error);
        let mut made = Error::worded(Kind::Failed, format!("{what}: {error}"));
        made.hints = hints;
        made
    }

    /// The same for list-machines, whose words were different.
    pub(crate) fn request_in_brackets(what: &str, error: ClientError) -> Error {
        let hints = hints_for(&error);
        let mut made = Error::worded(
            Kind::Failed,
            format!(
                "{what} ({error})\nPossible issues:\n  etcd is unhealthy and/or lost quorum\n  \
                    connection cannot be established to any etcd servers"
            ),
        );
        made.hints = hints;
        made
    }

    /// Prints it on stderr and gives the exit code.
    pub(crate) fn print(&self) -> u8 {
        if self.kind != Kind::ClosedPipe {
            say(&self.spans());
        }
        self.kind.code()
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans = match self.message.strip_prefix("Error:") {
            Some(rest) => vec![Span::coloured("Error:", "1;31"), Span::from(format!("{rest}\n"))],
            None => vec![Span::from(format!("{}\n", self.message))],
        };
        if !self.causes.is_empty() {
            spans.push(Span::from("Caused by:\n"));
            spans.extend(self.causes.iter().map(|cause| Span::from(format!("  {cause}\n"))));
        }
        for hint in &self.hints {
            spans.extend([Span::coloured("Hint:", "36"), Span::from(format!(" {hint}\n"))]);
        }
        spans
    }
}

impl From<std::io::Error> for Error {
    /// Only writes to stdout come here.
    fn from(problem: std::io::Error) -> Error {
        match problem.kind() {
            std::io::ErrorKind::BrokenPipe => Error::worded(Kind::ClosedPipe, ""),
            _ => Error::failed(format!("cannot write the output: {problem}")),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(problem: serde_json::Error) -> Error {
        Error::from(std::io::Error::from(problem))
    }
}

/// The next move after a request that did not work.
fn hints_for(error: &ClientError) -> Vec<String> {
    let hint = match error {
        ClientError::Unreachable { endpoint, source, .. } => match io_kind(source) {
            Some(std::io::ErrorKind::PermissionDenied) => format!(
                "only root may use {endpoint}; \
                try sudo, or another --endpoint"
            ),
            _ if endpoint.starts_with("unix:") => {
                "is fleetd running on this machine? See `systemctl status fleetd`, or name \
                    another machine with --endpoint=http://HOST:PORT"
                    .to_string()
            }
            _ => "is fleetd listening there? Name one or several machines with \
                --endpoint=http://HOST:PORT,http://HOST2:PORT"
                .to_string(),
        },
        ClientError::Silent { .. } => "fleetd took the request and says nothing; see `journalctl \
            -u fleetd` on that machine, or name another with --endpoint"
            .to_string(),
        ClientError::Api { code: 503, .. } => "fleetd cannot reach its store; what runs keeps \
            running. Is etcd healthy?"
            .to_string(),
        ClientError::Api { code: 429, .. } => "nothing was done; try again, or name another \
            machine with --endpoint"
            .to_string(),
        ClientError::Api { code: 400, message }
            if message.starts_with(
                "cannot activate \
            template",
            ) =>
        {
            "a template runs as instances: `fleetctl scale web=3` keeps three, `fleetctl start \
                web@1` starts one"
                .to_string()
        }
        // ssh's words for what a tunnel did not reach; of sockets it says no more than this.
        ClientError::Garbled { problem, .. }
            if problem.ends_with(
                "open failed: administratively \
            prohibited: open failed",
            ) =>
        {
            "the host's sshd forbids to forward that: allow it (AllowTcpForwarding, PermitOpen), \
                or name its socket with --endpoint"
                .to_string()
        }
        ClientError::Garbled { problem, .. }
            if problem.ends_with(
                "open failed: connect failed: \
            open failed",
            ) =>
        {
            "the socket is not there, or not for that user (--ssh-username), or the host's sshd \
                does not forward sockets (AllowStreamLocalForwarding), which does not matter once \
                fleetctl is installed there"
                .to_string()
        }
        ClientError::Garbled { .. } => "is that a fleetd? `fleetctl version --json` shows both \
            versions"
            .to_string(),
        ClientError::Api { .. } | ClientError::Tls { .. } => return Vec::new(),
    };
    vec![hint]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Screen;

    #[test]
    fn an_error_is_a_sentence_then_causes_then_hints() {
        let error = Error::failed("no machine can run web@4.service")
            .cause("the cluster is small")
            .hint("2 machines: lacks region=eu");
        assert_eq!(
            Screen::default().render(&error.spans()),
            "Error: no machine can run web@4.service\nCaused by:\n  the cluster is small\nHint: 2 \
                machines: lacks region=eu\n"
        );
        let terminal = Screen { terminal: true, colour: true };
        assert!(terminal.render(&error.spans()).starts_with("\x1b[1;31mError:\x1b[0m no machine"));
        let hostile = terminal.render(&Error::failed("\x1b]0;x\x07").spans());
        assert_eq!(hostile, "\x1b[1;31mError:\x1b[0m \\x1b]0;x\\x07\n");
    }

    #[test]
    fn words_of_fleet_1_0_get_no_prefix() {
        let terminal = Screen { terminal: true, colour: true };
        let error = Error::worded(Kind::Failed, "Unit a.service not found");
        assert_eq!(terminal.render(&error.spans()), "Unit a.service not found\n");
    }

    #[test]
    fn each_kind_has_its_exit_code() {
        let codes =
            [Kind::Failed, Kind::Usage, Kind::TimedOut, Kind::Interrupted, Kind::ClosedPipe]
                .map(Kind::code);
        assert_eq!(codes, [1, 2, 3, 130, 0]);
    }
}
