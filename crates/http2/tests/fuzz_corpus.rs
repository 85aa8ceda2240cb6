//! The fuzz target of header blocks without libFuzzer: the same entry point over its corpus, and mutations of it.
#![allow(clippy::disallowed_methods)] // A test may read its corpus.

#[allow(unreachable_pub)] // Public for the fuzz target.
#[path = "../../../fuzz/src/http2.rs"]
mod http2;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/http2");
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files.map(|file| fs::read(file.expect("a file of the corpus").path()).expect("a seed")).collect()
}

/// Every seed passes, and so does whatever a few wrong bytes make of it.
#[test]
fn corpus_and_mutations() {
    let seeds = seeds();
    assert!(seeds.len() >= 2);
    seeds.iter().for_each(|seed| http2::header_blocks(seed));
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    proptest!(ProptestConfig::with_cases(2000), |(which in 0..seeds.len(), edits in edits)| {
        let mut bytes = seeds[which].clone();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        http2::header_blocks(&bytes);
    });
}
