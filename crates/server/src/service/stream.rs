//! The two ends of a streaming call, whatever it travels over.
//!
//! A handler takes requests from an [`Inbox`] and puts replies into an [`Outbox`]. Handler and outbox belong to the same
//! task (the response's body polls both), so the outbox needs no waker: a handler that waits for room is polled again as
//! soon as there is some.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use parking_lot::Mutex;

use super::lane::OnLane;
use super::payload::Payload;
use crate::status::{Code, Status};

/// A streaming call under way; what it returns is how the stream ends.
pub type Handler = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// Replies that may wait to be taken, at most.
const WAITING_MAX: usize = 4;

/// Where a handler puts its replies.
#[derive(Clone, Default)]
pub struct Outbox {
    waiting: Arc<Mutex<VecDeque<Payload>>>,
    /// Where the connection itself would take watch events.
    pub(super) lane: Option<OnLane>,
}

impl Outbox {
    /// An outbox beside a place on a lane, if there is one.
    #[must_use]
    pub fn beside(lane: Option<OnLane>) -> Outbox {
        Outbox { waiting: Arc::default(), lane }
    }

    /// Puts a reply in, as soon as there is room.
    pub async fn send(&self, payload: Payload) {
        let mut payload = Some(payload);
        poll_fn(|_| {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING_MAX {
                // The body takes what waits before it polls the handler again: no waker is needed.
                return Poll::Pending;
            }
            waiting.extend(payload.take());
            Poll::Ready(())
        })
        .await;
    }

    /// Takes the oldest reply.
    pub(crate) fn take(&self) -> Option<Payload> {
        self.waiting.lock().pop_front()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }
}

/// Where a handler's requests come from: encoded messages, whatever they travelled as.
pub trait Source: Send {
    /// The next message; `None` when the client will say no more. Dropping the future loses nothing.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Status>> + Send + '_>>;
}

/// A handler's requests.
pub struct Inbox(Box<dyn Source>);

impl Inbox {
    /// Requests from `source`.
    pub fn new(source: impl Source + 'static) -> Inbox {
        Inbox(Box::new(source))
    }

    /// The next message; `None` when the client will say no more. Dropping the future loses nothing.
    ///
    /// # Errors
    /// What arrived is not a message, or the client went away.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        self.0.next().await
    }
}

/// A stream that should have begun with a request ended without one.
pub(crate) fn no_request() -> Status {
    Status::new(Code::Internal, "grpc: the stream ended before a message")
}

/// Polls a future once: its outcome, if that is there without waiting. The future is dropped otherwise.
pub(crate) async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
