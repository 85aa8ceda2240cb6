//! The ladder on histories with known verdicts at every level: the seed's figures, POPL'17, and a thousand small ones.

use std::path::{Path, PathBuf};

use synod_check::budget::Budget;
use synod_check::formats::{Options, read_all};
use synod_check::ladder;
use synod_check::verdict::{Level, Report, Verdict};

fn oracles() -> Option<PathBuf> {
    let place = std::env::var_os("SYNOD_ORACLES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracles"), PathBuf::from);
    if place.join("MANIFEST.tsv").exists() {
        return Some(place);
    }
    println!("no oracles at {}: set SYNOD_ORACLES; skipped", place.display());
    None
}

fn reports(text: &str, name: &str) -> Vec<Report> {
    let histories = read_all(text.as_bytes(), name, &Options::default()).expect("a history");
    histories.iter().map(|history| ladder::check(history, &Budget::default())).collect()
}

fn holds(report: &Report, level: Level) -> Option<bool> {
    report.finding(level).and_then(|finding| finding.verdict.decided())
}

/// The levels by the names that the files use.
const NAMES: [(&str, Level); 6] = [
    ("linearizable", Level::Linearizable),
    ("sequential", Level::Sequential),
    ("causal_CM", Level::CausalMemory),
    ("causal_CC", Level::Causal),
    ("causal_CCv", Level::CausalConvergence),
    ("pram", Level::Pram),
];

fn agree(report: &Report, verdicts: &serde_json::Value) {
    for (name, level) in NAMES {
        if let Some(expected) = verdicts[name].as_bool() {
            assert_eq!(holds(report, level), Some(expected), "{}: {name}", report.name);
        }
    }
}

fn figure(name: &str) -> Option<Report> {
    let text = std::fs::read_to_string(oracles()?.join("seed").join(name)).expect("the seed's figure");
    let report = reports(&text, name).remove(0);
    let file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    agree(&report, &file["verdicts"]);
    Some(report)
}

/// The seed's figure 1 is sequentially consistent but not linearizable.
#[test]
fn seed_figure_1_is_sequential_but_not_linearizable() {
    let Some(report) = figure("fig1.json") else { return };
    assert_eq!(report.strongest(), Some(Level::Sequential));
}

/// The seed's figure 2 is linearizable, and so has every level.
#[test]
fn seed_figure_2_is_linearizable() {
    let Some(report) = figure("fig2.json") else { return };
    assert!(Level::ALL.into_iter().all(|level| holds(&report, level) == Some(true)));
}

/// The seed's figure 3 is not even sequentially consistent.
#[test]
fn seed_figure_3_is_not_sequential() {
    let Some(report) = figure("fig3.json") else { return };
    assert_eq!(holds(&report, Level::Sequential), Some(false));
}

/// The seed's causal example is causal (CM and CC) but neither convergent nor sequential.
#[test]
fn seed_causal_example_is_cm_and_cc_but_not_ccv() {
    let Some(report) = figure("fig4_causal.json") else { return };
    assert_eq!(report.maximal().first(), Some(&Level::CausalMemory));
    assert_eq!(holds(&report, Level::CausalConvergence), Some(false));
}

/// The five histories of POPL'17 get the paper's verdicts; they have no real time, so linearizable is false or unknown.
#[test]
fn popl17_histories_get_the_papers_verdicts() {
    let Some(oracles) = oracles() else { return };
    let manifest = std::fs::read_to_string(oracles.join("MANIFEST.tsv")).expect("a manifest");
    let mut judged = 0;
    for line in manifest.lines().filter(|line| line.starts_with("causal/popl17/")) {
        let fields: Vec<&str> = line.split('\t').collect();
        let text = std::fs::read_to_string(oracles.join(fields[0])).expect("a history");
        let report = reports(&text, fields[0]).remove(0);
        agree(&report, &serde_json::from_str(fields[2]).expect("verdicts"));
        assert_ne!(holds(&report, Level::Linearizable), Some(true));
        judged += 1;
    }
    assert_eq!(judged, 5);
}

/// The thousand small histories get their brute-force verdicts at every level, and no two verdicts contradict each other.
#[test]
fn small_histories_get_their_verdicts_at_every_level() {
    let Some(oracles) = oracles() else { return };
    let text =
        std::fs::read_to_string(oracles.join("causal/small_histories.jsonl")).expect("small histories");
    let reports = reports(&text, "small");
    assert_eq!(reports.len(), 1000);
    for (line, report) in text.lines().zip(&reports) {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        agree(report, &line["verdicts"]);
        for (strong, weak) in Level::ALL.into_iter().flat_map(|a| Level::ALL.map(|b| (a, b))) {
            let contradicts = strong.implies(weak)
                && holds(report, strong) == Some(true)
                && holds(report, weak) != Some(true);
            assert!(!contradicts, "{}: {strong:?} but not {weak:?}", report.name);
        }
    }
}

/// etcd's store read from a lagging member: not linearizable, but sequential, by the revisions in the replies.
#[test]
fn a_stale_etcd_read_is_sequential() {
    let text = r#"
{"process":0,"start":0,"end":1,"request":{"put":{"key":"a","value":"1"}},"reply":{"revision":2}}
{"process":0,"start":2,"end":3,"request":{"put":{"key":"a","value":"2"}},"reply":{"revision":3}}
{"process":1,"start":4,"end":5,"request":{"range":{"key":"a"}},"reply":{"revision":2,"pairs":[{"key":"a","value":"1","mod":2}],"count":1}}
"#;
    let report = reports(text, "stale").remove(0);
    assert_eq!(holds(&report, Level::Linearizable), Some(false));
    assert_eq!(report.strongest(), Some(Level::Sequential));
}

/// The same store going back in time for one process: monotonic reads fail, and the operations named are the file's.
#[test]
fn an_etcd_read_that_goes_back_breaks_monotonic_reads() {
    let text = r#"
{"process":0,"start":0,"end":1,"request":{"put":{"key":"a","value":"1"}},"reply":{"revision":2}}
{"process":0,"start":2,"end":3,"request":{"put":{"key":"a","value":"2"}},"reply":{"revision":3}}
{"process":1,"start":4,"end":5,"request":{"range":{"key":"a","serializable":true}},"reply":{"revision":3,"pairs":[{"key":"a","value":"2","mod":3}],"count":1}}
{"process":1,"start":6,"end":7,"request":{"range":{"key":"a","serializable":true}},"reply":{"revision":2,"pairs":[{"key":"a","value":"1","mod":2}],"count":1}}
"#;
    let report = reports(text, "back").remove(0);
    assert_eq!(holds(&report, Level::Linearizable), Some(false));
    assert_eq!(holds(&report, Level::Sequential), Some(false));
    assert_eq!(holds(&report, Level::MonotonicReads), Some(false));
    assert_eq!(holds(&report, Level::ReadYourWrites), Some(true));
    let finding = report.finding(Level::MonotonicReads).unwrap();
    let Verdict::Violated(evidence) = &finding.verdict else { panic!("{finding:?}") };
    assert!(evidence.operations.contains(&2) && evidence.operations.contains(&3), "{evidence:?}");
}
