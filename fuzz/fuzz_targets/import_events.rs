//! Fuzz target: the same events in JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::importers::events(bytes));
