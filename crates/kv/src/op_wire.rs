//! Operations as the payload of commands.
//!
//! One byte says which operation, then its fields follow in the order of their declaration: numbers as varints (negative
//! ones as their 64-bit pattern), byte strings with their length, lists with their count, flags together in one byte.
//! Decoding is bounded: depth by [`TXN_DEPTH_MAX`], counts by the bytes that are there. Keys and values come out as
//! slices of the payload.

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::wire::{Reader, put_bytes, put_u64};
use synod_core::{Wire, WireError};

use crate::once::Once;
use crate::op::{
    Alarm, AlarmAction, AlarmKind, Compare, CompareResult, CompareTarget, Content, DeleteRange,
    MemberAttributes, Op, Put, PutFlags, RangeRequest, SortOrder, SortTarget, TXN_DEPTH_MAX, Txn, TxnOp,
};
use crate::record::take_slice;

/// More elements in one list than this is malformed, whatever the limits of the server are.
const LIST_MAX: u64 = 1 << 20;

const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;
const TXN: u8 = 3;
const COMPACT: u8 = 4;
const LEASE_GRANT: u8 = 5;
const LEASE_REVOKE: u8 = 6;
const LEASE_CHECKPOINT: u8 = 7;
const ALARM: u8 = 8;
const MEMBER_PUBLISH: u8 = 9;
const MEMBER_FORGET: u8 = 10;
const SET_QUOTA: u8 = 11;
const ONCE: u8 = 14;
/// Inside a transaction only, beside `PUT`, `DELETE_RANGE` and `TXN`.
const RANGE: u8 = 12;
/// Likewise.
const EMPTY: u8 = 13;

fn put_i64(out: &mut BytesMut, value: i64) {
    put_u64(out, value as u64);
}

fn i64_from(from: &mut Reader, what: &'static str) -> Result<i64, WireError> {
    from.u64(what).map(|value| value as i64)
}

fn unknown(what: &'static str, value: u8) -> WireError {
    WireError::Invalid { what, value: u64::from(value), allowed: "a number with a meaning" }
}

/// Reads a byte with no bits set but those of `allowed`.
fn flags_from(from: &mut Reader, what: &'static str, allowed: u8) -> Result<u8, WireError> {
    match from.u8(what)? {
        flags if flags & !allowed == 0 => Ok(flags),
        flags => Err(unknown(what, flags)),
    }
}

/// What a put has beside its key and its value.
const PUT_HEAD_BYTES_MAX: usize = 32;

fn encode_put(put: &Put, out: &mut BytesMut) {
    put_bytes(out, &put.key);
    put_bytes(out, &put.value);
    put_i64(out, put.lease);
    let PutFlags { prev_kv, ignore_value, ignore_lease } = put.flags;
    out.put_u8(u8::from(prev_kv) | u8::from(ignore_value) << 1 | u8::from(ignore_lease) << 2);
}

fn decode_put(from: &mut Reader) -> Result<Put, WireError> {
    let (key, value) = (from.bytes("put key")?, from.bytes("put value")?);
    let lease = i64_from(from, "put lease")?;
    let bits = flags_from(from, "put flags", 7)?;
    let flags = PutFlags { prev_kv: bits & 1 != 0, ignore_value: bits & 2 != 0, ignore_lease: bits & 4 != 0 };
    Ok(Put { key, value, lease, flags })
}

fn encode_delete(delete: &DeleteRange, out: &mut BytesMut) {
    put_bytes(out, &delete.key);
    put_bytes(out, &delete.range_end);
    out.put_u8(u8::from(delete.prev_kv));
}

fn decode_delete(from: &mut Reader) -> Result<DeleteRange, WireError> {
    let (key, range_end) = (from.bytes("delete key")?, from.bytes("delete range end")?);
    Ok(DeleteRange { key, range_end, prev_kv: from.flag("delete prev_kv")? })
}

