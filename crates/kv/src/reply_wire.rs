//! Replies as bytes, for those that travel: the same reply has the same bytes at every replica, and comes back as it was.
//!
//! One byte says which, then the fields follow in the order of their declaration, as in `op_wire`. Errors have the number of their place
//! in [`ERRORS`], which only grows at its end.

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::wire::{Reader, put_bytes, put_u64};
use synod_core::{Wire, WireError};

use crate::error::OpError;
use crate::op::{DeleteReply, OpReply, PutReply, RangeReply, Reply, TXN_DEPTH_MAX, TxnOpReply, TxnReply};
use crate::record::KvList;

/// More elements in one list than this is malformed.
const LIST_MAX: u64 = 1 << 24;

/// The errors that applying may give where there is one order, by their numbers.
const ERRORS: &[OpError] = &[
    OpError::EmptyKey,
    OpError::KeyNotFound,
    OpError::ValueProvided,
    OpError::LeaseProvided,
    OpError::TooManyOps,
    OpError::DuplicateKey,
    OpError::InvalidSortOption,
    OpError::Compacted,
    OpError::FutureRevision,
    OpError::NoSpace,
    OpError::LeaseNotFound,
    OpError::LeaseExists,
    OpError::LeaseTtlTooLarge,
    OpError::MemberNotFound,
    OpError::Corrupt,
    OpError::StreamSort,
    OpError::StreamFilter,
    OpError::Malformed,
    OpError::AlreadyDone,
    OpError::AnswerTooLarge,
];

const FAILED: u8 = 0;
const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;
const TXN: u8 = 3;
const COMPACT: u8 = 4;
const LEASE_GRANT: u8 = 5;
const LEASE_REVOKE: u8 = 6;
const LEASE: u8 = 7;
const LEASES: u8 = 8;
const RANGE: u8 = 9;
/// What nobody travels for: see [`Wish::is_a_clients`](crate::once::Wish::is_a_clients).
const OTHER: u8 = 10;

fn unknown(what: &'static str, value: u64) -> WireError {
    WireError::Invalid { what, value, allowed: "a number with a meaning" }
}

fn number(from: &mut Reader, what: &'static str) -> Result<i64, WireError> {
    from.u64(what).map(|number| number as i64)
}

fn put_list(out: &mut BytesMut, list: &KvList) {
    put_u64(out, list.len() as u64);
    put_bytes(out, list.fields());
}

fn list(from: &mut Reader, tag: u8) -> Result<KvList, WireError> {
    let count = from.u64("pairs")?;
    let bytes = from.bytes("pairs")?;
    usize::try_from(count)
        .ok()
        .and_then(|count| KvList::checked(bytes, count, tag))
        .ok_or(unknown("pairs", count))
}

fn encode_put(reply: &PutReply, out: &mut BytesMut) {
    put_u64(out, reply.revision as u64);
    out.put_u8(reply.prev_kv.is_some().into());
    if let Some(pair) = &reply.prev_kv {
        put_bytes(out, pair);
    }
}

fn decode_put(from: &mut Reader) -> Result<PutReply, WireError> {
    let revision = number(from, "revision")?;
    let prev_kv = if from.flag("pair")? { Some(from.bytes("pair")?) } else { None };
    Ok(PutReply { revision, prev_kv })
}

fn encode_delete(reply: &DeleteReply, out: &mut BytesMut) {
    put_u64(out, reply.revision as u64);
    put_u64(out, reply.deleted as u64);
    put_list(out, &reply.prev_kvs);
}

fn decode_delete(from: &mut Reader) -> Result<DeleteReply, WireError> {
    Ok(DeleteReply {
        revision: number(from, "revision")?,
        deleted: number(from, "deleted")?,
        prev_kvs: list(from, KvList::DELETE_PREV_KVS)?,
    })
}

