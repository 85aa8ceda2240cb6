//! Fuzz target: a snapshot file, as a member finds it when it starts.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::storage::snapshot(bytes));
