//! One operation as a map says it: `f`, `key`, `value` become a [`Call`] and, when it completed, a [`Reply`].
//!
//! The words are Jepsen's, with the spellings that other tools use beside them. What a word means can depend on the whole
//! history (`add` on a set or on a counter), so importers also collect [`Hints`] and settle such things at the end.

use super::datum;
use super::form::{Form, Kind, Malformed};
use crate::builder::Builder;
use crate::history::*;

/// What the operations seen so far say about the model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hints {
    pub(super) text_appends: bool,
    pub(super) list_appends: bool,
    pub(super) transactions: bool,
    pub(super) transfers: bool,
    pub(super) queue: bool,
    pub(super) mutex: bool,
    pub(super) adds: bool,
    pub(super) increments: bool,
    pub(super) collections: bool,
    pub(super) balances: bool,
    pub(super) etcd: bool,
}

impl Hints {
    /// The model that fits.
    pub(super) fn model(&self) -> ModelKind {
        match () {
            () if self.etcd => ModelKind::Etcd,
            () if self.transfers || self.balances => ModelKind::Bank,
            () if self.list_appends => ModelKind::ListAppend,
            () if self.transactions => ModelKind::TxnRegister,
            () if self.queue => ModelKind::Queue,
            () if self.mutex => ModelKind::Mutex,
            () if self.increments || (self.adds && !self.collections) => ModelKind::Counter,
            () if self.adds => ModelKind::Set,
            () if self.text_appends => ModelKind::KeyValue,
            () => ModelKind::Register,
        }
    }
}

/// What an operation asks, of which key.
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) call: Call,
}

/// A key that operations without one are about.
pub(super) fn only_key(builder: &mut Builder) -> Key {
    builder.key(Datum::text("register"))
}

/// The value of a map's `value`, with an independent key's tuple `[key value]` taken apart.
pub(super) fn keyed<'f, 'a>(map: &'f Form<'a>, f: &str) -> (Option<&'f Form<'a>>, Option<&'f Form<'a>>) {
    let value = map.get("value");
    if let Some(key) = map.get_some("key") {
        return (Some(key), value);
    }
    let tuple = value.and_then(Form::seq).filter(|parts| parts.len() == 2);
    match (tuple, f) {
        // A bare pair is a compare-and-set's two values; with an independent key the pair is inside another.
        (Some([key, inner]), "cas") if matches!(inner.kind, Kind::Seq(_)) => (Some(key), Some(inner)),
        (
            Some([key, inner]),
            "read" | "r" | "write" | "w" | "get" | "put" | "delete" | "append" | "dequeue" | "enqueue",
        ) if !matches!(key.kind, Kind::Seq(_) | Kind::Map(_)) && !matches!(inner.kind, Kind::Seq(_)) => {
            (Some(key), Some(inner))
        }
        _ => (None, value),
    }
}

