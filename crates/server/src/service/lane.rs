//! What a connection takes from the rest of the member itself: watch events past their handlers, and outcomes past futures.
//!
//! Ten thousand watchers of one key are ten thousand streams on a few connections. Waking each stream's handler for each event
//! costs several times what the event itself does. So a connection has a *lane*: the bell puts the names of the streams that
//! have something to say into it and wakes the connection once, and the connection takes from the hub what there is room for.
//! The streams' handlers sleep until their clients ask for something.
//!
//! A put likewise: a future of its own, a channel for its outcome and a wake-up for each were a fifth of what a leader did for one. Its
//! command waits at the node with its call's name, and the outcome comes back by the lane (ADR 9).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use synod_kv::watch::StreamId;

use super::backend::{Failure, Outcome};
use crate::metrics::Tally;

/// A watch stream at the hub, and the stream of the connection that carries it.
pub(crate) type Carried = (StreamId, u32);

/// A connection's lane.
#[derive(Default)]
pub struct Lane {
    rung: Mutex<Vec<Carried>>,
    settled: Mutex<Vec<Settled>>,
    connection: AtomicWaker,
    /// Whether the connection has ended: nobody takes anything any more.
    closed: AtomicBool,
}

/// A stream's place on its connection's lane; travels with the request.
#[derive(Clone)]
pub struct OnLane {
    /// The connection's lane.
    pub lane: Arc<Lane>,
    /// The stream of the connection.
    pub call: u32,
}

/// A call whose command is on its way; the connection hears of its outcome by the lane, whatever becomes of the command.
pub struct OpenCall {
    place: OnLane,
    /// Taken when the call is settled.
    tally: Option<Tally>,
}

/// A call whose command has an outcome.
pub(crate) struct Settled {
    /// The stream of the connection.
    pub(crate) call: u32,
    pub(crate) tally: Tally,
    pub(crate) outcome: Outcome,
}

impl OpenCall {
    pub(super) fn new(place: OnLane, tally: Tally) -> OpenCall {
        tally.metrics().proposals_pending.fetch_add(1, Relaxed);
        OpenCall { place, tally: Some(tally) }
    }

    /// The command has an outcome.
    pub(super) fn settle(mut self, outcome: Outcome) {
        self.hand_over(outcome);
    }

    fn hand_over(&mut self, outcome: Outcome) {
        let Some(tally) = self.tally.take() else { return };
        tally.metrics().proposals_pending.fetch_sub(1, Relaxed);
        self.place.lane.settle(Settled { call: self.place.call, tally, outcome });
    }

    /// Whether the connection has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.place.lane.closed.load(Relaxed)
    }
}

/// Whoever drops a call without a word stops.
impl Drop for OpenCall {
    fn drop(&mut self) {
        self.hand_over(Err(Failure::Stopped));
    }
}

impl Lane {
    /// A stream has something to say.
    pub(super) fn ring(&self, carried: Carried) {
        self.put(&self.rung, carried);
    }

    fn settle(&self, settled: Settled) {
        if !self.closed.load(Relaxed) {
            self.put(&self.settled, settled);
        }
    }

    /// Adds to one of the two queues; the first since it was taken wakes the connection.
    fn put<T>(&self, queue: &Mutex<Vec<T>>, one: T) {
        let mut queue = queue.lock();
        queue.push(one);
        let first = queue.len() == 1;
        drop(queue);
        if first {
            self.connection.wake();
        }
    }

    /// Moves what was settled into the empty `out`, and wakes `connection` when there is more.
    pub(crate) fn take_settled(&self, out: &mut Vec<Settled>, connection: &Waker) {
        debug_assert!(out.is_empty());
        self.connection.register(connection);
        std::mem::swap(&mut *self.settled.lock(), out);
    }

    /// Gives memory back that an idle connection does not need.
    pub(crate) fn shrink(&self) {
        self.settled.lock().shrink_to_fit();
    }

    /// The connection has ended.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
        // Nobody would take these: their tallies would live as long as somebody's name for the lane.
        self.settled.lock().clear();
    }

    /// Moves what was rung for into `out`, and wakes `connection` when there is more.
    pub(crate) fn take(&self, out: &mut impl Extend<Carried>, connection: &Waker) {
        self.connection.register(connection);
        out.extend(self.rung.lock().drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Detail, Metrics};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// However many streams are rung for, the connection is woken once until it has looked.
    #[test]
    fn a_crowd_wakes_once() {
        let (lane, count) = (Lane::default(), Arc::new(Count(AtomicUsize::new(0))));
        let waker = Waker::from(count.clone());
        let mut out = Vec::new();
        lane.take(&mut out, &waker);
        (0..100).for_each(|call| lane.ring((StreamId::default(), call)));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        lane.take(&mut out, &waker);
        assert_eq!(out.len(), 100);
        lane.ring((StreamId::default(), 7));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    /// Whatever becomes of a command, its call hears of it once and is counted; when the connection has ended, it is only counted.
    #[test]
    fn a_call_is_settled_once() {
        let metrics = Arc::new(Metrics::new(Detail::Basic));
        let (lane, count) = (Arc::new(Lane::default()), Arc::new(Count(AtomicUsize::new(0))));
        let waker = Waker::from(count.clone());
        let open = |call| {
            OpenCall::new(OnLane { lane: lane.clone(), call }, metrics.start(synod_api::Method::Put, None))
        };
        let mut out = Vec::new();
        lane.take_settled(&mut out, &waker);
        let (answered, forgotten) = (open(1), open(3));
        assert_eq!(metrics.proposals_pending.load(Relaxed), 2);
        answered.settle(Err(Failure::Busy));
        drop(forgotten);
        assert_eq!(metrics.proposals_pending.load(Relaxed), 0);
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "woken once for both");
        lane.take_settled(&mut out, &waker);
        let told: Vec<_> = out.drain(..).map(|settled| (settled.call, settled.outcome)).collect();
        assert_eq!(told, [(1, Err(Failure::Busy)), (3, Err(Failure::Stopped))]);
        let late = open(5);
        assert!(!late.is_gone());
        lane.close();
        assert!(late.is_gone());
        drop(late);
        assert_eq!(metrics.proposals_pending.load(Relaxed), 0);
        lane.take_settled(&mut out, &waker);
        assert!(out.is_empty());
    }
}
