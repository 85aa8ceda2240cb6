//! Requests: from protobuf bytes straight to what the store understands.
//!
//! The four calls that make up nearly all traffic are decoded by hand, for two reasons: no intermediate message is built for a
//! put, and a transaction's nesting is bounded by the store's own limit, with its own error, instead of by the
//! decoder's. Byte strings are slices of the request. Everything else goes through the generated messages.
//!
//! As protobuf wants it: fields in any order, the last of a repeated scalar wins, unknown fields are skipped. One
//! simplification: where a sub-message comes twice, the last one wins whole, instead of being merged field by field.

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use synod_kv::op::{
    Compare, CompareResult, CompareTarget, Content, DeleteRange, Put, PutFlags, RangeRequest, TXN_DEPTH_MAX,
    Txn, TxnOp,
};
use synod_kv::validate;

use crate::status::{self, Code, Status};

/// One field of a message.
struct Field {
    number: u32,
    value: Value,
}

enum Value {
    Number(u64),
    Bytes(Bytes),
    /// A fixed-width number: no field of these messages is one, so it belongs to an unknown field.
    Other,
}

/// The message is not protobuf, or a field has another type than it should.
fn malformed(message: &'static str) -> Status {
    Status::new(Code::Internal, format!("grpc: error unmarshalling request: {message} is malformed"))
}

/// Takes the next field; `None` at the end.
fn next(from: &mut Bytes, message: &'static str) -> Result<Option<Field>, Status> {
    if from.is_empty() {
        return Ok(None);
    }
    let wrong = |_| malformed(message);
    let (number, wire) = decode_key(from).map_err(wrong)?;
    let value = match wire {
        WireType::Varint => Value::Number(decode_varint(from).map_err(wrong)?),
        WireType::LengthDelimited => {
            let length = decode_varint(from).map_err(wrong)?;
            if length > from.remaining() as u64 {
                return Err(malformed(message));
            }
            Value::Bytes(from.split_to(length as usize))
        }
        _ => {
            skip_field(wire, number, from, DecodeContext::default()).map_err(wrong)?;
            Value::Other
        }
    };
    Ok(Some(Field { number, value }))
}

impl Field {
    fn number(self, message: &'static str) -> Result<i64, Status> {
        match self.value {
            Value::Number(number) => Ok(number as i64),
            _ => Err(malformed(message)),
        }
    }

    fn flag(self, message: &'static str) -> Result<bool, Status> {
        self.number(message).map(|number| number != 0)
    }

    fn bytes(self, message: &'static str) -> Result<Bytes, Status> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(malformed(message)),
        }
    }
}

/// A range request. Its key is checked before its sort options, as upstream does.
///
/// # Errors
/// Malformed bytes, an empty key, a sort option that does not exist.
pub(crate) fn range(body: Bytes) -> Result<RangeRequest, Status> {
    let (range, sort) = range_fields(body)?;
    range.validate()?;
    sorted(range, sort)
}

fn sorted(mut range: RangeRequest, (order, target): (i64, i64)) -> Result<RangeRequest, Status> {
    let number = |number| i32::try_from(number).unwrap_or(-1);
    range.sort_order = validate::sort_order(number(order))?;
    range.sort_target = validate::sort_target(number(target))?;
    Ok(range)
}

fn range_fields(mut from: Bytes) -> Result<(RangeRequest, (i64, i64)), Status> {
    const NAME: &str = "RangeRequest";
    let mut range = RangeRequest::default();
    let (mut order, mut target) = (0, 0);
    let (mut keys_only, mut count_only) = (false, false);
    while let Some(field) = next(&mut from, NAME)? {
        match field.number {
            1 => range.key = field.bytes(NAME)?,
            2 => range.range_end = field.bytes(NAME)?,
            3 => range.limit = field.number(NAME)?,
            4 => range.revision = field.number(NAME)?,
            5 => order = field.number(NAME)?,
            6 => target = field.number(NAME)?,
            7 => range.serializable = field.flag(NAME)?,
            8 => keys_only = field.flag(NAME)?,
            9 => count_only = field.flag(NAME)?,
            10 => range.min_mod_revision = field.number(NAME)?,
            11 => range.max_mod_revision = field.number(NAME)?,
            12 => range.min_create_revision = field.number(NAME)?,
            13 => range.max_create_revision = field.number(NAME)?,
            _ => {}
        }
    }
    range.content = match (count_only, keys_only) {
        (true, _) => Content::CountOnly,
        (false, true) => Content::KeysOnly,
        (false, false) => Content::Full,
    };
    Ok((range, (order, target)))
}

/// A put, checked.
///
/// # Errors
/// Malformed bytes, and what [`Put::validate`] finds.
pub(crate) fn put(body: Bytes) -> Result<Put, Status> {
    let put = put_fields(body)?;
    put.validate()?;
    Ok(put)
}

