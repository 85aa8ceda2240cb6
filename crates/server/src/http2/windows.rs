//! Settings and windows: how much may be on its way, in both directions (RFC 9113, 5.2 and 6.9).

use synod_http2::frame::{self, Head, WINDOW_MAX, flag, reason, setting};

use super::connection::{Checked, Connection};
use super::output::Output;
use super::stream::Stream;

/// Bytes on their way in that a stream may have unread: a whole request of the usual size.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all streams of a connection together.
pub(super) const CONNECTION_WINDOW: u32 = 8 << 20;
/// SETTINGS between two ticks: each may change the windows of all streams. A client that feels its way to the best window says a dozen.
const SETTINGS_MAX: u32 = 1000;

impl Connection {
    pub(super) fn on_settings(&mut self, head: Head, payload: &[u8]) -> Checked {
        if head.stream != 0 || !head.length.is_multiple_of(6) {
            return Err((reason::FRAME_SIZE_ERROR, "SETTINGS has six bytes a setting, and no stream"));
        }
        self.greeted = true;
        if head.has(flag::ACK) {
            return Ok(());
        }
        self.settings += 1;
        if self.settings > SETTINGS_MAX {
            return Err((reason::ENHANCE_YOUR_CALM, "too many SETTINGS"));
        }
        let before = self.output.stream_window;
        for (name, value) in frame::settings(payload) {
            match name {
                setting::HEADER_TABLE_SIZE => self.output.set_table(value),
                setting::INITIAL_WINDOW_SIZE => {
                    if i64::from(value) > WINDOW_MAX {
                        return Err((reason::FLOW_CONTROL_ERROR, "a window has at most 2^31-1 bytes"));
                    }
                    self.output.stream_window = i64::from(value);
                }
                setting::MAX_FRAME_SIZE => match value {
                    16_384..=0xff_ffff => self.output.set_frame_max(value),
                    _ => return Err((reason::PROTOCOL_ERROR, "a frame has from 16,384 to 16,777,215 bytes")),
                },
                _ => {}
            }
        }
        frame::put_settings_ack(self.output.control());
        let more = self.output.stream_window - before;
        if more != 0 {
            return self.widen_streams(more);
        }
        Ok(())
    }

    /// The windows of all streams change (6.9.2); they may become negative.
    fn widen_streams(&mut self, more: i64) -> Checked {
        for (id, stream) in &mut self.streams {
            stream.send_window += more;
            if stream.send_window > WINDOW_MAX {
                return Err((reason::FLOW_CONTROL_ERROR, "a window is too large"));
            }
            if more > 0 && !stream.pending.is_empty() {
                self.output.queue(*id, stream);
            }
        }
        Ok(())
    }

    pub(super) fn on_window_update(&mut self, head: Head, payload: &[u8]) -> Checked {
        let increment: [u8; 4] =
            payload.try_into().map_err(|_| (reason::FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes"))?;
        let increment = u32::from_be_bytes(increment) & 0x7fff_ffff;
        if head.stream == 0 {
            if increment == 0 {
                return Err((reason::PROTOCOL_ERROR, "a window grows by one byte at least"));
            }
            let fits = self.output.widen(increment);
            return if fits { Ok(()) } else { Err((reason::FLOW_CONTROL_ERROR, "a window is too large")) };
        }
        let Some(stream) = self.streams.get_mut(&head.stream) else {
            let begun = head.stream <= self.last_stream;
            return if begun { Ok(()) } else { Err((reason::PROTOCOL_ERROR, "a window of no stream")) };
        };
        stream.send_window += i64::from(increment);
        if increment == 0 || stream.send_window > WINDOW_MAX {
            self.reset(
                head.stream,
                if increment == 0 { reason::PROTOCOL_ERROR } else { reason::FLOW_CONTROL_ERROR },
            );
        } else if !stream.pending.is_empty() {
            self.output.queue(head.stream, stream);
        }
        Ok(())
    }

    /// Gives the peer's windows back what was read.
    pub(super) fn give_back_windows(&mut self) {
        let taken = std::mem::take(&mut *self.taken.lock());
        for (id, bytes) in taken {
            self.receive_owed += bytes as u32;
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.receive_owed += bytes as u32;
            give_back(&mut self.output, id, stream);
        }
        if self.receive_owed >= CONNECTION_WINDOW / 4 {
            let owed = std::mem::take(&mut self.receive_owed);
            self.receive_window += i64::from(owed);
            frame::put_window_update(self.output.control(), 0, owed);
        }
    }
}

/// Gives a stream's window back what was read, in large steps.
pub(super) fn give_back(output: &mut Output, id: u32, stream: &mut Stream) {
    if stream.receive_owed >= STREAM_WINDOW / 2 && !stream.is_closed_by_peer() {
        let owed = std::mem::take(&mut stream.receive_owed);
        stream.receive_window += i64::from(owed);
        frame::put_window_update(output.control(), id, owed);
    }
}
