//! Where the API listens: sockets that systemd hands over, else a unix socket; and TCP, if configured.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::middleware::map_response;
use axum::response::Response;
use axum::serve::Listener;
use futures_util::StreamExt;
use futures_util::stream::once;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::tls::{ServerTls, TlsListener};
use super::{Api, router};
use crate::config::Listen;

/// How long, at the end, those who have connected have to say what they want: a client sends within a millisecond.
const FIRST_WORDS: Duration = Duration::from_millis(100);

/// Open listeners.
pub struct Listeners {
    unix: Vec<UnixListener>,
    tcp: Vec<TcpListener>,
    tls: Vec<TlsListener>,
    handed: Vec<Listen>,
}

/// Takes over systemd's sockets; where there are none, binds `socket`. Binds each of `addresses` that is none of these;
/// `tls` is for those that want it. A TCP socket of systemd's that `addresses` do not name speaks plain HTTP: to others than this
/// machine only if that is `insecure` on purpose.
pub fn listen(socket: &Path, addresses: &[Listen], insecure: bool, tls: Option<&ServerTls>) -> anyhow::Result<Listeners> {
    let mut listeners = Listeners { unix: Vec::new(), tcp: Vec::new(), tls: Vec::new(), handed: Vec::new() };
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = listenfd::ListenFd::from_env();
    let mut unbound = addresses.to_vec();
    for index in 0..handed.len() {
        if let Ok(Some(unix)) = handed.take_unix_listener(index) {
            unix.set_nonblocking(true)?;
            listeners.unix.push(UnixListener::from_std(unix)?);
        } else if let Ok(Some(tcp)) = handed.take_tcp_listener(index) {
            let address = tcp.local_addr()?;
            let named = unbound.iter().position(|listen| is_same(listen.address, address)).map(|at| unbound.remove(at));
            if named.is_none() && !address.ip().is_loopback() && !insecure {
                let from = socket_unit(&names, index);
                anyhow::bail!(
                    "systemd hands over a socket on {address} that listen does not name: plain HTTP on an address that others can reach lets anybody who reaches it run anything as root here; name it, listen = [\"https://{address}\"], with tls_cafile, tls_certfile and tls_keyfile, or set insecure = true if the network is yours alone, or take it out of {from}"
                );
            }
            let plain = Listen { address, tls: false };
            listeners.handed.extend(named.is_none().then_some(plain));
            listeners.add(tcp, named.unwrap_or(plain), tls)?;
        }
    }
    if listeners.are_none() {
        listeners.unix.push(bind_unix(socket)?);
    }
    for listen in unbound {
        let tcp = std::net::TcpListener::bind(listen.address).with_context(|| format!("cannot listen on {listen}"))?;
        listeners.add(tcp, listen, tls)?;
    }
    Ok(listeners)
}

impl Listeners {
    /// The TCP sockets that systemd handed over and nobody named.
    pub fn handed(&self) -> &[Listen] {
        &self.handed
    }

    fn are_none(&self) -> bool {
        self.unix.is_empty() && self.tcp.is_empty() && self.tls.is_empty()
    }

    fn add(&mut self, tcp: std::net::TcpListener, listen: Listen, tls: Option<&ServerTls>) -> anyhow::Result<()> {
        tcp.set_nonblocking(true)?;
        let tcp = TcpListener::from_std(tcp)?;
        match listen.tls {
            false => self.tcp.push(tcp),
            true => {
                let tls = tls.with_context(|| format!("{listen} without a certificate"))?;
                self.tls.push(TlsListener::new(tcp, tls.clone())?);
            }
        }
        info!("listening on {listen}");
        Ok(())
    }
}

/// The unit that hands over the socket of this number, as systemd names it unless told otherwise: it may be fleet 1.0's.
fn socket_unit(names: &str, index: usize) -> String {
    match names.split(':').nth(index).filter(|name| name.ends_with(".socket")) {
        Some(name) => format!("{name} (systemctl cat {name})"),
        None => "the .socket unit that hands it over (systemctl list-sockets)".to_string(),
    }
}

/// Whether a socket is the one that is meant: `ListenStream=4100` is `[::]:4100` for systemd, and that is all of IPv4, too.
fn is_same(meant: SocketAddr, socket: SocketAddr) -> bool {
    let any = |address: SocketAddr| address.ip().is_unspecified();
    meant.port() == socket.port() && (meant.ip() == socket.ip() || (any(meant) && any(socket)))
}

/// Replaces a socket file that nobody listens on; refuses one that somebody does.
fn bind_unix(socket: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        anyhow::bail!("{} is in use: another fleetd is running here", socket.display());
    }
    let _ = std::fs::remove_file(socket);
    let listener =
        std::os::unix::net::UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    // Whoever may connect can run anything as root: root and its group only.
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener)?)
}

