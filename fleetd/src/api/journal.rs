//! A unit's journal, from all machines that run it as one stream. A followed one goes on where the
//! unit goes, and when a machine that was away is back.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::view::Cluster;
use fleet_core::wire::NOTE_MARK;
use futures_util::stream;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::io::ReaderStream;

use super::Api;
use super::describe::{self, Operation, Resource};
use super::error::ApiError;
use super::guests;
use super::limits::MAX_LINE;
use super::query::Asked;
use super::remote::{self, Place, Reach};
use super::units::parse;
use crate::copy::Reader;
use crate::process::clock;
use crate::process::panics;
use crate::store::Mirror;

/// journalctl's formats; a word outside this list is refused, so no option can be slipped in.
pub(super) const OUTPUTS: &[&str] = &[
    "short",
    "short-full",
    "short-iso",
    "short-iso-precise",
    "short-precise",
    "short-monotonic",
    "short-unix",
    "verbose",
    "export",
    "json",
    "json-pretty",
    "json-sse",
    "json-seq",
    "cat",
    "with-unit",
];

/// The pause before a source that broke is opened again.
const AGAIN: Duration = Duration::from_secs(1);

/// A source that broke goes on from so long before its last line: lines are that old at most when
/// they arrive. What came already is left out.
const OVERLAP: Duration = Duration::from_secs(1);

/// How many lines are remembered for that, and how many bytes of them.
const MAX_RECENT: usize = 1000;
const MAX_RECENT_BYTES: usize = 1024 * 1024;

/// What stands at the end of a line that was too long.
const CUT: &[u8] = b" [cut: this line is longer than 256 KiB]\n";

/// How long the journal of a place that a unit has left is followed: what it says while it stops.
const LEAVING: Duration = Duration::from_secs(5);

/// How far back the journal of a place begins that a followed unit came to.
const ARRIVING: Duration = Duration::from_secs(2);

/// Places are looked at no more often than this: a deploy changes something every millisecond.
const PACE: Duration = Duration::from_millis(200);

type Sender = mpsc::Sender<Result<Bytes, std::io::Error>>;
type Lines = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// What is asked for.
struct Wish {
    lines: u32,
    follow: bool,
    output: String,
    /// Whether to say in marked lines what went wrong.
    notes: bool,
    /// Where to begin, in milliseconds before now; else with the last `lines`.
    ago_ms: Option<u64>,
}

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/units/{unitName}/journal").get(
            journal,
            Operation::new(
                "getUnitJournal",
                "The unit's journal, from the machines that run it, as one stream.",
            )
            .query_of(
                "lines",
                "How many lines of the past.",
                json!({"type": "integer", "minimum": 0, "maximum": u32::MAX, "default": 10}),
            )
            .query_of(
                "follow",
                "Whether to go on with each new line, for ever.",
                json!({"type": "boolean", "default": false}),
            )
            .query_of(
                "output",
                "journalctl's format.",
                json!({"type": "string", "enum": OUTPUTS, "default": "short"}),
            )
            .query_of(
                "agoMs",
                "Where to begin instead, in milliseconds before now.",
                json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            )
            .query_of(
                "notes",
                "Whether to say which machines do not answer, in lines that begin with a NUL \
                        byte. Else an answer that lacks some breaks off, unless it is followed.",
                json!({"type": "boolean", "default": false}),
            )
            .query("machine", "The machine that is asked, as one fleetd asks another.")
            .answers(
                StatusCode::OK,
                "Lines of the journal.",
                describe::Body::Other("text/plain; charset=utf-8"),
            )
            .errors([400, 404, 409, 421, 429, 502]),
        ),
    ]
}

