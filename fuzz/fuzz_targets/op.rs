//! Fuzz target: a command of the key-value store.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::messages::op(bytes));
