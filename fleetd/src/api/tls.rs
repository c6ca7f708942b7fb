//! The API's listener with TLS: handshakes beside each other, certificates as the files are now, refusals in one line.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_core::wire::{ErrorBody, ErrorDetail};
use fleet_tls::{Files, Reloading, TlsError};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

/// A client has this long for its handshake; a healthy one needs milliseconds.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes under way at once; each costs 1 ms of a core, and a client that says nothing holds its place for `HANDSHAKE`.
const MAX_HANDSHAKES: usize = 256;

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

/// Accepts connections that have their handshake behind them.
pub(super) struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    pub(super) fn new(tcp: TcpListener, tls: ServerTls) -> std::io::Result<TlsListener> {
        let address = tcp.local_addr()?;
        let (sender, ready) = mpsc::channel(MAX_HANDSHAKES);
        tokio::spawn(accept(tcp, tls, sender));
        Ok(TlsListener { ready, address })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The acceptor ends with its receiver only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

async fn accept(mut tcp: TcpListener, tls: ServerTls, sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let said = Arc::new(Mutex::new(String::new()));
    loop {
        let place = places.clone().acquire_owned().await.expect("never closed");
        let (stream, from) = tokio::select! {
            () = sender.closed() => return,
            // axum's own accept: it waits where the process has run out of files.
            accepted = axum::serve::Listener::accept(&mut tcp) => accepted,
        };
        let (config, reloaded) = tls.current();
        match reloaded {
            Some(Ok(())) => info!("the API's certificates were read anew"),
            Some(Err(error)) => warn!("{error}; the API goes on with the certificate that it had"),
            None => {}
        }
        let (sender, said, files) = (sender.clone(), said.clone(), tls.files());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, handshake(stream, config, &files)).await {
                Ok(Ok(stream)) => drop(sender.send((stream, from)).await),
                Ok(Err(Some(problem))) => warn_once(&said, from, problem),
                Ok(Err(None)) => debug!("{from}: no TLS handshake"),
                Err(_) => debug!("{from}: no TLS handshake within {} s", HANDSHAKE.as_secs()),
            }
            drop(place);
        });
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
            // Closed at once, with the client's request unread, the connection would be reset and our alert lost.
            linger(&mut stream).await;
            Err(fleet_tls::explain(&error, files))
        }
    }
}

async fn say_in_plain_http(stream: &mut TcpStream) {
    let message = "this address speaks TLS; write https:// instead of http://".to_string();
    let body = serde_json::to_string(&ErrorBody { error: ErrorDetail::new(400, message) }).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // Whoever is gone by now does not need it.
    let _ = stream.write_all(answer.as_bytes()).await;
    linger(stream).await;
}

/// Lets the other side read what was written last.
async fn linger(stream: &mut TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 1024];
    let drain = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// A client that tries again and again is told of once.
fn warn_once(said: &Mutex<String>, from: SocketAddr, problem: String) {
    let now = format!("refused {}: {problem}", from.ip());
    let mut last = said.lock().unwrap_or_else(PoisonError::into_inner);
    if *last == now {
        return debug!("{now}");
    }
    warn!("{now}");
    *last = now;
}