fn encode_txn(reply: &TxnReply, out: &mut BytesMut) {
    put_u64(out, reply.revision as u64);
    out.put_u8(reply.succeeded.into());
    put_u64(out, reply.responses.len() as u64);
    for response in &reply.responses {
        match response {
            TxnOpReply::Range(range) => {
                out.put_u8(RANGE);
                put_u64(out, range.revision as u64);
                put_list(out, &range.kvs);
                out.put_u8(range.more.into());
                put_u64(out, range.count as u64);
            }
            TxnOpReply::Put(put) => {
                out.put_u8(PUT);
                encode_put(put, out);
            }
            TxnOpReply::DeleteRange(delete) => {
                out.put_u8(DELETE_RANGE);
                encode_delete(delete, out);
            }
            TxnOpReply::Txn(inner) => {
                out.put_u8(TXN);
                encode_txn(inner, out);
            }
        }
    }
}

fn decode_txn(from: &mut Reader, depth: usize) -> Result<TxnReply, WireError> {
    if depth > TXN_DEPTH_MAX {
        return Err(unknown("depth", depth as u64));
    }
    let (revision, succeeded) = (number(from, "revision")?, from.flag("succeeded")?);
    let mut responses = Vec::new();
    for _ in 0..from.count("responses", LIST_MAX)? {
        responses.push(match from.u8("response")? {
            RANGE => TxnOpReply::Range(RangeReply {
                revision: number(from, "revision")?,
                kvs: list(from, KvList::RANGE_KVS)?,
                more: from.flag("more")?,
                count: number(from, "count")?,
            }),
            PUT => TxnOpReply::Put(decode_put(from)?),
            DELETE_RANGE => TxnOpReply::DeleteRange(decode_delete(from)?),
            TXN => TxnOpReply::Txn(decode_txn(from, depth + 1)?),
            other => return Err(unknown("response", other.into())),
        });
    }
    Ok(TxnReply { revision, succeeded, responses })
}

