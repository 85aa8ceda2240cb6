//! Numbers of generals, traitors and rounds as nobody should give them to `synod simulate generals`.
//!
//! Status 2 and one sentence that says what is possible, word by word; where clap finds the mistake, what it says of it.

use std::process::{Command, Stdio};

use crate::common::SYNOD;

/// Runs the command, and demands status 2 and nothing on the standard output.
fn refused(arguments: &[&str]) -> String {
    let mut command = Command::new(SYNOD);
    command.args(["simulate", "generals"]).args(arguments).stdin(Stdio::null());
    let output = command.output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty() && !said.contains("panicked"), "{arguments:?}: {said}");
    said
}

/// Every sentence, word by word.
#[test]
fn wrong_numbers() {
    let table: [(&[&str], &str); 14] = [
        (&["--generals=0"], "--generals 0: 2 to 10 are possible"),
        (&["--generals=1"], "--generals 1: 2 to 10 are possible"),
        (&["--generals=11"], "--generals 11: 2 to 10 are possible"),
        (
            &["--generals=4", "--traitors=4"],
            "--traitors 4: 0 to 3 are possible among 4 generals: somebody is loyal",
        ),
        (
            &["--generals=2", "--traitors=7", "--algorithm=signed"],
            "--traitors 7: 0 to 1 are possible among 2 generals: somebody is loyal",
        ),
        (
            &["--generals=4", "--rounds=3"],
            "--rounds 3: 0 to 2 are possible among 4 generals: an order is passed on to somebody who has not had it",
        ),
        (&["--generals=4", "--seeds=0"], "--seeds 0: 1 to 10000000 are possible"),
        (&["--seeds=10000001"], "--seeds 10000001: 1 to 10000000 are possible"),
        (&["--generals=4", "--seed=18446744073709551615"], "--seed and --seeds together are beyond 2^64"),
        (
            &["--generals=3", "--exhaustive", "--game=12"],
            "--game 12: 0 to 11 are possible with OM(1), 3 generals, 1 traitor",
        ),
        (
            &["--generals=10", "--traitors=3", "--exhaustive", "--algorithm=signed"],
            "--exhaustive: SM(3), 10 generals, 3 traitors can go 2^44.5 ways; at most 16777216 are played, and only oral messages \
             with few outcomes are decided together: --seeds draws some of them",
        ),
        (
            &["--generals=10", "--traitors=4", "--exhaustive"],
            "--exhaustive: OM(4), 10 generals, 4 traitors can go 2^5208.0 ways; at most 16777216 are played, and only oral messages \
             with few outcomes are decided together: --seeds draws some of them",
        ),
        (
            &["--generals=4", "--into=/no/such/folder/page"],
            "/no/such/folder/page: No such file or directory (os error 2)",
        ),
        (&["--generals=4", "--seeds=5", "--into=/"], "/: Is a directory (os error 21)"),
    ];
    for (arguments, sentence) in table {
        assert_eq!(refused(arguments), format!("synod simulate: {sentence}\n"), "{arguments:?}");
    }
}

/// What is no number, what belongs to nothing, and what contradicts itself.
#[test]
fn flags_that_do_not_fit() {
    let table: [(&[&str], &str); 9] = [
        (&["--generals=many"], "invalid value 'many' for '--generals <N>'"),
        (&["--generals=-1"], "invalid value '-1' for '--generals <N>'"),
        (&["--generals=4", "--algorithm=written"], "[possible values: oral, signed]"),
        (&["--traitors=1"], "--generals <N>"),
        (&["--rounds=1"], "--generals <N>"),
        (&["--algorithm=signed"], "--generals <N>"),
        (&["--exhaustive"], "--generals <N>"),
        (&["--generals=4", "--game=1"], "--exhaustive"),
        (&["--generals=4", "--exhaustive", "--seeds=5"], "cannot be used with"),
    ];
    for (arguments, part) in table {
        let said = refused(arguments);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}