fn put_fields(mut from: Bytes) -> Result<Put, Status> {
    const NAME: &str = "PutRequest";
    let mut put = Put::default();
    let mut flags = PutFlags::default();
    while let Some(field) = next(&mut from, NAME)? {
        match field.number {
            1 => put.key = field.bytes(NAME)?,
            2 => put.value = field.bytes(NAME)?,
            3 => put.lease = field.number(NAME)?,
            4 => flags.prev_kv = field.flag(NAME)?,
            5 => flags.ignore_value = field.flag(NAME)?,
            6 => flags.ignore_lease = field.flag(NAME)?,
            _ => {}
        }
    }
    put.flags = flags;
    Ok(put)
}

/// A deletion, checked.
///
/// # Errors
/// Malformed bytes, and an empty key.
pub(crate) fn delete_range(body: Bytes) -> Result<DeleteRange, Status> {
    let delete = delete_fields(body)?;
    delete.validate()?;
    Ok(delete)
}

fn delete_fields(mut from: Bytes) -> Result<DeleteRange, Status> {
    const NAME: &str = "DeleteRangeRequest";
    let mut delete = DeleteRange::default();
    while let Some(field) = next(&mut from, NAME)? {
        match field.number {
            1 => delete.key = field.bytes(NAME)?,
            2 => delete.range_end = field.bytes(NAME)?,
            3 => delete.prev_kv = field.flag(NAME)?,
            _ => {}
        }
    }
    Ok(delete)
}

/// A transaction, checked; each level may have what `ops_max` and the levels around it leave.
///
/// # Errors
/// Malformed bytes, and what [`Txn::validate`] finds.
pub(crate) fn txn(body: Bytes, ops_max: usize) -> Result<Txn, Status> {
    let txn = txn_fields(body, 1)?;
    txn.validate(ops_max)?;
    Ok(txn)
}

fn txn_fields(mut from: Bytes, depth: usize) -> Result<Txn, Status> {
    const NAME: &str = "TxnRequest";
    // One level more than the store allows is let through, so that it can say what is wrong in its own order.
    if depth > TXN_DEPTH_MAX + 1 {
        return Err(status::too_many_ops());
    }
    let mut txn = Txn::default();
    while let Some(field) = next(&mut from, NAME)? {
        match field.number {
            1 => txn.compare.push(compare(field.bytes(NAME)?)?),
            2 => txn.success.push(request_op(field.bytes(NAME)?, depth)?),
            3 => txn.failure.push(request_op(field.bytes(NAME)?, depth)?),
            _ => {}
        }
    }
    Ok(txn)
}

fn request_op(mut from: Bytes, depth: usize) -> Result<TxnOp, Status> {
    const NAME: &str = "RequestOp";
    let mut op = TxnOp::Empty;
    while let Some(field) = next(&mut from, NAME)? {
        op = match field.number {
            1 => {
                let (range, sort) = range_fields(field.bytes(NAME)?)?;
                // An empty key is found in its turn, with all other keys of the transaction.
                TxnOp::Range(if range.key.is_empty() { range } else { sorted(range, sort)? })
            }
            2 => TxnOp::Put(put_fields(field.bytes(NAME)?)?),
            3 => TxnOp::DeleteRange(delete_fields(field.bytes(NAME)?)?),
            4 => TxnOp::Txn(txn_fields(field.bytes(NAME)?, depth + 1)?),
            _ => continue,
        };
    }
    Ok(op)
}

fn compare(mut from: Bytes) -> Result<Compare, Status> {
    const NAME: &str = "Compare";
    let (mut result, mut target) = (0, 0);
    let (mut key, mut range_end) = (Bytes::new(), Bytes::new());
    // The given side, and the field that it came in: a field that does not belong to the target counts as absent.
    let (mut number, mut number_field) = (0, 0);
    let mut value = Bytes::new();
    while let Some(field) = next(&mut from, NAME)? {
        match field.number {
            1 => result = field.number(NAME)?,
            2 => target = field.number(NAME)?,
            3 => key = field.bytes(NAME)?,
            at @ (4 | 5 | 6 | 8) => {
                (number, number_field) = (field.number(NAME)?, at);
                value = Bytes::new();
            }
            7 => {
                value = field.bytes(NAME)?;
                number_field = 7;
            }
            64 => range_end = field.bytes(NAME)?,
            _ => {}
        }
    }
    let given = |field| if number_field == field { number } else { 0 };
    let target = match target {
        0 => CompareTarget::Version(given(4)),
        1 => CompareTarget::Create(given(5)),
        2 => CompareTarget::Mod(given(6)),
        3 => CompareTarget::Value(value),
        4 => CompareTarget::Lease(given(8)),
        _ => {
            return Err(Status::new(
                Code::InvalidArgument,
                "etcdserver: unknown compare target in txn request",
            ));
        }
    };
    let result = match result {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        _ => CompareResult::Unknown,
    };
    Ok(Compare { key, range_end, result, target })
}
