//! Operations on etcd's store and watch streams in our JSON lines.
//!
//! `{"process":1,"start":5,"end":9,"request":{"put":{"key":"a","value":"1"}},"reply":{"revision":2}}`. Requests are named
//! after etcd's: `range`, `put`, `delete`, `txn`, `lease_grant`, `lease_revoke`, `keep_alive`, `compact`, `other`. What a
//! reply does not say is not judged. `docs/history-format.md` lists every field.

use super::datum;
use super::form::{Form, Malformed};
use super::operation::Hints;
use crate::builder::Builder;
use crate::etcd::*;
use crate::history::{Datum, Key, Value};

fn key(builder: &mut Builder, map: &Form<'_>) -> Result<Key, Malformed> {
    let key = map.get_some("key").ok_or_else(|| map.expected("a \"key\""))?;
    Ok(builder.key(Datum::text(datum(key).to_string())))
}

fn value(builder: &mut Builder, map: &Form<'_>) -> Value {
    let value = map.get("value").map_or(Datum::Nil, datum);
    builder.value(value)
}

fn number(map: &Form<'_>, name: &str, default: i64) -> Result<i64, Malformed> {
    match map.get_some(name) {
        None => Ok(default),
        Some(form) => form.int().ok_or_else(|| form.expected(format!("a whole number as \"{name}\""))),
    }
}

fn flag(map: &Form<'_>, name: &str) -> Result<Option<bool>, Malformed> {
    match map.get_some(name) {
        None => Ok(None),
        Some(form) => {
            form.bool().map(Some).ok_or_else(|| form.expected(format!("true or false as \"{name}\"")))
        }
    }
}

fn end(builder: &mut Builder, map: &Form<'_>) -> RangeEnd {
    match map.get_some("end").map(datum) {
        None => RangeEnd::Single,
        Some(end) => match end.to_string() {
            end if end == "\0" => RangeEnd::Open,
            end if end.is_empty() => RangeEnd::Single,
            end => RangeEnd::Until(builder.key(Datum::text(end))),
        },
    }
}

fn range(builder: &mut Builder, map: &Form<'_>) -> Result<Range, Malformed> {
    Ok(Range {
        key: key(builder, map)?,
        end: end(builder, map),
        revision: number(map, "revision", 0)?,
        limit: number(map, "limit", 0)?,
        serializable: flag(map, "serializable")?.unwrap_or(false),
    })
}

fn put(builder: &mut Builder, map: &Form<'_>) -> Result<Put, Malformed> {
    Ok(Put { key: key(builder, map)?, value: value(builder, map), lease: number(map, "lease", 0)? })
}

fn delete(builder: &mut Builder, map: &Form<'_>) -> Result<DeleteRange, Malformed> {
    Ok(DeleteRange { key: key(builder, map)?, end: end(builder, map) })
}

/// The one entry of an object like `{"put": {..}}`.
fn only<'f, 'a>(form: &'f Form<'a>, what: &'static str) -> Result<(&'f str, &'f Form<'a>), Malformed> {
    match form.map() {
        Some([(name, inner)]) => Ok((name.name().unwrap_or_default(), inner)),
        _ => Err(form.expected(what)),
    }
}

const REQUESTS: &str = "a request: {\"range\"|\"put\"|\"delete\"|\"txn\"|\"lease_grant\"|\"lease_revoke\"|\"keep_alive\"|\"compact\"|\"other\": {..}}";

