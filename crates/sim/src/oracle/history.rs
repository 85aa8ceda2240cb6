//! What clients saw, judged by the checker for the level that the protocol promises.

use synod_check::budget::Budget;
use synod_check::builder::Builder;
use synod_check::history::{Call, Datum, Key, ModelKind, Operation, Outcome, Process, Reply, Value};
use synod_check::verdict::{Level, Verdict};

use super::ledger::Broken;
use crate::client::{Ended, Record};
use crate::machine::Ask;

/// Makes the checker's history of the clients' records: one register for each key.
#[must_use]
pub fn build(name: &str, records: &[Record]) -> synod_check::history::History {
    let mut builder = Builder::new(name, "synod-sim", ModelKind::Register);
    for (id, record) in records.iter().enumerate() {
        let process: Process = builder.process(Datum::Int(i64::from(record.process)));
        let key: Key = builder.key(Datum::text(format!("k{}", record.ask.key())));
        let mut value = |number: Option<u64>| match number {
            Some(number) => builder.value(Datum::Int(number as i64)),
            None => Value::NIL,
        };
        let (call, reply) = match (record.ask, record.ended) {
            (Ask::Get { .. }, Ended::Read { value: seen }) => (Call::Read, Reply::Value(value(seen))),
            (Ask::Get { .. }, _) => (Call::Read, Reply::Done),
            (Ask::Put { value: written, .. }, _) => (Call::Write(value(Some(written))), Reply::Done),
            (Ask::Delete { .. }, _) => (Call::Delete, Reply::Done),
            (Ask::Swap { expected, value: new, .. }, ended) => {
                let call = Call::Cas { expected: value(Some(expected)), new: value(Some(new)) };
                (call, Reply::Flag(matches!(ended, Ended::Done { done: true })))
            }
        };
        let outcome = match record.ended {
            Ended::Read { .. } | Ended::Done { .. } => Outcome::Ok(reply),
            Ended::Refused => Outcome::Failed,
            // A read whose answer nobody saw tells nothing.
            Ended::Unknown if matches!(record.ask, Ask::Get { .. }) => Outcome::Failed,
            Ended::Unknown => Outcome::Unknown,
        };
        builder.push(Operation {
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
    builder.finish()
}

/// Judges the clients' records.
///
/// # Errors
/// When the level is violated. A verdict of "unknown" is none: it is counted, and reported.
pub fn judge(name: &str, records: &[Record], level: Level) -> Result<Judged, Broken> {
    let history = build(name, records);
    let budget = Budget { steps_max: 20_000_000, ..Budget::default() };
    let verdict = match level {
        Level::Linearizable => synod_check::linearizable::check(&history, &budget).0,
        _ => synod_check::causal::check(&history, &budget)
            .into_iter()
            .find(|(judged, ..)| *judged == level)
            .map_or_else(Verdict::holds, |(_, verdict, _)| verdict),
    };
    match verdict {
        Verdict::Holds(_) => Ok(Judged::Holds),
        Verdict::Unknown(_) => Ok(Judged::Unknown),
        Verdict::Violated(evidence) => {
            let shown: Vec<String> =
                evidence.operations.iter().take(6).map(|place| show(&history, *place)).collect();
            Err((level.name(), format!("{}: {}", evidence.reason, shown.join("; "))))
        }
    }
}

/// What the checker made of a history that does not violate its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The level holds.
    Holds,
    /// The checker's budget ran out.
    Unknown,
}

fn show(history: &synod_check::history::History, place: u32) -> String {
    let operation = &history.operations[place as usize];
    let value = |value: Value| history.value(value).to_string();
    let call = match &operation.call {
        Call::Read => "read".to_owned(),
        Call::Write(written) => format!("write {}", value(*written)),
        Call::Cas { expected, new } => format!("swap {} for {}", value(*expected), value(*new)),
        Call::Delete => "delete".to_owned(),
        other => format!("{other:?}"),
    };
    let answer = match &operation.outcome {
        Outcome::Ok(Reply::Value(seen)) => format!(" = {}", value(*seen)),
        Outcome::Ok(Reply::Flag(flag)) => format!(" = {flag}"),
        Outcome::Unknown => " = ?".to_owned(),
        _ => String::new(),
    };
    format!(
        "client {} {} {call}{answer} in {}..{}us",
        history.process(operation.process),
        history.key(operation.key),
        operation.invoked / 1000,
        if operation.is_unknown() { "?".to_owned() } else { (operation.completed / 1000).to_string() },
    )
}
