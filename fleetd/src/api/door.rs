//! Who may ask what over which listener. A browser is nobody's friend here: a page that its user
//! reads must not reach fleetd through it, whether by DNS rebinding or by a form.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// The kind of listener that a request came in by.
#[derive(Debug, Clone)]
pub(super) enum Door {
    /// The unix socket: no browser opens one.
    Unix,
    /// Plain HTTP, which may be asked for by these names, localhost and any address.
    Plain(Arc<Names>),
    /// TLS: the certificate says what it may be asked for as.
    Tls,
}

impl Door {
    /// What stands before the `://` of a page that came in by it; a unix socket has none.
    fn scheme(&self) -> &'static str {
        match self {
            Door::Unix => "unix",
            Door::Plain(_) => "http",
            Door::Tls => "https",
        }
    }
}

/// The names of this machine, besides its addresses. All of them may change while fleetd runs.
#[derive(Debug, Default)]
pub(super) struct Names {
    configured: RwLock<Vec<String>>,
}

impl Names {
    /// Those that the configuration says.
    pub(super) fn configure(&self, names: &[String]) {
        *self.configured.write().unwrap_or_else(PoisonError::into_inner) = names.to_vec();
    }

    /// These, and this host's own, as they are now.
    fn all(&self) -> Vec<String> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let short = host.split('.').next().unwrap_or_default().to_string();
        let mut names = vec!["localhost".to_string(), host, short];
        names.extend(self.configured.read().unwrap_or_else(PoisonError::into_inner).clone());
        names.retain(|name| !name.is_empty());
        names.dedup();
        names
    }
}

/// Refuses what a page of somebody else's may have sent.
pub(super) async fn keep(request: Request, next: Next) -> Response {
    let door = request.extensions().get::<Door>();
    match refused(door, request.headers()) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

fn refused(door: Option<&Door>, headers: &HeaderMap) -> Option<ApiError> {
    if let Some(Door::Plain(names)) = door
        && let Some(host) = headers.get_all(header::HOST).iter().find(|host| !is_ours(host, names))
    {
        let names = names.all();
        let host = host.to_str().unwrap_or("?");
        return Some(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "this fleetd is not known as {host:?}; ask for it by an address or by {}, \
                 or add the name to listen_names in its configuration",
                names.join(", ")
            ),
        ));
    }
    let host = headers.get(header::HOST);
    let is_ours = |origin: &HeaderValue| {
        host.is_some_and(|host| is_page_of(origin, host, door.map_or("", Door::scheme)))
    };
    let origin = headers.get_all(header::ORIGIN).iter().find(|origin| !is_ours(origin))?;
    let origin = origin.to_str().unwrap_or("?");
    Some(ApiError::new(
        StatusCode::FORBIDDEN,
        format!("a web page of {origin:?} may not use this API"),
    ))
}

/// Whether a `Host` is an address, which no DNS server can turn into another, or one of our names.
fn is_ours(host: &HeaderValue, names: &Names) -> bool {
    let authority = host.to_str().ok().and_then(|host| Authority::from_str(host).ok());
    let Some(authority) = authority else { return false };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = host.strip_suffix('.').unwrap_or(host);
    address.parse::<IpAddr>().is_ok()
        || names.all().iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

/// Whether an `Origin` is the place that the request went to, by this scheme; by any if that is
/// not known.
fn is_page_of(origin: &HeaderValue, host: &HeaderValue, scheme: &str) -> bool {
    let (Ok(origin), Ok(host)) = (origin.to_str(), host.to_str()) else { return false };
    origin.split_once("://").is_some_and(|(page, place)| {
        (scheme.is_empty() || page == scheme) && place.eq_ignore_ascii_case(host)
    })
}

/// Refuses a write that a form of a web page may have sent: such a one says another type.
pub(super) fn json_only(headers: &HeaderMap) -> Result<(), ApiError> {
    let given: Vec<_> = headers.get_all(header::CONTENT_TYPE).iter().collect();
    let [one] = given[..] else {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("expected 1 Content-Type, got {}", given.len()),
        ));
    };
    let kind = one.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
    match kind.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "only acceptable Content-Type is application/json",
        )),
    }
}

/// The same for the bytes of a file: a page in a browser cannot send them unasked.
pub(super) fn bytes_only(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    match given == Some("application/octet-stream") {
        true => Ok(()),
        false => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "only acceptable Content-Type is application/octet-stream",
        )),
    }
}

/// The same where fleet 1.0's clients say no type. A page can send that only by a method that its
/// browser asks about first: `PATCH`.
pub(super) fn json_or_nothing(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(header::CONTENT_TYPE) { json_only(headers) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(door: Option<&Door>, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        refused(door, &map).map_or(200, |error| error.status().as_u16())
    }

    #[test]
    fn a_name_that_is_not_ours_is_refused_over_plain_http_and_an_address_is_not() {
        let names = Arc::new(Names::default());
        names.configure(&["fleet.example.com".to_string()]);
        let door = Door::Plain(names.clone());
        let hosts = [
            "127.0.0.1:4100",
            "[::1]:4100",
            "10.0.0.7",
            "localhost:1",
            "LOCALHOST.",
            "fleet.example.com",
        ];
        for host in hosts.into_iter().chain([names.all()[1].as_str()]) {
            assert_eq!(status(Some(&door), &[("host", host)]), 200, "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example:4100", "localhost.evil.example", "", "a b"]
        {
            assert_eq!(status(Some(&door), &[("host", host)]), 421, "{host}");
            assert_eq!(status(Some(&Door::Unix), &[("host", host)]), 200, "{host}");
        }
        assert_eq!(status(Some(&door), &[("host", "10.0.0.7"), ("host", "evil.example")]), 421);
        assert_eq!(status(Some(&door), &[]), 200, "health checks of HTTP 1.0 name no host");
        names.configure(&["other.example.com".to_string()]);
        assert_eq!(status(Some(&door), &[("host", "fleet.example.com")]), 421);
        assert_eq!(status(Some(&door), &[("host", "other.example.com")]), 200);
    }

    #[test]
    fn a_page_of_another_origin_is_refused_at_every_door() {
        let door = Door::Plain(Arc::default());
        let here = ("host", "10.0.0.7:4100");
        for origin in ["http://evil.example", "null", "http://10.0.0.7", "http://10.0.0.7:41000"] {
            for door in [None, Some(&door), Some(&Door::Tls), Some(&Door::Unix)] {
                assert_eq!(status(door, &[here, ("origin", origin)]), 403, "{origin}");
            }
        }
        assert_eq!(status(Some(&door), &[here, ("origin", "http://10.0.0.7:4100")]), 200);
        assert_eq!(status(Some(&Door::Tls), &[here, ("origin", "https://10.0.0.7:4100")]), 200);
        assert_eq!(status(Some(&Door::Unix), &[here, ("origin", "http://10.0.0.7:4100")]), 403);
        assert_eq!(status(Some(&door), &[here, ("origin", "https://10.0.0.7:4100")]), 403);
        let two = [here, ("origin", "http://10.0.0.7:4100"), ("origin", "http://evil.example")];
        assert_eq!(status(Some(&door), &two), 403);
    }
}
