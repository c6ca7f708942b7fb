//! Clients that do not read what they asked for: their connections break after a time.

use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::guests::Busy;
use super::limits::Limits;
use super::turns::Room;

/// Large answers are handed on in pieces of this size, so that it is known how much of them has
/// been sent.
const PIECE: usize = 64 * 1024;

/// A body that keeps its connection busy, and its room in memory, until it is sent. One of known
/// length must be read within a time.
pub(super) struct Counted {
    body: Body,
    /// What came of it and is not handed on yet.
    rest: Bytes,
    /// How long it may take, in words, and the end of that.
    due: Option<(Duration, Pin<Box<Sleep>>)>,
    _until_the_end: (Busy, Option<Room>),
}

impl Counted {
    pub(super) fn new(body: Body, limits: &Limits, held: (Busy, Option<Room>)) -> Counted {
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
pub(super) struct Impatient<S> {
    pub(super) stream: S,
    pub(super) patience: Duration,
    /// Since something could not be written.
    pub(super) stuck: Option<Pin<Box<Sleep>>>,
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
