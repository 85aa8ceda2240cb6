//! A request's body for whoever reads it piece by piece: streams of messages, JSON.
//!
//! The connection puts pieces in as they arrive, the reader takes them out; what is taken out is given back to the peer's windows. So
//! what waits unread is bounded by the stream's window, and for all streams together by the connection's.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

/// The client reset the stream, or is gone.
#[derive(Debug, thiserror::Error)]
#[error("the client ended the request before it was whole")]
pub(crate) struct Gone;

/// What was read, by stream, since the connection looked.
pub(super) type Taken = Arc<Mutex<Vec<(u32, usize)>>>;

/// The end of the connection.
pub(super) struct Upload(Mutex<State>);

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    announced: Option<u64>,
    ended: bool,
    gone: bool,
    reader: Option<Waker>,
}

impl Upload {
    /// An upload, and its reader.
    pub(super) fn new(stream: u32, announced: Option<u64>, taken: &Taken) -> (Arc<Upload>, UploadBody) {
        let upload = Arc::new(Upload(Mutex::new(State { announced, ..State::default() })));
        let body = UploadBody { upload: upload.clone(), stream, taken: taken.clone() };
        (upload, body)
    }

    pub(super) fn push(&self, piece: Bytes) {
        self.change(|state| state.pieces.push_back(piece));
    }

    pub(super) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    pub(super) fn fail(&self) {
        self.change(|state| state.gone = true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.lock().ended
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        how(&mut state);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The reader's end.
pub(crate) struct UploadBody {
    upload: Arc<Upload>,
    stream: u32,
    taken: Taken,
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = Gone;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Gone>>> {
        let mut state = self.upload.0.lock();
        if let Some(piece) = state.pieces.pop_front() {
            self.taken.lock().push((self.stream, piece.len()));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if state.gone {
            return Poll::Ready(Some(Err(Gone)));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        match self.upload.0.lock().announced {
            Some(bytes) => SizeHint::with_exact(bytes),
            None => SizeHint::default(),
        }
    }
}

impl Drop for UploadBody {
    /// What nobody will read any more is given back, too.
    fn drop(&mut self) {
        let left: usize = self.upload.0.lock().pieces.drain(..).map(|piece| piece.len()).sum();
        if left > 0 {
            self.taken.lock().push((self.stream, left));
        }
    }
}
