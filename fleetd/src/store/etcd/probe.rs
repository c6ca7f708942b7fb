//! Asks an endpoint over TLS why it closed the connection: gRPC's own client reports the close and
//! loses the alert before it.

use std::sync::Arc;
use std::time::Duration;

use fleet_tls::Files;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server that refuses our certificate says so within a round trip of the handshake; a busy one
/// needs some time for that.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the endpoint has against us, in one sentence; `None` if nothing about TLS comes of it.
pub(super) async fn refusal(url: &str, files: &Files) -> Option<String> {
    let authority = url.strip_prefix("https://")?.trim_end_matches('/');
    let host =
        authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_string()).ok()?;
    let mut config = fleet_tls::client(files).ok()?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let attempt = async {
        let tcp = TcpStream::connect(authority).await.ok()?;
        let error = match TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
            Err(error) => error,
            // In TLS 1.3 the client is done before the server has looked at its certificate.
            Ok(mut stream) => loop {
                match stream.read(&mut [0; 64]).await {
                    Ok(0) => return None,
                    Ok(_) => {}
                    Err(error) => break error,
                }
            },
        };
        fleet_tls::explain(&error, files)
    };
    tokio::time::timeout(PATIENCE, attempt).await.ok()?
}
