//! The fuzz targets of log, snapshot, messages, JSON and HTTP/2 connections without libFuzzer: the same entry points over the same
//! corpus, and mutations of it. So the ordinary tests, and with them CI, run every target for a short while.

#[allow(unreachable_pub)] // Public for the fuzz targets.
#[path = "../../../fuzz/src/messages.rs"]
mod messages;
#[allow(unreachable_pub)]
#[path = "../../../fuzz/src/storage.rs"]
mod storage;

use std::fs;
use std::path::{Path, PathBuf};

use synod_server::tried;

/// Mutations of each seed; `just fuzz` has the tool for more.
const MUTATIONS: u64 = if cfg!(debug_assertions) { 100 } else { 2000 };

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file of the corpus").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("a seed"))).collect()
}

/// Steele, Lea and Flood's splitmix64: the same mutations in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }

    /// Changes, removes, repeats or adds a few bytes.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + self.below(20)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                2 if at < bytes.len() => bytes[at] = [0, 0xff, 0x7f, 0x80][self.below(4)],
                3 => drop(bytes.drain(at..end)),
                4 => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
                _ => bytes.insert(at, self.below(256) as u8),
            }
        }
    }
}

fn run(target: &str, entry: fn(&[u8])) {
    let mut numbers = Numbers(target.len() as u64);
    for (path, seed) in seeds(target) {
        println!("{}", path.display());
        entry(&seed);
        for _ in 0..MUTATIONS {
            let mut bytes = seed.clone();
            numbers.mutate(&mut bytes);
            entry(&bytes);
        }
    }
}

/// Logs, changed logs, snapshots.
#[test]
fn storage() {
    run("log", storage::log);
    run("log_edits", storage::log_edits);
    run("snapshot", storage::snapshot);
}

/// Peers' frames, records, commands, requests.
#[test]
fn messages() {
    run("packet", messages::packet);
    run("record", messages::record);
    run("op", messages::op);
    run("protobuf", messages::protobuf);
}

/// Bodies of the JSON gateway.
#[test]
fn json() {
    run("json", tried::json);
}

/// What a client says on an HTTP/2 connection.
#[test]
fn connection() {
    run("connection", tried::connection);
}

/// Every target that there is, is run by some ordinary test.
#[test]
fn none_is_left_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| fs::read_to_string(root.join(path)).expect(path);
    let tests = read("crates/server/tests/fuzz_corpus.rs")
        + &read("fuzz/src/importers.rs")
        + &read("crates/http2/tests/fuzz_corpus.rs");
    for target in fs::read_dir(root.join("fuzz/fuzz_targets")).expect("the targets") {
        let target = target.expect("a target").path();
        let name = target.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(tests.contains(&format!("{name}\"")), "no ordinary test runs the fuzz target {name}");
        assert!(!seeds(&name).is_empty());
    }
}
