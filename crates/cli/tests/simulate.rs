//! `synod simulate` as a person or a batch engine runs it.

use std::path::Path;
use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_synod")).arg("simulate").args(arguments).output();
    output.expect("the binary was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("--json writes JSON")
}

fn write(folder: &Path, name: &str, content: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("a temporary folder can be written");
    path.to_string_lossy().into_owned()
}

/// Three shards, run apart and merged, come to the very report of the whole: seeds, hashes, counts and faults.
#[test]
fn shards_merge_to_the_whole() {
    let seeds = ["--seeds", "9", "--seconds", "5", "--json"];
    let whole = json(&simulate(&seeds));
    assert_eq!(whole["seeds"].as_array().map(Vec::len), Some(9));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut files = Vec::new();
    for shard in ["0/3", "1/3", "2/3"] {
        let part = simulate(&[&seeds[..], &["--shard", shard]].concat());
        json(&part);
        files.push(write(folder.path(), &shard.replace('/', "-"), &part.stdout));
    }
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let merged = json(&simulate(&[&["merge", "--json"], &files[..]].concat()));
    for field in ["seeds", "failures", "counts", "faults", "crash_points", "partitions"] {
        assert_eq!(merged[field], whole[field], "{field}");
    }
}

/// What is wrong is said, with what is possible, and with line and column where there are such.
#[test]
fn mistakes_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let script = write(folder.path(), "bad.trace", b"# A story.\ncluster 3\n\nfly 1 to 2\n");
    let report = write(folder.path(), "bad.json", b"{\n  \"protocol\": 7\n}\n");
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--protocol", "zab"], &["no protocol `zab`", "raft"]),
        (&["--nodes", "10"], &["cannot run on 10 replicas", "1 to 9"]),
        (&["--nodes", "0"], &["cannot run on 0 replicas"]),
        (&["--faults", "loss,lightning"], &["column 6", "`lightning`", "partition"]),
        (&["--option", "colour=red"], &["no option `colour`"]),
        (&["--shard", "3/3"], &["I from 0 to N-1"]),
        (&["script", &script], &["bad.trace:4:1", "fly"]),
        (&["merge", &report], &["bad.json", "line 2 column 15"]),
        (&["script", "--protocol", "zab", &script], &["no protocol `zab`"]),
    ];
    for (arguments, words) in cases {
        let output = simulate(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}

/// A recorded run is written as text, as one page that loads nothing, and for ShiViz; a filter leaves out the rest.
#[test]
fn a_run_is_recorded() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let run = |name: &str, more: &[&str]| {
        let path = folder.path().join(name).to_string_lossy().into_owned();
        let output =
            simulate(&[&["--seed", "7", "--nodes", "3", "--seconds", "3", "--trace", &path], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        std::fs::read_to_string(&path).expect("it was written")
    };
    let all = run("run.txt", &[]);
    let roles = run("roles.txt", &["--only", "stands"]);
    assert!(
        all.lines().count() > 10 * roles.lines().count() && roles.lines().all(|line| line.contains(" is "))
    );
    let page = run("run.html", &[]);
    assert!(page.starts_with("<!doctype html>") && !page.contains("http"));
    assert!(run("run.shiviz", &[]).starts_with("(?<host>"));
}
