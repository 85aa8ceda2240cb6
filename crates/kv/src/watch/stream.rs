//! A client's watch stream: one queue for all its watchers, so that what is said in order is heard in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use slotmap::new_key_type;

use super::WatcherId;
use super::event::EventBatch;

new_key_type! {
    /// A watch stream: a client's connection to the hub. The name of one that is closed is not given again.
    pub struct StreamId;
}

/// Why a watcher was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchRefusal {
    /// Its range holds no key.
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
    /// Its stream has a watcher of this name.
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
    /// It would begin below zero.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    NegativeRevision,
}

/// What the server is to send on a stream; one message each, unless it is cut into fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchOutput {
    /// The watcher is there; always before its first event.
    Created {
        /// Its name.
        watch_id: i64,
        /// For the header.
        revision: i64,
    },
    /// The watcher was not created: to be sent as created and canceled at once, with the name -1.
    Refused {
        /// For the header.
        revision: i64,
        /// To be sent as the reason.
        reason: WatchRefusal,
    },
    /// Something happened.
    Events {
        /// Whose events.
        watch_id: i64,
        /// For the header.
        revision: i64,
        /// The events, in order; to be sent in one message.
        batches: Vec<Arc<EventBatch>>,
        /// Whether the message may be cut, see [`EventBatch::fragments`].
        fragment: bool,
    },
    /// The watcher is gone, because its client said so.
    Canceled {
        /// Its name.
        watch_id: i64,
        /// For the header.
        revision: i64,
    },
    /// The watcher is gone, because what it wants next is compacted. The header's revision is 0.
    Compacted {
        /// Its name.
        watch_id: i64,
        /// The lowest revision that is still there.
        compact_revision: i64,
    },
    /// The watcher is gone, because some of what was applied has been taken back, and what it was told may be void. To be
    /// sent with the reason [`TAKEN_BACK`].
    TakenBack {
        /// Its name.
        watch_id: i64,
        /// For the header: the revision that things went back to.
        revision: i64,
    },
    /// Nothing at or before `revision` is still to come.
    Progress {
        /// The watcher's name, or -1 for the whole stream.
        watch_id: i64,
        /// For the header.
        revision: i64,
    },
}

/// Why watchers are gone after a rewind.
pub const TAKEN_BACK: &str = "synod: a reorganisation or a failover took back what was applied, and events that this watch was told may be \
     void: read again, then watch from the revision of that read";

/// The bytes of events that wait on a stream before its watchers have to catch up from the history later. A batch is
/// always taken in when nothing waits, however large.
pub const WATCH_QUEUE_BYTES_MAX: usize = 1 << 20;

/// What a queued message costs beside the bytes that it shares with others.
const ITEM_BYTES: usize = 64;

/// A response is not made larger than this by joining waiting batches.
const JOIN_BYTES_MAX: usize = 512 << 10;

#[derive(Debug)]
enum Item {
    Ready(WatchOutput),
    Events { watch_id: i64, fragment: bool, batch: Arc<EventBatch> },
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    queue: VecDeque<Item>,
    /// What waits in the queue.
    pub(super) bytes: usize,
    /// Whether the server has been told that there is something.
    pub(super) announced: bool,
    pub(super) watchers: BTreeMap<i64, WatcherId>,
    /// Watchers that lag behind and wait until the queue has room.
    pub(super) parked: Vec<WatcherId>,
    /// Where the search for a free name goes on.
    pub(super) next_id: i64,
}

impl Stream {
    /// What a batch adds to the queue.
    pub(super) fn cost(batch: &EventBatch) -> usize {
        batch.bytes.len() + ITEM_BYTES
    }

    pub(super) fn push(&mut self, output: WatchOutput) {
        self.queue.push_back(Item::Ready(output));
    }

    pub(super) fn push_events(&mut self, watch_id: i64, fragment: bool, batch: Arc<EventBatch>) {
        self.bytes += Stream::cost(&batch);
        self.queue.push_back(Item::Events { watch_id, fragment, batch });
    }

    /// The next message; events of one watcher that wait behind one another become one.
    pub(super) fn pop(&mut self) -> Option<WatchOutput> {
        let (watch_id, fragment, batch) = match self.queue.pop_front()? {
            Item::Ready(output) => return Some(output),
            Item::Events { watch_id, fragment, batch } => (watch_id, fragment, batch),
        };
        self.bytes -= Stream::cost(&batch);
        let mut joined = batch.bytes.len();
        let mut revision = batch.revision;
        let mut batches = vec![batch];
        while let Some(Item::Events { watch_id: next, batch, .. }) = self.queue.front() {
            joined += batch.bytes.len();
            if *next != watch_id || joined > JOIN_BYTES_MAX {
                break;
            }
            let Some(Item::Events { batch, .. }) = self.queue.pop_front() else { break };
            self.bytes -= Stream::cost(&batch);
            revision = revision.max(batch.revision);
            batches.push(batch);
        }
        Some(WatchOutput::Events { watch_id, revision, batches, fragment })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
