//! The HTTP client of the tests.

/// A client for `http://` and sockets; it ignores the environment's proxies.
pub fn http() -> reqwest::ClientBuilder {
    http_with(fleet_tls::plain())
}

/// The same with a TLS configuration, as [`fleet_tls::client`] makes it.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that gives it a TLS configuration"
)]
pub fn http_with(tls: rustls::ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls)
}