/// A request.
pub(super) fn request(builder: &mut Builder, form: &Form<'_>) -> Result<Request, Malformed> {
    let (name, inner) = only(form, REQUESTS)?;
    Ok(match name {
        "range" => Request::Range(range(builder, inner)?),
        "put" => Request::Put(put(builder, inner)?),
        "delete" => Request::Delete(delete(builder, inner)?),
        "txn" => Request::Txn(Txn {
            compares: list(inner, "compare")?
                .iter()
                .map(|form| compare(builder, form))
                .collect::<Result<_, _>>()?,
            then: list(inner, "then")?.iter().map(|form| txn_op(builder, form)).collect::<Result<_, _>>()?,
            otherwise: list(inner, "else")?
                .iter()
                .map(|form| txn_op(builder, form))
                .collect::<Result<_, _>>()?,
        }),
        "lease_grant" => Request::LeaseGrant { id: number(inner, "id", 0)?, ttl: number(inner, "ttl", 0)? },
        "lease_revoke" => Request::LeaseRevoke { id: number(inner, "id", 0)? },
        "keep_alive" => Request::LeaseKeepAlive { id: number(inner, "id", 0)? },
        "compact" => Request::Compact { revision: number(inner, "revision", 0)? },
        "other" => Request::Other,
        _ => return Err(form.expected(REQUESTS)),
    })
}

fn list<'f, 'a>(map: &'f Form<'a>, name: &str) -> Result<&'f [Form<'a>], Malformed> {
    match map.get_some(name) {
        None => Ok(&[]),
        Some(form) => form.seq().ok_or_else(|| form.expected(format!("an array as \"{name}\""))),
    }
}

fn txn_op(builder: &mut Builder, form: &Form<'_>) -> Result<TxnOp, Malformed> {
    let what = "{\"range\"|\"put\"|\"delete\": {..}}";
    let (name, inner) = only(form, what)?;
    Ok(match name {
        "range" => TxnOp::Range(range(builder, inner)?),
        "put" => TxnOp::Put(put(builder, inner)?),
        "delete" => TxnOp::Delete(delete(builder, inner)?),
        _ => return Err(form.expected(what)),
    })
}

fn compare(builder: &mut Builder, form: &Form<'_>) -> Result<Compare, Malformed> {
    let key = key(builder, form)?;
    let to = form.get("to").ok_or_else(|| form.expected("\"to\": what is compared with"))?;
    let whole = || to.int().ok_or_else(|| to.expected("a whole number"));
    let target = match form.get("target").and_then(Form::name) {
        Some("version") => CompareTarget::Version(whole()?),
        Some("create") => CompareTarget::Create(whole()?),
        Some("mod") => CompareTarget::Mod(whole()?),
        Some("lease") => CompareTarget::Lease(whole()?),
        Some("value") => CompareTarget::Value(builder.value(datum(to))),
        _ => return Err(form.expected("\"target\": version, create, mod, value or lease")),
    };
    let result = match form.get("result").and_then(Form::name) {
        None | Some("=") => CompareResult::Equal,
        Some("!=") => CompareResult::NotEqual,
        Some(">") => CompareResult::Greater,
        Some("<") => CompareResult::Less,
        Some(_) => return Err(form.expected("\"result\": =, !=, > or <")),
    };
    Ok(Compare { key, target, result })
}

fn pair(builder: &mut Builder, form: &Form<'_>) -> Result<KeyValue, Malformed> {
    Ok(KeyValue {
        key: key(builder, form)?,
        value: value(builder, form),
        create: number(form, "create", UNRECORDED)?,
        modified: number(form, "mod", UNRECORDED)?,
        version: number(form, "version", UNRECORDED)?,
        lease: number(form, "lease", UNRECORDED)?,
    })
}

fn range_reply(builder: &mut Builder, form: &Form<'_>) -> Result<RangeReply, Malformed> {
    let pairs = list(form, "pairs")?.iter().map(|form| pair(builder, form)).collect::<Result<_, _>>()?;
    Ok(RangeReply { pairs, count: number(form, "count", UNRECORDED)? })
}

