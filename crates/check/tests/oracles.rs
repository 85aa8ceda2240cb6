//! Every history with a published verdict gets that verdict.
//!
//! The cases lie outside the repository (`../shared/oracles`, or where `SYNOD_ORACLES` says); where they are absent the
//! tests say so and pass, and the small fixtures of `tests/fixtures` stand in.

use std::path::{Path, PathBuf};

use synod_check::budget::Budget;
use synod_check::formats::{Options, read_all};
use synod_check::history::History;
use synod_check::linearizable;

fn oracles() -> Option<PathBuf> {
    let place = std::env::var_os("SYNOD_ORACLES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracles"), PathBuf::from);
    if place.join("MANIFEST.tsv").exists() {
        return Some(place);
    }
    println!("no oracles at {}: set SYNOD_ORACLES; skipped", place.display());
    None
}

fn load(path: &Path) -> Vec<History> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    read_all(std::io::BufReader::new(file), &name, &Options::default())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_linearizable(history: &History) -> Option<bool> {
    linearizable::check(history, &Budget::default()).0.decided()
}

/// Every case of the manifest with a linearizability verdict gets it: Porcupine's logs and Knossos' registers.
#[test]
fn published_linearizability_verdicts() {
    let Some(oracles) = oracles() else { return };
    let manifest = std::fs::read_to_string(oracles.join("MANIFEST.tsv")).expect("a manifest");
    let mut wrong = Vec::new();
    let mut judged = 0;
    for line in manifest.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.get(1) != Some(&"linearizability") {
            continue;
        }
        judged += 1;
        let expected = Some(fields[2] == "linearizable");
        for history in load(&oracles.join(fields[0])) {
            let found = is_linearizable(&history);
            if found != expected {
                wrong.push(format!("{}: expected {expected:?}, found {found:?}", fields[0]));
            }
        }
    }
    assert!(judged > 80, "only {judged} cases in the manifest");
    assert!(wrong.is_empty(), "{} of {judged} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The thousand small histories: the linearizable class agrees with brute force, one by one.
#[test]
fn small_histories_linearizable_class() {
    let Some(oracles) = oracles() else { return };
    let path = oracles.join("causal/small_histories.jsonl");
    let text = std::fs::read_to_string(&path).expect("small histories");
    let histories = load(&path);
    assert_eq!(histories.len(), 1000);
    for (line, history) in text.lines().zip(&histories) {
        let said: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let expected = said["verdicts"]["linearizable"].as_bool();
        assert_eq!(is_linearizable(history), expected, "{}: {line}", history.name);
    }
}

fn figure(name: &str) -> Option<bool> {
    let path = oracles()?.join("seed").join(name);
    is_linearizable(&load(&path)[0])
}

/// The seed's figure 1 is not linearizable.
#[test]
fn seed_figure_1_is_not_linearizable() {
    assert!(matches!(figure("fig1.json"), None | Some(false)));
}

/// The seed's figure 2 is linearizable.
#[test]
fn seed_figure_2_is_linearizable() {
    assert!(matches!(figure("fig2.json"), None | Some(true)));
}

/// The seed's figure 3 is not linearizable (it is not even sequential).
#[test]
fn seed_figure_3_is_not_linearizable() {
    assert!(matches!(figure("fig3.json"), None | Some(false)));
}

/// elle-cli's set and bank are valid, the list-append example of Elle's paper is not.
#[test]
fn elle_cli_verdicts_where_the_model_fits() {
    let Some(oracles) = oracles() else { return };
    for (name, expected) in [
        ("jepsen/set.edn", true),
        ("jepsen/bank-neg.edn", true),
        ("elle/paper-example.edn", false),
        ("elle/paper-example.json", false),
    ] {
        let found = is_linearizable(&load(&oracles.join("elle-cli/histories").join(name))[0]);
        assert_eq!(found, Some(expected), "{name}");
    }
}
