//! What one client can do with HTTP/2.

use bytes::{BufMut, BytesMut};
use serde_json::json;
use synod_http2::frame::{
    flag, kind, put_head, put_ping, put_reset, put_settings, put_window_update, reason, setting,
};
use synod_http2::hpack::{put_indexed, put_literal, put_remembered};

use crate::common::base64;
use crate::good::{Good, Victim};
use crate::wire::{Wire, call_block, field, put_call, put_message};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

fn put_request(key: &[u8], value: &[u8]) -> Vec<u8> {
    [field(1, key), field(2, value)].concat()
}

/// Calls that are begun and reset at once, two hundred thousand of them: puts on the short way, watches on the long one. (CVE-2023-44487.)
#[test]
fn rapid_resets() {
    let mut victim = Victim::start();
    let before = victim.peak();
    let good = Good::at(victim.port);
    let message = put_request(b"reset", b"value");
    for path in [PUT, WATCH] {
        let mut wire = Wire::connect(victim.port, &[]);
        let reading = wire.swallow();
        let mut stream = 1;
        for _ in 0..1000 {
            let mut out = BytesMut::new();
            for _ in 0..100 {
                put_call(&mut out, stream, path);
                put_message(&mut out, stream, &message, 0);
                put_reset(&mut out, stream, reason::CANCEL);
                stream += 2;
            }
            if !wire.send(&out) {
                // It was told to go, which is its right.
                break;
            }
        }
        drop(wire.socket.shutdown(std::net::Shutdown::Both));
        reading.join().expect("a reader");
    }
    good.was_served();
    victim.has_stood_it(before, 100);
}

/// Header blocks that never end: by frames without end, by empty frames, by silence.
#[test]
fn continued_for_ever() {
    let mut victim = Victim::start();
    let before = victim.peak();
    let good = Good::at(victim.port);
    for (part, words) in [
        (16_384, "a header block is longer than 65,536 bytes"),
        (0, "a header block comes in too many frames"),
    ] {
        let mut wire = Wire::connect(victim.port, &[]);
        let mut out = BytesMut::new();
        put_head(&mut out, 0, kind::HEADERS, 0, 1);
        for _ in 0..1000 {
            put_head(&mut out, part, kind::CONTINUATION, 0, 1);
            out.put_bytes(0, part);
        }
        wire.send(&out);
        assert_eq!(wire.goaway(), (reason::ENHANCE_YOUR_CALM, words.to_owned()));
    }
    // Slow ones hold what they have said, and nothing else.
    let slow: Vec<Wire> = (0..500)
        .map(|_| {
            let mut wire = Wire::connect(victim.port, &[]);
            let mut out = BytesMut::new();
            put_head(&mut out, 16_384, kind::HEADERS, 0, 1);
            out.put_bytes(0, 16_000);
            assert!(wire.send(&out));
            wire
        })
        .collect();
    good.was_served();
    victim.has_stood_it(before, 100);
    drop(slow);
}

/// A few bytes that stand for many: a field of 4,000 bytes remembered, and said again with one byte each, sixteen thousand times a
/// block. (CVE-2016-6581.)
#[test]
fn header_bombs() {
    let mut victim = Victim::start();
    let before = victim.peak();
    let good = Good::at(victim.port);
    for _ in 0..20 {
        let mut wire = Wire::connect(victim.port, &[]);
        let reading = wire.swallow();
        let mut block = BytesMut::new();
        put_remembered(&mut block, b"x", &[b'y'; 4000]);
        let mut out = BytesMut::new();
        put_head(&mut out, block.len(), kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1);
        out.put_slice(&block);
        for round in 1..50 {
            let mut bomb = BytesMut::new();
            (0..16_000).for_each(|_| put_indexed(&mut bomb, 62));
            put_head(
                &mut out,
                bomb.len(),
                kind::HEADERS,
                flag::END_HEADERS | flag::END_STREAM,
                2 * round + 1,
            );
            out.put_slice(&bomb);
        }
        wire.send(&out);
        drop(wire.socket.shutdown(std::net::Shutdown::Both));
        reading.join().expect("a reader");
    }
    // Many large fields, honestly said, that the connection might wish to remember.
    let hoarders: Vec<Wire> = (0..200)
        .map(|_| {
            let mut wire = Wire::connect(victim.port, &[]);
            for stream in 0..8u32 {
                let mut block = call_block(RANGE);
                put_literal(&mut block, format!("x-{stream}").as_bytes(), &[b'z'; 15_000]);
                let mut out = BytesMut::new();
                put_head(&mut out, block.len(), kind::HEADERS, flag::END_HEADERS, 2 * stream + 1);
                out.put_slice(&block);
                put_message(&mut out, 2 * stream + 1, &field(1, b"nothing"), flag::END_STREAM);
                assert!(wire.send(&out));
            }
            wire
        })
        .collect();
    good.was_served();
    victim.has_stood_it(before, 100);
    drop(hoarders);
}

