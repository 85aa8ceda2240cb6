//! The little gRPC that it takes to say what JSON cannot: one connection, whole bodies, protobuf by hand.

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::common::PATIENCE;

/// A connection to a member.
pub(crate) struct Grpc {
    runtime: Runtime,
    send: SendRequest<Bytes>,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) replies: Vec<Bytes>,
}

impl Grpc {
    pub(crate) fn connect(port: u16) -> Grpc {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let send = runtime.block_on(async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(8 << 20).initial_connection_window_size(64 << 20);
            let (send, connection) = builder.handshake(stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            send
        });
        Grpc { runtime, send }
    }

    /// One call with these messages.
    pub(crate) fn call(&self, path: &str, messages: &[Vec<u8>]) -> Ended {
        self.runtime.block_on(call(self.send.clone(), path, framed(messages)))
    }

    /// Many calls of one message each, all at once; in order.
    pub(crate) fn all(&self, path: &str, messages: &[Vec<u8>]) -> Vec<Ended> {
        self.runtime.block_on(async {
            let tasks: Vec<_> = messages
                .iter()
                .map(|message| {
                    let (send, path) = (self.send.clone(), path.to_owned());
                    let body = framed(std::slice::from_ref(message));
                    tokio::spawn(async move { call(send, &path, body).await })
                })
                .collect();
            let mut ended = Vec::with_capacity(tasks.len());
            for task in tasks {
                ended.push(task.await.expect("a call"));
            }
            ended
        })
    }
}

fn framed(messages: &[Vec<u8>]) -> Bytes {
    let mut body = BytesMut::new();
    for message in messages {
        body.extend_from_slice(&[0]);
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(message);
    }
    body.freeze()
}

async fn call(send: SendRequest<Bytes>, path: &str, body: Bytes) -> Ended {
    tokio::time::timeout(PATIENCE, exchange(send, path, body)).await.expect("an answer in time")
}

async fn exchange(send: SendRequest<Bytes>, path: &str, body: Bytes) -> Ended {
    let request = http::Request::post(format!("http://127.0.0.1{path}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .expect("a request");
    let mut send = send.ready().await.expect("ready");
    let (response, mut stream) = send.send_request(request, false).expect("sent");
    // The server may have answered before it has heard everything.
    let _ = stream.send_data(body, true);
    let response = response.await.expect("a response");
    let mut trailers = response.headers().clone();
    let mut receive = response.into_body();
    let mut held = BytesMut::new();
    while let Some(data) = receive.data().await {
        let data = data.expect("data");
        let _ = receive.flow_control().release_capacity(data.len());
        held.extend_from_slice(&data);
    }
    if let Some(more) = receive.trailers().await.expect("trailers") {
        trailers.extend(more);
    }
    let word = |name| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut replies = Vec::new();
    let mut held = held.freeze();
    while held.len() >= 5 {
        let length = u32::from_be_bytes([held[1], held[2], held[3], held[4]]) as usize;
        replies.push(held.slice(5..5 + length));
        held = held.slice(5 + length..);
    }
    Ended { code: word("grpc-status").parse().unwrap_or(-1), message: word("grpc-message"), replies }
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A protobuf field that is a number.
pub(crate) fn number(field: u64, value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3, &mut out);
    varint(value as u64, &mut out);
    out
}

/// A protobuf field that is bytes, or a message.
pub(crate) fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 8);
    varint(field << 3 | 2, &mut out);
    varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

/// The field of this number in a message that holds numbers and bytes; 0 when it is not there.
pub(crate) fn read_number(message: &[u8], wanted: u64) -> i64 {
    let mut at = 0;
    let varint = |at: &mut usize| {
        let (mut number, mut shift) = (0u64, 0);
        while let Some(byte) = message.get(*at) {
            *at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    };
    while at < message.len() {
        let tag = varint(&mut at);
        let value = varint(&mut at);
        match tag & 7 {
            0 if tag >> 3 == wanted => return value as i64,
            0 => {}
            2 => at += value as usize,
            other => panic!("a field of wire type {other}"),
        }
    }
    0
}