fn encode_range(range: &RangeRequest, out: &mut BytesMut) {
    put_bytes(out, &range.key);
    put_bytes(out, &range.range_end);
    put_i64(out, range.limit);
    put_i64(out, range.revision);
    out.put_u8(range.sort_order as u8);
    out.put_u8(range.sort_target as u8);
    out.put_u8(range.content as u8);
    put_i64(out, range.min_mod_revision);
    put_i64(out, range.max_mod_revision);
    put_i64(out, range.min_create_revision);
    put_i64(out, range.max_create_revision);
    out.put_u8(u8::from(range.serializable));
}

fn decode_range(from: &mut Reader) -> Result<RangeRequest, WireError> {
    Ok(RangeRequest {
        key: from.bytes("range key")?,
        range_end: from.bytes("range end")?,
        limit: i64_from(from, "range limit")?,
        revision: i64_from(from, "range revision")?,
        sort_order: match from.u8("sort order")? {
            0 => SortOrder::None,
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            other => return Err(unknown("sort order", other)),
        },
        sort_target: match from.u8("sort target")? {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            other => return Err(unknown("sort target", other)),
        },
        content: match from.u8("range content")? {
            0 => Content::Full,
            1 => Content::KeysOnly,
            2 => Content::CountOnly,
            other => return Err(unknown("range content", other)),
        },
        min_mod_revision: i64_from(from, "min mod revision")?,
        max_mod_revision: i64_from(from, "max mod revision")?,
        min_create_revision: i64_from(from, "min create revision")?,
        max_create_revision: i64_from(from, "max create revision")?,
        serializable: from.flag("range serializable")?,
    })
}

fn encode_compare(compare: &Compare, out: &mut BytesMut) {
    put_bytes(out, &compare.key);
    put_bytes(out, &compare.range_end);
    out.put_u8(compare.result as u8);
    let (target, number) = match &compare.target {
        CompareTarget::Version(number) => (0, number),
        CompareTarget::Create(number) => (1, number),
        CompareTarget::Mod(number) => (2, number),
        CompareTarget::Lease(number) => (4, number),
        CompareTarget::Value(value) => {
            out.put_u8(3);
            put_bytes(out, value);
            return;
        }
    };
    out.put_u8(target);
    put_i64(out, *number);
}

fn decode_compare(from: &mut Reader) -> Result<Compare, WireError> {
    let (key, range_end) = (from.bytes("compare key")?, from.bytes("compare range end")?);
    let result = match from.u8("compare result")? {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        4 => CompareResult::Unknown,
        other => return Err(unknown("compare result", other)),
    };
    let target = match from.u8("compare target")? {
        0 => CompareTarget::Version(i64_from(from, "compare version")?),
        1 => CompareTarget::Create(i64_from(from, "compare create revision")?),
        2 => CompareTarget::Mod(i64_from(from, "compare mod revision")?),
        3 => CompareTarget::Value(from.bytes("compare value")?),
        4 => CompareTarget::Lease(i64_from(from, "compare lease")?),
        other => return Err(unknown("compare target", other)),
    };
    Ok(Compare { key, range_end, result, target })
}

fn encode_txn(txn: &Txn, out: &mut BytesMut) {
    put_u64(out, txn.compare.len() as u64);
    for compare in &txn.compare {
        encode_compare(compare, out);
    }
    for branch in [&txn.success, &txn.failure] {
        put_u64(out, branch.len() as u64);
        for op in branch {
            match op {
                TxnOp::Range(range) => {
                    out.put_u8(RANGE);
                    encode_range(range, out);
                }
                TxnOp::Put(put) => {
                    out.put_u8(PUT);
                    encode_put(put, out);
                }
                TxnOp::DeleteRange(delete) => {
                    out.put_u8(DELETE_RANGE);
                    encode_delete(delete, out);
                }
                TxnOp::Txn(txn) => {
                    out.put_u8(TXN);
                    encode_txn(txn, out);
                }
                TxnOp::Empty => out.put_u8(EMPTY),
            }
        }
    }
}

