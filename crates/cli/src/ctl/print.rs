//! Answers on paper.

use std::io::{self, Write};

use anyhow::Result;
use comfy_table::{Table, presets};
use prost::Message;
use prost_reflect::DynamicMessage;
use synod_api::Method;
use synod_api::mvccpb::KeyValue;

/// Writes a line; a closed pipe ends the program in silence, as pipes' readers expect.
pub(super) fn line(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.write_all(b"\n")).is_err() {
        std::process::exit(0);
    }
}

/// A method's answer as protobuf's JSON.
pub(super) fn json(method: Method, answer: &impl Message) -> Result<()> {
    let message = DynamicMessage::decode(method.output(), &answer.encode_to_vec()[..])?;
    line(serde_json::to_string(&message)?.as_bytes());
    Ok(())
}

/// A pair as two lines, or its value alone.
pub(super) fn pair(pair: &KeyValue, value_only: bool) {
    if !value_only {
        line(&pair.key);
    }
    line(&pair.value);
}

/// A table with a head.
pub(super) fn table(head: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_FULL_CONDENSED).set_header(head.iter().map(|word| word.to_uppercase()));
    table.add_rows(rows);
    line(table.to_string().as_bytes());
}

/// A number as etcd's tools write ids.
pub(super) fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// Bytes as people count them.
pub(super) fn size(bytes: i64) -> String {
    let bytes = bytes as f64;
    match bytes {
        b if b < 1e3 => format!("{b:.0} B"),
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}

/// An id as it was printed: hexadecimal, with or without 0x.
pub(super) fn parse_hex(word: &str) -> Result<u64, String> {
    u64::from_str_radix(word.trim_start_matches("0x"), 16)
        .map_err(|_| format!("'{word}' is not an id: up to 16 hexadecimal digits"))
}
