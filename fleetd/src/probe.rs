//! Asking instances for their health, once: over a loopback address, or by a command inside them.
//! What an answer means is `fleet_core::health`'s to say, when to ask the agent's.
//!
//! **Architecture invariant:** a probe has an end. It takes no longer than its limit, reads no more
//! than a response's head, and keeps nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::health::{Loopback, Probe};
use fleet_core::name::UnitName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::systemd::dbus::DbusSystemd;

/// The longest head of a response, in bytes: what proxies and browsers take.
const LONGEST_HEAD: usize = 16 * 1024;

/// The most lines of it.
const MOST_HEADERS: usize = 100;

/// An answer that is so much later than its limit tells of a host that was suspended or stood
/// still, not of the instance.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The instance is well.
    Good,
    /// It is not: `503`, `connection refused`.
    Bad(String),
    /// It did not say within the limit.
    None,
    /// It could not be asked, which says nothing of it: why.
    NotAsked(String),
}

/// Asks instances. The real one is [`HostProbes`], the simulated one `SimSystemd`.
#[async_trait]
pub trait Probes: Send + Sync + 'static {
    /// Asks an instance once; `instance` is fleet's name (`web@1.container`). Takes at most `limit`
    /// and what it takes to end a command.
    async fn ask(&self, instance: &UnitName, probe: &Probe, limit: Duration) -> Answer;
}

/// The probes of this host.
pub struct HostProbes {
    systemd: Arc<DbusSystemd>,
}

impl HostProbes {
    /// Runs commands through this systemd.
    pub fn new(systemd: Arc<DbusSystemd>) -> HostProbes {
        HostProbes { systemd }
    }
}

#[async_trait]
impl Probes for HostProbes {
    async fn ask(&self, instance: &UnitName, probe: &Probe, limit: Duration) -> Answer {
        let begin = Instant::now();
        let answer = match probe {
            Probe::Exec { command } => {
                return self.systemd.run_inside(instance, command, limit).await;
            }
            Probe::Http { host, port, path } => timeout(limit, get(*host, *port, path)).await,
            Probe::Tcp { host, port } => timeout(limit, reach(*host, *port)).await,
        };
        match answer {
            Ok(Ok(())) => Answer::Good,
            _ if begin.elapsed() > limit + STOOD_STILL => {
                Answer::NotAsked("this host stood still meanwhile".to_string())
            }
            Ok(Err(problem)) => Answer::Bad(problem),
            Err(_) => Answer::None,
        }
    }
}

/// `GET`, and nothing of the answer but its status.
async fn get(host: Loopback, port: u16, path: &str) -> Result<(), String> {
    let mut stream = connect(host, port).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: fleetd\r\nAccept: */*\r\n\
            Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| words(&error))?;
    let mut head = Vec::with_capacity(1024);
    loop {
        let read = stream.read_buf(&mut head).await.map_err(|error| words(&error))?;
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                return match response.code {
                    Some(200..=399) => Ok(()),
                    Some(code) => Err(code.to_string()),
                    None => Err("the answer has no status".to_string()),
                };
            }
            Err(problem) => return Err(format!("the answer is no HTTP: {problem}")),
            Ok(httparse::Status::Partial) if read == 0 => {
                return Err("the connection ended before an answer".to_string());
            }
            Ok(httparse::Status::Partial) if head.len() >= LONGEST_HEAD => {
                return Err(format!("the answer's head is over {LONGEST_HEAD} bytes"));
            }
            Ok(httparse::Status::Partial) => {}
        }
    }
}

async fn reach(host: Loopback, port: u16) -> Result<(), String> {
    connect(host, port).await.map(drop)
}

async fn connect(host: Loopback, port: u16) -> Result<TcpStream, String> {
    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let (first, second) = match host {
        Loopback::Any => (V4, Some(V6)),
        Loopback::V4 => (V4, None),
        Loopback::V6 => (V6, None),
    };
    let refused = match TcpStream::connect(SocketAddr::new(first, port)).await {
        Ok(stream) => return Ok(stream),
        Err(error) => words(&error),
    };
    let Some(second) = second else { return Err(refused) };
    // The first address is the one that most listen on: its words say more.
    TcpStream::connect(SocketAddr::new(second, port)).await.map_err(|_| refused)
}

fn words(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_string(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "connection reset".to_string(),
        _ => error.to_string(),
    }
}

/// How many probes came to what, since the start of the process.
#[derive(Debug, Default)]
pub struct Tally {
    good: AtomicU64,
    bad: AtomicU64,
    none: AtomicU64,
    not_asked: AtomicU64,
}

impl Tally {
    /// Counts one.
    pub fn count(&self, answer: &Answer) {
        let counter = match answer {
            Answer::Good => &self.good,
            Answer::Bad(_) => &self.bad,
            Answer::None => &self.none,
            Answer::NotAsked(_) => &self.not_asked,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// The totals, each with its name.
    pub fn read(&self) -> [(&'static str, u64); 4] {
        [
            ("good", self.good.load(Relaxed)),
            ("bad", self.bad.load(Relaxed)),
            ("none", self.none.load(Relaxed)),
            ("not-asked", self.not_asked.load(Relaxed)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each connection with this, then keeps it open.
    async fn server(address: &str, answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(answer).await;
                open.push(stream);
            }
        });
        port
    }

    async fn asked(probe: Probe) -> Answer {
        let systemd = Arc::new(DbusSystemd::new(crate::systemd::dbus::Options::default()));
        let name = UnitName::trusted("web.service");
        HostProbes::new(systemd).ask(&name, &probe, Duration::from_millis(300)).await
    }

    fn http(port: u16) -> Probe {
        Probe::Http { host: Loopback::Any, port, path: "/healthz".to_string() }
    }

    #[tokio::test]
    async fn the_status_tells_and_nothing_behind_the_head_is_waited_for() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx", Answer::Good),
            ("HTTP/1.0 204 No Content\r\n\r\n", Answer::Good),
            ("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n", Answer::Good),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Answer::Bad("404".into())),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Answer::Bad("503".into())),
            ("HTTP/1.1 200 OK\r\nContent-Le", Answer::None),
            ("", Answer::None),
        ] {
            let port = server("127.0.0.1:0", answer.as_bytes()).await;
            assert_eq!(asked(http(port)).await, expected, "{answer}");
        }
        let port = server("127.0.0.1:0", b"220 mail.example ESMTP\r\n").await;
        let Answer::Bad(problem) = asked(http(port)).await else { panic!() };
        assert!(problem.starts_with("the answer is no HTTP"), "{problem}");
    }

    #[tokio::test]
    async fn a_head_without_end_is_given_up() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20));
        let port = server("127.0.0.1:0", Box::leak(long.into_bytes().into_boxed_slice())).await;
        let Answer::Bad(problem) = asked(http(port)).await else { panic!() };
        assert_eq!(problem, "the answer's head is over 16384 bytes");
    }

    #[tokio::test]
    async fn a_listener_of_either_address_is_found_and_no_listener_refuses() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let port = server(address, b"").await;
            assert_eq!(asked(Probe::Tcp { host: Loopback::Any, port }).await, Answer::Good);
        }
        let port = server("[::1]:0", b"").await;
        let refused = Answer::Bad("connection refused".to_string());
        assert_eq!(asked(Probe::Tcp { host: Loopback::V4, port }).await, refused);
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        assert_eq!(asked(http(free)).await, refused);
    }
}