pub(super) async fn journal(
    State(api): State<Api>,
    client: guests::Source,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let wish = Arc::new(Wish::read(&asked)?);
    let name = parse(&name)?;
    // Of one client; other machines ask for one journal each.
    let mut place = None;
    let (sender, receiver) = mpsc::channel(16);
    if let Some(machine) = asked.value("machine") {
        let place = remote::here(&api, name, machine)?;
        let source = Source::new(&api, client, place, &wish, String::new(), &sender);
        let first = source.open(wish.ago_ms).await?;
        panics::spawn_contained(source.run(Some(first)));
    } else {
        place = Some(api.shared.budgets.journal(client)?);
        let (reader, mirror, places) = remote::located(&api, &name).await?;
        let labelled = places.len() > 1 || (wish.follow && may_be_several(mirror.cluster(), &name));
        let mut follow = Follow {
            api: api.clone(),
            client,
            name,
            wish: wish.clone(),
            labelled,
            sender,
            sources: BTreeMap::new(),
            leaving: Vec::new(),
        };
        match &places[..] {
            [] => return Err(remote::nowhere(&follow.name, &[])),
            // That the only one cannot be asked is an error of the request.
            [place] => {
                let source = follow.source(place.clone());
                let first = source.open(wish.ago_ms).await?;
                follow.spawn(source, Some(first));
            }
            _ => places.into_iter().for_each(|place| follow.spawn(follow.source(place), None)),
        }
        if wish.follow {
            panics::spawn_contained(follow.run(reader, mirror));
        }
    }
    let body = Body::from_stream(ReceiverStream::new(receiver).map(move |line| {
        let _until_the_end = &place;
        line
    }));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

fn may_be_several(cluster: &Cluster, name: &UnitName) -> bool {
    name.is_template()
        || cluster.snapshot.units.get(name).is_some_and(|unit| unit.constraints.global)
}

impl Wish {
    fn read(asked: &Asked) -> Result<Wish, ApiError> {
        let output = asked.value("output").unwrap_or("short");
        if !OUTPUTS.contains(&output) {
            return Err(ApiError::invalid(format!("output must be one of {}", OUTPUTS.join(", "))));
        }
        Ok(Wish {
            lines: asked.number("lines")?.unwrap_or(10),
            follow: asked.flag("follow"),
            output: output.to_string(),
            notes: asked.flag("notes"),
            ago_ms: asked.number::<u32>("agoMs")?.map(u64::from),
        })
    }
}

/// A followed unit: one source for each of its places.
struct Follow {
    api: Api,
    client: guests::Source,
    name: UnitName,
    wish: Arc<Wish>,
    labelled: bool,
    sender: Sender,
    sources: BTreeMap<(UnitName, MachineId), AbortHandle>,
    /// Those of places that the unit has left.
    leaving: Vec<AbortHandle>,
}

impl Follow {
    fn source(&self, place: Place) -> Source {
        let label = if self.labelled {
            format!("{} {}: ", place.instance, place.machine.short())
        } else {
            String::new()
        };
        Source::new(&self.api, self.client, place, &self.wish, label, &self.sender)
    }

    fn spawn(&mut self, source: Source, first: Option<Lines>) {
        let key = (source.place.instance.clone(), source.place.machine.clone());
        self.sources.insert(key, panics::spawn_contained(source.run(first)).abort_handle());
    }

    /// Goes where the unit goes, until the client goes or the unit is destroyed.
    async fn run(mut self, mut reader: Reader, mut mirror: Arc<Mirror>) {
        while self.look(mirror.cluster()).await {
            drop(mirror); // while it waits it keeps nothing
            tokio::select! {
                () = self.sender.closed() => return,
                () = sleep(PACE) => {}
            }
            mirror = tokio::select! {
                () = self.sender.closed() => return,
                next = reader.next() => match next {
                    Some(mirror) => mirror,
                    None => return,
                },
            };
        }
    }

    /// Opens and closes sources; false if there is nothing to follow any more.
    async fn look(&mut self, cluster: &Cluster) -> bool {
        let places = match remote::all_places(&self.api, cluster, &self.name) {
            Ok(places) => places,
            Err(error) if error.status() == StatusCode::NOT_FOUND => {
                note(&self.wish, &self.sender, &format!("unit {} was destroyed", self.name)).await;
                self.sources.values().chain(&self.leaving).for_each(AbortHandle::abort);
                return false;
            }
            Err(_) => return true, // more places than one request may ask for: those that are followed stay
        };
        let mut left = std::mem::take(&mut self.sources);
        for place in places {
            match left.remove_entry(&(place.instance.clone(), place.machine.clone())) {
                Some((key, source)) => drop(self.sources.insert(key, source)),
                None => self.spawn(Source { ago: Some(ARRIVING), ..self.source(place) }, None),
            }
        }
        self.leaving.retain(|source| !source.is_finished());
        for source in left.into_values() {
            self.leaving.push(source.clone());
            tokio::spawn(async move {
                sleep(LEAVING).await;
                source.abort();
            });
        }
        true
    }
}

/// One instance's journal on one machine.
struct Source {
    api: Api,
    /// Who asked.
    client: guests::Source,
    place: Place,
    wish: Arc<Wish>,
    label: String,
    sender: Sender,
    /// Where it began, before it was made.
    ago: Option<Duration>,
    /// When the last line came; before there is one, when it was made.
    heard: Instant,
    /// The lines that came last, with when they came.
    recent: VecDeque<(Instant, Bytes)>,
    /// How many bytes these are.
    recent_bytes: usize,
}

impl Source {
    fn new(
        api: &Api,
        client: guests::Source,
        place: Place,
        wish: &Arc<Wish>,
        label: String,
        sender: &Sender,
    ) -> Source {
        Source {
            api: api.clone(),
            client,
            place,
            label,
            wish: wish.clone(),
            sender: sender.clone(),
            ago: wish.ago_ms.map(Duration::from_millis),
            heard: Instant::now(),
            recent: VecDeque::new(),
            recent_bytes: 0,
        }
    }

    async fn open(&self, ago_ms: Option<u64>) -> Result<Lines, ApiError> {
        match self.place.reach {
            Reach::Here => self.open_here(ago_ms).await,
            Reach::At(_) | Reach::Closed => self.open_there(ago_ms).await,
        }
    }

    async fn open_here(&self, ago_ms: Option<u64>) -> Result<Lines, ApiError> {
        let Wish { lines, follow, output, .. } = &*self.wish;
        let budgets = &self.api.shared.budgets;
        let place = match follow {
            true => budgets.stream(self.client)?,
            false => budgets.process(self.client).await?,
        };
        let mut command = Command::new("journalctl");
        command.args(["--no-pager", "--quiet", "--output", output]);
        match ago_ms {
            Some(ago_ms) => {
                let since_ms = clock::wall_ms().saturating_sub(ago_ms);
                command.args([
                    "--lines=all",
                    &format!("--since=@{}.{:03}", since_ms / 1000, since_ms % 1000),
                ]);
            }
            None => drop(command.args(["--lines", &lines.to_string()])),
        }
        command
            .args(follow.then_some("--follow"))
            .arg(if self.api.shared.user { "--user-unit" } else { "--unit" })
            .arg(self.place.instance.systemd_name().as_str());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("cannot run journalctl: {error}"),
            )
        })?;
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "journalctl has no output")
        })?;
        let parts = ReaderStream::new(stdout).map(|part| part.map_err(|error| error.to_string()));
        Ok(Box::pin(in_lines(parts).map(move |line| {
            let _until_the_end = (&child, &place);
            line
        })))
    }

    async fn open_there(&self, ago_ms: Option<u64>) -> Result<Lines, ApiError> {
        let Wish { lines, follow, output, .. } = &*self.wish;
        let (lines, ago) = (lines.to_string(), ago_ms.map(|ago_ms| ago_ms.to_string()));
        let follow = if *follow { "true" } else { "false" };
        let mut query =
            vec![("lines", lines.as_str()), ("follow", follow), ("output", output.as_str())];
        query.extend(ago.as_deref().map(|ago| ("agoMs", ago)));
        let answer = remote::ask(&self.api, &self.place, "journal", &query).await?;
        let api = self.api.clone();
        let explain = move |error: reqwest::Error| api.shared.peers.explain(&error);
        Ok(Box::pin(in_lines(answer.bytes_stream().map(move |part| part.map_err(&explain)))))
    }

    /// Sends line by line, for ever if it is followed: what breaks is opened again.
    async fn run(mut self, first: Option<Lines>) {
        let mut opened = first.map(Ok);
        let mut away = false;
        let sender = self.sender.clone();
        let machine = self.place.machine.short().to_string();
        let mut ago_ms = self.ago.map(|ago| ago.as_millis() as u64);
        if let Some(refused) = self.place.refused.take().filter(|_| self.wish.notes) {
            // There is no line of a unit that systemd never saw.
            self.note(&format!(
                "{} is not started on machine {machine}: {refused}",
                self.place.instance
            ))
            .await;
        }
        loop {
            let lines = match opened.take() {
                Some(lines) => lines,
                None => tokio::select! {
                    () = sender.closed() => return,
                    lines = self.open(ago_ms) => lines,
                },
            };
            let problem = match lines {
                Ok(lines) => {
                    if away {
                        self.note(&format!("machine {machine} answers again")).await;
                        away = false;
                    }
                    tokio::select! {
                        () = sender.closed() => return,
                        problem = self.relay(lines) => problem,
                    }
                }
                Err(error) => Some(error.message().to_string()),
            };
            if !self.wish.follow {
                if let Some(problem) = problem {
                    self.note(&format!(
                        "the journal of {} on machine {machine}: {problem}",
                        self.place.instance
                    ))
                    .await;
                }
                return;
            }
            if !away {
                let problem = problem.unwrap_or_else(|| "it ended".to_string());
                let what = format!(
                    "the journal of {} on machine {machine} broke off: {problem}; trying again",
                    self.place.instance
                );
                self.note(&what).await;
                away = true;
            }
            tokio::select! {
                () = sender.closed() => return,
                () = sleep(AGAIN) => {}
            }
            let before = self.ago.filter(|_| self.recent.is_empty()).unwrap_or(OVERLAP);
            ago_ms = Some((self.heard.elapsed() + before).as_millis() as u64);
        }
    }

    /// Sends lines until they end; says what broke, if something did.
    async fn relay(&mut self, mut lines: Lines) -> Option<String> {
        let mut known: VecDeque<Bytes> = self.recent.iter().map(|(_, line)| line.clone()).collect();
        while let Some(line) = lines.next().await {
            let line = match line {
                Ok(line) => line,
                Err(problem) => return Some(problem),
            };
            if let Some(at) = known.iter().position(|known| *known == line) {
                known.drain(..=at);
                continue;
            }
            let sent = as_sent(&self.label, self.wish.notes, &line);
            if self.sender.send(Ok(sent)).await.is_err() {
                return None;
            }
            self.remember(line);
        }
        None
    }

    fn remember(&mut self, line: Bytes) {
        if !self.wish.follow {
            return;
        }
        self.heard = Instant::now();
        self.recent_bytes += line.len();
        self.recent.push_back((self.heard, line));
        let old = |came: &Instant| self.heard.duration_since(*came) > OVERLAP * 2;
        while self.recent.len() > MAX_RECENT
            || self.recent_bytes > MAX_RECENT_BYTES
            || self.recent.front().is_some_and(|(came, _)| old(came))
        {
            let gone = self.recent.pop_front();
            self.recent_bytes -= gone.map_or(0, |(_, line)| line.len());
        }
    }

    async fn note(&self, text: &str) {
        note(&self.wish, &self.sender, text).await;
    }
}

