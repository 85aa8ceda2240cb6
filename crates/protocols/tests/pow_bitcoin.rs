//! Bitcoin's own blocks, judged by this code: bit for bit, because the form and the rules are the same.
//!
//! All 255 headers and the vectors lie outside the repository (`../shared/oracles`, or where `SYNOD_ORACLES` says); where they are
//! absent the tests say so, and the first twenty (`tests/fixtures`) stand in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use synod_core::Wire;
use synod_protocols::pow::{
    BadBits, BadWork, HEADER_BYTES, Hash, Header, Mining, Options, U256, bits_of, check_chain, retarget,
    target_of, work_of,
};

fn oracles() -> Option<PathBuf> {
    let place = std::env::var_os("SYNOD_ORACLES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracles"), PathBuf::from);
    if place.join("MANIFEST.tsv").exists() {
        return Some(place);
    }
    println!("no oracles at {}: set SYNOD_ORACLES; skipped", place.display());
    None
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).expect("hex")).collect()
}

/// Bitcoin's rules and its genesis block.
fn bitcoin() -> (Options, Header) {
    let options = Options {
        spacing: Duration::from_secs(600),
        retarget_blocks: 2016,
        limit_bits: 0x1d00_ffff,
        genesis_bits: 0x1d00_ffff,
        mining: Mining::Off,
        ..Options::default()
    };
    let mut merkle = bytes("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b");
    merkle.reverse();
    let genesis = Header {
        version: 1,
        previous: Hash::default(),
        merkle: Hash(merkle.try_into().expect("32 bytes")),
        time: 1_231_006_505,
        bits: 0x1d00_ffff,
        nonce: 2_083_236_893,
    };
    (options, genesis)
}

fn headers(text: &str) -> Vec<Header> {
    let (_, genesis) = bitcoin();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let decode = |line: &str| Header::decode_all(bytes(line).into()).expect("a header");
    std::iter::once(genesis).chain(lines.map(decode)).collect()
}

fn judge(headers: &[Header]) {
    let (options, _) = bitcoin();
    assert_eq!(
        headers[0].hash().to_string(),
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
    );
    check_chain(headers, 0, &options).expect("Bitcoin's chain is valid");
    // Any flipped bit makes it invalid: that is what the work is for.
    let mut rng = synod_core::Rng::new(1);
    for _ in 0..200 {
        let place = rng.between(1, headers.len() as u64 - 2) as usize;
        let mut bent = headers.to_vec();
        let mut raw = bent[place].to_array();
        raw[rng.below(HEADER_BYTES as u64) as usize] ^= 1 << rng.below(8);
        bent[place] = Header::from_array(&raw);
        assert!(check_chain(&bent, 0, &options).is_err(), "header {place} with a bit flipped");
    }
}

/// The first twenty blocks of Bitcoin are valid here, and none with a bit flipped.
#[test]
fn the_first_twenty_headers_are_valid() {
    let headers = headers(include_str!("fixtures/bitcoin_headers.hex"));
    assert_eq!(headers.len(), 21);
    judge(&headers);
}

/// All 255 consecutive headers of the oracle are valid, and their bytes come back as they were.
#[test]
fn all_255_headers_are_valid() {
    let Some(oracles) = oracles() else { return };
    let text = std::fs::read_to_string(oracles.join("bitcoin/mainnet_headers_1_256.hex")).expect("headers");
    let headers = headers(&text);
    assert_eq!(headers.len(), 256);
    judge(&headers);
    for (header, line) in headers[1..].iter().zip(text.lines()) {
        assert_eq!(header.to_bytes(), bytes(line), "bit for bit");
    }
    let work =
        headers.iter().fold(U256::ZERO, |sum, it| sum.plus(work_of(target_of(it.bits).expect("a target"))));
    assert_eq!(work, U256::of(256 * 0x1_0001_0001), "2^32 hashes and a little for each");
}

/// Every vector of Bitcoin's own test of the retarget rule gives its bits (`pow_tests.cpp`, MIT licence).
#[test]
fn the_retarget_vectors_hold() {
    let (options, _) = bitcoin();
    let limit = target_of(options.limit_bits).expect("a target");
    let next = |bits, first, last| {
        bits_of(retarget(target_of(bits).expect("a target"), first, last, 14 * 24 * 3600, limit))
    };
    for (first, last, bits, expected) in [
        (1_261_130_161, 1_262_152_739, 0x1d00_ffff, 0x1d00_d86a),
        (1_231_006_505, 1_233_061_996, 0x1d00_ffff, 0x1d00_ffff),
        (1_279_008_237, 1_279_297_671, 0x1c05_a3f4, 0x1c01_68fd),
        (1_263_163_443, 1_269_211_443, 0x1c38_7f6f, 0x1d00_e1fd),
    ] {
        assert_eq!(next(bits, first, last), expected, "{bits:08x} from {first} to {last}");
    }
    let Some(oracles) = oracles() else { return };
    // The oracle's file holds the same; a few lines of JSON need no parser.
    let text = std::fs::read_to_string(oracles.join("bitcoin/retarget_vectors.json")).expect("vectors");
    let field = |part: &str, name: &str| -> String {
        let rest = part.split_once(&format!("\"{name}\":")).expect("the field is there").1;
        rest.trim_start().trim_start_matches('"').chars().take_while(char::is_ascii_alphanumeric).collect()
    };
    let parts: Vec<&str> = text.split('{').skip(1).collect();
    assert_eq!(parts.len(), 4);
    for part in parts {
        let hex = |name| u32::from_str_radix(&field(part, name), 16).expect("bits");
        let number = |name| field(part, name).parse::<u32>().expect("a time");
        assert_eq!(next(hex("bits"), number("first_time"), number("last_time")), hex("next_bits"), "{part}");
    }
}

/// A header of 79 or 81 bytes is none; bits of zero, below zero, beyond 256 bits or above the limit prove no work, each by name.
#[test]
fn bad_headers_are_told_apart() {
    let (options, genesis) = bitcoin();
    let limit = target_of(options.limit_bits).expect("a target");
    let raw = genesis.to_array();
    assert!(Header::decode_all(raw[..79].to_vec().into()).is_err());
    assert!(Header::decode_all([&raw[..], &[0]].concat().into()).is_err());
    assert_eq!(genesis.check_work(limit), Ok(()));
    for (bits, why) in [
        (0, BadWork::Bits(BadBits::Zero)),
        (0x1d80_ffff, BadWork::Bits(BadBits::Negative)),
        (0xff00_ffff, BadWork::Bits(BadBits::Overflow)),
        (0x1d01_0000, BadWork::AboveLimit),
        (0x207f_ffff, BadWork::AboveLimit),
        (0x1d00_fffe, BadWork::TooLittle),
    ] {
        assert_eq!(Header { bits, ..genesis }.check_work(limit), Err(why), "{bits:08x}");
    }
}
