//! One HTTP/2 connection as a client of gRPC sees it, without a socket: bytes in, bytes out.
//!
//! Everything that is the same in each request is said once and remembered by the server's table (RFC 7541); a request's
//! head is six bytes from then on. Windows are as wide as they can be, so that the server is never held up by us.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use synod_http2::frame::{self, HEAD, Head, PAYLOAD_MAX, PREFACE, WINDOW, WINDOW_MAX, flag, kind, setting};
use synod_http2::hpack::{Decoder, TABLE_SIZE, place, put_indexed, put_literal, put_remembered};

use crate::workload::Ask;

/// What was heard.
pub(crate) enum Heard<'a> {
    /// A message of a call that was opened to hear several.
    Message {
        /// The message.
        message: &'a [u8],
    },
    /// A call has ended.
    Ended {
        /// The call.
        token: u64,
        /// How, if not well.
        failure: Option<String>,
        /// The bytes of its answer.
        bytes: u64,
        /// The answer's first message, if it was wanted.
        message: Vec<u8>,
    },
}

/// What becomes of a call's answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Its end alone.
    End,
    /// The whole of it, at its end.
    Answer,
    /// Each message as it comes; the request's side stays open.
    Messages,
}

/// The connection.
pub(crate) struct Wire {
    out: BytesMut,
    rest: Vec<u8>,
    decoder: Decoder,
    /// Blocks that mean the same again, with their meaning.
    known: Vec<(Box<[u8]>, Meaning)>,
    authority: String,
    /// What the server's table holds of ours, the oldest first.
    remembered: Vec<&'static str>,
    may_remember: bool,
    next_stream: u32,
    window: i64,
    stream_window: i64,
    streams: HashMap<u32, Slot, FixedState>,
    streams_max: usize,
    /// Requests that wait for windows.
    waiting: VecDeque<(u32, Bytes, bool)>,
    owed: u32,
    /// Fields that every request carries beside the usual ones.
    metadata: Vec<(String, String)>,
}

struct Slot {
    token: u64,
    wants: Wants,
    window: i64,
    bytes: u64,
    status: Option<u32>,
    word: String,
    held: Vec<u8>,
}

#[derive(Clone, Default)]
struct Meaning {
    status: Option<u32>,
    http: Option<u32>,
    word: String,
}

