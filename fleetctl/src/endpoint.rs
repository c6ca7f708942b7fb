//! Where fleetd listens: `unix:///run/fleet.sock`, `https://HOST:PORT`, `http://HOST:PORT`, or
//! several of these with commas.

use std::path::PathBuf;

use reqwest::Url;

use crate::error::{Error, Kind};

/// One address of a fleetd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A TCP address.
    Http(Url),
}

impl Endpoint {
    /// Reads the value of `--endpoint`; errors are in fleet 1.0's words.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Endpoint>, Error> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty() || text.is_empty())
            .map(Endpoint::parse)
            .collect()
    }

    fn parse(text: &str) -> Result<Endpoint, Error> {
        let refused =
            |why: &str| Error::worded(Kind::Failed, format!("Unable to initialize client: {why}"));
        let scheme_of = |scheme: &&str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+' || c == '-')
        };
        let split = text.split_once(':').filter(|(scheme, _)| scheme_of(scheme));
        let Some((scheme, rest)) = split else {
            return Err(refused("URL scheme undefined")
                .hint("write unix:///run/fleet.sock, https://HOST:PORT or http://HOST:PORT"));
        };
        match scheme {
            "unix" | "file" => {
                let (host, path) = match rest.strip_prefix("//") {
                    Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
                    None => ("", rest),
                };
                if !host.is_empty() {
                    let why =
                        format!("unable to connect to host \"{host}\" with scheme \"{scheme}\"");
                    return Err(refused(&why).hint(format!(
                        "a socket's path starts with a third slash: {scheme}:///{host}{path}"
                    )));
                }
                if path.is_empty() {
                    return Err(refused("the endpoint has no socket path")
                        .hint("write unix:///run/fleet.sock"));
                }
                Ok(Endpoint::Unix(PathBuf::from(path)))
            }
            "http" | "https" => {
                let url =
                    Url::parse(text).map_err(|problem| refused(&format!("{text}: {problem}")))?;
                Ok(Endpoint::Http(url))
            }
            _ => Err(refused(&format!("URL scheme \"{scheme}\" is not supported"))
                .hint(format!("did you mean http://{text}?"))),
        }
    }

    /// Whether it wants certificates.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Endpoint::Http(url) if url.scheme() == "https")
    }

    /// What a request's URL starts with. Over a socket the host says nothing, but HTTP wants one.
    pub(crate) fn base(&self) -> Url {
        match self {
            Endpoint::Unix(_) => Url::parse("http://fleet.sock/").expect("a constant URL"),
            Endpoint::Http(url) => url.clone(),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match Endpoint::parse_list(text) {
            Ok(list) => list.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(" then "),
            Err(error) => format!("{error:?}")
                .split("message: \"")
                .nth(1)
                .and_then(|m| m.split("\", causes").next())
                .unwrap_or("")
                .replace('\\', ""),
        }
    }

    #[test]
    fn sockets_and_tcp_addresses_are_endpoints() {
        assert_eq!(read("unix:///run/fleet.sock"), "unix:///run/fleet.sock");
        assert_eq!(read("unix:/run/fleet.sock"), "unix:///run/fleet.sock");
        assert_eq!(read("http://10.0.0.1:4100"), "http://10.0.0.1:4100");
        assert_eq!(
            read("https://10.0.0.1:4100,https://h2"),
            "https://10.0.0.1:4100 then https://h2"
        );
        assert_eq!(read("http://a:1/, http://b:2,"), "http://a:1 then http://b:2");
    }

    #[test]
    fn refusals_use_the_words_of_fleet_1_0() {
        assert_eq!(read("foo"), "Unable to initialize client: URL scheme undefined");
        assert_eq!(read(""), "Unable to initialize client: URL scheme undefined");
        assert_eq!(read("127.0.0.1:4100"), "Unable to initialize client: URL scheme undefined");
        assert_eq!(
            read("unix://var/run/x"),
            "Unable to initialize client: unable to connect to host \"var\" with scheme \"unix\""
        );
        assert_eq!(
            read("localhost:1"),
            "Unable to initialize client: URL scheme \"localhost\" is not supported"
        );
    }
}
