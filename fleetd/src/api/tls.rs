//! TLS of the API's listeners: certificates as the files are now, refusals in one line.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_core::wire::{ErrorBody, ErrorDetail};
use fleet_tls::{Files, Reloading, TlsError};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use crate::process::repeated::Throttled;

/// How long a refused client has to read why.
const LINGER: Duration = Duration::from_secs(1);

/// The first byte of every TLS connection: a record of type handshake.
const TLS_HANDSHAKE: u8 = 22;

/// The server's side of TLS, from the certificate files.
pub type ServerTls = Arc<Reloading<Arc<ServerConfig>>>;

/// Reads the files; they are read again whenever they change.
pub fn server_tls(files: Files) -> Result<ServerTls, TlsError> {
    Ok(Arc::new(Reloading::new(files, |files| fleet_tls::server(files).map(Arc::new))?))
}

/// Shakes hands with those who connect to one address.
pub(super) struct TlsDoor {
    tls: ServerTls,
    /// Refusals are told, but whoever connects can set them off.
    said: Mutex<Throttled>,
}

impl TlsDoor {
    pub(super) fn new(tls: ServerTls) -> TlsDoor {
        TlsDoor { tls, said: Mutex::default() }
    }

    /// The connection with its handshake behind it, or `None` for one that is refused.
    pub(super) async fn shake_hands(
        &self,
        stream: TcpStream,
        from: SocketAddr,
    ) -> Option<TlsStream<TcpStream>> {
        let (config, reloaded) = self.tls.current();
        match reloaded {
            Some(Ok(())) => info!("the API's certificates were read again"),
            Some(Err(error)) => warn!("{error}; the API goes on with the certificate that it had"),
            None => {}
        }
        match handshake(stream, config, &self.tls.files()).await {
            Ok(stream) => return Some(stream),
            Err(Some(problem)) => {
                let words = format!("refused {}: {problem}", from.ip());
                match self.said.lock().unwrap_or_else(PoisonError::into_inner).fresh(&words) {
                    Some(words) => warn!("{words}"),
                    None => debug!("{words}"),
                }
            }
            Err(None) => debug!("{from}: no TLS handshake"),
        }
        None
    }
}

/// The error is worth a line in the log if it is `Some`.
async fn handshake(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    files: &Files,
) -> Result<TlsStream<TcpStream>, Option<String>> {
    let mut first = [0];
    if stream.peek(&mut first).await.map_err(|_| None)? == 1 && first[0] != TLS_HANDSHAKE {
        say_in_plain_http(&mut stream).await;
        return Err(None);
    }
    match TlsAcceptor::from(config).accept(stream).into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, mut stream)) => {
            // Closed at once, with the client's request unread, the connection would be reset and
            // our alert lost.
            linger(&mut stream).await;
            Err(fleet_tls::explain(&error, files))
        }
    }
}

async fn say_in_plain_http(stream: &mut TcpStream) {
    let message = "this address speaks TLS; write https:// instead of http://".to_string();
    let body = serde_json::to_string(&ErrorBody { error: ErrorDetail::new(400, message) })
        .unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: \
            {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // Whoever is gone by now does not need it.
    let _ = stream.write_all(answer.as_bytes()).await;
    linger(stream).await;
}

/// Lets the other side read what was written last.
pub(super) async fn linger(stream: &mut TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 1024];
    let drain = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(LINGER, drain).await;
}
