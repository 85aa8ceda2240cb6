//! The short way of watch events: from the hub into the connection, past the handlers.
//!
//! Ten thousand watchers of one key are ten thousand streams on a few connections. Waking each stream's handler for each event
//! costs several times what the event itself does. So a connection has a *lane*: the bell puts the names of the streams that
//! have something to say into it and wakes the connection once, and the connection takes from the hub what there is room for.
//! The streams' handlers sleep until their clients ask for something.

use std::sync::Arc;
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use synod_kv::watch::StreamId;

/// A watch stream at the hub, and the stream of the connection that carries it.
pub(crate) type Carried = (StreamId, u32);

/// A connection's lane.
#[derive(Default)]
pub struct Lane {
    rung: Mutex<Vec<Carried>>,
    connection: AtomicWaker,
}

/// A stream's place on its connection's lane; travels with the request.
#[derive(Clone)]
pub struct OnLane {
    /// The connection's lane.
    pub lane: Arc<Lane>,
    /// The stream of the connection.
    pub call: u32,
}

impl Lane {
    /// A stream has something to say.
    pub(super) fn ring(&self, carried: Carried) {
        let mut rung = self.rung.lock();
        rung.push(carried);
        let first = rung.len() == 1;
        drop(rung);
        if first {
            self.connection.wake();
        }
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
        (0..100).for_each(|call| lane.ring((StreamId(u64::from(call)), call)));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        lane.take(&mut out, &waker);
        assert_eq!(out.len(), 100);
        lane.ring((StreamId(7), 7));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
