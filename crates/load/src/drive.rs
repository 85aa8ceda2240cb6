//! Connections with sockets: they are kept busy as the plan says, and account for what they hear.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use synod_api::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::measure::Meter;
use crate::pace::Alarm;
use crate::plan::{Pace, Plan};
use crate::wire::{Heard, Wants, Wire, written};
use crate::workload::{Ask, Workload, framed};

/// How long answers are awaited after the last request of an open loop.
const GRACE: Duration = Duration::from_secs(10);
/// What one read takes at most.
const READ_MAX: usize = 256 * 1024;
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A connection with its socket.
pub(crate) struct Line {
    socket: TcpStream,
    pub(crate) wire: Wire,
    scratch: Vec<u8>,
}

impl Line {
    pub(crate) async fn connect(endpoint: SocketAddr) -> Result<Line> {
        let socket = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(endpoint))
            .await
            .map_err(|_| anyhow!("{endpoint} does not take connections"))?
            .with_context(|| format!("cannot connect to {endpoint}"))?;
        socket.set_nodelay(true)?;
        Ok(Line { socket, wire: Wire::new(endpoint.to_string()), scratch: vec![0; READ_MAX] })
    }

    /// Reads what there is; whether anything was.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        heard: &mut impl FnMut(Heard<'_>),
    ) -> Result<bool> {
        let mut buffer = ReadBuf::new(&mut self.scratch);
        match Pin::new(&mut self.socket).poll_read(context, &mut buffer)? {
            Poll::Pending => Ok(false),
            Poll::Ready(()) if buffer.filled().is_empty() => bail!("the server closed the connection"),
            Poll::Ready(()) => {
                self.wire.take(buffer.filled(), heard).map_err(|why| anyhow!(why))?;
                Ok(true)
            }
        }
    }

    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>) -> Result<()> {
        while !self.wire.out().is_empty() {
            match Pin::new(&mut self.socket).poll_write(context, self.wire.out())? {
                Poll::Pending => break,
                Poll::Ready(bytes) => written(self.wire.out(), bytes),
            }
        }
        Ok(())
    }
}

/// What all connections of a run share.
pub struct Shared {
    /// The measured part's beginning.
    begin: Instant,
    /// Nothing begins any more after this.
    end: Instant,
    left: AtomicU64,
    stop: AtomicBool,
    /// What has gone well so far, for a progress bar.
    pub done: AtomicU64,
}

impl Shared {
    /// Ends the run early; what was measured until then counts.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    fn over(&self, now: Instant) -> bool {
        now >= self.end || self.stop.load(Relaxed) || self.left.load(Relaxed) == 0
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The account.
    pub meter: Meter,
    /// How long the measured part took.
    pub elapsed: Duration,
}

/// Runs a plan to its end; `watching` is called about ten times a second with what is shared.
///
/// # Errors
/// When the plan is impossible, no connection can be made, or every connection was lost.
pub async fn run(plan: &Plan, mut watching: impl FnMut(&Shared)) -> Result<Outcome> {
    plan.check().map_err(|why| anyhow!(why))?;
    let mut lines = Vec::with_capacity(plan.connections);
    for at in 0..plan.connections {
        lines.push(Line::connect(plan.endpoints[at % plan.endpoints.len()]).await?);
    }
    let start = Instant::now();
    let begin = start + plan.warmup;
    let shared = Arc::new(Shared {
        begin,
        end: begin.checked_add(plan.end.after).unwrap_or(begin + Duration::from_secs(86_400 * 365)),
        left: AtomicU64::new(plan.end.requests),
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
    });
    let tasks = tokio::task::LocalSet::new();
    let mut running = tokio::task::JoinSet::new();
    for (lane, line) in lines.into_iter().enumerate() {
        let run = Run {
            line,
            workload: Workload::new(plan, lane as u64),
            streams: plan.streams,
            backlog_max: plan.backlog_max,
            shared: shared.clone(),
            meter: Meter::default(),
            pending: Vec::new(),
            schedule: match plan.pace {
                Pace::Closed => None,
                Pace::Open { rate } => Some(Schedule {
                    alarm: Alarm::new()?,
                    next: start + Duration::from_secs_f64(lane as f64 / rate),
                    every: Duration::from_secs_f64(plan.connections as f64 / rate),
                    backlog: VecDeque::new(),
                }),
            },
            start,
            last: begin,
        };
        running.spawn_local_on(tokio::task::unconstrained(run.drive()), &tasks);
    }
    let mut meter = Meter::default();
    let mut lost = Vec::new();
    let mut last = begin;
    tasks
        .run_until(async {
            let mut beat = tokio::time::interval(Duration::from_millis(100));
            loop {
                tokio::select! {
                    _ = beat.tick() => watching(&shared),
                    ended = running.join_next() => match ended {
                        None => break,
                        Some(Ok((own, until, failure))) => {
                            meter.merge(&own);
                            last = last.max(until);
                            lost.extend(failure);
                        }
                        Some(Err(error)) => lost.push(anyhow!(error)),
                    },
                }
            }
        })
        .await;
    if lost.len() == plan.connections {
        return Err(lost.swap_remove(0).context("every connection was lost"));
    }
    for failure in lost {
        meter.badly(&format!("connection lost: {failure:#}"));
    }
    Ok(Outcome { meter, elapsed: last.saturating_duration_since(begin) })
}