/// Serves until `stop`, and then what was asked before it: who was taken on gets an answer, who was not stays with systemd's
/// socket. Streams without an end are broken off, as if fleetd had crashed: their readers come again.
pub async fn serve(api: Api, listeners: Listeners, stop: CancellationToken) {
    let cut = stop.clone();
    let app = router(api).layer(map_response(move |response| until(cut.clone(), response)));
    let mut servers = tokio::task::JoinSet::new();
    for unix in listeners.unix {
        servers.spawn(serve_on(unix, app.clone(), stop.clone()));
    }
    for tcp in listeners.tcp {
        servers.spawn(serve_on(tcp, app.clone(), stop.clone()));
    }
    for tls in listeners.tls {
        servers.spawn(serve_on(tls, app.clone(), stop.clone()));
    }
    while let Some(ended) = servers.join_next().await {
        if !stop.is_cancelled() {
            error!("a listener of the API ended: {ended:?}");
        }
    }
}

async fn serve_on<L: Listener>(listener: L, app: Router, stop: CancellationToken) -> io::Result<()>
where
    L::Addr: std::fmt::Debug,
{
    let listener = UntilStop { listener, stop: stop.clone() };
    let end = async move {
        stop.cancelled().await;
        tokio::time::sleep(FIRST_WORDS).await;
    };
    axum::serve(listener, app).with_graceful_shutdown(end).await
}

/// A listener that takes nobody on after `stop`. axum's own way also hangs up on those who have not said anything yet.
struct UntilStop<L> {
    listener: L,
    stop: CancellationToken,
}

impl<L: Listener> Listener for UntilStop<L> {
    type Io = L::Io;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (L::Io, L::Addr) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => std::future::pending().await,
            taken = self.listener.accept() => taken,
        }
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// Breaks a stream off at `stop`; a body of known length is sent whole.
async fn until(stop: CancellationToken, response: Response) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        let broken = stop.clone();
        // An error and no end, so that nobody takes what there was for all there is.
        let last = once(async move { broken.is_cancelled().then(|| Err(axum::Error::new(io::Error::other("fleetd stops")))) });
        Body::from_stream(body.into_data_stream().take_until(stop.cancelled_owned()).chain(last.filter_map(ready)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use fleet_core::name::MachineId;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::store::Store;
    use crate::store::embedded::EmbeddedKv;

    /// Far above what an end takes, far below what a stream takes.
    const SOON: Duration = Duration::from_secs(5);

    const BODY: &str = r#"{"text":"[Service]\nExecStart=/bin/true\n"}"#;

    #[test]
    fn a_socket_is_said_to_be_of_the_unit_that_hands_it_over() {
        assert_eq!(socket_unit("fleetd.socket:fleet.socket", 1), "fleet.socket (systemctl cat fleet.socket)");
        for names in ["", "fleetd.socket", "fleetd.socket:api"] {
            assert!(socket_unit(names, 1).starts_with("the .socket unit that hands it over"), "{names}");
        }
    }

    #[tokio::test]
    async fn what_was_asked_before_the_end_is_answered_and_streams_are_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(Arc::new(EmbeddedKv::open(folder.path().join("store.redb")).await.unwrap()), "/fleet/");
        let api = Api::new(store, MachineId::new("0123456789abcdef0123456789abcdef"), String::new);
        let socket = folder.path().join("fleet.sock");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(api, listen(&socket, &[], false, None).unwrap(), stop.clone()));

        let mut follow = UnixStream::connect(&socket).await.unwrap();
        follow.write_all(b"GET /fleet/v1/follow?unit=a.service HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        follow.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");

        // One is taken and has said half, one has said nothing yet.
        let mut half = UnixStream::connect(&socket).await.unwrap();
        let head = format!(
            "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            BODY.len()
        );
        half.write_all(head.as_bytes()).await.unwrap();
        let mut silent = UnixStream::connect(&socket).await.unwrap();
        // Connections are taken in their order: when a later one is answered, these two are taken.
        let mut last = UnixStream::connect(&socket).await.unwrap();
        last.write_all(b"GET /fleet/v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        last.read_to_end(&mut Vec::new()).await.unwrap();

        stop.cancel();
        let mut rest = String::new();
        tokio::time::timeout(SOON, follow.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert!(!rest.ends_with("0\r\n\r\n"), "a stream that was cut off says that it is whole: {rest}");
        half.write_all(BODY.as_bytes()).await.unwrap();
        silent.write_all(b"GET /fleet/v1/version HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        for (stream, expected) in [(&mut half, "HTTP/1.1 201 "), (&mut silent, "HTTP/1.1 200 ")] {
            let mut answer = String::new();
            tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with(expected), "{answer}");
        }
        tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
    }
}