/// A line with its label. One that begins like a note is marked once more where notes are asked
/// for, so that it is none.
fn as_sent(label: &str, notes: bool, line: &Bytes) -> Bytes {
    match label {
        "" if notes && line.first() == Some(&NOTE_MARK) => [&[NOTE_MARK], &**line].concat().into(),
        "" => line.clone(),
        label => [label.as_bytes(), line].concat().into(),
    }
}

/// Says what went wrong. Who does not know notes gets a body that breaks off, unless the journal is
/// followed and goes on.
async fn note(wish: &Wish, sender: &Sender, text: &str) {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let said = match (wish.notes, wish.follow) {
        (true, _) => Ok([&[NOTE_MARK], text.as_bytes(), b"\n"].concat().into()),
        (false, false) => Err(std::io::Error::other(text)),
        (false, true) => return,
    };
    // A client that has gone is noticed by the caller.
    let _ = sender.send(said).await;
}

/// Cuts a stream into lines, which another machine sends as long as it likes: of one that is too
/// long the beginning is kept. What follows the last line is dropped, since it broke off.
fn in_lines(
    parts: impl Stream<Item = Result<Bytes, String>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, String>> + Send {
    let cutter = Cutter { parts: Box::pin(parts), rest: Vec::new(), seen: 0, skips: false };
    stream::unfold(cutter, async |mut cutter| cutter.next().await.map(|line| (line, cutter)))
}

struct Cutter<S> {
    parts: Pin<Box<S>>,
    rest: Vec<u8>,
    /// So many bytes of it hold no end of a line.
    seen: usize,
    /// Whether all is left out until the next line begins.
    skips: bool,
}

impl<S: Stream<Item = Result<Bytes, String>>> Cutter<S> {
    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            let end = self.rest[self.seen..]
                .iter()
                .position(|&byte| byte == b'\n')
                .map(|at| self.seen + at);
            match end {
                Some(end) => {
                    let line: Vec<u8> = self.rest.drain(..=end).collect();
                    self.seen = 0;
                    if !std::mem::take(&mut self.skips) {
                        return Some(Ok(cut(line)));
                    }
                }
                None => {
                    self.seen = self.rest.len();
                    if self.seen > MAX_LINE || self.skips {
                        let line = std::mem::take(&mut self.rest);
                        self.seen = 0;
                        if !std::mem::replace(&mut self.skips, true) {
                            return Some(Ok(cut(line)));
                        }
                    }
                    match self.parts.next().await? {
                        Ok(part) => self.rest.extend_from_slice(&part),
                        Err(problem) => return Some(Err(problem)),
                    }
                }
            }
        }
    }
}