fn decode_txn(from: &mut Reader, depth: usize) -> Result<Txn, WireError> {
    if depth > TXN_DEPTH_MAX {
        return Err(WireError::Invalid {
            what: "txn depth",
            value: depth as u64,
            allowed: "at most TXN_DEPTH_MAX",
        });
    }
    let mut compare = Vec::new();
    for _ in 0..from.count("txn compares", LIST_MAX)? {
        compare.push(decode_compare(from)?);
    }
    let success = decode_branch(from, depth)?;
    let failure = decode_branch(from, depth)?;
    Ok(Txn { compare, success, failure })
}

/// Room for more operations than these is not made on a count's word alone.
const TXN_OPS_EXPECTED: usize = 128;

fn decode_branch(from: &mut Reader, depth: usize) -> Result<Vec<TxnOp>, WireError> {
    let count = from.count("txn operations", LIST_MAX)?;
    let mut ops = Vec::with_capacity(count.min(TXN_OPS_EXPECTED));
    for _ in 0..count {
        ops.push(match from.u8("txn operation")? {
            RANGE => TxnOp::Range(decode_range(from)?),
            PUT => TxnOp::Put(decode_put(from)?),
            DELETE_RANGE => TxnOp::DeleteRange(decode_delete(from)?),
            TXN => TxnOp::Txn(decode_txn(from, depth + 1)?),
            EMPTY => TxnOp::Empty,
            other => return Err(unknown("txn operation", other)),
        });
    }
    Ok(ops)
}

pub(crate) fn encode_alarm(alarm: Alarm, out: &mut BytesMut) {
    put_u64(out, alarm.member);
    out.put_u8(match alarm.kind {
        AlarmKind::NoSpace => 1,
        AlarmKind::Corrupt => 2,
    });
}

pub(crate) fn decode_alarm(from: &mut Reader) -> Result<Alarm, WireError> {
    let member = from.u64("alarm member")?;
    let kind = match from.u8("alarm kind")? {
        1 => AlarmKind::NoSpace,
        2 => AlarmKind::Corrupt,
        other => return Err(unknown("alarm kind", other)),
    };
    Ok(Alarm { member, kind })
}

fn put_texts(out: &mut BytesMut, texts: &[String]) {
    put_u64(out, texts.len() as u64);
    for text in texts {
        put_bytes(out, text.as_bytes());
    }
}

fn text_from(from: &mut Reader, what: &'static str) -> Result<String, WireError> {
    let bytes = from.bytes(what)?;
    String::from_utf8(bytes.to_vec()).map_err(|error| WireError::Invalid {
        what,
        value: error.utf8_error().valid_up_to() as u64,
        allowed: "UTF-8",
    })
}

fn texts_from(from: &mut Reader, what: &'static str) -> Result<Vec<String>, WireError> {
    let mut texts = Vec::new();
    for _ in 0..from.count(what, LIST_MAX)? {
        texts.push(text_from(from, what)?);
    }
    Ok(texts)
}

impl Wire for MemberAttributes {
    fn encode(&self, out: &mut BytesMut) {
        put_bytes(out, self.name.as_bytes());
        put_texts(out, &self.client_urls);
        put_texts(out, &self.peer_urls);
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(MemberAttributes {
            name: text_from(from, "member name")?,
            client_urls: texts_from(from, "client urls")?,
            peer_urls: texts_from(from, "peer urls")?,
        })
    }
}

