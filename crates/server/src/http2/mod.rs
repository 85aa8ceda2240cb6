//! The client port's HTTP/2 (RFC 9113): a connection, its streams and their calls, as one task.
//!
//! A general library gives every stream a task, every request a map of headers, every answer a chain of boxed bodies; that
//! was most of what a put cost (ADR 6). Here the connection's own task polls everything:
//!
//! | file | what |
//! |---|---|
//! | `connection` | frames in: streams that begin and end, and what a peer may not do |
//! | `windows` | settings, and how much may be on its way |
//! | `answers` | what calls come to: pieces that wait for their turn |
//! | `stream` | one stream's state |
//! | `request` | from header fields to a call; the same header block again costs a comparison |
//! | `upload` | a request's body, for whoever reads it piece by piece |
//! | `output` | frames out: windows, turns, and header blocks that shrink to two bytes |
//!
//! *Unary gRPC calls* (most of the traffic) take the short way: the message is copied out of the read buffer, the service's future is
//! polled beside the others (a put has none: its outcome comes by the [`lane`](crate::service::lane)), and the answer's three frames are
//! written into one buffer, which leaves with one write for all that were ready. *Everything else* (streams, the JSON gateway, health pages) becomes an `http::Request` and goes
//! through the same [`route`](crate::http) as HTTP/1; its response body is polled when there is room for what it says. *Watch
//! events* pass their handlers by: the connection takes them from the hub itself ([`lane`](crate::service::lane)).
//!
//! Bounded: the header block, the fields, the streams, unfinished requests (`service::intake`), what waits to be written (a peer that
//! does not read is not read from either), what all connections' answers hold, and calls that were reset but still run. Priorities and server push are left out;
//! RFC 9113 has deprecated both.

mod answers;
mod connection;
mod output;
mod request;
mod stream;
pub(crate) mod tried;
mod upload;
mod windows;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::Abortable;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::Response;
use http_body::{Body as HttpBody, Frame};
use tokio::net::TcpStream;
use tokio::sync::watch;

use self::connection::{Connection, Fault, Job};
use self::request::{Call, Heads};
use crate::grpc;
use crate::http::body::Body;
use crate::http::{Front, route};
use crate::service::admission::Admitted;
use crate::service::backend::Backend;
use crate::service::lane::{OnLane, Settled};
use crate::service::payload::Payload;
use crate::service::watch::Told;
use crate::status::{self, Status};

/// How often a connection looks at the time: for silence, and for what does not get on.
const TICK: Duration = Duration::from_secs(10);

/// Reads in a row before others on this thread have their turn.
const ROUNDS_MAX: usize = 16;
/// Calls that are begun before others on this thread have their turn: a few milliseconds of work. The node is among those
/// others, and a leader that is kept from its turn for too long is no leader any more.
const BEGUN_MAX: usize = 256;

/// How long answers are made before others on this thread have their turn, looked at after every few: a range takes a thousand times as
/// long as a single key.
const ANSWERING_MAX: Duration = Duration::from_millis(1);
const ANSWERS_UNTIMED: usize = 8;

/// Watch streams that are served before others on this thread have their turn, and then written at once: a tenth of a
/// millisecond of work. Commands above all have their turn then, so that what they do goes to each stream in fewer messages.
const CARRIED_MAX: usize = 128;

/// What a call on the short way came to.
type Answer = (u32, Result<Payload, Status>);
/// A request on the long way, until its response's head is there.
type Routed = Abortable<Pin<Box<dyn Future<Output = (u32, Response<Body>)> + Send>>>;

