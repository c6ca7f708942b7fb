//! Where the API listens: sockets that systemd hands over, else a unix socket; and TCP, if
//! configured.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::uri::Scheme;
use axum::middleware::map_response;
use axum::response::Response;
use fleet_core::wire::{ErrorBody, ErrorDetail};
use futures_util::StreamExt;
use futures_util::stream::once;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{error, info, warn};

use super::door::Door;
use super::guests::{Busy, Guests, Source, Ticket};
use super::limits::{Limits, MAX_HEAD_BYTES};
use super::tls::{ServerTls, TlsDoor};
use super::{Api, router};
use crate::config::Listen;
use crate::process::panics;
use crate::process::repeated::Repeated;

/// How long, at the end, those who have connected have to say what they want: a client sends within
/// a millisecond.
const FIRST_WORDS: Duration = Duration::from_millis(100);

/// How long the silence of a connection lasts before the other side is probed, and how long
/// between two probes. A client that lost its power or its network is noticed in two minutes,
/// however silent the journal is that it follows.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EACH: Duration = Duration::from_secs(15);

/// How many probes may be lost.
const PROBES: u32 = 4;

/// How long the other side may take nothing of what it was sent, in milliseconds: a client that was
/// stopped while it followed something would hold its place for ever. As long as the probes take.
const UNREAD_MS: u32 = 120_000;

/// The pause after a connection that could not be taken, for want of descriptors for example.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Open listeners.
pub struct Listeners {
    unix: Vec<UnixListener>,
    tcp: Vec<(TcpListener, Option<ServerTls>)>,
    handed: Vec<Listen>,
}

