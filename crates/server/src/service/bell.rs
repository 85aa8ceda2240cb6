//! Wakes watch streams: the node rings after applying, each stream's task listens.
//!
//! A ring is remembered until it is heard, rings in between merge, and ringing never waits: a stream that does not read
//! costs the node nothing.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::RwLock;
use synod_kv::watch::StreamId;
use tokio::sync::Notify;

/// All streams that may be rung for.
#[derive(Default)]
pub struct Bell {
    streams: RwLock<HashMap<StreamId, Arc<Notify>, FixedState>>,
}

/// One stream's end of the bell; dropping it takes it down.
pub struct Rope {
    bell: Arc<Bell>,
    stream: StreamId,
    rung: Arc<Notify>,
}

impl Bell {
    /// From now on, rings for `stream` are heard.
    #[must_use]
    pub fn hang(self: &Arc<Self>, stream: StreamId) -> Rope {
        let rung = Arc::new(Notify::new());
        self.streams.write().insert(stream, rung.clone());
        Rope { bell: self.clone(), stream, rung }
    }

    /// Wakes these streams; those that are not there any more are passed over.
    pub fn ring(&self, ready: impl IntoIterator<Item = StreamId>) {
        let streams = self.streams.read();
        for stream in ready {
            if let Some(rung) = streams.get(&stream) {
                rung.notify_one();
            }
        }
    }
}

impl Rope {
    /// Waits for a ring; one that came since the last wait counts.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }
}

impl Drop for Rope {
    fn drop(&mut self) {
        self.bell.streams.write().remove(&self.stream);
    }
}
