//! The fuzz targets of the importers, without libFuzzer: the same entry points over the same corpus, and mutations of it.

// Its items are public for the fuzz targets.
#[allow(unreachable_pub, clippy::type_complexity)]
#[path = "../../../fuzz/src/importers.rs"]
mod importers;

use std::fs;
use std::path::{Path, PathBuf};

/// Mutations of each seed; `fuzz/` has the tool for more.
const MUTATIONS: u64 = if cfg!(debug_assertions) { 200 } else { 3000 };

/// The bytes on which a notation turns: put in the place of others they break more than chance does.
const TURNING: &[u8] = b"0123456789[]{}()\":,-;#\\\n\t eE.";

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
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        let end = (at + numbers.below(40)).min(bytes.len());
        match numbers.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 if at < bytes.len() => bytes[at] = TURNING[numbers.below(TURNING.len())],
            2 => drop(bytes.drain(at..end)),
            3 => bytes.insert(at, numbers.below(256) as u8),
            4 => bytes.truncate(at),
            5 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let from = numbers.below(other.len());
                let piece = &other[from..(from + numbers.below(60)).min(other.len())];
                bytes.splice(at..end, piece.iter().copied());
            }
        }
    }
}

/// Every seed, and thousands of mutations and crossings of each, are read or refused with a place, and what is read
/// can be judged.
#[test]
fn the_corpus_and_its_mutations_never_panic() {
    for (target, entry) in importers::TARGETS {
        let seeds = seeds(target);
        for (number, (_, seed)) in seeds.iter().enumerate() {
            entry(seed);
            let mut numbers = Numbers(number as u64);
            for _ in 0..MUTATIONS {
                let mut bytes = seed.clone();
                let other = &seeds[numbers.below(seeds.len())].1;
                mutate(&mut bytes, other, &mut numbers);
                entry(&bytes);
            }
        }
    }
}

/// The seeds of an importer are valid inputs of it: a corpus of refused ones would try nothing behind the first byte.
#[test]
fn seeds_are_read() {
    for (target, _) in importers::TARGETS {
        for (path, seed) in seeds(target) {
            let format = target.strip_prefix("import_").map(|name| name.replace('_', "-"));
            let format = format.map(|name| synod_check::formats::Format::by_name(&name).expect("a format"));
            let options = synod_check::formats::Options { format, ..Default::default() };
            let read = synod_check::formats::read_all(&seed[..], "seed", &options);
            assert!(read.is_ok_and(|histories| !histories.is_empty()), "{}", path.display());
        }
    }
}
