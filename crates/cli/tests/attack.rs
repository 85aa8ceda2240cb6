//! `synod simulate attack`: the races converge to the exact chance, and not to the paper's.

use std::process::{Command, Output};

use serde_json::Value;

fn attack(arguments: &[&str]) -> Output {
    let command = ["simulate", "attack"];
    let output = Command::new(env!("CARGO_BIN_EXE_synod")).args(command).args(arguments).output();
    output.expect("the binary was built")
}

/// The tables of the paper, with the exact column beside it (`fixtures/nakamoto.json`).
fn tables() -> Value {
    let text = include_str!("fixtures/nakamoto.json");
    serde_json::from_str(text).expect("it is JSON")
}

/// The formulas give both columns of the tables, to the digits that they print; the races lie within five standard deviations of the
/// exact one in every row, and far beside the paper's where the two differ; a real replica agrees in every race that is run again.
#[test]
fn races_converge_to_the_exact_column() {
    let output = attack(&["--trials", "200000", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let found: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let rows = found["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 22);
    let tables = tables();
    let number = |value: &Value| value.as_f64().expect("a number");
    let mut beside = 0;
    for row in rows {
        let table = &tables[&format!("q{}", row["share"])][row["confirmations"].to_string()];
        assert!((number(&row["exact"]) - number(&table["exact"])).abs() < 5.1e-8, "{row} {table}");
        assert!((number(&row["nakamoto"]) - number(&table["poisson"])).abs() < 5.1e-8, "{row} {table}");
        assert_eq!(row["agreed"], row["replays"], "{row}");
        let (exact, simulated) = (number(&table["exact"]), number(&row["simulated"]));
        let sigma = (exact * (1.0 - exact) / number(&row["trials"])).sqrt();
        assert!((simulated - exact).abs() <= 5.0 * sigma, "{row}");
        beside += u32::from((simulated - number(&table["poisson"])).abs() > 5.0 * sigma.max(1e-9));
    }
    assert!(beside >= 10, "the paper's column would do as well: {beside}");
    for row in found["confirmations_for_one_in_a_thousand"].as_array().expect("rows") {
        for (ours, theirs) in [("exact", "z_for_0.1pct_exact"), ("nakamoto", "z_for_0.1pct_poisson")] {
            assert_eq!(row[ours], tables[theirs][&row["share"].to_string()], "{row}");
        }
    }
}

/// The committed page is what the command prints. SYNOD_UPDATE=1 writes it anew.
#[test]
fn the_page_is_what_is_printed() {
    let output = attack(&[]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/papers/attack.md");
    if std::env::var_os("SYNOD_UPDATE").is_some() {
        std::fs::write(path, &output.stdout).expect("the page can be written");
    }
    let committed = std::fs::read(path).unwrap_or_default();
    assert!(output.stdout == committed, "{path} is not what `synod simulate attack` prints");
}

/// What is out of range is refused by name, with what is allowed.
#[test]
fn mistakes_are_named() {
    for (arguments, why) in [
        (["--share", "0.5"], "--share 0.5: a number between 0 and 0.5 expected"),
        (["--share", "0"], "--share 0: a number between 0 and 0.5 expected"),
        (["--share", "half"], "--share half: a number"),
        (["--share", "NaN"], "--share NaN: a number"),
        (["--confirmations", "1001"], "--confirmations 1001: a whole number from 0 to 1000"),
        (["--confirmations", "six"], "--confirmations six: a whole number"),
        (["--trials", "0"], "--trials 0: 1 to 10000000 are possible"),
        (["--trials", "many"], "invalid value 'many'"),
    ] {
        let output = attack(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(why) && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}
