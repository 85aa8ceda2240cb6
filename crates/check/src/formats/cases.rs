//! Objects that hold a whole history each: the seed's figures and the small histories with brute-force verdicts.
//!
//! `{"id": 0, "initial_value": 0, "ops": [{"process": 0, "f": "write", "key": "x", "value": 1, "start": 1, "end": 6}, ..]}`.
//! Many may follow one another in one input; each becomes a history of its own, named by its `name` or `id`.

use std::io::BufRead;

use super::form::{Form, Malformed, Notation, parse};
use super::operation::{Hints, settle};
use super::split::Splitter;
use super::{Format, ImportError, Options, datum, lines};
use crate::builder::Builder;
use crate::history::{Datum, History, ModelKind};

/// Reads the histories of an input one by one.
pub(super) fn read(
    input: impl BufRead,
    name: &str,
    options: &Options,
    sink: &mut dyn FnMut(History),
) -> Result<(), ImportError> {
    let format = Format::Cases.name();
    let mut splitter = Splitter::new(input, Notation::Json, format);
    let mut found = false;
    while let Some(piece) = splitter.next_piece()? {
        found = true;
        let history = parse(piece.text, Notation::Json)
            .and_then(|form| case(&form, piece.place.line, name, options))
            .map_err(|malformed| ImportError::at(format, &piece, malformed))?;
        sink(history);
    }
    if !found {
        return Err(ImportError::new(
            format,
            super::Place { line: 1, column: 1 },
            "histories, but there are none",
        ));
    }
    Ok(())
}

fn case(form: &Form<'_>, line: u32, file: &str, options: &Options) -> Result<History, Malformed> {
    let name = match (form.get_some("name"), form.get_some("id")) {
        (Some(name), _) => datum(name).to_string(),
        (None, Some(id)) => format!("{file}#{}", datum(id)),
        (None, None) => file.to_string(),
    };
    let operations =
        form.get("ops").ok_or_else(|| form.expected("\"ops\": the operations of the history"))?;
    let operations = operations.seq().ok_or_else(|| operations.expected("an array of operations"))?;
    let mut builder = Builder::new(name, Format::Cases.name(), ModelKind::Register);
    let mut hints = Hints::default();
    for operation in operations {
        lines::operation(&mut builder, &mut hints, operation, line)?;
    }
    let initial = options.initial.clone().or_else(|| form.get_some("initial_value").map(datum));
    let model = match form.get_some("model") {
        Some(model) => Some(lines::model(model)?),
        None => None,
    };
    settle(builder.history_mut(), &hints, options.model.or(model), initial.or(Some(Datum::Nil)));
    Ok(builder.finish())
}
