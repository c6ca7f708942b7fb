//! Where the API listens: sockets that systemd hands over, else a unix socket; and TCP, if
//! configured.

use std::fs::Permissions;
use std::future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
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
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{error, info, warn};

use super::door::Door;
use super::guests::{Busy, Guests, Source, Ticket};
use super::limits::{Limits, MAX_HEAD_BYTES};
use super::tls::{ServerTls, TlsDoor, linger};
use super::turns::Room;
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

/// How many may wait to be taken on the unix socket, as with systemd's own.
const BACKLOG: u32 = 4096;

/// Large answers are handed on in pieces of this size, so that it is known how much of them has
/// been sent.
const PIECE: usize = 64 * 1024;

/// The pause after a connection that could not be taken, for want of descriptors for example.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Open listeners.
#[derive(Default)]
pub struct Listeners {
    unix: Vec<UnixListener>,
    tcp: Vec<(TcpListener, Option<ServerTls>)>,
    handed: Vec<Listen>,
    /// Sockets of systemd's that nobody may use, and why.
    closed: Vec<(TcpListener, String)>,
    /// The same of unix sockets. They are kept open: who connects is not taken.
    closed_unix: Vec<(std::os::unix::net::UnixListener, String)>,
}

/// Takes over systemd's sockets; where there are none, binds `socket`. Binds each of `addresses`
/// that is none of these; `tls` is for those that want it. A TCP socket of systemd's that
/// `addresses` do not name speaks plain HTTP, which must be `insecure` on purpose, on loopback too:
/// else all who connect are told that it is closed. It is no reason not to run, since a machine
/// whose fleetd does not start is lost.
pub fn listen(
    socket: &Path,
    addresses: &[Listen],
    insecure: bool,
    tls: Option<&ServerTls>,
) -> anyhow::Result<Listeners> {
    let mut listeners = Listeners::default();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = listenfd::ListenFd::from_env();
    let mut unbound = addresses.to_vec();
    for index in 0..handed.len() {
        if let Ok(Some(unix)) = handed.take_unix_listener(index) {
            if !insecure && let Err(why) = shut_others_out(&unix, &socket_unit(&names, index)) {
                error!("{why}");
                listeners.closed_unix.push((unix, why));
                continue;
            }
            unix.set_nonblocking(true)?;
            listeners.unix.push(UnixListener::from_std(unix)?);
        } else if let Ok(Some(tcp)) = handed.take_tcp_listener(index) {
            let address = tcp.local_addr()?;
            let named = unbound
                .iter()
                .position(|listen| is_same(listen.address, address))
                .map(|at| unbound.remove(at));
            if named.is_none() && !insecure {
                listeners.close(tcp, address, &socket_unit(&names, index))?;
                continue;
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

    /// Why sockets that systemd handed over are closed, each in a line.
    pub fn closed(&self) -> impl Iterator<Item = &str> {
        let unix = self.closed_unix.iter().map(|(_, why)| why.as_str());
        self.closed.iter().map(|(_, why)| why.as_str()).chain(unix)
    }

    /// Takes a socket that nobody may use.
    fn close(
        &mut self,
        tcp: std::net::TcpListener,
        address: SocketAddr,
        from: &str,
    ) -> anyhow::Result<()> {
        let whose = Listen { address, tls: false }.who_reaches_it();
        let why = format!(
            "systemd hands over a socket on {address} that listen does not name; it is closed, \
                since over plain HTTP {whose} could run anything as root here. Name it, listen = \
                [\"https://{address}\"], with tls_cafile, tls_certfile and tls_keyfile, or set \
                insecure = true if all of these may, or take it out of {from}; then systemctl \
                restart fleetd"
        );
        error!("{why}");
        tcp.set_nonblocking(true)?;
        self.closed.push((TcpListener::from_std(tcp)?, why));
        Ok(())
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

/// Who may write to a unix socket commands fleetd. systemd lets everybody, unless the unit says
/// otherwise. The error is why the socket must stay closed.
fn shut_others_out(unix: &std::os::unix::net::UnixListener, from: &str) -> Result<(), String> {
    let address = unix.local_addr().map_err(|error| format!("a socket of systemd's: {error}"))?;
    let Some(path) = address.as_pathname() else {
        return Err(format!(
            "systemd hands over a unix socket that has no file, so that every user and every \
                program of this machine could run anything as root here; it is closed. Take it \
                out of {from}, or set insecure = true if all of these may; then systemctl restart \
                fleetd"
        ));
    };
    let narrowed = std::fs::metadata(path).and_then(|file| {
        let mode = file.permissions().mode();
        if mode & 0o002 != 0 {
            std::fs::set_permissions(path, Permissions::from_mode(mode & 0o770))?;
            warn!(
                "every user of this machine could write to {}, and run anything as root here; only \
                    its owner and group may now. Write SocketMode=0660 in {from}, or set insecure = \
                    true if all may",
                path.display()
            );
        }
        Ok(())
    });
    narrowed.map_err(|error| {
        format!(
            "cannot see to it that others may not write to {}: {error}; it is closed",
            path.display()
        )
    })
}

/// Replaces a socket file that nobody listens on; refuses one that somebody does.
fn bind_unix(socket: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        anyhow::bail!("{} is in use: another fleetd is running here", socket.display());
    }
    let _ = std::fs::remove_file(socket);
    // Whoever may connect can run anything as root: root and its group only. Of another user, that
    // one only, since the group may be everybody's.
    let mode = if rustix::process::geteuid().is_root() { 0o660 } else { 0o600 };
    let bind = || {
        let unix = UnixSocket::new_stream()?;
        // Before it has a name, so that nobody comes in between.
        rustix::fs::fchmod(&unix, rustix::fs::Mode::from_raw_mode(mode))?;
        unix.bind(socket)?;
        std::fs::set_permissions(socket, Permissions::from_mode(mode))?;
        unix.listen(BACKLOG)
    };
    bind().with_context(|| format!("cannot listen on {}", socket.display()))
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
    for (tcp, why) in listeners.closed {
        servers.spawn(stop.clone().run_until_cancelled_owned(host.clone().serve_closed(tcp, why)));
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
            probe(&stream, self.limits.unread);
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

    /// Tells all who connect why nobody may.
    async fn serve_closed(self: Arc<Host>, listener: TcpListener, why: String) {
        let answer = whole_answer("403 Forbidden", ErrorDetail::new(403, why));
        let mut trouble = Repeated::default();
        loop {
            let Some((mut stream, from)) = taken(listener.accept().await, &mut trouble).await
            else {
                continue;
            };
            let Ok(ticket) = self.guests.admit(from.ip().into()) else { continue };
            let answer = answer.clone();
            self.spawn(ticket, async move {
                // It fits into what the kernel keeps for a connection; else it is not read.
                let _ = tokio::time::timeout(FIRST_WORDS, stream.write_all(&answer)).await;
                linger(&mut stream).await;
            });
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
            request.extensions_mut().insert(ticket.source());
            async move {
                let busy = busy.ok_or_else(|| io::Error::other("the place was given away"))?;
                let Ok(mut response) = app.oneshot(request).await;
                let room = response.extensions_mut().remove::<Room>();
                Ok::<Response, io::Error>(
                    response.map(|body| Body::new(Counted::new(body, &self.limits, (busy, room)))),
                )
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(MAX_HEAD_BYTES);
        let stream = Impatient { stream, patience: self.limits.unread, stuck: None };
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

/// A body that keeps its connection busy, and its room in memory, until it is sent. One of known
/// length must be read within a time.
struct Counted {
    body: Body,
    /// What came of it and is not handed on yet.
    rest: Bytes,
    /// How long it may take, in words, and the end of that.
    due: Option<(Duration, Pin<Box<Sleep>>)>,
    _until_the_end: (Busy, Option<Room>),
}

impl Counted {
    fn new(body: Body, limits: &Limits, held: (Busy, Option<Room>)) -> Counted {
        let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let time = length.filter(|length| *length > PIECE).map(|n| limits.answer_time(n));
        let due = time.map(|time| (time, Box::pin(tokio::time::sleep(time))));
        Counted { body, rest: Bytes::new(), due, _until_the_end: held }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some((time, due)) = &mut self.due
            && due.as_mut().poll(task).is_ready()
        {
            let why = format!("the answer was not read within {} s", time.as_secs());
            return Poll::Ready(Some(Err(axum::Error::new(io::Error::other(why)))));
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(task)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}

/// A connection that breaks when the other side takes nothing of what it is sent for so long. The
/// kernel sees to that for TCP, but not for unix sockets.
struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Since something could not be written.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn written<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        task: &mut Task<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stuck.as_mut().poll(task));
        let why = "the client takes nothing of what it is sent";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(task, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(task, bytes);
        self.written(outcome, task)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(task, parts);
        self.written(outcome, task)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(task);
        self.written(outcome, task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(task);
        self.written(outcome, task)
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
fn probe(stream: &TcpStream, unread: Duration) {
    let unread_ms = u32::try_from(unread.as_millis()).unwrap_or(u32::MAX);
    let outcome = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, PROBE_AFTER))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, PROBE_EACH))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, PROBES))
        .and_then(|()| sockopt::set_tcp_user_timeout(stream, unread_ms));
    if let Err(error) = outcome {
        tracing::debug!("a connection to the API is not probed: {error}");
    }
}

/// A whole answer for a connection that is not taken.
fn refusal(why: &str) -> Vec<u8> {
    let message = format!("{why}, the most that it may; close some, and try again");
    whole_answer("429 Too Many Requests", ErrorDetail::new(429, message))
}

/// An answer as it goes over the wire, after which the connection is closed.
fn whole_answer(status: &str, error: ErrorDetail) -> Vec<u8> {
    let body = serde_json::to_string(&ErrorBody { error }).unwrap_or_default();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
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
                .chain(last.filter_map(future::ready)),
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

    /// An API within these limits.
    async fn api(limits: Limits, folder: &Path) -> Api {
        let store = Store::new(
            Arc::new(EmbeddedKv::open(folder.join("store.redb")).await.unwrap()),
            "/fleet/",
        );
        let id = MachineId::new("0123456789abcdef0123456789abcdef");
        Api::new(store, id, String::new).with_limits(limits)
    }

    /// The same on loopback, until `stop`.
    async fn serve_tcp(limits: Limits, folder: &Path) -> (SocketAddr, CancellationToken) {
        serve_api(api(limits, folder).await).await
    }

    async fn serve_api(api: Api) -> (SocketAddr, CancellationToken) {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let listeners = Listeners { tcp: vec![(tcp, None)], ..Listeners::default() };
        let stop = CancellationToken::new();
        tokio::spawn(serve(api, listeners, stop.clone()));
        (address, stop)
    }

    /// A connection of another host, as far as the API can tell.
    async fn connect_as(from: [u8; 4], address: SocketAddr) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(address).await.unwrap()
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
                    "{restart}\r\nContent-Type: application/json\r\nOrigin: http://evil.example"
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

    #[tokio::test]
    async fn a_client_that_takes_all_that_it_may_leaves_places_for_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { followers: 8, ..Limits::default() };
        let (address, _stop) = serve_tcp(limits, folder.path()).await;
        let ask = "GET /fleet/v1/follow?unit=a.service HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        let mut kept = Vec::new();
        let mut follow = async |from| {
            let mut stream = connect_as(from, address).await;
            stream.write_all(ask.as_bytes()).await.unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.unwrap();
            kept.push(stream);
            String::from_utf8(status[9..].to_vec()).unwrap()
        };
        for _ in 0..4 {
            assert_eq!(follow([127, 0, 0, 1]).await, "200");
        }
        assert_eq!(follow([127, 0, 0, 1]).await, "429");
        assert_eq!(follow([127, 0, 0, 2]).await, "200");
        let ask = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        let metrics = answer(&mut connect(address).await, ask).await;
        for line in [
            "fleet_api_budget_used{budget=\"followers\",of=\"network\"} 5\n",
            "fleet_api_budget_limit{budget=\"followers\"} 8\n",
            "fleet_api_budget_refused_total{budget=\"followers\"} 1\n",
        ] {
            assert!(metrics.contains(line), "{metrics}");
        }
    }

    #[tokio::test]
    async fn a_request_waits_for_its_turn_unless_it_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { requests: 1, ..Limits::default() };
        let api = api(limits, folder.path()).await;
        let other = std::net::IpAddr::from([127, 0, 0, 2]).into();
        let turn = api.shared.budgets.turn(other, super::super::limits::Kind::Usual).await;
        let (address, _stop) = serve_api(api.clone()).await;
        let mut waiting = connect(address).await;
        let units = VERSION.replace("version", "units");
        waiting.write_all(units.as_bytes()).await.unwrap();
        let said = answer(&mut connect(address).await, VERSION).await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        let nothing = tokio::time::timeout(Duration::from_millis(100), waiting.readable()).await;
        assert!(nothing.is_err(), "it is answered before its turn");
        drop(turn);
        let said = answer(&mut waiting, "").await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }

    /// What stands behind this in the API's metrics.
    async fn metric(socket: &Path, name: &str) -> u64 {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let ask = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        let line = said.lines().find_map(|line| line.strip_prefix(name)).expect("it is told");
        line.trim().parse().unwrap()
    }

    #[tokio::test]
    async fn a_client_of_the_socket_that_never_reads_its_answer_is_cut_off() {
        const HELD: &str = "fleet_api_budget_used{budget=\"answers\",of=\"local\"}";
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("fleet.sock");
        let limits = Limits { unread: Duration::from_millis(500), ..Limits::default() };
        let api = api(limits, folder.path()).await;
        let stop = CancellationToken::new();
        tokio::spawn(serve(api, listen(&socket, &[], false, None).unwrap(), stop.clone()));

        let text = format!("[Service]\nExecStart=/bin/true\n#{}\n", "x".repeat(800_000));
        let body = serde_json::json!({ "text": text }).to_string();
        let put = format!(
            "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let get = "GET /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut said = String::new();
        for (ask, status) in [(put.as_str(), "201"), (get, "200")] {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            stream.write_all(ask.as_bytes()).await.unwrap();
            said.clear();
            stream.read_to_string(&mut said).await.unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        }
        // In pieces, and whole.
        let unit: serde_json::Value =
            serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(unit["text"], text);

        let mut silent = UnixStream::connect(&socket).await.unwrap();
        silent.write_all(get.as_bytes()).await.unwrap();
        let deadline = tokio::time::Instant::now() + SOON;
        while metric(&socket, HELD).await == 0 {
            assert!(tokio::time::Instant::now() < deadline, "it is not counted");
        }
        while metric(&socket, HELD).await > 0 {
            assert!(tokio::time::Instant::now() < deadline, "it is kept for ever");
        }
        let mut rest = Vec::new();
        // What the kernel has of it, and no more.
        let _ = silent.read_to_end(&mut rest).await;
        assert!(rest.len() < 800_000, "{} bytes", rest.len());
        stop.cancel();
    }
}