/// Reads `f` and `value` as a call.
pub(super) fn asked(
    builder: &mut Builder,
    hints: &mut Hints,
    map: &Form<'_>,
    f: &Form<'_>,
) -> Result<Asked, Malformed> {
    let name = f.name().ok_or_else(|| f.expected("the name of a function (read, write, cas, ..)"))?;
    let (key, value) = keyed(map, name);
    let key = match key {
        Some(key) => builder.key(datum(key)),
        None => only_key(builder),
    };
    let need = || value.ok_or_else(|| map.expected(format!("a value for {name}")));
    let call = match name {
        "read" | "r" | "get" | "final-read" => Call::Read,
        "write" | "w" | "put" | "set" => Call::Write(builder.value(datum(need()?))),
        "delete" | "del" => Call::Delete,
        "cas" | "compare-and-set" => match need()?.seq() {
            Some([expected, new]) => {
                Call::Cas { expected: builder.value(datum(expected)), new: builder.value(datum(new)) }
            }
            _ => return Err(need()?.expected("two values [expected new] for cas")),
        },
        "append" => {
            hints.text_appends = true;
            Call::Append(builder.value(datum(need()?)))
        }
        "add" => {
            hints.adds = true;
            Call::Add(builder.value(datum(need()?)))
        }
        "remove" => {
            hints.adds = true;
            hints.collections = true;
            Call::Remove(builder.value(datum(need()?)))
        }
        "increment" | "inc" | "incr" | "decrement" | "dec" | "decr" => {
            hints.increments = true;
            let by = value.and_then(Form::int).unwrap_or(1);
            Call::Increment(if name.starts_with('d') { by.saturating_neg() } else { by })
        }
        "enqueue" => {
            hints.queue = true;
            Call::Enqueue(builder.value(datum(need()?)))
        }
        "dequeue" | "drain" => {
            hints.queue = true;
            Call::Dequeue
        }
        "acquire" | "lock" => {
            hints.mutex = true;
            Call::Acquire
        }
        "release" | "unlock" => {
            hints.mutex = true;
            Call::Release
        }
        "transfer" => {
            hints.transfers = true;
            let transfer = need()?;
            let part = |name: &str| {
                transfer.get(name).ok_or_else(|| transfer.expected("{from, to, amount} for transfer"))
            };
            let amount =
                part("amount")?.int().ok_or_else(|| transfer.expected("a whole number as amount"))?;
            let (from, to) = (datum(part("from")?), datum(part("to")?));
            Call::Transfer(Box::new(Transfer { from: builder.key(from), to: builder.key(to), amount }))
        }
        "txn" => Call::Txn(accesses(builder, hints, need()?)?),
        _ => {
            return Err(f.expected(format!(
                "a known function instead of {name:?}: read, write, cas, delete, append, add, remove, increment, enqueue, \
                 dequeue, acquire, release, transfer or txn"
            )));
        }
    };
    Ok(Asked { key, call })
}

/// Reads the `value` of a completed operation as its reply.
pub(super) fn answered(
    builder: &mut Builder,
    hints: &mut Hints,
    map: &Form<'_>,
    f: &str,
    call: &Call,
) -> Result<Reply, Malformed> {
    let (_, value) = keyed(map, f);
    Ok(match call {
        Call::Read => match value.map(|value| &value.kind) {
            None => Reply::Value(Value::NIL),
            Some(Kind::Seq(members)) => {
                hints.collections = true;
                Reply::Values(members.iter().map(|member| builder.value(datum(member))).collect())
            }
            Some(Kind::Map(pairs)) => {
                hints.balances = true;
                Reply::Balances(balances(builder, pairs)?)
            }
            Some(_) => Reply::Value(builder.value(value.map_or(Datum::Nil, datum))),
        },
        Call::Dequeue => match value.map(|value| &value.kind) {
            None | Some(Kind::Nil) => Reply::Value(Value::NIL),
            Some(Kind::Seq(taken)) => {
                Reply::Values(taken.iter().map(|member| builder.value(datum(member))).collect())
            }
            Some(_) => Reply::Value(builder.value(value.map_or(Datum::Nil, datum))),
        },
        Call::Acquire => match value.map(|value| &value.kind) {
            Some(Kind::Int(token)) => Reply::Number(*token),
            Some(Kind::Bool(taken)) => Reply::Flag(*taken),
            _ => Reply::Done,
        },
        Call::Txn(asked) => match value.filter(|value| value.kind != Kind::Nil) {
            Some(value) => Reply::Txn(accesses(builder, hints, value)?),
            None => Reply::Txn(asked.clone()),
        },
        _ => Reply::Done,
    })
}

fn balances(builder: &mut Builder, pairs: &[(Form<'_>, Form<'_>)]) -> Result<Box<[(Key, i64)]>, Malformed> {
    pairs
        .iter()
        .map(|(account, balance)| {
            let number = balance.int().ok_or_else(|| balance.expected("a balance as a whole number"))?;
            Ok((builder.key(datum(account)), number))
        })
        .collect()
}

