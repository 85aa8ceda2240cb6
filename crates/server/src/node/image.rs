//! An image of the state for a client (`etcdctl snapshot save`): written on a thread of its own, read in pieces.
//!
//! The client is told the length first, so the state is written twice: once to be counted, once to be sent.
//! Freezing costs nothing worth naming, and the same moment always gives the same bytes.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use synod_core::Frozen;
use tokio::sync::mpsc;

use super::inbox::Answer;
use crate::priority;
use crate::service::backend::{Failure, Image};

/// An image is never urgent, and takes a core for as long as it lasts.
const IDLE: i32 = 19;
/// A piece has about this size.
const PIECE_BYTES: usize = 64 << 10;
/// Between two pieces, at least: 128 MiB a second, as much as a fast network takes, and clients that put meanwhile hardly notice.
const PIECE_PAUSE: Duration = Duration::from_micros(500);
/// Pieces that wait for a slow reader, at most; then the writer waits.
const PIECES_MAX: usize = 2;

/// Answers with an image; the thread ends when the reader has everything, or goes away.
pub(super) fn stream<F: Frozen>(to_count: F, to_send: F, answer: Answer<Image>) {
    let work = move || {
        priority::lower(IDLE);
        let mut counter = Counter { bytes: 0 };
        if let Err(error) = to_count.write_to(&mut counter) {
            let _ = answer.send(Err(Failure::Io(error.to_string())));
            return;
        }
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        if answer.send(Ok(Image { bytes: counter.bytes, pieces })).is_err() {
            return;
        }
        let mut writer = Pieces { sender, buffer: BytesMut::new() };
        let written = to_send.write_to(&mut writer).and_then(|()| io::Write::flush(&mut writer));
        if let Err(error) = written {
            // A reader that went away is no news to it.
            let _ = writer.sender.blocking_send(Err(error));
        }
    };
    // Without a thread the answer is dropped, and its asker learns that it will not come.
    if let Err(error) = std::thread::Builder::new().name("image".to_owned()).spawn(work) {
        tracing::error!(%error, "no thread for an image of the state");
    }
}

struct Counter {
    bytes: u64,
}

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        std::thread::sleep(PIECE_PAUSE);
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