/// One connection's part of a run.
struct Run {
    line: Line,
    workload: Workload,
    streams: usize,
    backlog_max: usize,
    shared: Arc<Shared>,
    meter: Meter,
    pending: Vec<(u64, Option<String>, u64)>,
    schedule: Option<Schedule>,
    /// Tokens are nanoseconds since then.
    start: Instant,
    /// When the last counted answer came.
    last: Instant,
}

/// When an open loop's requests are due.
struct Schedule {
    alarm: Alarm,
    next: Instant,
    every: Duration,
    /// Requests whose time has come, and that wait for a stream.
    backlog: VecDeque<Instant>,
}

impl Run {
    async fn drive(mut self) -> (Meter, Instant, Option<anyhow::Error>) {
        let outcome = poll_fn(|context| self.poll(context)).await;
        (self.meter, self.last, outcome.err())
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        // Whoever else runs on this thread has his turn after some reads.
        for _ in 0..16 {
            let now = Instant::now();
            let over = self.shared.over(now);
            if over {
                let is_open = self.schedule.is_some();
                if !is_open || self.line.wire.under_way() == 0 || now > self.shared.end + GRACE {
                    self.give_up_what_waits();
                    return Poll::Ready(Ok(()));
                }
            } else if let Err(error) = self.begin(now, context) {
                return Poll::Ready(Err(error));
            }
            if let Err(error) = self.line.poll_write(context) {
                return Poll::Ready(Err(error));
            }
            let pending = &mut self.pending;
            let read = self.line.poll_read(context, &mut |heard| {
                if let Heard::Ended { token, failure, bytes, .. } = heard {
                    pending.push((token, failure, bytes));
                }
            });
            match read {
                Err(error) => return Poll::Ready(Err(error)),
                Ok(true) => self.account(),
                Ok(false) => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Begins what is due, and what there is room for.
    fn begin(&mut self, now: Instant, context: &mut Context<'_>) -> Result<()> {
        let room = |wire: &Wire| wire.under_way() < self.streams && wire.has_room();
        let Some(schedule) = &mut self.schedule else {
            while room(&self.line.wire) {
                let token = now.duration_since(self.start).as_nanos() as u64;
                self.line.wire.begin(&self.workload.ask(), token, Wants::End);
            }
            return Ok(());
        };
        while schedule.next <= now && schedule.next < self.shared.end {
            if schedule.backlog.len() >= self.backlog_max {
                self.meter.dropped += 1;
            } else {
                schedule.backlog.push_back(schedule.next);
            }
            schedule.next += schedule.every;
        }
        while room(&self.line.wire)
            && let Some(intended) = schedule.backlog.pop_front()
        {
            let token = intended.saturating_duration_since(self.start).as_nanos() as u64;
            self.line.wire.begin(&self.workload.ask(), token, Wants::End);
        }
        schedule.alarm.wake_at(schedule.next.min(self.shared.end), context)?;
        Ok(())
    }

    /// Counts what ended.
    fn account(&mut self) {
        let now = Instant::now();
        for (token, failure, bytes) in self.pending.drain(..) {
            let began = self.start + Duration::from_nanos(token);
            // An open loop counts by when requests should have begun, a closed one by when they ended.
            let moment = if self.schedule.is_some() { began } else { now };
            if moment < self.shared.begin || moment > self.shared.end || self.shared.left.load(Relaxed) == 0 {
                continue;
            }
            if self.shared.left.load(Relaxed) != u64::MAX {
                self.shared.left.fetch_sub(1, Relaxed);
            }
            self.last = now;
            match failure {
                None => {
                    self.meter.well(now.saturating_duration_since(self.shared.begin), now - began, bytes);
                    self.shared.done.fetch_add(1, Relaxed);
                }
                Some(what) => self.meter.badly(&what),
            }
        }
    }

    /// What never got an answer, or not even a stream, is an error and no silence.
    fn give_up_what_waits(&mut self) {
        let Some(schedule) = &self.schedule else { return };
        for _ in 0..self.line.wire.under_way() {
            self.meter.badly("no answer within ten seconds after the end");
        }
        self.meter.dropped += schedule.backlog.len() as u64;
    }
}

/// Writes keys 0 to `keys` once each, 50 in a transaction, over a few connections.
///
/// # Errors
/// The first failure.
pub async fn fill(endpoint: SocketAddr, keys: u64, key_bytes: usize, value_bytes: usize) -> Result<()> {
    const LINES: u64 = 4;
    const UNDER_WAY: usize = 8;
    let mut rng = synod_core::Rng::new(7);
    let value: Bytes = (0..value_bytes).map(|_| rng.below(256) as u8).collect::<Vec<_>>().into();
    let per = (500_000 / (value_bytes + 64)).clamp(1, 100) as u64;
    let batches = Arc::new(AtomicU64::new(0));
    let tasks = tokio::task::LocalSet::new();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..LINES {
        let (batches, value) = (batches.clone(), value.clone());
        let filling = async move {
            let mut line = Line::connect(endpoint).await?;
            let (mut failed, mut exhausted) = (None, false);
            poll_fn(|context| -> Poll<Result<()>> {
                loop {
                    while line.wire.under_way() < UNDER_WAY && !exhausted {
                        let first = batches.fetch_add(1, Relaxed) * per;
                        exhausted = first >= keys;
                        if !exhausted {
                            let ask = several(first..keys.min(first + per), key_bytes, &value);
                            line.wire.begin(&ask, 0, Wants::End);
                        }
                    }
                    if let Err(error) = line.poll_write(context) {
                        return Poll::Ready(Err(error));
                    }
                    let read = line.poll_read(context, &mut |heard| {
                        if let Heard::Ended { failure: Some(why), .. } = heard {
                            failed = Some(why);
                        }
                    });
                    if let Some(why) = failed.take() {
                        return Poll::Ready(Err(anyhow!("filling the store: {why}")));
                    }
                    match read {
                        Err(error) => return Poll::Ready(Err(error)),
                        Ok(_) if exhausted && line.wire.under_way() == 0 => return Poll::Ready(Ok(())),
                        Ok(true) => {}
                        Ok(false) => return Poll::Pending,
                    }
                }
            })
            .await
        };
        running.spawn_local_on(filling, &tasks);
    }
    tasks
        .run_until(async {
            while let Some(ended) = running.join_next().await {
                ended??;
            }
            Ok(())
        })
        .await
}

/// Several puts in one transaction.
fn several(keys: std::ops::Range<u64>, key_bytes: usize, value: &Bytes) -> Ask {
    use synod_api::etcdserverpb as pb;
    let put = |key| pb::PutRequest {
        key: crate::workload::key_name(key, key_bytes),
        value: value.clone(),
        ..pb::PutRequest::default()
    };
    let op = |key| pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put(key))) };
    framed(Method::Txn, &pb::TxnRequest { success: keys.map(op).collect(), ..pb::TxnRequest::default() })
}
