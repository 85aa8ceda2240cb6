//! Everything that reaches a node from outside its own turn: one queue, one bell.
//!
//! Proposals are bounded by number and bytes from their acceptance to their answer, and by how fast they are answered
//! ([`Admission`](crate::service::admission::Admission)); what peers say is bounded by what their connections read before
//! the node's next turn; the disk reports no more than it was asked.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
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
    events: Mutex<Vec<Event>>,
    bell: Notify,
    closed: AtomicBool,
}

impl Inbox {
    /// Queues an event, unless the node is gone: then it comes back.
    pub(crate) fn push(&self, event: Event) -> Result<(), Event> {
        let mut events = self.events.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(event);
        }
        events.push(event);
        let first = events.len() == 1;
        drop(events);
        if first {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Everything queued, in order, into the empty `events`.
    pub(crate) fn drain(&self, events: &mut Vec<Event>) {
        debug_assert!(events.is_empty());
        std::mem::swap(&mut *self.events.lock(), events);
    }

    /// Waits until something is queued.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Takes nothing more; what is queued is dropped, and its askers learn that the member stops.
    pub(crate) fn close(&self) {
        let mut events = self.events.lock();
        self.closed.store(true, Ordering::Relaxed);
        events.clear();
    }
}
