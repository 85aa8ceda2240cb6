//! The proxy's line to one endpoint: one connection with one stream, opened again whenever it breaks.
//!
//! HTTP/2 as far as one stream needs it. Whatever the other side does wrong ends the connection and nothing else.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;
use synod_api::{Method, synod::Words};
use synod_core::Wire as _;
use synod_http2::frame::{self, HEAD, Head, PAYLOAD_MAX, PREFACE, WINDOW, WINDOW_MAX, flag, kind, setting};
use synod_http2::hpack::{Decoder, place, put_indexed, put_literal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::witness::words::{Ask, Testimony};

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A testimony longer than this is no honest member's.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The only stream.
const STREAM: u32 = 1;
/// What was read is given back to the sender's window when it comes to this.
const OWED_MAX: u32 = 1 << 24;

/// One stream, as bytes in and out.
struct Stream {
    out: BytesMut,
    arrived: BytesMut,
    message: BytesMut,
    decoder: Decoder,
    window: i64,
    stream_window: i64,
    initial: i64,
    waiting: BytesMut,
    owed: u32,
}

impl Stream {
    fn open(authority: &str) -> Stream {
        let mut out = BytesMut::from(&PREFACE[..]);
        frame::put_settings(
            &mut out,
            &[(setting::INITIAL_WINDOW_SIZE, WINDOW_MAX as u32), (setting::ENABLE_PUSH, 0)],
        );
        frame::put_window_update(&mut out, 0, (WINDOW_MAX - WINDOW) as u32);
        let mut block = BytesMut::new();
        put_indexed(&mut block, place::POST);
        put_indexed(&mut block, place::HTTP);
        for (name, value) in [
            (":path", Method::Testify.path()),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            put_literal(&mut block, name.as_bytes(), value.as_bytes());
        }
        frame::put_head(&mut out, block.len(), kind::HEADERS, flag::END_HEADERS, STREAM);
        out.extend_from_slice(&block);
        Stream {
            out,
            arrived: BytesMut::new(),
            message: BytesMut::new(),
            decoder: Decoder::default(),
            window: WINDOW,
            stream_window: WINDOW,
            initial: WINDOW,
            waiting: BytesMut::new(),
            owed: 0,
        }
    }

    fn ask(&mut self, ask: &Ask) {
        let words = Words { words: ask.to_bytes() };
        self.waiting.extend_from_slice(&[0]);
        self.waiting.extend_from_slice(&(words.encoded_len() as u32).to_be_bytes());
        words.encode(&mut self.waiting).expect("the buffer grows");
        self.send();
    }

    /// Sends what the windows allow.
    fn send(&mut self) {
        while !self.waiting.is_empty() {
            let room = self.window.min(self.stream_window).max(0) as usize;
            let part = self.waiting.len().min(room).min(PAYLOAD_MAX);
            if part == 0 {
                return;
            }
            frame::put_head(&mut self.out, part, kind::DATA, 0, STREAM);
            self.out.extend_from_slice(&self.waiting.split_to(part));
            self.window -= part as i64;
            self.stream_window -= part as i64;
        }
    }

    /// Takes what arrived; gives the messages that are whole.
    fn take(&mut self, messages: &mut Vec<Bytes>) -> Result<(), String> {
        while let Some(head) = Head::read(&self.arrived) {
            if head.length > PAYLOAD_MAX {
                return Err("a frame is longer than allowed".to_owned());
            }
            if self.arrived.len() < HEAD + head.length {
                break;
            }
            self.arrived.advance(HEAD);
            let payload = self.arrived.split_to(head.length).freeze();
            self.on_frame(head, &payload)?;
        }
        while let Some(prefix) = self.message.first_chunk::<5>() {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            if length > MESSAGE_BYTES_MAX || prefix[0] != 0 {
                return Err("a message that no member sends".to_owned());
            }
            if self.message.len() < 5 + length {
                break;
            }
            self.message.advance(5);
            messages.push(self.message.split_to(length).freeze());
        }
        if self.owed > OWED_MAX {
            let owed = std::mem::take(&mut self.owed);
            frame::put_window_update(&mut self.out, 0, owed);
            frame::put_window_update(&mut self.out, STREAM, owed);
        }
        Ok(())
    }

    fn on_frame(&mut self, head: Head, payload: &[u8]) -> Result<(), String> {
        let number = || payload.try_into().map(u32::from_be_bytes).unwrap_or_default();
        match head.kind {
            kind::DATA => {
                self.owed += head.length as u32;
                let data = frame::unpadded(head, payload).ok_or("more padding than payload")?;
                self.message.extend_from_slice(data);
                if head.has(flag::END_STREAM) {
                    return Err("the stream ended".to_owned());
                }
            }
            kind::HEADERS => self.on_headers(head, payload)?,
            kind::RST_STREAM => return Err(format!("the stream was reset (HTTP/2 error {})", number())),
            kind::GOAWAY => return Err("the connection was ended".to_owned()),
            kind::SETTINGS if !head.has(flag::ACK) => {
                for (name, value) in frame::settings(payload) {
                    if name == setting::INITIAL_WINDOW_SIZE {
                        self.stream_window += i64::from(value) - self.initial;
                        self.initial = i64::from(value);
                    }
                }
                frame::put_settings_ack(&mut self.out);
            }
            kind::PING if !head.has(flag::ACK) => {
                let payload = payload.try_into().map_err(|_| "a PING without eight bytes".to_owned())?;
                frame::put_ping(&mut self.out, payload, flag::ACK);
            }
            kind::WINDOW_UPDATE if head.stream == 0 => self.window += i64::from(number()),
            kind::WINDOW_UPDATE => self.stream_window += i64::from(number()),
            _ => {}
        }
        self.send();
        Ok(())
    }

    fn on_headers(&mut self, head: Head, payload: &[u8]) -> Result<(), String> {
        let mut fields = Vec::new();
        let mut block = frame::unpadded(head, payload).ok_or("more padding than payload")?;
        if head.has(flag::PRIORITY) {
            block = block.get(5..).ok_or("HEADERS is too short")?;
        }
        self.decoder.decode(block, 1 << 16, &mut fields).map_err(|error| error.to_string())?;
        let value = |name: &[u8]| {
            let field = fields.iter().find(|field| field.name == name);
            field.map(|field| String::from_utf8_lossy(&field.value).into_owned())
        };
        match (value(b"grpc-status"), value(b":status")) {
            (Some(status), _) if status != "0" => {
                Err(value(b"grpc-message").unwrap_or_else(|| format!("gRPC code {status}")))
            }
            (_, Some(status)) if status != "200" => Err(format!("HTTP status {status}")),
            _ if head.has(flag::END_STREAM) => Err("the stream ended".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Talks to an endpoint until the connection breaks; gives the reason. `begun` says what is to be asked first, `heard` takes every testimony
/// and says whether it could be believed.
pub(super) async fn talk(
    authority: &str,
    hello: Ask,
    asks: &mut mpsc::UnboundedReceiver<Ask>,
    mut heard: impl FnMut(Testimony) -> Result<(), String>,
) -> String {
    let connecting = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(authority));
    let mut socket = match connecting.await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return format!("it cannot be reached: {error}"),
        Err(_) => return "it does not take the connection".to_owned(),
    };
    // Small questions must not wait for company.
    let _ = socket.set_nodelay(true);
    let mut stream = Stream::open(authority);
    stream.ask(&hello);
    let mut messages = Vec::new();
    loop {
        if !stream.out.is_empty() {
            let out = stream.out.split();
            if let Err(error) = socket.write_all(&out).await {
                return format!("the connection is lost: {error}");
            }
        }
        tokio::select! {
            read = socket.read_buf(&mut stream.arrived) => match read {
                Ok(0) => return "the connection was closed".to_owned(),
                Ok(_) => {}
                Err(error) => return format!("the connection is lost: {error}"),
            },
            asked = asks.recv() => match asked {
                Some(ask) => stream.ask(&ask),
                None => return "the proxy stops".to_owned(),
            },
        }
        while let Ok(ask) = asks.try_recv() {
            stream.ask(&ask);
        }
        if let Err(why) = stream.take(&mut messages) {
            return why;
        }
        for message in messages.drain(..) {
            let words = Words::decode(message).map_err(|error| error.to_string());
            let said =
                words.and_then(|it| Testimony::decode_all(it.words).map_err(|error| error.to_string()));
            if let Err(why) = said.and_then(&mut heard) {
                return why;
            }
        }
    }
}