/// Serves a connection that has shown the preface, or begins with it; `begun` is what was read of it already.
pub(crate) async fn serve<B: Backend>(
    front: &Arc<Front<B>>,
    socket: TcpStream,
    begun: &[u8],
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Fault> {
    let limits = front.limits;
    let heads = if front.service.says_confirmations() { Heads::Various } else { Heads::Alike };
    let mut driver = Driver {
        front,
        socket,
        connection: Connection::new(
            limits.streams_max,
            front.service.options().request_bytes_max + grpc::OVERHEAD,
            front.scope,
            heads,
            front.service.intake().clone(),
            front.service.backlog(),
            begun,
        ),
        calls: FuturesUnordered::new(),
        call: |stream, call: Call, admitted, message| carry_out(front, stream, call, admitted, message),
        open: 0,
        settled: Vec::new(),
        routed: FuturesUnordered::new(),
        bodies: FuturesUnordered::new(),
        asked: false,
        tick: tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK),
    };
    tokio::select! {
        biased;
        ended = poll_fn(|context| driver.poll(context)) => return ended,
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    driver.connection.retire();
    // What is still under way then is cut off.
    tokio::time::timeout(limits.drain, poll_fn(|context| driver.poll(context))).await.unwrap_or(Ok(()))
}

/// A call on the short way, from its message to its answer.
async fn carry_out<B: Backend>(
    front: &Front<B>,
    stream: u32,
    call: Call,
    admitted: Option<Admitted<'_>>,
    message: Bytes,
) -> Answer {
    let service = &front.service;
    let metrics = service.metrics();
    let tally = metrics.start(call.method, call.metadata.client_version());
    metrics.received_bytes.fetch_add(message.len() as u64, Relaxed);
    let answer = match call.metadata.timeout {
        None => service.carry_out(admitted, call.method, &call.metadata, message).await,
        // Boxed, so that the calls without a deadline stay small.
        Some(timeout) => {
            let answering = Box::pin(service.carry_out(admitted, call.method, &call.metadata, message));
            tokio::time::timeout(timeout, answering)
                .await
                .unwrap_or_else(|_| Err(status::deadline_exceeded()))
        }
    };
    tally.end_with(&answer);
    (stream, answer)
}

/// A connection with everything that it waits for.
struct Driver<'a, B, C, F> {
    front: &'a Arc<Front<B>>,
    socket: TcpStream,
    connection: Connection,
    calls: FuturesUnordered<F>,
    call: C,
    /// Calls that are carried out past futures and have no outcome yet.
    open: usize,
    /// Some that have one; empty but for its memory.
    settled: Vec<Settled>,
    routed: FuturesUnordered<Routed>,
    bodies: FuturesUnordered<Abortable<NextFrame>>,
    /// Whether there are bodies that have not been polled yet.
    asked: bool,
    tick: tokio::time::Interval,
}

