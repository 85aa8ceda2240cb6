//! Wakes watch streams: the node rings after applying, each stream's task listens.
//!
//! A ring is remembered until it is heard, rings in between merge, and ringing never waits: a stream that does not read
//! costs the node nothing.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Notify;

/// All streams that may be rung for, by their number.
#[derive(Default)]
pub struct Bell {
    streams: RwLock<Streams>,
}

#[derive(Default)]
struct Streams {
    ropes: Vec<Option<Arc<Notify>>>,
    free: Vec<u64>,
}

/// One stream's place at the bell; dropping it gives the number back.
pub struct Rope {
    bell: Arc<Bell>,
    number: u64,
    rung: Arc<Notify>,
}

impl Bell {
    /// Takes a place. Its number is what the store's hub will name; lowest free number first.
    #[must_use]
    pub fn hang(self: &Arc<Self>) -> Rope {
        let rung = Arc::new(Notify::new());
        let mut streams = self.streams.write();
        let number = streams.free.pop().unwrap_or_else(|| {
            streams.ropes.push(None);
            streams.ropes.len() as u64 - 1
        });
        streams.ropes[number as usize] = Some(rung.clone());
        drop(streams);
        Rope { bell: self.clone(), number, rung }
    }

    /// Wakes these streams; numbers that nobody holds any more are ignored.
    pub fn ring(&self, numbers: impl IntoIterator<Item = u64>) {
        let streams = self.streams.read();
        for number in numbers {
            if let Some(Some(rung)) = streams.ropes.get(number as usize) {
                rung.notify_one();
            }
        }
    }

    /// Wakes everybody.
    pub fn ring_all(&self) {
        self.streams.read().ropes.iter().flatten().for_each(|rung| rung.notify_one());
    }
}

impl Rope {
    /// The number to be named by.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits for a ring; one that came since the last wait counts.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }
}

impl Drop for Rope {
    fn drop(&mut self) {
        let mut streams = self.bell.streams.write();
        streams.ropes[self.number as usize] = None;
        streams.free.push(self.number);
    }
}
