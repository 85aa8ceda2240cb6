//! Fuzz target: our own JSON lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::importers::synod(bytes));