impl<'a, B, C, F> Driver<'a, B, C, F>
where
    B: Backend,
    C: Fn(u32, Call, Option<Admitted<'a>>, Bytes) -> F,
    F: Future<Output = Answer>,
{
    /// Runs until nothing can be done at the moment, or the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.tick.poll_tick(context).is_ready() {
            self.connection.tick()?;
            self.connection.lane.shrink();
            self.settled.shrink_to_fit();
            // Polled again, so that the next tick wakes this task.
            let _ = self.tick.poll_tick(context);
        }
        let mut begun = 0;
        for _ in 0..ROUNDS_MAX {
            let arrived = self.connection.poll_read(&mut self.socket, context)?;
            begun += self.begin_jobs();
            let (answered, late) = self.poll_answers(context);
            self.connection.give_back_windows();
            self.carry_events(context);
            self.pump();
            if self.connection.is_finished() && self.running() == 0 {
                ready!(self.connection.poll_flush(&mut self.socket, context))?;
                return Poll::Ready(self.connection.outcome());
            }
            // A peer that does not take what is written waits here; whatever else happens wakes the task as well.
            let flushed = self.connection.poll_flush(&mut self.socket, context);
            if let Poll::Ready(failed @ Err(_)) = flushed {
                return Poll::Ready(failed);
            }
            if late || begun >= BEGUN_MAX || (flushed.is_ready() && !self.connection.rung.is_empty()) {
                break;
            }
            // Nobody would wake this task for what was asked for just now, nor for what there is room for since the last write.
            let goes_on = self.asked || (flushed.is_ready() && self.connection.has_turns());
            if !arrived && !answered && !goes_on {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes watch events from the hub, as far as there is room for them.
    fn carry_events(&mut self, context: &mut Context<'_>) {
        self.connection.lane.clone().take(&mut self.connection.rung, context.waker());
        let mut told = Told::default();
        for _ in 0..CARRIED_MAX {
            let Some((watched, stream)) = self.connection.next_rung() else { return };
            let (connection, mut waits) = (&mut self.connection, false);
            let put = |payload| waits |= connection.put_message(stream, payload);
            if self.front.service.carry(watched, &mut told, put) {
                self.connection.rung.push_back((watched, stream));
            }
            if waits {
                self.pump();
            }
        }
    }

    /// Writes what there is room for, and asks for more of what is written.
    fn pump(&mut self) {
        for (stream, body, abort) in self.connection.pump() {
            self.asked = true;
            self.bodies.push(Abortable::new(NextFrame { stream, body: Some(body) }, abort));
        }
    }

    /// Begins what was asked for; how many there were.
    fn begin_jobs(&mut self) -> usize {
        let mut jobs = std::mem::take(&mut self.connection.jobs);
        let count = jobs.len();
        let messages = self.connection.take_messages();
        for job in jobs.drain(..) {
            match job {
                Job::Call(stream, call, message)
                    if self.front.service.is_short(call.method, &call.metadata) =>
                {
                    let place = OnLane { lane: self.connection.lane.clone(), call: stream };
                    match self.front.service.begin_put(&call.metadata, message.within(&messages), place) {
                        Ok(()) => self.open += 1,
                        Err(status) => self.connection.answer(stream, Err(status)),
                    }
                }
                Job::Call(stream, call, message) => {
                    let admitted = match self.connection.is_hoarding() {
                        true => Err(status::not_begun()),
                        false => self.front.service.admit(call.method),
                    };
                    match admitted {
                        // It counts from now on, though it is carried out when it is polled.
                        Ok(admitted) => {
                            self.calls.push((self.call)(stream, call, admitted, message.apart(&messages)))
                        }
                        Err(status) => {
                            let metrics = self.front.service.metrics();
                            metrics.start(call.method, call.metadata.client_version()).end(status.code);
                            self.connection.answer(stream, Err(status));
                        }
                    }
                }
                Job::Route(stream, request, abort) => {
                    let front = self.front.clone();
                    let answering = async move { (stream, route(&front, *request).await) };
                    self.routed.push(Abortable::new(Box::pin(answering), abort));
                }
            }
        }
        self.connection.jobs = jobs;
        count
    }

    /// Calls on the short way that have no answer yet, whether or not their streams are still there.
    fn running(&self) -> usize {
        self.calls.len() + self.open
    }

    /// Takes what is ready; whether anything was, and whether time was up before the end.
    fn poll_answers(&mut self, context: &mut Context<'_>) -> (bool, bool) {
        let (mut any, mut late) = (false, false);
        self.asked = false;
        self.connection.lane.take_settled(&mut self.settled, context.waker());
        self.open -= self.settled.len();
        for settled in self.settled.drain(..) {
            let (stream, answer) = self.front.service.end_put(settled);
            self.connection.answer(stream, answer);
            any = true;
        }
        let begun = Instant::now();
        let mut answers = 0;
        while !late && let Poll::Ready(Some((stream, answer))) = self.calls.poll_next_unpin(context) {
            self.connection.answer(stream, answer);
            answers += 1;
            late = answers % ANSWERS_UNTIMED == 0 && begun.elapsed() > ANSWERING_MAX;
        }
        any |= answers > 0;
        while let Poll::Ready(Some(answer)) = self.routed.poll_next_unpin(context) {
            if let Ok((stream, response)) = answer {
                self.connection.respond(stream, response);
            }
            any = true;
        }
        while let Poll::Ready(Some(frame)) = self.bodies.poll_next_unpin(context) {
            // Otherwise the client reset the stream; its body is gone with it.
            if let Ok((stream, body, frame)) = frame {
                self.connection.on_frame(stream, body, frame);
            }
            any = true;
        }
        self.connection.bound_orphans(self.running());
        (any, late)
    }
}

/// Outcomes that come from now on find nobody.
impl<B, C, F> Drop for Driver<'_, B, C, F> {
    fn drop(&mut self) {
        self.connection.lane.close();
    }
}

/// The next frame of a response's body, and the body again.
struct NextFrame {
    stream: u32,
    body: Option<Body>,
}

impl Future for NextFrame {
    type Output = (u32, Body, Option<Frame<Bytes>>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let body = self.body.as_mut().expect("polled no more once it is ready");
        let frame = ready!(pin!(body).poll_frame(context));
        // A body of ours does not fail.
        let frame = frame.map(|frame| frame.unwrap_or_else(|never| match never {}));
        let body = self.body.take().expect("it was there a moment ago");
        Poll::Ready((self.stream, body, frame))
    }
}
