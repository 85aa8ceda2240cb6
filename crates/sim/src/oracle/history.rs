//! What clients saw, judged by the checker for the level that the protocol promises.
//!
//! For a protocol with one order the history is told in the words of etcd's store, revisions and all, together with
//! what watchers heard; so the checker judges linearizability by revisions, the nine watch guarantees and the leases' timing. For
//! one without, it is a register for each key.

use synod_check::budget::Budget;
use synod_check::builder::Builder;
use synod_check::etcd::{
    Compare, CompareResult, CompareTarget, DeleteRange, KeyValue, Put, Range, RangeEnd, RangeReply,
    Reply as EtcdReply, ReplyBody, Request, Txn, TxnOp, TxnReply,
};
use synod_check::history::{Call, Datum, History, Key, ModelKind, Operation, Outcome, Process, Reply, Value};
use synod_check::verdict::{Level, Verdict};
use synod_core::Time;
use synod_kv::OpError;

use super::ledger::Broken;
use crate::client::{Ended, Record};
use crate::machine::{Answer, Ask, Pair, SCRAP_KEYS, Said};
use crate::watcher::Heard;

/// What a history is to be judged by.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    /// The level that was promised.
    pub level: Level,
    /// Whether the leases' timing can be judged by the world's clock.
    pub leases: LeaseTiming,
}

/// Whether clocks allow to judge leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseTiming {
    /// Clocks run alike.
    Judged,
    /// Some clock ran fast: leases ended early by that much, rightly.
    NotJudged,
}

/// What the checker made of a history that does not violate its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The level holds.
    Holds,
    /// The checker's budget ran out.
    Unknown,
}

/// Makes the checker's history of what clients and watchers remember.
#[must_use]
pub fn build(name: &str, records: &[Record], heard: &[Heard], model: ModelKind) -> History {
    let mut writer = Writer { builder: Builder::new(name, "synod-sim", model) };
    for (id, record) in records.iter().enumerate() {
        let told = if model == ModelKind::Etcd {
            Vec::from_iter(writer.etcd(record))
        } else {
            writer.registers(record)
        };
        for (key, call, outcome) in told {
            let process: Process = writer.builder.process(Datum::Int(i64::from(record.process)));
            writer.builder.push(Operation {
                process,
                key,
                call,
                outcome,
                invoked: record.invoked.0 as i64,
                completed: record.completed.0 as i64,
                id: id as u64,
                line: 0,
            });
        }
    }
    let streams = heard.iter().map(|heard| heard.stream(&mut writer.builder)).collect();
    writer.builder.history_mut().watches = streams;
    writer.builder.finish()
}

struct Writer {
    builder: Builder,
}

impl Writer {
    fn key(&mut self, key: u64) -> Key {
        self.builder.key(Datum::text(format!("k{key}")))
    }

    fn value(&mut self, value: u64) -> Value {
        self.builder.value(Datum::Int(value as i64))
    }

    fn optional(&mut self, value: Option<u64>) -> Value {
        value.map_or(Value::NIL, |value| self.value(value))
    }

    /// As registers, one for each key: a write of two keys is two writes, one after the other.
    fn registers(&mut self, record: &Record) -> Vec<(Key, Call, Outcome)> {
        match record.ask {
            Ask::Get { key } => vec![self.register(record, key, Call::Read)],
            // Nobody reads the scrap, so there is nothing to judge.
            Ask::Put { key, .. } | Ask::Delete { key } if key >= SCRAP_KEYS => Vec::new(),
            Ask::Put { key, value, .. } => {
                let call = Call::Write(self.value(value));
                vec![self.register(record, key, call)]
            }
            Ask::Delete { key } => vec![self.register(record, key, Call::Delete)],
            Ask::Both { first, second, value } => {
                let (one, other) = (Call::Write(self.value(value)), Call::Write(self.value(value + 1)));
                vec![self.register(record, first, one), self.register(record, second, other)]
            }
            _ => Vec::new(),
        }
    }

