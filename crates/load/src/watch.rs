//! Watchers: how many events a second they get, and how late.
//!
//! Each watcher is a stream of its own. A writer puts keys whose values begin with the moment at which they were sent; whoever gets
//! the event takes the difference. An event that does not come within ten seconds after the last put is lost, and counted so.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use synod_api::Method;
use synod_api::etcdserverpb as pb;

use crate::drive::Line;
use crate::measure::Meter;
use crate::wire::{Heard, Wants};
use crate::workload::framed;

/// In front of the moment, so that it is found in an encoded event without decoding it.
const MARK: &[u8; 4] = b"@at=";
/// How long events are awaited after the last put.
const GRACE: Duration = Duration::from_secs(10);
/// Watches that are being created on one connection at a time.
const CREATING_MAX: usize = 200;

/// What watchers and their writer do.
#[derive(Clone, Debug)]
pub struct WatchPlan {
    /// Watchers' connections go to these in turn; the writer writes to the first.
    pub endpoints: Vec<SocketAddr>,
    /// How many watchers.
    pub watchers: usize,
    /// Over how many connections.
    pub connections: usize,
    /// How long is written.
    pub after: Duration,
    /// Puts a second; none: one after the other, as fast as they are answered.
    pub rate: Option<f64>,
    /// The length of a value, at least twenty bytes.
    pub value_bytes: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct WatchOutcome {
    /// Events: latency is from when the put was sent to when the watcher had the event.
    pub meter: Meter,
    /// From the first put to the last event.
    pub elapsed: Duration,
    /// Puts that were answered.
    pub puts: u64,
    /// Events that should have come and did not.
    pub lost: u64,
    /// How long it took to create all watchers.
    pub creating: Duration,
}

struct State {
    meter: Meter,
    begin: Instant,
    created: usize,
    last: Instant,
    failed: Option<anyhow::Error>,
}

/// Runs it.
///
/// # Errors
/// When a watch is refused or a connection is lost.
pub async fn run(plan: &WatchPlan) -> Result<WatchOutcome> {
    if plan.endpoints.is_empty() || plan.connections == 0 || plan.watchers == 0 {
        return Err(anyhow!("there must be an endpoint, a connection and a watcher at least"));
    }
    let prefix = format!("watched/{}/", std::process::id());
    let start = Instant::now();
    let state = Rc::new(RefCell::new(State {
        meter: Meter::default(),
        begin: start,
        created: 0,
        last: start,
        failed: None,
    }));
    let tasks = tokio::task::LocalSet::new();
    let connections = plan.connections.min(plan.watchers);
    for at in 0..connections {
        let line = Line::connect(plan.endpoints[at % plan.endpoints.len()]).await?;
        let own = plan.watchers / connections + usize::from(at < plan.watchers % connections);
        let (state, prefix) = (state.clone(), prefix.clone());
        tasks.spawn_local(async move {
            if let Err(error) = listen(line, own, &prefix, start, &state).await {
                state.borrow_mut().failed.get_or_insert(error);
            }
        });
    }
    tasks
        .run_until(async {
            wait(&state, Duration::from_secs(120), "all watches to be created", |state| {
                state.created == plan.watchers
            })
            .await?;
            let creating = start.elapsed();
            state.borrow_mut().begin = Instant::now();
            let began = Instant::now();
            let puts = write(plan, &prefix, start, &state).await?;
            let expected = puts * plan.watchers as u64;
            let all = wait(&state, GRACE, "events", |state| state.meter.succeeded() >= expected).await;
            let mut state = state.borrow_mut();
            if let Some(failed) = state.failed.take() {
                return Err(failed);
            }
            drop(all);
            let meter = std::mem::take(&mut state.meter);
            let lost = expected.saturating_sub(meter.succeeded());
            Ok(WatchOutcome {
                elapsed: state.last.saturating_duration_since(began),
                meter,
                puts,
                lost,
                creating,
            })
        })
        .await
}

async fn wait(
    state: &Rc<RefCell<State>>,
    patience: Duration,
    what: &str,
    done: impl Fn(&State) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        {
            let mut state = state.borrow_mut();
            if let Some(failed) = state.failed.take() {
                return Err(failed);
            }
            if done(&state) {
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            return Err(anyhow!("waited in vain for {what}"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One connection's watchers.
async fn listen(
    mut line: Line,
    watchers: usize,
    prefix: &str,
    start: Instant,
    state: &Rc<RefCell<State>>,
) -> Result<()> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let create = pb::WatchCreateRequest {
        key: prefix.to_owned().into(),
        range_end: end.into(),
        ..pb::WatchCreateRequest::default()
    };
    let request =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let ask = framed(Method::Watch, &request);
    let (mut begun, mut created) = (0, 0);
    poll_fn(|context| -> Poll<Result<()>> {
        for _ in 0..16 {
            while begun < watchers && begun - created < CREATING_MAX {
                line.wire.begin(&ask, 0, Wants::Messages);
                begun += 1;
            }
            if let Err(error) = line.poll_write(context) {
                return Poll::Ready(Err(error));
            }
            let mut refused = None;
            let now = Instant::now();
            let mut state = state.borrow_mut();
            let read = line.poll_read(context, &mut |heard| match heard {
                Heard::Message { message } => {
                    if created < watchers && moments(message).next().is_none() {
                        // The first word on a stream is that it watches.
                        created += 1;
                        state.created += 1;
                        return;
                    }
                    for moment in moments(message) {
                        let sent = start + Duration::from_nanos(moment);
                        let since = now.saturating_duration_since(state.begin);
                        state.meter.well(since, now.saturating_duration_since(sent), message.len() as u64);
                        state.last = now;
                    }
                }
                Heard::Ended { failure, .. } => {
                    refused = Some(failure.unwrap_or_else(|| "the server ended a watch".to_owned()));
                }
            });
            if let Some(why) = refused {
                return Poll::Ready(Err(anyhow!("a watch ended: {why}")));
            }
            match read {
                Err(error) => return Poll::Ready(Err(error)),
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// The moments in an encoded message.
fn moments(message: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let mut rest = message;
    std::iter::from_fn(move || {
        loop {
            let at = rest.iter().position(|byte| *byte == MARK[0])?;
            rest = &rest[at..];
            if rest.starts_with(MARK) {
                let digits = rest.get(MARK.len()..MARK.len() + 16)?;
                rest = &rest[MARK.len() + 16..];
                return std::str::from_utf8(digits).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
            }
            rest = &rest[1..];
        }
    })
}

/// Puts until the time is over; how many were answered.
async fn write(plan: &WatchPlan, prefix: &str, start: Instant, state: &Rc<RefCell<State>>) -> Result<u64> {
    let mut line = Line::connect(plan.endpoints[0]).await?;
    let begin = Instant::now();
    let end = begin + plan.after;
    let mut number = 0u64;
    while Instant::now() < end {
        if let Some(rate) = plan.rate {
            let due = begin + Duration::from_secs_f64(number as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        if state.borrow().failed.is_some() {
            break;
        }
        let sent = start.elapsed().as_nanos() as u64;
        let mut value = format!("@at={sent:016x}").into_bytes();
        value.resize(plan.value_bytes.max(value.len()), b'.');
        let put = pb::PutRequest {
            key: format!("{prefix}{}", number % 100).into(),
            value: value.into(),
            ..pb::PutRequest::default()
        };
        line.wire.begin(&framed(Method::Put, &put), 0, Wants::End);
        let mut ended = None;
        poll_fn(|context| -> Poll<Result<()>> {
            loop {
                if let Err(error) = line.poll_write(context) {
                    return Poll::Ready(Err(error));
                }
                let read = line.poll_read(context, &mut |heard| {
                    if let Heard::Ended { failure, .. } = heard {
                        ended = Some(failure);
                    }
                });
                match read {
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(_) if ended.is_some() => return Poll::Ready(Ok(())),
                    Ok(true) => {}
                    Ok(false) => return Poll::Pending,
                }
            }
        })
        .await?;
        if let Some(Some(why)) = ended {
            return Err(anyhow!("a put failed: {why}"));
        }
        number += 1;
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every moment in a message is found, whatever stands around it, and what only looks like one is passed over.
    #[test]
    fn moments_are_found() {
        let message = b"x@@at=00000000000000ff...@a@at=0000000000000010@at=zz";
        assert_eq!(moments(message).collect::<Vec<_>>(), [255, 16]);
        assert_eq!(moments(b"nothing").count(), 0);
    }
}
