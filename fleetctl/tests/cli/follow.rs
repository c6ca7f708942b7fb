//! Followers go on where they were when fleetd was away.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;

use fleet_core::event::{Event, Item, Reason, What};
use fleet_core::name::MachineId;

use crate::session::Session;

/// A fleetd that answers one request after the other, by hand.
pub(crate) struct Server(UnixListener);

impl Server {
    pub(crate) fn listen(socket: &Path) -> Server {
        Server(UnixListener::bind(socket).expect("a socket"))
    }

    /// The next request's first line, and where its answer goes.
    pub(crate) fn request(&self) -> (String, UnixStream) {
        let (mut stream, _) = self.0.accept().expect("a connection");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a request");
            head.extend(byte);
        }
        let head = String::from_utf8(head).expect("text");
        (head.lines().next().unwrap_or_default().to_string(), stream)
    }

    /// Goes away, and the socket with it.
    pub(crate) fn stop(self, socket: &Path) {
        std::fs::remove_file(socket).expect("the socket's file");
    }
}

/// Begins an answer that ends with the connection.
pub(crate) fn begin(stream: &mut UnixStream) {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n";
    stream.write_all(head).expect("somebody reads");
}

fn event(number: u64) -> String {
    let reason = Reason::Said { text: format!("number {number}") };
    let event = Event {
        id: format!("0000000000000007-{number:09}"),
        leader: MachineId::new("a"),
        ..Event::new(vec![Item::of_machine(What::Leads, MachineId::new("a"), reason)])
    };
    format!("{}\n", serde_json::to_string(&event).expect("JSON"))
}

fn events(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers.into_iter().map(event).collect()
}

pub(crate) fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("text");
    line.trim_end().to_string()
}

#[test]
fn events_go_on_after_the_last_one_printed_none_twice_and_none_lost() {
    let session = Session::new();
    let socket = session.path().join("other.sock");
    let server = Server::listen(&socket);
    let mut command = session.command("events -f -n 2");
    command.env("FLEETCTL_ENDPOINT", format!("unix://{}", socket.display()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut fleetctl = command.spawn().expect("fleetctl runs");
    let mut stdout = BufReader::new(fleetctl.stdout.take().expect("a pipe"));
    let mut stderr = BufReader::new(fleetctl.stderr.take().expect("a pipe"));
    let printed = |number: u64| format!("1970-01-01T00:00:00Z machine a leads: number {number}");

    let (request, mut stream) = server.request();
    assert!(request.contains("follow=true") && request.contains("lines=2"), "{request}");
    begin(&mut stream);
    stream.write_all(events([1, 2]).as_bytes()).expect("somebody reads");
    assert_eq!([line(&mut stdout), line(&mut stdout)], [1, 2].map(printed));

    // It goes away for a while, and much happens.
    server.stop(&socket);
    drop(stream);
    let waits = line(&mut stderr);
    let told = "The connection to fleetd broke (fleetd closed the connection); trying again.";
    assert_eq!(waits, told);
    let server = Server::listen(&socket);
    let (request, mut stream) = server.request();
    assert!(!request.contains("lines="), "as many as came meanwhile: {request}");
    begin(&mut stream);
    stream.write_all(events(1..=4).as_bytes()).expect("somebody reads");
    assert_eq!([line(&mut stdout), line(&mut stdout)], [3, 4].map(printed));

    // It breaks off in the middle of an event.
    let half = event(5);
    stream.write_all(&half.as_bytes()[..half.len() / 2]).expect("somebody reads");
    drop(stream);
    assert_eq!(line(&mut stderr), told);
    let (_, mut stream) = server.request();
    begin(&mut stream);
    stream.write_all(events(2..=6).as_bytes()).expect("somebody reads");
    assert_eq!([line(&mut stdout), line(&mut stdout)], [5, 6].map(printed));

    fleetctl.kill().expect("it runs still");
    fleetctl.wait().expect("it has ended");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "");
}

#[test]
fn a_fleetd_that_is_away_from_the_start_or_refuses_is_an_error() {
    let session = Session::new();
    let gone = session.run("events -f --endpoint=unix:///nosuch.sock");
    assert!(gone.contains("err| Error retrieving events: ") && gone.ends_with("rc=1\n"), "{gone}");
}
