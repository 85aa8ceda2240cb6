//! The files of golden traces: reading, replaying, comparing, rewriting.

use std::fmt::Write as _;
use std::path::Path;

use synod_core::Protocol;

use super::cluster::Order;
use super::command::{OptionParser, Runner, ScriptError};

/// Replays a script and gives back the whole text with the effects that really happened.
///
/// # Errors
/// [`ScriptError`] with line and column when the script is malformed, or asks for what is not there.
pub fn replay<P: Protocol>(
    text: &str,
    order: Order,
    options: OptionParser<P>,
) -> Result<String, ScriptError> {
    let mut runner = Runner::<P>::new(order, options);
    let mut result = String::new();
    let mut effects = String::new();
    let mut in_effects = false;
    let mut commands = 0;
    for (number, line) in text.lines().enumerate() {
        if in_effects {
            // Old effects end with the first blank line.
            in_effects = !line.is_empty();
            if in_effects {
                continue;
            }
        }
        if line == "---" {
            finish(&mut result, &mut effects, &mut commands);
            in_effects = true;
            continue;
        }
        if line.is_empty() && commands > 0 {
            finish(&mut result, &mut effects, &mut commands);
        }
        if !line.is_empty() && !line.starts_with('#') {
            runner.line(number + 1, line, &mut effects)?;
            commands += 1;
        }
        let _ = writeln!(result, "{line}");
    }
    if commands > 0 {
        finish(&mut result, &mut effects, &mut commands);
    }
    Ok(result)
}

fn finish(result: &mut String, effects: &mut String, commands: &mut usize) {
    result.push_str("---\n");
    result.push_str(effects);
    effects.clear();
    *commands = 0;
}

/// Replays one golden file and compares; with `SYNOD_UPDATE=1` writes it anew.
///
/// # Panics
/// When the file cannot be read, is malformed, or something else happens than it says: this is a test.
#[expect(clippy::disallowed_methods, reason = "golden files are read and written by tests alone")]
pub fn check_file<P: Protocol>(path: &Path, order: Order, options: OptionParser<P>) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let really =
        replay::<P>(&text, order, options).unwrap_or_else(|error| panic!("{}:{error}", path.display()));
    if really == text {
        return;
    }
    if std::env::var_os("SYNOD_UPDATE").is_some() {
        std::fs::write(path, really).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let differs = text.lines().zip(really.lines()).position(|(said, happened)| said != happened);
    let line = differs.unwrap_or_else(|| text.lines().count().min(really.lines().count()));
    panic!(
        "{}:{}: something else happened\n  file says: {}\n  happened:  {}\nSYNOD_UPDATE=1 writes the file anew; read the difference before you commit it",
        path.display(),
        line + 1,
        text.lines().nth(line).unwrap_or("(end)"),
        really.lines().nth(line).unwrap_or("(end)"),
    );
}

/// Checks every `*.trace` file of a folder; gives back how many there were.
///
/// # Panics
/// As [`check_file`], and when the folder holds none.
pub fn check_folder<P: Protocol>(folder: &Path, order: Order, options: OptionParser<P>) -> usize {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "trace"));
    paths.sort();
    assert!(!paths.is_empty(), "{}: no traces", folder.display());
    for path in &paths {
        check_file::<P>(path, order, options);
    }
    paths.len()
}
