//! What clients can do by being many, or by asking for much.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::BytesMut;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use synod_http2::frame::{flag, kind, put_window_update};
use synod_http2::hpack::Decoder;

use crate::common::{PATIENCE, base64, number};
use crate::good::{Good, Victim};
use crate::wire::{Came, Wire, field, put_call, put_message};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// As much more as a window can be given at once, beside what it begins with.
const WIDE: u32 = 0x7fff_ffff - 65_535;

/// How many connections there may be: ten thousand, where the system gives as many descriptors to a process.
fn connections_allowed() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = limit.maximum.unwrap_or(u64::MAX).saturating_sub(500);
    usize::try_from(allowed).unwrap_or(usize::MAX).min(10_000)
}

/// Waits for the end of a stream's answer; the bytes of its DATA.
fn answer(wire: &mut Wire, stream: u32) -> usize {
    let mut bytes = 0;
    while let Some(Came { head, .. }) = wire.next() {
        if head.stream != stream {
            continue;
        }
        bytes += if head.kind == kind::DATA { head.length } else { 0 };
        if head.has(flag::END_STREAM) && matches!(head.kind, kind::DATA | kind::HEADERS) {
            return bytes;
        }
        assert_ne!(head.kind, kind::RST_STREAM, "the answer was cut off");
    }
    panic!("the connection ended before the answer");
}

/// Ten thousand connections at once, each of which has been served and stays, a thousand of them with a watch.
#[test]
fn ten_thousand_connections() {
    let count = connections_allowed();
    let mut victim = Victim::start();
    let before = victim.peak();
    let good = Good::at(victim.port);
    let mut crowd: Vec<Wire> = (0..count)
        .map(|_| {
            let mut wire = Wire::connect(victim.port, &[]);
            let mut out = BytesMut::new();
            put_call(&mut out, 1, RANGE);
            put_message(&mut out, 1, &field(1, b"key"), flag::END_STREAM);
            assert!(wire.send(&out));
            assert!(answer(&mut wire, 1) > 0);
            wire
        })
        .collect();
    for wire in crowd.iter_mut().step_by(10) {
        let mut out = BytesMut::new();
        put_call(&mut out, 3, WATCH);
        put_message(&mut out, 3, &field(1, &field(1, b"watched")), 0);
        assert!(wire.send(&out));
    }
    println!("{count} connections: {} MB resident, {before} before", victim.resident());
    victim.client().put("watched", "by a thousand").expect("a put");
    for wire in crowd.iter_mut().step_by(10) {
        // The head, that it is created, and the event.
        let mut messages = 0;
        while messages < 2 {
            let came = wire.next().expect("the watch goes on");
            messages += usize::from(came.head.stream == 3 && came.head.kind == kind::DATA);
        }
    }
    good.was_served();
    victim.has_stood_it(before, 64 + count as u64 * 16 / 1024);
}

/// Two hundred watchers that never read, while 64 MB of events come: who reads gets all of them as they come, what waits for the
/// others is bounded, and one of those that begins to read at last gets every event, too.
#[test]
fn watchers_that_never_read() {
    const EVENTS: usize = 400;
    let mut victim = Victim::start();
    let before = victim.peak();
    let good = Good::at(victim.port);
    let watch = |port| {
        let mut wire = Wire::connect(port, &[]);
        let mut out = BytesMut::new();
        put_call(&mut out, 1, WATCH);
        let create = [field(1, b"w/"), field(2, b"w0")].concat();
        put_message(&mut out, 1, &field(1, &create), 0);
        assert!(wire.send(&out));
        wire
    };
    let mut deaf: Vec<Wire> = (0..200).map(|_| watch(victim.port)).collect();
    let port = victim.port;
    let mut reader = watch(port);
    crate::common::until("all watches are there", || {
        let page = victim.client().get("/metrics").unwrap_or_default();
        page.contains("etcd_debugging_mvcc_watcher_total 201\n")
    });
    let reading = std::thread::spawn(move || hear_all(&mut reader, EVENTS));
    let mut client = victim.client();
    let value = "v".repeat(160_000);
    for event in 0..EVENTS {
        client.put(&format!("w/{event:06}"), &value).expect("a put");
    }
    reading.join().expect("who reads hears everything");
    hear_all(&mut deaf[7], EVENTS);
    good.was_served();
    // The events themselves, twice (store and log), what waits for those that lag, and what the allocator keeps.
    victim.has_stood_it(before, 450);
}