    fn register(&mut self, record: &Record, key: u64, call: Call) -> (Key, Call, Outcome) {
        let outcome = match record.ended {
            Ended::Said(Said { answer: Answer::Read(pair), .. }) => {
                Outcome::Ok(Reply::Value(self.optional(pair.map(|pair| pair.value))))
            }
            Ended::Said(Said { answer: Answer::Error(_), .. }) | Ended::Refused => Outcome::Failed,
            Ended::Said(_) => Outcome::Ok(Reply::Done),
            Ended::Unknown if call == Call::Read => Outcome::Failed,
            Ended::Unknown => Outcome::Unknown,
        };
        (self.key(key), call, outcome)
    }

    fn etcd(&mut self, record: &Record) -> Option<(Key, Call, Outcome)> {
        let range = |key| Range { key, end: RangeEnd::Single, revision: 0, limit: 0, serializable: false };
        let (key, request) = match record.ask {
            Ask::Get { key } => (key, Request::Range(range(self.key(key)))),
            Ask::Put { key, value, lease } => {
                (key, Request::Put(Put { key: self.key(key), value: self.value(value), lease }))
            }
            // What it read is not told here: it is the write that must be in its place, or nowhere.
            Ask::Look { key, value, .. } => {
                (key, Request::Put(Put { key: self.key(key), value: self.value(value), lease: 0 }))
            }
            Ask::Delete { key } => {
                (key, Request::Delete(DeleteRange { key: self.key(key), end: RangeEnd::Single }))
            }
            Ask::Swap { key, expected, value } => {
                let name = self.key(key);
                let target = CompareTarget::Value(self.value(expected));
                let then = TxnOp::Put(Put { key: name, value: self.value(value), lease: 0 });
                let txn = Txn {
                    compares: Box::new([Compare { key: name, target, result: CompareResult::Equal }]),
                    then: Box::new([then]),
                    otherwise: Box::new([TxnOp::Range(range(name))]),
                };
                (key, Request::Txn(txn))
            }
            Ask::Both { first, second, value } => {
                let mut put =
                    |key, value| TxnOp::Put(Put { key: self.key(key), value: self.value(value), lease: 0 });
                let then = Box::new([put(first, value), put(second, value + 1)]);
                (first, Request::Txn(Txn { compares: Box::new([]), then, otherwise: Box::new([]) }))
            }
            // Only where there is no single order, and so no such history.
            Ask::Sweep { .. } => return None,
            Ask::Compact { revision } => (0, Request::Compact { revision }),
            Ask::Grant { id, ttl } => (0, Request::LeaseGrant { id, ttl }),
            Ask::Revoke { id } => (0, Request::LeaseRevoke { id }),
            Ask::KeepAlive { id } => (0, Request::LeaseKeepAlive { id }),
        };
        let reads = matches!(record.ask, Ask::Get { .. } | Ask::KeepAlive { .. });
        let outcome = match record.ended {
            // A revocation that deletes nothing leaves no mark in the revisions: where among the reads at its
            // revision it belongs nobody can say, so the checker is left free to place it.
            Ended::Said(Said { answer: Answer::Done, .. }) if matches!(record.ask, Ask::Revoke { .. }) => {
                Outcome::Unknown
            }
            Ended::Said(Said { answer: Answer::Error(_), .. }) if matches!(record.ask, Ask::Look { .. }) => {
                Outcome::Failed
            }
            Ended::Said(said) => match self.reply(record.ask, said) {
                Some(reply) => Outcome::Ok(Reply::Etcd(Box::new(reply))),
                None => Outcome::Failed,
            },
            Ended::Refused => Outcome::Failed,
            // A read whose answer nobody saw tells nothing.
            Ended::Unknown if reads => Outcome::Failed,
            Ended::Unknown => Outcome::Unknown,
        };
        Some((self.key(key), Call::Etcd(Box::new(request)), outcome))
    }

