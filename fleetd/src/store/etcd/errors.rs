//! What etcd's errors mean to a caller: [`StoreError`]s, by gRPC code and by etcd's fixed messages
//! (its `rpctypes/error.go`).

use std::error::Error as _;

use etcd_client::Error;
use fleet_tls::Files;

use crate::store::kv::{MAX_TXN_BYTES, StoreError};

/// gRPC codes by number, since etcd-client does not hand out their names (grpc.io, "Status codes").
mod code {
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const ALREADY_EXISTS: i32 = 6;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const DATA_LOSS: i32 = 15;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// The error for the caller; `url` is the endpoint that was asked, over TLS with `files`.
pub(super) fn store_error(url: &str, error: &Error, files: &Files) -> StoreError {
    // The crate does not give the status as its error's source.
    let told_by: &(dyn std::error::Error + 'static) = match error {
        Error::GRpcStatus(status) => status,
        error => error,
    };
    if let Some(problem) = fleet_tls::explain(told_by, files) {
        return StoreError::Unavailable(format!("{url}: {problem}"));
    }
    let told = || format!("{url}: {}", chain(error));
    match error {
        Error::GRpcStatus(status) => {
            let message = status.message();
            match status.code() as i32 {
                _ if message.contains("requested lease not found") => StoreError::LeaseExpired,
                _ if message.contains("request is too large")
                    || message.contains("larger than max") =>
                {
                    StoreError::TooLarge {
                        what: "a transaction (by this etcd's --max-request-bytes too large)".into(),
                        bytes: 0,
                        limit: MAX_TXN_BYTES,
                    }
                }
                _ if message.contains("database space exceeded") => StoreError::Refused(format!(
                    "{url}: its database is full (alarm NOSPACE): it takes no writes; what runs \
                        goes on. Compact and defragment it, then `etcdctl alarm disarm` ({message})"
                )),
                _ if message.contains("authentication failed")
                    || message.contains("user name is empty") =>
                {
                    StoreError::Refused(format!(
                        "{url}: etcd wants a user and a password that it knows ({message}); see \
                            etcd_username and etcd_password"
                    ))
                }
                code::PERMISSION_DENIED => StoreError::Refused(format!(
                    "{url}: etcd does not allow this user to do that ({message}); grant its role \
                        readwrite on the prefix of the keys, or see etcd_username and etcd_password"
                )),
                // The users were changed while the request was under way.
                _ if message.contains("revision in header is old") => {
                    StoreError::Unavailable(told())
                }
                code::RESOURCE_EXHAUSTED if message.contains("too many requests") => {
                    StoreError::Unavailable(told())
                }
                code::INVALID_ARGUMENT
                | code::NOT_FOUND
                | code::ALREADY_EXISTS
                | code::FAILED_PRECONDITION
                | code::OUT_OF_RANGE
                | code::UNIMPLEMENTED
                | code::DATA_LOSS
                | code::UNAUTHENTICATED => StoreError::Refused(told()),
                // No leader, leader changed, stopping, timed out, a broken connection, and whatever
                // else has no code of its own.
                _ => StoreError::Unavailable(told()),
            }
        }
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
            StoreError::Refused(told())
        }
        _ => StoreError::Unavailable(told()),
    }
}

/// etcd's two ways to say it: a status, and a renewal answered with a TTL of 0, which the crate
/// turns into this text.
pub(super) fn is_lease_not_found(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(status) => status.message().contains("requested lease not found"),
        Error::LeaseKeepAliveError(message) => message == "lease not found",
        _ => false,
    }
}

/// Whether the connection ended without a word of why, or with one that HTTP/2 has made a mere text
/// of: an etcd that restarts, or one that refused our certificate.
pub(super) fn is_a_close(error: &Error) -> bool {
    let closed = [
        "received fatal alert",
        "connection closed",
        "operation was canceled",
        "Connection reset",
        "Broken pipe",
        "broken pipe",
    ];
    matches!(error, Error::GRpcStatus(_)) && closed.iter().any(|words| chain(error).contains(words))
}

/// Whether no connection came about, so that etcd cannot have seen the request. The crates do not
/// export the type of this error; the test "with a dead endpoint first, calls work" notices when
/// the words change.
pub(super) fn never_sent(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else { return false };
    let mut source = status.source();
    while let Some(error) = source {
        if matches!(
            error.to_string().as_str(),
            "tcp connect error" | "tcp open error" | "dns error"
        ) {
            return true;
        }
        source = error.source();
    }
    false
}

/// A status prints without its causes, which hold the useful half ("Connection refused").
fn chain(error: &Error) -> String {
    let Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut text = status.message().to_string();
    let mut source = status.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