/// Reads the accesses of a transaction: `[[:append x 1] [:r x [1]] [:w y 2]]`.
pub(super) fn accesses(
    builder: &mut Builder,
    hints: &mut Hints,
    value: &Form<'_>,
) -> Result<Box<[Access]>, Malformed> {
    hints.transactions = true;
    let what = "accesses [[f key value] ..], with f one of r, w, append";
    let accesses = value.seq().ok_or_else(|| value.expected(what))?;
    accesses
        .iter()
        .map(|access| {
            let Some([f, key, value]) = access.seq() else { return Err(access.expected(what)) };
            let key = builder.key(datum(key));
            let kind = match (f.name(), &value.kind) {
                (Some("r" | "read"), Kind::Nil) => AccessKind::Read(None),
                (Some("r" | "read"), Kind::Seq(members)) => {
                    hints.list_appends = true;
                    AccessKind::ReadList(Some(
                        members.iter().map(|member| builder.value(datum(member))).collect(),
                    ))
                }
                (Some("r" | "read"), _) => AccessKind::Read(Some(builder.value(datum(value)))),
                (Some("w" | "write"), _) => AccessKind::Write(builder.value(datum(value))),
                (Some("append"), _) => {
                    hints.list_appends = true;
                    AccessKind::Append(builder.value(datum(value)))
                }
                _ => return Err(f.expected("r, w or append")),
            };
            Ok(Access { key, kind })
        })
        .collect()
}

/// Settles, now that all operations are known, what could not be told one by one.
pub(super) fn settle(history: &mut History, hints: &Hints, model: Option<ModelKind>, initial: Option<Datum>) {
    history.model = model.unwrap_or_else(|| hints.model());
    if let Some(initial) = initial {
        history.initial = Value(history.values.intern(initial));
    }
    if model.is_none() && history.model == ModelKind::TxnRegister {
        as_registers(history);
    }
    match history.model {
        ModelKind::Counter => as_counter(history),
        ModelKind::KeyValue => as_texts(history),
        ModelKind::ListAppend => as_lists(history),
        ModelKind::Set => as_sets(history),
        _ => {}
    }
}

/// Transactions of one access each are plain operations on registers, which more checkers understand.
fn as_registers(history: &mut History) {
    let one = |operation: &Operation| matches!(&operation.call, Call::Txn(accesses) if accesses.len() == 1);
    if history.operations.is_empty() || !history.operations.iter().all(one) {
        return;
    }
    history.model = ModelKind::Register;
    for operation in &mut history.operations {
        let read = match &operation.outcome {
            Outcome::Ok(Reply::Txn(accesses)) => match accesses.first().map(|access| &access.kind) {
                Some(AccessKind::Read(Some(value))) => Reply::Value(*value),
                Some(AccessKind::Read(None)) => Reply::Value(Value::NIL),
                _ => Reply::Done,
            },
            _ => Reply::Done,
        };
        let Call::Txn(accesses) = &operation.call else { continue };
        let Some(access) = accesses.first() else { continue };
        operation.key = access.key;
        operation.call = match access.kind {
            AccessKind::Write(value) => Call::Write(value),
            _ => Call::Read,
        };
        if operation.is_ok() {
            operation.outcome = Outcome::Ok(read);
        }
    }
}

/// `add 3` means increment, and reads are numbers.
fn as_counter(history: &mut History) {
    let values = &history.values;
    for operation in &mut history.operations {
        if let Call::Add(value) = operation.call
            && let Datum::Int(by) = values.get(value.0)
        {
            operation.call = Call::Increment(*by);
        }
        if let Outcome::Ok(Reply::Value(value)) = operation.outcome {
            operation.outcome = Outcome::Ok(match values.get(value.0) {
                Datum::Int(number) => Reply::Number(*number),
                _ => Reply::Done,
            });
        }
    }
}

/// A key that is not there reads as the empty text.
fn as_texts(history: &mut History) {
    let empty = Value(history.values.intern(Datum::text("")));
    if history.initial == Value::NIL {
        history.initial = empty;
    }
    for operation in &mut history.operations {
        if operation.outcome == Outcome::Ok(Reply::Value(Value::NIL)) {
            operation.outcome = Outcome::Ok(Reply::Value(empty));
        }
    }
}

/// A nil read of a list in a completed transaction is the empty list.
fn as_lists(history: &mut History) {
    for operation in &mut history.operations {
        if let Outcome::Ok(Reply::Txn(accesses)) = &mut operation.outcome {
            for access in accesses.iter_mut().filter(|access| access.kind == AccessKind::Read(None)) {
                access.kind = AccessKind::ReadList(Some(Box::default()));
            }
        }
    }
}

/// A nil read of a set says nothing: Jepsen's sets answer nil when nobody could be asked.
fn as_sets(history: &mut History) {
    for operation in &mut history.operations {
        if operation.outcome == Outcome::Ok(Reply::Value(Value::NIL)) {
            operation.outcome = Outcome::Ok(Reply::Done);
        }
    }
}
