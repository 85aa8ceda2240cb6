//! Fuzz target: Jepsen's, Knossos', Elle's and Porcupine's events in EDN.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::importers::edn(bytes));
