//! Wakes watch streams: the node rings after applying, each stream's handler listens, or its connection does.
//!
//! A ring is remembered until it is heard, rings in between merge, and ringing never waits: a stream that does not read
//! costs the node nothing.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::RwLock;
use synod_kv::watch::StreamId;
use tokio::sync::Notify;

use super::lane::OnLane;

/// All streams that may be rung for.
#[derive(Default)]
pub struct Bell {
    streams: RwLock<HashMap<StreamId, Listener, FixedState>>,
}

enum Listener {
    /// The stream's handler.
    Handler(Arc<Notify>),
    /// The connection that carries the stream.
    Connection(OnLane),
}

impl Listener {
    fn ring(&self, stream: StreamId) {
        match self {
            Listener::Handler(rung) => rung.notify_one(),
            Listener::Connection(place) => place.lane.ring((stream, place.call)),
        }
    }
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
        self.streams.write().insert(stream, Listener::Handler(rung.clone()));
        Rope { bell: self.clone(), stream, rung }
    }

    /// From now on, rings for `stream` are heard by its connection.
    #[must_use]
    pub fn hang_on_lane(self: &Arc<Self>, stream: StreamId, place: OnLane) -> Rope {
        self.streams.write().insert(stream, Listener::Connection(place));
        Rope { bell: self.clone(), stream, rung: Arc::default() }
    }

    /// Wakes these streams; those that are not there any more are passed over.
    pub fn ring(&self, ready: impl IntoIterator<Item = StreamId>) {
        let streams = self.streams.read();
        for stream in ready {
            if let Some(listener) = streams.get(&stream) {
                listener.ring(stream);
            }
        }
    }
}

impl Rope {
    /// Waits for a ring, where no connection hears them; one that came since the last wait counts.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }
}

impl Drop for Rope {
    fn drop(&mut self) {
        self.bell.streams.write().remove(&self.stream);
    }
}
