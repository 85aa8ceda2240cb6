//! Our own format: JSON lines, one operation each, which stream. `docs/history-format.md` describes it for people.
//!
//! `{"process":0,"f":"write","key":"x","value":4,"start":0,"end":10}`: who, what, of which key, from when to when, and in
//! `type` how it ended: `ok` (the default), `fail`, or `info` (unknown, as is an operation without `end`). A first line
//! with `"synod":"history"` may name the history, its model and initial value. Operations on etcd's store carry `request`
//! and `reply` instead of `f` and `value`, and `watch` lines carry recorded streams ([`super::etcd_lines`]).

use std::io::BufRead;

use super::form::{Form, Malformed, Notation, parse};
use super::operation::{Asked, Hints, answered, asked, only_key, settle};
use super::split::Splitter;
use super::{Format, ImportError, OPERATIONS_MAX, Options, Place, datum, etcd_lines};
use crate::builder::Builder;
use crate::history::*;

/// Reads a whole input as one history.
pub(super) fn read(input: impl BufRead, name: &str, options: &Options) -> Result<History, ImportError> {
    let format = Format::Synod.name();
    let mut splitter = Splitter::new(input, Notation::Json, format);
    let mut builder = Builder::new(name, format, ModelKind::Register);
    let mut hints = Hints::default();
    let (mut model, mut initial) = (None, None);
    let mut count = 0usize;
    while let Some(piece) = splitter.next_piece()? {
        let done = parse(piece.text, Notation::Json).and_then(|form| {
            if form.get("synod").is_some() {
                return header(&mut builder, &form, &mut model, &mut initial);
            }
            count += 1;
            if form.get("watch").is_some() {
                return etcd_lines::watch(&mut builder, &mut hints, &form, piece.place.line);
            }
            operation(&mut builder, &mut hints, &form, piece.place.line)
        });
        done.map_err(|malformed| ImportError::at(format, &piece, malformed))?;
        if count > OPERATIONS_MAX {
            return Err(ImportError::new(
                format,
                piece.place,
                format!("at most {OPERATIONS_MAX} operations"),
            ));
        }
    }
    if count == 0 {
        return Err(ImportError::new(format, Place { line: 1, column: 1 }, "operations, but there are none"));
    }
    settle(builder.history_mut(), &hints, options.model.or(model), options.initial.clone().or(initial));
    Ok(builder.finish())
}

fn header(
    builder: &mut Builder,
    form: &Form<'_>,
    model: &mut Option<ModelKind>,
    initial: &mut Option<Datum>,
) -> Result<(), Malformed> {
    if let Some(version) = form.get("version")
        && version.int() != Some(1)
    {
        return Err(version.expected("version 1"));
    }
    if let Some(name) = form.get_some("name") {
        builder.history_mut().name = datum(name).to_string();
    }
    if let Some(form) = form.get_some("model") {
        *model = Some(self::model(form)?);
    }
    if let Some(form) = form.get("initial") {
        *initial = Some(datum(form));
    }
    match form.get_some("clock").map(|clock| (clock, clock.name())) {
        None | Some((_, Some("shared"))) => {}
        Some((_, Some("per-process"))) => builder.history_mut().clock = Clock::PerProcess,
        Some((clock, _)) => return Err(clock.expected("\"shared\" or \"per-process\"")),
    }
    Ok(())
}

/// A model's name.
pub(super) fn model(form: &Form<'_>) -> Result<ModelKind, Malformed> {
    form.name().and_then(ModelKind::by_name).ok_or_else(|| {
        let names: Vec<&str> = ModelKind::ALL.iter().map(|(_, name)| *name).collect();
        form.expected(format!("a model: {}", names.join(", ")))
    })
}

/// One operation.
pub(super) fn operation(
    builder: &mut Builder,
    hints: &mut Hints,
    map: &Form<'_>,
    line: u32,
) -> Result<(), Malformed> {
    if map.map().is_none() {
        return Err(map.expected("an operation as an object"));
    }
    let process = map.get_some("process").ok_or_else(|| map.expected("an operation with a \"process\""))?;
    let process = builder.process(datum(process));
    let time = |name: &str| match map.get_some(name) {
        None => Ok(None),
        Some(form) => {
            form.int().map(Some).ok_or_else(|| form.expected(format!("a whole number as \"{name}\"")))
        }
    };
    let invoked = time("start")?.ok_or_else(|| map.expected("an operation with a \"start\""))?;
    let end = time("end")?;
    let (key, call, reply) = if let Some(request) = map.get_some("request") {
        hints.etcd = true;
        let request = etcd_lines::request(builder, request)?;
        let reply = match map.get_some("reply") {
            Some(reply) => Reply::Etcd(Box::new(etcd_lines::reply(builder, reply, &request)?)),
            None => Reply::Done,
        };
        (only_key(builder), Call::Etcd(Box::new(request)), reply)
    } else {
        let f =
            map.get_some("f").ok_or_else(|| map.expected("an operation with an \"f\" or a \"request\""))?;
        let Asked { key, call } = asked(builder, hints, map, f)?;
        let reply = answered(builder, hints, map, f.name().unwrap_or_default(), &call)?;
        (key, call, said(map, reply)?)
    };
    let kind = map.get_some("type");
    let outcome = match (kind.and_then(Form::name), kind, end) {
        (Some("fail"), _, _) => Outcome::Failed,
        (Some("info"), _, _) | (None, None, None) => Outcome::Unknown,
        (Some("ok"), _, None) => return Err(map.expected("an \"end\" for an operation of type ok")),
        (Some("ok"), _, Some(_)) | (None, None, Some(_)) => match reply {
            Reply::Done if matches!(call, Call::Etcd(_)) => Outcome::Unknown,
            reply => Outcome::Ok(reply),
        },
        (_, kind, _) => return Err(kind.unwrap_or(map).expected("\"ok\", \"fail\" or \"info\" as the type")),
    };
    let completed = match outcome {
        Outcome::Unknown => NEVER,
        // A failed operation did not happen; when it was known to have failed matters to nobody.
        _ => end.unwrap_or(invoked).min(NEVER - 1),
    };
    let id = map.get_some("id").and_then(Form::int).and_then(|id| u64::try_from(id).ok());
    let id = builder.id(id);
    builder.push(Operation { process, key, call, outcome, invoked, completed, id, line });
    Ok(())
}

/// An answer beside the value: `"result": false` for a comparison that failed, a fencing token, a count.
fn said(map: &Form<'_>, reply: Reply) -> Result<Reply, Malformed> {
    let Some(result) = map.get_some("result") else { return Ok(reply) };
    match (result.bool(), result.int()) {
        (Some(flag), _) => Ok(Reply::Flag(flag)),
        (_, Some(number)) => Ok(Reply::Number(number)),
        _ => Err(result.expected("true, false or a whole number as \"result\"")),
    }
}
