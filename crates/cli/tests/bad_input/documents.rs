//! `docs/errors.md` and `docs/limits.md` tell of everything that is in the sources.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whatever stands between two quotes in a source, without what is filled in: the pieces between `{` and `}`.
fn literals(source: &str) -> Vec<String> {
    let code =
        source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    code.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every sentence of `status.rs` is explained.
#[test]
fn every_sentence_for_clients_is_explained() {
    let document = text("docs/errors.md");
    let sentences = literals(&text("crates/server/src/status.rs"));
    let sentences: Vec<_> = sentences.iter().filter(|it| it.contains(' ') && !it.contains('{')).collect();
    assert!(sentences.len() > 30, "{sentences:?}");
    let missing: Vec<_> = sentences.into_iter().filter(|it| !document.contains(it.as_str())).collect();
    assert!(missing.is_empty(), "docs/errors.md lacks {missing:#?}");
}

/// Every error of the log, the folder and the member is explained: the longest piece of its sentence that is always the same is there.
#[test]
fn every_reason_not_to_start_is_explained() {
    let document = text("docs/errors.md");
    let mut seen = 0;
    for path in
        ["crates/wal/src/error.rs", "crates/server/src/node/folder.rs", "crates/server/src/node/mod.rs"]
    {
        let source = text(path);
        for error in source.split("#[error(").skip(1) {
            let sentence = literals(error).remove(0);
            let pieces = sentence.split(['{', '}']).step_by(2);
            // Up to the advice, which the document may shorten.
            let pieces = pieces.flat_map(|piece| piece.split([':', ';'])).map(str::trim);
            let Some(longest) = pieces.max_by_key(|piece| piece.len()).filter(|piece| !piece.is_empty())
            else {
                continue;
            };
            seen += 1;
            assert!(document.contains(longest), "docs/errors.md lacks '{longest}' of {path}");
        }
    }
    assert!(seen > 15, "only {seen} errors were found");
}

/// Every constant that ends with `_MAX` is explained.
#[test]
fn every_limit_is_explained() {
    let document = text("docs/limits.md");
    let mut seen = 0;
    for part in ["server", "kv", "wal", "replica", "core"] {
        let mut folders = vec![root().join("crates").join(part).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let source = fs::read_to_string(&path).unwrap_or_default();
                for name in source.lines().filter_map(limit) {
                    seen += 1;
                    assert!(document.contains(name), "docs/limits.md lacks {name} of {}", path.display());
                }
            }
        }
    }
    assert!(seen > 40, "only {seen} limits were found");
}

/// The name that a line gives to a limit, if it does.
fn limit(line: &str) -> Option<&str> {
    let rest = line.trim_start();
    let rest = rest
        .strip_prefix("pub ")
        .or_else(|| rest.strip_prefix("pub(crate) "))
        .or_else(|| rest.strip_prefix("pub(super) "))
        .unwrap_or(rest);
    let name = rest.strip_prefix("const ")?.split(':').next()?;
    name.ends_with("_MAX").then_some(name)
}
