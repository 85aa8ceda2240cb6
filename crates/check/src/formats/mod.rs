//! Importers: histories in the notations of other tools and our own, told apart by content.
//!
//! | name | what | example of its content |
//! |---|---|---|
//! | `edn` | Jepsen, Knossos, Elle and Porcupine's key-value logs: event maps in EDN | `{:process 0, :type :invoke, :f :read, :value nil}` |
//! | `events` | the same events in JSON, as elle-cli takes them | `{"type":"invoke","f":"txn","value":[["r","x",null]],"process":0}` |
//! | `jepsen-log` | Jepsen's text log | `INFO  jepsen.util - 0 :invoke :read nil` |
//! | `synod` | our JSON lines, one operation each (`docs/history-format.md`) | `{"process":0,"f":"write","key":"x","value":4,"start":0,"end":10}` |
//! | `cases` | objects that hold a whole history each, perhaps many in a file | `{"id":0,"initial_value":0,"ops":[..]}` |
//! | `robustness` | etcd robustness' `operations.json` and `watch.json` | `{"ClientId":1,"Input":{..},"Call":5,"Output":{..},"Return":9}` |
//! | `dbcop` | dbcop's sessions of transactions | `{"params":{..},"data":[[{"events":[..],"success":true}]]}` |
//!
//! Inputs are streamed: memory is bounded by the operations themselves, a form's length and [`OPERATIONS_MAX`]. Whatever
//! is wrong with an input becomes an [`ImportError`] with line, column and what was expected, never a panic.

mod cases;
mod dbcop;
mod etcd_lines;
mod events;
pub mod form;
mod jepsen_log;
mod lines;
mod operation;
mod robustness;
pub mod split;

use std::io::{BufRead, Read};

use crate::history::{Datum, History, ModelKind};
use form::{Form, Kind, Malformed, Notation};

pub use robustness::Robustness;

/// How many operations one input may hold.
pub const OPERATIONS_MAX: usize = 50_000_000;

/// A place in a text, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column, in bytes.
    pub column: u32,
}

impl Place {
    fn pass(&mut self, byte: u8) {
        if byte == b'\n' {
            self.line = self.line.saturating_add(1);
            self.column = 1;
        } else {
            self.column = self.column.saturating_add(1);
        }
    }

    /// The place `offset` bytes into a text that begins here.
    fn after(mut self, text: &str, offset: u32) -> Place {
        text.as_bytes().iter().take(offset as usize).for_each(|byte| self.pass(*byte));
        self
    }
}

/// Why an input could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: expected {expected}{}", place.line, place.column, shown_begin(begun))]
pub struct ImportError {
    /// The format it was read as.
    pub format: &'static str,
    /// Where.
    pub place: Place,
    /// What would have been right.
    pub expected: String,
    /// Where the form began that is not closed, if that is the trouble.
    pub begun: Option<Place>,
}

fn shown_begin(begun: &Option<Place>) -> String {
    begun.map(|at| format!(" (begun at line {}, column {})", at.line, at.column)).unwrap_or_default()
}

impl ImportError {
    fn new(format: &'static str, place: Place, expected: impl Into<String>) -> ImportError {
        ImportError { format, place, expected: expected.into(), begun: None }
    }

    fn read(format: &'static str, place: Place, error: &std::io::Error) -> ImportError {
        ImportError::new(format, place, format!("readable input ({error})"))
    }

    fn begun(mut self, place: Place) -> ImportError {
        self.begun = Some(place);
        self
    }

    fn at(format: &'static str, piece: &split::Piece<'_>, malformed: Malformed) -> ImportError {
        ImportError::new(format, piece.place.after(piece.text, malformed.at), malformed.expected)
    }
}

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Event maps in EDN.
    Edn,
    /// Event objects in JSON.
    Events,
    /// Jepsen's text log.
    JepsenLog,
    /// Our JSON lines.
    Synod,
    /// Whole histories as objects.
    Cases,
    /// etcd robustness' reports.
    Robustness,
    /// dbcop's sessions.
    Dbcop,
}

impl Format {
    /// Every format with the name that `--format` uses.
    pub const ALL: [(Format, &'static str); 7] = [
        (Format::Edn, "edn"),
        (Format::Events, "events"),
        (Format::JepsenLog, "jepsen-log"),
        (Format::Synod, "synod"),
        (Format::Cases, "cases"),
        (Format::Robustness, "robustness"),
        (Format::Dbcop, "dbcop"),
    ];

    /// The name of this format.
    pub fn name(self) -> &'static str {
        Format::ALL.iter().find(|(format, _)| *format == self).map_or("edn", |(_, name)| name)
    }

    /// The format of that name.
    pub fn by_name(name: &str) -> Option<Format> {
        Format::ALL.iter().find(|(_, known)| *known == name).map(|(format, _)| *format)
    }
}

/// What a person may say about an input that it does not say itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The format, instead of telling it by content.
    pub format: Option<Format>,
    /// The model, instead of telling it by the operations.
    pub model: Option<ModelKind>,
    /// The initial value, instead of the format's.
    pub initial: Option<Datum>,
}

/// How much of an input is looked at to tell its format.
const HEAD_BYTES: usize = 64 << 10;

