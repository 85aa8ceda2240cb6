//! Operations in words: "process 4 read x=1", "process 2's write of x=2".

use crate::history::{Access, AccessKind, Call, Datum, History, Operation, Outcome, Reply, Value};

/// How many characters of a value are spelt out.
const VALUE_CHARACTERS_MAX: usize = 40;

/// Who did an operation: "process 4".
pub fn who(history: &History, operation: &Operation) -> String {
    format!("process {}", history.process(operation.process))
}

/// What was done, for a sentence with a subject: "read x=1", "wrote x=2", "replaced x=1 by 2".
///
/// ```
/// use synod_check::{explain::words, generate::Script};
///
/// let history = Script::new().write("4", "x", 1).cas("4", "x", 1, 2).history();
/// assert_eq!(words::did(&history, &history.operations[0]), "wrote x=1");
/// assert_eq!(words::did(&history, &history.operations[1]), "replaced x=1 by 2");
/// ```
pub fn did(history: &History, operation: &Operation) -> String {
    let key = history.key(operation.key);
    let value = |value: &Value| short(history.value(*value));
    let what = match (&operation.call, operation.reply()) {
        (Call::Read, Some(reply)) => format!("read {key}={}", answer(history, reply)),
        (Call::Read, None) => format!("called read {key}"),
        (Call::Write(new), _) => format!("wrote {key}={}", value(new)),
        (Call::Cas { expected, new }, Some(Reply::Flag(false))) => {
            format!("failed to replace {key}={} by {}", value(expected), value(new))
        }
        (Call::Cas { expected, new }, _) => format!("replaced {key}={} by {}", value(expected), value(new)),
        (Call::Delete, _) => format!("deleted {key}"),
        (Call::Append(new), _) => format!("appended {} to {key}", value(new)),
        (Call::Add(new), _) => format!("added {} to {key}", value(new)),
        (Call::Remove(old), _) => format!("removed {} from {key}", value(old)),
        (Call::Increment(by), _) => format!("incremented {key} by {by}"),
        (Call::Enqueue(new), _) => format!("enqueued {} in {key}", value(new)),
        (Call::Dequeue, Some(reply)) => format!("dequeued {} from {key}", answer(history, reply)),
        (Call::Dequeue, None) => format!("called dequeue {key}"),
        (Call::Acquire, Some(reply @ Reply::Number(_))) => {
            format!("acquired {key} with token {}", answer(history, reply))
        }
        (Call::Acquire, _) => format!("acquired {key}"),
        (Call::Release, _) => format!("released {key}"),
        (Call::Transfer(transfer), _) => format!(
            "transferred {} from {} to {}",
            transfer.amount,
            history.key(transfer.from),
            history.key(transfer.to)
        ),
        (Call::Txn(_), Some(Reply::Txn(accesses))) => format!("did {}", accesses_of(history, accesses)),
        (Call::Txn(accesses), _) => format!("did {}", accesses_of(history, accesses)),
        (Call::Etcd(request), reply) => clip(&spell_etcd(history, request, reply)),
    };
    match operation.outcome {
        Outcome::Ok(_) => what,
        Outcome::Failed => format!("{what} (failed)"),
        Outcome::Unknown => format!("{what} (outcome unknown)"),
    }
}

/// The operation as a thing: "process 2's write of x=2".
pub fn the(history: &History, operation: &Operation) -> String {
    let key = history.key(operation.key);
    let whose = format!("{}'s", who(history, operation));
    match (&operation.call, operation.reply()) {
        (Call::Read, Some(reply)) => format!("{whose} read of {key}={}", answer(history, reply)),
        (Call::Write(value), _) => format!("{whose} write of {key}={}", short(history.value(*value))),
        (Call::Delete, _) => format!("{whose} deletion of {key}"),
        (Call::Cas { expected, new }, _) => {
            format!(
                "{whose} replacing {key}={} by {}",
                short(history.value(*expected)),
                short(history.value(*new))
            )
        }
        (Call::Append(value), _) => format!("{whose} append of {} to {key}", short(history.value(*value))),
        (Call::Add(value), _) => format!("{whose} addition of {} to {key}", short(history.value(*value))),
        (Call::Enqueue(value), _) => {
            format!("{whose} enqueuing of {} in {key}", short(history.value(*value)))
        }
        _ => format!("{whose} operation ({})", did(history, operation)),
    }
}

