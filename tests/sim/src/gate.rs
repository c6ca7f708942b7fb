//! A gate that a machine's fleetd runs behind: closed, nothing of it is polled, as under SIGSTOP. What it left with others goes on.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Open or closed, and for how many reasons.
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
pub struct Gated {
    gate: Arc<Gate>,
    inner: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Gated {
    /// Puts `inner` behind `gate`.
    pub fn new(gate: Arc<Gate>, inner: impl Future<Output = ()> + Send + 'static) -> Gated {
        Gated { gate, inner: Box::pin(inner) }
    }
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.gate.passes(cx) { self.inner.as_mut().poll(cx) } else { Poll::Pending }
    }
}