/// Reads a watch until so many events have come, each once and in order.
fn hear_all(wire: &mut Wire, events: usize) {
    let mut out = BytesMut::new();
    put_window_update(&mut out, 0, WIDE);
    put_window_update(&mut out, 1, WIDE);
    assert!(wire.send(&out));
    let (mut held, mut next) = (Vec::new(), 0);
    while next < events {
        let came = wire.next().expect("the watch goes on");
        if came.head.kind != kind::DATA {
            continue;
        }
        held.extend_from_slice(&came.payload);
        while held.len() >= 5 {
            let length = u32::from_be_bytes([held[1], held[2], held[3], held[4]]) as usize;
            if held.len() < 5 + length {
                break;
            }
            let message: Vec<u8> = held.drain(..5 + length).skip(5).collect();
            // The keys stand in the events as they were put.
            for at in 0..message.len().saturating_sub(8) {
                if message[at..].starts_with(b"w/") && message[at + 2..at + 8].iter().all(u8::is_ascii_digit)
                {
                    assert_eq!(
                        message[at + 2..at + 8],
                        *format!("{next:06}").as_bytes(),
                        "in order, and each once"
                    );
                    next += 1;
                }
            }
        }
    }
}

/// A hundred full ranges of a large keyspace at once, by gRPC and by JSON, plain and sorted, by clients that take their time: together they
/// are sixty times what the member may grow by, and each comes whole.
#[test]
fn a_hundred_full_ranges() {
    const KEYS: usize = 100_000;
    let mut victim = Victim::start();
    let value = base64("v".repeat(256));
    let mut client = victim.client();
    for first in (0..KEYS).step_by(100) {
        let puts: Vec<_> = (first..first + 100)
            .map(|nth| json!({"request_put": {"key": base64(format!("key/{nth:08}")), "value": value}}))
            .collect();
        client.call("/v3/kv/txn", &json!({ "success": puts })).expect("the transaction succeeds");
    }
    let before = victim.peak();
    let good = Good::at(victim.port);
    let mut plain = [field(1, b"key/"), field(2, b"key0")].concat();
    // Serializable, so that it is not the others' turn that is waited for.
    plain.extend_from_slice(&[0x38, 1]);
    let sorted = [&plain[..], &[0x28, 2, 0x30, 3]].concat();
    let mut grpc: Vec<Wire> = (0..10)
        .map(|_| {
            let mut wire = Wire::connect(victim.port, &[]);
            let mut out = BytesMut::new();
            for call in 0..10 {
                put_call(&mut out, 2 * call + 1, RANGE);
                put_message(
                    &mut out,
                    2 * call + 1,
                    if call < 7 { &plain } else { &sorted },
                    flag::END_STREAM,
                );
            }
            assert!(wire.send(&out));
            wire
        })
        .collect();
    let text =
        json!({ "key": base64("key/"), "range_end": base64("key0"), "serializable": true }).to_string();
    let asked = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", victim.port)).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let length = text.len();
        let head = format!(
            "POST /v3/kv/range HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}"
        );
        stream.write_all(head.as_bytes()).expect("asked");
        stream
    };
    let json: Vec<TcpStream> = (0..20).map(asked).collect();
    std::thread::scope(|scope| {
        for wire in &mut grpc {
            scope.spawn(|| take_ten(wire, KEYS));
        }
    });
    for (nth, mut stream) in json.into_iter().enumerate() {
        let mut bytes = 0;
        let mut tail = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stream.read(&mut buffer).expect("the answer comes") {
                0 => break,
                read => {
                    bytes += read;
                    tail.extend_from_slice(&buffer[..read]);
                    let old = tail.len().saturating_sub(if nth == 0 { usize::MAX } else { 200 });
                    tail.drain(..old);
                }
            }
        }
        assert!(bytes > KEYS * (16 + 344), "a whole answer, not {bytes} bytes");
        assert!(String::from_utf8_lossy(&tail).contains(&format!("\"count\":\"{KEYS}\"")));
        if nth == 0 {
            is_json_of(&tail, KEYS);
        }
    }
    good.was_served();
    victim.has_stood_it(before, 200);
}

