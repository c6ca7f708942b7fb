//! How a process is stopped: a gate that it runs behind, and the call at which it crashes.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

/// A process that may be stopped for a while, and crash at its nth call.
#[derive(Debug, Default)]
pub struct Mortal {
    gate: Mutex<Arc<Gate>>,
    /// How many more calls it makes before it crashes.
    crash_in: Mutex<Option<u32>>,
    /// Told when it has come to that call.
    pub crashed: Notify,
}

impl Mortal {
    /// The gate of its present life.
    pub fn gate(&self) -> Arc<Gate> {
        self.gate.lock().expect("no panic at a gate").clone()
    }

    /// A new life begins, behind an open gate.
    pub fn new_gate(&self) -> Arc<Gate> {
        let gate = Arc::<Gate>::default();
        *self.gate.lock().expect("no panic at a gate") = gate.clone();
        gate
    }

    /// The `calls`th call from now on crashes it, before or after it was carried out.
    pub fn arm(&self, calls: u32) {
        *self.crash_in.lock().expect("no panic at a gate") = Some(calls);
    }

    /// No call crashes it any more.
    pub fn spare(&self) {
        *self.crash_in.lock().expect("no panic at a gate") = None;
    }

    /// A place where it may crash: an armed one is never passed.
    pub async fn point(&self) {
        let crashes = {
            let mut left = self.crash_in.lock().expect("no panic at a gate");
            *left = left.map(|left| left.saturating_sub(1));
            left.take_if(|left| *left == 0).is_some()
        };
        if crashes {
            self.gate().close(); // no other part of it goes on either
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// Open or closed, and for how many reasons. Closed, nothing behind it is polled, as under SIGSTOP;
/// what it left with others goes on.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: u32,
    waiting: Vec<Waker>,
}

impl Gate {
    /// Stops everything behind it, until as many calls of [`Gate::open`].
    pub fn close(&self) {
        self.state.lock().expect("no panic at a gate").closed += 1;
    }

    /// Takes one [`Gate::close`] back.
    pub fn open(&self) {
        let mut state = self.state.lock().expect("no panic at a gate");
        state.closed = state.closed.saturating_sub(1);
        if state.closed == 0 {
            state.waiting.drain(..).for_each(Waker::wake);
        }
    }

    fn passes(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock().expect("no panic at a gate");
        if state.closed > 0 {
            state.waiting.push(cx.waker().clone());
        }
        state.closed == 0
    }
}

/// A future behind a gate.
pub struct Gated<T> {
    gate: Arc<Gate>,
    inner: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> Gated<T> {
    /// Puts `inner` behind `gate`.
    pub fn new(gate: Arc<Gate>, inner: impl Future<Output = T> + Send + 'static) -> Gated<T> {
        Gated { gate, inner: Box::pin(inner) }
    }
}

impl<T> Future for Gated<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if self.gate.passes(cx) { self.inner.as_mut().poll(cx) } else { Poll::Pending }
    }
}
