//! The names of the files in a data folder.
//!
//! ```text
//! lock                         held while the folder is in use
//! log-0000000000000007         segment 7 of the log
//! snapshot-00000000000003e8    the state after delivery 1000
//! *.tmp                        one of these in the making; thrown away when the folder is opened
//! ```
//!
//! Other names in the folder are nobody's business here.

use synod_core::Index;

use crate::disk::{Entry, EntryKind};
use crate::error::LogError;

/// A file that is still being made; a rename gives it its own name when it is complete and durable.
pub(crate) const TEMPORARY: &str = ".tmp";

pub(crate) fn segment(number: u64) -> String {
    format!("log-{number:016x}")
}

pub(crate) fn snapshot(at: Index) -> String {
    format!("snapshot-{:016x}", at.0)
}

pub(crate) fn incoming(at: Index) -> String {
    format!("incoming-{:016x}{TEMPORARY}", at.0)
}

/// What a folder holds of ours, each in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) segments: Vec<u64>,
    pub(crate) snapshots: Vec<Index>,
    pub(crate) temporaries: Vec<String>,
}

fn number(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    // Exactly as we write them: "log-+1" or "log-00001" would be another file than the one it is taken for.
    let plain = digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// Sorts out a folder; whatever has one of our names must be a regular file.
pub(crate) fn sort_out(entries: &[Entry], path: impl Fn(&str) -> String) -> Result<Contents, LogError> {
    let mut contents = Contents::default();
    for entry in entries {
        let name = entry.name.as_str();
        let ours = ["log-", "snapshot-", "incoming-"].iter().any(|prefix| name.starts_with(prefix));
        if let Some(number) = number(name, "log-") {
            contents.segments.push(number);
        } else if let Some(at) = number(name, "snapshot-") {
            contents.snapshots.push(Index(at));
        } else if ours && name.ends_with(TEMPORARY) {
            contents.temporaries.push(name.to_owned());
        } else {
            continue;
        }
        let what = match entry.kind {
            EntryKind::File => continue,
            EntryKind::Folder => "a folder",
            EntryKind::Link => "a symbolic link",
            EntryKind::Special => "a pipe, a socket or a device",
        };
        return Err(LogError::NotAFile { file: path(name), what });
    }
    contents.segments.sort_unstable();
    contents.snapshots.sort_unstable();
    Ok(contents)
}