/// A reply to `request`.
pub(super) fn reply(builder: &mut Builder, form: &Form<'_>, request: &Request) -> Result<Reply, Malformed> {
    let revision = number(form, "revision", 0)?;
    if let Some(error) = form.get_some("error") {
        let body = match error.name() {
            Some("compacted") => ReplyBody::Compacted,
            Some("future") => ReplyBody::FutureRevision,
            Some("lease") => ReplyBody::LeaseRefused,
            _ => return Err(error.expected("\"compacted\", \"future\" or \"lease\" as the error")),
        };
        return Ok(Reply { revision, body });
    }
    let body = match request {
        Request::Range(_) if form.get("pairs").is_some() || form.get("count").is_some() => {
            ReplyBody::Range(range_reply(builder, form)?)
        }
        Request::Delete(_) => ReplyBody::Deleted(number(form, "deleted", UNRECORDED)?),
        Request::Txn(_) => {
            let replies = list(form, "replies")?.iter().map(|form| {
                let what = "{\"range\"|\"put\"|\"delete\": {..}}";
                let (name, inner) = only(form, what)?;
                Ok(match name {
                    "range" => TxnReply::Range(range_reply(builder, inner)?),
                    "put" => TxnReply::Put,
                    "delete" => TxnReply::Deleted(number(inner, "deleted", UNRECORDED)?),
                    _ => return Err(form.expected(what)),
                })
            });
            ReplyBody::Txn {
                replies: replies.collect::<Result<_, _>>()?,
                succeeded: flag(form, "succeeded")?,
            }
        }
        _ => ReplyBody::Nothing,
    };
    Ok(Reply { revision, body })
}

/// A recorded watch stream.
pub(super) fn watch(
    builder: &mut Builder,
    hints: &mut Hints,
    form: &Form<'_>,
    line: u32,
) -> Result<(), Malformed> {
    hints.etcd = true;
    let request = form.get("watch").ok_or_else(|| form.expected("\"watch\""))?;
    let stream = WatchStream {
        client: number(request, "client", 0)?,
        key: key(builder, request)?,
        end: end(builder, request),
        revision: number(request, "revision", 0)?,
        progress: if flag(request, "progress")?.unwrap_or(false) {
            Progress::Wanted
        } else {
            Progress::NotWanted
        },
        previous: if flag(request, "previous")?.unwrap_or(false) {
            Previous::Wanted
        } else {
            Previous::NotWanted
        },
        responses: list(form, "responses")?
            .iter()
            .map(|form| response(builder, form))
            .collect::<Result<_, _>>()?,
        line,
    };
    builder.history_mut().watches.push(stream);
    Ok(())
}

fn response(builder: &mut Builder, form: &Form<'_>) -> Result<WatchResponse, Malformed> {
    let progress = flag(form, "progress")?.unwrap_or(false);
    Ok(WatchResponse {
        events: list(form, "events")?.iter().map(|form| event(builder, form)).collect::<Result<_, _>>()?,
        revision: number(form, "revision", 0)?,
        kind: if progress { ResponseKind::Progress } else { ResponseKind::Events },
        time: number(form, "time", 0)?,
        error: form.get_some("error").map(|error| datum(error).to_string().into()).unwrap_or_default(),
    })
}

fn event(builder: &mut Builder, form: &Form<'_>) -> Result<WatchEvent, Malformed> {
    let key = key(builder, form)?;
    let change = match form.get("type").and_then(Form::name) {
        Some("put") => Change::Put(value(builder, form)),
        Some("delete") => Change::Delete,
        _ => return Err(form.expected("\"type\": put or delete")),
    };
    let previous = match form.get("previous") {
        None => None,
        Some(form) if form.map().is_none() => Some(None),
        Some(form) => {
            let mut pair = pair_without_key(builder, form)?;
            pair.key = key;
            Some(Some(pair))
        }
    };
    Ok(WatchEvent {
        key,
        change,
        revision: number(form, "revision", 0)?,
        created: flag(form, "created")?,
        previous,
    })
}

fn pair_without_key(builder: &mut Builder, form: &Form<'_>) -> Result<KeyValue, Malformed> {
    Ok(KeyValue {
        key: Key(0),
        value: value(builder, form),
        create: number(form, "create", UNRECORDED)?,
        modified: number(form, "mod", UNRECORDED)?,
        version: number(form, "version", UNRECORDED)?,
        lease: number(form, "lease", UNRECORDED)?,
    })
}
