//! The histories with known verdicts in the causal levels: five of the paper, a thousand small ones.

mod common;

use serde_json::Value as Json;
use synod_check::budget::Budget;
use synod_check::generate::Script;
use synod_check::history::History;
use synod_check::reads_from::ReadsFrom;
use synod_check::verdict::Level;
use synod_check::{brute, causal, eventual, sequential};

/// The published name of each class, and our level.
const CLASSES: [(&str, Level); 4] = [
    ("causal_CM", Level::CausalMemory),
    ("causal_CC", Level::Causal),
    ("causal_CCv", Level::CausalConvergence),
    ("pram", Level::Pram),
];

fn assert_verdicts(name: &str, history: &History, verdicts: &Json) {
    let reads_from = ReadsFrom::of(history).expect("values are unique");
    for (class, level) in CLASSES {
        let published = verdicts[class].as_bool();
        assert!(published.is_some(), "{name} has no {class}");
        assert_eq!(brute::holds(history, level), published, "brute force, {name}, {class}");
        let violates = causal::violates(&reads_from, level, &Budget::default()).expect("small");
        assert_eq!(Some(!violates), published, "algorithm, {name}, {class}");
    }
    let violates = sequential::violates(&reads_from, &Budget::default()).expect("small");
    assert_eq!(Some(!violates), verdicts["sequential"].as_bool(), "algorithm, {name}, sequential");
    for (class, level) in [("linearizable", Level::Linearizable), ("sequential", Level::Sequential)] {
        if let (Some(published), Some(found)) = (verdicts[class].as_bool(), brute::holds(history, level)) {
            assert_eq!(found, published, "brute force, {name}, {class}");
        }
    }
    assert_eq!(Some(eventual::last_reads_agree(history)), verdicts["last_reads_agree"].as_bool(), "{name}");
    assert_eq!(
        brute::last_reads_agree(history),
        verdicts["last_reads_agree"].as_bool(),
        "{name}, last reads"
    );
}

#[test]
fn the_five_histories_of_the_paper_get_their_verdicts() {
    let Some(folder) = common::oracles() else { return };
    let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).expect("manifest");
    let mut seen = 0;
    for line in manifest.lines().filter(|line| line.starts_with("causal/popl17")) {
        let fields: Vec<&str> = line.split('\t').collect();
        let text = std::fs::read_to_string(folder.join(fields[0])).expect("history");
        let verdicts: Json = serde_json::from_str(fields[2]).expect("verdicts");
        assert_verdicts(fields[0], &common::popl17(&text), &verdicts);
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn the_thousand_small_histories_get_their_verdicts_in_every_class() {
    let Some(folder) = common::oracles() else { return };
    let text = std::fs::read_to_string(folder.join("causal/small_histories.jsonl")).expect("histories");
    let mut seen = 0;
    for line in text.lines() {
        let json: Json = serde_json::from_str(line).expect("json");
        assert_verdicts(&format!("small history {}", json["id"]), &common::history(&json), &json["verdicts"]);
        seen += 1;
    }
    assert_eq!(seen, 1000);
}

#[test]
fn the_seed_figures_get_their_published_verdicts() {
    let Some(folder) = common::oracles() else { return };
    for name in ["fig1", "fig2", "fig3", "fig4_causal"] {
        let text = std::fs::read_to_string(folder.join(format!("seed/{name}.json"))).expect("figure");
        let json: Json = serde_json::from_str(&text).expect("json");
        assert_verdicts(name, &common::history(&json), &json["verdicts"]);
    }
}

/// What the algorithms say, and for linearizability the definition.
fn levels(history: &History) -> [(&'static str, bool); 6] {
    let reads_from = ReadsFrom::of(history).expect("values are unique");
    let budget = Budget::default();
    let causal = |level| !causal::violates(&reads_from, level, &budget).expect("small");
    [
        ("linearizable", brute::holds(history, Level::Linearizable).expect("small")),
        ("sequential", !sequential::violates(&reads_from, &budget).expect("small")),
        ("CCv", causal(Level::CausalConvergence)),
        ("CM", causal(Level::CausalMemory)),
        ("CC", causal(Level::Causal)),
        ("PRAM", causal(Level::Pram)),
    ]
}

#[test]
fn figure_1_is_sequential_but_not_linearizable() {
    let history = Script::new()
        .write("P1", "x", 4)
        .at(0, 10)
        .write("P2", "y", 2)
        .at(5, 15)
        .read("P2", "x", 0)
        .at(20, 30)
        .read("P1", "y", 2)
        .at(40, 50)
        .history();
    let [linearizable, sequential, ..] = levels(&history);
    assert_eq!([linearizable, sequential], [("linearizable", false), ("sequential", true)]);
}

#[test]
fn figure_2_is_linearizable() {
    let history = Script::new()
        .write("P2", "y", 2)
        .at(0, 10)
        .write("P1", "x", 4)
        .at(5, 15)
        .read("P2", "x", 4)
        .at(20, 30)
        .read("P1", "y", 2)
        .at(25, 35)
        .history();
    assert!(levels(&history).iter().all(|(_, holds)| *holds));
}

#[test]
fn figure_3_is_not_sequential_but_causal() {
    let history = Script::new()
        .write("P1", "x", 4)
        .at(0, 10)
        .write("P2", "y", 2)
        .at(0, 10)
        .read("P1", "y", 0)
        .at(20, 30)
        .read("P2", "x", 0)
        .at(20, 30)
        .history();
    let [linearizable, sequential, weaker @ ..] = levels(&history);
    assert_eq!([linearizable, sequential], [("linearizable", false), ("sequential", false)]);
    assert!(weaker.iter().all(|(_, holds)| *holds));
}

#[test]
fn figure_4_is_causal_but_neither_convergent_nor_sequential() {
    let history = Script::new()
        .write("P1", "x", 7)
        .at(0, 10)
        .write("P2", "x", 2)
        .at(0, 10)
        .write("P2", "x", 4)
        .at(15, 25)
        .read("P3", "x", 7)
        .at(30, 40)
        .read("P4", "x", 4)
        .at(30, 40)
        .read("P3", "x", 2)
        .at(45, 55)
        .read("P4", "x", 7)
        .at(45, 55)
        .history();
    let expected = [
        ("linearizable", false),
        ("sequential", false),
        ("CCv", false),
        ("CM", true),
        ("CC", true),
        ("PRAM", true),
    ];
    assert_eq!(levels(&history), expected);
}