fn answer(history: &History, reply: &Reply) -> String {
    let listed = |values: &[Value]| {
        let values: Vec<String> = values.iter().take(8).map(|value| short(history.value(*value))).collect();
        values.join(" ")
    };
    match reply {
        Reply::Done => "done".to_string(),
        Reply::Value(value) => short(history.value(*value)),
        Reply::Flag(flag) => flag.to_string(),
        Reply::Number(number) => number.to_string(),
        Reply::Values(values) if values.len() > 8 => {
            format!("[{} and {} more]", listed(values), values.len() - 8)
        }
        Reply::Values(values) => format!("[{}]", listed(values)),
        Reply::Balances(balances) => {
            let balances: Vec<String> = balances
                .iter()
                .take(8)
                .map(|(key, amount)| format!("{}: {amount}", history.key(*key)))
                .collect();
            clip(&format!("{{{}}}", balances.join(", ")))
        }
        Reply::Txn(accesses) => accesses_of(history, accesses),
        Reply::Etcd(_) => "an answer".to_string(),
    }
}

fn accesses_of(history: &History, accesses: &[Access]) -> String {
    let one = |access: &Access| {
        let key = history.key(access.key);
        match &access.kind {
            AccessKind::Read(None) | AccessKind::ReadList(None) => format!("read {key}"),
            AccessKind::Read(Some(value)) => format!("read {key}={}", short(history.value(*value))),
            AccessKind::Write(value) => format!("write {key}={}", short(history.value(*value))),
            AccessKind::Append(value) => format!("append {} to {key}", short(history.value(*value))),
            AccessKind::ReadList(Some(values)) => {
                let values: Vec<String> =
                    values.iter().map(|value| history.value(*value).to_string()).collect();
                format!("read {key}=[{}]", clip(&values.join(" ")))
            }
        }
    };
    accesses.iter().map(one).collect::<Vec<String>>().join(", ")
}

/// Requests of etcd's store: the kind, the keys that are named, and the revision that was answered.
fn spell_etcd(history: &History, request: &crate::etcd::Request, reply: Option<&Reply>) -> String {
    use crate::etcd::{ReplyBody, Request};
    let key = |key| history.key(key);
    let what = match request {
        Request::Range(range) => {
            let found = match reply {
                Some(Reply::Etcd(reply)) => match &reply.body {
                    ReplyBody::Range(found) => match &*found.pairs {
                        [] => " (nothing there)".to_string(),
                        [pair] => format!("={}", short(history.value(pair.value))),
                        pairs => format!(" ({} pairs)", pairs.len()),
                    },
                    _ => String::new(),
                },
                _ => String::new(),
            };
            format!("read {}{found}", key(range.key))
        }
        Request::Put(put) => format!("wrote {}={}", key(put.key), short(history.value(put.value))),
        Request::Delete(delete) => format!("deleted {}", key(delete.key)),
        Request::Txn(txn) => {
            format!("did a transaction of {} operations", txn.then.len() + txn.otherwise.len())
        }
        Request::LeaseGrant { id, .. } => format!("was granted lease {id}"),
        Request::LeaseRevoke { id } => format!("revoked lease {id}"),
        Request::LeaseKeepAlive { id } => format!("kept lease {id} alive"),
        Request::Compact { revision } => format!("compacted up to revision {revision}"),
        _ => "made another request".to_string(),
    };
    match reply {
        Some(Reply::Etcd(reply)) if reply.revision > 0 => format!("{what} at revision {}", reply.revision),
        _ => what,
    }
}

fn short(datum: &Datum) -> String {
    clip(&datum.to_string())
}

fn clip(text: &str) -> String {
    if text.chars().count() <= VALUE_CHARACTERS_MAX {
        return text.to_string();
    }
    let head: String = text.chars().take(VALUE_CHARACTERS_MAX - 1).collect();
    format!("{head}…")
}
