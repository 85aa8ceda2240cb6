//! Clients that misbehave: each gets the documented answer, and the others notice nothing.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prost::Message;
use synod_api::Method;
use synod_api::etcdserverpb as pb;
use synod_http2::frame::{self, Head, flag, kind, setting};
use synod_http2::hpack;
use synod_server::http::{Access, ConnectionLimits};
use synod_server::service::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::calls::put;
use crate::client::{Grpc, framed, send, soon};
use crate::fake::Served;

async fn still_serves(served: &Served) {
    let grpc = Grpc::connect(served.address).await;
    let _: pb::PutResponse = grpc.call(Method::Put, &put("alive", "yes")).await.one();
}

/// Messages that are cut short, compressed, doubled, missing, not protobuf, or announced too long.
#[tokio::test]
async fn malformed_messages() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let path = Method::Put.path();
    let whole = framed(&put("a", "b").encode_to_vec());
    let raw = async |body: Bytes| grpc.raw(path, &[], body).await;
    assert_eq!(raw(whole.slice(..whole.len() - 1)).await.failed().0, 13);
    assert_eq!(raw(whole.slice(..3)).await.failed().0, 13);
    assert_eq!(raw(Bytes::new()).await.failed().0, 13);
    assert_eq!(raw([whole.clone(), whole.clone()].concat().into()).await.failed().0, 13);
    assert_eq!(raw(framed(b"\xff\xff\xff\xff")).await.failed().0, 13);
    // A key of another wire type, a length past the end, a group.
    for message in [&b"\x08\x01"[..], b"\x0a\x7fa", b"\x0b", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
    {
        assert_eq!(raw(framed(message)).await.failed().0, 13, "{message:x?}");
    }
    // An unknown field is passed over.
    assert_eq!(raw(framed(b"\x0a\x01a\xf8\x07\x01")).await.code, Some(0));
    let compressed: Bytes = [&b"\x01\0\0\0\x01"[..], b"x"].concat().into();
    let refused = raw(compressed).await;
    assert_eq!(refused.failed(), (12, "grpc: compressed messages are not supported by this server"));
    let encoded = grpc.raw(path, &[("grpc-encoding", "gzip")], whole.clone()).await;
    assert_eq!(encoded.failed().0, 12);
    assert!(encoded.message.contains("gzip"));
    assert_eq!(grpc.raw(path, &[("client-api-version", "\u{fc}\u{fc}")], whole).await.code, Some(0));
    still_serves(&served).await;
}

/// A message that is announced too long is refused by its announcement: nothing of it needs to arrive.
#[tokio::test]
async fn announced_too_long() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let mut call = grpc.open(Method::Put.path(), &[]).await;
    call.send.send_data(Bytes::from_static(b"\0\x01\0\0\0"), false).unwrap();
    let ended = soon(call.end()).await;
    let text = "grpc: received message larger than max (16777216 vs. 2097152)";
    assert_eq!(ended.failed(), (8, text));
    let _: pb::PutResponse = grpc.call(Method::Put, &put("same", "connection")).await.one();
}

/// A client that sends its endpoint as it was typed as the authority, as etcd's own did for years, is served.
#[tokio::test]
async fn old_clients_authorities() {
    let served = Served::start().await;
    let authority = b"http://127.0.0.1:2379";
    let mut block = vec![0x83, 0x86, 0x41, authority.len() as u8];
    block.extend_from_slice(authority);
    for (index, value) in [(4, Method::Put.path()), (31, "application/grpc")] {
        // Literals with a name from the static table, not to be remembered.
        block.extend_from_slice(match index {
            4 => &[0x04][..],
            _ => &[0x0f, 31 - 15][..],
        });
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
        out.extend_from_slice(payload);
        out
    };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    bytes.extend(frame(1, 4, 1, &block));
    bytes.extend(frame(0, 1, 1, &framed(&put("a", "b").encode_to_vec())));
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    loop {
        let mut head = [0; 9];
        soon(stream.read_exact(&mut head)).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        soon(stream.read_exact(&mut payload)).await.unwrap();
        assert_ne!(head[3], 3, "the stream was reset");
        if head[3] == 0 {
            // The reply's message: it was carried out.
            assert!(payload.len() > 5);
            break;
        }
    }
}

/// What is not gRPC on a gRPC path, and gRPC over HTTP/1, are turned away by HTTP's own means.
#[tokio::test]
async fn wrong_kinds_of_requests() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    for kind in ["application/json", "application/grpc-web", "application/grpcx"] {
        let ended = grpc.raw(Method::Put.path(), &[("content-type", kind)], Bytes::new()).await;
        assert_eq!(ended.http, 415, "{kind}");
    }
    for kind in ["application/grpc+proto", "application/grpc;charset=utf-8"] {
        let body = framed(&put("a", "b").encode_to_vec());
        let ended = grpc.raw(Method::Put.path(), &[("content-type", kind)], body).await;
        assert_eq!(ended.code, Some(0), "{kind}");
    }
    let old = "POST /etcdserverpb.KV/Put HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\nconnection: close\r\n\r\n";
    assert_eq!(send(served.address, old).await.status, 505);
    let large = format!("GET /version HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    assert_eq!(send(served.address, large).await.status, 431);
    still_serves(&served).await;
}