    /// The reply; none when the store refused for a reason that the checker has no word for.
    fn reply(&mut self, ask: Ask, said: Said) -> Option<EtcdReply> {
        let body = match said.answer {
            Answer::Read(pair) => match ask {
                Ask::Get { key } => ReplyBody::Range(self.range(key, pair)),
                _ => ReplyBody::Nothing,
            },
            Answer::Deleted(count) => ReplyBody::Deleted(count),
            Answer::Swapped(Ok(())) => {
                ReplyBody::Txn { succeeded: Some(true), replies: Box::new([TxnReply::Put]) }
            }
            Answer::Swapped(Err(pair)) => {
                let Ask::Swap { key, .. } = ask else { return None };
                let reply = TxnReply::Range(self.range(key, pair));
                ReplyBody::Txn { succeeded: Some(false), replies: Box::new([reply]) }
            }
            Answer::Done if matches!(ask, Ask::Both { .. }) => {
                ReplyBody::Txn { succeeded: Some(true), replies: Box::new([TxnReply::Put, TxnReply::Put]) }
            }
            Answer::Done => ReplyBody::Nothing,
            Answer::Error(OpError::Compacted) => ReplyBody::Compacted,
            Answer::Error(OpError::FutureRevision) => ReplyBody::FutureRevision,
            Answer::Error(OpError::LeaseNotFound | OpError::LeaseExists) => ReplyBody::LeaseRefused,
            Answer::Error(_) => return None,
        };
        Some(EtcdReply { revision: said.revision, body })
    }

    fn range(&mut self, key: u64, pair: Option<Pair>) -> RangeReply {
        let pairs: Vec<KeyValue> = pair.into_iter().map(|pair| self.pair(key, pair)).collect();
        RangeReply { count: pairs.len() as i64, pairs: pairs.into() }
    }

    fn pair(&mut self, key: u64, pair: Pair) -> KeyValue {
        let Pair { value, create, modified, version, lease } = pair;
        KeyValue { key: self.key(key), value: self.value(value), create, modified, version, lease }
    }
}

/// Judges what clients and watchers remember.
///
/// # Errors
/// When the level or a guarantee is violated. A verdict of "unknown" is none: it is counted, and reported.
pub fn judge(name: &str, records: &[Record], heard: &[Heard], by: Judge) -> Result<Judged, Broken> {
    let model = if by.level == Level::Linearizable { ModelKind::Etcd } else { ModelKind::Register };
    let history = build(name, records, heard, model);
    let steps_max = 3_000_000.max(records.len() as u64 * 20);
    let memory_max = (1 << 30).max(records.len() * 8192);
    let budget = Budget { steps_max, memory_max, ..Budget::default() };
    let verdict = match by.level {
        Level::Linearizable => synod_check::linearizable::check(&history, &budget).0,
        Level::Sequential => synod_check::sequential::check(&history, &budget).0,
        Level::Eventual => synod_check::eventual::check(&history, &budget).0,
        _ => synod_check::causal::check(&history, &budget)
            .into_iter()
            .find(|(judged, ..)| *judged == by.level)
            .map_or_else(Verdict::holds, |(_, verdict, _)| verdict),
    };
    let judged = match verdict {
        Verdict::Holds(_) => Judged::Holds,
        Verdict::Unknown(_) => Judged::Unknown,
        Verdict::Violated(evidence) => {
            let shown: Vec<String> =
                evidence.operations.iter().take(6).map(|place| show(&history, records, *place)).collect();
            return Err((by.level.name(), format!("{}: {}", evidence.reason, shown.join("; "))));
        }
    };
    for finding in synod_check::watch::check(&history) {
        let is_timing = finding.guarantee == "lease-timing";
        if is_timing && by.leases == LeaseTiming::NotJudged {
            continue;
        }
        if let Verdict::Violated(evidence) = finding.verdict {
            return Err((
                if is_timing { "lease timing" } else { "watch" },
                format!("{}: {}", finding.guarantee, evidence.reason),
            ));
        }
    }
    Ok(judged)
}

fn show(history: &History, records: &[Record], place: u32) -> String {
    let operation = &history.operations[place as usize];
    match records.get(operation.id as usize) {
        Some(record) => show_record(record),
        None => format!("{:?}", operation.call),
    }
}

/// One line about an operation.
#[must_use]
pub fn show_record(record: &Record) -> String {
    let micros = |time: Time| time.0 / 1000;
    let ended = match record.ended {
        Ended::Said(said) => format!("{:?} at revision {}", said.answer, said.revision),
        Ended::Refused => "refused".to_owned(),
        Ended::Unknown => "unknown".to_owned(),
    };
    format!(
        "client {} at {:?}, {}..{} us: {:?} -> {ended}",
        record.process,
        record.node,
        micros(record.invoked),
        micros(record.completed),
        record.ask
    )
}