/// The line itself, or as much of it as a line may hold.
fn cut(mut line: Vec<u8>) -> Bytes {
    if line.len() > MAX_LINE {
        line.truncate(MAX_LINE - CUT.len());
        line.extend_from_slice(CUT);
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(parts: Vec<Vec<u8>>) -> Vec<Bytes> {
        let parts = stream::iter(parts.into_iter().map(|part| Ok(Bytes::from(part))));
        in_lines(parts).map(Result::unwrap).collect().await
    }

    #[test]
    fn a_line_that_begins_like_a_note_is_marked_once_more() {
        let sent = |label: &str, notes, line: &'static [u8]| {
            as_sent(label, notes, &Bytes::from_static(line)).to_vec()
        };
        assert_eq!(sent("", true, b"\0unit a was destroyed\n"), b"\0\0unit a was destroyed\n");
        assert_eq!(sent("", false, b"\0x\n"), b"\0x\n");
        assert_eq!(sent("a m: ", true, b"\0x\n"), b"a m: \0x\n");
        assert_eq!(sent("", true, b"x\n"), b"x\n");
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_arrive() {
        let parts = ["a", "b\ncd", "\n\ne", "f\nbroken off"].map(|part| part.as_bytes().to_vec());
        assert_eq!(lines(parts.into()).await, ["ab\n", "cd\n", "\n", "ef\n"]);
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_cut_and_what_follows_it_is_whole() {
        let mut parts = vec![b"first\n".to_vec()];
        parts.extend(std::iter::repeat_n(vec![b'x'; 60_000], 100));
        parts.push(b"its end\nlast\n".to_vec());
        let seen = lines(parts).await;
        assert_eq!((seen.len(), &seen[0][..], &seen[2][..]), (3, &b"first\n"[..], &b"last\n"[..]));
        assert!(seen[1].len() == MAX_LINE && seen[1].ends_with(CUT));
        // Another fleetd that passes it on leaves it as it is.
        assert_eq!(lines(vec![seen[1].to_vec()]).await, [&seen[1]]);
        let whole = lines(vec![[vec![b'y'; MAX_LINE + 1], b"\nlast\n".to_vec()].concat()]).await;
        assert!(whole[0].ends_with(CUT) && whole.len() == 2);
    }
}
