//! Histories as invocation and completion events: Jepsen's, Knossos' and Elle's EDN, and the same in JSON.
//!
//! `{:process 0, :type :invoke, :f :read, :value nil}` ... `{:process 0, :type :ok, :f :read, :value 3}`. The order of
//! the events is the truth about time; `:time` is used where it agrees. `:fail` did not happen, `:info` may have. Events
//! of processes that are not clients (`:nemesis`) are passed over. A history of `:ok` events alone, such as the POPL'17
//! examples, has no invocations and so no real time: only the order inside each process is kept.

use std::io::BufRead;

use super::form::{Form, Notation, parse};
use super::operation::{Asked, Hints, answered, asked, settle};
use super::split::Splitter;
use super::{Format, ImportError, OPERATIONS_MAX, Options, datum};
use crate::builder::{Builder, Invocation};
use crate::history::*;

/// Reads a whole input as one history.
pub(super) fn read(
    input: impl BufRead,
    notation: Notation,
    name: &str,
    options: &Options,
) -> Result<History, ImportError> {
    let format = match notation {
        Notation::Edn => Format::Edn.name(),
        Notation::Json => Format::Events.name(),
    };
    let mut splitter = Splitter::new(input, notation, format);
    let mut events = Events::new(Builder::new(name, format, ModelKind::Register));
    while let Some(piece) = splitter.next_piece()? {
        if piece.text.starts_with("#_") {
            continue;
        }
        let form =
            parse(piece.text, notation).map_err(|malformed| ImportError::at(format, &piece, malformed))?;
        events
            .event(&form, piece.place.line)
            .map_err(|malformed| ImportError::at(format, &piece, malformed))?;
        if events.count > OPERATIONS_MAX {
            return Err(ImportError::new(
                format,
                piece.place,
                format!("at most {OPERATIONS_MAX} operations"),
            ));
        }
    }
    if events.count == 0 {
        let place = super::Place { line: 1, column: 1 };
        return Err(ImportError::new(format, place, "operations, but there are none"));
    }
    Ok(events.finish(notation, options))
}

/// Takes events one by one.
pub(super) struct Events {
    builder: Builder,
    hints: Hints,
    /// Completions without invocation, for histories that have no others.
    bare: Vec<Operation>,
    invocations: usize,
    nil_reads: bool,
    keyed: bool,
    count: usize,
}

impl Events {
    pub(super) fn new(builder: Builder) -> Events {
        Events {
            builder,
            hints: Hints::default(),
            bare: Vec::new(),
            invocations: 0,
            nil_reads: false,
            keyed: false,
            count: 0,
        }
    }

    /// One event.
    pub(super) fn event(&mut self, map: &Form<'_>, line: u32) -> Result<(), super::form::Malformed> {
        if map.map().is_none() {
            return Err(map.expected("an operation as a map"));
        }
        let process = map.get("process").ok_or_else(|| map.expected("an operation with a process"))?;
        if process.int().is_none() && process.name().is_none_or(|name| name == "nemesis") {
            return Ok(());
        }
        let kind = map.get("type").ok_or_else(|| map.expected("an operation with a type"))?;
        let kind_name = kind.name().unwrap_or_default();
        if !["invoke", "ok", "fail", "info"].contains(&kind_name) {
            return Err(kind.expected("invoke, ok, fail or info as the type"));
        }
        self.count += 1;
        self.keyed |= map.get_some("key").is_some();
        let process = self.builder.process(datum(process));
        let time = map.get("time").and_then(Form::int).unwrap_or_else(|| self.builder.next_time());
        if kind_name == "invoke" {
            self.invocations += 1;
            let Asked { key, call } = self.asked(map)?;
            let id = map.get("index").and_then(Form::int).and_then(|index| u64::try_from(index).ok());
            self.builder.invoke(Invocation { process, key, call, time, id, line });
            return Ok(());
        }
        let Some((_, call)) = self.builder.open_call(process) else {
            if self.invocations == 0 {
                return self.bare(map, kind_name, process, line);
            }
            self.builder.complete(process, None, Outcome::Unknown, time, line);
            return Ok(());
        };
        let call = call.clone();
        let outcome = match kind_name {
            "ok" => Outcome::Ok(self.answered(map, &call)?),
            "fail" => Outcome::Failed,
            _ => Outcome::Unknown,
        };
        self.builder.complete(process, None, outcome, time, line);
        Ok(())
    }

