//! dbcop's histories: sessions of transactions of reads and writes, without times.
//!
//! `{"params": .., "data": [[{"events": [{"write": true, "variable": 0, "value": 1, "success": true}], "success": true}]]}`,
//! or with events as `{"Write": {"variable": 0, "version": 1}}` in newer versions. Variables begin with 0. A transaction
//! of one event is a plain operation; if all are, the history is one of registers.

use std::io::BufRead;

use super::form::{Form, Malformed, Notation, parse};
use super::operation::{Hints, settle};
use super::split::Splitter;
use super::{Format, ImportError, Options, datum};
use crate::builder::Builder;
use crate::history::*;

/// Reads the histories of an input one by one. Sessions alone, without the object around them, make one history.
pub(super) fn read(
    input: impl BufRead,
    name: &str,
    options: &Options,
    sink: &mut dyn FnMut(History),
) -> Result<(), ImportError> {
    let format = Format::Dbcop.name();
    let mut splitter = Splitter::new(input, Notation::Json, format);
    let mut loose = Sessions::new(name, format);
    let mut found = false;
    while let Some(piece) = splitter.next_piece()? {
        found = true;
        let fail = |malformed| ImportError::at(format, &piece, malformed);
        let form = parse(piece.text, Notation::Json).map_err(fail)?;
        if form.seq().is_some() {
            loose.session(&form, piece.place.line).map_err(fail)?;
            continue;
        }
        let title = match form.get_some("params").and_then(|params| params.get_some("id")) {
            Some(id) => format!("{name}#{}", datum(id)),
            None => name.to_string(),
        };
        let mut sessions = Sessions::new(&title, format);
        let data = form.get("data").ok_or_else(|| fail(form.expected("\"data\": the sessions")))?;
        for session in data.seq().ok_or_else(|| fail(data.expected("an array of sessions")))? {
            sessions.session(session, piece.place.line).map_err(fail)?;
        }
        sink(sessions.finish(options));
    }
    if !found {
        return Err(ImportError::new(
            format,
            super::Place { line: 1, column: 1 },
            "sessions, but there are none",
        ));
    }
    if loose.count > 0 {
        sink(loose.finish(options));
    }
    Ok(())
}

struct Sessions {
    builder: Builder,
    sessions: i64,
    count: i64,
    several: bool,
}

impl Sessions {
    fn new(name: &str, format: &'static str) -> Sessions {
        let mut builder = Builder::new(name, format, ModelKind::TxnRegister);
        builder.history_mut().clock = Clock::PerProcess;
        Sessions { builder, sessions: 0, count: 0, several: false }
    }

    fn session(&mut self, form: &Form<'_>, line: u32) -> Result<(), Malformed> {
        let process = self.builder.process(Datum::Int(self.sessions));
        self.sessions += 1;
        for transaction in form.seq().ok_or_else(|| form.expected("a session: an array of transactions"))? {
            let events = transaction.get("events").unwrap_or(transaction);
            let events =
                events.seq().ok_or_else(|| events.expected("a transaction with an array of \"events\""))?;
            let committed = transaction.get("success").or_else(|| transaction.get("committed"));
            let mut accesses = Vec::with_capacity(events.len());
            for event in events {
                accesses.push(self.event(event)?);
            }
            self.several |= accesses.len() != 1;
            let outcome = match committed.and_then(Form::bool) {
                Some(false) => Outcome::Failed,
                _ => Outcome::Ok(Reply::Txn(accesses.clone().into())),
            };
            let at = self.count;
            self.count += 1;
            self.builder.push(Operation {
                process,
                key: Key(0),
                call: Call::Txn(accesses.into()),
                outcome,
                invoked: at,
                completed: at,
                id: at as u64,
                line,
            });
        }
        Ok(())
    }

    fn event(&mut self, form: &Form<'_>) -> Result<Access, Malformed> {
        let what = "an event {\"write\": true or false, \"variable\": .., \"value\": ..}";
        let (write, inner) = match (form.get("Read"), form.get("Write"), form.get("write")) {
            (Some(read), _, _) => (false, read),
            (_, Some(write), _) => (true, write),
            (_, _, Some(write)) => (write.bool().ok_or_else(|| write.expected("true or false"))?, form),
            _ => return Err(form.expected(what)),
        };
        let variable = inner.get("variable").ok_or_else(|| form.expected(what))?;
        let key = self.builder.key(datum(variable));
        let value = inner.get("value").or_else(|| inner.get("version"));
        let failed = form.get("success").and_then(Form::bool) == Some(false);
        let kind = match (write, value) {
            (true, Some(value)) => AccessKind::Write(self.builder.value(datum(value))),
            (true, None) => return Err(form.expected(what)),
            (false, _) if failed => AccessKind::Read(None),
            (false, value) => {
                // A version that is not there is the initial one.
                let datum = value.map_or(Datum::Int(0), datum);
                let datum = if datum == Datum::Nil { Datum::Int(0) } else { datum };
                AccessKind::Read(Some(self.builder.value(datum)))
            }
        };
        Ok(Access { key, kind })
    }

    fn finish(mut self, options: &Options) -> History {
        let several = self.several;
        let history = self.builder.history_mut();
        if !several {
            history.operations.iter_mut().for_each(single);
        }
        let hints = Hints { transactions: several, ..Hints::default() };
        let initial = options.initial.clone().unwrap_or(Datum::Int(0));
        settle(history, &hints, options.model, Some(initial));
        self.builder.finish()
    }
}

/// A transaction of one access as a plain operation.
fn single(operation: &mut Operation) {
    let Call::Txn(accesses) = &operation.call else { return };
    let [access] = &accesses[..] else { return };
    operation.key = access.key;
    let (call, reply) = match access.kind {
        AccessKind::Write(value) => (Call::Write(value), Reply::Done),
        AccessKind::Read(Some(value)) => (Call::Read, Reply::Value(value)),
        _ => (Call::Read, Reply::Done),
    };
    operation.call = call;
    if operation.is_ok() {
        operation.outcome = Outcome::Ok(reply);
    }
}
