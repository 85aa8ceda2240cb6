//! Jepsen's text log: `INFO  jepsen.util - 3  :invoke  :cas  [3 0]`, one event a line; other lines are passed over.
//!
//! The logs of etcd that Porcupine is measured with come in this form. A read that timed out failed; a write that timed
//! out is unknown; the register begins with nil, which is a value like any other here.

use std::io::{BufRead, Read};

use super::form::{Kind, Notation, parse};
use super::operation::{Hints, only_key, settle};
use super::{Format, ImportError, OPERATIONS_MAX, Options, Place, datum};
use crate::builder::{Builder, Invocation};
use crate::history::*;

const NAME: &str = "jepsen-log";

/// How long a line may be.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Reads a whole log as one history.
pub(super) fn read(mut input: impl BufRead, name: &str, options: &Options) -> Result<History, ImportError> {
    debug_assert_eq!(NAME, Format::JepsenLog.name());
    let mut builder = Builder::new(name, NAME, ModelKind::Register);
    let mut line = Vec::new();
    let mut number = 0u32;
    let mut events = 0usize;
    loop {
        line.clear();
        number = number.saturating_add(1);
        let start = Place { line: number, column: 1 };
        let read = Read::by_ref(&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.map_err(|error| ImportError::read(NAME, start, &error))? == 0 {
            break;
        }
        if line.len() as u64 == LINE_BYTES_MAX {
            return Err(ImportError::new(NAME, start, "lines of at most 1 MiB"));
        }
        let text = std::str::from_utf8(&line).map_err(|error| {
            ImportError::new(
                NAME,
                Place { line: number, column: error.valid_up_to() as u32 + 1 },
                "text in UTF-8",
            )
        })?;
        let Some(at) = text.find("jepsen.util").filter(|_| text.starts_with("INFO")) else { continue };
        event(&mut builder, text, at + "jepsen.util".len(), number)?;
        events += 1;
        if events > 2 * OPERATIONS_MAX {
            return Err(ImportError::new(NAME, start, format!("at most {OPERATIONS_MAX} operations")));
        }
    }
    if events == 0 {
        return Err(ImportError::new(
            NAME,
            Place { line: number, column: 1 },
            "lines 'INFO  jepsen.util - ..', but there are none",
        ));
    }
    settle(builder.history_mut(), &Hints::default(), options.model, options.initial.clone());
    Ok(builder.finish())
}

/// The next word of a line from `at` on, and where it begins.
fn word(text: &str, at: usize) -> (usize, &str) {
    let rest = &text[at..];
    let begin = at + (rest.len() - rest.trim_start().len());
    let word = text[begin..].split(char::is_whitespace).next().unwrap_or_default();
    (begin, word)
}

fn event(builder: &mut Builder, text: &str, after: usize, line: u32) -> Result<(), ImportError> {
    let fail =
        |at: usize, expected: &str| ImportError::new(NAME, Place { line, column: at as u32 + 1 }, expected);
    let (at, dash) = word(text, after);
    if dash != "-" {
        return Err(fail(at, "'-' after jepsen.util"));
    }
    let (at, process) = word(text, at + 1);
    if process == ":nemesis" {
        return Ok(());
    }
    let process: i64 = process.parse().map_err(|_| fail(at, "a process number"))?;
    let process = builder.process(Datum::Int(process));
    let (kind_at, kind) = word(text, at + word(text, at).1.len());
    let (f_at, f) = word(text, kind_at + kind.len());
    let (value_at, _) = word(text, f_at + f.len());
    let value = parse(text[value_at..].trim_end(), Notation::Edn)
        .map_err(|malformed| fail(value_at + malformed.at as usize, &malformed.expected))?;
    let time = builder.next_time();
    if kind == ":invoke" {
        let call = match f {
            ":read" => Call::Read,
            ":write" => Call::Write(builder.value(datum(&value))),
            ":cas" => match value.seq() {
                Some([expected, new]) => {
                    Call::Cas { expected: builder.value(datum(expected)), new: builder.value(datum(new)) }
                }
                _ => return Err(fail(value_at, "two values [expected new] for :cas")),
            },
            _ => return Err(fail(f_at, ":read, :write or :cas")),
        };
        let key = only_key(builder);
        builder.invoke(Invocation { process, key, call, time, id: None, line });
        return Ok(());
    }
    let outcome = match (kind, f) {
        (":ok", ":read") if matches!(value.kind, Kind::Nil) => Outcome::Ok(Reply::Value(Value::NIL)),
        (":ok", ":read") => Outcome::Ok(Reply::Value(builder.value(datum(&value)))),
        (":ok", _) => Outcome::Ok(Reply::Done),
        (":fail", _) => Outcome::Failed,
        (":info", _) => Outcome::Unknown,
        _ => return Err(fail(kind_at, ":invoke, :ok, :fail or :info")),
    };
    builder.complete(process, None, outcome, time, line);
    Ok(())
}