/// Takes over systemd's sockets; where there are none, binds `socket`. Binds each of `addresses`
/// that is none of these; `tls` is for those that want it. A TCP socket of systemd's that
/// `addresses` do not name speaks plain HTTP, which must be `insecure` on purpose, on loopback too.
pub fn listen(
    socket: &Path,
    addresses: &[Listen],
    insecure: bool,
    tls: Option<&ServerTls>,
) -> anyhow::Result<Listeners> {
    let mut listeners = Listeners { unix: Vec::new(), tcp: Vec::new(), handed: Vec::new() };
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = listenfd::ListenFd::from_env();
    let mut unbound = addresses.to_vec();
    for index in 0..handed.len() {
        if let Ok(Some(unix)) = handed.take_unix_listener(index) {
            unix.set_nonblocking(true)?;
            listeners.unix.push(UnixListener::from_std(unix)?);
        } else if let Ok(Some(tcp)) = handed.take_tcp_listener(index) {
            let address = tcp.local_addr()?;
            let named = unbound
                .iter()
                .position(|listen| is_same(listen.address, address))
                .map(|at| unbound.remove(at));
            if named.is_none() && !insecure {
                let from = socket_unit(&names, index);
                let whose = Listen { address, tls: false }.who_reaches_it();
                anyhow::bail!(
                    "systemd hands over a socket on {address} that listen does not name: over \
                        plain HTTP {whose} can run anything as root here; name it, listen = \
                        [\"https://{address}\"], with tls_cafile, tls_certfile and tls_keyfile, \
                        or set insecure = true if all of these may, or take it out of {from}"
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
        let tcp = std::net::TcpListener::bind(listen.address)
            .with_context(|| format!("cannot listen on {listen}"))?;
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
        self.unix.is_empty() && self.tcp.is_empty()
    }

    fn add(
        &mut self,
        tcp: std::net::TcpListener,
        listen: Listen,
        tls: Option<&ServerTls>,
    ) -> anyhow::Result<()> {
        tcp.set_nonblocking(true)?;
        let tcp = TcpListener::from_std(tcp)?;
        let tls = match listen.tls {
            false => None,
            true => Some(tls.with_context(|| format!("{listen} without a certificate"))?.clone()),
        };
        let is_open = tls.as_ref().is_none_or(|tls| tls.files().ca.is_none());
        self.tcp.push((tcp, tls));
        if is_open {
            warn!(
                "listening on {listen}, insecure: {} can run anything as root here",
                listen.who_reaches_it()
            );
            return Ok(());
        }
        info!("listening on {listen}");
        Ok(())
    }
}

/// The unit that hands over the socket of this number, as systemd names it unless told otherwise:
/// it may be fleet 1.0's.
fn socket_unit(names: &str, index: usize) -> String {
    match names.split(':').nth(index).filter(|name| name.ends_with(".socket")) {
        Some(name) => format!("{name} (systemctl cat {name})"),
        None => "the .socket unit that hands it over (systemctl list-sockets)".to_string(),
    }
}

/// Whether a socket is the one that is meant: `ListenStream=4100` is `[::]:4100` for systemd, and
/// that is all of IPv4, too.
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
    let listener = std::os::unix::net::UnixListener::bind(socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    // Whoever may connect can run anything as root: root and its group only.
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener)?)
}

/// Serves until `stop`, and then what was asked before it: who was taken on gets an answer, who was
/// not stays with systemd's socket. Streams without an end are broken off, as if fleetd had
/// crashed: their readers come again.
pub async fn serve(api: Api, listeners: Listeners, stop: CancellationToken) {
    let cut = stop.clone();
    let (limits, guests) = (api.shared.limits.clone(), api.shared.guests.clone());
    let plain = Door::Plain(api.shared.names.clone());
    let app = router(api).layer(map_response(move |response| until(cut.clone(), response)));
    let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
    let host = Arc::new(Host { app, limits, guests, tasks: tasks.clone(), end: end.clone() });
    let mut servers = tokio::task::JoinSet::new();
    for unix in listeners.unix {
        servers.spawn(stop.clone().run_until_cancelled_owned(host.clone().serve_unix(unix)));
    }
    for (tcp, tls) in listeners.tcp {
        let door = if tls.is_some() { Door::Tls } else { plain.clone() };
        let tls = tls.map(|tls| Arc::new(TlsDoor::new(tls)));
        servers
            .spawn(stop.clone().run_until_cancelled_owned(host.clone().serve_tcp(tcp, door, tls)));
    }
    while let Some(ended) = servers.join_next().await {
        if !stop.is_cancelled() {
            error!("a listener of the API ended: {ended:?}");
        }
    }
    tokio::time::sleep(FIRST_WORDS).await;
    end.cancel();
    tasks.close();
    tasks.wait().await;
}

/// What the connections of all listeners share.
struct Host {
    app: Router,
    limits: Limits,
    guests: Arc<Guests>,
    tasks: TaskTracker,
    /// Set when nobody may ask any more.
    end: CancellationToken,
}

impl Host {
    async fn serve_unix(self: Arc<Host>, listener: UnixListener) {
        let mut trouble = Repeated::default();
        loop {
            let Some((stream, _)) = taken(listener.accept().await, &mut trouble).await else {
                continue;
            };
            match self.guests.admit(Source::Local) {
                Ok(ticket) => {
                    let host = self.clone();
                    self.spawn(ticket.clone(), async move {
                        host.talk(stream, ticket, Door::Unix).await
                    });
                }
                Err(why) => drop(stream.try_write(&refusal(&why))),
            }
        }
    }

    async fn serve_tcp(
        self: Arc<Host>,
        listener: TcpListener,
        door: Door,
        tls: Option<Arc<TlsDoor>>,
    ) {
        let mut trouble = Repeated::default();
        loop {
            let Some((stream, from)) = taken(listener.accept().await, &mut trouble).await else {
                continue;
            };
            probe(&stream);
            match self.guests.admit(from.ip().into()) {
                Ok(ticket) => {
                    let (host, door, tls) = (self.clone(), door.clone(), tls.clone());
                    self.spawn(ticket.clone(), async move {
                        host.greet(stream, from, ticket, door, tls).await
                    });
                }
                // Who expects TLS could not read it.
                Err(why) if tls.is_none() => drop(stream.try_write(&refusal(&why))),
                Err(_) => {}
            }
        }
    }

    /// A connection's task, which ends when its place is given away. A panic in it ends the
    /// connection, not fleetd: strangers decide what it reads.
    fn spawn(&self, ticket: Arc<Ticket>, talk: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            let talk = panics::contained(talk);
            tokio::select! {
                () = ticket.cut_off() => {}
                ended = talk => if let Err(message) = ended {
                    error!("a connection to the API ended in a panic: {message}. That is a bug of \
                        fleetd");
                },
            }
        });
    }

    /// Waits for the first byte of a TCP connection, and shakes hands if it is for TLS.
    async fn greet(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        ticket: Arc<Ticket>,
        door: Door,
        tls: Option<Arc<TlsDoor>>,
    ) {
        let first = tokio::time::timeout(self.limits.first_byte, stream.readable());
        let spoke = tokio::select! {
            () = self.end.cancelled() => return,
            first = first => matches!(first, Ok(Ok(()))),
        };
        if !spoke {
            return;
        }
        let Some(tls) = tls else { return self.talk(stream, ticket, door).await };
        let shaken = tokio::select! {
            () = self.end.cancelled() => return,
            shaken = tokio::time::timeout(self.limits.handshake, tls.shake_hands(stream, from)) => shaken,
        };
        if let Ok(Some(stream)) = shaken {
            self.talk(stream, ticket, door).await;
        }
    }

    /// Answers requests until the client goes, or is silent for too long.
    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        ticket: Arc<Ticket>,
        door: Door,
    ) {
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let (app, busy) = (self.app.clone(), ticket.begin());
            let mut request: Request = request.map(Body::new);
            if let Door::Tls = door {
                request.extensions_mut().insert(Scheme::HTTPS);
            }
            request.extensions_mut().insert(door.clone());
            async move {
                let busy = busy.ok_or_else(|| io::Error::other("the place was given away"))?;
                let Ok(response) = app.oneshot(request).await;
                Ok::<Response, io::Error>(
                    response.map(|body| Body::new(Counted { body, _busy: busy })),
                )
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(MAX_HEAD_BYTES);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.end.cancelled() => None,
        };
        if ended.is_none() {
            // What was asked is answered.
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// A body that keeps its connection busy until it is sent.
struct Counted {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What was accepted, if anything; after trouble that concerns the listener itself there is a
/// pause.
async fn taken<T>(accepted: io::Result<T>, trouble: &mut Repeated) -> Option<T> {
    let error = match accepted {
        Ok(taken) => return Some(taken),
        Err(error) => error,
    };
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        if let Some(words) = trouble.fresh(format!("cannot take a connection to the API: {error}"))
        {
            error!("{words}");
        }
        tokio::time::sleep(ACCEPT_AGAIN).await;
    }
    None
}

/// Has the kernel find out whether the other side is still there.
fn probe(stream: &TcpStream) {
    let outcome = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, PROBE_AFTER))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, PROBE_EACH))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, PROBES))
        .and_then(|()| sockopt::set_tcp_user_timeout(stream, UNREAD_MS));
    if let Err(error) = outcome {
        tracing::debug!("a connection to the API is not probed: {error}");
    }
}

