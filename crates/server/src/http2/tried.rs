//! A connection without a socket, for the fuzz target: whatever a client says, the connection lives on within its bounds or ends
//! with a reason.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use super::connection::{Connection, Job};
use super::request::Heads;
use crate::http::Scope;
use crate::http::body::Body;
use crate::service::intake::Intake;
use crate::service::payload::Payload;
use crate::status;

/// Longer requests are refused.
const MESSAGE_BYTES: usize = 1 << 16;

/// What may wait for a client beside one answer: some header blocks and control frames come on top.
const HELD_BYTES: usize = 4 << 20;

/// Bytes as a client sends them behind the preface. The first byte says in which pieces they arrive, the second what calls come to.
pub fn connection(bytes: &[u8]) {
    let &[cut, fate, ref bytes @ ..] = bytes else { return };
    let room = || Arc::new(Intake::new(1 << 20));
    let backlog = room();
    let mut connection =
        Connection::new(1000, MESSAGE_BYTES, Scope::Clients, Heads::Alike, room(), &backlog, b"");
    // A client that keeps to the protocol says SETTINGS first; most of what there is to find lies behind that.
    connection.take(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for (round, piece) in bytes.chunks(usize::from(cut) + 1).enumerate() {
        connection.take(piece);
        let messages = connection.take_messages();
        for job in std::mem::take(&mut connection.jobs) {
            match job {
                Job::Call(stream, _, message) => {
                    let message = message.within(&messages);
                    assert!(message.len() <= MESSAGE_BYTES);
                    let answer = match fate % 3 {
                        0 => Ok(Payload::encode(&synod_api::etcdserverpb::PutResponse::default())),
                        1 => Ok(Payload::encode(&synod_api::etcdserverpb::PutRequest {
                            value: Bytes::from(vec![7; 100_000]),
                            ..Default::default()
                        })),
                        _ => Err(status::no_leader()),
                    };
                    connection.answer(stream, answer);
                }
                Job::Route(stream, ..) => {
                    connection.respond(stream, Response::new(Body::full("an answer")));
                }
            }
        }
        connection.give_back_windows();
        for (stream, mut body, _) in connection.pump() {
            let frame = body.next_now();
            connection.on_frame(stream, body, frame);
        }
        connection.drain_output(fate & 0x80 != 0);
        assert!(connection.held() <= HELD_BYTES, "{} bytes wait", connection.held());
        if round % 64 == 63 && connection.tick().is_err() {
            return;
        }
        if connection.is_finished() {
            let _ = connection.outcome();
            return;
        }
    }
}