    fn asked(&mut self, map: &Form<'_>) -> Result<Asked, super::form::Malformed> {
        match map.get_some("f") {
            Some(f) => asked(&mut self.builder, &mut self.hints, map, f),
            None => {
                let value = map.get("value").ok_or_else(|| map.expected("an operation with f or value"))?;
                let call = Call::Txn(super::operation::accesses(&mut self.builder, &mut self.hints, value)?);
                Ok(Asked { key: super::operation::only_key(&mut self.builder), call })
            }
        }
    }

    fn answered(&mut self, map: &Form<'_>, call: &Call) -> Result<Reply, super::form::Malformed> {
        let f = map.get("f").and_then(Form::name).unwrap_or("txn");
        let reply = answered(&mut self.builder, &mut self.hints, map, f, call)?;
        self.nil_reads |= reply == Reply::Value(Value::NIL);
        Ok(reply)
    }

    fn bare(
        &mut self,
        map: &Form<'_>,
        kind: &str,
        process: Process,
        line: u32,
    ) -> Result<(), super::form::Malformed> {
        let Asked { key, call } = self.asked(map)?;
        let outcome = match kind {
            "ok" => Outcome::Ok(self.answered(map, &call)?),
            "fail" => Outcome::Failed,
            _ => Outcome::Unknown,
        };
        let at = self.bare.len() as i64;
        let id = map
            .get("index")
            .and_then(Form::int)
            .and_then(|index| u64::try_from(index).ok())
            .unwrap_or(at as u64);
        self.bare.push(Operation { process, key, call, outcome, invoked: at, completed: at, id, line });
        Ok(())
    }

    /// The history.
    pub(super) fn finish(mut self, notation: Notation, options: &Options) -> History {
        if self.invocations == 0 {
            self.builder.history_mut().clock = Clock::PerProcess;
            for operation in std::mem::take(&mut self.bare) {
                self.builder.push(operation);
            }
        } else if let Some(first) = self.bare.first() {
            let (line, count) = (first.line, self.bare.len());
            self.builder.warn(WarningKind::Ignored, line, || {
                format!("{count} completions without invocation; left out")
            });
        }
        let bare = self.invocations == 0;
        let initial = options.initial.clone().or_else(|| default_initial(&self, notation, bare));
        let register = self.hints.model() == ModelKind::Register && self.nil_reads && !bare;
        if register && notation == Notation::Edn && initial == Some(Datum::Nil) && options.initial.is_none() {
            self.builder.warn(WarningKind::Assumption, 0, || {
                "nil was read, so the register is taken to begin with nil; with --initial 0 a read of nil says nothing, as in Knossos".into()
            });
        }
        if register && options.initial.as_ref().is_some_and(|initial| *initial != Datum::Nil) {
            self.builder.warn(WarningKind::Assumption, 0, || {
                "the register does not begin with nil, so a read of nil is taken to say nothing, as in Knossos".into()
            });
            forget_nil_reads(self.builder.history_mut());
        }
        let model = options.model;
        let hints = self.hints;
        let history = self.builder.history_mut();
        if let Some(initial) = initial.clone() {
            history.initial = Value(history.values.intern(initial));
        }
        settle(history, &hints, model, initial);
        self.builder.finish()
    }
}

/// Knossos' registers and the POPL'17 examples begin with 0, unless nil was read: then nil is a value, and the first one.
/// Everything with keys of its own begins with nothing.
fn default_initial(events: &Events, notation: Notation, bare: bool) -> Option<Datum> {
    if notation != Notation::Edn || events.hints.model() != ModelKind::Register || (events.keyed && !bare) {
        return None;
    }
    Some(if events.nil_reads && !bare { Datum::Nil } else { Datum::Int(0) })
}

/// Knossos: "a read of nil is consistent with every state".
fn forget_nil_reads(history: &mut History) {
    for operation in &mut history.operations {
        if operation.outcome == Outcome::Ok(Reply::Value(Value::NIL)) && operation.call == Call::Read {
            operation.outcome = Outcome::Ok(Reply::Done);
        }
    }
}
