//! The house rules that a machine can see: floors, stories, sizes, and what must never be committed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Crates by floor: one may depend on lower floors only, and beside nobody on its own floor.
const FLOORS: &[(&str, u8)] = &[
    ("synod-core", 0),
    ("synod-protocols", 1),
    ("synod-kv", 1),
    ("synod-wal", 1),
    ("synod-check", 1),
    ("synod-api", 1),
    ("synod-http2", 1),
    ("synod-replica", 2),
    ("synod-sim", 3),
    ("synod-server", 3),
    ("synod-load", 3),
    ("synod-cli", 4),
];

/// One file for each protocol beside the command that runs them, included by the simulator's tests as well.
const FAMILIES: &str = "crates/cli/src/simulate/families";

/// Folders of the protocols' crate that are no protocol: what several of them are built on.
const SHARED: &[&str] = &["flow"];

/// Lines that a source file may have without a reason.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// Every file that git tracks or would track, relative to the root.
fn files() -> Vec<PathBuf> {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let Ok(listed) = listed.as_ref().map(|output| String::from_utf8_lossy(&output.stdout)) else {
        return Vec::new();
    };
    listed.lines().map(PathBuf::from).filter(|path| root().join(path).is_file()).collect()
}

fn rust_sources() -> Vec<(PathBuf, String)> {
    let written_by_hand = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "rs")
            && !path.components().any(|part| part.as_os_str() == "gen")
    };
    let read = |path: PathBuf| fs::read_to_string(root().join(&path)).ok().map(|text| (path, text));
    files().into_iter().filter(written_by_hand).filter_map(read).collect()
}

fn complain(problems: &[String], rule: &str) {
    assert!(problems.is_empty(), "{rule}\n{}", problems.join("\n"));
}

/// A crate imports lower floors only, so that a protocol can never come to know a socket.
#[test]
fn crates_import_lower_floors_only() {
    let floors: BTreeMap<&str, u8> = FLOORS.iter().copied().collect();
    let mut problems = Vec::new();
    for entry in fs::read_dir(root().join("crates")).expect("the crates").flatten() {
        let Ok(manifest) = fs::read_to_string(entry.path().join("Cargo.toml")) else { continue };
        let field = manifest.lines().find_map(|line| line.strip_prefix("name = \""));
        let name = field.and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let Some(floor) = floors.get(name) else {
            problems.push(format!("{name}: on no floor; add it to the table in this test"));
            continue;
        };
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if floors.get(dependency).is_some_and(|other| other >= floor) {
                problems.push(format!("{name} (floor {floor}) imports {dependency}"));
            }
        }
    }
    complain(&problems, "a crate imports lower floors only");
}

/// One protocol never imports another: what they share belongs to core.
#[test]
fn protocols_do_not_import_one_another() {
    let folder = root().join("crates/protocols/src");
    let entries = fs::read_dir(&folder).expect("the protocols").flatten();
    let names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !SHARED.contains(&name.as_str()))
        .collect();
    let mut problems = Vec::new();
    for (path, text) in rust_sources() {
        let Ok(inside) = path.strip_prefix("crates/protocols/src") else { continue };
        for other in names.iter().filter(|name| !inside.starts_with(name)) {
            if inside.components().count() > 1 && text.contains(&format!("crate::{other}")) {
                problems.push(format!("{} imports crate::{other}", path.display()));
            }
        }
    }
    complain(&problems, "one protocol never imports another");
}

/// A file opens with its story, and is short enough to be read in one sitting.
#[test]
fn files_open_with_a_story_and_end_in_time() {
    let mut problems = Vec::new();
    for (path, text) in rust_sources() {
        if !text.starts_with("//!") && !text.starts_with("#!") {
            problems.push(format!("{}: does not open with its story (`//!`)", path.display()));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX && !text.contains("tidy: long because") {
            problems.push(format!(
                "{}: {lines} lines; split it, or say `tidy: long because ...`",
                path.display()
            ));
        }
        let inside = path.iter().skip_while(|part| *part != "src").count();
        if path.starts_with("crates") && inside > 3 && !path.starts_with(FAMILIES) {
            problems.push(format!("{}: folders are one level deep under src", path.display()));
        }
    }
    complain(&problems, "files of 60 to 400 lines that open with their story");
}

/// Nothing is left open, unexplained or machine-dependent in what is committed.
#[test]
fn nothing_is_left_open() {
    // Put together here, so that this file does not contain what it looks for.
    let forbidden = [
        ["tod", "o!("].concat(),
        ["unimplement", "ed!("].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X:"].concat(),
        ["db", "g!("].concat(),
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/tmp/tar", "get"].concat(),
    ];
    let mut problems = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        if path.ends_with("Cargo.lock") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(found) = forbidden.iter().find(|word| line.contains(word.as_str())) {
                problems.push(format!("{}:{}: {found}", path.display(), number + 1));
            }
        }
    }
    complain(&problems, "nothing is left open, and no path of one machine is committed");
}

/// The safe language suffices: no crate of ours needs `unsafe` without saying why it is sound.
#[test]
fn unsafe_has_its_reason() {
    let mut problems = Vec::new();
    for (path, text) in rust_sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens =
                code.contains(&["unsafe", " {"].concat()) || code.contains(&["unsafe", " impl"].concat());
            let explained =
                lines[number.saturating_sub(3)..=number].iter().any(|line| line.contains("SAFETY"));
            if opens && !explained {
                problems.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    complain(&problems, "unsafe code says why it is sound (`// SAFETY:`)");
}

/// The documents that a newcomer looks for are there, and the README's two commands are the ones that CI runs.
#[test]
fn the_documents_are_there() {
    for name in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "justfile", ".ci/run"]
    {
        assert!(root().join(name).is_file(), "{name} is missing");
    }
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let ci = fs::read_to_string(root().join(".ci/run")).expect(".ci/run");
    assert!(readme.contains("cargo run --release"), "the README says how to run it");
    let command = "cargo test --workspace --release";
    assert!(readme.contains(command) && ci.contains(command), "CI runs the README's test command: {command}");
}