/// A whole answer for a connection that is not taken.
fn refusal(why: &str) -> Vec<u8> {
    let message = format!("{why}, the most that it may; close some, and try again");
    let body = serde_json::to_string(&ErrorBody { error: ErrorDetail::new(429, message) })
        .unwrap_or_default();
    let head =
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nConnection: close\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Breaks a stream off at `stop`; a body of known length is sent whole.
async fn until(stop: CancellationToken, response: Response) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        let broken = stop.clone();
        // An error and no end, so that nobody takes what there was for all there is.
        let last = once(async move {
            broken.is_cancelled().then(|| Err(axum::Error::new(io::Error::other("fleetd stops"))))
        });
        Body::from_stream(
            body.into_data_stream()
                .take_until(stop.cancelled_owned())
                .chain(last.filter_map(ready)),
        )
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
        assert_eq!(
            socket_unit("fleetd.socket:fleet.socket", 1),
            "fleet.socket (systemctl cat fleet.socket)"
        );
        for names in ["", "fleetd.socket", "fleetd.socket:api"] {
            assert!(
                socket_unit(names, 1).starts_with("the .socket unit that hands it over"),
                "{names}"
            );
        }
    }

    #[tokio::test]
    async fn what_was_asked_before_the_end_is_answered_and_streams_are_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(
            Arc::new(EmbeddedKv::open(folder.path().join("store.redb")).await.unwrap()),
            "/fleet/",
        );
        let api = Api::new(store, MachineId::new("0123456789abcdef0123456789abcdef"), String::new);
        let socket = folder.path().join("fleet.sock");
        let stop = CancellationToken::new();
        let serving =
            tokio::spawn(serve(api, listen(&socket, &[], false, None).unwrap(), stop.clone()));

        let mut follow = UnixStream::connect(&socket).await.unwrap();
        follow
            .write_all(b"GET /fleet/v1/follow?unit=a.service HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        follow.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");

        // One is taken and has said half, one has said nothing yet.
        let mut half = UnixStream::connect(&socket).await.unwrap();
        let head = format!(
            "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: \
                application/json\r\nContent-Length: {}\r\n\r\n",
            BODY.len()
        );
        half.write_all(head.as_bytes()).await.unwrap();
        let mut silent = UnixStream::connect(&socket).await.unwrap();
        // Connections are taken in their order: when a later one is answered, these two are taken.
        let mut last = UnixStream::connect(&socket).await.unwrap();
        last.write_all(b"GET /fleet/v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        last.read_to_end(&mut Vec::new()).await.unwrap();

        stop.cancel();
        let mut rest = String::new();
        tokio::time::timeout(SOON, follow.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert!(
            !rest.ends_with("0\r\n\r\n"),
            "a stream that was cut off says that it is whole: {rest}"
        );
        half.write_all(BODY.as_bytes()).await.unwrap();
        silent.write_all(b"GET /fleet/v1/version HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        for (stream, expected) in [(&mut half, "HTTP/1.1 201 "), (&mut silent, "HTTP/1.1 200 ")] {
            let mut answer = String::new();
            tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with(expected), "{answer}");
        }
        tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
    }

    /// An API on loopback within these limits, until `stop`.
    async fn serve_tcp(limits: Limits, folder: &Path) -> (SocketAddr, CancellationToken) {
        let store = Store::new(
            Arc::new(EmbeddedKv::open(folder.join("store.redb")).await.unwrap()),
            "/fleet/",
        );
        let api = Api::new(store, MachineId::new("0123456789abcdef0123456789abcdef"), String::new);
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let listeners = Listeners { unix: Vec::new(), tcp: vec![(tcp, None)], handed: Vec::new() };
        let stop = CancellationToken::new();
        tokio::spawn(serve(api.with_limits(limits), listeners, stop.clone()));
        (address, stop)
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.unwrap()
    }

    /// What it answers to these bytes until it hangs up.
    async fn answer(stream: &mut TcpStream, bytes: &str) -> String {
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        // One that is cut off may be reset.
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut said)).await.unwrap();
        String::from_utf8(said).unwrap()
    }

    const VERSION: &str =
        "GET /fleet/v1/version HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn silent_connections_make_room_for_those_who_ask() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { connections_of_one: 4, first_byte: SOON * 10, ..Limits::default() };
        let (address, _stop) = serve_tcp(limits, folder.path()).await;
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(connect(address).await);
        }
        for _ in 0..3 {
            let said = answer(&mut connect(address).await, VERSION).await;
            assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        }
        // The first that came is the first that went.
        assert_eq!(answer(&mut silent[0], "").await, "");
        assert!(answer(&mut silent[3], VERSION).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn those_who_wait_for_an_answer_are_not_cut_off_and_one_too_many_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let (address, _stop) =
            serve_tcp(Limits { connections_of_one: 2, ..Limits::default() }, folder.path()).await;
        let mut followers = Vec::new();
        for _ in 0..2 {
            let mut follower = connect(address).await;
            let ask = "GET /fleet/v1/follow?unit=a.service HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
            follower.write_all(ask.as_bytes()).await.unwrap();
            follower.read_exact(&mut [0; 12]).await.unwrap();
            followers.push(follower);
        }
        let said = answer(&mut connect(address).await, "").await;
        assert!(
            said.starts_with("HTTP/1.1 429") && said.contains("127.0.0.1 has 2 connections"),
            "{said}"
        );
        drop(followers.pop());
        // Its place is free as soon as it is seen that it went.
        let deadline = tokio::time::Instant::now() + SOON;
        while !answer(&mut connect(address).await, VERSION).await.starts_with("HTTP/1.1 200") {
            assert!(tokio::time::Instant::now() < deadline, "the place stays taken");
        }
    }

    #[tokio::test]
    async fn who_says_nothing_or_not_all_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let short = Duration::from_millis(50);
        let limits = Limits { first_byte: short, head: short, body: short, ..Limits::default() };
        let (address, _stop) = serve_tcp(limits, folder.path()).await;
        assert_eq!(answer(&mut connect(address).await, "").await, "");
        assert_eq!(
            answer(&mut connect(address).await, "GET /fleet/v1/version HTTP/1.1\r\nHo").await,
            ""
        );
        let half = "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: 127.0.0.1\r\n\
                    Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
        let said = answer(&mut connect(address).await, half).await;
        assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    }

    #[tokio::test]
    async fn more_followers_than_there_are_places_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { followers: 1, journals: 0, ..Limits::default() };
        let (address, _stop) = serve_tcp(limits, folder.path()).await;
        let ask = |path: &str| {
            format!("GET /fleet/v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        };
        let mut first = connect(address).await;
        first.write_all(ask("follow?unit=a.service").as_bytes()).await.unwrap();
        first.read_exact(&mut [0; 12]).await.unwrap();
        for path in ["follow?unit=a.service", "events?follow=true", "units/a.service/journal"] {
            let said = answer(&mut connect(address).await, &ask(path)).await;
            assert!(said.starts_with("HTTP/1.1 429"), "{path}: {said}");
        }
    }

    #[tokio::test]
    async fn a_web_page_cannot_use_an_open_listener() {
        let folder = tempfile::tempdir().unwrap();
        let (address, _stop) = serve_tcp(Limits::default(), folder.path()).await;
        let ask =
            |head: &str| format!("{head}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
        let restart = "POST /fleet/v1/units/a.service/restart HTTP/1.1\r\nHost: 127.0.0.1";
        for (head, status) in [
            (
                "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: evil.example\r\nContent-Type: \
                application/json"
                    .into(),
                421,
            ),
            (format!("{restart}\r\nContent-Type: text/plain"), 415),
            (
                format!(
                    "{restart}\r\nContent-Type: application/json\r\nOrigin: \
                http://evil.example"
                ),
                403,
            ),
            (format!("{restart}\r\nContent-Type: application/json"), 404),
        ] as [(String, u16); 4]
        {
            let said = answer(&mut connect(address).await, &ask(&head)).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {said}");
        }
    }
}
