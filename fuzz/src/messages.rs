//! Messages: from peers, from the log, from clients. What was decoded is encoded and decoded once more, to the same.

use bytes::Bytes;
use synod_api::etcdserverpb as pb;
use synod_core::Wire;
use synod_kv::op::Op;
use synod_protocols::raft;
use synod_replica::Packet;

/// What one replica sends to another.
pub fn packet(bytes: &[u8]) {
    encodes_the_same::<Packet<raft::Message>>(bytes);
}

/// What Raft must not forget.
pub fn record(bytes: &[u8]) {
    encodes_the_same::<raft::Record>(bytes);
}

/// A command of the store.
pub fn op(bytes: &[u8]) {
    encodes_the_same::<Op>(bytes);
}

/// A request in protobuf: the first byte chooses which.
pub fn protobuf(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 6 {
        0 => prost_encodes_the_same::<pb::RangeRequest>(bytes),
        1 => prost_encodes_the_same::<pb::PutRequest>(bytes),
        2 => prost_encodes_the_same::<pb::DeleteRangeRequest>(bytes),
        3 => prost_encodes_the_same::<pb::TxnRequest>(bytes),
        4 => prost_encodes_the_same::<pb::WatchRequest>(bytes),
        _ => prost_encodes_the_same::<pb::LeaseGrantRequest>(bytes),
    }
}

/// Several encodings may decode to one value; its own encoding is the one that must be stable.
fn encodes_the_same<T: Wire>(bytes: &[u8]) {
    if let Ok(value) = T::decode_all(Bytes::copy_from_slice(bytes)) {
        let encoded = value.to_bytes();
        let again = T::decode_all(encoded.clone()).expect("our own encoding");
        assert_eq!(again.to_bytes(), encoded);
    }
}

fn prost_encodes_the_same<T: prost::Message + Default>(bytes: &[u8]) {
    if let Ok(value) = T::decode(bytes) {
        let encoded = value.encode_to_vec();
        let again = T::decode(&encoded[..]).expect("our own encoding");
        assert_eq!(again.encode_to_vec(), encoded);
    }
}
