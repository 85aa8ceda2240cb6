//! A request's body for whoever reads it piece by piece: streams of messages, JSON.
//!
//! The connection puts pieces in as they arrive, the reader takes them out; what is taken out is given back to the peer's windows. So
//! what waits unread is bounded by the stream's window, for all streams together by the connection's, and for all connections by
//! the service's. Pieces are joined: a client that sends a byte at a time, or none, holds no more memory than bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::service::intake::Share;

/// The client reset the stream, or is gone.
#[derive(Debug, thiserror::Error)]
#[error("the client ended the request before it was whole")]
pub(crate) struct Gone;

/// What was read, by stream, since the connection looked.
pub(super) type Taken = Arc<Mutex<Vec<(u32, usize)>>>;

/// The end of the connection.
pub(super) struct Upload(Mutex<State>);

struct State {
    waiting: BytesMut,
    share: Share,
    announced: Option<u64>,
    ended: bool,
    gone: bool,
    reader: Option<Waker>,
}

impl Upload {
    /// An upload, and its reader.
    pub(super) fn new(
        stream: u32,
        announced: Option<u64>,
        taken: &Taken,
        share: Share,
    ) -> (Arc<Upload>, UploadBody) {
        let waiting = BytesMut::new();
        let state = State { waiting, share, announced, ended: false, gone: false, reader: None };
        let upload = Arc::new(Upload(Mutex::new(state)));
        let body = UploadBody { upload: upload.clone(), stream, taken: taken.clone() };
        (upload, body)
    }

    /// Takes a piece; false when there is no room for it.
    pub(super) fn push(&self, piece: &[u8]) -> bool {
        if piece.is_empty() {
            return true;
        }
        let mut fits = true;
        self.change(|state| {
            fits = state.share.set(state.waiting.len() + piece.len()).is_ok();
            if fits {
                state.waiting.extend_from_slice(piece);
            }
        });
        fits
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
        if !state.waiting.is_empty() {
            let piece = std::mem::take(&mut state.waiting).freeze();
            // Less is always granted.
            let _ = state.share.set(0);
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
        let left = {
            let mut state = self.upload.0.lock();
            let _ = state.share.set(0);
            std::mem::take(&mut state.waiting).len()
        };
        if left > 0 {
            self.taken.lock().push((self.stream, left));
        }
    }
}
