//! Everything that reaches a node from outside its own turn: one queue, one bell.
//!
//! Proposals are bounded by number and bytes from their acceptance to their answer, and by how fast they are answered
//! ([`Admission`](crate::service::admission::Admission)); what peers say is bounded by what their connections read before
//! the node's next turn; the disk reports no more than it was asked.

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use synod_core::{Index, Lsn, NodeId, SnapshotRef};
use synod_replica::TransferId;
use tokio::sync::{Notify, oneshot};

use super::ask::{Ask, Told};
use crate::service::backend::{Failure, Image, Waiter};
use crate::service::session::Place;

/// Where an answer goes; a dropped receiver is no error.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// Something for the node.
pub(crate) enum Event {
    /// A client's command.
    Propose {
        /// The encoded operation.
        payload: Bytes,
        /// Who waits.
        waiter: Waiter,
    },
    /// A client wants to read what was acknowledged anywhere.
    Fence(Answer<()>),
    /// A client wants this replica to come as far as it has seen.
    Reach(Vec<Place>, Answer<()>),
    /// A question about a lease, for the leader.
    Ask(Ask, Answer<Told>),
    /// This peer says that this member was removed.
    ToldRemoved(NodeId),
    /// A client wants another leader.
    MoveLeader(NodeId, Answer<()>),
    /// The member is about to stop: somebody else should lead.
    HandOver(Answer<()>),
    /// A client wants an image of the state.
    Image(Answer<Image>),
    /// The watchers want to be looked after.
    Nudge,
    /// Messages of a peer.
    Peer(NodeId, Vec<Bytes>),
    /// The disk has something to say.
    Disk(Notice),
    /// The member is to end: hand over, answer, leave.
    Stop,
}

/// What the disk reports.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Every record up to this one is on disk.
    Durable(Lsn),
    /// The log stands on the snapshot at this position, and every record up to this one is on disk.
    Checkpointed(Index, Lsn),
    /// Our snapshot is on disk.
    Saved(SnapshotRef),
    /// Our snapshot could not be written; the log goes on.
    SaveFailed(String),
    /// Pieces of a peer's snapshot up to here were taken.
    Staged(NodeId, TransferId, u64),
    /// A peer's snapshot is whole and verified.
    Installed(NodeId, TransferId, SnapshotRef),
    /// A peer's snapshot could not be taken.
    StageFailed(NodeId, TransferId, String),
    /// The log cannot go on: nothing may be acknowledged any more.
    Dead(String),
}

/// The queue.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    bell: Notify,
}

#[derive(Default)]
struct Queue {
    events: Vec<Event>,
    /// Whether the bell was rung for them.
    rung: bool,
    /// Whether the node waits for its disk.
    awaits_disk: bool,
    closed: bool,
}

impl Inbox {
    /// Queues an event, unless the node is gone: then it comes back.
    pub(crate) fn push(&self, event: Event) -> Result<(), Event> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(event);
        }
        queue.events.push(event);
        self.ring(queue);
        Ok(())
    }

    /// Queues how far the log is durable: a node that does not wait for it is not woken by it.
    pub(crate) fn durable(&self, upto: Lsn) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return;
        }
        queue.events.push(Event::Disk(Notice::Durable(upto)));
        if queue.awaits_disk {
            self.ring(queue);
        }
    }

    /// Says whether the node waits for its disk.
    pub(crate) fn await_disk(&self, awaits: bool) {
        let mut queue = self.queue.lock();
        queue.awaits_disk = awaits;
        // What was queued without a word since the last turn began.
        if awaits && !queue.events.is_empty() {
            self.ring(queue);
        }
    }

    fn ring(&self, mut queue: MutexGuard<'_, Queue>) {
        let silent = !std::mem::replace(&mut queue.rung, true);
        drop(queue);
        if silent {
            self.bell.notify_one();
        }
    }

    /// Everything queued, in order, into the empty `events`.
    pub(crate) fn drain(&self, events: &mut Vec<Event>) {
        debug_assert!(events.is_empty());
        let mut queue = self.queue.lock();
        queue.rung = false;
        std::mem::swap(&mut queue.events, events);
    }

    /// Waits until something is queued.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Takes nothing more; what is queued is dropped, and its askers learn that the member stops.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.events.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Whether the bell has been rung since it was heard last.
    fn is_rung(inbox: &Inbox) -> bool {
        let bell = std::pin::pin!(inbox.rung());
        bell.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    /// News of the disk ring for a node that waits for it, also when they came before it said so, and for no other; whatever else
    /// comes rings in any case, and finds them there.
    #[test]
    fn the_disk_wakes_only_who_waits_for_it() {
        let inbox = Inbox::default();
        let mut events = Vec::new();
        inbox.await_disk(true);
        inbox.durable(Lsn(1));
        assert!(is_rung(&inbox));
        inbox.drain(&mut events);

        inbox.await_disk(false);
        inbox.durable(Lsn(2));
        assert!(!is_rung(&inbox));
        inbox.await_disk(true);
        assert!(is_rung(&inbox), "it had come already");
        inbox.await_disk(false);

        inbox.durable(Lsn(3));
        assert!(!is_rung(&inbox));
        events.clear();
        inbox.drain(&mut events);
        assert_eq!(events.len(), 2);

        inbox.durable(Lsn(4));
        assert!(inbox.push(Event::Nudge).is_ok());
        assert!(is_rung(&inbox), "another event rings, although it is not the first");
        events.clear();
        inbox.drain(&mut events);
        assert!(matches!(events[..], [Event::Disk(Notice::Durable(Lsn(4))), Event::Nudge]));
    }
}
