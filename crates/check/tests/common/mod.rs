//! What several tests share: the folder of oracle histories, and reading those in JSON.

#![allow(dead_code, reason = "each test uses its share")]

use std::path::PathBuf;

use serde_json::Value as Json;
use synod_check::builder::Builder;
use synod_check::history::*;

/// The folder with the known cases, or `None` (with a message) where it is absent.
pub(crate) fn oracles() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracles");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: the folder of oracle histories, {}, is not here", folder.display());
    None
}

fn datum(json: &Json) -> Datum {
    match json {
        Json::Null => Datum::Nil,
        Json::Number(number) => Datum::Int(number.as_i64().expect("whole numbers")),
        other => Datum::text(other.as_str().expect("text").to_string()),
    }
}

/// A history in the JSON of the seed's figures and of the small histories.
pub(crate) fn history(json: &Json) -> History {
    let mut builder = Builder::new("oracle", "json", ModelKind::Register);
    builder.history_mut().initial = Value::NIL;
    let initial = builder.value(datum(&json["initial_value"]));
    builder.history_mut().initial = initial;
    for op in json["ops"].as_array().expect("ops") {
        let value = builder.value(datum(&op["value"]));
        let (call, reply) = match op["f"].as_str().expect("f") {
            "write" => (Call::Write(value), Reply::Done),
            _ => (Call::Read, Reply::Value(value)),
        };
        let (process, key) = (builder.process(datum(&op["process"])), builder.key(datum(&op["key"])));
        let id = builder.id(None);
        let (invoked, completed) = (op["start"].as_i64().expect("start"), op["end"].as_i64().expect("end"));
        builder.push(Operation {
            process,
            key,
            call,
            outcome: Outcome::Ok(reply),
            invoked,
            completed,
            id,
            line: 0,
        });
    }
    builder.finish()
}

/// A history in the flat EDN of the POPL'17 examples: one completed operation a line, no real time.
pub(crate) fn popl17(text: &str) -> History {
    let mut builder = Builder::new("popl17", "edn", ModelKind::Register);
    let initial = builder.value(Datum::Int(0));
    builder.history_mut().initial = initial;
    builder.history_mut().clock = Clock::PerProcess;
    for (i, line) in text.lines().filter(|line| !line.trim().is_empty()).enumerate() {
        let words: Vec<&str> =
            line.split([' ', ',', '[', ']', '{', '}']).filter(|word| !word.is_empty()).collect();
        let after = |name: &str| words[words.iter().position(|word| *word == name).expect("field") + 1];
        let at = words.iter().position(|word| *word == ":value").expect("value");
        let key = builder.key(Datum::text(words[at + 1].to_string()));
        let value = builder.value(Datum::Int(words[at + 2].parse().expect("a number")));
        let process = builder.process(Datum::Int(after(":process").parse().expect("a number")));
        let (call, reply) = match after(":f") {
            ":write" => (Call::Write(value), Reply::Done),
            _ => (Call::Read, Reply::Value(value)),
        };
        let id = builder.id(None);
        let (invoked, completed) = (2 * i as i64, 2 * i as i64 + 1);
        builder.push(Operation {
            process,
            key,
            call,
            outcome: Outcome::Ok(reply),
            invoked,
            completed,
            id,
            line: 0,
        });
    }
    builder.finish()
}
