//! `synod simulate generals`: what the paper proves, and the page that shows it.

use std::process::{Command, Output};

use serde_json::Value;

fn generals(arguments: &[&str]) -> Output {
    let command = ["simulate", "generals"];
    let output = Command::new(env!("CARGO_BIN_EXE_synod")).args(command).args(arguments).output();
    output.expect("the binary was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The committed page is what the command prints, and every row of it is as the paper proves. SYNOD_UPDATE=1 writes it anew.
#[test]
fn the_page_is_what_is_printed() {
    let output = generals(&[]);
    assert!(output.status.success(), "{}", text(&output.stdout));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/papers/generals.md");
    if std::env::var_os("SYNOD_UPDATE").is_some() {
        std::fs::write(path, &output.stdout).expect("the page can be written");
    }
    let committed = std::fs::read(path).unwrap_or_default();
    assert!(output.stdout == committed, "{path} is not what `synod simulate generals` prints");
}

/// A broken game is told, and the command that it prints tells the same story again: among all games, and among seeds.
#[test]
fn a_broken_game_is_replayed() {
    for arguments in [
        &["--generals", "3", "--exhaustive"][..],
        &["--generals", "6", "--traitors", "2", "--seeds", "500"],
        &["--generals", "4", "--traitors", "2", "--rounds", "1", "--algorithm", "signed", "--exhaustive"],
        &["--generals", "5", "--traitors", "3", "--rounds", "2", "--algorithm", "signed", "--seeds", "500"],
    ] {
        let output = generals(arguments);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let (_, rest) = said.split_once("the first broken game:\n").expect("a game is told");
        let (story, command) =
            rest.split_once("\nreplay: synod simulate generals ").expect("with its command");
        let again: Vec<&str> = command.split_whitespace().collect();
        let replayed = generals(&again);
        assert_eq!(text(&replayed.stdout), story, "{arguments:?}");
        assert_eq!(replayed.status.code(), Some(1), "{arguments:?}");
    }
}

/// What holds is said so, with the count of messages, as JSON too; one seed is told whether it breaks or not.
#[test]
fn what_holds_is_counted() {
    let output = generals(&["--generals", "7", "--traitors", "2", "--exhaustive", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(found["is_broken"], false);
    assert_eq!(found["promised"], true);
    assert_eq!(found["messages"]["counted"], 6 + 6 * 5 + 6 * 5 * 4);
    assert_eq!(found["messages"]["formula"], found["messages"]["counted"]);
    assert_eq!(found["messages"]["deepest"], 6 * 5 * 4);
    let one = text(&generals(&["--generals", "4", "--seed", "7"]).stdout);
    assert!(
        one.starts_with("OM(1), 4 generals, 1 traitor: ") && one.ends_with("IC1 and IC2 hold\n"),
        "{one}"
    );
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let page = folder.path().join("page.md");
    let into = generals(&["--generals", "4", "--seed", "7", "--into", &page.to_string_lossy()]);
    assert_eq!(text(&into.stdout).trim_end(), page.to_string_lossy());
    assert_eq!(std::fs::read_to_string(page).expect("it was written"), one);
}