/// PINGs and SETTINGS that want answers which nobody reads, and more SETTINGS than anybody needs.
#[test]
fn floods_that_want_answers() {
    let mut victim = Victim::start();
    let before = victim.peak();
    let good = Good::at(victim.port);
    let mut pings = BytesMut::new();
    (0..10_000).for_each(|_| put_ping(&mut pings, *b"12345678", 0));
    let deaf: Vec<Wire> = (0..20)
        .map(|_| {
            let mut wire = Wire::connect(victim.port, &[]);
            wire.socket.set_write_timeout(Some(std::time::Duration::from_millis(200))).expect("a timeout");
            // Until the member takes no more: it does not read from whom does not read.
            (0..1000).take_while(|_| wire.send(&pings)).count();
            wire
        })
        .collect();
    let mut wire = Wire::connect(victim.port, &[]);
    let mut out = BytesMut::new();
    (0..2000u32).for_each(|round| put_settings(&mut out, &[(setting::INITIAL_WINDOW_SIZE, round)]));
    wire.send(&out);
    assert_eq!(wire.goaway(), (reason::ENHANCE_YOUR_CALM, "too many SETTINGS".to_owned()));
    good.was_served();
    victim.has_stood_it(before, 100);
    drop(deaf);
}

/// Large answers are asked for, and no window is given to take them: what is held for all of them together is bounded, and who
/// asks for little is served. (CVE-2019-9511, CVE-2019-9517.)
#[test]
fn windows_that_stay_shut() {
    let mut victim = Victim::start();
    let large = "v".repeat(1_000_000);
    victim.client().put("large", &large).expect("a large value");
    let before = victim.peak();
    let good = Good::at(victim.port);
    let greedy: Vec<Wire> = (0..10)
        .map(|_| {
            let mut wire = Wire::connect(victim.port, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
            for round in 0..200 {
                let mut out = BytesMut::new();
                put_call(&mut out, 2 * round + 1, RANGE);
                put_message(&mut out, 2 * round + 1, &field(1, b"large"), flag::END_STREAM);
                assert!(wire.send(&out));
            }
            wire
        })
        .collect();
    // Two gigabytes were asked for. Some connection has been told that it is too much: errors need no window.
    let told = |mut wire: Wire| {
        // A last call whose answer shows that those before have been looked at.
        let mut out = BytesMut::new();
        put_call(&mut out, 1001, RANGE);
        put_window_update(&mut out, 1001, 1000);
        put_message(&mut out, 1001, &field(1, b"nothing"), flag::END_STREAM);
        wire.send(&out);
        let mut refused = 0;
        while let Some(came) = wire.next() {
            if came.head.kind != kind::HEADERS || !came.head.has(flag::END_STREAM) {
                continue;
            }
            if came.head.stream == 1001 {
                break;
            }
            refused += 1;
        }
        refused
    };
    let refused: usize = greedy.into_iter().map(told).sum();
    println!("{refused} of 2000 answers were dropped");
    assert!(refused > 1000);
    good.was_served();
    // 256 MB of answers, and what the allocator keeps beside them.
    victim.has_stood_it(before, 450);
}

/// Windows that grow too large, or by nothing, are mistakes with a name.
#[test]
fn windows_that_are_none() {
    let mut victim = Victim::start();
    let before = victim.peak();
    let good = Good::at(victim.port);
    let ended = |frames: &dyn Fn(&mut BytesMut)| {
        let mut wire = Wire::connect(victim.port, &[]);
        let mut out = BytesMut::new();
        frames(&mut out);
        wire.send(&out);
        wire.goaway().0
    };
    assert_eq!(ended(&|out| put_window_update(out, 0, 0x7fff_ffff)), reason::FLOW_CONTROL_ERROR);
    assert_eq!(ended(&|out| put_window_update(out, 0, 0)), reason::PROTOCOL_ERROR);
    assert_eq!(
        ended(&|out| put_settings(out, &[(setting::INITIAL_WINDOW_SIZE, 0x8000_0000)])),
        reason::FLOW_CONTROL_ERROR
    );
    good.was_served();
    victim.has_stood_it(before, 100);
}

/// DATA without any data, and DATA of one byte, by the hundred thousand, to somebody who does not read them: no window bounds the
/// first, and the second would cost eighty times what they say. (CVE-2019-9518.)
#[test]
fn data_that_is_next_to_nothing() {
    let mut victim = Victim::start();
    let before = victim.peak();
    let good = Good::at(victim.port);
    for payload in [0, 1] {
        let mut wire = Wire::connect(victim.port, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
        let mut out = BytesMut::new();
        put_call(&mut out, 1, WATCH);
        // That so many watches are there is told without a window, so that the member reads no further on this stream.
        for _ in 0..4000 {
            put_message(&mut out, 1, &field(1, &field(1, b"k")), 0);
        }
        for _ in 0..500_000 {
            put_head(&mut out, payload, kind::DATA, 0, 1);
            out.put_bytes(0, payload);
        }
        wire.send(&out);
        put_call_and_wait(&mut wire);
    }
    good.was_served();
    victim.has_stood_it(before, 100);
}

/// A call whose answer shows that what was sent before has been taken, unless the connection has ended meanwhile.
fn put_call_and_wait(wire: &mut Wire) {
    let mut out = BytesMut::new();
    put_call(&mut out, 3, RANGE);
    put_message(&mut out, 3, &[], flag::END_STREAM);
    wire.send(&out);
    while let Some(came) = wire.next() {
        if came.head.kind == kind::GOAWAY || (came.head.stream == 3 && came.head.has(flag::END_STREAM)) {
            return;
        }
    }
}

/// Streams that a client cannot have.
#[test]
fn streams_that_are_none() {
    let mut victim = Victim::start();
    let before = victim.peak();
    let good = Good::at(victim.port);
    let ended = |frames: &dyn Fn(&mut BytesMut)| {
        let mut wire = Wire::connect(victim.port, &[]);
        let mut out = BytesMut::new();
        frames(&mut out);
        wire.send(&out);
        wire.goaway().0
    };
    let wrong = reason::PROTOCOL_ERROR;
    assert_eq!(ended(&|out| put_call(out, 2, PUT)), wrong, "an even number");
    assert_eq!(ended(&|out| put_call(out, 0, PUT)), wrong, "the connection's number");
    assert_eq!(ended(&|out| put_message(out, 7, b"x", 0)), wrong, "DATA before HEADERS");
    assert_eq!(ended(&|out| put_message(out, 0, b"x", 0)), wrong, "DATA on the connection");
    assert_eq!(ended(&|out| put_reset(out, 9, 8)), wrong, "a reset of what has not begun");
    assert_eq!(ended(&|out| put_window_update(out, 9, 8)), wrong, "a window of what has not begun");
    assert_eq!(ended(&|out| put_head(out, 0, kind::PUSH_PROMISE, 0, 1)), wrong, "a push");
    assert_eq!(ended(&|out| put_head(out, 0, kind::CONTINUATION, 0, 1)), wrong, "nothing is continued");
    assert_eq!(
        ended(&|out| {
            put_head(out, 0, kind::HEADERS, 0, 1);
            put_ping(out, *b"12345678", 0);
        }),
        wrong,
        "a block that is interrupted"
    );
    assert_eq!(ended(&|out| put_head(out, 20_000, kind::DATA, 0, 1)), reason::FRAME_SIZE_ERROR);
    let short = |out: &mut BytesMut| {
        put_head(out, 3, kind::PING, 0, 0);
        out.put_bytes(0, 3);
    };
    assert_eq!(ended(&short), reason::FRAME_SIZE_ERROR);
    // A number that was used already: the block is read, so that both tables stay the same, and the stream stays ended.
    let mut wire = Wire::connect(victim.port, &[]);
    for (streams, answered) in [(&[5][..], 5), (&[3, 5, 7][..], 7)] {
        let mut out = BytesMut::new();
        for stream in streams {
            put_call(&mut out, *stream, RANGE);
            put_message(&mut out, *stream, &field(1, b"k"), flag::END_STREAM);
        }
        wire.send(&out);
        loop {
            let came = wire.next().expect("the connection goes on");
            if came.head.kind == kind::HEADERS && came.head.has(flag::END_STREAM) {
                assert_eq!(came.head.stream, answered);
                break;
            }
        }
    }
    let count = victim.client().call("/v3/kv/range", &json!({ "key": base64("k") })).expect("it serves");
    assert!(count["kvs"].is_null());
    good.was_served();
    victim.has_stood_it(before, 100);
}
