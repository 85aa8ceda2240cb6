//! Writes the binary part of the corpus anew: `cargo run --example seeds`, in this folder.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use synod_api::etcdserverpb as pb;
use synod_core::{Index, NodeId, Wire};
use synod_fuzz::storage;
use synod_protocols::raft::{Message, Record, Term};
use synod_replica::{Chunk, Packet};

fn main() -> io::Result<()> {
    let disk = storage::healthy_folder();
    seed("snapshot", "short", &disk.contents(storage::SNAPSHOT).expect("the snapshot"))?;
    // The first segment of a log that has not come to a checkpoint yet: the one name that `log` uses.
    let disk = synod_wal::MemoryDisk::new();
    let opened = synod_wal::Log::open(std::sync::Arc::new(disk.clone()), storage::IDENTITY, storage::OPTIONS);
    let (mut log, _) = opened.map_err(io::Error::other)?;
    for record in [&b"one"[..], b"", b"three"] {
        log.append_bytes(record).and_then(|()| log.sync()).map_err(io::Error::other)?;
    }
    seed("log", "first", &disk.contents(storage::SEGMENT).expect("the first segment"))?;
    seed("log_edits", "none", &[])?;
    seed("log_edits", "length", &[0, 28, 0, 9, 1, 130, 0, 0])?;

    seed("packet", "timeout-now", &Packet::Protocol(Message::TimeoutNow { term: Term(2) }).to_bytes())?;
    let appended = Message::Appended { term: Term(1), matched: Index(7) };
    seed("packet", "appended", &Packet::Protocol(appended.clone()).to_bytes())?;
    let chunk = Chunk {
        transfer: 5,
        at: Index(3),
        total: 9,
        offset: 4,
        data: Bytes::from_static(b"state"),
        end: Some((77, appended)),
    };
    seed("packet", "chunk", &Packet::Chunk(chunk).to_bytes())?;
    seed("packet", "held", &Packet::<Message>::Held { transfer: 5, upto: 4 }.to_bytes())?;

    seed("record", "life", &Record::Life(3).to_bytes())?;
    seed("record", "vote", &Record::Vote { term: Term(2), voted_for: Some(NodeId(1)) }.to_bytes())?;

    seed("op", "compact", &synod_kv::op::Op::Compact { revision: 5 }.to_bytes())?;

    let range = pb::RangeRequest {
        key: b"a".to_vec().into(),
        range_end: b"b".to_vec().into(),
        limit: 3,
        ..Default::default()
    };
    let put = pb::PutRequest {
        key: b"a".to_vec().into(),
        value: b"1".to_vec().into(),
        lease: 9,
        ..Default::default()
    };
    let request = Some(pb::request_op::Request::RequestPut(put.clone()));
    let txn = pb::TxnRequest { success: vec![pb::RequestOp { request }], ..Default::default() };
    seed("protobuf", "range", &[&[0], &range.encode_to_vec()[..]].concat())?;
    seed("protobuf", "put", &[&[1], &put.encode_to_vec()[..]].concat())?;
    seed("protobuf", "txn", &[&[3], &txn.encode_to_vec()[..]].concat())
}

fn seed(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}