impl Wire for Op {
    fn size_hint(&self) -> usize {
        match self {
            Op::Put(put) => PUT_HEAD_BYTES_MAX + put.key.len() + put.value.len(),
            _ => 0,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Op::Put(put) => {
                out.reserve(put.key.len() + put.value.len() + 24);
                out.put_u8(PUT);
                encode_put(put, out);
            }
            Op::DeleteRange(delete) => {
                out.put_u8(DELETE_RANGE);
                encode_delete(delete, out);
            }
            Op::Txn(txn) => {
                out.put_u8(TXN);
                encode_txn(txn, out);
            }
            Op::Compact { revision } => {
                out.put_u8(COMPACT);
                put_i64(out, *revision);
            }
            Op::LeaseGrant { id, ttl } => {
                out.put_u8(LEASE_GRANT);
                put_i64(out, *id);
                put_i64(out, *ttl);
            }
            Op::LeaseRevoke { id } => {
                out.put_u8(LEASE_REVOKE);
                put_i64(out, *id);
            }
            Op::LeaseCheckpoint { remaining } => {
                out.put_u8(LEASE_CHECKPOINT);
                put_u64(out, remaining.len() as u64);
                for (id, seconds) in remaining {
                    put_i64(out, *id);
                    put_i64(out, *seconds);
                }
            }
            Op::Alarm(action) => {
                out.put_u8(ALARM);
                let (raise, alarm) = match action {
                    AlarmAction::Activate(alarm) => (1, alarm),
                    AlarmAction::Deactivate(alarm) => (0, alarm),
                };
                out.put_u8(raise);
                encode_alarm(*alarm, out);
            }
            Op::MemberPublish { node, attributes } => {
                out.put_u8(MEMBER_PUBLISH);
                put_u64(out, *node);
                attributes.encode(out);
            }
            Op::MemberForget { node } => {
                out.put_u8(MEMBER_FORGET);
                put_u64(out, *node);
            }
            Op::SetQuota { bytes } => {
                out.put_u8(SET_QUOTA);
                put_u64(out, *bytes);
            }
            Op::Once(once) => {
                out.put_u8(ONCE);
                once.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        match from.u8("operation")? {
            ONCE => Ok(Op::Once(Box::new(Once::decode(from)?))),
            simple => decode_tagged(simple, from),
        }
    }
}

/// An operation that is no wish: a wish does not hold another one.
pub(crate) fn decode_simple(from: &mut Reader) -> Result<Op, WireError> {
    let tag = from.u8("operation")?;
    decode_tagged(tag, from)
}

fn decode_tagged(tag: u8, from: &mut Reader) -> Result<Op, WireError> {
    Ok(match tag {
        PUT => Op::Put(decode_put(from)?),
        DELETE_RANGE => Op::DeleteRange(decode_delete(from)?),
        TXN => Op::Txn(decode_txn(from, 1)?),
        COMPACT => Op::Compact { revision: i64_from(from, "compact revision")? },
        LEASE_GRANT => Op::LeaseGrant { id: i64_from(from, "lease id")?, ttl: i64_from(from, "lease ttl")? },
        LEASE_REVOKE => Op::LeaseRevoke { id: i64_from(from, "lease id")? },
        LEASE_CHECKPOINT => {
            let mut remaining = Vec::new();
            for _ in 0..from.count("lease checkpoints", LIST_MAX)? {
                remaining.push((i64_from(from, "lease id")?, i64_from(from, "remaining seconds")?));
            }
            Op::LeaseCheckpoint { remaining }
        }
        ALARM => {
            let raise = from.flag("alarm action")?;
            let alarm = decode_alarm(from)?;
            Op::Alarm(if raise { AlarmAction::Activate(alarm) } else { AlarmAction::Deactivate(alarm) })
        }
        MEMBER_PUBLISH => {
            Op::MemberPublish { node: from.u64("member")?, attributes: MemberAttributes::decode(from)? }
        }
        MEMBER_FORGET => Op::MemberForget { node: from.u64("member")? },
        SET_QUOTA => Op::SetQuota { bytes: from.u64("quota")? },
        other => return Err(unknown("operation", other)),
    })
}

impl Op {
    /// The key that a command of this payload writes to, where it is a single one and simple to see.
    pub(crate) fn key_of(payload: &[u8]) -> Option<&[u8]> {
        match payload.split_first()? {
            (&(PUT | DELETE_RANGE), mut rest) => take_slice(&mut rest),
            _ => None,
        }
    }

    /// The payload of a command that asks for this.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::once::{ClientId, Wish};

    fn wish(wish: Wish) -> Op {
        Op::Once(Box::new(Once { client: ClientId(u128::MAX - 5), number: 9, wish }))
    }

    fn samples() -> Vec<Op> {
        let put = Put {
            key: "key".into(),
            value: "value".into(),
            lease: -7,
            flags: PutFlags { prev_kv: true, ignore_value: false, ignore_lease: true },
        };
        let delete = DeleteRange { key: "a".into(), range_end: "\0".into(), prev_kv: true };
        let range = RangeRequest {
            key: "k".into(),
            limit: -1,
            revision: i64::MAX,
            sort_order: SortOrder::Descend,
            sort_target: SortTarget::Value,
            content: Content::KeysOnly,
            min_create_revision: 3,
            serializable: true,
            ..RangeRequest::default()
        };
        let target = [
            CompareTarget::Version(1),
            CompareTarget::Create(-1),
            CompareTarget::Mod(0),
            CompareTarget::Value("v".into()),
            CompareTarget::Lease(9),
        ];
        let compare = |target: &CompareTarget| Compare {
            key: "c".into(),
            range_end: "d".into(),
            result: CompareResult::NotEqual,
            target: target.clone(),
        };
        let inner = Txn { compare: vec![], success: vec![TxnOp::Empty], failure: vec![TxnOp::Range(range)] };
        let txn = Txn {
            compare: target.iter().map(compare).collect(),
            success: vec![TxnOp::Put(put.clone()), TxnOp::DeleteRange(delete.clone())],
            failure: vec![TxnOp::Txn(inner)],
        };
        let alarm = Alarm { member: u64::MAX, kind: AlarmKind::Corrupt };
        let attributes = MemberAttributes {
            name: "m1".into(),
            client_urls: vec!["http://a:1".into()],
            peer_urls: vec![String::new(), "http://b:2".into()],
        };
        vec![
            Op::Put(put),
            Op::DeleteRange(delete),
            Op::Txn(txn),
            Op::Compact { revision: -1 },
            Op::LeaseGrant { id: 5, ttl: 60 },
            Op::LeaseRevoke { id: i64::MIN },
            Op::LeaseCheckpoint { remaining: vec![(5, 30), (6, 0)] },
            Op::Alarm(AlarmAction::Activate(alarm)),
            Op::Alarm(AlarmAction::Deactivate(alarm)),
            Op::MemberPublish { node: 3, attributes },
            Op::MemberForget { node: 3 },
            Op::SetQuota { bytes: 1 << 40 },
            wish(Wish::Op(Op::Compact { revision: 7 })),
            wish(Wish::Lease(-3)),
            wish(Wish::Leases),
        ]
    }

    /// Every operation comes back from its payload as it was.
    #[test]
    fn operations_round_trip() {
        for op in samples() {
            assert_eq!(Op::decode_all(op.payload()).as_ref(), Ok(&op));
        }
    }

    /// Payloads cut at every length are refused, and payloads with any one bit flipped never panic.
    #[test]
    fn damaged_payloads_are_harmless() {
        for op in samples() {
            let payload = op.payload();
            for end in 0..payload.len() {
                assert!(Op::decode_all(payload.slice(..end)).is_err(), "{op:?} cut at {end}");
            }
            for bit in 0..payload.len() * 8 {
                let mut flipped = payload.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let _ = Op::decode_all(flipped.into());
            }
        }
    }

    /// A transaction nested too deep is refused instead of exhausting the stack.
    #[test]
    fn depth_is_bounded() {
        let mut payload = Vec::new();
        for _ in 0..100_000 {
            // One more level: a transaction without compares whose first branch holds one operation.
            payload.extend_from_slice(&[TXN, 0, 1]);
        }
        assert!(matches!(Op::decode_all(payload.into()), Err(WireError::Invalid { what: "txn depth", .. })));
    }

    /// The key that is looked for ahead is the one that is written to; where it is not simple to see, there is none.
    #[test]
    fn keys_ahead() {
        for op in samples() {
            let payload = op.payload();
            let wanted = match &op {
                Op::Put(put) => Some(&put.key[..]),
                Op::DeleteRange(delete) => Some(&delete.key[..]),
                _ => None,
            };
            assert_eq!(Op::key_of(&payload), wanted);
            (0..payload.len()).for_each(|end| _ = Op::key_of(&payload[..end]));
        }
    }
}