/// Thousands of calls that are given up at once do not end the connection of a client that merely changes its mind a lot.
#[tokio::test]
async fn changing_ones_mind_is_allowed() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    for round in 0..2000 {
        let mut call = grpc.open(Method::Watch.path(), &[]).await;
        call.say(&crate::watching::create("a", ""));
        drop(call);
        if round % 50 == 0 {
            let _: pb::PutResponse = grpc.call(Method::Put, &put("a", "b")).await.one();
        }
    }
    let _: pb::PutResponse = grpc.call(Method::Put, &put("a", "b")).await.one();
}

/// Nonsense instead of a protocol closes the connection, and only it.
#[tokio::test]
async fn nonsense_on_the_line() {
    let served = Served::start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\0\x01\0\x01\xfc"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense nonsense",
        b"\r\n\r\n\0\0\0",
    ] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
    }
    still_serves(&served).await;
}

/// Whoever connects and says nothing, or not enough, or never ends its headers, is shown out; whoever waits on an open
/// stream is not.
#[tokio::test]
async fn slow_talkers_are_shown_out() {
    let limits =
        ConnectionLimits { header_timeout: Duration::from_millis(100), ..ConnectionLimits::default() };
    let everybody = Access::new(vec![], vec![]);
    let served = Served::within(Options::default(), everybody, limits).await;
    let grpc = Grpc::connect(served.address).await;
    let mut watch = grpc.open(Method::Watch.path(), &[]).await;
    watch.say(&crate::watching::create("a", ""));
    let _: pb::WatchResponse = watch.read().await;
    for beginning in ["", "P", "PRI * HTTP/2.0", "GET /health HTTP/1.1\r\nhost: a\r\nx-slow: "] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
    }
    let _: pb::PutResponse = grpc.call(Method::Put, &put("a", "b")).await.one();
    let event: pb::WatchResponse = watch.read().await;
    assert_eq!(event.events.len(), 1);
}

/// Told to stop, the listener ends streams with a reason, finishes what is in flight, and takes nobody new.
#[tokio::test]
async fn stopping_in_order() {
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let mut watch = grpc.open(Method::Watch.path(), &[]).await;
    watch.say(&crate::watching::create("a", ""));
    let created: pb::WatchResponse = watch.read().await;
    assert!(created.created);
    served.stop();
    assert_eq!(watch.end().await.failed(), (14, "etcdserver: server stopped"));
    drop(grpc);
    let address = served.address;
    tokio::time::timeout(Duration::from_secs(20), served.listening).await.expect("it stops").unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

/// A client that asks for much at once, with wide windows, and reads late gets all of it, and soon.
#[tokio::test]
async fn who_reads_late_gets_everything() {
    const CALLS: u32 = 8000;
    const BYTES: usize = 3000;
    let served = Served::start().await;
    let grpc = Grpc::connect(served.address).await;
    let value = Bytes::from(vec![7; BYTES]);
    let large = pb::PutRequest { key: Bytes::from("large"), value, ..Default::default() };
    let _: pb::PutResponse = grpc.call(Method::Put, &large).await.one();

    let range = pb::RangeRequest { key: Bytes::from("large"), ..Default::default() };
    let message = framed(&range.encode_to_vec());
    let mut out = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]);
    frame::put_settings(&mut out, &[(setting::INITIAL_WINDOW_SIZE, 1 << 30)]);
    frame::put_window_update(&mut out, 0, 1 << 30);
    let mut block = BytesMut::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", Method::Range.path()),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        hpack::put_remembered(&mut block, name.as_bytes(), value.as_bytes());
    }
    for call in 0..CALLS {
        let stream = 2 * call + 1;
        frame::put_head(&mut out, block.len(), kind::HEADERS, flag::END_HEADERS, stream);
        out.extend_from_slice(&block);
        frame::put_head(&mut out, message.len(), kind::DATA, flag::END_STREAM, stream);
        out.extend_from_slice(&message);
        // From now on the fields are known by their places in the table.
        block = BytesMut::from(&[0xc2, 0xc1, 0xc0, 0xbf, 0xbe][..]);
    }
    let mut socket = TcpStream::connect(served.address).await.unwrap();
    socket.write_all(&out).await.unwrap();
    still_serves(&served).await;

    // All of it soon: what is not made in its turn would be looked at again now and then, and come in the end.
    let data = soon(async {
        let (mut data, mut ended) = (0, 0);
        let mut read = BytesMut::new();
        while ended < CALLS {
            assert!(socket.read_buf(&mut read).await.unwrap() > 0);
            while let Some(head) = Head::read(&read).filter(|head| read.len() >= frame::HEAD + head.length) {
                let _ = read.split_to(frame::HEAD + head.length);
                data += if head.kind == kind::DATA { head.length } else { 0 };
                ended += u32::from(head.stream > 0 && head.has(flag::END_STREAM));
            }
        }
        data
    })
    .await;
    assert!(data > CALLS as usize * BYTES, "{data} bytes");
}
