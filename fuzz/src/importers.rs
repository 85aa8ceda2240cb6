//! Histories: every importer on any bytes, then every verdict on what it read.
//!
//! An importer gives histories or an error with a place inside the input. What it gave is judged with a budget small
//! enough for thousands of inputs a second, and printed, so that nothing behind the importer can be broken by
//! what came through it.

use synod_check::budget::Budget;
use synod_check::formats::{self, Format, Options};
use synod_check::{json, ladder};

/// Judging grows with the length of a history; the importers are what is tried here.
const OPERATIONS_JUDGED_MAX: usize = 200;

/// Search steps for each level and key.
const STEPS_MAX: u64 = 2_000;

/// Bytes for remembered search states.
const MEMORY_MAX: usize = 4 << 20;

/// Takes any bytes; panics only when something is wrong with Synod.
pub type Entry = fn(&[u8]);

/// Every corpus folder with its entry point.
pub const TARGETS: [(&str, Entry); 8] = [
    ("detect", detect),
    ("import_edn", edn),
    ("import_events", events),
    ("import_jepsen_log", jepsen_log),
    ("import_synod", synod),
    ("import_cases", cases),
    ("import_robustness", robustness),
    ("import_dbcop", dbcop),
];

/// Reads the input as what it looks like.
pub fn detect(bytes: &[u8]) {
    if let Ok(format) = formats::detect(bytes) {
        assert_eq!(Format::by_name(format.name()), Some(format));
    }
    read(bytes, None);
}

/// Event maps in EDN.
pub fn edn(bytes: &[u8]) {
    read(bytes, Some(Format::Edn));
}

/// Event objects in JSON.
pub fn events(bytes: &[u8]) {
    read(bytes, Some(Format::Events));
}

/// Jepsen's text log.
pub fn jepsen_log(bytes: &[u8]) {
    read(bytes, Some(Format::JepsenLog));
}

/// Our JSON lines.
pub fn synod(bytes: &[u8]) {
    read(bytes, Some(Format::Synod));
}

/// Whole histories as objects.
pub fn cases(bytes: &[u8]) {
    read(bytes, Some(Format::Cases));
}

/// etcd robustness' reports.
pub fn robustness(bytes: &[u8]) {
    read(bytes, Some(Format::Robustness));
}

/// dbcop's sessions.
pub fn dbcop(bytes: &[u8]) {
    read(bytes, Some(Format::Dbcop));
}

fn read(bytes: &[u8], format: Option<Format>) {
    let options = Options { format, ..Options::default() };
    match formats::read_all(bytes, "fuzz", &options) {
        Ok(histories) => {
            for history in
                histories.iter().filter(|history| history.operations.len() <= OPERATIONS_JUDGED_MAX)
            {
                let budget = Budget { steps_max: STEPS_MAX, memory_max: MEMORY_MAX, ..Budget::default() };
                let report = ladder::check(history, &budget);
                assert!(!json::line(history, &report).is_empty());
            }
        }
        Err(error) => {
            // What is missing at the end of an input may be told as missing on the line behind it.
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u32 + 2;
            assert!((1..=lines).contains(&error.place.line), "{error}: the input ends before line {lines}");
            assert!(error.place.column >= 1 && !error.expected.is_empty(), "{error}");
        }
    }
}
