//! What can go wrong with a request.

use std::time::Duration;

/// A request that did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No connection, so nothing was sent.
    #[error("{request}: {}", innermost(source))]
    Unreachable { request: String, endpoint: String, source: reqwest::Error },
    /// No connection, since one side does not like the other's certificate; the problem has its
    /// next move.
    #[error("{endpoint}: {problem}")]
    Tls { endpoint: String, problem: String },
    /// Connected, and then nothing for so long.
    #[error("{request}: no answer within {} s", limit.as_secs())]
    Silent { request: String, limit: Duration },
    /// fleetd refused.
    #[error("{message}")]
    Api { code: u16, message: String },
    /// The answer is not what fleetd sends, or broke off.
    #[error("{request}: {problem}")]
    Garbled { request: String, problem: String },
}

impl ClientError {
    /// What fleetd says where there is no such thing.
    pub(crate) fn not_found() -> ClientError {
        ClientError::Api { code: 404, message: String::new() }
    }

    /// Whether fleetd said that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Api { code: 404, .. })
    }

    /// Whether fleetd said that it cannot be, as things are.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, ClientError::Api { code: 409, .. })
    }

    /// Whether fleetd may have done what was asked, or be about to.
    pub(crate) fn may_be_done(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } | ClientError::Tls { .. } => false,
            ClientError::Silent { .. } | ClientError::Garbled { .. } => true,
            ClientError::Api { code, .. } => *code >= 500,
        }
    }

    /// Whether fleetd serves as many as it can at once.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, ClientError::Api { code: 429, .. })
    }

    /// Whether asking again may help.
    pub(crate) fn is_passing(&self) -> bool {
        !matches!(self, ClientError::Api { code, .. } if *code < 500 && *code != 429)
            && !matches!(self, ClientError::Tls { .. })
    }
}

/// The last cause of a transport error, without Rust's `(os error 111)`.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}