impl Wire {
    pub(crate) fn new(authority: String) -> Wire {
        let mut out = BytesMut::from(&PREFACE[..]);
        let settings = [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, WINDOW_MAX as u32)];
        frame::put_settings(&mut out, &settings);
        frame::put_window_update(&mut out, 0, (WINDOW_MAX - WINDOW) as u32);
        Wire {
            out,
            rest: Vec::new(),
            decoder: Decoder::default(),
            known: Vec::new(),
            authority,
            remembered: Vec::new(),
            may_remember: true,
            next_stream: 1,
            window: WINDOW,
            stream_window: WINDOW,
            streams: HashMap::default(),
            streams_max: usize::MAX,
            waiting: VecDeque::new(),
            owed: 0,
            metadata: Vec::new(),
        }
    }

    /// Every request from now on says this, too; names in lower case.
    pub(crate) fn set_metadata(&mut self, metadata: Vec<(String, String)>) {
        self.metadata = metadata;
    }

    /// Calls under way.
    pub(crate) fn under_way(&self) -> usize {
        self.streams.len()
    }

    /// Whether another call may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.streams.len() < self.streams_max
    }

    /// What is to be written.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Begins a call.
    pub(crate) fn begin(&mut self, ask: &Ask, token: u64, wants: Wants) {
        let id = self.next_stream;
        self.next_stream += 2;
        let start = self.out.len();
        frame::put_head(&mut self.out, 0, kind::HEADERS, flag::END_HEADERS, id);
        put_indexed(&mut self.out, place::POST);
        put_indexed(&mut self.out, place::HTTP);
        self.put_field(":path", ask.method.path());
        let authority = self.authority.clone();
        self.put_field(":authority", &authority);
        self.put_field("content-type", "application/grpc");
        self.put_field("te", "trailers");
        for (name, value) in &self.metadata {
            put_literal(&mut self.out, name.as_bytes(), value.as_bytes());
        }
        let length = (self.out.len() - start - HEAD) as u32;
        self.out[start..start + 3].copy_from_slice(&length.to_be_bytes()[1..]);
        let slot = Slot {
            token,
            wants,
            window: self.stream_window,
            bytes: 0,
            status: None,
            word: String::new(),
            held: Vec::new(),
        };
        self.streams.insert(id, slot);
        self.send(id, ask.framed.clone(), wants != Wants::Messages);
    }

    /// A field that is the same in every request; `:path` differs by its value, so that is its name in our list.
    fn put_field(&mut self, name: &'static str, value: &str) {
        // A path is a constant of the method table, hence `'static` in effect: found again by its text.
        let known = self.remembered.iter().position(|own| *own == name || *own == value);
        match known {
            Some(place) if name != ":path" || self.remembered[place] == value => {
                let newer = self.remembered.len() - 1 - place;
                put_indexed(&mut self.out, place::NEWEST + newer as u8);
            }
            // A dozen entries are few enough for one byte of index, and for every table.
            _ if self.may_remember && self.remembered.len() < 12 => {
                put_remembered(&mut self.out, name.as_bytes(), value.as_bytes());
                let path = synod_api::Method::by_path(value).map(synod_api::Method::path);
                self.remembered.push(path.unwrap_or(name));
            }
            _ => put_literal(&mut self.out, name.as_bytes(), value.as_bytes()),
        }
    }

    fn send(&mut self, id: u32, bytes: Bytes, is_last: bool) {
        if self.waiting.is_empty() && self.fits(id, bytes.len()) {
            self.put_data(id, &bytes, is_last);
        } else {
            self.waiting.push_back((id, bytes, is_last));
            self.send_waiting();
        }
    }

    fn fits(&self, id: u32, length: usize) -> bool {
        let window = self.streams.get(&id).map_or(0, |slot| slot.window).min(self.window);
        length <= PAYLOAD_MAX && length as i64 <= window
    }

    fn put_data(&mut self, id: u32, bytes: &[u8], is_last: bool) {
        let flags = if is_last { flag::END_STREAM } else { 0 };
        frame::put_head(&mut self.out, bytes.len(), kind::DATA, flags, id);
        self.out.extend_from_slice(bytes);
        self.window -= bytes.len() as i64;
        if let Some(slot) = self.streams.get_mut(&id) {
            slot.window -= bytes.len() as i64;
        }
    }

    /// Sends what windows allow; a stream without one lets the others pass.
    fn send_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some((id, mut bytes, is_last)) = self.waiting.pop_front() else { return };
            let Some(slot) = self.streams.get(&id) else { continue };
            let mut room = slot.window.min(self.window).max(0) as usize;
            while !bytes.is_empty() && room > 0 {
                let part = bytes.split_to(bytes.len().min(PAYLOAD_MAX).min(room));
                room -= part.len();
                self.put_data(id, &part, is_last && bytes.is_empty());
            }
            if !bytes.is_empty() {
                self.waiting.push_back((id, bytes, is_last));
            }
        }
    }

    /// Takes what arrived.
    ///
    /// # Errors
    /// What the server did wrong, or why it ended the connection.
    pub(crate) fn take(&mut self, arrived: &[u8], heard: &mut impl FnMut(Heard<'_>)) -> Result<(), String> {
        if self.rest.is_empty() {
            let used = self.take_frames(arrived, heard)?;
            self.rest.extend_from_slice(&arrived[used..]);
        } else {
            let mut held = std::mem::take(&mut self.rest);
            held.extend_from_slice(arrived);
            let used = self.take_frames(&held, heard)?;
            held.drain(..used);
            self.rest = held;
        }
        if self.owed > 1 << 28 {
            frame::put_window_update(&mut self.out, 0, std::mem::take(&mut self.owed));
        }
        Ok(())
    }

    fn take_frames(&mut self, bytes: &[u8], heard: &mut impl FnMut(Heard<'_>)) -> Result<usize, String> {
        let mut used = 0;
        while let Some(head) = Head::read(&bytes[used..]) {
            let Some(payload) = bytes.get(used + HEAD..used + HEAD + head.length) else { break };
            used += HEAD + head.length;
            self.on_frame(head, payload, heard)?;
        }
        Ok(used)
    }

    fn on_frame(
        &mut self,
        head: Head,
        payload: &[u8],
        heard: &mut impl FnMut(Heard<'_>),
    ) -> Result<(), String> {
        match head.kind {
            kind::DATA => self.on_data(head, payload, heard)?,
            kind::HEADERS if !head.has(flag::END_HEADERS) => {
                return Err("the server's headers are longer than a frame".to_owned());
            }
            kind::HEADERS => self.on_headers(head, payload, heard)?,
            kind::RST_STREAM => {
                let reason = payload.try_into().map(u32::from_be_bytes).unwrap_or_default();
                if let Some(slot) = self.streams.get_mut(&head.stream)
                    && slot.status.is_none()
                {
                    slot.status = Some(u32::MAX);
                    slot.word = format!("the server reset the stream (HTTP/2 error {reason})");
                }
                self.end(head.stream, heard);
            }
            kind::SETTINGS if !head.has(flag::ACK) => {
                for (name, value) in frame::settings(payload) {
                    match name {
                        setting::INITIAL_WINDOW_SIZE => {
                            let more = i64::from(value) - self.stream_window;
                            self.stream_window += more;
                            self.streams.values_mut().for_each(|slot| slot.window += more);
                        }
                        setting::HEADER_TABLE_SIZE if (value as usize) < TABLE_SIZE => {
                            self.may_remember = false
                        }
                        setting::MAX_CONCURRENT_STREAMS => self.streams_max = value as usize,
                        _ => {}
                    }
                }
                frame::put_settings_ack(&mut self.out);
                self.send_waiting();
            }
            kind::PING if !head.has(flag::ACK) => {
                let payload = payload.try_into().map_err(|_| "a PING without eight bytes".to_owned())?;
                frame::put_ping(&mut self.out, payload, flag::ACK);
            }
            kind::WINDOW_UPDATE => {
                let more = i64::from(payload.try_into().map(u32::from_be_bytes).unwrap_or_default());
                if head.stream == 0 {
                    self.window += more;
                } else if let Some(slot) = self.streams.get_mut(&head.stream) {
                    slot.window += more;
                }
                self.send_waiting();
            }
            kind::GOAWAY => {
                let word = String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned();
                return Err(format!("the server ends the connection: {word}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_data(
        &mut self,
        head: Head,
        payload: &[u8],
        heard: &mut impl FnMut(Heard<'_>),
    ) -> Result<(), String> {
        self.owed += head.length as u32;
        let data = frame::unpadded(head, payload).ok_or("more padding than payload")?;
        let Some(slot) = self.streams.get_mut(&head.stream) else { return Ok(()) };
        slot.bytes += data.len() as u64;
        if slot.wants != Wants::End {
            slot.held.extend_from_slice(data);
        }
        if slot.wants == Wants::Messages {
            let mut used = 0;
            while let Some(prefix) = slot.held[used..].first_chunk::<5>() {
                let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                let Some(message) = slot.held.get(used + 5..used + 5 + length) else { break };
                heard(Heard::Message { message });
                used += 5 + length;
            }
            slot.held.drain(..used);
        }
        if head.has(flag::END_STREAM) {
            self.end(head.stream, heard);
        }
        Ok(())
    }

    fn on_headers(
        &mut self,
        head: Head,
        payload: &[u8],
        heard: &mut impl FnMut(Heard<'_>),
    ) -> Result<(), String> {
        let mut block = frame::unpadded(head, payload).ok_or("more padding than payload")?;
        if head.has(flag::PRIORITY) {
            block = block.get(5..).ok_or("HEADERS is too short")?;
        }
        let meaning = self.read(block)?;
        let Some(slot) = self.streams.get_mut(&head.stream) else { return Ok(()) };
        slot.status = meaning.status.or(slot.status);
        if !meaning.word.is_empty() {
            slot.word = meaning.word;
        }
        if let Some(http) = meaning.http.filter(|http| *http != 200) {
            slot.status = Some(u32::MAX);
            slot.word = format!("HTTP status {http}");
        }
        if head.has(flag::END_STREAM) {
            self.end(head.stream, heard);
        }
        Ok(())
    }

    fn read(&mut self, block: &[u8]) -> Result<Meaning, String> {
        if let Some((_, meaning)) = self.known.iter().find(|(known, _)| **known == *block) {
            return Ok(meaning.clone());
        }
        let mut fields = Vec::new();
        let decoded = self.decoder.decode(block, 1 << 20, &mut fields).map_err(|error| error.to_string())?;
        let mut meaning = Meaning::default();
        for field in fields {
            let text = || String::from_utf8_lossy(&field.value).into_owned();
            match &field.name[..] {
                b":status" => meaning.http = text().parse().ok(),
                b"grpc-status" => meaning.status = text().parse().ok(),
                b"grpc-message" => meaning.word = text(),
                _ => {}
            }
        }
        match decoded.repeatable {
            true if self.known.len() < 8 => self.known.push((block.into(), meaning.clone())),
            true => {}
            false => self.known.clear(),
        }
        Ok(meaning)
    }

    fn end(&mut self, id: u32, heard: &mut impl FnMut(Heard<'_>)) {
        let Some(mut slot) = self.streams.remove(&id) else { return };
        let failure = match slot.status {
            Some(0) => None,
            Some(u32::MAX) => Some(slot.word),
            Some(code) => Some(format!("{} (gRPC code {code})", slot.word)),
            None => Some("the answer ended without a status".to_owned()),
        };
        if slot.held.len() >= 5 {
            slot.held.drain(..5);
        }
        heard(Heard::Ended { token: slot.token, failure, bytes: slot.bytes, message: slot.held });
    }
}

/// Drops what was written from the front of a buffer.
pub(crate) fn written(out: &mut BytesMut, bytes: usize) {
    out.advance(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_api::Method;

    /// The fields of every request are the same, however often it was said, and whichever paths come between.
    #[test]
    fn requests_shrink_and_mean_the_same() {
        let mut wire = Wire::new("localhost:1".to_owned());
        wire.out.clear();
        let mut decoder = Decoder::default();
        for (round, method) in
            [Method::Put, Method::Range, Method::Put, Method::Txn, Method::Range].into_iter().enumerate()
        {
            wire.begin(&Ask { method, framed: Bytes::from_static(b"\0\0\0\0\0") }, 0, Wants::End);
            let head = Head::read(&wire.out).unwrap();
            assert_eq!((head.kind, head.flags), (kind::HEADERS, flag::END_HEADERS));
            wire.out.advance(HEAD);
            let block = wire.out.split_to(head.length);
            let mut fields = Vec::new();
            decoder.decode(&block, 1 << 16, &mut fields).unwrap();
            let value = |name: &str| {
                let field = fields.iter().find(|field| field.name == name.as_bytes()).unwrap();
                String::from_utf8(field.value.to_vec()).unwrap()
            };
            assert_eq!(value(":path"), method.path(), "round {round}");
            assert_eq!(value(":authority"), "localhost:1");
            assert_eq!((value(":method"), value("te")), ("POST".to_owned(), "trailers".to_owned()));
            assert_eq!(fields.len(), 6);
            assert!(!(round == 2 || round == 4) || block.len() == 6, "{} bytes", block.len());
            wire.out.clear();
        }
    }

    /// A request that is larger than the windows goes on when they open, and others with room pass it.
    #[test]
    fn windows_hold_requests_back() {
        let mut wire = Wire::new("a".to_owned());
        let large = Ask { method: Method::Put, framed: vec![7; WINDOW as usize + 10].into() };
        let id = wire.next_stream;
        wire.begin(&large, 1, Wants::End);
        assert_eq!((wire.window, wire.waiting.len()), (0, 1));
        let mut update = BytesMut::new();
        frame::put_window_update(&mut update, 0, 100);
        frame::put_window_update(&mut update, id, 100);
        wire.take(&update, &mut |_| {}).unwrap();
        assert_eq!((wire.window, wire.waiting.len()), (90, 0));
    }
}