impl Wire for Reply {
    fn encode(&self, out: &mut BytesMut) {
        put_u64(out, self.revision as u64);
        match &self.result {
            Err(error) => {
                out.put_u8(FAILED);
                // Whatever has no number is none that a single order gives.
                let place = ERRORS.iter().position(|known| known == error);
                put_u64(out, place.unwrap_or(ERRORS.len()) as u64);
            }
            Ok(OpReply::Put(reply)) => {
                out.put_u8(PUT);
                encode_put(reply, out);
            }
            Ok(OpReply::DeleteRange(reply)) => {
                out.put_u8(DELETE_RANGE);
                encode_delete(reply, out);
            }
            Ok(OpReply::Txn(reply)) => {
                out.put_u8(TXN);
                encode_txn(reply, out);
            }
            Ok(OpReply::Compact) => out.put_u8(COMPACT),
            Ok(OpReply::LeaseGrant { id, ttl }) => {
                out.put_u8(LEASE_GRANT);
                put_u64(out, *id as u64);
                put_u64(out, *ttl as u64);
            }
            Ok(OpReply::LeaseRevoke) => out.put_u8(LEASE_REVOKE),
            Ok(OpReply::Lease(lease)) => {
                out.put_u8(LEASE);
                out.put_u8(lease.is_some().into());
                if let Some((ttl, keys)) = lease {
                    put_u64(out, *ttl as u64);
                    put_u64(out, keys.len() as u64);
                    for key in keys {
                        put_bytes(out, key);
                    }
                }
            }
            Ok(OpReply::Leases(ids)) => {
                out.put_u8(LEASES);
                put_u64(out, ids.len() as u64);
                for id in ids {
                    put_u64(out, *id as u64);
                }
            }
            Ok(OpReply::Silent | OpReply::LeaseCheckpoint | OpReply::Alarm(_) | OpReply::Done) => {
                out.put_u8(OTHER);
            }
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        let revision = number(from, "revision")?;
        let result = match from.u8("reply")? {
            FAILED => {
                let place = from.u64("error")?;
                let known = usize::try_from(place).ok().and_then(|place| ERRORS.get(place));
                Err(*known.ok_or(unknown("error", place))?)
            }
            PUT => Ok(OpReply::Put(decode_put(from)?)),
            DELETE_RANGE => Ok(OpReply::DeleteRange(decode_delete(from)?)),
            TXN => Ok(OpReply::Txn(decode_txn(from, 1)?)),
            COMPACT => Ok(OpReply::Compact),
            LEASE_GRANT => {
                Ok(OpReply::LeaseGrant { id: number(from, "lease")?, ttl: number(from, "seconds")? })
            }
            LEASE_REVOKE => Ok(OpReply::LeaseRevoke),
            LEASE if !from.flag("lease")? => Ok(OpReply::Lease(None)),
            LEASE => {
                let ttl = number(from, "seconds")?;
                let count = from.count("keys", LIST_MAX)?;
                let keys: Result<Vec<Bytes>, _> = (0..count).map(|_| from.bytes("key")).collect();
                Ok(OpReply::Lease(Some((ttl, keys?))))
            }
            LEASES => {
                let count = from.count("leases", LIST_MAX)?;
                let ids: Result<Vec<i64>, _> = (0..count).map(|_| number(from, "lease")).collect();
                Ok(OpReply::Leases(ids?))
            }
            OTHER => Ok(OpReply::Done),
            other => return Err(unknown("reply", other.into())),
        };
        Ok(Reply { revision, result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{DeleteRange, Op, Put, PutFlags, RangeRequest, Txn, TxnOp};
    use crate::store::Store;
    use synod_core::{Audience, NodeId};

    fn samples() -> Vec<Reply> {
        let mut store = Store::new();
        let flags = PutFlags { prev_kv: true, ..PutFlags::default() };
        let put = |value: &'static str| Put { key: "k".into(), value: value.into(), flags, ..Put::default() };
        let range = RangeRequest { key: "a".into(), range_end: "z".into(), ..RangeRequest::default() };
        let delete = DeleteRange { key: "k".into(), range_end: bytes::Bytes::new(), prev_kv: true };
        let inner = Txn { success: vec![TxnOp::Range(range.clone())], ..Txn::default() };
        let txn = Txn {
            success: vec![TxnOp::Put(put("c")), TxnOp::Range(range), TxnOp::Txn(inner)],
            ..Txn::default()
        };
        let ops = [
            Op::Put(put("a")),
            Op::Put(put("b")),
            Op::Txn(txn),
            Op::DeleteRange(delete),
            Op::LeaseGrant { id: -5, ttl: 60 },
            Op::LeaseRevoke { id: -5 },
            Op::LeaseRevoke { id: 6 },
            Op::Compact { revision: 3 },
        ];
        let mut replies: Vec<Reply> =
            ops.iter().map(|op| store.apply_op(op, NodeId(1), Audience::Client)).collect();
        let extra = [
            OpReply::Lease(None),
            OpReply::Lease(Some((9, vec!["x".into()]))),
            OpReply::Leases(vec![-1, i64::MAX]),
        ];
        replies.extend(extra.map(|reply| Reply { revision: 7, result: Ok(reply) }));
        replies.extend(ERRORS.iter().map(|error| Reply { revision: 7, result: Err(*error) }));
        replies
    }

    /// Every reply comes back from its bytes as it was; cut short it is refused, and a flipped bit never panics.
    #[test]
    fn replies_round_trip() {
        for reply in samples() {
            let bytes = reply.to_bytes();
            assert_eq!(Reply::decode_all(bytes.clone()).as_ref(), Ok(&reply));
            for end in 0..bytes.len() {
                assert!(Reply::decode_all(bytes.slice(..end)).is_err(), "{reply:?} cut at {end}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let _ = Reply::decode_all(flipped.into());
            }
        }
    }
}