/// Reads all histories of an input and hands them to `sink` one by one.
///
/// `name` is what to call the first one that brings no name of its own.
pub fn read(
    mut input: impl BufRead,
    name: &str,
    options: &Options,
    sink: &mut dyn FnMut(History),
) -> Result<(), ImportError> {
    let mut head = Vec::new();
    let start = Place { line: 1, column: 1 };
    input
        .by_ref()
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(|error| ImportError::read("unknown", start, &error))?;
    let format = match options.format {
        Some(format) => format,
        None => detect(&head)?,
    };
    let input = std::io::Cursor::new(head).chain(input);
    match format {
        Format::Edn => events::read(input, Notation::Edn, name, options).map(sink),
        Format::Events => events::read(input, Notation::Json, name, options).map(sink),
        Format::JepsenLog => jepsen_log::read(input, name, options).map(sink),
        Format::Synod => lines::read(input, name, options).map(sink),
        Format::Cases => cases::read(input, name, options, sink),
        Format::Robustness => {
            let mut run = Robustness::new(name);
            run.read(input)?;
            sink(run.finish());
            Ok(())
        }
        Format::Dbcop => dbcop::read(input, name, options, sink),
    }
}

/// Reads all histories of an input into memory; for small inputs and tests.
pub fn read_all(input: impl BufRead, name: &str, options: &Options) -> Result<Vec<History>, ImportError> {
    let mut all = Vec::new();
    read(input, name, options, &mut |history| all.push(history))?;
    Ok(all)
}

/// Tells the format by the beginning of an input.
pub fn detect(head: &[u8]) -> Result<Format, ImportError> {
    let start = Place { line: 1, column: 1 };
    let fail = |place, expected: &str| Err(ImportError::new("unknown", place, expected));
    let mut place = start;
    let mut rest = head;
    if let Some(after) = rest.strip_prefix(b"\xef\xbb\xbf") {
        rest = after;
    }
    if let Some(at) = head.iter().position(|byte| *byte == 0) {
        head[..at].iter().for_each(|byte| place.pass(*byte));
        return fail(place, "a history as text, but the input is binary");
    }
    // Skip space and EDN comments.
    let mut commented = false;
    loop {
        match rest.first() {
            None if commented => return fail(place, "a history after the comments"),
            None => return fail(place, "a history, but the input is empty"),
            Some(byte) if byte.is_ascii_whitespace() => {
                place.pass(*byte);
                rest = &rest[1..];
            }
            Some(b';') => {
                commented = true;
                let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                rest[..end].iter().for_each(|byte| place.pass(*byte));
                rest = &rest[end..];
            }
            Some(_) => break,
        }
    }
    if commented {
        return Ok(Format::Edn);
    }
    let what =
        "a history: EDN or JSON operations ('{', '[', '('), or a Jepsen log line (INFO  jepsen.util - ..)";
    match rest[0] {
        b'(' | b'#' => Ok(Format::Edn),
        b'{' | b'[' => detect_in_brackets(rest),
        _ if is_log(rest) => Ok(Format::JepsenLog),
        _ => fail(place, what),
    }
}

fn is_log(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&head[..head.len().min(HEAD_BYTES)]);
    text.lines().take(1000).any(|line| line.contains("jepsen.util -") || line.contains("jepsen.util  -"))
}

/// EDN if the first map's first key is a keyword; else JSON, and the names of its keys tell.
fn detect_in_brackets(head: &[u8]) -> Result<Format, ImportError> {
    let inner = head.iter().position(|byte| !byte.is_ascii_whitespace() && !b"[{(,".contains(byte));
    match inner.map(|at| head[at]) {
        Some(b':' | b';' | b'#') => return Ok(Format::Edn),
        Some(b'}' | b']') | None => return Ok(Format::Edn),
        Some(b'"') => {}
        Some(_) => {
            let mut place = Place { line: 1, column: 1 };
            head[..inner.unwrap_or(0)].iter().for_each(|byte| place.pass(*byte));
            return Err(ImportError::new(
                "unknown",
                place,
                "a key: a keyword (EDN) or a name in quotes (JSON)",
            ));
        }
    }
    if head.starts_with(b"[[") || head.starts_with(b"[ [") {
        return Ok(Format::Dbcop);
    }
    // The keys of the first object; the head may cut it short, so they are looked for as text.
    let text = String::from_utf8_lossy(head);
    let first = text.split_once('\n').map_or(&*text, |(line, _)| if line.len() > 40 { line } else { &*text });
    let has = |name: &str| first.contains(&format!("\"{name}\""));
    Ok(if has("ClientId") || (has("Request") && has("Responses")) {
        Format::Robustness
    } else if has("params") || has("data") && has("events") {
        Format::Dbcop
    } else if has("ops") {
        Format::Cases
    } else if has("type") && (has("invoke") || !has("start")) && !has("synod") {
        Format::Events
    } else {
        Format::Synod
    })
}

/// A scalar form as a datum; anything deeper as its text.
fn datum(form: &Form<'_>) -> Datum {
    match &form.kind {
        Kind::Nil => Datum::Nil,
        Kind::Bool(bool) => Datum::Bool(*bool),
        Kind::Int(int) => Datum::Int(*int),
        Kind::Other(text) | Kind::Word(text) => Datum::text(*text),
        Kind::Text(text) => Datum::text(&**text),
        Kind::Seq(_) | Kind::Map(_) => Datum::text(spelt(form)),
    }
}

/// A form in one canonical spelling.
fn spelt(form: &Form<'_>) -> String {
    match &form.kind {
        Kind::Seq(forms) => {
            let inner: Vec<String> = forms.iter().map(spelt).collect();
            format!("[{}]", inner.join(" "))
        }
        Kind::Map(pairs) => {
            let inner: Vec<String> =
                pairs.iter().map(|(key, value)| format!("{} {}", spelt(key), spelt(value))).collect();
            format!("{{{}}}", inner.join(" "))
        }
        Kind::Text(text) => format!("{text:?}"),
        _ => datum(form).to_string(),
    }
}
