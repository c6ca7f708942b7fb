//! Who asks: as far as it is known for sure. On the unix socket the kernel says whose process it
//! is, over TLS the certificate says a name that the operator's authority has signed. What a
//! request says of itself is not believed.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use fleet_core::model::{Act, Did};
use fleet_core::printable;

use crate::process::clock;

/// Where the names of this host's users stand.
const PASSWD: &str = "/etc/passwd";

/// The longest name that is kept, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Who asks, by the connection that a request came in by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A process of this user is at the other end of the unix socket.
    User(u32),
    /// A certificate of this name.
    Certificate(Arc<str>),
    /// Nobody showed anything: an address alone.
    Address(Arc<str>),
    /// There was no listener of ours, as in tests.
    Unknown,
}

impl Who {
    /// In words: `root@h1`, `alice (certificate)`, `somebody at 10.0.0.7`.
    pub(super) fn name(&self) -> String {
        let name = match self {
            Who::User(uid) => {
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                let users = std::fs::read_to_string(PASSWD).unwrap_or_default();
                format!("{}@{host}", user(&users, *uid))
            }
            Who::Certificate(name) => format!("{name} (certificate)"),
            Who::Address(address) => format!("somebody at {address}"),
            Who::Unknown => String::new(),
        };
        let mut name = printable::line(&name).into_owned();
        name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
        name
    }

    /// What they did just now.
    pub(super) fn act(&self, did: Did) -> Act {
        Act::new(self.name(), clock::now_ms(), did)
    }
}

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Who, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or(Who::Unknown))
    }
}

/// The name of a user, by the lines of a passwd file; the number of one who has none.
fn user(users: &str, uid: u32) -> String {
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_string())
    });
    named.unwrap_or_else(|| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_or_a_number() {
        let users = "root:x:0:0::/root:/bin/sh\nbroken\nalice:x:1000:1000::/:\n:x:7:7::/:";
        assert_eq!(user(users, 0), "root");
        assert_eq!(user(users, 1000), "alice");
        assert_eq!([user(users, 7), user("", 0)], ["uid 7", "uid 0"]);
    }

    #[test]
    fn who_is_known_is_said_and_a_name_is_bounded_and_obeyed_by_no_terminal() {
        let certificate = |name: &str| Who::Certificate(name.into()).name();
        assert_eq!(certificate("alice"), "alice (certificate)");
        assert_eq!(certificate("a\u{1b}[31m\n"), "a\\x1b[31m\\x0a (certificate)");
        assert!(certificate(&"é".repeat(500)).len() <= MAX_NAME_BYTES);
        assert_eq!(Who::Address("10.0.0.7".into()).name(), "somebody at 10.0.0.7");
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_eq!(Who::User(4_000_000_000).name(), format!("uid 4000000000@{host}"));
    }
}
