//! How connections are taken and talked with, until the end.

use std::future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::uri::Scheme;
use axum::middleware::map_response;
use axum::response::Response;
use fleet_core::wire::{ErrorBody, ErrorDetail};
use futures_util::StreamExt;
use futures_util::stream::once;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::error;

use super::door::Door;
use super::guests::{Guests, Source, Ticket};
use super::limits::{Limits, MAX_HEAD_BYTES};
use super::listen::Listeners;
use super::patience::{Counted, Impatient};
use super::tls::{TlsDoor, linger};
use super::turns::Room;
use super::who::Who;
use super::{Api, router};
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

/// The pause after a connection that could not be taken, for want of descriptors for example.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

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
                    let who = stream.peer_cred().map_or(Who::Unknown, |peer| Who::User(peer.uid()));
                    self.spawn(ticket.clone(), async move {
                        host.talk(stream, ticket, (Door::Unix, who)).await
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
        let address = Who::Address(from.ip().to_string().into());
        let Some(tls) = tls else { return self.talk(stream, ticket, (door, address)).await };
        let shaken = tokio::select! {
            () = self.end.cancelled() => return,
            shaken = tokio::time::timeout(self.limits.handshake, tls.shake_hands(stream, from)) => shaken,
        };
        if let Ok(Some(stream)) = shaken {
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let name = shown.and_then(fleet_tls::name_of);
            let who = name.map_or(address, |name| Who::Certificate(name.into()));
            self.talk(stream, ticket, (door, who)).await;
        }
    }

    /// Answers requests until the client goes, or is silent for too long.
    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        ticket: Arc<Ticket>,
        (door, who): (Door, Who),
    ) {
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let (app, busy) = (self.app.clone(), ticket.begin());
            let mut request: Request = request.map(Body::new);
            if let Door::Tls = door {
                request.extensions_mut().insert(Scheme::HTTPS);
            }
            request.extensions_mut().insert(door.clone());
            request.extensions_mut().insert(who.clone());
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
mod tests;