/// Opens all windows, and takes ten whole answers.
fn take_ten(wire: &mut Wire, keys: usize) {
    let mut out = BytesMut::new();
    put_window_update(&mut out, 0, WIDE);
    (0..10).for_each(|call| put_window_update(&mut out, 2 * call + 1, WIDE));
    assert!(wire.send(&out));
    let (mut bytes, mut ended) = (0, 0);
    while ended < 10 {
        let came = wire.next().expect("the answers come");
        assert_ne!(came.head.kind, kind::RST_STREAM, "an answer was cut off");
        bytes += if came.head.kind == kind::DATA { came.head.length } else { 0 };
        ended += usize::from(came.head.kind == kind::HEADERS && came.head.has(flag::END_STREAM));
    }
    assert!(bytes > 10 * keys * (12 + 256), "ten whole answers, not {bytes} bytes");
}

/// A chunked answer that is one JSON object with so many pairs.
fn is_json_of(answer: &[u8], keys: usize) {
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let (mut rest, mut text) = (&answer[at..], Vec::new());
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").expect("a chunk");
        let length =
            usize::from_str_radix(std::str::from_utf8(&rest[..end]).expect("digits"), 16).expect("a length");
        if length == 0 {
            break;
        }
        text.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 2 + length + 2..];
    }
    let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(value["kvs"].as_array().map(Vec::len), Some(keys));
    assert_eq!(value["kvs"][keys - 1]["key"], base64(format!("key/{:08}", keys - 1)));
    assert!(number(&value["header"]["revision"]) > 1);
}

/// More puts at once than a member takes on: each is answered, some of them with the error that says to slow down, and exactly those that
/// were not refused are there.
#[test]
fn more_than_it_can_take() {
    const CALLS: usize = 10_000;
    let mut victim = Victim::start();
    let before = victim.peak();
    let good = Good::at(victim.port);
    let port = victim.port;
    let clients: Vec<_> = (0..10)
        .map(|client| {
            std::thread::spawn(move || {
                let mut wire = Wire::connect(port, &[]);
                let mut writing = wire.socket.try_clone().expect("a second handle");
                writing.set_write_timeout(Some(PATIENCE)).expect("a timeout");
                let writer = std::thread::spawn(move || {
                    for first in (0..CALLS).step_by(100) {
                        let mut out = BytesMut::new();
                        for call in first..first + 100 {
                            let stream = 2 * call as u32 + 1;
                            let key = format!("load/{client}/{call:06}");
                            put_call(&mut out, stream, PUT);
                            let put = [field(1, key.as_bytes()), field(2, &[b'v'; 100])].concat();
                            put_message(&mut out, stream, &put, flag::END_STREAM);
                        }
                        // What is answered is small, but the connection's window is not without end.
                        put_window_update(&mut out, 0, 100_000);
                        writing.write_all(&out).expect("it takes what it is sent");
                    }
                });
                let (mut done, mut busy) = (0, 0);
                let mut decoder = Decoder::default();
                while done + busy < CALLS {
                    let came = wire.next().expect("every call is answered");
                    if came.head.kind != kind::HEADERS {
                        assert!(matches!(came.head.kind, kind::DATA | kind::SETTINGS | kind::WINDOW_UPDATE));
                        continue;
                    }
                    let mut fields = Vec::new();
                    decoder.decode(&came.payload, 1 << 16, &mut fields).expect("fields");
                    let field = |name: &str| {
                        let found = fields.iter().find(|field| field.name[..] == *name.as_bytes());
                        found.map(|field| String::from_utf8_lossy(&field.value).into_owned())
                    };
                    match field("grpc-status").as_deref() {
                        None => {}
                        Some("0") => done += 1,
                        Some("8") => {
                            assert_eq!(
                                field("grpc-message").as_deref(),
                                Some("etcdserver: too many requests")
                            );
                            busy += 1;
                        }
                        Some(other) => panic!("status {other}: {:?}", field("grpc-message")),
                    }
                }
                writer.join().expect("everything was sent");
                (done, busy)
            })
        })
        .collect();
    let (mut done, mut busy) = (0, 0);
    for client in clients {
        let (its_done, its_busy) = client.join().expect("a client");
        (done, busy) = (done + its_done, busy + its_busy);
    }
    println!("{done} puts done, {busy} refused");
    assert!(busy > 0, "a hundred thousand at once are too many");
    let counted = victim.client().call(
        "/v3/kv/range",
        &json!({ "key": base64("load/"), "range_end": base64("load0"), "count_only": true }),
    );
    assert_eq!(
        number(&counted.expect("it serves")["count"]),
        done as i64,
        "what was refused changed nothing"
    );
    good.was_served();
    victim.has_stood_it(before, 300);
}
