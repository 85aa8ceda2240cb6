//! Bytes from anywhere into everything that reads bytes: the entry points that the fuzz targets call.
//!
//! Each function takes any bytes at all and panics only when something is wrong with Synod: a decoder answers with a
//! value or an error, and what was decoded can be used. The targets in `fuzz_targets/` add nothing but libFuzzer.
//! JSON bodies and HTTP/2 connections are tried by `synod_server::tried`, beside what they try.
//! `importers` knows the checker alone, so that the checker's ordinary tests include the same file
//! (`crates/check/tests/fuzz_corpus.rs`) and run the corpus where there is no libFuzzer.
//!
//! `just fuzz TARGET SECONDS` runs one; `cargo run --example seeds` writes the binary part of the corpus anew.

pub mod http2;
pub mod importers;
pub mod messages;
pub mod storage;
